"""The harness of `make faults`: it kills in time, and sees what was lost; on stages that take no time."""

import random
import sqlite3
import subprocess
import sys
import time

import pytest
from faults import QUIET, Harness, Row, forget, kill_dvc, restart, results, run, short_stages

KILLS = 4
LOCKED_SECONDS = 6.0


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return short_stages(tmp_path_factory.mktemp("short") / "project")


def test_dvc_killed_between_short_stages_runs_on_to_the_same_results(project):
    row = kill_dvc(project, KILLS, random.Random(2))
    assert (row.kills, row.survived, row.identical, row.reasons) == (KILLS, KILLS, KILLS, [])


def test_a_killed_stage_is_forgotten_and_made_again(project):
    harness, row = Harness(project, random.Random(1)), Row("s7")
    harness.seconds["s7"] = 0.3  # less than DVC takes to start
    assert harness.kill("s7", "any")
    assert not (project / "f7").exists()
    harness.finish(row)
    assert (row.survived, row.identical, row.reasons) == (1, 1, [])


def test_another_result_is_a_loss_that_is_named(project):
    restart(project)
    run(project, "repro")
    expected = results(project)
    outs = forget(project, "s7")
    assert [(out.name, out.exists()) for out in outs] == [("f7", False)]
    row = Row("s7")
    harness = Harness(project, random.Random(0), expected | {"f7": "another"})
    harness.finish(row)
    assert (row.kills, row.survived, row.identical, row.lost) == (1, 1, 0, 1)
    assert row.reasons == ["s7: other results: f7"]
    assert str(row) == "| s7 | 1 | 1 | 0 | 0 | 1 |"


def test_a_run_that_does_not_end_well_is_a_loss(project):
    damaged = project / "dvc.yaml"
    whole = damaged.read_text()
    damaged.write_text(whole + "x")
    row = Row("s7")
    Harness(project, random.Random(0), {"f7": ""}).finish(row)
    damaged.write_text(whole)
    assert (row.kills, row.survived, row.lost) == (1, 0, 1)
    assert "dvc.yaml" in row.reasons[0]


def test_dvc_waits_for_a_database_of_its_own_that_is_locked(project, tmp_path, monkeypatch):
    monkeypatch.setitem(QUIET, "DVC_SITE_CACHE_DIR", str(tmp_path))
    restart(project)
    run(project, "repro")
    expected = results(project)
    (project / "f7").unlink()
    held = [sqlite3.connect(path, isolation_level=None) for path in tmp_path.rglob("cache.db")]
    assert held
    for database in held:
        database.execute("BEGIN EXCLUSIVE")
    process = subprocess.Popen([sys.executable, "-m", "dvc", "repro"], cwd=project, env=QUIET)
    time.sleep(LOCKED_SECONDS)
    assert process.poll() is None  # it is stopped by the lock, else this shows nothing
    for database in held:
        database.execute("ROLLBACK")
        database.close()
    assert process.wait(timeout=120) == 0
    assert results(project) == expected
    assert (project / "f7").exists()
