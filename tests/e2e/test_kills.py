"""Kill the flow, the worker, the stage at some moment: no orphan, a state that says so, a next run as if nothing was.

The moments are drawn from a seed, so that a failure can be repeated.
"""

import os
import random
import shutil
import signal
import time

import psutil
import pytest
from conftest import local, processes_in
from test_end_to_end import call, metrics

MOMENT = random.Random(3)
LATEST_SECONDS = 12.0


@pytest.fixture(autouse=True)
def nothing_computed_yet(project):
    """Every test starts with the stages to run, the cache of earlier runs included."""
    for name in ("data", "metrics", "reports", ".dvc/cache", ".dvc/tmp/rwlock"):
        path = project / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    (project / "dvc.lock").unlink(missing_ok=True)


def start(api, changes):
    run = api.start("build/build-cpu", {"recipe": "quickstart", "changes": changes})
    api.wait(run, {"RUNNING", "FAILED", "CRASHED"})
    return run


def matching(project, word):
    """The processes in the project whose command line has the word."""
    found = []
    for process in processes_in(project):
        try:
            if word in " ".join(process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def wait_for(project, word, patience=90.0):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = matching(project, word)
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"no {word} process started")


def wait_until_none(project, word, patience=30.0):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and matching(project, word):
        time.sleep(0.2)
    assert [process.cmdline() for process in matching(project, word)] == []


def finish_undisturbed(api, project, undisturbed):
    """A new run completes with the results of a run that nobody disturbed."""
    run, state = api.run("build/build-cpu")
    assert state["type"] == "COMPLETED", f"{state['message']}\n{api.log(run)[-3000:]}"
    assert metrics(project) == undisturbed
    assert "up to date" in call("dvc", "status", cwd=project).stdout


def test_a_killed_flow_takes_its_stage_along(api, project, changes, undisturbed):
    run = start(api, changes)
    wait_for(project, "dvc --wait-for-lock repro")
    time.sleep(MOMENT.uniform(0, LATEST_SECONDS))
    matching(project, "prefect.engine")[0].kill()
    wait_until_none(project, "dvc --wait-for-lock repro")
    wait_until_none(project, "supervisor.py")
    assert api.wait(run)["type"] == "CRASHED"
    finish_undisturbed(api, project, undisturbed)


def test_a_killed_stage_fails_its_run_with_the_reason(api, project, changes, undisturbed):
    run = start(api, changes)
    wait_for(project, "dvc --wait-for-lock repro")
    time.sleep(MOMENT.uniform(0, LATEST_SECONDS))
    wait_for(project, "bin/ntulm")[0].kill()
    state = api.wait(run)
    assert state["type"] == "FAILED"
    assert "killed by signal 9 (SIGKILL)" in state["message"]
    wait_until_none(project, "bin/ntulm")
    finish_undisturbed(api, project, undisturbed)


def test_a_killed_dvc_leaves_no_stage_behind(api, project, changes, undisturbed):
    run = start(api, changes)
    stage = wait_for(project, "bin/ntulm")[0]
    os.kill(stage.ppid(), signal.SIGKILL)
    state = api.wait(run)
    assert state["type"] == "FAILED"
    assert "killed by signal 9" in state["message"]
    wait_until_none(project, "bin/ntulm")
    finish_undisturbed(api, project, undisturbed)


def test_a_killed_worker_does_not_stop_the_flow(api, project, changes, undisturbed):
    run = start(api, changes)
    wait_for(project, "dvc --wait-for-lock repro")
    time.sleep(MOMENT.uniform(0, LATEST_SECONDS))
    matching(project, "--pool cpu-pool")[0].kill()
    assert api.wait(run)["type"] == "COMPLETED"
    assert metrics(project) == undisturbed
    local("up", project, 1)  # starts the worker again
    finish_undisturbed(api, project, undisturbed)


def test_cancelling_in_the_ui_ends_the_stage_and_keeps_what_is_done(api, project, changes, undisturbed):
    run = start(api, changes)
    wait_for(project, "bin/ntulm graph")
    body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    api.send("POST", f"/flow_runs/{run}/set_state", body)
    assert api.wait(run)["type"] == "CANCELLED"
    wait_until_none(project, "bin/ntulm")
    wait_until_none(project, "supervisor.py")
    again, state = api.run("build/build-cpu")
    assert state["type"] == "COMPLETED", api.log(again)[-3000:]
    assert "Stage 'corpus' didn't change" in api.log(again)
    assert metrics(project) == undisturbed


def test_two_builds_at_once_take_turns(api, project, changes, undisturbed):
    first = start(api, changes)
    second = api.start("build/build-gpu")
    assert api.wait(first)["type"] == "COMPLETED"
    state = api.wait(second)
    assert state["type"] == "COMPLETED"
    assert "unchanged" in state["message"]
    assert "waiting: flow run" in api.log(second)
    assert metrics(project) == undisturbed
