"""The processes of PyTorch-BigGraph that train on this machine, and how all of them end.

Library of pbg.py. A process ends when its standard input closes; what it prints is one line per epoch, and what it logs
is kept in memory, in its last lines. The one that fails first is told; the others are ended.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from ntulm.errors import UserError

LOG_LINES = 15  # of PBG's log, shown when it fails
KEPT_LINES = 500  # in which the errors are looked for that came before
ERROR = re.compile(r"[\w.]*(?:Error|Exception): |.*error message = ")  # HDF5 says the second on a line of its own
LOG_SECONDS = 10.0  # in which the last of them come
CUT_OFF = re.compile(r"(?i)connection (?:was )?(?:closed|reset|refused)|broken pipe|failed to (?:recv|send|connect)")
CAUSE_SECONDS = 5.0  # in which the failure is told that cut a process off
GRACE_SECONDS = 20.0  # in which a process ends by itself
# `hash` of a string must be the same in all processes: PBG chooses by it who keeps a relation, and goes through types
# in an order that follows from it.
ENVIRONMENT = {"PYTHONHASHSEED": "0"}


class LostError(UserError):
    """Another machine has ended or cannot be reached; why, it tells itself."""


class Ended(NamedTuple):
    """A process of this machine has ended."""

    rank: int
    code: int


class Lost(NamedTuple):
    """Another machine has ended too early."""

    why: str


@dataclass
class Trainer:
    """A process, and the last lines of its log."""

    process: subprocess.Popen[str]
    reader: threading.Thread
    log: deque[str] = field(default_factory=deque)


class Trainers:
    """All processes of this machine; use as a context manager, in which none outlives the others."""

    def __init__(self, settings: dict[str, Any], ranks: range, count: int) -> None:
        """Start a process per rank, of `count` on all machines.

        Args:
            settings: for pbg_process.py, without the rank.
        """
        self._events: SimpleQueue[str | Ended | Lost] = SimpleQueue()
        self._count = count
        self._trainers: dict[int, Trainer] = {}
        try:
            for rank in ranks:
                self._trainers[rank] = _start(settings | {"rank": rank})
                threading.Thread(target=self._watch, args=(rank,), daemon=True).start()
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Trainers:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def lose(self, why: str) -> None:
        """Another machine has ended too early: whoever reads the lines is told."""
        self._events.put(Lost(why))

    def lines(self) -> Iterator[str]:
        """What the process of rank 0 prints, if it runs here, until all processes of this machine have ended.

        Raises:
            RuntimeError: a process failed; the message ends with the last lines of its log.
            UserError: it was killed, or one of several was ended by a signal.
            LostError: another machine has ended too early.
        """
        running = len(self._trainers)
        while running:
            event = self._events.get()
            if isinstance(event, Lost):
                raise self._cause(event)
            if isinstance(event, Ended):
                if event.code:
                    raise self._cause(event)
                running -= 1
            else:
                yield event

    def _watch(self, rank: int) -> None:
        process = self._trainers[rank].process
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._events.put(line)
        self._events.put(Ended(rank, process.wait()))

    def _cause(self, event: Ended | Lost) -> Exception:
        """Of a process that failed: it may have been cut off by one that failed before."""
        while isinstance(event, Ended) and self._cut_off(event):
            try:
                following = self._events.get(timeout=CAUSE_SECONDS)
            except Empty:
                break
            if isinstance(following, Lost) or (isinstance(following, Ended) and following.code):
                event = following
        return LostError(event.why) if isinstance(event, Lost) else self._failure(event)

    def _cut_off(self, event: Ended) -> bool:
        if self._count == 1 or event.code == -signal.SIGKILL:
            return False
        trainer = self._trainers[event.rank]
        trainer.reader.join(LOG_SECONDS)
        return any(CUT_OFF.search(line) for line in list(trainer.log))

    def _failure(self, event: Ended) -> Exception:
        trainer = self._trainers[event.rank]
        killed = event.code == -signal.SIGKILL
        if killed or (event.code < 0 and self._count > 1):
            who = f"the process of rank {event.rank} of {self._count}" if self._count > 1 else "PyTorch-BigGraph"
            why = "; the machine may have run out of memory" if killed else ""
            return UserError(f"{who} was ended by {signal.Signals(-event.code).name}{why}")
        trainer.reader.join(LOG_SECONDS)
        lines = list(trainer.log)
        # The error that others followed: that a disk is full is told first, then what could not be closed.
        earlier = dict.fromkeys(line for line in lines[:-LOG_LINES] if ERROR.match(line))
        tail = "".join([*earlier, *lines[-LOG_LINES:]])
        which = f", rank {event.rank} of {self._count}," if self._count > 1 else ""
        return RuntimeError(f"PyTorch-BigGraph{which} ended with code {event.code}; its log ends with:\n{tail}")

    def _end(self) -> None:
        """End all that still run, by closing their standard input."""
        for trainer in self._trainers.values():
            assert trainer.process.stdin is not None
            trainer.process.stdin.close()
        for trainer in self._trainers.values():
            try:
                trainer.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                trainer.process.kill()
                trainer.process.wait()


def _start(settings: dict[str, Any]) -> Trainer:
    command = [sys.executable, "-W", "ignore", "-m", "ntulm.embeddings.pbg", json.dumps(settings)]
    log: deque[str] = deque(maxlen=KEPT_LINES)  # not a file: the disk may be what fails
    errors, written = os.pipe()
    reader = threading.Thread(target=_collect, args=(errors, log), daemon=True)
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(  # noqa: S603
            command, stdin=pipe, stdout=pipe, stderr=written, text=True, env=os.environ | ENVIRONMENT
        )
    finally:
        os.close(written)
        reader.start()
    return Trainer(process, reader, log)


def _collect(errors: int, log: deque[str]) -> None:
    with os.fdopen(errors, encoding="utf-8", errors="replace") as lines:
        log.extend(lines)
