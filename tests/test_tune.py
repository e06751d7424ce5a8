import csv
import json
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from test_leaks import BATCHES, write_side_task

from ntulm import adapt, layout, tune
from ntulm.config import Params, check_params
from ntulm.configure import configured
from ntulm.errors import UserError


def params(**changes) -> Params:
    values = YAML(typ="safe", pure=True).load(configured("quickstart", []))
    values["batches"] = BATCHES.model_dump()
    values["pretrain"] |= {"max_posts": 300, "max_validation_posts": 60, "max_test_posts": 20}
    values["tune"] |= {"task": "side", "trials": 2, "train_posts": 200, "validation_posts": 80, **changes}
    values["tasks"]["side"] = values["tasks"]["sense"]
    return check_params(values, "test")


@pytest.mark.slow
def test_a_search_compares_with_text_and_goes_on_where_it_stopped(lm_project, adapt_settings, capsys, monkeypatch):
    adapt.run(adapt_settings(max_posts=0), BATCHES)
    write_side_task()
    tune.run(params(trials=1))
    study = [json.loads(line) for line in (layout.TUNE / "journal.log").read_text().splitlines()]
    assert study
    printed = capsys.readouterr().out
    assert "text" in printed
    measured = []

    def measure(params, variant, pretrain):
        measured.append(variant)
        return 1.0, 0.5

    monkeypatch.setattr(tune, "measure", measure)
    tune.run(params(trials=1))
    assert measured == []  # the trial that was done is not done again
    tune.run(params(trials=3))
    assert measured == ["author+hashtag"] * 2
    tune.run(params(trials=1, seed=1))
    assert measured[2:] == ["text", "author+hashtag"]  # other parameters: another study
    assert len((layout.TUNE / "trials.csv").read_text().splitlines()) == 3


def test_sampled_rows_are_few_and_of_the_right_splits():
    split = np.array(["train"] * 50 + ["validation"] * 20 + ["test"] * 10)
    rows = tune.sample_rows(split, {"train": 10, "validation": 40}, 0)
    assert (split[rows] == "train").sum() == 10
    assert (split[rows] == "validation").sum() == 20
    assert len(rows) == 30


def test_gains_are_in_percent_and_positive_where_better(tmp_path):
    rows = [
        {"trial": "text", "bits": 8.0, "score": 0.5},
        {"trial": "0", "bits": 7.6, "score": 0.55, "bits_gain": 5.0, "score_gain": 10.0, "slot_scale": 3.0},
    ]
    tune.write_csv(rows, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [row["bits_gain"] for row in read] == ["", "5.0"]


def test_a_task_that_was_not_built_is_a_user_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoder: Any = None  # is not used before
    with pytest.raises(UserError, match=r"tune\.task: data/tasks/side not found"):
        tune.probe_score(params(), encoder)
