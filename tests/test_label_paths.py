"""Labels that records of JSON formats bring, by the paths of `corpus.labels`."""

import json
from pathlib import Path
from typing import Any

import exports
import pytest

from ntulm.errors import UserError

ANN = {"id": "7", "acct": "ann@a.example", "username": "ann", "url": "https://a.example/@ann"}


def v1(number: int, **fields: Any) -> dict[str, Any]:
    written = f"Thu Jan 01 00:00:{number:02} +0000 2015"
    return {"id_str": str(number), "created_at": written, "text": "x #a", "user": {"id_str": "7"}, **fields}


def v2(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": str(number), "author_id": "7", "text": "x #a", "created_at": "2020-01-01T00:00:00.000Z",
            "public_metrics": {"like_count": 1}, **fields}  # fmt: skip


def mastodon(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": str(number), "uri": f"https://a.example/{number}", "created_at": "2020-01-01T00:00:00.000Z",
            "content": "<p>x</p>", "visibility": "public", "account": ANN, "tags": [], "mentions": [],
            "reblog": None, **fields}  # fmt: skip


def reddit(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": f"c{number}", "link_id": "t3_a", "parent_id": "t3_a", "author": "ann", "subreddit": "cats",
            "created_utc": 1577880000, "body": "x", **fields}  # fmt: skip


def bluesky(number: int, **fields: Any) -> dict[str, Any]:
    return {"uri": f"at://did:plc:a/app.bsky.feed.post/{number}", "cid": "c", "indexedAt": "2020-01-01T00:00:00.000Z",
            "author": {"did": "did:plc:a", "handle": "ann.example"},
            "record": {"$type": "app.bsky.feed.post", "text": "x", "createdAt": "2020-01-01T00:00:00.000Z"},
            **fields}  # fmt: skip


def archive(number: int, **fields: Any) -> dict[str, Any]:
    return {"tweet": {"id_str": str(number), "created_at": "Thu Jan 01 00:00:00 +0000 2015", "full_text": "x",
                      "entities": {}, **fields}}  # fmt: skip


MADE = {"twitter_v1": v1, "twitter_v2": v2, "mastodon": mastodon, "reddit": reddit, "bluesky": bluesky}


def written(path: Path, *records: Any) -> Path:
    path.write_bytes(b"".join(json.dumps(record).encode() + b"\n" for record in records))
    return path


def labels(path: Path, name: str, *paths: str) -> list[list[tuple[str, str]]]:
    """Of each row, (field, value)."""
    found = [row for batch in exports.batches(path, name, None, paths) for row in batch.to_pylist()]
    return [[(label["field"], label["value"]) for label in row["labels"] or []] for row in found]


@pytest.mark.parametrize("name", MADE)
def test_a_value_in_a_record_is_a_label(tmp_path, name):
    made = MADE[name]
    records = [
        made(1, VERACITY="true", annotation={"stance": ["deny", "query"], "by": {"who": 3}}),
        made(2),
        made(3, VERACITY=None, annotation=None),
        made(4, VERACITY=1, annotation=[{"stance": "support"}, {"stance": "a, b"}, {}]),
    ]
    path = written(tmp_path / "a.jsonl", *records)
    assert exports.detect(path) == name
    first, second, third, fourth = labels(path, name, "VERACITY", "annotation.stance")
    assert first == [("VERACITY", "true"), ("annotation.stance", "deny"), ("annotation.stance", "query")]
    assert (second, third) == ([], [])
    assert fourth == [("VERACITY", "1"), ("annotation.stance", "support"), ("annotation.stance", "a, b")]


def test_of_a_personal_archive(tmp_path):
    (tmp_path / "data").mkdir()
    account = [{"account": {"accountId": "7", "username": "ann"}}]
    (tmp_path / "data" / "account.js").write_text(f"window.YTD.account.part0 = {json.dumps(account)}")
    tweets = [archive(1, mine="good"), archive(2)]
    (tmp_path / "data" / "tweets.js").write_text(f"window.YTD.tweets.part0 = {json.dumps(tweets)}")
    assert [own for own in labels(tmp_path, "twitter_archive", "tweet.mine") if own] == [[("tweet.mine", "good")]]


def test_of_what_is_not_kept_nothing_is_taken(tmp_path):
    path = written(tmp_path / "a", v1(1, VERACITY="true"), {"VERACITY": "x"}, {"limit": {}, "VERACITY": "y"}, ["z"])
    found = labels(path, "twitter_v1", "VERACITY")
    assert found == [[("VERACITY", "true")], [], [], []]


def test_labels_of_its_own_come_first(tmp_path):
    path = written(tmp_path / "a", bluesky(1, labels=[{"val": "spoiler"}], VERACITY="true"))
    assert labels(path, "bluesky", "VERACITY") == [[("label", "spoiler"), ("VERACITY", "true")]]


def test_a_path_that_no_record_has(tmp_path):
    path = written(tmp_path / "a", v1(1), v1(2, veracity="true"))
    with pytest.raises(UserError, match=r"a: no record has 'VERACITY' \(corpus.labels\)"):
        labels(path, "twitter_v1", "VERACITY")


def test_a_path_that_leads_to_objects(tmp_path):
    path = written(tmp_path / "a", v1(1, annotation={"stance": "deny"}))
    with pytest.raises(UserError, match=r"'annotation' \(corpus.labels\) holds objects; expected the path of a value"):
        labels(path, "twitter_v1", "annotation")


def test_a_label_of_a_page_belongs_to_nobody(tmp_path):
    path = written(tmp_path / "a", {"data": [v2(1), v2(2)], "VERACITY": "true"})
    with pytest.raises(UserError, match=r"a:1: a record with 2 posts and a label of its own"):
        labels(path, "twitter_v2", "VERACITY")


def test_a_synthetic_world_has_labels_of_its_own(tmp_path):
    world = Path("worlds/quickstart.yaml").resolve()
    with pytest.raises(UserError, match=r"corpus.labels: VERACITY: a synthetic world has labels of its own"):
        labels(world, "synthetic", "VERACITY")
