"""Runs one command so that nothing of it outlives whoever asked for it. A file of its own, started by `supervised.py`.

    python flows/supervisor.py GRACE COMMAND…

Standard input is a lifeline: when its other end closes, because the asker closed it or was killed, the command and
all that it started are interrupted, and killed after GRACE seconds. The same happens to whatever the command leaves
behind when it ends. The exit code is the command's, 128 + N where signal N ended it.

DVC needs this: killed or terminated, it leaves its stage running; only an interrupt to the whole group ends both.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_SECONDS = 0.1
STOPPED = 128 + signal.SIGINT


def main(arguments: list[str]) -> int:
    """Run the command to its end or to the end of the lifeline; return its exit code."""
    grace, command = float(arguments[0]), arguments[1:]
    stopping: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.append(number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, lambda number, frame: None)  # the interrupt below goes to the group, us included
    _adopt_orphans()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_the_supervisor)  # noqa: S603
    while child.poll() is None and not stopping and not _lifeline_is_cut():
        pass
    code = child.returncode
    _end_what_is_left(grace)
    if code is None:
        return STOPPED
    return code if code >= 0 else 128 - code


def _lifeline_is_cut() -> bool:
    """Wait a moment for the end of standard input."""
    readable, _, _ = select.select([0], [], [], POLL_SECONDS)
    return bool(readable) and not os.read(0, 1024)


def _end_what_is_left(grace: float) -> None:
    """Interrupt the process group, wait, then kill every descendant until none is left."""
    deadline = time.monotonic() + grace
    if _children_are_left():
        os.killpg(0, signal.SIGINT)
    while _children_are_left():
        if time.monotonic() > deadline:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        time.sleep(POLL_SECONDS)


def _children_are_left() -> bool:
    """Reap what has ended, adopted orphans included."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that they can be found and ended."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _die_with_the_supervisor() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
