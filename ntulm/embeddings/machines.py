"""Which processes of PyTorch-BigGraph train where, as the environment says, and how machines meet and stay in touch.

Library of pbg.py. The variables are those of the language model (docs/how-to/several-gpus.md): `NTULM_RANKS` processes
on each machine, and torchrun's `PET_NNODES`, `PET_NODE_RANK`, `PET_MASTER_ADDR` and `PET_MASTER_PORT`.

The first machine listens at that port; each other one connects to it, and gets the address at which the processes of
PBG meet. The connections stay open until the training is done: one that ends earlier tells that a machine has failed,
which PBG itself would wait for without end. What travels is a line of JSON each way and a line at the end.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ntulm.embeddings.trainers import LostError
from ntulm.errors import UserError

RANKS = "NTULM_RANKS"
EACH_GPU = "all"  # PBG trains on CPUs, with `embeddings.workers` of its own: one process is all of a machine
NODES, NODE, ADDRESS, PORT = "PET_NNODES", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"
PER_TRAINER = 2  # partitions: one for each side of the bucket that it trains
HERE = "127.0.0.1"
PATIENCE = 1800.0  # seconds for the slowest machine: it may still write its edges in partitions
GREETING_SECONDS = 10.0  # for whoever connects
RETRY_SECONDS = 0.5
LONGEST = 1 << 12  # bytes of a line
DONE = b"done\n"
KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}  # notices a machine without power


@dataclass(frozen=True)
class Share:
    """This machine's part in a training."""

    machines: int = 1
    own: int = 0  # the number of this machine
    each: int = 1  # processes per machine
    address: tuple[str, int] = (HERE, 0)  # where machines meet

    @property
    def count(self) -> int:
        """Processes on all machines."""
        return self.machines * self.each

    @property
    def ranks(self) -> range:
        """Those of this machine."""
        return range(self.own * self.each, (self.own + 1) * self.each)

    @property
    def leads(self) -> bool:
        """Whether this machine has the result."""
        return self.own == 0

    @property
    def several(self) -> bool:
        """Whether there are other machines."""
        return self.machines > 1


ALONE = Share()


def share(partitions: int, environment: Mapping[str, str] = os.environ) -> Share:
    """What the environment asks for; one process without `NTULM_RANKS`, and on one machine without partitions.

    Raises:
        UserError: a variable has no such value, or there are fewer than two partitions per process.
    """
    wanted = environment.get(RANKS)
    if wanted is None:
        return ALONE
    each = 1 if wanted == EACH_GPU else _number(environment, RANKS, 1, f", or {EACH_GPU}: one per machine")
    machines = _number(environment, NODES, 1) if NODES in environment else 1
    if machines == 1 and partitions == 1:
        return ALONE
    count = machines * each
    if partitions < PER_TRAINER * count:
        raise UserError(
            f"embeddings.partitions: {partitions} for {count} processes ({RANKS}, {NODES}); expected at least "
            f"{PER_TRAINER * count}, two per process"
        )
    if machines == 1:
        return Share(each=each)
    if not environment.get(ADDRESS):
        raise UserError(f"{ADDRESS}: not set; expected the name or address of the first machine")
    own = _number(environment, NODE, 0)
    if own >= machines:
        raise UserError(f"{NODE}: {own} of {machines} machines ({NODES}); they count from 0")
    return Share(machines, own, each, (environment[ADDRESS], _number(environment, PORT, 1)))


def _number(environment: Mapping[str, str], name: str, least: int, or_else: str = "") -> int:
    value = environment.get(name, "")
    if not (value.isascii() and value.isdigit() and int(value) >= least):
        raise UserError(f"{name}: {value!r}; expected a number from {least} on{or_else}")
    return int(value)


@dataclass
class Meeting:
    """The machines of a training that has begun."""

    url: str  # where the processes of PBG meet
    others: dict[int, socket.socket] = field(default_factory=dict)  # on the first machine all others, else the first
    over: bool = False

    def watch(self, lose: Callable[[str], None]) -> None:
        """Call `lose` with what happened, once another machine ends before it is done."""
        for machine, connection in self.others.items():
            threading.Thread(target=self._watch, args=(machine, connection, lose), daemon=True).start()

    def _watch(self, machine: int, connection: socket.socket, lose: Callable[[str], None]) -> None:
        try:
            line = _line(connection)
        except (OSError, ValueError):
            line = b""
        if line != DONE and not self.over:
            lose(f"machine {machine} has ended or is out of reach; see what it says itself")

    def close(self, done: bool) -> None:
        """Tell the others that this machine is done, or tell nothing, which they take for a failure."""
        self.over = True
        for connection in self.others.values():
            with connection, suppress(OSError):  # whoever has ended does not need to know
                if done:
                    connection.sendall(DONE)
                connection.shutdown(socket.SHUT_RDWR)  # ends what watches it here


@contextmanager
def met(own: Share, fingerprint: str) -> Iterator[Meeting]:
    """All machines of a training, from when they have met to when this one is done.

    Args:
        own: this machine's part.
        fingerprint: of what has to be the same on all.

    Raises:
        LostError: they have not come.
        UserError: one of them has another graph, other parameters or another number of machines.
    """
    if own.machines == 1:
        meeting = Meeting(f"tcp://{HERE}:{_free_port()}")
    else:
        about = {"machines": own.machines, "each": own.each, "fingerprint": fingerprint}
        meeting = _receive(own, about) if own.leads else _join(own, about)
    done = False
    try:
        yield meeting
        done = True
    finally:
        meeting.close(done)


def _receive(own: Share, about: dict[str, Any]) -> Meeting:
    """Wait for all other machines, and tell them where to meet."""
    until = time.monotonic() + PATIENCE
    others: dict[int, socket.socket] = {}
    with ExitStack() as open_ones, _listening(own.address[1]) as server:
        while len(others) < own.machines - 1:
            connection = open_ones.enter_context(_accepted(server, until, others, own))
            told = _greeting(connection)
            if told is None:
                connection.close()  # whoever that was
                continue
            machine = told.pop("own")
            if told != about or machine in others or machine >= own.machines:
                why = f"machine {machine} has another graph, parameters, number or {RANKS} than machine 0"
                for one in (connection, *others.values()):
                    _send(one, {"refused": why})
                raise UserError(f"{why}; give all machines the same, and each a {NODE} of its own")
            others[machine] = connection
        url = f"tcp://{own.address[0]}:{_free_port()}"
        for connection in others.values():
            _send(connection, {"url": url})
            connection.settimeout(None)
        open_ones.pop_all()
    return Meeting(url, others)


def _accepted(server: socket.socket, until: float, others: Mapping[int, socket.socket], own: Share) -> socket.socket:
    server.settimeout(max(until - time.monotonic(), RETRY_SECONDS))
    try:
        connection, _ = server.accept()
    except TimeoutError as error:
        raise LostError(
            f"{len(others)} of {own.machines - 1} other machines have come to port {own.address[1]} in "
            f"{PATIENCE / 60:.0f} minutes; start all of them, with the {ADDRESS} of this one"
        ) from error
    connection.settimeout(GREETING_SECONDS)
    _keep_alive(connection)
    return connection


def _greeting(connection: socket.socket) -> dict[str, Any] | None:
    """What a machine tells of itself; None: it is none."""
    try:
        told = json.loads(_line(connection))
    except (OSError, ValueError, RecursionError):
        return None
    own = told.get("own") if isinstance(told, dict) else None
    return told if type(own) is int and own > 0 else None


def _join(own: Share, about: dict[str, Any]) -> Meeting:
    """Go to the first machine, and hear where to meet."""
    with ExitStack() as open_ones:
        connection = open_ones.enter_context(_connected(own))
        _keep_alive(connection)
        connection.settimeout(PATIENCE)
        try:
            _send(connection, {**about, "own": own.own})
            told = json.loads(_line(connection))
        except (OSError, ValueError) as error:
            raise LostError("machine 0 has ended or is out of reach; see what it says itself") from error
        if "url" not in told:
            raise UserError(str(told.get("refused", "machine 0 speaks another version")))
        connection.settimeout(None)
        open_ones.pop_all()
    return Meeting(told["url"], {0: connection})


def _connected(own: Share) -> socket.socket:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(own.address, GREETING_SECONDS)
        except OSError as error:
            if time.monotonic() > until:
                where = f"{own.address[0]}:{own.address[1]}"
                raise LostError(f"machine 0 cannot be reached at {where}: {error}") from error
            time.sleep(RETRY_SECONDS)


def _listening(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        if both:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        return socket.create_server(("", port))
    except OSError as error:
        raise UserError(f"{PORT}: port {port} of this machine cannot be used: {error.strerror or error}") from error


def _free_port() -> int:
    with socket.create_server((HERE, 0)) as server:
        return int(server.getsockname()[1])


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _send(connection: socket.socket, value: dict[str, Any]) -> None:
    connection.sendall(json.dumps(value).encode() + b"\n")


def _line(connection: socket.socket) -> bytes:
    """The next line; what comes after it is not read by anybody.

    Raises:
        ValueError: it is too long, or the connection ended in it.
    """
    line = b""
    while not line.endswith(b"\n"):
        found = connection.recv(1)
        if not found or len(line) == LONGEST:
            raise ValueError("no line")
        line += found
    return line
