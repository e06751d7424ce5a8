"""Bluesky's threads: the posts above and all answers below, what is not shown, and notifications."""

import json
from typing import Any

import exports
import pytest
from test_sources_bluesky import ANN, BOB, BOBS, record, rows, said, view

from ntulm.corpus.sources import bluesky


def node(number: int, *replies: Any, **changes: Any) -> dict[str, Any]:
    post = view(record(f"post {number}"), uri=f"at://{BOB}/app.bsky.feed.post/{number}")
    return {"$type": "app.bsky.feed.defs#threadViewPost", "post": post, "replies": list(replies), **changes}


UNSEEN = {"$type": "app.bsky.feed.defs#notFoundPost", "uri": BOBS, "notFound": True}
THREAD = node(1, node(2, node(3), UNSEEN), node(4), parent=node(5, parent=node(6)))


@pytest.mark.parametrize("values", [[THREAD], [{"thread": THREAD}], [{"thread": THREAD, "threadgate": None}, UNSEEN]])
def test_a_thread_has_the_posts_above_and_all_answers(tmp_path, values):
    found = rows(tmp_path, *values)
    assert sorted(row["text"] for row in found[:6]) == [f"post {number}" for number in range(1, 7)]
    assert {(row["line"], row["author"]) for row in found[:6]} == {(1, BOB)}
    assert [said(row) for row in found[6:]] == [{"left_out": "post not shown"}] * (len(values) - 1)


def test_threads_of_the_second_version_and_notifications(tmp_path):
    kind = "app.bsky.unspecced.defs#threadItem"
    items = [
        {"uri": BOBS, "depth": 0, "value": {"$type": f"{kind}Post", "post": view(record())}},
        {"uri": BOBS, "depth": 1, "value": {"$type": f"{kind}Blocked", "author": {"did": ANN}}},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"thread": items, "hasOtherReplies": False}), encoding="utf-8")
    answer = view(record("an answer"), reason="reply")
    follow = view({"$type": "app.bsky.graph.follow"}, uri=f"at://{BOB}/app.bsky.graph.follow/1", reason="follow")
    (tmp_path / "b.json").write_text(json.dumps({"notifications": [answer, follow]}), encoding="utf-8")
    found = [row for batch in exports.batches(tmp_path, "bluesky") for row in batch.to_pylist()]
    assert [row["text"] for row in found] == ["hello", None, "an answer", None]
    assert [row["left_out"] for row in found] == [None, "post not shown", None, "follow"]


def test_what_lies_too_deep_in_a_thread_is_counted(tmp_path):
    deep = node(0)
    for number in range(1, bluesky.MAX_ANSWERS + 3):
        deep = node(number, deep)
    found = rows(tmp_path, deep, node(1))
    assert [row["left_out"] for row in found] == [None] * (bluesky.MAX_ANSWERS + 1) + ["thread too deep", None]
