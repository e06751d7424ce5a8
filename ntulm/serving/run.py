"""`ntulm serve`: uvicorn. SIGTERM and SIGINT finish what is being answered, SIGHUP loads the model anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from ntulm.serving.app import Service, create_app
from ntulm.serving.faults import Fault
from ntulm.serving.keeper import Keeper
from ntulm.serving.limits import Limits

LOG = logging.getLogger("ntulm.serving")


def run(model: str, name: str | None, host: str, port: int, key: str | None, limits: Limits) -> None:
    """Serve until told to stop.

    Args:
        model: what `ntulm.load` takes; looked up again at each reload.
        name: that clients call it by; None: the last part of `model`.
        host: the address to listen on.
        port: 0: any that is free.
        key: that requests need; None: none.
        limits: how much at a time.

    Raises:
        UserError: there is no such model, or something of it is missing or damaged.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for library in ("httpx", "httpcore", "huggingface_hub", "transformers"):
        logging.getLogger(library).setLevel(logging.WARNING)
    keeper = Keeper(model, name or name_of(model))
    keeper.start()
    service = Service(keeper, limits, key)
    Server(service, host, port).run()


class Server(uvicorn.Server):
    """uvicorn, which also listens to SIGHUP."""

    def __init__(self, service: Service, host: str, port: int) -> None:
        self.service = service
        self.reloads: set[asyncio.Task[None]] = set()
        limits = service.limits
        super().__init__(
            uvicorn.Config(
                create_app(service),
                host=host,
                port=port,
                log_config=None,
                access_log=False,  # the guard's has no queries
                server_header=False,
                lifespan="on",  # no limit_concurrency: it would refuse probes as well
                timeout_graceful_shutdown=limits.stop_seconds,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own, and SIGHUP."""
        with super().capture_signals():
            loop = asyncio.get_running_loop()
            with contextlib.suppress(RuntimeError, ValueError):  # not in the main thread: nobody sends signals there
                loop.add_signal_handler(signal.SIGHUP, self._reload)
            yield

    def _reload(self) -> None:
        task = asyncio.get_running_loop().create_task(self._reloaded())
        self.reloads.add(task)
        task.add_done_callback(self.reloads.discard)

    async def _reloaded(self) -> None:
        try:
            await self.service.reload()
        except Fault as fault:
            LOG.error("reload: %s", fault.message)


def name_of(model: str) -> str:
    """What clients call a model that nobody named."""
    return Path(model.removeprefix("hf://")).name or model
