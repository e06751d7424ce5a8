"""The folder that a flow works in: its lock, the environment of its commands, and the commands themselves.

One flow run at a time writes to a workspace. The lock is an `flock` on `.dvc/tmp/flows.lock`: the kernel frees it when
its holders are gone, however they went. The supervisor of a running stage holds it too, so that a run that starts right
after a killed one waits until the killed one's stage has ended. People's own `dvc repro` is kept apart by DVC's locks.
"""

import fcntl
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flows.failure import CommandError, failure_of
from flows.mending import Log, mend
from flows.supervised import run_supervised

LOCK = Path(".dvc/tmp/flows.lock")
WAIT_SECONDS = 1.0
REMIND_SECONDS = 60.0
KEPT_LINES = 400  # of the output, to find the reason of a failure in
QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
}
SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|API_KEY|ACCESS_KEY|AUTH_STRING|CONNECTION_URL")
SHORTEST_SECRET = 6


@dataclass(frozen=True)
class Workspace:
    """An open workspace: the root of the project, the descriptor of its lock, and the request to stop."""

    root: Path
    lock: int
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, command: Sequence[str], log: Log, settings: Mapping[str, str] | None = None) -> list[str]:
        """Run a command in the root, log its lines, and return the last of them.

        Args:
            command: Program and arguments.
            log: Called with each line.
            settings: Environment variables that differ for this command.

        Raises:
            CommandError: the command failed; the message is its own reason.
            StoppedError: `stop` was set.
        """
        lines: deque[str] = deque(maxlen=KEPT_LINES)
        hide = secrets_hidden(os.environ)

        def keep(line: str) -> None:
            line = hide(line)
            lines.append(line)
            log(line)

        environment = command_environment(os.environ) | dict(settings or {})
        code = run_supervised(command, self.root, environment, keep, self.stop, [self.lock])
        if code:
            raise failure_of(list(lines), code)
        return list(lines)


@contextmanager
def open_workspace(root: Path, owner: str, log: Log) -> Iterator[Workspace]:
    """Wait until no other run writes to the workspace, and hold it.

    Raises:
        CommandError: `root` is not the root of a DVC project.
    """
    if not (root / ".dvc").is_dir() or not (root / "dvc.yaml").is_file():
        raise CommandError(f"{root}: no .dvc folder and dvc.yaml here; the flow runs in the root of the project")
    (root / LOCK).parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _wait_for(lock, log)
        os.truncate(lock, 0)
        os.pwrite(lock, owner.encode(), 0)
        mend(root, log)
        yield Workspace(root, lock)
    finally:
        os.close(lock)  # not unlocked: a supervisor that still ends its stage shares the lock


def _wait_for(lock: int, log: Log) -> None:
    reminded = -REMIND_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() - reminded >= REMIND_SECONDS:
                reminded = time.monotonic()
                holder = os.pread(lock, 200, 0).decode("utf-8", "replace") or "another run"
                log(f"waiting: {holder} writes to this workspace")
            time.sleep(WAIT_SECONDS)


def command_environment(environment: os._Environ[str] | dict[str, str]) -> dict[str, str]:
    """Ours without Prefect's settings, which a stage has no use for, with our tools first and telemetry off.

    `python` in dvc.yaml is our own then, and `python -m ntulm` finds the code of the workspace.
    """
    kept = {name: value for name, value in environment.items() if not name.startswith(("PREFECT", "PYTHONSAFEPATH"))}
    tools = str(Path(sys.executable).parent)
    return kept | QUIET | {"PATH": f"{tools}{os.pathsep}{kept.get('PATH', os.defpath)}"}


def secrets_hidden(environment: os._Environ[str] | dict[str, str]) -> Callable[[str], str]:
    """Return a function that replaces the values of secret-looking variables in a line."""
    values = [
        value for name, value in environment.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET
    ]
    if not values:
        return lambda line: line
    pattern = re.compile("|".join(re.escape(value) for value in sorted(values, key=len, reverse=True)))
    return lambda line: pattern.sub("***", line)


def dvc(*arguments: str) -> list[str]:
    """The command line of DVC, patient where another DVC process holds the repository for a moment."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", *arguments]


def ntulm(*arguments: str) -> list[str]:
    """The command line of ntulm, with the code of the workspace, as the stages of dvc.yaml have it."""
    return [sys.executable, "-m", "ntulm", *arguments]
