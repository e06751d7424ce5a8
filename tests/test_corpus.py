"""Stage corpus: each record has one fate, originals are found again, nothing of the test time leaks before it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ntulm.corpus import people
from ntulm.corpus import stage as corpus
from ntulm.corpus.config import Corpus
from ntulm.corpus.records import FATES, add_records, reasons, resolve, workspace
from ntulm.corpus.sources import formats as sources
from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.text import Reading, unescaped

LAYOUT = Layout()  # of the working directory
START = datetime(2015, 1, 1, tzinfo=UTC)


def config(path: Path | str = "raw", **changes: Any) -> Corpus:
    splits = {
        "by": "time", "seed": 0, "graph_from": 0.0, "graph_until": 0.5,
        "train_from": 0.0, "validation_from": 0.5, "test_from": 0.75,
    }  # fmt: skip
    values: dict[str, Any] = {
        "path": str(path), "format": "auto", "table": None, "labels": [], "languages": [], "duplicates": "text",
        "max_reject_share": 0.5, "pseudonyms": False, "forget": "forget.txt",
        "splits": splits | changes.pop("splits", {}),
    }  # fmt: skip
    return Corpus.model_validate({**values, **changes})


def table(**changes: Any) -> dict[str, Any]:
    fields = ("post_id", "time_format", "lang", "repost_flag", "reposted_id", "reposted_author", "favorited_by")
    empty = dict.fromkeys([*fields, "hashtags", "mentions"])
    return {
        **empty,
        "created_at": "time",
        "text": "text",
        "author": "author",
        "html": False,
        "casefold_users": True,
        "mention_hosts": False,
    } | changes


def tweet(
    number: int, text: str | None = None, user: int = 7, minute: int | None = None, **changes: Any
) -> dict[str, Any]:
    moment = START + timedelta(minutes=number if minute is None else minute)
    return {
        "id_str": str(number),
        "created_at": f"{moment:%a %b %d %H:%M:%S +0000 %Y}",
        "text": f"text {number}" if text is None else text,
        "lang": "en",
        "user": {"id_str": str(user)},
        **changes,
    }


@pytest.fixture(autouse=True)
def _project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(*records: Any, name: str = "raw") -> None:
    lines = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    Path(name).write_bytes(b"".join(line + b"\n" for line in lines))


def built(*records: Any, **changes: Any) -> dict[str, list[dict[str, Any]]]:
    """The tables that the stage writes of these tweets, with enough others before and after for every split."""
    write(*records)
    corpus.run(config(**changes), LAYOUT)
    return {name: pq.read_table(LAYOUT.corpus / f"{name}.parquet").to_pylist() for name in corpus.TABLES}


def metrics() -> dict[str, Any]:
    return json.loads(LAYOUT.metrics("corpus").read_text())


def others(first: int = 1000, count: int = 8, **changes: Any) -> list[dict[str, Any]]:
    return [tweet(number, f"other {number}", user=number, **changes) for number in range(first, first + count)]


# content


def test_posts_are_normal_and_in_order_of_time():
    entities = {
        "hashtags": [{"text": "Straße"}, {"text": "STRASSE"}, {"text": "Ｂ"}],
        "user_mentions": [{"id_str": "5"}],
    }
    tables = built(tweet(5, "a &amp; b &lt;3 http://x?a=1&copy=2", entities=entities), tweet(2, "#One #two"), *others())
    posts = tables["posts"]
    assert [post["created_at"] for post in posts] == sorted(post["created_at"] for post in posts)
    by_id = {post["post_id"]: post for post in posts}
    assert by_id["5"]["text"] == "a & b <3 http://x?a=1&copy=2"
    assert (by_id["5"]["hashtags"], by_id["5"]["mentions"]) == (["strasse", "b"], ["5"])
    assert by_id["2"]["hashtags"] == ["one", "two"]  # no entities: from the text
    schema = pq.read_schema(LAYOUT.posts)
    assert schema.field("created_at").type == pa.timestamp("us", tz="UTC")
    assert schema.field("hashtags").type == pa.list_(pa.string())


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [(True, ["bob@b.example", "eve.bsky.social", "al"]), (False, ["bob", "eve", "al"])],
)
def test_handles_with_hosts_in_texts(hosts, expected):
    rows = ["Ann,hi @bob@b.example. @eve.bsky.social! @al. me@mail.org,2015-01-01 00:00:00"]
    rows += [f"u{n},text {n},2015-01-01 01:0{n}:00" for n in range(8)]
    Path("raw").write_text("\n".join(["author,text,time", *rows]) + "\n")
    corpus.run(config(table=table(mention_hosts=hosts)), LAYOUT)
    assert pq.read_table(LAYOUT.posts).to_pylist()[0]["mentions"] == expected


def test_a_table_without_ids_takes_everything_from_the_text():
    rows = [f"Ann,Hi @Bob and @bob #Tag see https://x.org/#no. me@mail.org,2015-01-01 00:0{n}:00" for n in range(1)]
    rows += [f"u{n},text {n},2015-01-01 01:0{n}:00" for n in range(8)]
    Path("raw").write_text("\n".join(["author,text,time", *rows]) + "\n")
    corpus.run(config(table=table()), LAYOUT)
    first = pq.read_table(LAYOUT.posts).to_pylist()[0]
    assert (first["author"], first["mentions"], first["hashtags"]) == ("ann", ["bob"], ["tag"])
    assert first["urls"] == ["https://x.org/#no"]
    assert len(first["post_id"]) == 21


@pytest.mark.parametrize(
    ("source", "expected"),
    [("tweets", (False, False, False, False)), ("table", (True, True, False, True))],
)
def test_how_new_posts_are_to_be_read_is_kept(source, expected):
    if source == "tweets":
        built(*others())
    else:
        rows = "".join(f"u{n},text {n},2015-01-01 01:0{n}:00\n" for n in range(8))
        Path("raw").write_text("author,text,time\n" + rows)
        corpus.run(config(table=table(mention_hosts=True)), LAYOUT)
    assert Reading(**json.loads(LAYOUT.reading.read_text())) == Reading(*expected)


def test_a_hashtag_behind_a_link_and_a_mention_behind_a_full_stop():
    rows = ["ann,.@CNN see http://a.b\u3000#タグ RT @eve.bsky.social: hi,2015-01-01 00:00:00"]
    rows += [f"u{n},text {n},2015-01-01 01:0{n}:00" for n in range(8)]
    Path("raw").write_text("\n".join(["author,text,time", *rows]) + "\n")
    corpus.run(config(table=table()), LAYOUT)
    first = pq.read_table(LAYOUT.posts).to_pylist()[0]
    assert (first["hashtags"], first["urls"], first["mentions"]) == (["タグ"], ["http://a.b"], ["cnn", "eve"])


def test_languages_are_filtered_and_counted():
    built(tweet(1, lang="de"), tweet(2, lang=None), *others(), languages=["en"])
    assert (metrics()["filtered"], metrics()["posts"]) == (2, 8)


# reposts


def test_a_retweet_is_an_engagement_and_its_original_a_post():
    original = tweet(1, "the whole text #tag", user=3)
    tables = built(tweet(2, "RT @x: the wh…", user=4, retweeted_status=original), *others())
    assert tables["engagements"] == [
        {"user": "4", "post_id": "1", "kind": "reposted", "created_at": START + timedelta(minutes=2)}
    ]
    post = next(post for post in tables["posts"] if post["post_id"] == "1")
    assert (post["text"], post["author"], post["hashtags"]) == ("the whole text #tag", "3", ["tag"])
    assert (metrics()["reposts"], metrics()["recovered"], metrics()["posts"]) == (1, 1, 8)


def test_an_original_in_the_export_is_not_recovered():
    original = tweet(1, "as embedded", user=3)
    tables = built(tweet(2, user=4, retweeted_status=original), tweet(1, "as exported", user=3), *others())
    assert metrics()["recovered"] == 0
    assert [post["text"] for post in tables["posts"] if post["post_id"] == "1"] == ["as exported"]


def test_reposts_known_by_text_find_the_earliest_post_or_make_one():
    rows = [
        "ann,Hello  World http://a.b,2015-01-01 00:10:00,0",
        "bob,hello world http://c.d,2015-01-01 00:20:00,1",
        "cat,HELLO WORLD,2015-01-01 00:05:00,1",  # earlier than the post: the post is still its original
        "dan,unknown #x,2015-01-01 00:30:00,1",
        "eve,RT @z: Unknown #x,2015-01-01 00:25:00,1",
        *(f"u{n},text {n},2015-01-02 01:0{n}:00,0" for n in range(8)),
    ]
    Path("raw").write_text("\n".join(["author,text,time,flag", *rows]) + "\n")
    corpus.run(config(table=table(repost_flag="flag")), LAYOUT)
    posts = {post["post_id"]: post for post in pq.read_table(LAYOUT.posts).to_pylist()}
    by_user = {row["user"]: row["post_id"] for row in pq.read_table(LAYOUT.engagements).to_pylist()}
    assert posts[by_user["bob"]]["author"] == posts[by_user["cat"]]["author"] == "ann"
    assert by_user["dan"] == by_user["eve"]
    recovered = posts[by_user["dan"]]
    assert (recovered["author"], recovered["text"]) == (None, "Unknown #x")
    assert recovered["created_at"] == START + timedelta(minutes=25)
    split = {row["post_id"]: row for row in pq.read_table(LAYOUT.splits).to_pylist()}[recovered["post_id"]]
    assert (split["split"], split["graph"]) == (None, True)
    assert (metrics()["posts"], metrics()["reposts"], metrics()["recovered"]) == (9, 4, 1)


def test_favorites_and_labels_of_a_table():
    rows = [
        {"id": "a", "author": "x", "text": "one", "time": "2015-01-01", "fans": ["@P", "q", "p"], "topic": "t1"},
        {"id": "a", "author": "x", "text": "one", "time": "2015-01-01", "fans": ["r"], "topic": "t2"},  # the same post
        {"id": "b", "author": "y", "text": "ONE", "time": "2015-01-02", "fans": ["s"], "topic": "t3"},  # the same text
        *({"id": f"c{n}", "author": "z", "text": f"text {n}", "time": f"2015-01-1{n}"} for n in range(8)),
    ]
    mapped = table(post_id="id", favorited_by="fans")
    tables = built(*rows, table=mapped, format="table", labels=["topic"])
    assert [(row["user"], row["post_id"]) for row in tables["engagements"]] == [
        ("p", "a"),
        ("q", "a"),
        ("r", "a"),
        ("s", "a"),
    ]
    assert {row["kind"] for row in tables["engagements"]} == {"favorited"}
    assert [(row["post_id"], row["value"]) for row in tables["labels"]] == [("a", "t1"), ("a", "t2")]
    assert metrics()["duplicates"] == 2


# duplicates


def test_of_the_same_text_the_earliest_survives_and_takes_the_engagements():
    copy = tweet(5, "Buy  NOW http://x.y/1", user=2)
    tables = built(
        copy, tweet(3, "buy now http://x.y/2", user=3), tweet(6, "by hand", user=9, retweeted_status=copy), *others()
    )
    assert tables["posts"][0]["post_id"] == "3"
    assert "5" not in {post["post_id"] for post in tables["posts"]}
    assert tables["engagements"][0]["post_id"] == "3"
    assert metrics()["duplicates"] == 1


def test_links_alone_are_never_the_same_text():
    built(tweet(1, "http://a.b"), tweet(2, "http://c.d"), *others())
    assert metrics()["duplicates"] == 0


def test_duplicates_by_id_only():
    built(tweet(1, "same"), tweet(2, "same"), tweet(2, "another"), *others(), duplicates="id")
    assert (metrics()["posts"], metrics()["duplicates"]) == (10, 1)


def test_a_repost_that_is_exported_twice_is_one_repost():
    repost = tweet(2, retweeted_status=tweet(1))
    tables = built(repost, repost, *others())
    assert (metrics()["reposts"], metrics()["duplicates"], len(tables["engagements"])) == (1, 1, 1)


# rejects


def test_rejects_hold_file_line_and_reason_alone():
    tables = built(
        {**tweet(1), "user": None},
        {**tweet(2), "user": {}},
        tweet(3, " \u00a0\n"),
        {**tweet(4), "text": None},
        {**tweet(5), "created_at": None},
        tweet(6, created_at="Thu Jan 01 00:00:00 +0000 1970"),
        tweet(7, "a\0b"),
        b"{",
        *others(count=12),
    )
    assert [(row["line"], row["reason"]) for row in tables["rejects"][1:]] == [
        (2, "no author"), (3, "no text"), (4, "no text"), (5, "no date"), (6, "impossible date"), (7, "NUL byte"),
        (8, "invalid JSON"),
    ]  # fmt: skip
    assert set(tables["rejects"][0]) == {"file", "line", "reason"}
    assert tables["rejects"][0]["file"] == "raw"


def test_too_many_rejects_stop_the_stage_and_leave_nothing():
    write(*others(), b"{", {**tweet(1), "user": None}, {**tweet(2), "user": None})
    with pytest.raises(UserError, match=r"raw:10: no author \(the first of 2 .*3 of 11 records.*allows 20.00%"):
        corpus.run(config(max_reject_share=0.2), LAYOUT)
    assert not LAYOUT.corpus.exists()
    assert not LAYOUT.metrics("corpus").exists()
    assert not [path for path in Path("data").iterdir() if path.is_dir()]


def test_no_usable_post_is_an_error():
    write(tweet(1, lang="de"), tweet(2, lang="de"))
    with pytest.raises(UserError, match=r"no usable post in 2 records .*filtered 2.*corpus.languages keeps en"):
        corpus.run(config(languages=["en"]), LAYOUT)


def test_a_table_without_a_language_cannot_be_filtered():
    with pytest.raises(UserError, match=r"corpus.languages: the table has no language"):
        corpus.run(config(table=table(), languages=["en"]), LAYOUT)


# splits


def splits_of(**changes: Any) -> list[tuple[str, str | None, bool]]:
    write(*(tweet(number, user=number % 20) for number in range(100)))
    corpus.run(config(splits=changes), LAYOUT)
    return [(row["post_id"], row["split"], row["graph"]) for row in pq.read_table(LAYOUT.splits).to_pylist()]


def test_cuts_by_share_of_the_posts():
    rows = splits_of(graph_from=0.1, graph_until=0.4, train_from=0.2, validation_from=0.5, test_from=0.9)
    assert [row[0] for row in rows] == [str(number) for number in range(100)]
    assert [row[1] for row in rows] == [None] * 20 + ["train"] * 30 + ["validation"] * 40 + ["test"] * 10
    assert [row[2] for row in rows] == [False] * 10 + [True] * 30 + [False] * 60


def test_cuts_by_date():
    cuts = {"graph_until": "2015-01-01T00:30:00Z", "validation_from": "2015-01-01T00:30:00Z"}
    rows = splits_of(**cuts, test_from="2015-01-01T01:00:00Z")
    assert [row[1] for row in rows] == ["train"] * 30 + ["validation"] * 30 + ["test"] * 40
    assert sum(row[2] for row in rows) == 30


def test_posts_of_one_moment_are_on_one_side_of_a_cut():
    write(*(tweet(number, minute=number // 10) for number in range(100)))
    corpus.run(config(splits={"validation_from": 0.55, "graph_until": 0.55}), LAYOUT)
    sides: dict[datetime, set[str]] = {}
    posts, splits = pq.read_table(LAYOUT.posts).to_pylist(), pq.read_table(LAYOUT.splits).to_pylist()
    for post, row in zip(posts, splits, strict=True):
        sides.setdefault(post["created_at"], set()).add(row["split"])
    assert all(len(side) == 1 for side in sides.values())


@pytest.mark.parametrize("by", ["author", "random"])
def test_drawn_splits_keep_the_graph_within_train(by):
    rows = splits_of(by=by, graph_until=1.0, validation_from=0.4, test_from=0.7)
    assert {row[1] for row in rows} == {"train", "validation", "test"}
    assert all(split == "train" for _, split, graph in rows if graph)
    assert any(graph for _, _, graph in rows)
    if by == "author":
        parts: dict[int, set[str | None]] = {}
        for post_id, split, _ in rows:
            parts.setdefault(int(post_id) % 20, set()).add(split)
        assert all(len(part) == 1 for part in parts.values())
    assert rows == splits_of(by=by, graph_until=1.0, validation_from=0.4, test_from=0.7)
    assert rows != splits_of(by=by, graph_until=1.0, validation_from=0.4, test_from=0.7, seed=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"graph_until": 0.6}, r"corpus.splits.graph_until: 0.6 is not before corpus.splits.validation_from"),
        ({"train_from": 0.5}, r"corpus.splits.train_from: 0.5 is not before"),
        ({"test_from": 0.5}, r"corpus.splits.validation_from: 0.5 is not before corpus.splits.test_from"),
        ({"graph_until": "2015-01-01T01:30:00Z"}, r"corpus.splits.graph_until: .* after validation_from"),
        (
            {"graph_from": "2014-01-01", "graph_until": "2015-01-01"},
            r"graph_until: '2015-01-01' leaves no post for graph",
        ),
        ({"test_from": 1.0}, r"corpus.splits.test_from: 1.0 leaves no post for test; the posts are of 2015-01-01"),
        ({"test_from": "2016-01-01"}, r"corpus.splits.test_from: '2016-01-01' leaves no post for test"),
        ({"by": "author", "test_from": "2016-01-01"}, r"corpus.splits.test_from: '2016-01-01' is a date"),
    ],
)
def test_cuts_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message):
        splits_of(**changes)


# the same input gives the same bytes


def test_the_same_input_gives_the_same_bytes():
    originals = [tweet(number, f"#t{number % 7} text {number % 150}", user=number % 13) for number in range(300)]
    reposts = [tweet(1000 + number, retweeted_status=originals[number]) for number in range(0, 300, 3)]
    files = []
    for _ in range(2):
        built(*originals, *reposts, b"{")
        files.append([(LAYOUT.corpus / f"{name}.parquet").read_bytes() for name in corpus.TABLES])
    assert files[0] == files[1]
    expected = sorted(["reading.json", *(f"{name}.parquet" for name in corpus.TABLES)])
    assert sorted(path.name for path in LAYOUT.corpus.iterdir()) == expected


# hostile input

ids = st.none() | st.sampled_from(["1", "2", "3", "4", ""])
texts = st.none() | st.sampled_from(["same", "Same http://x", "", " ", "#a #B", "'; DROP TABLE post; --"]) | st.text()
moments = st.none() | st.datetimes(datetime(1980, 1, 1), datetime(2020, 1, 1), timezones=st.just(UTC))
users = st.none() | st.sampled_from(["a", "b", "@A", " ", "c\0", ""])
names = st.none() | st.lists(st.none() | st.text(max_size=3), max_size=3)
content = st.fixed_dictionaries(
    {
        "post_id": ids, "created_at": moments, "lang": st.sampled_from([None, "en", "de"]), "text": texts,
        "author": users,
        "mentions": names, "hashtags": names, "urls": names, "places": names, "cashtags": names,
        "community": texts, "reply_to": users, "quoted": users,
    }
)  # fmt: skip
asides = st.fixed_dictionaries(
    {
        "left_out": st.sampled_from([None, None, None, "account event", "x\0"]),
        "visibility": st.sampled_from([None, None, "public", "direct", "\x1b"]),
        "is_favorite": st.sampled_from([None, False, False, True]),
        "reply_to_post": ids, "quoted_post": ids, "edited_at": moments, "local_id": ids,
        "people": st.none() | st.lists(st.none() | st.fixed_dictionaries({"id": users, "handle": users}), max_size=2),
        "deleted_post": st.none() | st.none() | ids,
        "deleted_author": st.none() | st.none() | users,
        "restored_author": st.none() | st.none() | users,
    }
)  # fmt: skip
records = st.lists(
    st.tuples(
        content, st.booleans(), st.none() | content, names, st.sampled_from([None, None, None, "invalid JSON"]), asides
    ),
    max_size=12,
)


def raw_batch(drawn: list[Any]) -> pa.RecordBatch:
    rows = []
    for line, (own, is_repost, original, fans, reject, more) in enumerate(drawn):
        row = {"file": "f", "line": line, "reject": reject}
        if reject is None:
            embedded = original if is_repost or more["is_favorite"] else None
            row |= {**own, **more, "is_repost": is_repost, "reposted": embedded, "favorited_by": fans}
            row |= {"labels": [{"field": "f", "value": fan} for fan in fans or []]}
        rows.append(row)
    return pa.RecordBatch.from_pylist(rows, sources.RAW_SCHEMA)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=records, duplicates=st.sampled_from(["id", "text"]), languages=st.sampled_from([[], ["en"]]))
def test_every_record_has_one_fate(tmp_path, drawn, duplicates, languages):
    with workspace(tmp_path / "spill", Reading(True, False, False, True)) as connection:
        add_records(connection, [raw_batch(drawn)], languages)
        counts = resolve(connection, duplicates)
        people.join(connection)
        why = [times for _, times, _, _ in reasons(connection, "left_out")]
        posts = connection.execute("SELECT post_id, text, author, hashtags FROM post").fetchall()
        engaged = {name for (name,) in connection.execute("SELECT post_id FROM engagement").fetchall()}
    assert FATES == ("posts", "reposts", "duplicates", "filtered", "left_out", "rejects")
    assert counts["read"] == len(drawn) == sum(counts[fate] for fate in FATES)
    assert counts["left_out"] == sum(why)
    assert len(posts) == counts["posts"] + counts["recovered"]
    assert len({post_id for post_id, *_ in posts}) == len(posts)
    assert engaged <= {post_id for post_id, *_ in posts}
    assert all(text.strip() and "\0" not in text for _, text, _, _ in posts)
    for *_, tags in posts:
        assert tags == list(dict.fromkeys(tags))
        assert all(tag and tag[0] != "#" for tag in tags)


@settings(max_examples=60, deadline=None)
@given(text=st.text())
def test_html_entities_are_resolved_once(text):
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert unescaped(escaped) == text
