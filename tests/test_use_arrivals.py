"""`ntulm arrivals`: what arrives is embedded and labelled as the loaded model does it, once per version, at a pace."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny_model

import ntulm
from ntulm.errors import UserError
from ntulm.inference.model import Model
from ntulm.inference.store import adding
from ntulm.inference.version import version_of
from ntulm.layout import Layout
from ntulm.production import kept as kept_module
from ntulm.production.kept import Kept
from ntulm.use import arrivals

CHAMPION, EXPORT = Path("champion"), Path("new.csv")
START = datetime(2021, 1, 1, tzinfo=UTC)
MAPPING = "corpus.table={post_id: id, created_at: time, text: text, author: author}"
SETTINGS = ["corpus.format=table", MAPPING, "arrivals.reference_posts=30", "arrivals.backlog_per_run=2"]
CLASSIFIER = "topic.side"
KEPT = Kept(Path("data/arrivals"))


@pytest.fixture
def params(lm_project, tiny_backbone):
    """A project whose model in production is in `champion`."""
    params = tiny_model.params_of(*SETTINGS)
    layout = Layout(lm_project)
    tiny_model.build(params, str(tiny_backbone), layout)
    nothing = pa.table({"file": pa.array([], pa.string()), "line": pa.array([], pa.int64())})
    pq.write_table(nothing, layout.rejects)
    for name in ("corpus", "model"):
        shutil.move(str(lm_project / "data" / name), str(CHAMPION / "data" / name))
    return params


def posts(count: int, start: int = 0) -> list[dict]:
    return [
        {"post_id": f"n{number}", "text": f"we like it {number}", "author": f"@Right{number % 9}"}
        for number in range(start, start + count)
    ]


def write_export(given: list[dict]) -> None:
    """Each post an hour after the one before."""
    lines = [
        f"{post['post_id']},{(START + timedelta(hours=place)).isoformat()},{post['text']},{post['author']}"
        for place, post in enumerate(given)
    ]
    EXPORT.write_text("\n".join(["id,time,text,author", *lines]) + "\n")


def run(params) -> dict:
    arrivals.run(params, CHAMPION, EXPORT, Layout())
    return json.loads(KEPT.run.read_text())


def counted(monkeypatch) -> list[int]:
    """How many posts are encoded, call by call."""
    calls: list[int] = []
    encode = Model.encode

    def count(self, given):
        calls.append(len(given))
        return encode(self, given)

    monkeypatch.setattr(Model, "encode", count)
    return calls


def promote_another() -> str:
    """A model of another version; its vectors are the same."""
    (CHAMPION / "data/model/note.txt").write_text("another one")
    return version_of(CHAMPION / "data/model")


def rows(path: Path, version: str | None = None) -> dict[str, dict]:
    found = [row for row in pq.read_table(path).to_pylist() if version in (None, row["model"])]
    assert len({row["post_id"] for row in found}) == len(found)
    return {row["post_id"]: row for row in found}


def test_what_arrives_has_the_vectors_and_labels_of_the_loaded_model(params):
    held = {"post_id": "p00003", "text": "of the training", "author": "left1"}
    write_export([*posts(5), held])
    done = run(params)
    model = ntulm.load(CHAMPION / "data/model")
    stored, labels = rows(KEPT.store), rows(KEPT.labels / f"{CLASSIFIER}.parquet")
    assert list(stored) == [post["post_id"] for post in posts(5)]
    expected = dict(zip(stored, model.encode(posts(5)), strict=True))
    said = dict(zip(stored, model.predict(posts(5), "topic"), strict=True))
    for post_id, row in stored.items():
        np.testing.assert_allclose(row["vector"], expected[post_id], atol=1e-5)
        assert labels[post_id]["labels"] == said[post_id].labels
        assert dict(labels[post_id]["probabilities"]) == pytest.approx(said[post_id].probabilities, abs=1e-3)
        assert labels[post_id]["known"] == said[post_id].known
    assert {row["known"] for row in labels.values()} == {True, False}
    assert (done["embedded"], done["backlog"], done["stored"], done["reference"]) == (5, 0, 5, 30)
    assert done["labelled"] == {CLASSIFIER: 5}
    assert pq.read_table(KEPT.posts)["author"].to_pylist()[0] == "right0"


def test_the_next_run_embeds_what_is_new_alone_and_says_when_nothing_is(params, monkeypatch, capsys):
    write_export(posts(3))
    run(params)
    first = pq.read_table(KEPT.posts)
    write_export(posts(5))
    seen = counted(monkeypatch)
    assert run(params)["embedded"] == 2
    assert run(params)["nothing"]
    assert seen == [2]
    assert "0 posts arrived and were embedded" in capsys.readouterr().out
    assert len(rows(KEPT.store)) == len(rows(KEPT.labels / f"{CLASSIFIER}.parquet")) == 5
    later = pq.read_table(KEPT.posts)
    assert later.slice(0, 3) == first
    assert later["arrived"][4].as_py() > first["arrived"][0].as_py()


def test_a_post_that_says_something_else_now_is_embedded_and_labelled_anew(params):
    write_export(posts(3))
    run(params)
    before = rows(KEPT.store)["n1"]
    write_export([post | ({"text": "very much"} if post["post_id"] == "n1" else {}) for post in posts(3)])
    done = run(params)
    assert (done["embedded"], done["stored"], done["labelled"]) == (1, 3, {CLASSIFIER: 1})
    after = rows(KEPT.store)["n1"]
    assert after["content"] != before["content"]
    assert rows(KEPT.labels / f"{CLASSIFIER}.parquet")["n1"]["content"] == after["content"]


def test_after_a_promotion_new_posts_come_first_and_the_backlog_at_its_pace_newest_first(params):
    write_export(posts(5))
    run(params)
    version = promote_another()
    write_export(posts(7))
    done = run(params)
    assert (done["embedded"], done["backlog"], done["backlog_left"]) == (2, 2, 3)
    assert set(rows(KEPT.store, version)) == {"n6", "n5", "n4", "n3"}
    assert run(params)["backlog_left"] == 1
    done = run(params)
    assert (done["embedded"], done["backlog"], done["backlog_left"]) == (0, 1, 0)
    assert set(rows(KEPT.store, version)) == {post["post_id"] for post in posts(7)}
    assert set(rows(KEPT.labels / f"{CLASSIFIER}.parquet", version)) == set(rows(KEPT.store, version))
    assert run(params)["nothing"]
    assert [path.name for path in KEPT.references.iterdir()] == [version]


def test_a_promotion_takes_posts_of_its_own_corpus_along_and_names_those_that_are_gone(params):
    write_export([*posts(2), {"post_id": "p00003", "text": "once new", "author": "left1"}])
    corpus = pq.read_table(CHAMPION / "data/corpus/posts.parquet")
    without = corpus.filter(pa.compute.not_equal(corpus["post_id"], "p00003"))
    splits = pq.read_table(CHAMPION / "data/corpus/splits.parquet")
    for table, path in (
        (without, "posts"),
        (splits.filter(pa.compute.not_equal(splits["post_id"], "p00003")), "splits"),
    ):
        pq.write_table(table, CHAMPION / f"data/corpus/{path}.parquet")
    assert run(params)["embedded"] == 3
    pq.write_table(corpus, CHAMPION / "data/corpus/posts.parquet")
    pq.write_table(splits, CHAMPION / "data/corpus/splits.parquet")
    version = promote_another()
    write_export([posts(1)[0], {"post_id": "p00003", "text": "once new", "author": "left1"}])
    done = run(params)
    assert (done["backlog"], done["gone"]) == (2, 1)
    assert set(rows(KEPT.store, version)) == {"n0", "p00003"}


def test_what_a_killed_run_did_is_taken_up(params, monkeypatch):
    write_export(posts(5))
    monkeypatch.setattr(arrivals, "ROWS_AT_ONCE", 2)
    add = arrivals.add
    calls: list[int] = []

    def killed(*given):
        calls.append(len(given[1]))
        if len(calls) == 3:
            raise KeyboardInterrupt
        add(*given)

    monkeypatch.setattr(arrivals, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        run(params)
    assert not KEPT.store.exists()
    monkeypatch.setattr(arrivals, "add", add)
    encoded = counted(monkeypatch)
    done = run(params)
    assert encoded[0] == 1  # of the five; then the reference
    assert (done["embedded"], done["stored"]) == (5, 5)
    assert set(rows(KEPT.store)) == {post["post_id"] for post in posts(5)}


def test_a_new_classifier_labels_what_is_stored_and_one_trained_anew_labels_it_again(params, monkeypatch):
    write_export(posts(3))
    run(params)
    folder = CHAMPION / "data/model/classifiers"
    for suffix in (".json", ".safetensors"):
        shutil.copy(folder / f"{CLASSIFIER}{suffix}", folder / f"mood.own{suffix}")
    monkeypatch.setattr(Model, "encode", lambda self, given: pytest.fail("a vector was computed again"))
    assert run(params)["labelled"] == {"mood.own": 3, CLASSIFIER: 0}
    about = json.loads((folder / "mood.own.json").read_text())
    (folder / "mood.own.json").write_text(json.dumps(about | {"classes": ["a", "b"]}))
    assert run(params)["labelled"] == {"mood.own": 3, CLASSIFIER: 0}
    found = rows(KEPT.labels / "mood.own.parquet")
    assert {label for row in found.values() for label in row["labels"]} <= {"a", "b"}


def test_users_of_another_writing_are_refused(params):
    write_export(posts(1))
    hidden = params.model_copy(update={"corpus": params.corpus.model_copy(update={"pseudonyms": True})})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match=r"corpus\.pseudonyms: users here have"):
        patch.setenv("NTULM_PSEUDONYM_KEY", "sixteen characters")
        run(hidden)
    assert not KEPT.folder.exists()


def test_a_store_of_vectors_of_another_length_is_put_aside(tmp_path):
    store = tmp_path / "vectors.parquet"
    with adding(store, "v", 4) as open_:
        open_.finish()
    arrivals.make_room(store, 4)
    assert store.is_file()
    arrivals.make_room(store, 8)
    assert not store.exists()
    assert (tmp_path / "vectors.4.parquet").is_file()


def test_nothing_kept_is_nothing_stored(tmp_path):
    empty = Kept(tmp_path)
    assert len(empty.index()) == len(empty.stored()) == 0
    assert empty.index().schema == kept_module.INDEX
