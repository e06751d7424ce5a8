import json
import shutil

import numpy as np
import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from safetensors.numpy import load_file, save_file

from ntulm.errors import UserError
from ntulm.files import write_json
from ntulm.layout import Layout
from ntulm.probe import stage as probe
from ntulm.probe.classifier import Classifier, Scaling, best_threshold, load_classifier, save_classifier
from ntulm.probe.config import FixedProbe, Probe
from ntulm.probe.metrics import metric
from ntulm.probe.search import fit

FIXED = {"epochs": 4, "learning_rate": 1e-2, "weight_decay": 0.0, "dropout": 0.0, "batch_size": 16}
SECTION = {
    "search": True,
    "trials": 4,
    "startup_trials": 2,
    "warmup_epochs": 1,
    "max_epochs": 6,
    "patience": 2,
    "averaged_epochs": 1.0,
    "learning_rate": [1e-3, 1e-1],
    "weight_decay": [1e-6, 1e-2],
    "dropout": [0.0, 0.5],
    "batch_size": [16, 32],
    "fixed": FIXED,
    "trials_at_once": 2,
    "baselines": [],
    "baseline_strengths": [10.0],
}
CLASSES = 3
layout = Layout()


def section(**changes):
    return Probe.model_validate({**SECTION, **changes})


def write_task(
    name="toy", kind="single", posts=240, signal=3.0, test_labels=None, ntu=False, variant="text", named=False
):
    """Vectors of 8 features; the first CLASSES of them carry the label. A quarter each is validation and test."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, CLASSES, posts)
    splits = ["train"] * (posts // 2) + ["validation"] * (posts // 4) + ["test"] * (posts // 4)
    vectors = rng.normal(size=(posts, 8)).astype(np.float32)
    vectors[np.arange(posts), labels] += signal
    if test_labels is not None:
        labels[-posts // 4 :] = test_labels(labels[-posts // 4 :])
    own = [[int(c)] if kind == "single" else sorted({int(c), 0}) for c in labels]
    metrics = ["map"] if kind == "multi" else ["macro_f1", "accuracy"]
    layout.task(name).mkdir(parents=True, exist_ok=True)
    authors = [f"a{label}" for label in labels] if named else [None] * posts
    table = pa.table(
        {
            "split": splits,
            "text": ["some text"] * posts,
            "author": authors,
            "labels": pa.array(own, pa.list_(pa.int32())),
        }
    )
    pq.write_table(table, layout.task(name) / f"{name}.parquet")
    about = {"family": "Toy", "kind": kind, "classes": ["a", "b", "c"], "metric": metrics[0], "metrics": metrics}
    write_json(layout.task(name) / "datasets.json", {name: about})
    layout.vectors(variant, 0, name).mkdir(parents=True, exist_ok=True)
    tensors = {"vectors": vectors.astype(np.float16)}
    if ntu:
        tensors["ntu"] = np.eye(CLASSES, dtype=np.float16)[labels] * np.float16(1e-3)  # small, and it says everything
    save_file(tensors, layout.vectors(variant, 0, name) / f"{name}.safetensors")


def outcome(variant="text", name="toy"):
    directory = layout.scores(variant, 0, name)
    scores = {path.name: load_file(path)["scores"] for path in sorted(directory.glob("*.safetensors"))}
    return json.loads(layout.metrics("probe", variant, 0, name).read_text()), scores


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_learns_a_separable_problem_and_writes_the_contract(kind):
    write_task(kind=kind)
    probe.run(section(), "text", 0, "toy", layout)
    results, scores = outcome()
    found = results["text"]["toy"]
    main = "map" if kind == "multi" else "macro_f1"
    assert found[main] > 0.9
    assert found["posts"] == 60
    assert found["trials"] == 4
    assert found["validation"] > 0.9
    assert set(found["best"]) == {"learning_rate", "weight_decay", "dropout", "batch_size", "epochs"}
    assert list(scores) == ["text.toy.safetensors"]
    stored = scores["text.toy.safetensors"]
    assert stored.dtype == np.float16
    assert stored.shape == (60, CLASSES)
    assert kind == "multi" or np.allclose(stored.sum(1, dtype=float), 1, atol=1e-2)
    split, labels = probe.read_labels(layout.task("toy") / "toy.parquet", CLASSES)
    assert found[main] == metric(main, labels[split == "test"], stored)


def test_trials_are_kept_as_a_table():
    write_task()
    probe.run(section(), "text", 0, "toy", layout)
    trials = json.loads((layout.scores("text", 0, "toy") / "text.toy.trials.json").read_text())
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3]
    assert {trial["state"] for trial in trials} <= {"complete", "pruned"}
    best = max((trial for trial in trials if trial["value"] is not None), key=lambda trial: trial["value"])
    results, _ = outcome()
    assert results["text"]["toy"]["best"]["learning_rate"] == best["learning_rate"]
    assert results["text"]["toy"]["validation"] == best["value"] == max(best["epochs"].values())


def test_the_same_seed_gives_the_same_bytes_whatever_was_drawn_before():
    write_task(signal=0.5)
    probe.run(section(), "text", 0, "toy", layout)
    first = outcome()
    torch.rand(7)
    np.random.default_rng().random()
    probe.run(section(), "text", 0, "toy", layout)
    second = outcome()
    assert first[0] == second[0]
    assert all((first[1][name] == second[1][name]).all() for name in first[1])


def test_test_labels_change_nothing_but_the_test_metrics():
    write_task(signal=0.5)
    probe.run(section(), "text", 0, "toy", layout)
    results, scores = outcome()
    write_task(signal=0.5, test_labels=lambda labels: (labels + 1) % CLASSES)
    probe.run(section(), "text", 0, "toy", layout)
    permuted, same = outcome()
    assert (scores["text.toy.safetensors"] == same["text.toy.safetensors"]).all()
    kept = ("best", "validation", "trials", "posts")
    assert [results["text"]["toy"][key] for key in kept] == [permuted["text"]["toy"][key] for key in kept]
    assert results["text"]["toy"]["accuracy"] != permuted["text"]["toy"]["accuracy"]


def test_text_with_ntu_vectors_is_also_post_concat():
    write_task(signal=0.3, ntu=True)
    probe.run(section(), "text", 0, "toy", layout)
    results, scores = outcome()
    assert sorted(scores) == ["ntu.toy.safetensors", "post-concat.toy.safetensors", "text.toy.safetensors"]
    assert results["post-concat"]["toy"]["accuracy"] > 0.95 > results["text"]["toy"]["accuracy"]
    assert results["ntu"]["toy"]["accuracy"] > 0.95


BASELINES = ["tfidf", "author-id", "tfidf+author-id", "tfidf+ntu", "history"]


def test_baselines_stand_beside_text_and_leave_no_classifier():
    write_task(signal=0.3, ntu=True, named=True)
    probe.run(section(baselines=BASELINES), "text", 0, "toy", layout)
    results, scores = outcome()
    systems = {"text", "post-concat", "ntu", *BASELINES}
    assert set(results) == systems
    assert set(scores) == {f"{system}.toy.safetensors" for system in systems}
    assert all(scores[f"{system}.toy.safetensors"].shape == (60, CLASSES) for system in systems)
    for told in ("author-id", "tfidf+author-id", "tfidf+ntu"):
        assert results[told]["toy"]["accuracy"] == 1
    # All words are the same; the text vectors of an author's other posts say of which class they are.
    assert results["tfidf"]["toy"]["accuracy"] < 0.5
    assert results["history"]["toy"]["accuracy"] > 0.95 > results["text"]["toy"]["accuracy"]
    kept = {path.name for path in (layout.scores("text", 0, "toy") / "classifiers").glob("*.json")}
    assert kept == {"text.toy.json", "post-concat.toy.json", "ntu.toy.json"}


def test_baselines_are_of_text_alone_and_need_what_they_look_at():
    write_task(variant="author", named=True)
    probe.run(section(baselines=BASELINES), "author", 0, "toy", layout)
    assert set(outcome("author")[0]) == {"author"}
    write_task()
    probe.run(section(baselines=BASELINES), "text", 0, "toy", layout)
    assert set(outcome()[0]) == {"text", "tfidf"}


def test_every_system_is_given_the_same_first_trials():
    write_task(signal=0.3, ntu=True)
    probe.run(section(trials=2), "text", 0, "toy", layout)
    keys = ("learning_rate", "weight_decay", "dropout", "batch_size")
    tables = [json.loads(path.read_text()) for path in sorted(layout.scores("text", 0, "toy").glob("*.trials.json"))]
    assert len(tables) == 3
    assert [[t[k] for k in keys] for t in tables[0]] == [[t[k] for k in keys] for t in tables[1]]


def test_without_search_the_fixed_settings_are_used():
    write_task(variant="author")
    probe.run(section(search=False), "author", 0, "toy", layout)
    results, _ = outcome("author")
    assert results["author"]["toy"]["trials"] == 1
    assert {**results["author"]["toy"]["best"], "epochs": 4} == FIXED


def test_the_hidden_layer_is_as_wide_as_the_backbone():
    write_task(ntu=True)
    split, labels = probe.read_labels(layout.task("toy") / "toy.parquet", CLASSES)
    for system in probe.systems(layout.vectors("text", 0, "toy") / "toy.safetensors", "text"):
        about = {"kind": "single", "metric": "macro_f1"}
        problem = probe.prepare(about, system.width, system.features, labels, split)
        shapes = [
            tuple(weight.shape)
            for weight in fit(problem, section(), FixedProbe.model_validate(FIXED), 0).weights.values()
        ]
        assert shapes == [(8, system.features.shape[1]), (8,), (CLASSES, 8), (CLASSES,)]


def test_features_are_standardised_by_train_posts_alone():
    features = np.array([[1.0, 5], [3, 5], [100, 5], [-100, 6]], dtype=np.float32)
    split = np.array(["train", "train", "validation", "test"])
    labels = np.eye(2, dtype=bool)[[0, 1, 0, 1]]
    problem = probe.prepare({"kind": "single", "metric": "macro_f1"}, 2, features, labels, split)
    assert problem.train.features.tolist() == [[-1, 0], [1, 0]]
    assert problem.test.features.tolist() == [[-102, 1]]


def test_averaged_weights_are_steadier_from_epoch_to_epoch():
    write_task(signal=0.5)
    fast = {"learning_rate": [0.05, 0.051], "max_epochs": 20, "patience": 20, "trials": 1}
    swings = {}
    for epochs in (0.0, 5.0):
        probe.run(section(averaged_epochs=epochs, **fast), "text", 0, "toy", layout)
        (trial,) = json.loads((layout.scores("text", 0, "toy") / "text.toy.trials.json").read_text())
        values = [trial["epochs"][str(epoch)] for epoch in range(10, 21)]
        swings[epochs] = np.abs(np.diff(values)).mean()
    assert swings[5.0] < 0.75 * swings[0.0]


def test_patience_ends_a_probe_that_does_not_get_better():
    write_task(signal=5.0)
    probe.run(section(max_epochs=50, trials=1), "text", 0, "toy", layout)
    trials = json.loads((layout.scores("text", 0, "toy") / "text.toy.trials.json").read_text())
    assert len(trials[0]["epochs"]) <= trials[0]["epoch"] + 2 < 50


def test_mistakes_are_user_errors_and_leave_nothing_behind():
    write_task()
    path = layout.vectors("text", 0, "toy") / "toy.safetensors"

    def fails(message, **changes):
        with pytest.raises(UserError, match=message):
            probe.run(section(**changes), "text", 0, "toy", layout)
        assert not layout.scores("text", 0, "toy").exists()
        assert not layout.metrics("probe", "text", 0, "toy").exists()

    fails("every trial diverged", learning_rate=[1e30, 1e31])
    fails("undefined", search=False, fixed={**FIXED, "learning_rate": 1e30, "weight_decay": 1e30})
    save_file({"vectors": np.zeros((3, 8), dtype=np.float16)}, path)
    fails("3 rows, toy has 240; run `ntulm encode` again")
    save_file({"vectors": np.full((240, 8), np.inf, dtype=np.float16)}, path)
    fails("encode.dtype: float32")
    path.write_bytes(b"broken")
    fails("not a readable safetensors file")
    path.unlink()
    fails("run `ntulm encode` first")
    (layout.task("toy") / "toy.parquet").unlink()
    fails("run `ntulm tasks` first")
    (layout.task("toy") / "datasets.json").unlink()
    fails("not found")


def test_read_labels_takes_several_labels_a_post():
    write_task(kind="multi")
    path = layout.task("toy") / "toy.parquet"
    _, labels = probe.read_labels(path, CLASSES)
    assert [np.flatnonzero(row).tolist() for row in labels] == pq.read_table(path)["labels"].to_pylist()


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_kept_classifier_gives_the_scores_of_the_probe(kind):
    write_task(kind=kind, ntu=True, signal=1.0)
    probe.run(section(), "text", 0, "toy", layout)
    results, scores = outcome()
    split, labels = probe.read_labels(layout.task("toy") / "toy.parquet", CLASSES)
    for system in probe.systems(layout.vectors("text", 0, "toy") / "toy.safetensors", "text"):
        kept = load_classifier(layout.scores("text", 0, "toy") / "classifiers" / f"{system.name}.toy")
        again = kept.scores(system.features[split == "test"])
        np.testing.assert_array_equal(again, scores[f"{system.name}.toy.safetensors"])
        about, figures = kept.about, results[system.name]["toy"]
        assert (about["system"], about["variant"], about["task"], about["dataset"]) == (
            system.name,
            "text",
            *["toy"] * 2,
        )
        assert (about["kind"], about["classes"], about["precision"]) == (kind, ["a", "b", "c"], "float16")
        assert about["posts"] == {"train": 120, "validation": 60, "test": 60}
        assert (about["validation"], about["test"]) == (figures["validation"], figures[about["metric"]])
        chosen = kept.chosen(again)
        if kind == "single":
            assert about["threshold"] is None
            assert (chosen.argmax(1) == again.argmax(1)).all()
            assert (chosen.sum(1) == 1).all()
        else:
            assert (chosen == (again.astype(float) >= about["threshold"])).all()
            assert (chosen == labels[split == "test"]).mean() > 0.7


def test_vectors_are_read_in_the_precision_that_the_probe_learnt_from():
    write_task()
    probe.run(section(search=False), "text", 0, "toy", layout)
    kept = load_classifier(layout.scores("text", 0, "toy") / "classifiers/text.toy")
    stored = load_file(layout.vectors("text", 0, "toy") / "toy.safetensors")["vectors"]
    unrounded = stored.astype(np.float32) * (1 + 1e-5)
    np.testing.assert_array_equal(kept.scores(unrounded), kept.scores(stored))
    with pytest.raises(ValueError, match="7 features; the classifier takes 8"):
        kept.scores(unrounded[:, :7])


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_posts_of_which_nothing_is_known_have_a_probe_of_their_own(kind):
    write_task(kind=kind, variant="author")
    path = layout.vectors("author", 0, "toy") / "toy.safetensors"
    split, labels = probe.read_labels(layout.task("toy") / "toy.parquet", CLASSES)
    plain = load_file(path)["vectors"]
    test = np.flatnonzero(split == "test")
    known = np.ones(len(split), bool)
    known[test[::3]] = False
    # With nothing known, the label stands in other features, and the usual ones say something else.
    hidden = np.zeros_like(plain)
    hidden[:, 3:6], hidden[:, :3] = plain[:, :3], np.roll(plain[:, :3], 1, axis=1)
    vectors = np.where(known[:, None], plain, hidden)
    save_file({"vectors": vectors}, path)
    probe.run(section(), "author", 0, "toy", layout)
    together, alike = outcome("author")
    hidden[test] = 0  # nobody looks at these
    save_file({"vectors": vectors, "hidden": hidden, "known": known.astype(np.float16)}, path)
    probe.run(section(), "author", 0, "toy", layout)
    apart, own = outcome("author")
    before, after = alike["author.toy.safetensors"], own["author.toy.safetensors"]
    seen = known[test]
    np.testing.assert_array_equal(before[seen], after[seen])  # what is known changes nothing
    main = "map" if kind == "multi" else "macro_f1"
    assert metric(main, labels[test][~seen], after[~seen]) > 0.9 > metric(main, labels[test][~seen], before[~seen])
    assert apart["author"]["toy"][main] > together["author"]["toy"][main]
    kept = load_classifier(layout.scores("author", 0, "toy") / "classifiers/author.toy")
    np.testing.assert_array_equal(kept.scores(vectors[test], seen), after)
    chosen = kept.chosen(after, seen)
    assert (chosen == labels[test]).mean() > 0.8
    assert kept.unknown is not None
    if kind == "multi":
        limits = [(kept if one else kept.unknown).about["threshold"] for one in seen]
        np.testing.assert_array_equal(chosen, after >= np.array(limits, np.float16)[:, None])
    assert kept.unknown.about["classes"] == kept.about["classes"] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="`known` is missing"):
        kept.scores(vectors[test])
    with pytest.raises(ValueError, match="`known` is missing"):
        kept.chosen(after)


def test_post_concat_keeps_to_the_text_where_nothing_is_known():
    write_task(ntu=True)
    path = layout.vectors("text", 0, "toy") / "toy.safetensors"
    tensors = load_file(path)
    split, labels = probe.read_labels(layout.task("toy") / "toy.parquet", CLASSES)
    test = np.flatnonzero(split == "test")
    nothing = tensors["ntu"].mean(0, keepdims=True)
    known = np.ones(len(split), np.float16)
    known[test[::2]], tensors["ntu"][test[::2]] = 0, nothing
    accuracy = {}
    for more in ({}, {"known": known, "ntu_hidden": nothing}):
        save_file({**tensors, **more}, path)
        probe.run(section(), "text", 0, "toy", layout)
        _, scores = outcome()
        for system in ("text", "post-concat", "ntu"):
            own = scores[f"{system}.toy.safetensors"][::2]
            accuracy[system, bool(more)] = metric("accuracy", labels[test[::2]], own)
    assert accuracy["text", True] == accuracy["text", False] > 0.9
    assert accuracy["post-concat", True] > 0.9 > accuracy["post-concat", False]
    assert (own == own[0]).all()  # `ntu` has nothing to go by: the classes' frequencies


def test_the_threshold_is_where_f1_is_highest():
    scores = np.array([[0.9, 0.1], [0.8, 0.6], [0.6, 0.3]], np.float16)
    labels = np.array([[1, 0], [1, 0], [1, 1]], bool)
    values = {float(one): _f1(scores >= one, labels) for one in scores.ravel()}
    assert values[best_threshold(scores, labels)] == max(values.values())
    assert best_threshold(scores, np.zeros((3, 2), bool)) == 0.5


def _f1(chosen, labels):
    return 2 * (chosen & labels).sum() / (chosen.sum() + labels.sum())


def test_a_missing_or_damaged_classifier_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no classifier with its"):
        load_classifier(tmp_path / "text.toy")
    (tmp_path / "text.toy.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"text\.toy\.safetensors: no classifier"):
        load_classifier(tmp_path / "text.toy")


ABOUT = {
    "task": "toy", "dataset": "toy", "kind": "single", "classes": ["a", "b"], "threshold": None, "precision": "float16",
}  # fmt: skip


@pytest.mark.parametrize(
    ("about", "layers"),
    [
        ({"classes": ["a"]}, {}),
        ({"classes": 3}, {}),
        ({"kind": "x"}, {}),
        ({"precision": "int8"}, {}),
        ({"threshold": "x"}, {}),
        ({"task": 3}, {}),
        ({}, {0: torch.ones(3, 5)}),
        ({}, {3: torch.ones(2, dtype=torch.float64)}),
    ],
)
def test_parts_of_a_classifier_that_do_not_belong_together_are_a_user_error(tmp_path, about, layers):
    weights = [torch.ones(3, 4), torch.ones(3), torch.ones(2, 3), torch.ones(2)]
    scaling = Scaling(np.zeros(4), np.ones(4))
    save_classifier(Classifier(tuple(weights), scaling, ABOUT), tmp_path / "whole")
    assert load_classifier(tmp_path / "whole").classes == ["a", "b"]
    changed = tuple(layers.get(place, layer) for place, layer in enumerate(weights))
    save_classifier(Classifier(changed, scaling, ABOUT | about), tmp_path / "other")
    with pytest.raises(UserError, match=r"other\.safetensors: no classifier"):
        load_classifier(tmp_path / "other")


def test_searches_are_studies_in_one_journal_of_the_task():
    write_task(ntu=True)
    probe.run(section(), "text", 0, "toy", layout)
    first = outcome()
    journal = layout.studies("toy")
    storage = JournalStorage(JournalFileBackend(str(journal)))
    names = ["toy ntu seed 0", "toy post-concat seed 0", "toy text seed 0"]
    assert sorted(optuna.get_all_study_names(storage)) == names
    study = optuna.load_study(study_name="toy text seed 0", storage=storage)
    results, _ = first
    assert study.best_value == results["text"]["toy"]["validation"]
    trials = len(study.trials)
    assert trials == results["text"]["toy"]["trials"]
    assert study.best_params.keys() >= {"learning_rate", "weight_decay", "dropout"}
    assert study.user_attrs["variant"] == "text"
    assert not journal.is_relative_to(layout.data("probe"))
    shutil.copytree(layout.vectors("text", 0, "toy"), layout.vectors("text", 1, "toy"))
    probe.run(section(), "text", 1, "toy", layout)  # beside the first seed
    probe.run(section(), "text", 0, "toy", layout)  # in the place of the first search
    storage = JournalStorage(JournalFileBackend(str(journal)))
    assert len(optuna.get_all_study_names(storage)) == 6
    assert len(optuna.load_study(study_name="toy text seed 0", storage=storage).trials) == trials


def test_a_journal_changes_no_figure_and_one_that_cannot_be_written_is_told(capsys):
    write_task()
    probe.run(section(), "text", 0, "toy", layout)
    figures, _ = outcome()
    files = {path.name: path.read_bytes() for path in layout.scores("text", 0, "toy").rglob("*") if path.is_file()}
    assert capsys.readouterr().err == ""
    layout.studies("toy").unlink()
    layout.studies("toy").mkdir()
    probe.run(section(), "text", 0, "toy", layout)
    assert "monitoring/studies/toy.log: the study 'toy text seed 0' is not kept" in capsys.readouterr().err
    assert {
        path.name: path.read_bytes() for path in layout.scores("text", 0, "toy").rglob("*") if path.is_file()
    } == files
    assert outcome()[0] == figures
