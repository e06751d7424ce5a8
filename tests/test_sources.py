"""Readers: one schema whatever the format, and every fault told by file and line."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import exports
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from ntulm.corpus.config import TableMapping
from ntulm.corpus.sources import content, lines
from ntulm.corpus.sources import formats as sources
from ntulm.corpus.sources.export import File
from ntulm.errors import UserError


def mapping(**changes: Any) -> TableMapping:
    fields: dict[str, Any] = dict.fromkeys(TableMapping.model_fields)
    fields |= {"created_at": "time", "text": "text", "author": "author", "casefold_users": True}
    fields |= {"html": False, "mention_hosts": False, "labels": []}
    return TableMapping.model_validate({**fields, **changes})


def tweet(number: int, text: str = "hello", user: int = 7, **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "id_str": str(number),
        "created_at": "Wed Jan 01 00:00:48 +0000 2014",
        "text": text,
        "lang": "en",
        "user": {"id": user, "id_str": str(user), "screen_name": "someone"},
        "entities": {"hashtags": [], "urls": [], "user_mentions": []},
        **changes,
    }


def rows(path: Path, name: str, table: TableMapping | None = None) -> list[dict[str, Any]]:
    batches = exports.batches(path, name, table)
    assert all(batch.schema == sources.RAW_SCHEMA for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def json_lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


# files


def test_compression_is_told_by_content_and_several_members_are_read(tmp_path):
    data = json_lines(tweet(1), tweet(2))
    for name, packed in {
        "plain.gz": data,
        "gz": gzip.compress(data[:50]) + gzip.compress(data[50:]),
        "padded": gzip.compress(data) + b"\0" * 512,
        "zst": zstandard.compress(data[:50]) + zstandard.compress(data[50:]),
    }.items():
        (tmp_path / name).write_bytes(packed)
        assert exports.detect(tmp_path / name) == "twitter_v1"
        assert [row["post_id"] for row in rows(tmp_path / name, "twitter_v1")] == ["1", "2"]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_truncated_file_is_an_error_with_its_line(tmp_path, pack):
    data = json_lines(*(tweet(number, text=str(number * 7919)) for number in range(5000)))
    file = tmp_path / "cut"
    file.write_bytes(pack(data)[:-20])
    with pytest.raises(UserError, match=r"cut:\d+: compressed file damaged or cut off"):
        rows(file, "twitter_v1")


def test_a_damaged_gzip_is_an_error(tmp_path):
    packed = bytearray(gzip.compress(json_lines(tweet(1))))
    packed[-8] ^= 0xFF  # the checksum
    (tmp_path / "a").write_bytes(packed)
    with pytest.raises(UserError, match="damaged"):
        rows(tmp_path / "a", "twitter_v1")


def test_missing_empty_and_foreign_files(tmp_path):
    with pytest.raises(UserError, match="not found"):
        exports.detect(tmp_path / "none")
    with pytest.raises(UserError, match="no files"):
        exports.detect(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(UserError, match="empty file"):
        exports.detect(tmp_path / "empty")
    (tmp_path / "empty").write_bytes(gzip.compress(b""))
    with pytest.raises(UserError, match="empty file"):
        exports.detect(tmp_path)
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    with pytest.raises(UserError, match="format not recognised"):
        exports.detect(tmp_path / "picture")


def test_a_line_without_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 10)
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(content, "READ_BYTES", 10)
    (tmp_path / "a").write_bytes(b"{}\n" + b"x" * 1000)
    with pytest.raises(UserError, match=r"a:2: line of more than"):
        list(lines.line_tables(File.of(tmp_path / "a")))


def test_lines_are_numbered_through_blocks_and_blank_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 16)
    monkeypatch.setattr(content, "READ_BYTES", 5)
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\n\n\r\ntwo\nthree \xff\nfour\0\n five\n\n\nsix")
    found = [row for table in lines.line_tables(File.of(tmp_path / "a")) for row in table.to_pylist()]
    assert [(row["line"], (row["content"] or "").strip() or row["reject"]) for row in found] == [
        (1, "one"), (4, "two"), (5, "not UTF-8"), (6, "NUL byte"), (7, "five"), (10, "six"),
    ]  # fmt: skip


def test_small_files_share_a_table_and_large_ones_have_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 120)
    monkeypatch.setattr(content, "READ_BYTES", 40)
    for name, count in (("a", 1), ("b", 2), ("c", 60), ("d", 1)):
        (tmp_path / name).write_bytes(b"".join(b"%s%d\n" % (name.encode(), i) for i in range(1, count + 1)))
    tables = [table.to_pylist() for table in lines.record_lines(exports.files(tmp_path))]
    found = [(Path(row["file"]).name, row["line"], row["content"].strip()) for table in tables for row in table]
    assert found == [(n, i, f"{n}{i}") for n, k in (("a", 1), ("b", 2), ("c", 60), ("d", 1)) for i in range(1, k + 1)]
    assert 1 < len(tables) < 60


def test_work_side_by_side_comes_back_in_its_order_and_an_error_ends_it():
    done: list[tuple[int, int]] = []

    def work(cursor, number):
        if number == 7:
            raise ValueError("seven")
        values = {"n": number, "top": 9000 // number}
        return number, cursor.execute("SELECT sum(i * $n) FROM range($top) t(i)", values).fetchone()[0]

    with duckdb.connect() as connection:
        threads = connection.execute("SELECT current_setting('threads')").fetchone()
        with pytest.raises(ValueError, match="seven"):
            done.extend(lines.side_by_side(connection, work, range(1, 100)))
        results = list(lines.side_by_side(connection, work, range(8, 60)))
        assert connection.execute("SELECT current_setting('threads')").fetchone() == threads
    assert done == [(n, n * sum(range(9000 // n))) for n in range(1, len(done) + 1)]
    assert len(done) < 7
    assert results == [(n, n * sum(range(9000 // n))) for n in range(8, 60)]


def test_files_of_a_folder_are_read_in_order_and_hidden_ones_left_out(tmp_path):
    (tmp_path / "b.jsonl").write_bytes(json_lines(tweet(2)))
    (tmp_path / "a.jsonl").write_bytes(json_lines(tweet(1)))
    (tmp_path / ".hidden").write_bytes(b"rubbish")
    assert [(Path(row["file"]).name, row["post_id"]) for row in rows(tmp_path, "twitter_v1")] == [
        ("a.jsonl", "1"),
        ("b.jsonl", "2"),
    ]


def test_the_wrong_encoding_of_the_first_line_hides_neither_the_format_nor_the_columns(tmp_path):
    latin = json_lines(tweet(1, "caf.")).replace(b"caf.", b"caf\xe9")
    (tmp_path / "tweets").write_bytes(latin)
    assert exports.detect(tmp_path / "tweets") == "twitter_v1"
    (tmp_path / "table").write_bytes(b'{"time": "2014-01-01", "text": "caf\xe9", "author": "a"}\n')
    with pytest.raises(UserError, match="it has time, text, author"):
        rows(tmp_path / "table", "table")


# twitter_v1


def test_a_tweet(tmp_path):
    entities = {
        "hashtags": [{"text": "One"}, {"text": "two"}],
        "urls": [{"url": "http://t.co/x", "expanded_url": "http://example.org/"}],
        "user_mentions": [{"id_str": "9", "id": 9}],
    }
    place = {"id": "p1", "full_name": "Here"}
    (tmp_path / "a").write_bytes(json_lines(tweet(1, "short", entities=entities, place=place)))
    (row,) = rows(tmp_path / "a", "twitter_v1")
    assert row["reject"] is None
    assert row["created_at"] == datetime(2014, 1, 1, 0, 0, 48, tzinfo=UTC)
    assert (row["author"], row["mentions"], row["hashtags"]) == ("7", ["9"], ["One", "two"])
    assert (row["urls"], row["places"], row["is_repost"]) == (["http://example.org/"], ["p1"], False)


def test_the_long_text_and_its_entities_are_preferred(tmp_path):
    long = {"full_text": "the whole text #tag", "entities": {"hashtags": [{"text": "tag"}]}}
    (tmp_path / "a").write_bytes(
        json_lines(tweet(1, "the wh…", extended_tweet=long), {**tweet(2, "cut"), "full_text": "not cut"})
    )
    first, second = rows(tmp_path / "a", "twitter_v1")
    assert (first["text"], first["hashtags"]) == ("the whole text #tag", ["tag"])
    assert second["text"] == "not cut"


def test_a_retweet_embeds_its_original_and_a_hand_typed_one_is_a_post(tmp_path):
    original = tweet(1, "the whole", user=3)
    (tmp_path / "a").write_bytes(
        json_lines(tweet(2, "RT @x: the wh…", retweeted_status=original), tweet(3, "RT @x: by hand"))
    )
    first, second = rows(tmp_path / "a", "twitter_v1")
    assert first["is_repost"]
    assert (first["reposted"]["post_id"], first["reposted"]["text"], first["reposted"]["author"]) == (
        "1",
        "the whole",
        "3",
    )
    assert not second["is_repost"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"id": 1, ', "invalid JSON"),
        (b"plain words", "invalid JSON"),
        (b'{"id": 1, "text": "\\ud800"}', "invalid JSON"),  # half a surrogate pair is no text
        (b"\xff\xfe", "not UTF-8"),
        (b'{"id": 1, "text": "caf\xe9"}', "not UTF-8"),
        (b'{"id": 1}\0', "NUL byte"),
        (b"null", "not a post object"),
        (b"[1, 2]", "not a post object"),
        (b"17", "not a post object"),
        (b'{"delete": {"status": {"id": 1}}}', "not a post object"),
        (json.dumps(tweet(1, created_at="Wed Feb 30 00:00:00 +0000 2014")).encode(), "impossible date"),
        (json.dumps(tweet(1, created_at="yesterday")).encode(), "impossible date"),
        (b"[" * 100_000, "invalid JSON"),
    ],
)
def test_a_bad_line_costs_itself_alone(tmp_path, line, reason):
    (tmp_path / "a").write_bytes(json_lines(tweet(1)) + line + b"\n" + json_lines(tweet(2)))
    first, bad, last = rows(tmp_path / "a", "twitter_v1")
    assert (first["post_id"], last["post_id"], last["line"]) == ("1", "2", 3)
    assert (bad["line"], bad["reject"]) == (2, reason)
    assert all(value is None for key, value in bad.items() if key not in ("file", "line", "reject"))


def test_values_of_unexpected_types_do_not_stop_the_reader(tmp_path):
    odd = [
        tweet(1, user="me"),  # type: ignore[arg-type]
        {**tweet(2), "user": "me"},
        {**tweet(3), "entities": 5},
        {**tweet(4), "entities": {"hashtags": [None, 3, {"text": None}], "urls": {}, "user_mentions": "x"}},
        {**tweet(5), "text": {"a": 1}},
        {**tweet(6), "retweeted_status": {}},
        {**tweet(7), "place": []},
    ]
    (tmp_path / "a").write_bytes(json_lines(*odd))
    found = rows(tmp_path / "a", "twitter_v1")
    assert len(found) == len(odd)
    assert found[2]["hashtags"] is None  # no entities: from the text
    assert found[5]["is_repost"] is False


# table

CSV = 'author,text,time,flag,label\nAnn,hello #a,2015-01-01 01:53:00,0,x\n@BOB,"two\nlines",2015-01-02T00:00:00Z,1,\n'


def test_a_csv_table(tmp_path):
    (tmp_path / "a.csv").write_bytes(CSV.encode())
    assert exports.detect(tmp_path) == "table"
    first, second = rows(tmp_path, "table", mapping(repost_flag="flag", labels=["label"]))
    assert (first["author"], first["text"], first["line"]) == ("ann", "hello #a", 2)
    assert first["created_at"] == datetime(2015, 1, 1, 1, 53, tzinfo=UTC)
    assert (first["hashtags"], first["mentions"], first["post_id"]) == (None, None, None)
    assert (first["is_repost"], second["is_repost"], second["reposted"]) == (False, True, None)
    assert (second["author"], second["text"], second["line"]) == ("bob", "two\nlines", 3)
    assert first["labels"] == [{"field": "label", "value": "x"}]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_other_separators_and_a_byte_order_mark(tmp_path, separator):
    text = "\ufeffauthor,text,time\r\nann,hello,2015-01-01\r\n".replace(",", separator)
    (tmp_path / "a").write_bytes(text.encode())
    assert exports.detect(tmp_path) == "table"
    assert rows(tmp_path, "table", mapping())[0]["author"] == "ann"


def test_bad_rows_of_a_csv(tmp_path):
    good = "ann,hello,2015-01-01"
    body = ["author,text,time", good, "only,two", "a,b,2015-02-30", 'x,"bad"quote,1', "", good]
    data = "\n".join(body).encode() + b"\nb\xe9a,caf\xe9,2015-01-01\n" + good.encode() + b"\n"
    (tmp_path / "a").write_bytes(data)
    found = [(row["line"], row["reject"]) for row in rows(tmp_path, "table", mapping())]
    assert found == [
        (2, None), (3, "wrong number of columns"), (4, "date neither ISO 8601 nor Unix time"), (5, "invalid CSV"),
        (7, None), (8, "not UTF-8"), (9, None),
    ]  # fmt: skip


def test_a_quote_that_is_never_closed_swallows_nothing(tmp_path):
    (tmp_path / "a").write_text('author,text,time\nann,"open,2015-01-01\n' + "b,c,2015-01-01\n" * 10)
    with pytest.raises(UserError, match="a:2: a quote that opens here is not closed"):
        rows(tmp_path, "table", mapping())


def test_a_json_lines_table(tmp_path):
    records = [
        {"author": 5, "text": "a/b", "time": 1420070400, "tags": ["é", "x"], "likes": ["1", "2"], "odd/na~me": "l"},
        {"author": "6", "text": "b", "time": "1420070400123", "tags": "x,y"},
        ["no", "object"],
    ]
    (tmp_path / "a").write_bytes(json_lines(*records) + b"{broken\n")
    table = mapping(hashtags="tags", favorited_by="likes", labels=["odd/na~me"])
    assert exports.detect(tmp_path) == "table"
    first, second, third, fourth = rows(tmp_path, "table", table)
    assert (first["author"], first["hashtags"], first["favorited_by"]) == ("5", ["é", "x"], ["1", "2"])
    assert first["labels"] == [{"field": "odd/na~me", "value": "l"}]
    assert first["created_at"] == datetime(2015, 1, 1, tzinfo=UTC)
    assert (second["hashtags"], second["created_at"].microsecond) == (["x", "y"], 123000)
    assert (third["reject"], fourth["reject"]) == ("not a post object", "invalid JSON")


def test_objects_and_lists_of_objects_in_json_lines(tmp_path):
    record = {
        "account": {"acct": "Ann@example.org"},
        "post": {"at": "2020-01-01T00:00:00Z", "text": "hi"},
        "langs": ["en", "de"],
        "tags": [{"name": "cats", "url": "https://x"}, {"name": "dogs"}, None],
        "a.b": "yes",
    }
    path = tmp_path / "a.jsonl"
    path.write_bytes(json_lines(record, {**record, "tags": []}, {**record, "account": None}))
    fields = {"created_at": "post.at", "text": "post.text", "author": "account.acct", "hashtags": "tags.name"}
    first, second, third = rows(path, "table", mapping(**fields, lang="langs", labels=["a.b"]))
    assert (first["author"], first["text"], first["lang"]) == ("ann@example.org", "hi", "en")
    assert first["hashtags"] == ["cats", "dogs"]
    assert first["labels"] == [{"field": "a.b", "value": "yes"}]
    assert second["hashtags"] == []
    assert third["author"] is None
    with pytest.raises(UserError, match=r"no column 'tags' .*; it has account.acct, .*tags.name"):
        rows(path, "table", mapping(**fields | {"hashtags": "tags"}))


def test_html_becomes_text(tmp_path):
    html = (
        '<p>so <a href="https://a.example/tags/cats">#<span>cats</span></a> &amp; <b>dogs</b> 1 < 2</p>'
        '<p><span class="h-card"><a href="https://a.example/@bob">@<span>bob</span></a></span><br />bye</p>'
    )
    path = tmp_path / "a.jsonl"
    path.write_bytes(json_lines({"time": "2020-01-01", "author": "ann", "text": html}))
    (found,) = rows(path, "table", mapping(html=True))
    assert found["text"] == "so #cats & dogs 1 < 2\n@bob\nbye"


def test_a_header_in_brackets_is_no_array(tmp_path):
    (tmp_path / "a.csv").write_text("[time],[text],[author]\n2020-01-01,hi,ann\n")
    assert exports.detect(tmp_path) == "table"


def test_objects_of_the_second_version_of_the_api_are_a_table(tmp_path):
    (tmp_path / "a").write_bytes(
        json_lines({"id": "1", "text": "hi", "author_id": "7", "created_at": "2020-01-01T00:00:00Z", "entities": {}})
    )
    assert exports.detect(tmp_path) == "table"


@pytest.mark.parametrize("time_format", ["%Q", "%"])
def test_a_time_format_that_is_none_is_named(tmp_path, time_format):
    (tmp_path / "a.csv").write_text("time,text,author\n1,a,b\n")
    with pytest.raises(UserError, match=r"corpus\.table\.time_format: .* is no format of strptime"):
        rows(tmp_path, "table", mapping(time_format=time_format))


def test_microseconds_since_1970(tmp_path):
    (tmp_path / "a.csv").write_text("time,text,author\n1577836800000000,a,b\n")
    (found,) = rows(tmp_path, "table", mapping())
    assert found["created_at"] == datetime(2020, 1, 1, tzinfo=UTC)


def test_a_parquet_table(tmp_path):
    times = [datetime(2015, 1, 1, tzinfo=UTC), None]
    table = pa.table(
        {
            "id": [1, 2],
            "author": ["Ann", "Bob"],
            "text": ["a", "b"],
            "time": pa.array(times, pa.timestamp("ns", tz="Europe/Berlin")),
            "tags": [["x", "y"], None],
            "of": [None, "1"],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    fields = mapping(post_id="id", hashtags="tags", reposted_id="of", time_format="%d.%m.%Y", casefold_users=False)
    assert exports.detect(tmp_path) == "table"
    first, second = rows(tmp_path, "table", fields)
    assert (first["post_id"], first["author"], first["hashtags"]) == ("1", "Ann", ["x", "y"])
    assert (first["created_at"], second["created_at"]) == (times[0], None)
    assert (second["hashtags"], second["is_repost"], second["reposted"]["post_id"]) == (None, True, "1")


def test_a_cut_parquet_file_and_a_missing_column(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no column 'time' \(corpus.table.created_at\); it has text"):
        rows(tmp_path, "table", mapping())
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-10])
    with pytest.raises(UserError, match="damaged or cut off"):
        rows(tmp_path, "table", mapping())


def test_a_table_needs_a_mapping_and_names_its_columns(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    with pytest.raises(UserError, match="it has author, text, time, flag, label"):
        rows(tmp_path, "table", None)


def test_a_time_format_of_the_table(tmp_path):
    (tmp_path / "a.csv").write_text("author,text,time\na,b,31/12/2015 23:59\na,b,32/12/2015 23:59\n")
    first, second = rows(tmp_path, "table", mapping(time_format="%d/%m/%Y %H:%M"))
    assert first["created_at"] == datetime(2015, 12, 31, 23, 59, tzinfo=UTC)
    assert second["reject"] == "date not as time_format says"


def test_a_header_longer_than_a_field_may_be_is_one_line(tmp_path):
    (tmp_path / "a.csv").write_text("id,text," + "x" * 200_000 + "\n1,a,b\n")
    with pytest.raises(UserError, match=r"a\.csv"):
        rows(tmp_path / "a.csv", "table", mapping())
