"""Twitter's exports in rarer shapes: what their posts, engagements and counts become."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import exports
import pytest

from ntulm.corpus import records
from ntulm.corpus.records import read_export

Record = dict[str, Any]


@dataclass(frozen=True)
class Corpus:
    """What an export became."""

    posts: dict[str, Record]
    counts: dict[str, int]
    engagements: list[tuple[str, str]]
    left_out: dict[str, int]
    rejects: dict[str, int]


def corpus(path: Path, expected: str) -> Corpus:
    with read_export(path, "auto", None, [], "id", path.parent / "spill") as reader:
        assert reader.detection.format == expected
        told = {
            column: {reason: number for reason, number, _, _ in records.reasons(reader.connection, column)}
            for column in ("left_out", "reject")
        }
        posts = reader.connection.sql("FROM post ORDER BY post_id").to_arrow_table().to_pylist()
        engagements = reader.connection.sql('SELECT "user", post_id FROM engagement ORDER BY ALL').fetchall()
        by_id = {post["post_id"]: post for post in posts}
        return Corpus(by_id, reader.counts, engagements, told["left_out"], told["reject"])


def written(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# Version 2


def tweet(number: int, by: int = 1, text: str = "good beans", **changes: Any) -> Record:
    return {
        "id": str(number),
        "author_id": str(by),
        "created_at": f"2021-05-10T17:30:{number:02}.000Z",
        "text": text,
        "lang": "en",
        "conversation_id": str(number),
        **changes,
    }


def retweet(number: int, by: int, original: int, text: str) -> Record:
    return tweet(number, by, text, referenced_tweets=[{"type": "retweeted", "id": str(original)}])


def page(*tweets: Record, **includes: Any) -> Record:
    return {"data": list(tweets), "includes": includes}


WHOLE = tweet(9, 2, "a long story of #beans and #coffee")


def test_an_original_is_read_whole_from_whichever_page_has_it(tmp_path):
    cut = [retweet(11, 1, 9, "RT @user2: a long story of #beans and #cof…")]
    partial = page(*cut, users=[{"id": "2", "username": "user2"}])
    whole = page(retweet(12, 3, 9, cut[0]["text"]), tweets=[WHOLE])
    for name, pages in {"before": [partial, whole], "after": [whole, partial]}.items():
        found = corpus(written(tmp_path / name, *pages), "twitter_v2")
        (post,) = found.posts.values()
        assert (post["author"], post["text"], post["hashtags"]) == ("2", WHOLE["text"], ["beans", "coffee"])
        assert post["created_at"].second == 9
        assert found.engagements == [("1", "9"), ("3", "9")]


def test_retweets_do_not_bring_back_the_posts_of_protected_accounts(tmp_path):
    users = [{"id": "2", "username": "User2", "protected": True}]
    known = page(retweet(11, 1, 9, "RT @user2: a secret"), users=users, tweets=[WHOLE])
    by_name = page(retweet(12, 1, 9, "RT @user2: a secret"), users=users)
    flat = {**WHOLE, "type": "retweeted", "author": users[0]}
    within = tweet(13, 1, "RT @user2: a secret", referenced_tweets=[flat])
    quoting = tweet(14, 1, "see this", referenced_tweets=[{**flat, "type": "quoted"}])
    found = corpus(written(tmp_path / "a", known, by_name, within, quoting), "twitter_v2")
    assert list(found.posts) == ["14"]
    assert found.left_out == {"visibility: protected": 3}
    assert found.engagements == []


def test_an_object_is_no_id_in_version_2(tmp_path):
    odd: list[Record] = [
        tweet(1, author_id={"$numberLong": "5"}, in_reply_to_user_id={"x": 1}),
        tweet(2, author_id={"x": 1}),
        {**tweet(3), "id": {"x": 1}},
        tweet(4, entities={"mentions": [{"id": {"x": 1}, "username": "user7"}, {"id": "-1", "username": "user8"}]}),
    ]
    found = corpus(written(tmp_path / "a", tweet(5), *odd), "twitter_v2")
    assert (found.posts["1"]["author"], found.posts["1"]["reply_to"]) == ("5", None)
    assert found.posts["4"]["mentions"] == ["user7", "user8"]
    assert found.rejects == {"no author": 1, "unreadable id": 1}


def test_arrays_of_arrays_are_tweets_and_no_table(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([[tweet(1), tweet(2)], [tweet(3)]]))
    assert list(corpus(path, "twitter_v2").posts) == ["1", "2", "3"]
    path.write_text(json.dumps([[status(1), status(2)], [status(3)]]))
    assert list(corpus(path, "twitter_v1").posts) == ["1", "2", "3"]


def test_the_link_of_a_quote_names_its_author(tmp_path):
    def quoting(number: int, owner: str, quoted: int = 99, **changes: Any) -> Record:
        links = ["https://x.com/user5/status/7", f"https://twitter.com/{owner}/status/99"]
        entities = {"urls": [{"expanded_url": link} for link in links]}
        return tweet(number, entities=entities, referenced_tweets=[{"type": "quoted", "id": str(quoted), **changes}])

    export = [quoting(1, "user2"), quoting(2, "i"), quoting(3, "user2", 98), quoting(4, "user2", author_id="6")]
    found = corpus(written(tmp_path / "a", *export, tweet(5)), "twitter_v2")
    assert [post["quoted"] for post in found.posts.values()] == ["user2", None, None, "6", None]


# Version 1


def status(number: int, by: int = 1, text: str = "good beans", **changes: Any) -> Record:
    return {
        "id": number,
        "id_str": str(number),
        "created_at": f"Wed Mar 31 14:00:{number:02} +0000 2021",
        "text": text,
        "lang": "en",
        "user": {"id": by, "id_str": str(by), "screen_name": f"user{by}", "protected": False},
        "entities": {"hashtags": [], "urls": [], "user_mentions": [], "symbols": []},
        **changes,
    }


def test_retweets_of_protected_accounts_in_version_1(tmp_path):
    secret = status(9, 2, "a secret")
    secret["user"]["protected"] = True
    open_one = status(12, text="RT @user3: for all", retweeted_status=status(8, 3, "for all"))
    found = corpus(written(tmp_path / "a", status(11, text="RT @x", retweeted_status=secret), open_one), "twitter_v1")
    assert list(found.posts) == ["8"]
    assert found.left_out == {"visibility: protected": 1}


def mention(number: int | None) -> Record:
    return {"id": number, "id_str": None if number is None else str(number), "screen_name": f"user{number}"}


def mentioning(*numbers: int | None) -> Record:
    return {"hashtags": [], "urls": [], "user_mentions": [mention(number) for number in numbers], "symbols": []}


def test_unknown_accounts_are_not_one_user(tmp_path):
    first = status(1, entities=mentioning(-1, None, 2))
    second = status(2, in_reply_to_user_id=-1, in_reply_to_user_id_str="-1", in_reply_to_screen_name="user9")
    found = corpus(written(tmp_path / "a", first, second), "twitter_v1")
    assert found.posts["1"]["mentions"] == ["2"]
    assert found.posts["2"]["reply_to"] is None


def test_numbers_as_mongodb_writes_them(tmp_path):
    long = status(1)
    long |= {"id": {"$numberLong": "7"}, "user": {"id": {"$numberLong": "5"}, "screen_name": "user5"}}
    del long["id_str"]
    other = {**long, "id": {"$oid": "5f"}}
    anonymous = status(3)
    anonymous["user"] = {"id": {"x": 1}, "screen_name": "user5"}
    found = corpus(written(tmp_path / "a", long, other, anonymous), "twitter_v1")
    assert {number: post["author"] for number, post in found.posts.items()} == {"7": "5"}
    assert found.rejects == {"unreadable id": 1, "no author": 1}


def test_pages_of_the_search(tmp_path):
    pages = [{"statuses": [status(1), status(2)], "search_metadata": {"count": 2}}, {"statuses": [status(3)]}]
    lines = corpus(written(tmp_path / "a", *pages, {"statuses": []}), "twitter_v1")
    assert list(lines.posts) == ["1", "2", "3"]
    assert (lines.counts["read"], lines.rejects) == (3, {})
    (tmp_path / "b.json").write_text(json.dumps(pages[0], indent=1))
    assert list(corpus(tmp_path / "b.json", "twitter_v1").posts) == ["1", "2"]
    (tmp_path / "c.json").write_text(json.dumps(pages))
    assert list(corpus(tmp_path / "c.json", "twitter_v1").posts) == ["1", "2", "3"]


def test_dates_of_archives_until_2018(tmp_path):
    old = status(1, created_at="2017-01-31 20:50:37 +0000")
    again = status(2, created_at="2017-01-31 20:50:37 +0100", retweeted_status=status(3, 2, created_at="2017-01-30"))
    path = tmp_path / "2017_01.js"
    path.write_text("Grailbird.data.tweets_2017_01 =\n" + json.dumps([old, again], indent=1))
    found = corpus(path, "twitter_v1")
    assert found.posts["1"]["created_at"] == datetime(2017, 1, 31, 20, 50, 37, tzinfo=UTC)
    assert found.posts["3"]["created_at"] == datetime(2017, 1, 31, 19, 50, 37, tzinfo=UTC)
    found = corpus(archive(tmp_path / "a", own(1, created_at="2017-01-31 20:50:37 +0000")), "twitter_archive")
    assert found.posts["1"]["created_at"].year == 2017


WEIBO = {"created_at": "Wed Mar 31 14:05:00 +0800 2021", "id": "1", "text": "x", "user": {"screen_name": "user1"}}


@pytest.mark.parametrize(
    ("format_name", "record"),
    [
        ("table", WEIBO),
        ("twitter_v1", {**WEIBO, "created_at": "Wed Mar 31 14:05:00 +0000 2021"}),
        ("twitter_v1", {**WEIBO, "id_str": "1"}),
        ("table", {"tweet": status(1), "label": 1}),
        ("table", {**status(1), "user": None, "full_text": "x", "user_id_str": "1"}),
    ],
)
def test_what_looks_like_twitter(tmp_path, format_name, record):
    assert (
        exports.detect(written(tmp_path / "a", {key: value for key, value in record.items() if value})) == format_name
    )


def test_notices_of_accounts_and_of_deletions(tmp_path):
    notices = [{"user_delete": {"id": 5}}, {"delete": {"tweet": {"id": 2}}}, {"user_protect": {"id": 1}}]
    found = corpus(written(tmp_path / "a", status(1), status(2), status(3, 5), *notices), "twitter_v1")
    assert list(found.posts) == ["1"]
    assert found.left_out == {
        "deleted by its author": 2,
        "account deleted": 1,
        "account closed": 1,
        "user_protect notice": 1,
    }
    assert found.rejects == {}


# The archive


def archive(folder: Path, *tweets: Record) -> Path:
    files = {"tweets": [{"tweet": one} for one in tweets], "account": [{"account": {"accountId": "1"}}]}
    for name, found in files.items():
        written(folder / "data" / f"{name}.js").write_text(f"window.YTD.{name}.part0 = {json.dumps(found)}")
    return folder


def own(number: int, text: str = "good beans", **changes: Any) -> Record:
    return {key: value for key, value in status(number, text=text, **changes).items() if key != "user"}


def test_accounts_that_an_archive_does_not_know_are_their_handles(tmp_path):
    deleted = own(1, entities=mentioning(-1), in_reply_to_user_id_str="-1", in_reply_to_screen_name="User9")
    found = corpus(archive(tmp_path / "a", deleted), "twitter_archive")
    assert (found.posts["1"]["mentions"], found.posts["1"]["reply_to"]) == (["user-1"], "User9")
