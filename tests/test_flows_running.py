"""How flows end: with a reason in one line, in a shell too, and cancelled where the worker is gone."""

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.states import Cancelling, Completed, Running
from prefect.utilities.engine import capture_sigterm

from flows import running
from flows.failure import CommandError
from flows.running import settled
from flows.stage import StageError

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def a_run(monkeypatch):
    monkeypatch.setattr(running, "flow_run", SimpleNamespace(get_id=lambda: "0" * 32))
    monkeypatch.setattr(running, "tag_run", lambda: None)
    monkeypatch.setattr(running, "POLL_SECONDS", 0.02)


def server_says(monkeypatch, *states):
    """A client that gives one state after the other, and the last one again and again."""
    left = list(states)

    def read_flow_run(run):
        state = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(state, Exception):
            raise state
        return SimpleNamespace(state=state)

    @contextmanager
    def get_client(sync_client):
        yield SimpleNamespace(read_flow_run=read_flow_run)

    monkeypatch.setattr(running, "get_client", get_client)


@pytest.mark.parametrize("failure", [CommandError("corpus.path: not found"), StageError("corpus.path: not found")])
def test_a_failure_of_ours_is_a_state_with_its_reason_and_no_traceback(failure):
    @settled
    def flow():
        raise failure

    state = flow()
    assert state.is_failed()
    assert state.message == "corpus.path: not found"


def test_a_mistake_of_the_code_stays_an_exception_and_a_result_a_result():
    @settled
    def broken():
        raise KeyError("x")

    with pytest.raises(KeyError):
        broken()
    assert settled(lambda: Completed(message="3 stages"))().message == "3 stages"


def test_a_run_whose_worker_is_gone_heeds_a_request_to_cancel(monkeypatch):
    monkeypatch.setattr(running, "PARENT", os.getppid() + 1)  # it was another one when the run began
    server_says(monkeypatch, Running(), RuntimeError("the server restarts"), Cancelling())
    closed = []

    @settled
    def flow():
        try:
            time.sleep(60)
        finally:
            closed.append(True)

    started = time.monotonic()
    with capture_sigterm():
        state = flow()
    assert state.is_cancelled()
    assert closed == [True]
    assert time.monotonic() - started < 40


def test_a_run_with_its_worker_leaves_cancelling_to_it(monkeypatch):
    monkeypatch.setattr(running, "PARENT", os.getppid())
    server_says(monkeypatch, Cancelling())

    @settled
    def flow():
        time.sleep(0.3)
        return Completed()

    with capture_sigterm():
        assert flow().is_completed()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"PREFECT_API_URL": "http://127.0.0.1:9/api"}, "the Prefect server at http://127.0.0.1:9/api does not answer"),
        ({"PREFECT_SERVER_EPHEMERAL_ENABLED": "false"}, "no Prefect server is named; `make up` starts one"),
    ],
)
def test_a_flow_in_a_shell_without_a_server_ends_in_one_line(settings, reason, tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT")}
    environment |= {"PREFECT_HOME": str(tmp_path), "PREFECT_CLIENT_MAX_RETRIES": "0", **settings}
    command = [sys.executable, "-m", "flows.monitor"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert [line.startswith("error: monitor: ") for line in lines] == [True], lines
    assert reason in lines[0]


def test_every_flow_that_a_shell_can_run_is_run_so():
    files = [path for path in (ROOT / "flows").glob("*.py") if "@flow(" in path.read_text(encoding="utf-8")]
    assert len(files) >= 4
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert re.search(r"@flow\(.*\)[^\n]*\n@settled\n", text), path
        if "__main__" in text:
            assert re.search(r'if __name__ == "__main__":\n    main\(\w+\)\n', text), path
