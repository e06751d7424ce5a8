"""The reader of Bluesky: events, views, feeds and records, facets by bytes, likes, reposts and deletions."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import exports
import hostile
import pytest
from hypothesis import given, settings

from ntulm.corpus.records import Reader, read_export
from ntulm.corpus.sources import bluesky
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import RAW_SCHEMA, Sample, objects

ANN, BOB = "did:plc:annaaaaaaaaa", "did:plc:bobbbbbbbbbb"
BOBS = f"at://{BOB}/app.bsky.feed.post/3kb"
WRITTEN = "2024-05-01T10:00:00.000Z"
SEEN = 1714557600500000  # half a second later


def record(text: str = "hello", **changes: Any) -> dict[str, Any]:
    return {"$type": "app.bsky.feed.post", "text": text, "createdAt": WRITTEN, "langs": ["en"], **changes}


def facet(text: str, part: str, **feature: str) -> dict[str, Any]:
    start = text.encode().index(part.encode())
    kind = {"tag": "tag", "uri": "link", "did": "mention"}[next(iter(feature))]
    return {
        "index": {"byteStart": start, "byteEnd": start + len(part.encode())},
        "features": [{"$type": f"app.bsky.richtext.facet#{kind}", **feature}],
    }


def event(value: Any, collection: str = "post", operation: str = "create", rkey: str = "3ka") -> dict[str, Any]:
    full = collection if "." in collection else f"app.bsky.feed.{collection}"
    commit = {"rev": "3kr", "operation": operation, "collection": full, "rkey": rkey, "cid": "bafy"}
    return {"did": ANN, "time_us": SEEN, "kind": "commit", "commit": {**commit, "record": value}}


def subject(collection: str, **changes: Any) -> dict[str, Any]:
    return {
        "$type": f"app.bsky.feed.{collection}",
        "subject": {"cid": "b", "uri": BOBS},
        "createdAt": WRITTEN,
        **changes,
    }


def view(value: dict[str, Any], did: str = BOB, handle: str = "Bob.example.com", **changes: Any) -> dict[str, Any]:
    return {
        "uri": f"at://{did}/app.bsky.feed.post/3kb",
        "cid": "bafy",
        "author": {"did": did, "handle": handle, "displayName": "B"},
        "record": value,
        "indexedAt": "2024-05-01T10:00:01.000Z",
        "labels": [],
        **changes,
    }


def rows(path: Path, *records: Any) -> list[dict[str, Any]]:
    file = path / "a.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    batches = exports.batches(file, "bluesky")
    assert all(batch.schema == RAW_SCHEMA for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


@contextmanager
def read(path: Path, *records: Any) -> Iterator[Reader]:
    """What the corpus makes of the records."""
    file = path / "a.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    with read_export(file, "bluesky", None, [], "id", path / "spill") as export:
        yield export


def said(row: dict[str, Any]) -> dict[str, Any]:
    """What a row has beside its place."""
    return {key: value for key, value in row.items() if value is not None and key not in ("file", "line")}


def test_a_post_and_its_facets_by_byte_offset(tmp_path):
    text = "żółw 🐢 @bob.example.com #Żółw näher: example.org/a-long…"
    post = record(
        text,
        langs=["en-GB", "pl"],
        tags=["hidden"],
        facets=[
            facet(text, "@bob.example.com", did=BOB),
            facet(text, "#Żółw", tag="Żółw"),
            facet(text, "example.org/a-long…", uri="https://example.org/a-long/path"),
        ],
        reply={"root": {"uri": BOBS}, "parent": {"uri": BOBS}},
        embed={"$type": "app.bsky.embed.external", "external": {"uri": "https://card.example/x", "title": "t"}},
    )
    (row,) = rows(tmp_path, event(post))
    assert row["post_id"] == f"at://{ANN}/app.bsky.feed.post/3ka"
    assert (row["author"], row["lang"], row["text"]) == (ANN, "en", text)
    assert row["created_at"] == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert (row["hashtags"], row["mentions"]) == (["Żółw", "hidden"], [BOB])
    assert row["urls"] == ["https://example.org/a-long/path", "https://card.example/x"]
    assert (row["reply_to"], row["reply_to_post"], row["is_repost"]) == (BOB, BOBS, False)
    assert row["people"] == [{"id": BOB, "handle": "bob.example.com"}]


@pytest.mark.parametrize("empty", [{}, {"facets": []}, {"tags": []}, {"facets": [{"features": []}], "tags": None}])
def test_hashtags_and_links_without_facets_are_left_to_the_text_and_mentions_are_none(tmp_path, empty):
    (row,) = rows(tmp_path, event(record("#one @bob.example.com https://example.org", **empty)))
    assert (row["hashtags"], row["urls"], row["mentions"]) == (None, None, [])


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ({"$type": "app.bsky.embed.record", "record": {"uri": BOBS, "cid": "b"}}, (BOB, BOBS)),
        ({"$type": "app.bsky.embed.recordWithMedia", "record": {"record": {"uri": BOBS}}, "media": {}}, (BOB, BOBS)),
        ({"$type": "app.bsky.embed.record", "record": {"uri": f"at://{BOB}/app.bsky.graph.list/1"}}, (None, None)),
    ],
)
def test_a_quoted_post_is_no_list(tmp_path, value, wanted):
    (row,) = rows(tmp_path, event(record(embed=value)))
    assert (row["quoted"], row["quoted_post"]) == wanted


def test_likes_are_favorites_with_their_time_and_reposts_name_the_original(tmp_path):
    like, repost = rows(tmp_path, event(subject("like"), "like"), event(subject("repost"), "repost"))
    original = {"post_id": BOBS, "author": BOB}
    assert (like["left_out"], like["is_favorite"], like["author"]) == ("like", True, ANN)
    assert like["post_id"] == f"at://{ANN}/app.bsky.feed.like/3ka"
    assert like["created_at"] == repost["created_at"] == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert {key: value for key, value in like["reposted"].items() if value is not None} == original
    assert {key: value for key, value in repost["reposted"].items() if value is not None} == original
    assert (repost["is_repost"], repost["author"], repost["text"], repost["left_out"]) == (True, ANN, None, None)
    assert repost["post_id"] == f"at://{ANN}/app.bsky.feed.repost/3ka"


def test_what_was_taken_back(tmp_path):
    gone = [event(None, name, "delete") for name in ("post", "like", "repost", "app.bsky.graph.follow")]
    found = [said(row) for row in rows(tmp_path, *gone)]
    assert found == [
        {"left_out": "deleted by its author", "deleted_post": f"at://{ANN}/app.bsky.feed.post/3ka"},
        {"left_out": "like taken back", "deleted_post": f"at://{ANN}/app.bsky.feed.like/3ka"},
        {"left_out": "repost taken back", "deleted_post": f"at://{ANN}/app.bsky.feed.repost/3ka"},
        {"left_out": "other record"},
    ]


def test_a_later_version_of_a_post_says_when_it_was_made(tmp_path):
    first, second = rows(tmp_path, event(record()), event(record("edited"), operation="update"))
    assert (first["edited_at"], first["post_id"]) == (None, second["post_id"])
    assert second["edited_at"] == datetime(2024, 5, 1, 10, 0, 0, 500000, tzinfo=UTC)
    assert second["created_at"] == first["created_at"]


def test_likes_and_reposts_taken_back_are_no_engagements(tmp_path):
    acts = [event(subject(name), name, rkey=rkey) for name in ("like", "repost") for rkey in ("1", "2")]
    gone = [event(None, name, "delete", rkey="1") for name in ("like", "repost")]
    with read(tmp_path, view(record()), *acts, *gone) as export:
        assert sorted(export.connection.execute("SELECT kind FROM engagement").fetchall()) == [
            ("favorited",), ("reposted",),
        ]  # fmt: skip
        assert (export.counts["posts"], export.counts["reposts"], export.counts["left_out"]) == (1, 1, 5)
    with read(tmp_path, view(record()), *acts[::2], *gone) as export:
        assert export.connection.execute("FROM engagement").fetchall() == []


@pytest.mark.parametrize(
    ("account", "gone", "restored"),
    [
        ({"active": False, "status": "deleted"}, ANN, None),
        ({"active": False, "status": "takendown"}, ANN, None),
        ({"active": False, "status": "deactivated"}, ANN, None),
        ({"active": False, "status": "desynchronized"}, None, None),
        ({"active": True}, None, ANN),
    ],
)
def test_accounts_that_are_gone_or_open_again(tmp_path, account, gone, restored):
    value = {"did": ANN, "time_us": SEEN, "kind": "account", "account": {"did": ANN, "seq": 1, **account}}
    (row,) = rows(tmp_path, value)
    assert (row["left_out"], row["deleted_author"], row["restored_author"]) == ("account event", gone, restored)
    assert (row["created_at"] is None) == (gone is restored is None)


def test_identities_and_profiles_join_handles(tmp_path):
    identity = {"did": ANN, "time_us": SEEN, "kind": "identity", "identity": {"did": ANN, "handle": "Ann.example.com"}}
    profile = {"did": BOB, "handle": "bob.example.com", "displayName": "Bob"}
    nobody = {"did": BOB, "handle": "handle.invalid"}
    found = rows(tmp_path, identity, profile, nobody)
    assert [row["left_out"] for row in found] == ["account event", "profile", "profile"]
    assert [row["people"] for row in found] == [
        [{"id": ANN, "handle": "ann.example.com"}],
        [{"id": BOB, "handle": "bob.example.com"}],
        None,
    ]


def test_the_older_and_the_newer_event_say_the_same(tmp_path):
    new = event(record())
    old: dict[str, Any] = {"did": ANN, "time_us": SEEN, "type": "com", "commit": {**new["commit"], "type": "c"}}
    del old["commit"]["operation"]
    second = {
        "$type": "network.bsky.jetstream.subscribeEvents#commit",
        "seq": 5,
        "did": ANN,
        "time": "2024-05-01T10:00:00.500000Z",
        **new["commit"],
    }
    framed = {"$type": "message", "payload": second}
    first, *others = [said(row) for row in rows(tmp_path, new, old, second, framed)]
    assert first["text"] == "hello"
    assert all(other == first for other in others)
    for value in (old, second, framed):
        assert bluesky.confidence(sample(value)) == 1


def test_deletions_in_the_other_forms(tmp_path):
    old = {
        "did": ANN,
        "time_us": 1,
        "type": "com",
        "commit": {"type": "d", "collection": "app.bsky.feed.post", "rkey": "3"},
    }
    gone = {"did": ANN, "active": False, "status": "deleted"}
    account = {"$type": "network.bsky.jetstream.subscribeEvents#account", "did": ANN, "account": gone}
    sync = {"$type": "network.bsky.jetstream.subscribeEvents#sync", "did": ANN, "sync": {"did": ANN}}
    info = {"$type": "network.bsky.jetstream.subscribeEvents#info", "name": "OutdatedCursor"}
    found = rows(tmp_path, old, *({"$type": "message", "payload": one} for one in (account, sync, info)))
    assert [row["left_out"] for row in found] == [
        "deleted by its author", "account event", "account event", "stream notice",
    ]  # fmt: skip
    assert (found[0]["deleted_post"], found[1]["deleted_author"]) == (f"at://{ANN}/app.bsky.feed.post/3", ANN)


def test_a_view_has_its_author_with_handle_and_labels(tmp_path):
    labels = [{"src": ANN, "val": "graphic-media"}]
    (row,) = rows(tmp_path, view(record(), labels=labels))
    assert (row["author"], row["post_id"], row["text"]) == (BOB, BOBS, "hello")
    assert row["people"] == [{"id": BOB, "handle": "bob.example.com"}]
    assert row["labels"] == [{"field": "label", "value": "graphic-media"}]


def test_a_label_that_was_taken_back_is_none(tmp_path):
    labels = [{"src": ANN, "val": "spam", "neg": True}, {"src": ANN, "val": "nudity", "neg": False}]
    (row,) = rows(tmp_path, view(record(labels={"values": [{"val": "graphic-media"}]}), labels=labels))
    assert [one["value"] for one in row["labels"]] == ["nudity", "graphic-media"]


@pytest.mark.parametrize("label", ["!takedown", "!hide"])
def test_what_moderators_hide_is_left_out(tmp_path, label):
    hidden = view(record(), labels=[{"val": label}])
    reason = {"by": {"did": ANN}, "indexedAt": WRITTEN}
    shown = view(record(), labels=[{"val": label, "neg": True}, {"val": "!warn"}])
    found = rows(tmp_path, hidden, {"post": hidden, "reason": reason}, shown)
    assert [row["left_out"] for row in found] == ["hidden by moderators", "hidden by moderators", None]


def test_a_feed_with_a_repost_and_a_pinned_post(tmp_path):
    by = {"did": ANN, "handle": "ann.example.com"}
    reason = {"$type": "app.bsky.feed.defs#reasonRepost", "by": by, "indexedAt": "2024-05-02T00:00:00Z"}
    parent = {"parent": view(record(), "did:plc:cc", "cc.example.com"), "root": {"notFound": True, "uri": "at://x"}}
    found = rows(
        tmp_path,
        {"post": view(record("#a b", langs=["de"])), "reason": reason, "reply": parent},
        {"post": view(record()), "reason": {"$type": "app.bsky.feed.defs#reasonPin"}},
    )
    repost, pinned = found
    assert (repost["is_repost"], repost["author"], repost["text"]) == (True, ANN, None)
    assert repost["created_at"] == datetime(2024, 5, 2, tzinfo=UTC)
    assert repost["post_id"] not in (None, BOBS)
    original = repost["reposted"]
    assert (original["post_id"], original["author"], original["text"], original["lang"]) == (BOBS, BOB, "#a b", "de")
    assert {one["handle"] for one in repost["people"]} == {"ann.example.com", "bob.example.com", "cc.example.com"}
    assert (pinned["is_repost"], pinned["post_id"]) == (False, BOBS)


def test_a_listed_record_has_its_author_in_its_address(tmp_path):
    (row,) = rows(tmp_path, {"uri": BOBS, "cid": "b", "value": record("listed")})
    assert (row["author"], row["post_id"], row["text"]) == (BOB, BOBS, "listed")
    assert row["created_at"] == datetime(2024, 5, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("embed", "reason"),
    [
        ({"$type": "app.bsky.embed.images", "images": [{"alt": "a cat"}]}, "picture without text"),
        ({"$type": "app.bsky.embed.external", "external": {"uri": "https://example.org"}}, "picture without text"),
        ({"$type": "app.bsky.embed.record", "record": {"uri": BOBS}}, "quote without text"),
        (None, "post without text"),
    ],
)
def test_posts_without_a_text_are_left_out_and_no_rejects(tmp_path, embed, reason):
    (row,) = rows(tmp_path, event(record(" ", embed=embed)))
    assert said(row) == {"left_out": reason}


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("2031-01-01T00:00:00Z", datetime(2024, 5, 1, 10, 0, 0, 500000, tzinfo=UTC)),  # a clock that runs ahead
        ("2016-01-01T00:00:00+02:00", datetime(2015, 12, 31, 22, tzinfo=UTC)),  # brought from elsewhere
        ("yesterday", datetime(2024, 5, 1, 10, 0, 0, 500000, tzinfo=UTC)),
        ("infinity", datetime(2024, 5, 1, 10, 0, 0, 500000, tzinfo=UTC)),
    ],
)
def test_the_date_is_the_earlier_of_written_and_seen(tmp_path, written, wanted):
    (row,) = rows(tmp_path, event(record(createdAt=written)))
    assert row["created_at"] == wanted


def test_a_date_that_is_none_and_nothing_else_is_a_reject(tmp_path):
    (row,) = rows(tmp_path, {"uri": BOBS, "value": record(createdAt="2024-02-30T00:00:00Z")})
    assert said(row) == {"reject": "impossible date"}


def test_records_that_are_none(tmp_path):
    lost = event({"$type": "app.bsky.feed.post"})
    found = rows(tmp_path, {"a": 1}, [1], lost, event(subject("like", subject="x"), "like"), event(record("kept")))
    assert [row["reject"] for row in found] == ["not a post object"] * 4 + [None]


def sample(*values: Any) -> Sample:
    head = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    return Sample(File.of(Path("a")), head, objects(head))


@pytest.mark.parametrize(
    "value",
    [
        event(record()),
        event(None, "like", "delete"),
        view(record()),
        {"post": view(record())},
        {"feed": [{"post": view(record())}], "cursor": "x"},
        {"posts": [view(record())]},
        {"records": [{"uri": BOBS, "cid": "b", "value": record()}]},
        {"profiles": [{"did": ANN, "handle": "a.example"}]},
        {"thread": {"$type": "app.bsky.feed.defs#threadViewPost", "post": view(record())}},
        {"thread": [{"uri": BOBS, "value": {"post": view(record())}}]},
        {"notifications": [view(record(), reason="mention")]},
    ],
)
def test_the_format_is_told_by_one_object(value):
    assert bluesky.confidence(sample({"a": 1}, value)) == 1


@pytest.mark.parametrize(
    "value",
    [
        {"did": ANN, "text": "a", "created_at": WRITTEN},  # a table of posts
        {"uri": "https://example.org/1", "account": {}, "content": ""},
        {"posts": [{"id": 1}]},
        {"id_str": "1", "created_at": "x", "user": {}, "text": "at://"},
    ],
)
def test_tables_and_other_formats_are_none(value):
    assert bluesky.confidence(sample(value)) == 0


TEXT = "@bob.example.com #x"
KNOWN = [
    event(
        record(
            TEXT,
            tags=["y"],
            facets=[facet(TEXT, "@bob.example.com", did=BOB), facet(TEXT, "#x", tag="x")],
            embed={"$type": "app.bsky.embed.external", "external": {"uri": "https://example.org"}},
            reply={"parent": {"uri": BOBS}},
        )
    ),
    event(subject("like"), "like"),
    event(subject("repost"), "repost"),
    event(None, "post", "delete"),
    {"$type": "message", "payload": {"$type": "network.bsky.jetstream.subscribeEvents#commit", "did": ANN,
     **event(record())["commit"]}},
    {"did": ANN, "kind": "account", "account": {"did": ANN, "active": False, "status": "deleted"}},
    view(record(), labels=[{"val": "x"}], embed={"record": {"author": {"did": ANN, "handle": "a.b"}}}),
    {"post": view(record()), "reason": {"by": {"did": ANN, "handle": "a.b"}, "indexedAt": WRITTEN}},
    {"uri": BOBS, "value": record()},
    {"thread": {"post": view(record()), "replies": [], "parent": {"notFound": True}}},
]  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(hostile.lines(KNOWN, 40, 80))
def test_every_record_is_one_row_whatever_it_holds(tmp_path_factory, records):
    hostile.check_rows(rows(tmp_path_factory.mktemp("hostile"), *records), len(records))
