"""Somebody is told: a real server, started as `make up` starts it, writes to a receiver on this machine.

The states are set through the API, and no model is trained; `embed` and `monitor` run for real where there is none.
"""

import json
import time

import pytest
from conftest import copy_with_flows, local, processes_in, two_free_ports
from listeners import webhook
from prefect_api import PrefectApi

PATIENCE = 60
LATE = "10"  # seconds; the server calls a run late after 15


@pytest.fixture(scope="module")
def receiver():
    with webhook() as (url, got):
        yield url, got


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_backbone):
    folder = tmp_path_factory.mktemp("alerts")
    copy_with_flows(folder, tiny_backbone)
    return folder


@pytest.fixture(scope="module")
def api(project, receiver):
    port = two_free_ports()
    settings = {"NTULM_WORKERS": "cpu", "NTULM_ALERT_URL": receiver[0], "NTULM_ALERT_LATE": LATE}
    try:
        printed = local("up", project, port, settings)
        assert "alerts   127.0.0.1, as json" in printed
        assert "secret-path" not in printed
        yield PrefectApi(f"http://127.0.0.1:{port}")
    finally:
        local("down", project, port)
    assert processes_in(project) == []


def told(receiver, run_name: str, patience: float = PATIENCE) -> dict:
    """The message about a run."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = [body for body in map(json.loads, (one.body for one in list(receiver[1]))) if body["run"] == run_name]
        if found:
            return found[0]
        time.sleep(0.5)
    raise AssertionError(f"nobody was told of {run_name}; told: {receiver[1]}")


def ended(api, deployment: str, state: dict) -> str:
    """A run that is not for a worker, and ends in a state; its name."""
    identity = api.deployment(deployment)
    body = {"flow_id": identity["flow_id"], "deployment_id": identity["id"], "tags": ["ntulm"]}
    run = api.send("POST", "/flow_runs/", body)
    for one in ({"type": "RUNNING"}, state):
        api.send("POST", f"/flow_runs/{run['id']}/set_state", {"state": one, "force": True})
    return run["name"]


@pytest.mark.parametrize(
    ("deployment", "state", "what"),
    [
        ("build/build-cpu", {"type": "FAILED", "name": "Failed", "message": "graph: <no> posts"}, "failed"),
        ("monitor/monitor", {"type": "CRASHED", "name": "Crashed", "message": "no heartbeat"}, "crashed"),
        (
            "retrain/retrain",
            {"type": "FAILED", "name": "Refused", "message": "refused: new"},
            "did not take the new posts",
        ),
        (
            "monitor/monitor",
            {"type": "FAILED", "name": "Drifted", "message": "drift"},
            "found that the posts have drifted",
        ),
    ],
)
def test_somebody_is_told_how_a_run_ended_and_why(api, receiver, deployment, state, what):
    name = ended(api, deployment, state)
    message = told(receiver, name)
    assert message["what"] == what
    assert message["message"] == state["message"]
    assert message["flow"] == deployment.partition("/")[0]
    assert message["address"].startswith(f"{api.address}/runs/flow-run/")


def test_nobody_is_told_of_a_quiet_day_a_stage_or_a_run_that_is_done(api, receiver):
    quiet = ended(api, "monitor/monitor", {"type": "COMPLETED", "name": "Quiet", "message": "new posts: 0"})
    stage = ended(api, "stage/gpu-pool", {"type": "FAILED", "name": "Failed", "message": "its build says so"})
    last = ended(api, "build/build-cpu", {"type": "FAILED", "name": "Failed", "message": "after them"})
    told(receiver, last)
    named = {json.loads(one.body)["run"] for one in receiver[1]}
    assert named.isdisjoint({quiet, stage})


def test_somebody_is_told_of_a_run_that_no_worker_takes(api, receiver):
    body = {"parameters": {}, "enforce_parameter_schema": False}
    deployment = api.deployment("stage/gpu-pool")["id"]
    run = api.send("POST", f"/deployments/{deployment}/create_flow_run", body)
    message = told(receiver, run["name"], patience=120)
    assert message["what"] == f"waits for a worker, for {LATE} s now"
    assert message["state"] == "Late"


@pytest.mark.parametrize("name", ["embed/embed", "monitor/monitor"])
def test_before_the_first_promotion_scheduled_runs_are_not_red(api, receiver, name):
    run, state = api.run(name)
    assert (state["type"], state["name"]) == ("COMPLETED", "NoModel"), api.log(run)[-3000:]
    assert state["message"] == "nothing is in production yet; `retrain` promotes the first model"


def test_a_second_registration_keeps_one_of_each_and_none_takes_them_away(api, project, receiver):
    def ours() -> list[str]:
        found = api.send("POST", "/automations/filter", {})
        return sorted(one["name"] for one in found if one["name"].startswith("somebody is told"))

    port = int(api.address.rpartition(":")[2])
    both = ours()
    assert len(both) == 2
    again = {"NTULM_WORKERS": "cpu", "NTULM_ALERT_URL": receiver[0], "NTULM_ALERT_FORM": "slack"}
    assert "alerts   127.0.0.1, as slack" in local("up", project, port, again)
    assert ours() == both
    run = ended(api, "build/build-cpu", {"type": "FAILED", "name": "Failed", "message": "in the form of Slack"})
    deadline = time.monotonic() + PATIENCE
    while "in the form of Slack" not in receiver[1][-1].body and time.monotonic() < deadline:
        time.sleep(0.5)
    assert json.loads(receiver[1][-1].body)["text"].startswith(f"build failed (run {run}, deployment build-cpu).")
    gone = local("up", project, port, {"NTULM_WORKERS": "cpu", "NTULM_ALERT_URL": "none"})
    assert "alerts   nobody" in gone
    assert ours() == []
