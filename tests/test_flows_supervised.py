"""A supervised command: its lines, its exit code, and that nothing of it outlives the end, however that comes."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from flows import supervised
from flows.supervised import StoppedError, run_supervised

ROOT = Path(__file__).parent.parent
STUBBORN = "trap '' INT; echo $$ > {pid}; while true; do sleep 0.2; done"  # ignores the interrupt


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(supervised, "GRACE_SECONDS", 1.0)


def run(command, folder, stop=None):
    lines: list[str] = []
    code = run_supervised(command, folder, os.environ, lines.append, stop or threading.Event())
    return code, lines


def pid_in(path, patience=60.0):
    """The process id that a command writes, once it has."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.05)
    raise AssertionError(f"{path} was not written")


def gone(pid, patience=60.0):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_lines_of_both_streams_and_the_exit_code(tmp_path):
    code, lines = run(["sh", "-c", "echo one; echo two >&2; printf '10%%\\r100%%\\n'; exit 3"], tmp_path)
    assert (code, lines) == (3, ["one", "two", "100%"])


def test_nothing_goes_through_a_shell(tmp_path):
    code, lines = run(["echo", "x; touch pwned", "$(touch pwned)"], tmp_path)
    assert lines == ["x; touch pwned $(touch pwned)"]
    assert code == 0
    assert not list(tmp_path.iterdir())


def test_a_stop_ends_even_what_ignores_the_interrupt(tmp_path):
    pid, stop = tmp_path / "pid", threading.Event()

    def stop_when_it_runs():
        pid_in(pid)
        stop.set()

    threading.Thread(target=stop_when_it_runs).start()
    with pytest.raises(StoppedError):
        run(["sh", "-c", 'sh -c "$1"; true', "sh", STUBBORN.format(pid=pid)], tmp_path, stop)
    assert gone(pid_in(pid))


def test_an_exception_in_the_log_ends_the_command(tmp_path):
    def broken(line):
        raise RuntimeError("the log is full")

    pid = tmp_path / "pid"
    command = ["sh", "-c", f"echo $$ > {pid}; echo line; sleep 60"]
    with pytest.raises(RuntimeError, match="the log is full"):
        run_supervised(command, tmp_path, os.environ, broken, threading.Event())
    assert gone(pid_in(pid))


def test_what_a_command_leaves_behind_is_ended(tmp_path):
    code, _ = run(["sh", "-c", f"sleep 60 & echo $! > {tmp_path}/pid; exit 4"], tmp_path)
    assert code == 4
    assert gone(pid_in(tmp_path / "pid"))


def test_even_a_daemon_in_its_own_session_is_ended(tmp_path):
    code, _ = run(["sh", "-c", f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60' & sleep 0.5"], tmp_path)
    assert code == 0
    assert gone(pid_in(tmp_path / "pid"))


@pytest.mark.parametrize("victim", ["asker", "supervisor"])
def test_a_killed_asker_or_supervisor_leaves_no_orphan(victim, tmp_path):
    program = (
        "import os, threading\nfrom pathlib import Path\nfrom flows import supervised\n"
        "supervised.GRACE_SECONDS = 1.0\n"
        f"command = ['sh', '-c', 'sh -c \"echo \\\\$PPID > parent; echo \\\\$\\\\$ > pid; exec sleep 60\"; true']\n"
        f"supervised.run_supervised(command, Path({str(tmp_path)!r}), os.environ, print, threading.Event())\n"
    )
    asker = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    leaf = pid_in(tmp_path / "pid")
    supervisor = psutil.Process(pid_in(tmp_path / "parent")).ppid()
    os.kill(asker.pid if victim == "asker" else supervisor, signal.SIGKILL)
    assert gone(leaf)
    assert gone(supervisor)
    asker.wait(10)
