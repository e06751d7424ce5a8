"""`ntulm drift`: what the model sees in arriving posts, against what it saw in those that it was measured on."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ntulm.errors import UserError
from ntulm.inference.store import Rows, adding
from ntulm.inference.version import version_of
from ntulm.layout import Layout
from ntulm.production import drift
from ntulm.production.config import Arrivals
from ntulm.production.drift import NO_LABEL, Seen
from ntulm.production.kept import INDEX, Kept
from ntulm.production.labels import SCHEMA

CHAMPION = Layout(Path("champion"))
KEPT = Kept(Path("data/arrivals"))
NAME = "topic.side"
CONFIG = Arrivals(
    backlog_per_run=9, reference_posts=9, compared_posts=80, min_posts=50, max_vector_drift=0.75, max_label_drift=0.25
)


PARAMS: Any = SimpleNamespace(arrivals=CONFIG)  # all that the command looks at


def seen(count=120, shift=0.0, labels=("a", "b"), seed=0) -> Seen:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, 8)).astype(np.float32) + np.float32(shift)
    return Seen(vectors, {NAME: [str(label) for label in random.choice(labels, count)]})


def failed(arriving: Seen, past: Seen | None = None) -> list[str]:
    _, found = drift.examine(CONFIG, arriving, past or seen(seed=1))
    assert [row["check"] for row in found] == ["drift of vectors", f"drift of labels, {NAME}"]
    return [row["check"] for row in found if not row["passed"]]


@pytest.mark.parametrize(
    ("arriving", "failing"),
    [
        (seen(), []),
        (seen(shift=1.5), ["drift of vectors"]),
        (seen(labels=("a", "a", "a", "a", "a", "b", "c")), [f"drift of labels, {NAME}"]),
        (seen(shift=1.5, labels=(NO_LABEL,)), ["drift of vectors", f"drift of labels, {NAME}"]),
    ],
)
def test_each_kind_of_drift_is_told(arriving, failing):
    assert failed(arriving) == failing


def test_a_classifier_that_only_one_side_knows_is_left_out():
    _, found = drift.examine(CONFIG, seen(), Seen(seen(seed=1).vectors, {"other": ["x"] * 120}))
    assert [row["check"] for row in found] == ["drift of vectors"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A model in production of which 60 reference posts are kept."""
    monkeypatch.chdir(tmp_path)
    CHAMPION.model.mkdir(parents=True)
    (CHAMPION.model / "config.json").write_text("{}")
    CHAMPION.corpus.mkdir(parents=True)
    nobody = [pa.array([], pa.string())] * 2
    held = {"post_id": ["held"], "text": ["secret text"], "author": ["secret-author"]}
    pq.write_table(pa.table(held), CHAMPION.posts)
    pq.write_table(pa.table({"post_id": ["held"], "split": ["train"]}), CHAMPION.splits)
    pq.write_table(pa.table(nobody, names=["file", "line"]), CHAMPION.rejects)
    write(KEPT.reference(version()), seen(60, seed=1), "r")
    return tmp_path


def version() -> str:
    return version_of(CHAMPION.model)


def write(kept: Kept, posts: Seen, prefix: str, model: str | None = None, index: bool = False) -> None:
    """Vectors and labels as `ntulm arrivals` writes them; the later a post in the list, the newer."""
    model = model or version()
    ids, count = [f"{prefix}{place}" for place in range(len(posts))], len(posts)
    contents = np.arange(count, dtype=np.uint64)
    with adding(kept.store, model, posts.vectors.shape[1]) as store:
        fresh = store.fresh(ids, contents)
        assert fresh.all()
        store.add(Rows(ids, contents, posts.vectors, [[]] * count))
        store.finish()
    said = [[] if label == NO_LABEL else [label, "z"] for label in posts.labels[NAME]]
    columns = [ids, [model] * count, ["c"] * count, contents, said, [[]] * count, [False] * count]
    kept.labels.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )
    pq.write_table(table, kept.labels / f"{NAME}.parquet")
    if index:
        moments = [datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=place) for place in range(count)]
        pq.write_table(pa.table([ids, moments, ["secret-author"] * count, moments], schema=INDEX), kept.posts)


def verdict() -> dict:
    return json.loads(Path("data/drift/verdict.json").read_text())


def test_the_newest_posts_are_compared_and_what_is_found_is_kept(project, capsys):
    old, new = seen(70, shift=9.0), seen(80)
    both = Seen(np.concatenate([old.vectors, new.vectors]), {NAME: ["c"] * 70 + new.labels[NAME]})
    write(KEPT, both, "n", index=True)
    drift.run(PARAMS, CHAMPION.root, Layout())
    drift.run(PARAMS, CHAMPION.root, Layout())
    assert verdict() == {"verdict": "passed", "reason": "no drift"}
    assert "drift of vectors: 0." in capsys.readouterr().out
    found = json.loads(Path("data/drift/drift.json").read_text())
    assert [row["passed"] for row in found] == [True, True]
    runs = list(Layout().monitoring.glob("*/snapshots/*.json"))
    assert len(runs) == 2
    for path in [*runs, Path("data/drift/drift.html")]:
        content = path.read_text(encoding="utf-8")
        assert "secret" not in content
        assert '"n79"' not in content


def test_the_history_of_drift_can_be_drawn(project):
    from evidently.ui.workspace import Workspace

    write(KEPT, seen(80), "n", index=True)
    drift.run(PARAMS, CHAMPION.root, Layout())
    workspace = Workspace(str(Layout().monitoring))
    (found,) = workspace.search_project(drift.HISTORY)
    (run,) = [workspace.get_run(found.id, run_id) for run_id in workspace.list_runs(found.id)]
    lines = [line for panel in drift.panels([NAME]) for line in panel.lines]
    assert [line.name for line in lines] == ["vectors", NAME]
    for line in lines:
        (value,) = (one.value for one in run.metric_results.values() if is_of(one, line))
        assert 0 <= value < 1


def is_of(result, line) -> bool:
    """Whether a figure of a snapshot belongs to a line of a panel."""
    params = result.metric_value_location.metric.params
    return params["type"].endswith(f":{line.metric}") and line.labels.items() <= params.items()


def test_drift_ends_with_the_values_and_the_limits(project):
    write(KEPT, seen(80, shift=3.0, labels=("c",)), "n", index=True)
    with pytest.raises(
        UserError, match=r"^drift of vectors: 1, at most 0\.75 expected; drift of labels, topic\.side: 0\."
    ):
        drift.run(PARAMS, CHAMPION.root, Layout())
    assert verdict()["verdict"] == "failed"
    assert "drift of vectors" in verdict()["reason"]


@pytest.mark.parametrize(("count", "model"), [(0, None), (49, None), (80, "another version")])
def test_too_few_posts_of_this_version_say_nothing(project, count, model, capsys):
    Path("data/drift").mkdir(parents=True)
    Path("data/drift/drift.json").write_text("[]")
    if count:
        write(KEPT, seen(count), "n", model=model, index=True)
    drift.run(PARAMS, CHAMPION.root, Layout())
    assert verdict()["verdict"] == "quiet"
    assert "arrivals.min_posts (50)" in capsys.readouterr().out
    assert not Path("data/drift/drift.json").exists()


def test_posts_that_the_model_was_built_from_do_not_count_as_arriving(project):
    write(KEPT, seen(80), "n", index=True)
    held = pa.table({"post_id": [f"n{place}" for place in range(40)]})
    assert len(drift.newest(KEPT, version(), held, 80)) == 40
    assert drift.newest(KEPT, version(), held, 2).to_pylist() == ["n79", "n78"]


def test_names_of_classes_are_no_markup(tmp_path):
    path = tmp_path / "labels.parquet"
    row = {"post_id": "p", "model": "v", "labels": ["<script>&"]}
    pq.write_table(pa.Table.from_pylist([row]), path)
    assert drift.labels_of(path, "v", ["p", "q"]) == ["‹script›+", NO_LABEL]
