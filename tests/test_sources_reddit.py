"""The reader of Reddit: submissions and comments, what was deleted, crossposts, listings with their answers."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import exports
import hostile
import pytest
from hypothesis import given, settings

from ntulm.corpus.records import read_export
from ntulm.corpus.sources import reddit
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import RAW_SCHEMA, Sample, objects

WRITTEN = datetime(2024, 5, 1, tzinfo=UTC)
SECONDS = 1714521600


def submission(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"s{number}",
        "name": f"t3_s{number}",
        "author": "Ann",
        "author_fullname": "t2_a",
        "created_utc": SECONDS,
        "subreddit": "Birds",
        "subreddit_id": "t5_x",
        "subreddit_type": "public",
        "title": f"What flies {number}",
        "selftext": "",
        "is_self": True,
        "url": f"https://www.reddit.com/r/Birds/comments/s{number}/what_flies/",
        "permalink": f"/r/Birds/comments/s{number}/what_flies/",
        "domain": "self.Birds",
        "over_18": False,
        **changes,
    }


def comment(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"c{number}",
        "author": "bob",
        "created_utc": str(SECONDS),
        "subreddit": "Birds",
        "link_id": "t3_s1",
        "parent_id": "t3_s1",
        "body": "A goose.",
        "score": 3,
        **changes,
    }


def rows(path: Path, *records: Any) -> list[dict[str, Any]]:
    file = path / "a.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    batches = exports.batches(file, "reddit")
    assert all(batch.schema == RAW_SCHEMA for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def said(row: dict[str, Any]) -> dict[str, Any]:
    """What a row has beside its place."""
    return {key: value for key, value in row.items() if value is not None and key not in ("file", "line")}


def test_a_submission_is_its_title_and_text(tmp_path):
    text = "It quacks. Ask u/Cy_1 or /u/d-d, not user/x&amp;y\n\n&amp;#x200B;\n\nhttps://example.org #goose"
    (row,) = rows(tmp_path, submission(1, selftext=text))
    assert row["text"].startswith("What flies 1\n\nIt quacks. Ask")
    assert "x200B" not in row["text"]
    assert (row["author"], row["post_id"], row["community"]) == ("ann", "t3_s1", "Birds")
    assert (row["created_at"], row["visibility"], row["is_repost"]) == (WRITTEN, "public", False)
    assert row["mentions"] == ["cy_1", "d-d"]
    assert (row["urls"], row["hashtags"], row["reply_to_post"]) == (None, None, None)  # from the text


def test_a_link_is_what_a_submission_is_about(tmp_path):
    link = {"is_self": False, "url": "https://example.org/a?b=1&amp;c=2"}
    alone, with_text = rows(
        tmp_path, submission(1, **link), submission(2, selftext="see [it](https://other.example/x).", **link)
    )
    assert (alone["text"], alone["urls"]) == ("What flies 1", ["https://example.org/a?b=1&c=2"])
    assert with_text["urls"] == ["https://example.org/a?b=1&c=2", "https://other.example/x"]


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("see [https://ex.org/x](https://ex.org/x) ok", "see https://ex.org/x ok"),
        ("see <https://ex.org/x>, &lt;https://ex.org/y&gt;", "see https://ex.org/x, https://ex.org/y"),
        (
            '[a #b](https://ex.org/x "title"), [c](&lt;https://ex.org/y&gt;)',
            "a #b (https://ex.org/x), c (https://ex.org/y)",
        ),
        (
            "[goose](https://ex.org/x)s of [A](https://ex.org/A_(b))",
            "goose (https://ex.org/x) s of A (https://ex.org/A_(b))",
        ),
        (r"https://ex.org/a\_b ¯\\\_(ツ)\_/¯ \#duck", r"https://ex.org/a_b ¯\_(ツ)_/¯ #duck"),
        (r"\[no\](https://ex.org/x) [inside](/r/ducks) a\b", r"[no](https://ex.org/x) [inside](/r/ducks) a\b"),
    ],
)
def test_markdown_is_the_text_that_it_shows(tmp_path, markdown, text):
    original = submission(9, title="that", selftext=markdown)
    about, answer, copy = rows(
        tmp_path, submission(1, selftext=markdown), comment(2, body=markdown),
        submission(3, title="that", crosspost_parent_list=[original]),
    )  # fmt: skip
    assert (about["text"], answer["text"]) == (f"What flies 1\n\n{text}", text)
    assert copy["reposted"]["text"] == f"that\n\n{text}"


def test_a_user_with_an_escaped_name_is_that_user(tmp_path):
    (row,) = rows(tmp_path, comment(1, body=r"ask u/some\_one"))
    assert row["mentions"] == ["some_one"]


def test_a_comment_answers_a_post_of_either_kind(tmp_path):
    first, second, third = rows(
        tmp_path,
        comment(1),
        comment(2, parent_id="t1_c1", name="t1_c2"),
        comment(3, parent_id=4711, created_utc=SECONDS),
    )
    assert (first["post_id"], first["reply_to_post"], first["text"]) == ("t1_c1", "t3_s1", "A goose.")
    assert (second["post_id"], second["reply_to_post"]) == ("t1_c2", "t1_c1")
    assert third["reply_to_post"] is None
    assert first["created_at"] == third["created_at"] == WRITTEN


@pytest.mark.parametrize(
    ("value", "gone"),
    [
        (comment(1, body="[removed]"), "t1_c1"),
        (comment(1, body="[deleted]", author="[deleted]"), "t1_c1"),
        (submission(1, selftext="[removed]"), "t3_s1"),
        (submission(1, title="[deleted by user]", author="[deleted]"), "t3_s1"),
        (comment(1, author="[deleted]"), "t1_c1"),
        (submission(1, author="[deleted]"), "t3_s1"),
        (comment(1, author="[ Deleted ]"), "t1_c1"),
        (comment(1, author="[unavailable]"), "t1_c1"),
        (comment(1, author="None"), "t1_c1"),
        (comment(1, author=None), "t1_c1"),
    ],
)
def test_what_is_deleted_is_left_out_and_its_account_is_nobody(tmp_path, value, gone):
    (row,) = rows(tmp_path, value)
    assert row["left_out"] == "deleted or removed"
    assert (row["author"], row["text"], row["deleted_post"]) == (None, None, gone)


@pytest.mark.parametrize(
    "notice",
    [
        "[ Removed by moderator ]",
        "[Removed by moderator]",
        "[ Removed by Reddit ]",
        "[removed by reddit]",
        "[ Removed by reddit in response to a copyright notice. ]",
        "[ Removed by Reddit on account of violating the [content policy](/help/contentpolicy). ]",
        "[deleted by user]",
        "[unavailable]",
    ],
)
def test_a_notice_in_the_place_of_a_text_is_no_text(tmp_path, notice):
    link = submission(1, title=notice, is_self=False, url="https://example.org/a")
    for row in rows(tmp_path, link, submission(2, selftext=notice), comment(3, body=notice)):
        assert row["left_out"] == "deleted or removed"
        assert row["deleted_post"] in ("t3_s1", "t3_s2", "t1_c3")


@pytest.mark.parametrize("body", ["[removed by my dentist]", "[removed by reddit] so they say [sic]", "removed"])
def test_a_text_about_a_removal_is_a_text(tmp_path, body):
    (row,) = rows(tmp_path, comment(1, body=body))
    assert (row["left_out"], row["text"]) == (None, body)


@pytest.mark.parametrize(
    "taken_down",
    [
        *(
            {"removed_by_category": who}
            for who in ("moderator", "reddit", "anti_evil_ops", "automod_filtered", "deleted")
        ),
        *({"_meta": {"removal_type": how, "retrieved_2nd_on": SECONDS}} for how in ("deleted", "removed by reddit")),
    ],
)
def test_what_was_taken_down_is_left_out_though_its_text_is_there(tmp_path, taken_down):
    link = submission(1, is_self=False, url="https://example.org/a", **taken_down)
    copy = submission(2, title="What flies 1", crosspost_parent_list=[link])
    for row in rows(tmp_path, link, comment(1, **taken_down), copy):
        assert row["left_out"] == "deleted or removed"


def test_what_was_not_taken_down_stays(tmp_path):
    kept = {"removed_by_category": None, "_meta": {"retrieved_2nd_on": SECONDS, "is_edited": True}}
    for row in rows(tmp_path, submission(1, **kept), comment(1, **kept), comment(2, _meta="x")):
        assert row["left_out"] is row["reject"] is None


def test_an_id_may_be_a_full_name(tmp_path):
    answer, about = rows(tmp_path, comment(1, id="t1_c1"), submission(2, id="t3_s2", name=None))
    assert (answer["post_id"], about["post_id"]) == ("t1_c1", "t3_s2")


@pytest.mark.parametrize(
    "date", ["2024-05-01T00:00:00Z", "2024-05-01 00:00:00", "2024-05-01T02:00:00+02:00", 1714521600.0]
)
def test_a_date_may_be_written_out(tmp_path, date):
    (row,) = rows(tmp_path, comment(1, created_utc=date))
    assert row["created_at"] == WRITTEN


def test_bots_are_authors(tmp_path):
    (bot,) = rows(tmp_path, comment(1, author="AutoModerator"))
    assert (bot["author"], bot["left_out"]) == ("automoderator", None)


@pytest.mark.parametrize("author", [{"name": "Ann", "id": "a"}, "Redditor(name='Ann')"])
@pytest.mark.parametrize("subreddit", [{"display_name": "Birds"}, "Subreddit(display_name='Birds')"])
def test_objects_of_praw_are_the_names_in_them(tmp_path, author, subreddit):
    for row in rows(tmp_path, *(one(1, author=author, subreddit=subreddit) for one in (submission, comment))):
        assert (row["author"], row["community"]) == ("ann", "Birds")


@pytest.mark.parametrize(
    "author", [{"id": "a"}, {"name": None}, {}, "Redditor(fullname='t2_a')", {"name": "[deleted]"}]
)
def test_an_object_without_a_name_is_nobody(tmp_path, author):
    (row,) = rows(tmp_path, comment(1, author=author))
    assert (row["author"], row["left_out"]) == (None, "deleted or removed")


@pytest.mark.parametrize(
    "later",
    [
        {"author": "[deleted]"},
        {"author": None},
        {"body": "[removed]"},
        {"_meta": {"removal_type": "deleted"}},
    ],
)
def test_a_later_copy_that_is_gone_takes_the_post_back(tmp_path, later):
    file = tmp_path / "a.jsonl"
    records = [comment(1), comment(2), comment(1, **later)]
    file.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    with read_export(file, "auto", None, [], "id", tmp_path / "spill") as export:
        assert export.connection.sql("SELECT post_id FROM post").fetchall() == [("t1_c2",)]
        assert (export.counts["posts"], export.counts["left_out"]) == (1, 2)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("public", "public"), ("restricted", "public"), ("user", "public"), (None, "public"), ("private", "private")],
)
def test_who_sees_a_subreddit(tmp_path, kind, wanted):
    (row,) = rows(tmp_path, submission(1, subreddit_type=kind))
    assert row["visibility"] == wanted


def test_a_crosspost_is_a_repost_or_a_quote(tmp_path):
    original = submission(1, author="Cy", subreddit="Geese", selftext="long")
    same = submission(2, title=" what flies 1", crosspost_parent="t3_s1", crosspost_parent_list=[original])
    other = submission(3, title="Look at this", crosspost_parent="t3_s1", crosspost_parent_list=[original])
    lost = submission(4, title="What flies 1", crosspost_parent_list=[{**original, "author": "[deleted]"}])
    repost, quote, gone = rows(tmp_path, same, other, lost)
    assert (repost["is_repost"], repost["author"], repost["text"], repost["post_id"]) == (True, "ann", None, "t3_s2")
    about = repost["reposted"]
    assert (about["post_id"], about["author"], about["community"]) == ("t3_s1", "cy", "Geese")
    assert about["text"] == "What flies 1\n\nlong"
    assert (quote["is_repost"], quote["text"], quote["community"]) == (False, "Look at this", "Birds")
    assert (quote["quoted"], quote["quoted_post"]) == ("cy", "t3_s1")
    assert said(gone) == {"left_out": "deleted or removed"}


def listing(*children: Any) -> dict[str, Any]:
    return {"kind": "Listing", "data": {"after": None, "dist": len(children), "children": list(children)}}


def wrapped(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "data": value}


def test_a_listing_is_a_row_per_thing_and_answers_are_among_them(tmp_path):
    inner = wrapped("t1", comment(2, parent_id="t1_c1", replies=""))
    more = wrapped("more", {"count": 3, "children": ["c7", "c8"]})
    answers = listing(wrapped("t1", comment(1, replies=listing(inner, more))))
    found = rows(tmp_path, listing(wrapped("t3", submission(1))), answers, listing(), wrapped("t3", submission(5)))
    assert [(row["line"], row["post_id"], row["left_out"]) for row in found] == [
        (1, "t3_s1", None),
        (2, "t1_c1", None),
        (2, "t1_c2", None),
        (2, None, "answers not loaded"),
        (3, None, "empty page"),
        (4, "t3_s5", None),
    ]


def test_a_page_that_nests_without_end_is_read_to_a_depth(tmp_path):
    page = wrapped("t1", comment(0))
    for number in range(1, 60):
        page = wrapped("t1", comment(number, replies=listing(page)))
    found = rows(tmp_path, listing(page))
    assert [row["post_id"] for row in found] == [f"t1_c{59 - level}" for level in range(reddit.MAX_ANSWERS)]


def test_records_that_are_none(tmp_path):
    found = rows(
        tmp_path, {"a": 1}, [1], comment(1, created_utc="soon"), {"kind": "t5", "data": {"id": "x"}}, comment(2)
    )
    assert [row["reject"] for row in found] == ["not a post object", "not a post object", "impossible date", None, None]
    assert found[3]["left_out"] == "subreddit"


def sample(*values: Any) -> Sample:
    start = b"".join(json.dumps(value).encode() + b"\n" for value in values)
    return Sample(File.of(Path("a")), start, objects(start))


@pytest.mark.parametrize(
    "value",
    [
        submission(1),
        comment(1),
        listing(wrapped("t3", submission(1))),
        {"data": [comment(1)]},
        wrapped("t1", comment(1)),
    ],
)
def test_the_format_is_told_by_one_object(value):
    assert reddit.confidence(sample({"a": 1}, value)) == 1


@pytest.mark.parametrize(
    "value",
    [
        {"subreddit": "x", "body": "y", "time": 1},  # a table
        {"data": [{"id": "1", "text": "x", "author_id": "2"}], "includes": {}},
        {"did": "did:plc:x", "kind": "commit", "commit": {}},
        {"title": "x", "author": "y", "created_utc": 1},
    ],
)
def test_tables_and_other_formats_are_none(value):
    assert reddit.confidence(sample(value)) == 0


KNOWN = [
    submission(1, selftext="u/bob https://x"),
    submission(2, title="What flies 1", crosspost_parent_list=[submission(1)], is_self=False, url="https://x"),
    comment(1),
    comment(2, body="[removed]"),
    wrapped("t1", comment(3)),
]


@settings(max_examples=8, deadline=None)
@given(hostile.lines(KNOWN, 40, 80))
def test_every_record_is_one_row_whatever_it_holds(tmp_path_factory, records):
    hostile.check_rows(rows(tmp_path_factory.mktemp("hostile"), *records), len(records))
