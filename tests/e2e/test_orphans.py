"""A worker is killed and its run goes on: it can be cancelled, and `make down` ends it. On stages that take no time."""

import json
import sqlite3
import time

import psutil
import pytest
from conftest import command_of, local, processes_in, two_free_ports
from prefect_api import PrefectApi
from test_machines import workspace

CPU = {"NTULM_WORKERS": "cpu"}
LOCKED_SECONDS = 75  # longer than Prefect waits for a lock


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A workspace with a server and one worker: its folder, the API and the port."""
    top = tmp_path_factory.mktemp("orphans")
    folder = workspace(top / "build", top / "remote")
    port = two_free_ports()
    try:
        local("up", folder, port, CPU)
        yield folder, PrefectApi(f"http://127.0.0.1:{port}"), port
    finally:
        (folder / "hold").unlink(missing_ok=True)
        local("down", folder, port)
    assert processes_in(folder) == []


def stages(folder):
    """The processes of stages that run."""
    return [process for process in processes_in(folder) if "stage.py" in command_of(process)]


def held(machine, posts):
    """Start a build, and wait until a stage runs, which goes on once `hold` is gone; the id of the run."""
    folder, api, _ = machine
    (folder / "source").write_text(posts)
    (folder / "hold").touch()
    run = api.start("build/build-cpu")
    deadline = time.monotonic() + 120
    while not stages(folder):
        assert time.monotonic() < deadline, api.log(run)[-3000:]
        time.sleep(0.2)
    return run


def orphan(machine, posts):
    """Start a build, and kill its worker while a stage runs; the id of the run."""
    folder, _, _ = machine
    run = held(machine, posts)
    worker = json.loads((folder / ".prefect/run/cpu-worker.json").read_text())["pid"]
    psutil.Process(worker).kill()
    return run


def test_the_database_has_a_write_ahead_log(machine):
    database = sqlite3.connect(f"file:{machine[0]}/.prefect/prefect.db?mode=ro", uri=True)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    database.close()


def test_a_run_can_be_read_in_a_list(machine):
    _, api, _ = machine
    identity, state = api.run("build/build-cpu")
    assert state["message"] == "3 stages: 3 ran", api.log(identity)[-3000:]
    run = api.flow_run(identity)
    assert run["name"] == "build quickstart"
    assert {"ntulm", "recipe:quickstart", "trigger:request"} <= set(run["tags"])
    assert api.artifacts(identity)["progress"] == 100


def test_a_run_outlasts_a_database_that_locks(machine):
    folder, api, _ = machine
    run = held(machine, "posts of a locked database\n")
    database = sqlite3.connect(folder / ".prefect/prefect.db", isolation_level=None, timeout=60)
    database.execute("BEGIN IMMEDIATE")  # nobody else can write
    (folder / "hold").unlink()
    time.sleep(LOCKED_SECONDS)
    database.execute("ROLLBACK")
    database.close()
    state = api.wait(run)
    assert (state["type"], state["message"]) == ("COMPLETED", "3 stages: 3 ran"), api.log(run)[-3000:]


def test_a_run_whose_worker_was_killed_can_be_cancelled(machine):
    folder, api, port = machine
    run = orphan(machine, "more posts\n")
    api.send("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    assert api.wait(run, patience=90)["type"] == "CANCELLED"
    deadline = time.monotonic() + 30
    while stages(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert stages(folder) == []
    (folder / "hold").unlink()
    local("up", folder, port, CPU)
    identity, state = api.run("build/build-cpu")
    assert state["type"] == "COMPLETED", api.log(identity)[-3000:]


def test_down_ends_what_a_killed_worker_left(machine):
    """Last: it leaves no server behind."""
    folder, _, port = machine
    orphan(machine, "posts of tomorrow\n")
    assert "left behind when it was killed" in local("down", folder, port)
    assert processes_in(folder) == []
