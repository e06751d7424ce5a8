"""`ntulm tune` in several processes: here forked, with figures in place of training."""

import csv
import json
import math
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from test_shared_study import FORK, PATIENCE, ended, until
from test_tune import HERE, params

from ntulm import shared_study, tune
from ntulm.errors import UserError
from ntulm.files import write_json
from ntulm.layout import Layout
from ntulm.params import Params
from ntulm.shared_study import STUDIES

SCALE = "pretrain.slot.scale"
SPACE = {SCALE: {"between": [1.0, 30.0]}}
VARIANT = "author+hashtag"


def figures(trained: Params, variant: str) -> tuple[float, float]:
    """What training would come to: best at a scale of 4."""
    if variant == "text":
        return 8.0, 0.5
    away = math.log(trained.pretrain.slot.scale / 4) ** 2
    return 7.0 + away / 10, 0.6 - away / 50


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    """A project without posts, in which a trial takes a moment; the file `measured` has a line for each."""
    folder = tmp_path / "project"
    for name in ("corpus", "graph", "embeddings", "adapt", "tasks/side"):
        (folder / "data" / name).mkdir(parents=True)
    write_json(Layout(folder).task("side") / "datasets.json", {})
    monkeypatch.chdir(folder)
    monkeypatch.delenv(STUDIES, raising=False)
    monkeypatch.setattr(shared_study, "POLL", 0.02)

    def measure(trained, variant, layout):
        line = [variant, trained.pretrain.slot.scale, trained.pretrain.epochs, str(layout.root), os.getpid()]
        with (tmp_path / "measured").open("a") as log:
            log.write(json.dumps(line) + "\n")
        checkpoint = layout.checkpoint("tune", variant, 0)
        checkpoint.mkdir(parents=True, exist_ok=False)  # nobody else's
        time.sleep(0.05)
        shutil.rmtree(checkpoint)
        return figures(trained, variant)

    monkeypatch.setattr(tune, "measure", measure)
    return folder


def started(settings: Params, layout: Layout = HERE, host: str | None = None):
    def main():
        if host is not None:
            socket.gethostname = lambda: host
        tune.run(settings, layout)

    process = FORK.Process(target=main)
    process.start()
    return process


def measured(variant: str, project: Path) -> list[Any]:
    path = project.parent / "measured"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line[0] == variant]


def rows(layout: Layout = HERE) -> list[dict[str, str]]:
    with (layout.tune / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_three_processes_make_the_trials_of_one(project):
    settings = params(trials=12, space=SPACE)
    ended(*(started(settings) for _ in range(3)))
    scales = [float(row[SCALE]) for row in rows()]
    assert len(scales) == len(set(scales)) == 12
    assert sorted(scales) == sorted(line[1] for line in measured(VARIANT, project))
    assert scales.count(10.0) == 1  # the present settings
    assert len(measured("text", project)) == 1
    assert len({line[3] for line in measured(VARIANT, project)}) == 12  # a folder each
    best = max(float(row["score_gain"]) for row in rows())
    assert best == pytest.approx(max(100 * (0.6 - math.log(scale / 4) ** 2 / 50) / 0.5 - 100 for scale in scales))
    assert [path.name for path in (HERE.tune / "trials").iterdir()] == ["lock"]


def test_machines_share_a_journal(project, monkeypatch, capfd):
    monkeypatch.setenv(STUDIES, str(project.parent / "studies.log"))
    second = Layout(project.parent / "second")
    shutil.copytree(project, second.root)
    settings = params(trials=6, space=SPACE)
    ended(started(settings, host="first"), started(settings, second, host="second"))
    assert rows() == rows(second)
    assert len(rows()) == len(measured(VARIANT, project)) == 6
    assert f"in {project.parent / 'studies.log'}: 0 of 6 trials" in capfd.readouterr().err


def test_a_space_with_few_combinations_is_tried_once_each(project):
    space = {"pretrain.epochs": {"one_of": [1, 2, 3]}, "pretrain.slot.layer_norm": {"one_of": [False, True]}}
    settings = params(trials=9, space=space)
    ended(*(started(settings) for _ in range(3)))
    assert len({(row["pretrain.epochs"], row["pretrain.slot.layer_norm"]) for row in rows()}) == len(rows()) == 6
    assert len(measured("text", project)) == 3  # one for each number of epochs


@pytest.mark.parametrize(
    ("space", "count"),
    [
        ({}, 1),
        ({"embeddings.epochs": {"between": [9, 20]}}, 12),
        ({"embeddings.epochs": {"between": [9, 20]}, "pretrain.epochs": {"one_of": [1, 2]}}, 24),
        ({SCALE: {"between": [10.0, 10.0]}}, 1),
        (SPACE, math.inf),
    ],
)
def test_combinations(space, count):
    assert tune.combinations(params(space=space)) == count


def test_a_search_that_was_interrupted_comes_to_the_same_trials():
    tune.run(params(trials=7, space=SPACE), HERE)
    in_one_go = rows()
    shutil.rmtree(HERE.tune)
    tune.run(params(trials=3, space=SPACE), HERE)
    tune.run(params(trials=7, space=SPACE), HERE)
    assert rows() == in_one_go


def test_a_baseline_is_trained_by_another_if_its_worker_dies(project, monkeypatch):
    working = tune.measure

    def hang(trained, variant, layout):
        if variant == "text":
            (project / "hangs").touch()
            time.sleep(3600)
        return working(trained, variant, layout)

    settings = params(trials=4, space=SPACE)
    monkeypatch.setattr(tune, "measure", hang)
    dead = started(settings)
    until((project / "hangs").exists)
    monkeypatch.setattr(tune, "measure", working)
    other = started(settings)
    until(lambda: measured(VARIANT, project))  # trains its own variant meanwhile
    assert not measured("text", project)
    os.kill(dead.pid, signal.SIGKILL)
    dead.join(PATIENCE)
    ended(other)
    assert len(measured("text", project)) == 1
    assert len(rows()) == 4
    assert [float(row[SCALE]) == 10.0 for row in rows()].count(True) == 1


def test_what_is_wrong_with_the_project_leaves_no_trial_out(monkeypatch, capfd):
    working = tune.measure

    def fail(trained, variant, layout):
        if trained.pretrain.slot.scale == 10.0:
            time.sleep(0.5)
        raise UserError("no graph")

    settings = params(trials=6, space=SPACE)
    monkeypatch.setattr(tune, "measure", fail)
    for process in [started(settings) for _ in range(3)]:
        process.join(PATIENCE)
        assert process.exitcode == 1
    assert "left out" not in capfd.readouterr().err
    monkeypatch.setattr(tune, "measure", working)
    tune.run(settings, HERE)
    assert len(rows()) == 6


def test_settings_that_fail_are_left_out_once_the_present_ones_work(monkeypatch, capfd):
    working = tune.measure

    def fail_later(trained, variant, layout):
        if trained.pretrain.slot.scale != 10.0:
            raise UserError("diverged")
        time.sleep(0.5)
        return working(trained, variant, layout)

    monkeypatch.setattr(tune, "measure", fail_later)
    settings = params(trials=4, space=SPACE)
    ended(*(started(settings) for _ in range(2)))
    assert [float(row[SCALE]) for row in rows()] == [10.0]
    assert capfd.readouterr().err.count("left out: diverged") == 3


def test_the_folder_of_a_killed_trial_goes_with_the_next_run(project, monkeypatch):
    working = tune.measure

    def die(trained, variant, layout):
        checkpoint = layout.checkpoint("tune", variant, 0)
        checkpoint.mkdir(parents=True)
        os.kill(os.getpid(), signal.SIGKILL)

    settings = params(trials=1, space=SPACE)
    monkeypatch.setattr(tune, "measure", die)
    dead = started(settings)
    dead.join(PATIENCE)
    assert len(list((HERE.tune / "trials").glob("*/data/checkpoints/tune/text/0"))) == 1
    monkeypatch.setattr(tune, "measure", working)
    tune.run(settings, HERE)
    assert [path.name for path in (HERE.tune / "trials").iterdir()] == ["lock"]
    assert [float(row[SCALE]) for row in rows()] == [10.0]
