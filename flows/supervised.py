"""Run a command under `supervisor.py`: its lines as they come, stopped on request, no orphan whatever happens to us."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

SUPERVISOR = Path(__file__).with_name("supervisor.py")
GRACE_SECONDS = 10.0  # between the interrupt and the kill; a Prefect worker gives a cancelled flow 30
TEARDOWN_SECONDS = 5.0  # for the supervisor itself, after that
POLL_SECONDS = 0.2
LONGEST_LINE = 4000


class StoppedError(Exception):
    """The command was ended because somebody asked for it."""


def run_supervised(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    stop: threading.Event,
    keep_open: Sequence[int] = (),
) -> int:
    """Run `command` without a shell and return its exit code.

    Args:
        command: Program and arguments.
        directory: Where it runs.
        environment: Its whole environment.
        on_line: Called with each line of standard output and standard error, in this thread.
        stop: Set by another thread to end the command early.
        keep_open: File descriptors that the supervisor holds until nothing of the command is left, such as a lock.

    Raises:
        StoppedError: `stop` was set before the command ended.
    """
    supervisor = subprocess.Popen(  # noqa: S603
        [sys.executable, str(SUPERVISOR), str(GRACE_SECONDS), *command],
        cwd=directory,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=tuple(keep_open),
    )
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read_lines, args=(supervisor.stdout, lines), daemon=True).start()
    try:
        _hand_over(lines, on_line, stop, supervisor)
        return supervisor.wait()
    finally:
        supervisor.stdin.close()
        _make_sure_of_its_end(supervisor)


def _hand_over(
    lines: queue.Queue[str | None],
    on_line: Callable[[str], None],
    stop: threading.Event,
    supervisor: subprocess.Popen[bytes],
) -> None:
    """Pass the lines on until the output ends."""
    while True:
        if stop.is_set():
            raise StoppedError
        try:
            line = lines.get(timeout=POLL_SECONDS)
        except queue.Empty:
            if supervisor.poll() is not None:  # it was killed, and what it watched still holds the output open
                return
            continue
        if line is None:
            return
        on_line(line)


def _read_lines(stream: IO[bytes], lines: queue.Queue[str | None]) -> None:
    """Read whole lines; of a progress bar, which goes back to the start of its line, the last state only."""
    with stream:
        for raw in stream:
            text = raw.decode("utf-8", "replace").rstrip("\r\n").rsplit("\r", 1)[-1]
            if text.strip():
                lines.put(text[:LONGEST_LINE])
    lines.put(None)


def _make_sure_of_its_end(supervisor: subprocess.Popen[bytes]) -> None:
    try:
        supervisor.wait(GRACE_SECONDS + TEARDOWN_SECONDS)
    except subprocess.TimeoutExpired:
        supervisor.kill()
        supervisor.wait()
    if supervisor.returncode < 0:  # killed: it could not end its group any more
        _kill_group(supervisor.pid)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
