"""ntulm/use/similar.py, suggest.py and inference/search.py: what is nearest, found exactly; nothing of one's own."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny_model
from hypothesis import given
from hypothesis import strategies as st

import ntulm
from ntulm.embeddings.table import OVERLAY_FILE, EmbeddingTable, write_table
from ntulm.errors import UserError
from ntulm.inference import search
from ntulm.inference.search import Nearest, nearest_ntus, nearest_posts
from ntulm.layout import Layout
from ntulm.use import embed, similar, suggest

STORE = Path("vectors.parquet")
POSTS = [{"post_id": f"p{number}", "text": f"we like it {number}", "author": f"{side}{number % 4}"}
         for number in range(6) for side in ["left" if number % 2 else "right"]]  # fmt: skip


@pytest.fixture
def directory(lm_project, tiny_backbone) -> Path:
    layout = Layout(lm_project)
    tiny_model.build(tiny_model.params_of(), str(tiny_backbone), layout)
    Path("p.jsonl").write_text("".join(json.dumps(post) + "\n" for post in POSTS))
    return layout.model


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def near(query, directory, capsys, store=None, by_id=False, author=None, top=3, named=True):
    similar.run(query, str(directory) if named else None, str(directory), store, by_id, author, top)
    return lines(capsys)


def test_users_near_a_user_are_of_the_same_side(directory, capsys):
    found = near("@Left1", directory, capsys)
    assert [one["ntu"][:5] for one in found] == ["@left"] * 3
    assert "@left1" not in [one["ntu"] for one in found]
    assert found[0]["cosine"] >= found[1]["cosine"] > 0.9


def test_posts_near_a_post_are_those_of_the_largest_cosine(directory, capsys):
    embed.run("p.jsonl", str(directory), STORE)
    vectors = ntulm.load(directory).encode(POSTS)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit[2]))
    capsys.readouterr()
    (first, second) = near(POSTS[2]["text"], directory, capsys, STORE, author="@Right2", top=2)
    assert (first["post_id"], first["cosine"]) == ("p2", 1.0)
    assert second["post_id"] == f"p{order[1]}"
    by_id = near("p2", directory, capsys, STORE, by_id=True, named=False)
    assert [one["post_id"] for one in by_id] == [f"p{place}" for place in order[1:4]]


@pytest.mark.parametrize(
    ("query", "values", "message"),
    [
        ("we like it", {}, "expected #hashtag or @user, or --store FILE"),
        ("@", {}, "expected #hashtag or @user"),
        ("@nobody", {}, "'@nobody': not in the table of .*, which has 8 NTUs"),
        ("#so", {}, "'#so': not in the table"),
        ("a post", {"store": Path("none.parquet")}, r"none\.parquet: not found; `ntulm embed POSTS"),
        ("p9", {"store": STORE, "by_id": True}, "no post with the id 'p9'"),
        ("@left1", {"top": 0}, "--top 0"),
    ],
)
def test_mistakes_are_said(directory, capsys, query, values, message):
    embed.run("p.jsonl", str(directory), STORE)
    with pytest.raises(UserError, match=message):
        near(query, directory, capsys, **values)


def test_a_store_of_another_version_only_is_said(directory):
    embed.run("p.jsonl", str(directory), STORE)
    with pytest.raises(UserError, match="no vectors of the model abc"):
        nearest_posts(STORE, "abc", np.ones(32, np.float32), 3)


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 7))
def test_blocks_change_nothing(count, top, block):
    random = np.random.default_rng(count)
    vectors, query = random.standard_normal((count, 4)).astype(np.float32), np.array([1, 2, 0, -1], np.float32)
    names = [f"n{place}" for place in range(count)]
    whole, parts = Nearest(query, top), Nearest(query, top)
    whole.offer(vectors, names)
    for start in range(0, count, block):
        parts.offer(vectors[start : start + block], names[start : start + block])
    assert [name for name, _ in parts.best] == [name for name, _ in whole.best]
    assert len(whole.best) == min(top, count)


def test_types_and_the_overlay(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "BLOCK_ROWS", 2)
    vectors = np.eye(5, 4, dtype=np.float32) + 0.1
    write_table(tmp_path, ["user", "hashtag", "hashtag", "hashtags", "user"], ["a", "b", "c", "d", "e"], vectors)
    write_table(tmp_path, ["hashtag"], ["late"], vectors[:1], file=OVERLAY_FILE)
    table = EmbeddingTable.load(tmp_path)
    found = nearest_ntus(table, vectors[0], ["hashtag"], 9, ["hashtag\0b"])
    assert [name for name, _ in found] == ["hashtag\0late", "hashtag\0c"]
    assert found[0][1] == pytest.approx(1.0)


def table_with_hashtags(directory):
    """Hashtags `left` and `right` lie where the users of the side do."""
    users = [f"{side}{number}" for side in ("left", "right") for number in range(4)]
    sides = np.eye(2, 4, dtype=np.float32)
    vectors = np.vstack([np.repeat(sides, 4, axis=0), sides])
    forms = {"user": "user", "hashtag": "hashtag"}
    write_table(directory, ["user"] * 8 + ["hashtag"] * 2, [*users, "left", "right"], vectors, forms)


def test_hashtags_by_the_table_are_near_what_is_known(directory, capsys):
    table_with_hashtags(directory)
    posts = [{"text": "we like it", "author": "left1"}, {"text": "#Left we", "author": "left1"}, {"text": "we"}]
    Path("q.jsonl").write_text("".join(json.dumps(post) + "\n" for post in posts))
    suggest.run("q.jsonl", str(directory), None, 1, None)
    found = lines(capsys)
    assert [list(one["hashtags"]) for one in found] == [["left"], ["right"], []]
    assert [(one["by"], one["known"]) for one in found] == [("table", True), ("table", True), ("table", False)]


def test_hashtags_by_the_classifier_are_its_likeliest_classes(directory, capsys):
    suggest.run("p.jsonl", str(directory), "topic", 1, None)
    found = lines(capsys)
    assert [list(one["hashtags"]) for one in found] == [["right"], ["left"]] * 3
    Path("q.jsonl").write_text(json.dumps({"text": "we #LEFT", "author": "left1"}))
    suggest.run("q.jsonl", str(directory), "topic", 2, Path("s.parquet"))
    (row,) = pq.read_table("s.parquet").to_pylist()
    assert ([name for name, _ in row["hashtags"]], row["by"], row["known"]) == (["right"], "classifier", True)
    with pytest.raises(UserError, match="task 'mood': not in this model"):
        suggest.run("q.jsonl", str(directory), "mood", 2, None)
