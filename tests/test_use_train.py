"""ntulm/use/: labelled rows to a classifier, with honest folds, whole or not at all."""

import csv
import json
import os
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model
from ruamel.yaml import YAML

import ntulm
from ntulm.errors import UserError
from ntulm.inference.directory import Settings
from ntulm.inference.version import version_of
from ntulm.layout import Layout
from ntulm.use import add_classifier, train
from ntulm.use.folds import divide, together, validation_rows
from ntulm.use.labels import label_of, read_labels

LABELS = Path("labels.csv")
QUICK: dict[str, Any] = {"trials": 1, "startup_trials": 1, "max_epochs": 12, "patience": 4, "search": False}
QUICK |= {"fixed": {"epochs": 12, "learning_rate": 1e-2, "weight_decay": 0.0, "dropout": 0.0, "batch_size": 16}}


@pytest.fixture
def directory(lm_project, tiny_backbone) -> Path:
    layout = Layout(lm_project)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    values = YAML(typ="safe", pure=True).load(Path(str(resources.files("ntulm.use") / "classifier.yaml")))
    YAML().dump({**values, "folds": 3, "resamples": 200, "probe": {**values["probe"], **QUICK}}, Path("quick.yaml"))
    write_labels()
    return layout.model


def write_labels(count=90, path=LABELS):
    """Only the author tells the label; each author has many rows."""
    random = np.random.default_rng(3)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["tweet", "who", "side"])
        for _ in range(count):
            side, number = random.choice(["left", "right"]), random.integers(0, 4)
            words = " ".join(random.choice(["we", "like", "it", "so", "on", "see", "again", "today"], 5))
            writer.writerow([words, f"@{side}{number}", side])


def run(directory, name="camp", source=LABELS, out=None, again=False, **columns):
    given = {"text": None, "author": "who", "label": "side"} | columns
    train.run(source, name, str(directory), given, Path("quick.yaml"), out, again)


def test_a_classifier_is_trained_validated_and_predicts(directory, capsys):
    version = version_of(directory)
    run(directory)
    said = capsys.readouterr()
    assert "labels.csv: text: tweet, author: who, label: side" in said.err
    assert "camp: 90 rows, 8 authors, 2 classes" in said.out
    assert "90 of the rows have NTUs that the model knows" in said.out
    assert "3-fold cross-validation, stratified, no author on both sides; 95% intervals" in said.out
    assert "text only *" in said.out
    assert "* this model with the NTUs of every post hidden" in said.out
    about = json.loads((directory / "classifiers/camp.camp.json").read_text())
    systems = about["cross_validation"]["systems"]
    assert systems["this model"]["macro_f1"]["value"] > 0.9  # authors of a side are alike in the table
    assert systems["text only"]["macro_f1"]["value"] < 0.75
    assert about["cross_validation"]["gain"]["low"] > 0
    assert (about["cross_validation"]["gain"]["verdict"], about["posts"]["test"]) == ("better", 90)
    assert about["test"] == systems["this model"]["macro_f1"]["value"]
    model = ntulm.load(directory)
    assert model.tasks == ["camp", "topic"]
    posts = [{"text": "we like it", "author": name} for name in ("left1", "right2")]
    assert [one.labels for one in model.predict(posts, "camp")] == [["left"], ["right"]]
    assert version_of(directory) == version  # nothing has to be embedded again
    assert (directory / "README.md").read_text().count("- `camp`: 2 classes, 90 rows") == 1


def test_again_only_when_told_and_the_card_has_one_line(directory):
    run(directory)
    with pytest.raises(UserError, match="--name camp: a classifier of this model; --replace trains it anew"):
        run(directory)
    run(directory, again=True)
    assert (directory / "README.md").read_text().count("- `camp`") == 1
    assert sorted(path.name for path in (directory / "classifiers").iterdir()) == [
        "camp.camp.json", "camp.camp.safetensors", "topic.side.json", "topic.side.safetensors",
    ]  # fmt: skip


def test_a_copy_leaves_the_model_as_it_is(directory, lm_project):
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    run(directory, out=lm_project / "copy")
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before
    assert ntulm.load(lm_project / "copy").tasks == ["camp", "topic"]
    with pytest.raises(UserError, match="is there already; name a new directory"):
        run(directory, out=lm_project / "copy")


def test_a_fetched_model_stays_as_it_is(directory, lm_project, monkeypatch):
    layout = Layout(lm_project)
    layout.champion.model.parent.mkdir(parents=True)
    directory.rename(layout.champion.model)
    with pytest.raises(UserError, match="production: a fetched model stays as it is; --out DIR"):
        run("production")


def test_a_model_without_ntus_has_nothing_to_compare(lm_project, tiny_backbone, directory, capsys):
    layout = Layout(lm_project)
    params = tiny_model.params_of("probe.search=false", variant="unadapted")
    tiny_model.write_language_model(params, str(tiny_backbone), layout)
    tiny_model.run_stages(params, layout)
    tiny_model.write_model_directory(params, layout)
    run(layout.model)
    assert "the model looks at no NTUs" in capsys.readouterr().out
    about = json.loads((layout.model / "classifiers/camp.camp.json").read_text())
    assert about["cross_validation"]["gain"] is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "Bad name"}, "--name Bad name: expected small letters"),
        ({"name": "../x"}, "--name ../x: expected small letters"),
        ({"name": "topic"}, r"--name topic: a task of the pipeline \(topic\.side\); take another name"),
        ({"label": "mood"}, "--label mood: no such column; labels.csv has tweet, who, side"),
        ({"label": None}, "which column has the labels. --label COLUMN; it has tweet, who, side"),
        ({"label": "tweet"}, r"a class needs at least 10 rows: .* has 1.* more classes have too few"),
        ({"source": Path("nowhere.csv")}, "nowhere.csv: not found"),
    ],
)
def test_mistakes_are_said_and_leave_nothing(directory, values, message):
    before = sorted(directory.rglob("*"))
    with pytest.raises(UserError, match=message) as raised:
        run(directory, **values)
    assert "\n" not in str(raised.value)
    assert sorted(directory.rglob("*")) == before


def test_settings_that_do_not_fit_are_said(tmp_path):
    with pytest.raises(UserError, match="not read"):
        train.read_settings(tmp_path / "none.yaml")
    (tmp_path / "a.yaml").write_text("folds: 1\n")
    with pytest.raises(UserError, match=r"a\.yaml: folds: "):
        train.read_settings(tmp_path / "a.yaml")
    assert train.read_settings(None).folds == 5


def test_a_classifier_is_there_whole_or_not_at_all(directory, monkeypatch):
    classifier = ntulm.load(directory).classifiers["topic.side"]
    systems = {"this model": {"macro_f1": {"value": 0.5}}}
    about = {"task": "camp", "dataset": "camp", "cross_validation": {"systems": systems}}
    new = type(classifier)(classifier.layers, classifier.scaling, {**classifier.about, **about})
    replace = os.replace
    for fails_at in range(2):
        for earlier in (False, True):
            if earlier:
                add_classifier.add(directory, new, "camp")
            calls = iter(range(9))

            def stopped(source, target, calls=calls, fails_at=fails_at):
                if next(calls) == fails_at:
                    raise KeyboardInterrupt
                replace(source, target)

            monkeypatch.setattr(os, "replace", stopped)
            with pytest.raises(KeyboardInterrupt):
                add_classifier.add(directory, new, "camp")
            monkeypatch.setattr(os, "replace", replace)
            assert ntulm.load(directory).tasks == ["topic"]
    add_classifier.add(directory, new, "camp")
    assert ntulm.load(directory).tasks == ["camp", "topic"]


def test_rows_without_text_or_label_are_named(directory, tmp_path):
    path = tmp_path / "l.jsonl"
    rows = [{"text": text, "label": label} for text, label in [("a", 1.0), ("", "x"), ("b", None), ("c", True)]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "no\n")
    read = read_labels(path, {"text": None, "author": None, "label": None}, Settings.read(directory))
    assert (read.posts.texts, read.labels) == (["a", "c"], ["1", "true"])
    assert {fault.where.rsplit(":", 1)[1]: fault.reason.split(":")[0] for fault in read.faults.named} == {
        "2": "text", "3": "no label", "5": "not JSON",
    }  # fmt: skip
    pq.write_table(pa.table({"text": ["a"], "label": [float("nan")]}), tmp_path / "l.parquet")
    nothing = read_labels(tmp_path / "l.parquet", {}, Settings.read(directory))
    assert (len(nothing.posts), nothing.faults.count) == (0, 1)
    with pytest.raises(UserError, match="0 labelled rows of 0 class"):
        nothing.check(10)


def test_labels_are_names():
    values = [1, 1.0, 1.5, True, " a ", "", None, float("nan"), ["a"], "a\x1b"]
    assert [label_of(value) for value in values] == ["1", "1", "1.5", "true", "a", None, None, None, None, "a\\x1b"]


def test_folds_keep_authors_and_copies_together():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 300)
    authors = [None if number % 7 == 0 else f"a{random.integers(0, 60)}" for number in range(300)]
    texts = [f"text {number // 2 if number < 20 else number}" for number in range(300)]
    found = divide(labels, texts, authors, 5, 0)
    assert (found.by_author, found.said) == (True, "no author on both sides")
    for keys in (authors, texts):
        sides: dict = {}
        for key, fold in zip(keys, found.folds, strict=True):
            assert key is None or sides.setdefault(key, fold) == fold
    for fold in range(5):
        assert len(set(labels[found.folds == fold])) == 3
    many = divide(labels, ["thanks" if number % 3 else text for number, text in enumerate(texts)], authors, 5, 0)
    assert (many.by_author, many.said) == (True, "no author on both sides, copies of a text may be")
    again = divide(labels, texts, authors, 5, 0)
    np.testing.assert_array_equal(again.folds, found.folds)


def test_folds_say_what_they_could_not_do():
    labels = np.repeat([0, 1], 30)
    texts = [f"text {number}" for number in range(60)]
    one_each = ["a"] * 30 + ["b"] * 30
    found = divide(labels, texts, one_each, 5, 0)
    assert not found.by_author
    assert found.said.startswith("AUTHORS ON BOTH SIDES")
    assert divide(labels, texts, [None] * 60, 5, 0).said == "no authors given"
    assert divide(labels, texts, [f"a{number}" for number in range(60)], 5, 0).said == "no author stands twice"
    with pytest.raises(UserError, match="fewer than 5 different texts"):
        divide(labels, ["same"] * 60, [None] * 60, 5, 0)


def test_groups_join_what_shares_any_key():
    found = together(["x", "y", "y", "z", "w"], ["a", "a", None, "b", None])
    assert Counter(found.tolist()) == {0: 3, 1: 1, 2: 1}


def test_validation_rows_are_a_share_with_every_class():
    labels = np.repeat([0, 1], [10, 40])
    chosen = validation_rows(labels, np.arange(50), 0.2, 0)
    assert chosen.sum() == 10
    assert set(labels[chosen]) == set(labels[~chosen]) == {0, 1}
    grouped = validation_rows(labels, np.repeat([0, 1], [10, 40]), 0.2, 0)
    assert set(labels[grouped]) == set(labels[~grouped]) == {0, 1}
