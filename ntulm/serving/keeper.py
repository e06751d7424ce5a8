"""Which model answers: the one that was loaded last. A new one is tried before it takes over, and a bad one never does.

Requests that were read by the earlier model are still answered by it; it goes when nobody holds it any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ntulm.errors import UserError
from ntulm.inference.directory import find
from ntulm.inference.model import Model, load
from ntulm.inference.version import version_of

LOG = logging.getLogger("ntulm.serving")
TRIED = ["a post #tag", {"text": "another post", "author": "somebody"}]


@dataclass(frozen=True)
class Served:
    """A model in use."""

    model: Model
    name: str  # that clients call it by
    version: str
    since: datetime


Between = Callable[[Callable[[], Model]], Awaitable[Model]]


class Keeper:
    """Holds the model in use."""

    def __init__(self, source: str, name: str, device: str | None = None) -> None:
        self.source = source
        self.name = name
        self.device = device
        self.served: Served | None = None
        self.busy = asyncio.Lock()

    @property
    def current(self) -> Served:
        """The model in use."""
        assert self.served is not None, "`start` comes first"
        return self.served

    def start(self) -> Served:
        """Load the first model, before anything is served.

        Raises:
            UserError: it cannot be loaded.
        """
        directory = find(self.source)
        self.served = Served(self._tried(directory), self.name, version_of(directory), datetime.now(UTC))
        return self.served

    async def reload(self, between: Between) -> Served:
        """Load what `source` stands for now, and let it take over.

        Args:
            between: does something between two batches: loading changes settings of torch that encoding reads.

        Raises:
            UserError: it cannot be loaded; the model in use stays.
        """
        async with self.busy:
            directory = await asyncio.to_thread(find, self.source)  # may fetch it from the hub
            version = await asyncio.to_thread(version_of, directory)
            model = await between(lambda: self._tried(directory))
            self.served = Served(model, self.name, version, datetime.now(UTC))
            LOG.info("model %s, version %s, is in use", self.name, version)
            return self.served

    def _tried(self, directory: Path) -> Model:
        model = load(directory, self.device)
        vectors = model.encode(TRIED)
        if not (vectors == vectors).all():
            raise UserError(f"{directory}: its vectors are no numbers")
        return model
