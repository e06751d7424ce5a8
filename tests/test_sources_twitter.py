"""Twitter's exports: both versions of the API and the archive of an account, told apart and read right."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import exports
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ntulm.corpus.sources import formats, json_records, twitter_archive, twitter_references, twitter_v2
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.lines import record_lines
from ntulm.errors import UserError

Record = dict[str, Any]


@pytest.fixture(autouse=True)
def arrays(monkeypatch):
    """Arrays and assignments, as `record_lines` and `objects` are to read them."""

    def values(text: str) -> list[Any] | None:
        if not text.startswith(("[", "window.")):
            return None
        return json.loads(text[text.index("[") :].rstrip(";\n"))

    def records(files, items=()):
        for file in files:
            if (found := values(file.path.read_text())) is None:
                yield from record_lines([file], items)
            else:
                lines = [pa.array(range(1, len(found) + 1), pa.int64()), pa.array(map(json.dumps, found), pa.string())]
                nothing = pa.nulls(len(found), pa.string())
                names = pa.array([str(file)] * len(found), pa.string())
                yield pa.table([*lines, nothing, names], names=["line", "content", "reject", "file"])

    def objects(start, plain=formats.objects):
        found = values(start.decode())
        return plain(start) if found is None else [value for value in found if isinstance(value, dict)]

    for module in (json_records, twitter_references, twitter_v2):
        monkeypatch.setattr(module, "record_lines", records)
    monkeypatch.setattr(formats, "objects", objects)


def rows(path: Path, name: str = "auto") -> list[Record]:
    batches = exports.batches(path, name)
    assert all(batch.schema == formats.RAW_SCHEMA for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def write(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def people(row: Record) -> set[tuple[str, str]]:
    return {(person["id"], person["handle"]) for person in row["people"]}


# Version 2


def user(number: int, **changes: Any) -> Record:
    return {"id": str(number), "username": f"user{number}", "name": "N", "public_metrics": {}, **changes}


def tweet(number: int, by: int | None = 1, text: str = "good beans", **changes: Any) -> Record:
    written = {"id": str(number), "created_at": "2021-05-10T17:30:00.000Z", "text": text, "lang": "en"}
    named = {} if by is None else {"author_id": str(by)}
    return {**written, **named, "public_metrics": {"like_count": 1}, **changes}


def referring(kind: str, number: int, **expanded: Any) -> list[Record]:
    return [{"type": kind, "id": str(number), **expanded}]


CUT = "RT @user2: the long and winding story of #beans and of #cof…"
WHOLE = "the long and winding story of #beans and of #coffee for all"
WHOLE_TAGS = {"hashtags": [{"start": 30, "tag": "beans"}, {"tag": "coffee"}]}
CUT_ENTITIES = {"mentions": [{"username": "user2", "id": "2"}], "hashtags": [{"tag": "beans"}, {"tag": "cof"}]}


def retweet(number: int, original: int, **changes: Any) -> Record:
    return tweet(number, 1, CUT, entities=CUT_ENTITIES, referenced_tweets=referring("retweeted", original), **changes)


def page(*tweets: Record, users: Any = (), referred: Any = (), **changes: Any) -> Record:
    return {"data": list(tweets), "includes": {"users": list(users), "tweets": list(referred)}, "meta": {}, **changes}


def check_repost(row: Record) -> None:
    original = row["reposted"]
    assert row["is_repost"]
    assert row["author"] == "1"
    assert (original["post_id"], original["author"], original["text"]) == ("90", "2", WHOLE)
    assert original["hashtags"] == ["beans", "coffee"]


def test_a_page_gives_a_row_per_tweet_with_the_originals_from_its_includes(tmp_path):
    original = tweet(90, 2, WHOLE, entities=WHOLE_TAGS)
    answer = tweet(
        12, 3, referenced_tweets=[*referring("quoted", 90), *referring("replied_to", 80)], in_reply_to_user_id="5"
    )
    one = page(retweet(11, 90), answer, users=[user(1), user(2), user(3, protected=True)], referred=[original])
    write(tmp_path / "pages.jsonl", one, page(tweet(13)))
    assert exports.detect(tmp_path / "pages.jsonl") == "twitter_v2"
    first, second, third = rows(tmp_path / "pages.jsonl")
    check_repost(first)
    assert [row["line"] for row in (first, second, third)] == [1, 1, 2]
    assert people(first) == {("1", "user1"), ("2", "user2"), ("3", "user3")}
    assert (second["quoted_post"], second["quoted"]) == ("90", "2")
    assert (second["reply_to_post"], second["reply_to"]) == ("80", "5")
    assert (second["visibility"], third["visibility"]) == ("protected", None)
    assert first["created_at"] == datetime(2021, 5, 10, 17, 30, tzinfo=UTC)


def test_flattened_tweets_have_all_in_themselves(tmp_path):
    original = tweet(90, 2, WHOLE, entities=WHOLE_TAGS, author=user(2))
    flat = tweet(
        11, 1, CUT, entities=CUT_ENTITIES, author=user(1), in_reply_to_user=user(7), in_reply_to_user_id="7",
        referenced_tweets=[{"type": "retweeted", **original}], geo={"place_id": "p1", "full_name": "Here", "id": "p1"},
    )  # fmt: skip
    quoting = tweet(12, 1, author={}, referenced_tweets=[{"type": "quoted", **original}])
    write(tmp_path / "flat.jsonl", flat, quoting)
    assert exports.detect(tmp_path / "flat.jsonl") == "twitter_v2"
    first, second = rows(tmp_path / "flat.jsonl")
    check_repost(first)
    assert people(first) == {("1", "user1"), ("2", "user2"), ("7", "user7")}
    assert first["places"] == ["p1"]
    assert (second["author"], second["quoted"], second["is_repost"]) == ("1", "2", False)


def academic_folder(folder: Path) -> Path:
    """As jsonlite writes data frames: `{}` where a row has no list."""
    nothing: Record = {"hashtags": {}, "mentions": {}, "annotations": {}, "urls": {}}
    plain = tweet(12, 3, "no entities here", entities=nothing, referenced_tweets={})
    pages = {"data_11": [retweet(11, 90), plain], "data_14": [retweet(14, 90), retweet(15, 91)]}
    for name, tweets in pages.items():
        (folder / f"{name}.json").write_text(json.dumps(tweets) + "\n")
    includes = {"users": [user(1), user(2)], "tweets": [tweet(90, 2, WHOLE, entities=WHOLE_TAGS)]}
    (folder / "users_11.json").write_text(json.dumps(includes) + "\n")
    (folder / "users_14.json").write_text(json.dumps({"users": [user(3)]}) + "\n")
    return folder


def test_a_folder_with_users_and_originals_in_files_of_their_own(tmp_path):
    academic_folder(tmp_path)
    assert exports.detect(tmp_path) == "twitter_v2"
    found = rows(tmp_path)
    first, plain, again, lost, includes, users = found
    check_repost(first)
    check_repost(again)
    assert (plain["author"], plain["hashtags"], plain["mentions"], plain["is_repost"]) == ("3", [], [], False)
    assert lost["is_repost"]
    assert lost["reposted"]["post_id"] == "91"
    assert includes["left_out"] == users["left_out"] == "users and posts referred to"
    assert people(includes) == {("1", "user1"), ("2", "user2")}
    assert people(users) == {("3", "user3")}


def test_an_original_of_which_only_the_cut_text_is_left_is_nobodys(tmp_path):
    untagged = {**retweet(12, 91), "entities": None}
    whole = tweet(
        13, 1, "RT @User2: short and whole", referenced_tweets=referring("retweeted", 92), entities=CUT_ENTITIES
    )
    unasked = tweet(14, 1, "RT @user9: no field asked for")
    write(tmp_path / "a", retweet(11, 90), untagged, whole, unasked)
    cut, bare, short, plain = rows(tmp_path / "a")
    text = "the long and winding story of #beans and of"
    assert (cut["reposted"]["text"], cut["reposted"]["author"]) == (text, None)
    assert (cut["reposted"]["hashtags"], cut["reposted"]["mentions"]) == (["beans"], [])
    assert (bare["reposted"]["text"], bare["reposted"]["hashtags"]) == (text, None)
    assert (short["reposted"]["text"], short["reposted"]["author"]) == ("short and whole", "2")
    assert plain["is_repost"]
    assert plain["reposted"]["post_id"] is None
    assert plain["reposted"]["author"] == "user9"


def test_entities_of_version_2(tmp_path):
    entities = {
        "hashtags": [{"tag": "Beans"}],
        "cashtags": [{"tag": "BEAN"}],
        "mentions": [{"username": "user2", "id": "2"}, {"username": "old"}],
        "urls": [
            {"url": "https://t.co/a", "expanded_url": "https://sho.rt/a", "unwound_url": "https://beans.example/a"},
            {"url": "https://t.co/b", "expanded_url": "https://beans.example/b"},
        ],
    }
    note = {"text": "a long text with #more", "entities": {"hashtags": [{"tag": "more"}]}}
    write(
        tmp_path / "a",
        tweet(1, entities=entities),
        tweet(2),
        tweet(3, note_tweet=note, entities=entities),
        tweet(4, note_tweet={"text": "a long #text"}, entities=entities),
    )
    full, none, long, bare = rows(tmp_path / "a")
    assert (full["hashtags"], full["cashtags"], full["mentions"]) == (["Beans"], ["BEAN"], ["2", "old"])
    assert full["urls"] == ["https://beans.example/a", "https://beans.example/b"]
    assert (none["hashtags"], none["mentions"], none["urls"], none["cashtags"]) == (None, None, None, None)
    assert (long["text"], long["hashtags"], long["mentions"]) == ("a long text with #more", ["more"], [])
    assert (bare["text"], bare["hashtags"]) == ("a long #text", None)


def test_pages_of_client_libraries_and_of_streams(tmp_path):
    array = [page(tweet(1), tweet(2)), page(tweet(3))]
    (tmp_path / "array.json").write_text(json.dumps(array))
    assert exports.detect(tmp_path / "array.json") == "twitter_v2"
    assert [(row["line"], row["post_id"]) for row in rows(tmp_path / "array.json")] == [(1, "1"), (1, "2"), (2, "3")]
    write(tmp_path / "stream", {"data": tweet(1), "includes": {"users": [user(1)]}, "matching_rules": [{"id": "1"}]})
    assert exports.detect(tmp_path / "stream") == "twitter_v2"
    (row,) = rows(tmp_path / "stream")
    assert (row["post_id"], people(row)) == ("1", {("1", "user1")})


def test_what_is_no_tweet_of_version_2(tmp_path):
    problem = {"type": "https://api.twitter.com/2/problems/resource-not-found", "title": "Not Found", "detail": "x"}
    records = [
        page(tweet(1)),
        {"errors": [problem]},
        {"data": [], "meta": {"result_count": 0}},
        {"meta": {"result_count": 0}},
        {**problem, "resource_id": "8"},
        page(user(5), user(6)),
        user(7),
        {"data": [5, tweet(2, by=None), None], "includes": None},
        {"data": None, "other": 1},
        [1, 2],
        {"data": [tweet(3, created_at="once")]},
    ]
    write(tmp_path / "a", *records)
    with (tmp_path / "a").open("a") as file:
        file.write('{"data": [{"id": \n')
    found = rows(tmp_path / "a")
    told = [(row["line"], row["left_out"] or row["reject"]) for row in found if row["post_id"] is None]
    assert told == [
        (2, "no posts on this page"),
        (3, "no posts on this page"),
        (4, "no posts on this page"),
        (5, "error message"),
        (6, "user profile"),
        (6, "user profile"),
        (7, "user profile"),
        (8, "not a post object"),
        (8, "not a post object"),
        (9, "not a post object"),
        (10, "not a post object"),
        (11, "impossible date"),
        (12, "invalid JSON"),
    ]
    assert [people(row) for row in found if row["left_out"] == "user profile"] == [
        {("5", "user5")}, {("6", "user6")}, {("7", "user7")},
    ]  # fmt: skip
    assert [row["author"] for row in found if row["post_id"] == "2"] == [None]  # which the corpus rejects


def test_a_page_longer_than_the_sample_is_detected(tmp_path):
    write(tmp_path / "a", page(*(tweet(number, text="x" * 200) for number in range(1000))))
    assert (
        twitter_v2.confidence(formats.Sample(File.of(tmp_path / "a"), (tmp_path / "a").read_bytes()[:4000], [])) > 0.5
    )


def test_references_are_found_and_the_first_stays(tmp_path):
    references = twitter_references.References(tmp_path / "a")
    references.add([("1", "a"), ("2", "b"), ("1", "c")])
    assert sorted(references.find(["1", "2", "3", *map(str, range(5, 2000))])) == [("1", "a"), ("2", "b")]
    references.close()


# The archive


def assigned(path: Path, name: str, *records: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"window.YTD.{name}.part0 = {json.dumps(records, indent=2)}")


def own(number: int, text: str = "good beans", **changes: Any) -> Record:
    return {
        "id": str(number),
        "id_str": str(number),
        "created_at": "Sat Feb 18 12:33:11 +0000 2023",
        "full_text": text,
        "lang": "en",
        "retweeted": False,
        "entities": {"hashtags": [], "symbols": [], "user_mentions": [], "urls": []},
        **changes,
    }


def mention(number: int) -> Record:
    return {
        "name": "N",
        "screen_name": f"user{number}",
        "id_str": str(number),
        "id": str(number),
        "indices": ["0", "6"],
    }


LONG = "a story of beans & coffee that goes on " * 9


def archive(folder: Path) -> Path:
    data = folder / "data"
    tags = {"hashtags": [{"text": "beans"}, {"text": "cof"}], "user_mentions": [mention(2)], "urls": [], "symbols": []}
    link = {"url": "https://t.co/q", "expanded_url": "https://twitter.com/user4/status/77"}
    assigned(
        data / "tweets.js",
        "tweets",
        {"tweet": own(1, in_reply_to_user_id="2", in_reply_to_screen_name="user2", in_reply_to_status_id_str="70")},
        {"tweet": own(2, CUT, entities=tags)},
        {"tweet": own(3, "RT @User2: short and whole", entities={**tags, "hashtags": []})},
        {"tweet": own(4, LONG[:250].replace("&", "&amp;") + "… https://t.co/long", entities=tags)},
        {"tweet": own(5, "see https://t.co/q", entities={**tags, "urls": [link], "symbols": [{"text": "BEAN"}]})},
    )
    assigned(data / "tweets-part1.js", "tweets", own(6, "the older form", entities=None), {"tweet": {"other": 1}})
    assigned(data / "community-tweet.js", "community_tweet", {"tweet": own(7, community_id_str="c1")})
    assigned(data / "deleted-tweets.js", "deleted_tweets", {"tweet": own(8, "never said")})
    note = {"noteTweetId": "500", "createdAt": "2023-02-18T12:33:11.000Z", "core": {"text": LONG, "urls": []}}
    assigned(data / "note-tweet.js", "note_tweet", {"noteTweet": note})
    like = {"tweetId": "90", "fullText": "liked", "expandedUrl": "https://twitter.com/i/web/status/90"}
    assigned(data / "like.js", "like", {"like": like}, {"like": {"tweetId": "91"}})
    assigned(data / "account.js", "account", {"account": {"accountId": "1", "username": "user1", "email": "x"}})
    assigned(data / "follower.js", "follower", {"follower": {"accountId": "9"}})
    (data / "direct-messages.js").write_text("nobody reads this")
    return folder


def by_id(found: list[Record]) -> dict[str, Record]:
    return {row["post_id"]: row for row in found if row["post_id"] is not None}


def test_an_archive(tmp_path):
    archive(tmp_path)
    assert exports.detect(tmp_path) == "twitter_archive"
    found = rows(tmp_path)
    posts = by_id(found)
    assert set(posts) == {"1", "2", "3", "4", "5", "6", "7"}
    assert {row["author"] for row in posts.values()} == {"1"}
    reply = posts["1"]
    assert (reply["reply_to"], reply["reply_to_post"], people(reply)) == ("2", "70", {("2", "user2")})
    assert reply["created_at"] == datetime(2023, 2, 18, 12, 33, 11, tzinfo=UTC)
    assert (posts["6"]["hashtags"], posts["6"]["mentions"]) == (None, None)
    assert posts["7"]["community"] == "c1"
    assert (posts["5"]["cashtags"], posts["5"]["mentions"]) == (["BEAN"], ["2"])
    assert (posts["5"]["quoted"], posts["5"]["quoted_post"]) == ("user4", "77")
    assert [row["reject"] for row in found if row["reject"]] == ["not a post object"]


def test_retweets_of_an_archive_are_known_by_whole_texts_alone(tmp_path):
    posts = by_id(rows(archive(tmp_path)))
    cut, whole = posts["2"], posts["3"]
    assert cut["is_repost"]
    assert whole["is_repost"]
    assert not posts["1"]["is_repost"]
    assert cut["reposted"]["post_id"] is None
    assert cut["reposted"]["author"] is None
    assert cut["reposted"]["text"] == "the long and winding story of #beans and of"
    assert (cut["reposted"]["hashtags"], cut["reposted"]["mentions"]) == (["beans"], [])
    assert (whole["reposted"]["text"], whole["reposted"]["author"]) == ("short and whole", "2")


def archive_rows(folder: Path) -> list[Record]:
    """Of all files, those that are not opened as well."""
    files = [File.of(path) for path in sorted(archive(folder).rglob("*.js"))]
    return [row for batch in twitter_archive.read(files, None) for row in batch.to_pylist()]


def test_what_else_an_archive_holds(tmp_path):
    found = archive_rows(tmp_path)
    long = by_id(found)["4"]
    assert (long["text"], long["urls"], long["hashtags"]) == (LONG, [], None)
    likes = [row for row in found if row["left_out"] == "like"]
    assert all(row["is_favorite"] and row["author"] == "1" for row in likes)
    assert [(row["reposted"]["post_id"], row["reposted"]["text"]) for row in likes] == [("90", "liked"), ("91", None)]
    reasons = {row["left_out"]: row for row in found if row["left_out"] not in (None, "like")}
    assert set(reasons) == {
        "account", "deleted by its author", "direct messages, not opened", "file of the archive without posts",
        "long text of a post",
    }  # fmt: skip
    assert reasons["deleted by its author"]["deleted_post"] == "8"
    assert people(reasons["account"]) == {("1", "user1")}
    assert Path(reasons["direct messages, not opened"]["file"]).name == "direct-messages.js"


def test_direct_messages_are_not_opened(tmp_path, monkeypatch):
    opened = []
    plain = Path.open

    def noted(path, *arguments, **others):
        opened.append(path.name)
        return plain(path, *arguments, **others)

    archive(tmp_path)
    monkeypatch.setattr(Path, "open", noted)
    monkeypatch.setattr(Path, "read_text", lambda path: noted(path).read())
    files = [File.of(path) for path in sorted(tmp_path.rglob("*.js"))]
    list(twitter_archive.read(files, None))
    assert "account.js" in opened
    assert not [name for name in opened if "direct" in name]


def test_an_archive_without_account_says_what_is_missing(tmp_path):
    (archive(tmp_path) / "data" / "account.js").unlink()
    with pytest.raises(UserError, match=r"no account\.js beside it; expected the archive's data/account\.js"):
        rows(tmp_path)


def test_two_archives_have_two_authors(tmp_path):
    for number in (1, 2):
        data = tmp_path / f"archive{number}" / "data"
        assigned(data / "tweet.js", "tweet", {"tweet": own(number)})
        assigned(data / "account.js", "account", {"account": {"accountId": str(number), "username": f"user{number}"}})
    assert {number: row["author"] for number, row in by_id(rows(tmp_path)).items()} == {"1": "1", "2": "2"}


def test_long_texts_of_one_second_go_to_their_own_posts(tmp_path):
    first, second = "one " * 90, "two " * 90
    assigned(
        tmp_path / "data" / "note-tweet.js",
        "note_tweet",
        *(
            {"noteTweet": {"noteTweetId": "5", "createdAt": "2023-02-18T12:33:12Z", "core": {"text": t}}}
            for t in (first, second)
        ),
        {"noteTweet": {"noteTweetId": "6", "tweetId": "3", "noteTweetResults": {"text": "the third one, at length"}}},
        {"noteTweet": {"noteTweetId": "7", "createdAt": "2023-02-18T12:33:12Z", "core": None}},
    )
    cut = [own(1, second[:200] + "…"), own(2, first[:200]), own(3, "the third"), own(4, "another")]
    assigned(tmp_path / "data" / "tweets.js", "tweets", *({"tweet": one} for one in cut))
    assigned(tmp_path / "data" / "account.js", "account", {"account": {"accountId": "1", "username": "user1"}})
    texts = {number: row["text"] for number, row in by_id(rows(tmp_path)).items()}
    assert texts == {"1": second, "2": first, "3": "the third one, at length", "4": "another"}


# Version 1


def status(number: int, by: int = 1, text: str = "good beans", **changes: Any) -> Record:
    return {
        "id": number,
        "id_str": str(number),
        "created_at": "Wed Jan 01 00:00:48 +0000 2014",
        "text": text,
        "lang": "en",
        "user": {"id": by, "id_str": str(by), "screen_name": f"user{by}", "protected": False},
        "entities": {"hashtags": [], "urls": [], "user_mentions": [], "symbols": []},
        **changes,
    }


def test_replies_quotes_cashtags_and_people_of_version_1(tmp_path):
    quoted = status(90, 3)
    entities = {"hashtags": [], "urls": [], "user_mentions": [mention(2)], "symbols": [{"text": "BEAN"}]}
    full = status(
        1, entities=entities, in_reply_to_user_id_str="5", in_reply_to_screen_name="user5",
        in_reply_to_status_id_str="80", quoted_status_id_str="90", quoted_status=quoted,
    )  # fmt: skip
    hidden = status(2)
    hidden["user"]["protected"] = True
    write(tmp_path / "a", full, hidden, status(3, retweeted_status={**status(91, 4), "quoted_status": quoted}))
    assert exports.detect(tmp_path / "a") == "twitter_v1"
    first, second, third = rows(tmp_path / "a")
    assert (first["reply_to"], first["reply_to_post"]) == ("5", "80")
    assert (first["quoted"], first["quoted_post"], first["cashtags"]) == ("3", "90", ["BEAN"])
    assert people(first) == {("1", "user1"), ("2", "user2"), ("3", "user3"), ("5", "user5")}
    assert (first["visibility"], second["visibility"]) == (None, "protected")
    assert (third["reposted"]["post_id"], third["reposted"]["author"], third["reposted"]["quoted"]) == ("91", "4", "3")
    assert people(third) == {("1", "user1"), ("4", "user4")}


def test_notices_of_a_stream(tmp_path):
    delete = {"status": {"id": 7, "id_str": "7", "user_id": 1, "user_id_str": "1"}, "timestamp_ms": "1"}
    place = {"user_id": 1, "up_to_status_id": 7}
    write(
        tmp_path / "a",
        {"delete": delete},
        {"scrub_geo": place},
        {"limit": {"track": 5}},
        {"status_withheld": {"id": 1}},
    )
    assert exports.detect(tmp_path / "a") == "twitter_v1"
    found = rows(tmp_path / "a")
    assert [row["left_out"] for row in found] == [
        "deleted by its author", "scrub_geo notice", "limit notice", "status_withheld notice",
    ]  # fmt: skip
    assert [row["deleted_post"] for row in found] == ["7", None, None, None]
    assert not any(row["reject"] or row["is_repost"] is not None for row in found)


# All


@pytest.mark.parametrize(
    ("format_name", "records"),
    [
        ("twitter_v1", [status(1)]),
        ("twitter_v1", [{"limit": {"track": 1}}, status(1, full_text="the long one")]),
        ("twitter_v2", [tweet(1)]),
        ("twitter_v2", [{"id": "1", "text": "default fields", "edit_history_tweet_ids": ["1"]}]),
        ("twitter_v2", [tweet(1, entities={"hashtags": []}, by=None)]),
        ("twitter_v2", [page(tweet(1))]),
        ("twitter_v2", [page(user(1))]),
        ("twitter_v2", [{"id": "1", "text": "few fields", "author_id": "2", "created_at": "2021-05-10T17:30:00.000Z"}]),
        ("table", [{"id": "a1", "text": "of elsewhere", "author_id": "2", "created_at": "2021-05-10T17:30:00Z"}]),
        ("table", [{"id": "1", "text": "of elsewhere", "author_id": "2", "created_at": "10.05.2021"}]),
        ("twitter_archive", [{"tweet": own(1)}]),
        ("twitter_archive", [own(1)]),
        ("table", [{"id": "1", "text": "a plain table", "author": "x", "created_at": "2021-05-10T17:30:00Z"}]),
        ("table", [{"tweet": "a text", "user": "x", "created_at": "Wed Jan 01 00:00:48 +0000 2014", "id": 1}]),
        ("table", [{"id": 1, "text": "words", "user": "x", "retweet_count": 5, "date": "2021-05-10"}]),
    ],
)
def test_formats_are_told_apart_by_content(tmp_path, format_name, records):
    assert exports.detect(write(tmp_path / "a", *records)) == format_name


# Hostile records

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["1", "…", "RT @a: b…"]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "text", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)
SHAPES: dict[str, list[Record]] = {
    "twitter_v1": [
        status(
            1, retweeted_status=status(2), quoted_status=status(3), extended_tweet={"full_text": "x", "entities": {}}
        ),
        {"delete": {"status": {"id_str": "7"}}},
        {"limit": {"track": 1}},
    ],
    "twitter_v2": [
        page(
            retweet(11, 90),
            tweet(12, 3, referenced_tweets=referring("quoted", 90)),
            users=[user(1)],
            referred=[tweet(90)],
        ),
        tweet(
            1,
            author=user(1),
            note_tweet={"text": "x", "entities": {}},
            referenced_tweets=referring("quoted", 5, text="y"),
        ),
        {"users": [user(1)], "tweets": [tweet(90, 2, WHOLE)]},
        page(user(1)),
        {"errors": [{"title": "x"}], "meta": {}},
    ],
    "twitter_archive": [
        {"tweet": own(1, CUT)},
        own(2),
        {"like": {"tweetId": "90", "fullText": "liked"}},
        {"noteTweet": {"noteTweetId": "5", "createdAt": "2023-02-18T12:33:11Z", "core": {"text": LONG, "urls": []}}},
        {"account": {"accountId": "1", "username": "user1"}},
    ],
}


def mutated(draw: st.DrawFn, value: Any) -> Any:
    """The same with a few parts missing, of another type or doubled."""
    if draw(st.integers(0, 11)) == 0:
        return draw(JUNK)
    if isinstance(value, dict):
        return {key: mutated(draw, inner) for key, inner in value.items() if draw(st.integers(0, 9))}
    if isinstance(value, list):
        items = [mutated(draw, inner) for inner in value]
        return items + items if draw(st.integers(0, 5)) == 0 else items
    return value


@st.composite
def exports_of(draw: st.DrawFn) -> tuple[str, list[Any]]:
    name = draw(st.sampled_from(sorted(SHAPES)))
    records = draw(st.lists(st.sampled_from(SHAPES[name]), min_size=1, max_size=5))
    made = [mutated(draw, record) for record in records]
    return name, [5 if isinstance(record, list) else record for record in made]  # a list is a file of many records


def expected(name: str, record: Any) -> int:
    data = record.get("data") if name == "twitter_v2" and isinstance(record, dict) else None
    if isinstance(data, list) and record.get("text") is None and record.get("author_id") is None:
        return max(len(data), 1)
    return 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=exports_of())
def test_whatever_is_in_a_record_it_has_its_rows(tmp_path, made):
    name, records = made
    write(tmp_path / "tweets.js", *records)
    account = tmp_path / "account.js"
    write(account, {"account": {"accountId": "1", "username": "user1"}})
    files = [File.of(tmp_path / "tweets.js"), *([File.of(account)] if name == "twitter_archive" else [])]
    batches = formats.source(name).read(files, None)
    found = [row for batch in batches for row in batch.to_pylist() if row["file"] != str(account)]
    lines = [number for number, record in enumerate(records, 1) for _ in range(expected(name, record))]
    assert [row["line"] for row in found] == lines
    for row in found:
        assert not (row["reject"] and row["left_out"])
        assert (row["is_repost"] is None) == (row["reject"] is not None or row["left_out"] is not None)
        assert row["is_repost"] is not None or row["text"] is row["post_id"] is row["created_at"] is None
        assert all(person["id"] and person["handle"] for person in row["people"] or [])
