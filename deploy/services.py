"""Background processes with verified records: each is started once, recognised for sure, and ended with its children.

The record of a service is `HOME/run/NAME.json`: process id, time of its start, port. A process id alone could by now
belong to somebody else's process; together with the time of the start it cannot.

A service that is killed leaves its children to run on in sessions of their own (a worker its flow runs, with their
stages). They are found by a mark in their environment, the path of the record, which all that it starts inherits.
"""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

END_SECONDS = 40.0  # a worker gives its flow runs 30
SETTLE_SECONDS = 0.5
POLL_SECONDS = 0.1
MARK = "NTULM_SERVICE"  # in the environment of all that a service starts


class ServiceError(Exception):
    """A service cannot start; the message says why."""


@dataclass(frozen=True)
class Service:
    """A name, a command, and the port that it listens on, if any."""

    name: str
    command: list[str]
    port: int | None = None


def start(service: Service, home: Path, root: Path, environment: Mapping[str, str]) -> None:
    """Start the service in `root` unless it runs already, its output in `home/logs`.

    Raises:
        ServiceError: something else listens on its port, or it ended at once.
    """
    if is_running(service, home):
        return
    if service.port is not None and _taken(service.port):
        raise ServiceError(f"port {service.port} is taken by another program; choose one, e.g. make up NTULM_PORT=4300")
    log = home / "logs" / f"{service.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603
            service.command,
            cwd=root,
            env=dict(environment) | {MARK: _mark(service.name, home)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = psutil.Process(process.pid).create_time()
    record = {"pid": process.pid, "started": started, "port": service.port}
    _record(service.name, home).parent.mkdir(parents=True, exist_ok=True)
    _record(service.name, home).write_text(json.dumps(record), encoding="utf-8")
    time.sleep(SETTLE_SECONDS)
    if process.poll() is not None:
        raise ServiceError(f"{service.name} ended at once with exit code {process.returncode}; its log is {log}")


def is_running(service: Service, home: Path) -> bool:
    """Whether the process that `start` started still runs."""
    return _process(service.name, home) is not None


def recorded_port(home: Path) -> int | None:
    """The port of the server that runs from `home`."""
    if _process("server", home) is None:
        return None
    port = json.loads(_record("server", home).read_text(encoding="utf-8"))["port"]
    return int(port)


def end(service: Service, home: Path) -> None:
    """End the service and all that it started, gently first; say so. Nothing happens where nothing of it runs."""
    process = _process(service.name, home)
    if process is not None:
        _end([process], [*process.children(recursive=True), process])
        print(f"ended {service.name}")
    left = left_behind(service, home)
    if left:
        ours = {one.pid for one in left}
        _end([one for one in left if _parent(one) not in ours], left)
        print(f"ended what {service.name} left behind when it was killed: {len(left)} processes")
    _record(service.name, home).unlink(missing_ok=True)


def left_behind(service: Service, home: Path) -> list[psutil.Process]:
    """What the service started and is not a descendant of it, because an earlier one of its name was killed."""
    mark, process = _mark(service.name, home), _process(service.name, home)
    known = {os.getpid(), *(one.pid for one in psutil.Process().parents())}  # `make down` may stand below a service
    if process is not None:
        known |= {process.pid, *(one.pid for one in process.children(recursive=True))}
    return [one for one in psutil.process_iter() if one.pid not in known and _has_mark(one, mark)]


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return _runs(process) and process.environ().get(MARK) == mark
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):  # ended meanwhile, or somebody else's
        return False


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.NoSuchProcess:
        return None


def _end(first: list[psutil.Process], family: list[psutil.Process]) -> None:
    """Ask the first ones to end, which end the others; kill who is left."""
    _signal(first, psutil.Process.terminate)
    _signal(_left_after(family, END_SECONDS), psutil.Process.kill)
    _left_after(family, END_SECONDS)


def _left_after(family: list[psutil.Process], patience: float) -> list[psutil.Process]:
    """Who still runs after so many seconds, or at once where nobody does; a zombie does not, whoever has to reap it."""
    deadline = time.monotonic() + patience
    left = [process for process in family if _runs(process)]
    while left and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        left = [process for process in left if _runs(process)]
    return left


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(processes: list[psutil.Process], action: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            action(process)


def _process(name: str, home: Path) -> psutil.Process | None:
    """The recorded process, if it is the one that was started."""
    try:
        record = json.loads(_record(name, home).read_text(encoding="utf-8"))
        process = psutil.Process(record["pid"])
        same = process.create_time() == record["started"] and process.status() != psutil.STATUS_ZOMBIE
    except (FileNotFoundError, psutil.NoSuchProcess):
        return None
    return process if same else None


def _record(name: str, home: Path) -> Path:
    return home / "run" / f"{name}.json"


def _mark(name: str, home: Path) -> str:
    return str(_record(name, home).resolve())


def _taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
