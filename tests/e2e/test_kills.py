"""Kill the flow, the worker, the stage at some moment: no orphan, a state that says so, a next run as if nothing was.

The moments are drawn from a seed, so that a failure can be repeated.
"""

import os
import random
import shutil
import signal
import time

import pytest
from conftest import command_of, local, processes_in
from ruamel.yaml import YAML
from test_end_to_end import ROOT, call, metrics

MOMENT = random.Random(3)
LATEST_SECONDS = 12.0
STAGES = set(YAML(typ="safe", pure=True).load(ROOT / "dvc.yaml")["stages"])


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


def running(words):
    """Whether a command line has these words."""
    return lambda command: words in " ".join(command)


def is_stage(command):
    """Whether a command line is that of a stage, and not of a shell around it or another command of ntulm."""
    return command[1:3] == ["-m", "ntulm"] and len(command) > 3 and command[3] in STAGES


DVC = running("dvc --wait-for-lock repro")


def matching(project, wanted):
    """The processes in the project with such a command line."""
    return [process for process in processes_in(project) if wanted(command_of(process))]


def wait_for(project, wanted, patience=90.0):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = matching(project, wanted)
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("no such process started")


def wait_until_none(project, wanted, patience=30.0):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline and matching(project, wanted):
        time.sleep(0.2)
    assert [command_of(process) for process in matching(project, wanted)] == []


def finish_undisturbed(api, project, undisturbed):
    """A new run completes with the results of a run that nobody disturbed."""
    run, state = api.run("build/build-cpu")
    assert state["type"] == "COMPLETED", f"{state['message']}\n{api.log(run)[-3000:]}"
    assert metrics(project) == undisturbed
    assert "up to date" in call("dvc", "status", cwd=project).stdout


def test_a_killed_flow_takes_its_stage_along(api, project, changes, undisturbed):
    run = start(api, changes)
    wait_for(project, DVC)
    time.sleep(MOMENT.uniform(0, LATEST_SECONDS))
    matching(project, running("prefect.engine"))[0].kill()
    wait_until_none(project, DVC)
    wait_until_none(project, running("supervisor.py"))
    assert api.wait(run)["type"] == "CRASHED"
    finish_undisturbed(api, project, undisturbed)


def test_a_killed_stage_fails_its_run_with_the_reason(api, project, changes, undisturbed):
    run = start(api, changes)
    wait_for(project, DVC)
    time.sleep(MOMENT.uniform(0, LATEST_SECONDS))
    wait_for(project, is_stage)[0].kill()
    state = api.wait(run)
    assert state["type"] == "FAILED"
    assert "killed by signal 9 (SIGKILL)" in state["message"]
    wait_until_none(project, is_stage)
    finish_undisturbed(api, project, undisturbed)


def test_a_killed_dvc_leaves_no_stage_behind(api, project, changes, undisturbed):
    run = start(api, changes)
    stage = wait_for(project, is_stage)[0]
    os.kill(stage.ppid(), signal.SIGKILL)
    state = api.wait(run)
    assert state["type"] == "FAILED"
    assert "killed by signal 9" in state["message"]
    wait_until_none(project, is_stage)
    finish_undisturbed(api, project, undisturbed)


def test_a_killed_worker_does_not_stop_the_flow(api, project, changes, undisturbed):
    run = start(api, changes)
    wait_for(project, DVC)
    time.sleep(MOMENT.uniform(0, LATEST_SECONDS))
    matching(project, running("--pool cpu-pool"))[0].kill()
    assert api.wait(run)["type"] == "COMPLETED"
    assert metrics(project) == undisturbed
    local("up", project, 1)  # starts the worker again
    finish_undisturbed(api, project, undisturbed)


def test_cancelling_in_the_ui_ends_the_stage_and_keeps_what_is_done(api, project, changes, undisturbed):
    run = start(api, changes)
    wait_for(project, lambda command: is_stage(command) and command[3] == "graph")
    body = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    api.send("POST", f"/flow_runs/{run}/set_state", body)
    assert api.wait(run)["type"] == "CANCELLED"
    wait_until_none(project, is_stage)
    wait_until_none(project, running("supervisor.py"))
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
