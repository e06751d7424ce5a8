"""A server in a thread of the test's process, and requests to it. Shared by the tests of `ntulm/serving/`."""

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ntulm.serving.app import Service
from ntulm.serving.keeper import Keeper
from ntulm.serving.limits import USUAL, Limits
from ntulm.serving.run import Server

WAIT = 60.0  # seconds at most, for anything


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return self.json["error"]["message"]


@dataclass
class Running:
    """A server that listens."""

    server: Server
    service: Service
    port: int

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request over a connection of its own; a body that is no bytes goes as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        return self.ask("POST", path, body, **headers)

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def counted(self, name: str, **labels: str) -> float:
        """A figure of the metrics."""
        return self.service.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def running(directory: Any, limits: Limits = USUAL, key: str | None = None, name: str = "posts") -> Iterator[Running]:
    """Serve a model directory on a free port of loopback until the block ends."""
    keeper = Keeper(str(directory), name, "cpu")
    keeper.start()
    services: list[Any] = []

    async def serve() -> None:
        service = Service(keeper, limits, key)
        server = Server(service, "127.0.0.1", 0)
        services.extend([service, server])
        await server.serve()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    until(lambda: len(services) == 2 and services[1].started)
    service, server = services
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Running(server, service, port)
    finally:
        server.should_exit = True
        thread.join(WAIT)
        assert not thread.is_alive()


def until(condition: Any) -> None:
    """Wait for it."""
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
