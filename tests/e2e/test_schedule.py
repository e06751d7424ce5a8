"""A cron schedule fires by itself and its run completes."""

import time

PATIENCE = 180  # a cron schedule has no finer step than a minute


def test_a_cron_schedule_fires_and_its_run_completes(api, changes):
    run, state = api.run("build/build-cpu", {"recipe": "quickstart", "changes": changes})
    assert state["type"] == "COMPLETED", api.log(run)[-3000:]
    deployment = api.deployment("build/build-cpu")["id"]
    schedule = api.send(
        "POST",
        f"/deployments/{deployment}/schedules",
        [
            {
                "schedule": {"cron": "* * * * *", "timezone": "UTC"},
                "active": True,
                "parameters": {"from_stage": "report"},
            }
        ],
    )[0]["id"]
    try:
        fired = first_scheduled_run(api, deployment)
        assert api.wait(fired)["type"] == "COMPLETED", api.log(fired)[-3000:]
        assert api.flow_run(fired)["parameters"]["from_stage"] == "report"
    finally:
        api.send("DELETE", f"/deployments/{deployment}/schedules/{schedule}")


def first_scheduled_run(api, deployment):
    """Wait for a run that nobody asked for to start."""
    body = {
        "flow_runs": {
            "deployment_id": {"any_": [deployment]},
            "tags": {"all_": ["auto-scheduled"]},
            "state": {"type": {"any_": ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CRASHED"]}},
        }
    }
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        runs = api.send("POST", "/flow_runs/filter", body)
        if runs:
            return runs[0]["id"]
        time.sleep(1)
    raise AssertionError("no scheduled run started")


def test_the_nightly_schedule_is_there_and_switched_off(api):
    schedules = api.deployment("build/build-cpu")["schedules"]
    assert [(item["slug"], item["active"]) for item in schedules if item["slug"]] == [("nightly", False)]
