import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from ruamel.yaml import YAML
from test_leaks import BATCHES, write_side_task

from ntulm import adapt, tune
from ntulm.configure import configured
from ntulm.errors import UserError
from ntulm.files import write_json
from ntulm.layout import Layout
from ntulm.params import Params, check_params

HERE = Layout()


def params(**changes) -> Params:
    values = YAML(typ="safe", pure=True).load(configured("quickstart", []))
    values["batches"] = BATCHES.model_dump()
    values["pretrain"] |= {"max_posts": 300, "max_validation_posts": 60, "max_test_posts": 20}
    values["tune"] |= {"task": "side", "trials": 2, "train_posts": 200, "validation_posts": 80, **changes}
    values["tasks"]["side"] = values["tasks"]["sense"]
    return check_params(values, "test")


@pytest.mark.slow
def test_a_search_compares_with_text_and_goes_on_where_it_stopped(lm_project, adapt_settings, capsys, monkeypatch):
    adapt.run(adapt_settings(max_posts=0), BATCHES, HERE)
    write_side_task()
    space = {"pretrain.slot.scale": {"between": [1.0, 30.0]}, "pretrain.epochs": {"one_of": [1]}}
    tune.run(params(trials=1, space=space), HERE)
    study = [json.loads(line) for line in (HERE.tune / "journal.log").read_text().splitlines()]
    assert study
    printed = capsys.readouterr().out
    assert "text" in printed
    measured = []

    def measure(params, variant, layout):
        measured.append(variant)
        return 1.0, 0.5

    monkeypatch.setattr(tune, "measure", measure)
    tune.run(params(trials=1, space=space), HERE)
    assert measured == []  # the trial that was done is not done again
    tune.run(params(trials=3, space=space), HERE)
    assert measured == ["author+hashtag"] * 2
    tune.run(params(trials=1, seed=1, space=space), HERE)
    assert measured[2:] == ["text", "author+hashtag"]  # other parameters: another study
    assert len((HERE.tune / "trials.csv").read_text().splitlines()) == 2


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """An empty project; what is measured, and with which settings, instead of training."""
    monkeypatch.chdir(tmp_path)
    for name in ("corpus", "graph", "embeddings", "adapt", "tasks"):
        (Path("data") / name).mkdir(parents=True)
        (Path("data") / name / "old").touch()
    HERE.task("side").mkdir()
    write_json(HERE.task("side") / "datasets.json", {})
    calls: list[Any] = []

    def stage(name):
        def run(config, *others):
            layout = others[-1]
            layout.data(name).mkdir(parents=True)
            calls.append((name, config))

        return run

    for name in ("corpus", "graph", "embeddings"):
        monkeypatch.setattr(getattr(tune, name), "run", stage(name))

    def measure(params, variant, layout):
        old = [name for name in (*tune.STAGES, *tune.KEPT) if (layout.data(name) / "old").is_file()]
        calls.append((variant, old))
        return {"text": 8.0, "author+hashtag": 7.6}[variant], {"text": 0.5, "author+hashtag": 0.55}[variant]

    monkeypatch.setattr(tune, "measure", measure)
    return calls


def test_the_stages_that_read_a_changed_setting_run_again_beside_the_project(fake):
    tune.run(params(trials=1, space={"graph.min_degree.hashtag": {"between": [2, 9]}}), HERE)
    assert [name for name, _ in fake] == ["text", "graph", "embeddings", "author+hashtag"]
    assert fake[1][1].min_degree["hashtag"] == 3  # the first trial: as it stands in the recipe
    assert fake[3][1] == ["corpus", "adapt", "tasks"]
    assert Path("data/graph/old").is_file()
    assert [path.name for path in (HERE.tune / "trials").iterdir()] == ["lock"]


def test_a_search_works_in_the_folder_of_its_layout(fake, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    project = Layout(tmp_path)
    tune.run(params(trials=1, space={"corpus.splits.graph_from": {"one_of": [0.0]}}), project)
    assert [name for name, _ in fake] == ["text", "corpus", "graph", "embeddings", "author+hashtag"]
    assert Path(fake[1][1].path) == tmp_path / "worlds/quickstart.yaml"
    assert (project.tune / "trials.csv").is_file()
    assert list(Path().iterdir()) == []


def test_text_is_trained_once_for_each_budget(fake):
    space = {"pretrain.epochs": {"one_of": [1, 2]}, "pretrain.slot.scale": {"between": [1, 30]}}
    tune.run(params(trials=6, space=space), HERE)
    assert [name for name, _ in fake].count("text") == 2
    assert [name for name, _ in fake].count("author+hashtag") == 6


def test_gains_are_in_percent_and_positive_where_better(fake):
    tune.run(params(trials=1, space={}), HERE)
    (row,) = csv.DictReader((HERE.tune / "trials.csv").open())
    assert float(row["bits_gain"]) == pytest.approx(5.0)
    assert float(row["score_gain"]) == pytest.approx(10.0)
    assert row["best"] == "True"


def test_a_search_that_goes_on_makes_new_trials(fake):
    space = {"pretrain.slot.scale": {"between": [1, 30]}}
    tune.run(params(trials=3, space=space), HERE)
    tune.run(params(trials=6, space=space), HERE)
    rows = list(csv.DictReader((HERE.tune / "trials.csv").open()))
    assert len({row["pretrain.slot.scale"] for row in rows}) == 6


def test_a_search_starts_from_the_present_settings_even_after_a_failure(fake, monkeypatch):
    space = {"pretrain.slot.scale": {"between": [1, 30]}}
    working = tune.measure

    def fail(params, variant, layout):
        raise KeyboardInterrupt if variant == "text" else AssertionError

    monkeypatch.setattr(tune, "measure", fail)
    with pytest.raises(KeyboardInterrupt):
        tune.run(params(trials=2, space=space), HERE)
    monkeypatch.setattr(tune, "measure", working)
    tune.run(params(trials=2, space=space), HERE)
    rows = list(csv.DictReader((HERE.tune / "trials.csv").open()))
    assert [float(row["pretrain.slot.scale"]) == 10.0 for row in rows] == [True, False]


def test_other_posts_are_another_study(fake):
    tune.run(params(trials=1, space={}), HERE)
    (HERE.corpus / "posts.parquet").write_bytes(b"other posts")
    tune.run(params(trials=1, space={}), HERE)
    assert [name for name, _ in fake] == ["text", "author+hashtag"] * 2


@pytest.mark.parametrize("recipe", ["quickstart", "stocknet", "ira", "paper"])
def test_the_space_of_every_recipe_holds_its_own_settings(recipe, tmp_path):
    text = configured(recipe, [] if recipe == "quickstart" else [f"data={tmp_path}"])
    made = check_params(YAML(typ="safe", pure=True).load(text), recipe)
    assert [tune.start_value(made, key) for key in made.tune.space]


@pytest.mark.parametrize(
    ("key", "space"),
    [
        ("embeddings.dimension", {"one_of": [50, 100]}),
        ("pretrain.slot.layer_norm", {"between": [0, 1]}),
        ("graph.min_degree", {"between": [1, 9]}),
        ("pretrain.slot.scale", {"between": [1, 2]}),
    ],
)
def test_a_start_outside_the_space_is_a_user_error(key, space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"tune\.space: {key}: its present value .* is not in \["):
        tune.run(params(space={key: space}), HERE)


def test_values_are_of_the_type_of_their_setting(fake):
    space = {
        "embeddings.epochs": {"between": [9, 10]},
        "pretrain.slot.dropout": {"between": [0.0, 0.5]},
        "pretrain.slot.layer_norm": {"one_of": [False]},
    }
    drawn = tune.suggest(params(space=space), optuna.create_study().ask())
    assert drawn["embeddings.epochs"] in (9, 10)
    assert type(drawn["embeddings.epochs"]) is int
    assert 0 <= drawn["pretrain.slot.dropout"] <= 0.5
    assert drawn["pretrain.slot.layer_norm"] is False
    assert tune.with_settings(params(), drawn).embeddings.epochs == drawn["embeddings.epochs"]


def test_settings_that_fail_are_left_out_but_for_the_first(fake, monkeypatch, capsys):
    def fail_later(config, layout):
        if config.learning_rate != 0.05:
            raise UserError("diverged")

    monkeypatch.setattr(tune.embeddings, "run", fail_later)
    tune.run(params(trials=3, space={"embeddings.learning_rate": {"between": [0.05, 9.0]}}), HERE)
    assert len((HERE.tune / "trials.csv").read_text().splitlines()) == 2
    assert "trial 1 left out: diverged" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["evaluate.resamples", "pretrain.slot_scale", "corpus.splits.test_from", "pretrain"])
def test_what_may_not_be_tuned_is_a_user_error(key, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"tune\.space: {key}: no setting that can be tuned"):
        tune.run(params(space={key: {"between": [0.1, 0.2]}}), HERE)


def test_sampled_rows_are_few_and_of_the_right_splits():
    split = np.array(["train"] * 50 + ["validation"] * 20 + ["test"] * 10)
    rows = tune.sample_rows(split, {"train": 10, "validation": 40}, 0)
    assert (split[rows] == "train").sum() == 10
    assert (split[rows] == "validation").sum() == 20
    assert len(rows) == 30


def test_a_task_that_was_not_built_is_a_user_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"tune\.task: data/tasks/side not found"):
        tune.run(params(), HERE)
