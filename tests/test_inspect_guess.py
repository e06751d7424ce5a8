"""Which column of a table `ntulm inspect` takes for what."""

import csv
import json

import pytest
from exports import files
from hypothesis import given, settings
from hypothesis import strategies as st

from ntulm.inspect import command
from ntulm.inspect.dates import FORMATS, time_format
from ntulm.inspect.guess import guess, likely_columns
from ntulm.inspect.inspection import inspect
from ntulm.inspect.names import plain_name
from ntulm.inspect.values import at, sampled


def table(path, header, *rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return path


def guessed(header, *rows):
    """The keys of the mapping that name a column, or say how to read it."""
    values = {column: [row[place] for row in rows if row[place]] for place, column in enumerate(header)}
    found = guess(header, values)
    assert found.mapping is not None, found
    return {key: value for key, value in found.mapping.model_dump().items() if value not in (None, [])}


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Created At", "createdat"), ("created_at", "createdat"), ("Created_at (UTC)", "createdatutc"),
        ("Tweet Text", "tweettext"), ("User-Name", "username"), ("account.acct", "account.acct"),
        ("\ufeffText ", "text"), ("Ｔｅｘｔ", "text"), ("Veröffentlicht am", "veröffentlichtam"),
    ],
)  # fmt: skip
def test_names_are_compared_without_case_and_signs(name, plain):
    assert plain_name(name.lstrip("\ufeff")) == plain


ISO = "2021-03-31T12:00:00Z"


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        (  # a course's table of snscrape results
            ["Datetime", "Tweet Id", "Tweet Text", "User Name"],
            [ISO, "1", "hi", "ann"],
            {"created_at": "Datetime", "post_id": "Tweet Id", "text": "Tweet Text", "author": "User Name"},
        ),
        (
            ["Created_at (UTC)", "Text", "Screen Name"],
            [ISO, "hi", "ann"],
            {"created_at": "Created_at (UTC)", "author": "Screen Name"},
        ),
        (  # TAGS
            ["id_str", "from_user", "text", "created_at", "time", "user_lang", "from_user_id_str", "entities_str"],
            ["1", "ann", "hi @bob", "Wed Mar 31 12:00:00 +0000 2021", "31/03/2021 13:00:00", "en", "77", "{}"],
            {
                "post_id": "id_str", "author": "from_user", "created_at": "created_at",
                "time_format": "%a %b %d %H:%M:%S %z %Y",
            },
        ),
        (  # twint
            ["id", "created_at", "user_id", "username", "name", "tweet", "language", "mentions", "hashtags", "retweet"],
            ["1", "2021-03-31 12:00:00 UTC", "7", "ann", "Ann B", "hi #x", "en", "[{'name': 'b'}]", "['x']", "False"],
            {"author": "username", "text": "tweet", "hashtags": "hashtags", "repost_flag": "retweet"},
        ),
        (  # rtweet
            ["user_id", "status_id", "created_at", "screen_name", "text", "is_retweet", "mentions_user_id",
             "mentions_screen_name", "retweet_status_id", "retweet_user_id", "retweet_screen_name"],
            ["x7", "x1", ISO, "ann", "hi @bob", "FALSE", "x8", "bob", "x2", "x9", "cem"],
            {"post_id": "status_id", "author": "screen_name", "mentions": "mentions_screen_name",
             "reposted_id": "retweet_status_id"},
        ),
        (  # twarc's CSV
            ["id", "created_at", "text", "author_id", "author.username", "lang", "entities.mentions",
             "referenced_tweets.retweeted.id", "retweeted_user_id"],
            ["1", ISO, "hi @bob", "77", "ann", "en", '[{"username": "bob"}]', "2", "78"],
            {"author": "author.username", "reposted_id": "referenced_tweets.retweeted.id"},
        ),
        (  # the releases of Twitter's Transparency Center: mentions are ids, so authors are
            ["tweetid", "userid", "user_screen_name", "tweet_language", "tweet_text", "tweet_time", "is_retweet",
             "retweet_userid", "retweet_tweetid", "hashtags", "user_mentions"],
            ["1", "77", "ann", "en", "hi @bob", "2021-03-31 12:00", "False", "78", "2", "[x]", "[78, 79]"],
            {"author": "userid", "mentions": "user_mentions", "reposted_author": "retweet_userid",
             "reposted_id": "retweet_tweetid", "created_at": "tweet_time"},
        ),
        (  # Brandwatch: tags are the analyst's
            ["Query Id", "Date", "Title", "Snippet", "Language", "Author", "Full Text", "Tags"],
            ["1", "2021-03-31 12:00:00.0", "t", "s", "en", "ann", "hi #x", "campaign"],
            {"created_at": "Date", "text": "Full Text", "author": "Author", "lang": "Language"},
        ),
        (  # Meltwater
            ["Date", "Headline", "Opening Text", "Hit Sentence", "Influencer", "Language", "Tweet Id"],
            ["31-Mar-2021 12:00PM", "", "", "hi there", "@ann", "English", "1"],
            {"text": "Hit Sentence", "author": "Influencer", "time_format": "%d-%b-%Y %I:%M%p", "post_id": "Tweet Id"},
        ),
        (  # Sprinklr
            ["SocialNetwork", "SenderUserId", "SenderScreenName", "Message", "CreatedTime", "Language"],
            ["TWITTER", "77", "ann", "hi @bob", "04/16/2021 12:33:12 PM", "en"],
            {"author": "SenderScreenName", "text": "Message", "created_at": "CreatedTime",
             "time_format": "%m/%d/%Y %I:%M:%S %p"},
        ),
        (  # Mastodon as a table
            ["id", "created_at", "content", "account_acct", "language"],
            ["1", ISO, "<p>hi</p>", "ann@a.example", "en"],
            {"author": "account_acct", "html": True, "mention_hosts": True},
        ),
        (  # Reddit: submissions of which few have a text
            ["author", "created_utc", "id", "subreddit", "title", "selftext"],
            ["ann", "1617192000", "a1", "pics", "a title", ""],
            {"created_at": "created_utc", "text": "title", "author": "author"},
        ),
        (["author", "created_utc", "id", "body"], ["ann", "1617192000", "a1", "hi"], {"text": "body"}),
        (
            ["Datum", "Autor", "Text", "Sprache"],
            ["31.03.2021 14:30", "ann", "hallo", "de"],
            {"created_at": "Datum", "author": "Autor", "text": "Text", "time_format": "%d.%m.%Y %H:%M"},
        ),
    ],
)  # fmt: skip
def test_usual_tables_are_guessed(header, row, expected):
    found = guessed(header, row)
    assert found | expected == found
    assert "{" not in str([row[header.index(column)] for column in found.values() if column in header])


@pytest.mark.parametrize(
    ("column", "seen", "unseen"),
    [
        ("visibility", ["public", "unlisted", "home"], ["private", "direct", "followers", "specified"]),
        ("user.protected", ["False", "", "0"], ["True", "1"]),
        ("author_protected", ["FALSE"], ["TRUE"]),
    ],
)
def test_posts_that_not_everybody_sees_are_left_out(tmp_path, column, seen, unseen):
    rows = [[ISO, f"text {place}", "ann", value] for place, value in enumerate([*seen, *unseen])]
    found = inspect(table(tmp_path / "a.csv", ["created_at", "text", "author", column], *rows))
    assert found.mapping is not None
    assert found.mapping.visibility == column
    assert (found.counts["posts"], found.counts["left_out"]) == (len(seen), len(unseen))


def test_a_visibility_that_is_something_else_is_not_taken():
    header = ["created_at", "text", "author", "visibility"]
    assert "visibility" not in guessed(header, [ISO, "fog", "ann", "5000"], [ISO, "sun", "ann", "9000"])


@pytest.mark.parametrize("cell", ["{'id': 1, 'screen_name': 'ann'}", "User(username='ann', id=1)"])
def test_objects_are_no_authors(tmp_path, cell):
    header = ["created_at", "text", "user", "username", "mentions", "hashtags"]
    row = [ISO, "hi", cell, "ann", f"[{cell}]", f"[{cell}]"]
    found = guessed(header, row)
    assert found["author"] == "username"
    assert not {"mentions", "hashtags"} & set(found)
    found = inspect(table(tmp_path / "a.csv", header[:3], row[:3]))
    assert found.missing == ("author",)
    assert "user: the cells are objects" in command.format_inspection(found)


def test_addresses_of_authors_are_said(tmp_path):
    header, row = ["created_at", "text", "author", "user_id"], [ISO, "hi @ann", "https://mastodon.example/@ann", "7"]
    assert guessed(header, row)["author"] == "user_id"
    found = inspect(table(tmp_path / "a.csv", header[:3], row[:3]))
    assert found.mapping is not None
    assert found.mapping.author == "author"
    assert "! author: authors are addresses (https://mastodon.example/@ann)" in command.format_inspection(found)


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        (  # twarc's CSV
            ["author.username", "referenced_tweets.replied_to.id", "referenced_tweets.quoted.id", "in_reply_to_user_id",
             "in_reply_to_username", "quoted_username"],
            ["ann", "2", "3", "78", "bob", "cem"],
            {"reply_to": "in_reply_to_username", "reply_to_post": "referenced_tweets.replied_to.id",
             "quoted": "quoted_username", "quoted_post": "referenced_tweets.quoted.id"},
        ),
        (  # twarc's json2csv
            ["user_screen_name", "tweet_type", "retweet_or_quote_id", "retweet_or_quote_screen_name"],
            ["ann", "retweet", "2", "bob"],
            {"repost_flag": "tweet_type", "reposted_id": "retweet_or_quote_id",
             "reposted_author": "retweet_or_quote_screen_name"},
        ),
        (["user_screen_name", "retweet_or_quote_id"], ["ann", "2"], {"reposted_id": None}),
        (  # academictwitteR's table
            ["user_username", "sourcetweet_type", "sourcetweet_id", "in_reply_to_user_id"],
            ["ann", "retweeted", "2", ""],
            {"repost_flag": "sourcetweet_type", "reposted_id": "sourcetweet_id", "reply_to": None},
        ),
        (  # version 1 made flat
            ["user.screen_name", "retweeted_status.id_str", "quoted_status_id_str", "place.full_name"],
            ["ann", "2", "", "Köln, Deutschland"],
            {"reposted_id": "retweeted_status.id_str", "quoted_post": "quoted_status_id_str",
             "places": "place.full_name"},
        ),
        (["user.username", "retweetedTweet.id"], ["ann", "2"], {"reposted_id": "retweetedTweet.id"}),  # twscrape
        (  # Brandwatch
            ["author", "Thread Entry Type", "Twitter Retweet of"],
            ["ann", "share", "https://twitter.example/bob/statuses/1"],
            {"repost_flag": "Thread Entry Type", "reposted_id": None},
        ),
        (["author", "Twitter Retweet of"], ["ann", "https://twitter.example/1"], {"reposted_id": "Twitter Retweet of"}),
        (["author", "uri", "reply_to"], ["did:plc:a", "at://a/1", "at://b/2"], {"reply_to_post": "reply_to"}),
        (["author", "reply_to"], ["ann", "[]"], {"reply_to_post": None, "reply_to": None}),  # twint
        (  # ids as authors, with their handles
            ["userid", "user_screen_name", "user_mentions"], ["77", "ann", "[78, 79]"],
            {"author": "userid", "author_handle": "user_screen_name"},
        ),
    ],
)  # fmt: skip
def test_what_a_post_refers_to(header, row, expected):
    ids = [] if "uri" in header else ["id"]
    found = guessed(["created_at", "text", *ids, *header], [ISO, "hi @bob", *(["1"] if ids else []), *row])
    assert {key: found.get(key) for key in expected} == expected


@pytest.mark.parametrize("word", ["retweet", "Retweeted", "repost", "share", "reblog", "true", "1"])
def test_words_for_reposts(tmp_path, word):
    rows = [[ISO, "hi", "ann", "original" if len(word) > 4 else "0"], [ISO, "RT @ann: hi", "bob", word]]
    found = inspect(table(tmp_path / "a.csv", ["created_at", "text", "author", "tweet_type"], *rows))
    assert (found.counts["posts"], found.counts["reposts"]) == (1, 1)


def test_whole_texts_rather_than_cut_ones(tmp_path):
    header = ["created_at", "author", "text", "full_text"]
    rows = [[ISO, "ann", "a long te… https://t.co/x", "a long text"], [ISO, "bob", "hi", "hi"]]
    assert guessed(header, *rows)["text"] == "full_text"
    rows[1][3] = ""
    found = inspect(table(tmp_path / "a.csv", header, *rows))
    assert found.mapping is not None
    assert found.mapping.text == "text"
    assert "! text: some texts are cut and stand whole in full_text" in command.format_inspection(found)


def test_reposts_that_no_column_tells_are_said(tmp_path):
    rows = [[ISO, f"text {number}", "ann", "0"] for number in range(9)] + [[ISO, "RT @ann: text 1", "bob", "1"]]
    header = ["created_at", "text", "author", "is_retweet"]
    said = "10% of the texts begin with `RT @`"
    assert said not in command.format_inspection(inspect(table(tmp_path / "a.csv", header, *rows)))
    path = table(tmp_path / "a.csv", header[:3], *(row[:3] for row in rows))
    assert said in command.format_inspection(inspect(path))


@pytest.mark.parametrize(
    ("post_id", "author"),
    [("at://did:plc:a/app.bsky.feed.post/1", "ann"), ("1", "did:plc:a"), ("1", "ann.example.com")],
)
def test_handles_of_atproto_have_hosts(post_id, author):
    assert guessed(["id", "created_at", "text", "author"], [post_id, ISO, "hi @bob.example.com", author])[
        "mention_hosts"
    ]


def test_what_stands_for_nothing_is_no_value(tmp_path):
    path = table(tmp_path / "a.csv", ["a"], ["NA"], ["x"], ["None"], ["nan"], ["NULL"])
    assert sampled(files(path), ["a"]) == {"a": ["x"]}


def test_what_would_split_a_user_in_two_is_not_taken():
    header = ["created_at", "text", "user_name", "retweet_userid", "retweet_screen_name", "user_id"]
    found = guessed(header, [ISO, "hi @bob", "ann", "78", "bob", "77"])
    assert (found["author"], found["reposted_author"]) == ("user_name", "retweet_screen_name")
    found = guessed(header[:4], [ISO, "hi @bob", "ann", "78"])
    assert "reposted_author" not in found
    assert "tags" not in str(guessed(["date", "text", "author", "tags"], [ISO, "hi #x", "ann", "campaign"]).values())
    assert guessed(["date", "text", "author", "tags"], [ISO, "hi #x", "ann", "x"])["hashtags"] == "tags"


def test_of_names_and_handles_those_that_are_mentioned_are_the_authors():
    header = ["date", "text", "author", "user_screen_name"]
    rows = [[ISO, "hi @bob_1", "Ann Bee", "ann"], [ISO, "hi @ann", "Bob Cee", "bob_1"]]
    values = {column: [row[place] for row in rows] for place, column in enumerate(header)}
    found = guess(header, values)
    assert found.mapping is not None
    assert found.mapping.author == "user_screen_name"
    assert found.notes == [
        "author: user_screen_name rather than author, because mentions are handles: a user has one key then"
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["2021-03-31", "2021-03-31 12:00", "1617192000", "1617192000000"], None),
        (["31.03.2021", "1.4.2021"], "%d.%m.%Y"),
        (["31.03.21", "01.04.21"], "%d.%m.%y"),
        (["31.03.2021, 14:30"], "%d.%m.%Y, %H:%M"),
        (["31.03.2021 14:30:59"], "%d.%m.%Y %H:%M:%S"),
        (["31/03/2021", "01/02/2021"], "%d/%m/%Y"),
        (["3/31/21 9:05", "1/2/21 9:05"], "%m/%d/%y %H:%M"),
        (["Mar 31, 2021"], "%b %d, %Y"),
        (["31 May 2021", "1 May 2021"], "%d %b %Y"),
        (["Wed, 31 Mar 2021 12:00:00 +0000"], "%a, %d %b %Y %H:%M:%S %z"),
        (["20210331", "20211231"], "%Y%m%d"),
        (["2021-03-31 20:50:37 +0000", "2021-03-31 20:50 +02:00", "2021-03-31 20:50:37 +0000 UTC"], None),
        (["2021-03-31 20:50:37 Z", "2021-07-31 20:50:37 CEST", "2021-07-31 20:50:37 EDT"], None),
        (["31/03/21 14:05", "01/04/21 10:00"], "%d/%m/%y %H:%M"),
        (["31-03-21", "01-04-21"], "%d-%m-%y"),
        (["Mon Apr 06 22:19:45 PDT 2009", "Mon Apr 06 22:19:49 PDT 2009"], "%a %b %d %H:%M:%S %z %Y"),
        (["2:05 PM · Mar 31, 2021"], "%I:%M %p · %b %d, %Y"),
        (["2021-03-31, 14:05"], "%Y-%m-%d, %H:%M"),
        (["1.617192E+12"], None),
    ],
)
def test_the_format_of_times_is_found(values, expected):
    found = time_format(values)
    assert found is not None
    assert (found.format, found.values, found.or_else) == (expected, len(values), None)


def test_days_beside_a_column_of_times_of_day_are_said(tmp_path):
    header = ["Date", "Time", "User", "Text"]
    found = inspect(table(tmp_path / "a.csv", header, ["2021-03-31", "14:05", "ann", "a"]))
    said = "! the column Date has no times of day, the column Time has"
    assert said in command.format_inspection(found)
    found = inspect(table(tmp_path / "a.csv", header, ["2021-03-31 14:05", "14:05", "ann", "a"]))
    assert said not in command.format_inspection(found)


def test_rounded_numbers_as_times_are_said():
    found = guess(["timestamp", "text", "user"], {"timestamp": ["1.6172E+12"], "text": ["hi"], "user": ["ann"]})
    assert found.mapping is not None
    assert found.mapping.time_format is None
    assert "1.6172E+12 are rounded" in found.warnings[0]


def test_values_are_read_with_the_delimiter_of_the_reader(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('"Datum";"Autor";"Text";"Ort (Stadt, Land, Kontinent, Planet)"\n31.03.2021 14:05;ann;hi;Bonn\n')
    assert sampled(files(path), ["Datum", "Autor"]) == {"Datum": ["31.03.2021 14:05"], "Autor": ["ann"]}
    path.write_bytes(b"Autor;Text\nann;caf\xe9\n")
    assert sampled(files(path), ["Autor"]) == {"Autor": ["ann"]}


def test_day_and_month_that_may_be_exchanged_are_said():
    found = time_format(["03/04/2021", "05/06/2021"])
    assert found is not None
    assert (found.format, found.or_else) == ("%m/%d/%Y", "%d/%m/%Y")
    header = ["Date", "Text", "Author"]
    notes = guess(header, {"Date": ["03/04/2021"], "Text": ["hi"], "Author": ["ann"]}).notes
    assert "%d/%m/%Y would do as well (tried on 1 values)" in notes[0]


def test_a_column_of_times_that_can_be_read_is_preferred():
    header = ["created_at", "date", "text", "author"]
    values = {"created_at": ["yesterday"], "date": [ISO], "text": ["hi"], "author": ["ann"]}
    assert guess(header, values).mapping.created_at == "date"  # type: ignore[union-attr]
    del values["date"]
    found = guess(header, values)
    assert found.mapping is not None
    assert "'yesterday' are neither ISO 8601 nor Unix time" in found.notes[0]
    assert time_format([]) is None
    assert time_format(["yesterday"]) is None


def test_formats_are_different():
    assert len(set(FORMATS)) == len(FORMATS)


def test_a_german_table_is_read_at_the_first_go(tmp_path):
    rows = [[f"{day}.03.2021 14:30", f"autor{day}", f"Hallo {day} #tag"] for day in range(1, 31)]
    found = inspect(table(tmp_path / "a.csv", ["Datum", "Autor", "Text"], *rows))
    assert (found.counts["posts"], found.counts["rejects"], found.first) == (30, 0, "2021-03-01T14:30:00+00:00")


def test_values_of_every_kind_of_table(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"a": "x", "b": ["c", "d"]}, {"a": None, "b": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.csv").write_text("a,b\nx,c d\n,\n")
    for name in ("a.parquet", "a.jsonl", "a.csv"):
        assert sampled(files(tmp_path / name), ["a", "b", "none"]) == {"a": ["x"], "b": ["c d"], "none": []}


def test_paths_lead_through_objects_and_lists():
    record = {"a": {"b": [{"c": 1}, {"c": 2}, {"d": 3}]}, "x.y": "whole"}
    assert [at(record, path) for path in ("a.b.c", "x.y", "a.b.z", "q")] == ["1 2", "whole", "", ""]


NAMES = ["created_at", "text", "author", "user_id", "mentions", "tags", "hashtags", "retweet", "retweet_userid", "lang"]


@settings(max_examples=25, deadline=None)  # formats are tried in a second
@given(values=st.dictionaries(st.sampled_from(NAMES), st.lists(st.text(min_size=1), max_size=4)))
def test_no_values_break_a_guess(values):
    assert set(likely_columns(NAMES)) == set(NAMES)
    found = guess(NAMES, values)
    assert (found.mapping is None) == bool(found.missing)
