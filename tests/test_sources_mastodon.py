"""The reader of Mastodon: statuses, boosts, streams and archives; who sees a post; HTML, mentions and hashtags."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import exports
import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ntulm import text
from ntulm.corpus.records import read_export
from ntulm.corpus.sources import mastodon
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import RAW_SCHEMA, Sample, objects

PUBLIC = "https://www.w3.org/ns/activitystreams#Public"
CONTEXT = ["https://www.w3.org/ns/activitystreams"]
WRITTEN = "2024-05-01T10:00:00.000Z"
ANN = {"id": "1", "username": "Ann", "acct": "Ann", "url": "https://a.example/@Ann"}  # of the server that was asked
BOB = {"id": "2", "username": "bob", "acct": "bob@b.example", "url": "https://b.example/@bob"}
ANNS, BOBS = "https://a.example/users/Ann", "https://b.example/users/bob"


def status(number: int, content: str = "<p>hello</p>", account: Any = ANN, **changes: Any) -> dict[str, Any]:
    home = BOBS if account is BOB else ANNS
    return {
        "id": str(number),
        "uri": f"{home}/statuses/{number}",
        "url": f"https://a.example/@Ann/{number}",
        "created_at": WRITTEN,
        "content": content,
        "spoiler_text": "",
        "visibility": "public",
        "language": "en",
        "account": account,
        "in_reply_to_id": None,
        "in_reply_to_account_id": None,
        "reblog": None,
        "media_attachments": [],
        "mentions": [],
        "tags": [],
        "emojis": [],
        "card": None,
        "poll": None,
        **changes,
    }


def note(number: int, content: str = "<p>hello</p>", **changes: Any) -> dict[str, Any]:
    seen = {"to": changes.pop("to", [PUBLIC]), "cc": changes.pop("cc", [f"{ANNS}/followers"])}
    about = {
        "id": f"{ANNS}/statuses/{number}",
        "type": "Note",
        "summary": None,
        "inReplyTo": None,
        "published": "2024-05-01T10:00:00Z",
        "attributedTo": ANNS,
        **seen,
        "content": content,
        "contentMap": {"de": content},
        "attachment": [],
        "tag": [],
        **changes,
    }
    return activity(number, "Create", about, **seen)


def activity(number: int, kind: str, about: Any, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"{ANNS}/statuses/{number}/activity",
        "type": kind,
        "actor": ANNS,
        "published": "2024-05-02T00:00:00Z",
        "to": [PUBLIC],
        "cc": [],
        **changes,
        "object": about,
    }


def rows(path: Path, *records: Any, name: str = "a.jsonl") -> list[dict[str, Any]]:
    (path / name).write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return folder(path / name)


def folder(path: Path) -> list[dict[str, Any]]:
    batches = exports.batches(path, "mastodon")
    assert all(batch.schema == RAW_SCHEMA for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def said(row: dict[str, Any]) -> dict[str, Any]:
    """What a row has beside its place."""
    return {key: value for key, value in row.items() if value is not None and key not in ("file", "line")}


# Statuses

HTML = (
    '<p>so <a href="https://a.example/tags/Cats" class="mention hashtag" rel="tag">#<span>Cats</span></a> &amp; '
    '<a href="https://long.example/a?b=1&amp;c=2" rel="nofollow noopener" target="_blank"><span class="invisible">'
    'https://</span><span class="ellipsis">long.example/a</span><span class="invisible">?b=1&amp;c=2</span></a></p>'
    '<p><span class="h-card"><a href="https://b.example/@bob" class="u-url mention">@<span>bob</span></a></span><br />'
    "bye</p>"
)


def test_a_status_with_its_lists_and_links_in_full(tmp_path):
    tags = [{"name": "Cats", "url": "https://a.example/tags/Cats"}]
    one = status(1, HTML, tags=tags, mentions=[BOB], in_reply_to_account_id="2", language="en-GB")
    (row,) = rows(tmp_path, one)
    assert row["text"] == "so #Cats & https://long.example/a?b=1&c=2\n@bob\nbye"
    assert (row["hashtags"], row["mentions"]) == (["Cats"], ["bob@b.example"])
    assert row["urls"] == ["https://long.example/a?b=1&c=2"]
    assert (row["author"], row["reply_to"], row["lang"]) == ("ann@a.example", "bob@b.example", "en")
    assert (row["post_id"], row["visibility"], row["is_repost"]) == (f"{ANNS}/statuses/1", "public", False)
    assert row["created_at"] == datetime(2024, 5, 1, 10, tzinfo=UTC)


def test_a_person_has_one_key_wherever_he_is_seen(tmp_path):
    at_home = {**BOB, "acct": "bob"}
    found = rows(tmp_path, status(1, account=BOB), status(2, account=at_home), status(3, mentions=[at_home]))
    assert [row["author"] for row in found[:2]] == ["bob@b.example"] * 2
    assert found[2]["mentions"] == ["bob@b.example"]


def test_an_account_without_an_address_is_at_home_where_its_status_is(tmp_path):
    bare = {"id": "1", "username": "Ann", "acct": "Ann"}
    found = rows(tmp_path, status(1, account=bare), status(2, account=bare, in_reply_to_account_id="1", uri=None))
    assert [row["author"] for row in found] == ["ann@a.example", "ann"]
    (row,) = rows(tmp_path, status(3, account=bare, reblog=status(4)))
    assert (row["author"], row["reposted"]["author"]) == ("ann@a.example", "ann@a.example")


def test_the_same_status_seen_from_two_servers_has_one_id(tmp_path):
    first, second, third = rows(
        tmp_path,
        status(1),
        {**status(1), "id": "990"},
        {key: value for key, value in status(5).items() if key != "uri"},
    )
    assert first["post_id"] == second["post_id"]
    assert third["post_id"] == "5@a.example"


def test_an_answer_to_oneself(tmp_path):
    (row,) = rows(tmp_path, status(1, in_reply_to_id="7", in_reply_to_account_id="1"))
    assert row["reply_to"] == "ann@a.example"


def test_an_answer_that_does_not_mention_whom_it_answers(tmp_path):
    answer = {"in_reply_to_id": "1", "in_reply_to_account_id": "2"}
    found = rows(tmp_path, status(1, account=BOB), status(2, **answer), status(3, **answer, mentions=[BOB]))
    assert [row["local_id"] for row in found] == ["1/2", "2/1", "3/1"]
    assert [(row["reply_to"], row["reply_to_post"]) for row in found] == [
        (None, None), (None, "1/2"), ("bob@b.example", None),
    ]  # fmt: skip
    with read_export(tmp_path / "a.jsonl", "mastodon", None, [], "id", tmp_path / "spill") as export:
        answered = export.connection.execute("SELECT reply_to FROM post ORDER BY post_id").fetchall()
    assert sorted(name for (name,) in answered if name) == ["bob@b.example"] * 2


def test_without_a_list_mentions_are_those_of_the_links(tmp_path):
    found = rows(tmp_path, status(1, HTML, mentions=None), status(2, HTML), status(3, mentions=None))
    assert [row["mentions"] for row in found] == [["bob@b.example"], [], []]


def test_the_content_warning_stands_above_the_content(tmp_path):
    (row,) = rows(tmp_path, status(1, spoiler_text="spiders"))
    assert row["text"] == "spiders\nhello"


def test_a_boost_is_a_repost_of_the_embedded_status(tmp_path):
    original = status(1, "<p>#x by bob</p>", BOB, tags=[{"name": "x"}], language="de")
    (row,) = rows(tmp_path, status(2, "<p>#x by bob</p>", reblog=original, created_at="2024-05-03T00:00:00Z"))
    assert (row["is_repost"], row["author"], row["text"]) == (True, "ann@a.example", None)
    assert row["created_at"] == datetime(2024, 5, 3, tzinfo=UTC)
    about = row["reposted"]
    assert (about["post_id"], about["author"], about["lang"]) == (f"{BOBS}/statuses/1", "bob@b.example", "de")
    assert (about["text"], about["hashtags"]) == ("#x by bob", ["x"])


@pytest.mark.parametrize("visibility", ["public", "unlisted", "private", "direct"])
def test_the_visibility_is_passed_on_and_a_boost_has_the_narrower_one(tmp_path, visibility):
    own, boost = rows(
        tmp_path, status(1, visibility=visibility), status(2, reblog=status(1, account=BOB, visibility=visibility))
    )
    assert own["visibility"] == visibility
    assert boost["visibility"] == (visibility if visibility in ("private", "direct") else "public")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"media_attachments": [{"id": "5", "type": "image"}]}, "picture without text"),
        ({"poll": {"id": "5", "options": [{"title": "yes"}]}}, "poll without text"),
        ({}, "post without text"),
        ({"quote": {"state": "accepted", "quoted_status": status(1)}}, "quote without text"),
    ],
)
def test_posts_without_a_text_are_left_out_and_no_rejects(tmp_path, changes, reason):
    own, boost, seen_by_few = rows(
        tmp_path,
        status(1, "<p></p>", **changes),
        status(2, "", reblog=status(1, "", BOB, **changes)),
        status(3, "", visibility="direct", **changes),
    )
    assert said(own) == said(boost) == {"left_out": reason}
    assert (seen_by_few["left_out"], seen_by_few["visibility"]) == (None, "direct")


def test_a_quoted_status_and_the_address_that_stands_for_it(tmp_path):
    quote = {"state": "accepted", "quoted_status": status(9, account=BOB)}
    shown = '<p class="quote-inline">RE: <a href="https://b.example/@bob/9">https://b.example/@bob/9</a></p><p>mine</p>'
    (row,) = rows(tmp_path, status(1, shown, quote=quote))
    assert (row["quoted"], row["quoted_post"]) == ("bob@b.example", f"{BOBS}/statuses/9")
    assert (row["text"], row["urls"]) == ("mine", [])
    assert text.plain_text(shown) == "mine"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({**ANN, "display_name": "A"}, "profile"),
        ({"id": "1", "type": "mention", "created_at": WRITTEN, "account": BOB, "status": status(1)}, "notification"),
    ],
)
def test_what_is_no_post(tmp_path, value, reason):
    (row,) = rows(tmp_path, value)
    assert said(row) == {"left_out": reason}


def test_records_that_are_none(tmp_path):
    found = rows(tmp_path, {"a": 1}, [1], "x", status(1, created_at="2024-02-30T00:00:00Z"), status(2))
    assert [row["reject"] for row in found] == ["not a post object"] * 3 + ["impossible date", None]


# Streams


def test_a_stream_with_its_payloads_as_text_or_objects(tmp_path):
    found = rows(
        tmp_path,
        {"stream": ["public"], "event": "update", "payload": json.dumps(status(1))},
        {"event": "update", "payload": status(2)},
        {"event": "status.update", "payload": json.dumps(status(1, "<p>edited</p>"))},
        {"event": "notification", "payload": json.dumps({"id": "4", "type": "follow"})},
        {"event": "conversation", "payload": json.dumps({"id": "4", "last_status": status(3)})},
        {"event": "filters_changed"},
    )
    assert [row["text"] for row in found] == ["hello", "hello", "edited", None, None, None]
    assert found[0]["post_id"] == found[2]["post_id"]
    assert [row["left_out"] for row in found[3:]] == ["notification", "direct message", "stream notice"]


def test_what_a_stream_deletes_by_its_id_is_taken_back_by_its_uri(tmp_path):
    found = rows(
        tmp_path,
        {"event": "update", "payload": json.dumps(status(1))},
        {"event": "update", "payload": json.dumps(status(2, reblog=status(7, account=BOB)))},
        {"event": "update", "payload": json.dumps(status(3, reblog=status(1)))},
        {"event": "update", "payload": json.dumps(status(4))},
        {"event": "delete", "payload": "1"},
        {"event": "delete", "payload": 2},
    )
    gone = [f"{ANNS}/statuses/1", f"{ANNS}/statuses/2", f"{ANNS}/statuses/1", None, None, None]
    assert [row["deleted_post"] for row in found] == gone
    assert [row["left_out"] is None for row in found] == [False, False, False, True, False, False]
    assert said(found[0]) == {"left_out": "deleted by its author", "deleted_post": gone[0]}


def test_edited_statuses_say_when(tmp_path):
    edited = {"event": "status.update", "payload": status(1, "<p>new</p>", edited_at="2024-05-03T10:00:00.000Z")}
    dateless = {"event": "status.update", "payload": json.dumps(status(2))}
    found = rows(tmp_path, {"event": "update", "payload": status(1)}, edited, dateless, status(3, edited_at=WRITTEN))
    written = datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert [row["edited_at"] for row in found] == [None, datetime(2024, 5, 3, 10, tzinfo=UTC), written, written]
    assert {row["created_at"] for row in found} == {written}


# Archives


def test_the_notes_of_an_archive(tmp_path):
    tag = [
        {"type": "Hashtag", "href": "https://a.example/tags/dogs", "name": "#Dogs"},
        {"type": "Mention", "href": "https://a.example/users/cy", "name": "@cy"},
        {"type": "Mention", "href": BOBS, "name": "@bob@b.example"},
        {"type": "Emoji", "name": ":x:"},
    ]
    answer = f"{BOBS}/statuses/9"
    (row,) = rows(tmp_path, note(1, HTML, tag=tag, inReplyTo=answer, summary="cw"))
    assert row["text"].startswith("cw\nso #Cats & https://long.example/a")
    assert (row["hashtags"], row["mentions"]) == (["Dogs"], ["cy@a.example", "bob@b.example"])
    assert (row["reply_to"], row["reply_to_post"]) == ("bob@b.example", answer)
    assert (row["author"], row["lang"], row["post_id"]) == ("ann@a.example", "de", f"{ANNS}/statuses/1")
    assert (row["urls"], row["is_repost"]) == (["https://long.example/a?b=1&c=2"], False)
    assert row["created_at"] == datetime(2024, 5, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        ({"to": [PUBLIC], "cc": [f"{ANNS}/followers"]}, "public"),
        ({"to": PUBLIC, "cc": []}, "public"),
        ({"to": ["as:Public"], "cc": []}, "public"),
        ({"to": [f"{ANNS}/followers"], "cc": [PUBLIC]}, "unlisted"),
        ({"to": [f"{ANNS}/followers"], "cc": [BOBS]}, "private"),
        ({"to": [BOBS], "cc": []}, "direct"),
        ({"to": ["https://b.example/users/Public"], "cc": []}, "direct"),
        ({"to": None, "cc": None}, "direct"),
    ],
)
def test_the_visibility_of_an_archive_is_told_by_its_addresses(tmp_path, seen, wanted):
    (row,) = rows(tmp_path, note(1, **seen))
    assert row["visibility"] == wanted


def test_announcements(tmp_path):
    original = note(4)["object"]
    by_address, embedded = rows(
        tmp_path, activity(2, "Announce", f"{BOBS}/statuses/9"), activity(3, "Announce", original)
    )
    assert (by_address["is_repost"], by_address["author"]) == (True, "ann@a.example")
    assert (by_address["reposted"]["post_id"], by_address["reposted"]["author"]) == (
        f"{BOBS}/statuses/9",
        "bob@b.example",
    )
    assert by_address["created_at"] == datetime(2024, 5, 2, tzinfo=UTC)
    assert (embedded["is_repost"], embedded["reposted"]["text"]) == (True, "hello")


def test_other_activities(tmp_path):
    found = rows(
        tmp_path,
        activity(1, "Create", f"{ANNS}/statuses/1"),
        activity(2, "Like", f"{BOBS}/statuses/9"),
        activity(3, "Delete", {"id": f"{ANNS}/statuses/7", "type": "Tombstone"}),
        activity(4, "Follow", BOBS),
    )
    assert [row["left_out"] for row in found] == [
        "address alone", "like", "deleted by its author", "other activity",
    ]  # fmt: skip
    assert (found[1]["is_favorite"], found[1]["author"]) == (True, "ann@a.example")
    assert found[2]["deleted_post"] == f"{ANNS}/statuses/7"


def archive(path: Path, address: str) -> Path:
    path.mkdir()
    actor = {"@context": CONTEXT, "id": address, "type": "Person", "preferredUsername": "Ann", "outbox": "outbox.json"}
    (path / "actor.json").write_text(json.dumps(actor))
    liked = f"{BOBS}/statuses/9"
    for name, items in (
        ("outbox", [{**note(1, attributedTo=address), "actor": address}]), ("likes", [liked]), ("bookmarks", [liked])
    ):  # fmt: skip
        page = {"@context": CONTEXT, "id": f"{name}.json", "type": "OrderedCollection", "orderedItems": items}
        (path / f"{name}.json").write_text(json.dumps(page, indent=1))
    return path


def test_an_archive_and_its_owner(tmp_path):
    actor, bookmark, like, post = folder(archive(tmp_path / "one", ANNS))
    assert (said(actor), said(bookmark)) == ({"left_out": "profile"}, {"left_out": "bookmark"})
    assert (like["left_out"], like["is_favorite"], like["author"]) == ("like", True, "ann@a.example")
    assert (like["reposted"]["post_id"], like["reposted"]["author"]) == (f"{BOBS}/statuses/9", "bob@b.example")
    assert (post["author"], post["text"]) == ("ann@a.example", "hello")


def test_an_owner_whose_address_has_no_name(tmp_path):
    rows_of = folder(archive(tmp_path / "one", "https://a.example/ap/users/115"))
    assert [row["author"] for row in rows_of] == [None, None, "ann@a.example", "ann@a.example"]


def test_likes_without_an_owner_are_nobodys(tmp_path):
    (row,) = rows(tmp_path, f"{BOBS}/statuses/9", name="likes.json")
    assert said(row) == {"left_out": "like"}


# Detection


def sample(*values: Any) -> Sample:
    start = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    return Sample(File.of(Path("a")), start, objects(start))


@pytest.mark.parametrize(
    "value",
    [
        status(1),
        status(2, "", reblog=status(1)),
        {"event": "delete", "payload": "7"},
        {"event": "update", "payload": json.dumps(status(1))},
        {"statuses": [status(1)], "accounts": [], "hashtags": []},
        {"@context": CONTEXT, "id": "outbox.json", "type": "OrderedCollection", "orderedItems": [note(1)]},
        {"@context": CONTEXT[0], "id": "likes.json", "type": "OrderedCollection", "orderedItems": ["https://x"]},
        {"@context": [*CONTEXT, {"a": "b"}], "id": ANNS, "type": "Person", "preferredUsername": "ann"},
        note(1),
        activity(1, "Announce", "https://x"),
    ],
)
def test_the_format_is_told_by_one_object(value):
    assert mastodon.confidence(sample({"a": 1}, value)) == 1


@pytest.mark.parametrize(
    "value",
    [
        {
            "account": {"acct": "Ann@example.org"},
            "post": {"at": "2020-01-01", "text": "hi"},
        },  # a table of somebody's own
        {"account": "ann", "content": "hi"},
        {"event": "click", "payload": {"x": 1}},
        {"id_str": "1", "created_at": "x", "user": {}, "text": "x"},
        {"uri": "at://did:plc:x/app.bsky.feed.post/1", "author": {}, "record": {}},
    ],
)
def test_tables_and_other_formats_are_none(value):
    assert mastodon.confidence(sample(value)) == 0


# Hostile input


MARKUP = st.lists(
    st.sampled_from(
        ["<p>", "</p>", "<br/>", "<a href='https://x'>", "</a>", '<span class="quote-inline">', "</span>", "<", ">",
         '<p class="quote-inline">', "<!--", "-->", "&amp;", "&lt;", "&#39;", "&quot;", "&gt;", "a", " ", "\n", "é"]
    )
).map("".join)  # fmt: skip


@settings(max_examples=8, deadline=None)
@given(st.lists(MARKUP, min_size=60, max_size=90))
def test_html_is_read_as_a_new_post_would_be(tmp_path_factory, markups):
    found = rows(tmp_path_factory.mktemp("html"), *(status(1, "x" + markup) for markup in markups))
    reading = mastodon.facts(None)
    assert [text.unescaped(row["text"]) for row in found] == [text.readable("x" + one, reading) for one in markups]


KNOWN = [
    status(1, HTML, tags=[{"name": "x"}], mentions=[BOB], in_reply_to_account_id="2"),
    status(2, reblog=status(1, account=BOB), quote={"quoted_status": status(3)}),
    {"event": "update", "payload": json.dumps(status(1))},
    {"event": "update", "payload": status(2)},
    {"event": "delete", "payload": "1"},
    note(1, tag=[{"type": "Hashtag", "name": "#x"}, {"type": "Mention", "name": "@bob", "href": BOBS}]),
    activity(2, "Announce", "https://x"),
    activity(3, "Like", "https://x"),
    ANN,
    "https://x",
]


@settings(max_examples=8, deadline=None)
@given(hostile.lines(KNOWN, 40, 80))
def test_every_record_is_one_row_whatever_it_holds(tmp_path_factory, records):
    hostile.check_rows(rows(tmp_path_factory.mktemp("hostile"), *records), len(records))
