"""What becomes of records that are no posts: left out, favorites, deletions; and users under one name each."""

from datetime import timedelta
from typing import Any

import pytest
from raw import START, batch, like, post, repost, resolved, said, table

from ntulm.corpus import people, records
from ntulm.corpus.records import reasons

DAY = timedelta(days=1)


def posts(connection) -> dict[str, dict[str, Any]]:
    return {one["post_id"]: one for one in table(connection, "SELECT * FROM post")}


def engaged(connection) -> set[tuple[str, str, str]]:
    return {tuple(one.values()) for one in table(connection, 'SELECT "user", post_id, kind FROM engagement')}


# left out


@pytest.mark.parametrize(
    ("visibility", "reason"),
    [
        (None, None),
        ("public", None),
        ("Unlisted", None),
        ("direct", "visibility: direct"),
        ("", "visibility: "),
        ("x\n\x1b[1m\u202ey", "visibility: x [1m y"),
        ("x" * 100, f"visibility: {'x' * 60}…"),
    ],
)
def test_what_not_all_may_see_is_left_out(tmp_path, visibility, reason):
    with resolved(tmp_path, post(1), post(2, visibility=visibility)) as (connection, counts):
        assert counts["left_out"] == (reason is not None)
        found = reasons(connection, "left_out")
        assert found == ([] if reason is None else [(reason, 1, "f", 1)])
        assert ("p2" in posts(connection)) == (reason is None)


def test_a_reason_of_the_reader_comes_before_any_fault(tmp_path):
    rows = [post(1), said(left_out="picture without text"), said(left_out="picture without text"), said()]
    with resolved(tmp_path, *rows) as (connection, counts):
        assert (counts["left_out"], counts["rejects"]) == (3, 0)
        assert reasons(connection, "left_out") == [("picture without text", 2, "f", 1), ("account event", 1, "f", 3)]


def test_rare_reasons_are_one(tmp_path):
    with resolved(tmp_path, *(said(left_out=f"reason {number:03}") for number in range(50))) as (connection, _):
        found = reasons(connection, "left_out")
    assert len(found) == records.MOST_REASONS + 1
    assert found[0] == (records.OTHER, 30, "f", 20)
    assert sum(times for _, times, _, _ in found) == 50


def test_a_private_like_is_none(tmp_path):
    with resolved(tmp_path, post(1), like("a", {"post_id": "p1"}, visibility="private")) as (connection, counts):
        assert (counts["left_out"], engaged(connection)) == (1, set())


# favorites


def test_a_favorite_by_id_is_an_engagement_and_left_out(tmp_path):
    rows = [like("a", {"post_id": "p1"}, created_at=START), post(1), like("a", {"post_id": "elsewhere"})]
    with resolved(tmp_path, *rows) as (connection, counts):
        assert engaged(connection) == {("a", "p1", "favorited")}
        assert table(connection, "SELECT created_at FROM engagement")[0]["created_at"] == START
        assert (counts["posts"], counts["left_out"], counts["recovered"]) == (1, 2, 0)
        assert [reason for reason, *_ in reasons(connection, "left_out")] == ["like"]


def test_a_favorite_brings_the_post_that_it_embeds(tmp_path):
    liked = {"post_id": "x", "text": "liked #tag", "author": "b", "created_at": START}
    rows = [post(1), like("a", liked), like("c", liked), repost(5, {"post_id": "x", "text": "as reposted"})]
    with resolved(tmp_path, *rows) as (connection, counts):
        assert posts(connection)["x"]["text"] == "as reposted"
        assert engaged(connection) == {("a", "x", "favorited"), ("c", "x", "favorited"), ("u5", "x", "reposted")}
        assert (counts["recovered"], counts["left_out"], counts["reposts"]) == (1, 2, 1)
    with resolved(tmp_path, *rows[:3]) as (connection, counts):
        assert (posts(connection)["x"]["author"], posts(connection)["x"]["hashtags"]) == ("b", ["tag"])


def test_a_favorite_without_id_finds_its_post_by_text(tmp_path):
    rows = [post(1), like("a", {"text": "TEXT  1"}, created_at=START), like("b", {"text": "new"}, created_at=START)]
    with resolved(tmp_path, *rows) as (connection, counts):
        assert ("a", "p1", "favorited") in engaged(connection)
        assert (counts["recovered"], len(posts(connection))) == (1, 2)
        assert len(engaged(connection)) == 2


def test_what_cannot_be_a_post_is_still_matched_by_id(tmp_path):
    rows = [post(1), like("a", {"post_id": "p1", "text": "no date"}), like("b", {"post_id": "z", "text": "no date"})]
    with resolved(tmp_path, *rows, like("", {"post_id": "p1"}), like("c", None)) as (connection, counts):
        assert engaged(connection) == {("a", "p1", "favorited")}
        assert (counts["left_out"], counts["rejects"], counts["recovered"]) == (4, 0, 0)


def test_a_liked_post_of_another_language_is_not_brought(tmp_path):
    liked = {"post_id": "x", "text": "hallo", "lang": "de", "created_at": START}
    with resolved(tmp_path, post(1, lang="en"), like("a", liked), languages=["en"]) as (connection, counts):
        assert (set(posts(connection)), counts["recovered"], engaged(connection)) == ({"p1"}, 0, set())


# deletions


@pytest.mark.parametrize("first", [True, False])
def test_a_deleted_post_is_left_out_wherever_it_is(tmp_path, first):
    gone = said(left_out="deletion", deleted_post="p1")
    rows = [post(1), repost(2, {"post_id": "p1", "text": "text 1"}), like("a", {"post_id": "p1"}), post(3)]
    with resolved(tmp_path, *([gone, *rows] if first else [*rows, gone])) as (connection, counts):
        assert (set(posts(connection)), engaged(connection)) == ({"p3"}, set())
        assert (counts["left_out"], counts["posts"]) == (4, 1)
        found = {reason: times for reason, times, _, _ in reasons(connection, "left_out")}
    assert found == {"deleted by its author": 3, "deletion": 1}


def test_a_repost_and_a_like_can_be_taken_back(tmp_path):
    rows = [post(1), repost(2, post(1)), like("a", {"post_id": "p1"}, post_id="like1")]
    taken = [said(deleted_post="p2"), said(deleted_post="like1")]
    with resolved(tmp_path, *rows, *taken) as (connection, counts):
        assert (set(posts(connection)), engaged(connection), counts["left_out"]) == ({"p1"}, set(), 4)


def test_a_repost_known_by_text_does_not_bring_a_deleted_post_back(tmp_path):
    by_text = post(2, text="RT @u1: text 1", is_repost=True)
    with resolved(tmp_path, post(1), by_text, post(3), said(deleted_post="p1")) as (connection, _):
        assert set(posts(connection)) == {"p3"}
    other = post(4, text="text 1")
    with resolved(tmp_path, post(1), by_text, other, said(deleted_post="p1")) as (connection, _):
        assert set(posts(connection)) == {"p4"}
        assert engaged(connection) == {("u2", "p4", "reposted")}


@pytest.mark.parametrize(
    ("events", "is_gone"),
    [
        ([{"deleted_author": "u1"}, {"restored_author": "u1"}], False),
        ([{"restored_author": "u1"}, {"deleted_author": "U1"}], True),
        ([{"restored_author": "u1", "created_at": START + DAY}, {"deleted_author": "u1", "created_at": START}], False),
        ([{"deleted_author": "u1", "created_at": START + DAY}, {"restored_author": "u1"}], True),
        ([{"deleted_author": "u1"}, {"restored_author": "u2"}], True),
    ],
)
def test_what_is_said_last_of_an_account_counts(tmp_path, events, is_gone):
    first, second = (said(**one) for one in events)
    with resolved(tmp_path, post(1), first, post(2), second) as (connection, counts):
        assert set(posts(connection)) == ({"p2"} if is_gone else {"p1", "p2"})
        found = {reason: times for reason, times, _, _ in reasons(connection, "left_out")}
    assert found == {"account event": 2} | ({"account closed": 1} if is_gone else {})
    assert counts["left_out"] == sum(found.values())


def test_of_an_edited_post_the_latest_version_counts(tmp_path):
    second = post(1, text="second #b", edited_at=START + 2 * DAY)
    rows = [post(1, text="first #a"), second, post(1, text="earlier", edited_at=START + DAY), post(2), second]
    with resolved(tmp_path, *rows, repost(3, post(1, text="first #a"))) as (connection, counts):
        assert (posts(connection)["p1"]["text"], posts(connection)["p1"]["hashtags"]) == ("second #b", ["b"])
        assert (counts["posts"], counts["duplicates"], counts["reposts"]) == (2, 3, 1)
        assert engaged(connection) == {("u3", "p1", "reposted")}


@pytest.mark.parametrize("name", ["1", "@Ann"])
def test_an_account_is_deleted_by_id_or_handle(tmp_path, name):
    rows = [
        post(1, author="1", people=[{"id": "1", "handle": "ann"}]),
        post(2, author="ANN"),
        repost(3, {"post_id": "x", "text": "by her", "author": "1"}),
        like("ann", {"post_id": "p5"}),
        post(5, favorited_by=["ann", "bob"]),
        said(deleted_author=name),
    ]
    with resolved(tmp_path, *rows) as (connection, counts):
        assert (set(posts(connection)), counts["left_out"]) == ({"p5"}, 5)
        assert engaged(connection) == {("bob", "p5", "favorited")}


# people


def test_handles_become_ids_wherever_users_stand(tmp_path):
    rows = [
        post(1, author="1", people=[{"id": "1", "handle": "Ann"}, {"id": "2", "handle": "@bob"}]),
        post(2, author="ann", mentions=["BOB", "cat", "2"], reply_to="Bob", quoted="ann", favorited_by=["bob", "2"]),
        repost(3, post(2), author="bob"),
    ]
    with resolved(tmp_path, *rows) as (connection, _):
        found = posts(connection)["p2"]
        assert (found["author"], found["mentions"]) == ("1", ["2", "cat"])
        assert (found["reply_to"], found["quoted"]) == ("2", "1")
        assert engaged(connection) == {("2", "p2", "favorited"), ("2", "p2", "reposted")}
        assert people.count(connection) == people.People(2, 2, 2, False)


def test_of_a_handle_with_several_ids_the_latest_counts(tmp_path):
    rows = [
        post(9, people=[{"id": "new", "handle": "ann"}]),
        post(1, people=[{"id": "old", "handle": "ann"}]),
        said(people=[{"id": "undated", "handle": "ann"}]),
        post(2, author="ann"),
    ]
    with resolved(tmp_path, *rows) as (connection, _):
        assert posts(connection)["p2"]["author"] == "new"


def test_an_id_is_no_handle(tmp_path):
    rows = [
        post(1, author="7", people=[{"id": "7", "handle": "ann"}]),
        post(2, people=[{"id": "8", "handle": "7"}]),
    ]
    with resolved(tmp_path, *rows) as (connection, _):
        assert posts(connection)["p1"]["author"] == "7"


@pytest.mark.parametrize(
    ("author", "mention", "splits"),
    [
        ("12{}", "ann{}", True),
        ("did:plc:x{}", "ann{}.example", True),
        ("12{}", "34{}", False),
        ("ann{}", "bob{}", False),
    ],
)
def test_authors_by_id_and_mentions_by_handle_are_said(tmp_path, author, mention, splits):
    rows = [post(number, author=author.format(number), mentions=[mention.format(number)]) for number in range(9)]
    with resolved(tmp_path, *rows) as (connection, _):
        found = people.count(connection)
    assert (found.strangers, found.mentioned) == (9, 9)
    assert (found.warning or "").startswith("9 of 9 mentioned names are nobody's author key") == splits


# fields


def test_answered_and_quoted_users_come_from_the_posts(tmp_path):
    rows = [
        post(1, author="ann"),
        post(2, reply_to_post="p1", quoted_post="p1"),
        post(3, reply_to="bob", reply_to_post="p1"),
        post(4, reply_to_post="elsewhere"),
        repost(5, {"post_id": "x", "text": "t", "community": "R/News", "cashtags": ["$AAPL"]}, reply_to_post="p1"),
        post(6, text="$TSLA and $Tsla"),
    ]
    with resolved(tmp_path, *rows) as (connection, _):
        found = posts(connection)
    assert [(found[f"p{n}"]["reply_to"], found[f"p{n}"]["quoted"]) for n in (2, 3, 4)] == [
        ("ann", "ann"),
        ("bob", None),
        (None, None),
    ]
    assert (found["x"]["community"], found["x"]["cashtags"], found["x"]["reply_to"]) == ("R/News", ["aapl"], None)
    assert (found["p6"]["cashtags"], found["p1"]["cashtags"]) == (["tsla"], [])


def test_a_batch_is_as_good_as_single_records(tmp_path):
    rows = [post(1), like("a", {"post_id": "p1"}), said(deleted_post="p2"), post(2), repost(3, post(1))]
    with resolved(tmp_path, *rows) as (_, single):
        pass
    with records.workspace(tmp_path / "spill", records.Reading(True, False, False, True)) as connection:
        records.add_records(connection, [batch(rows)], [])
        assert records.resolve(connection, "id") == single


def test_a_repost_that_only_names_its_original_counts_where_that_is_here(tmp_path):
    def pointing(number, original, **changes):
        return repost(number, {"post_id": original}, text=None, **changes)

    rows = [pointing(10, "p1"), post(1), pointing(11, "p9"), pointing(10, "p1"), pointing(12, "p1", created_at=None)]
    rows += [post(2), said(deleted_post="p2"), pointing(13, "p2"), pointing(14, "p1", visibility="direct")]
    with resolved(tmp_path, *rows) as (connection, counts):
        engagements = connection.execute('SELECT "user", post_id, kind FROM engagement').fetchall()
        reasons = connection.execute(
            "SELECT left_out FROM record WHERE left_out IS NOT NULL ORDER BY ordinal"
        ).fetchall()
    assert engagements == [("u10", "p1", "reposted")]
    assert [reason for (reason,) in reasons] == [
        "repost without its original", "repost without its original", "deleted by its author", "account event",
        "deleted by its author", "visibility: direct",
    ]  # fmt: skip
    names = ("read", "posts", "reposts", "duplicates", "filtered", "left_out", "rejects")
    assert [counts[name] for name in names] == [9, 1, 1, 0, 0, 6, 1]


def test_a_repost_without_text_and_without_the_id_of_its_original_is_a_reject(tmp_path):
    with resolved(tmp_path, repost(1, {"post_id": None}, text=None), post(2)) as (connection, counts):
        assert connection.execute("SELECT ordinal, reject FROM record WHERE reject IS NOT NULL").fetchall() == [
            (0, "no text")
        ]
        assert (counts["rejects"], counts["posts"], counts["left_out"]) == (1, 1, 0)
