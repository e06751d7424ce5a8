"""Tables: CSV, JSON and Parquet through a mapping; what is not as it should be costs itself and is counted."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import exports
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ntulm.corpus.config import TableMapping
from ntulm.corpus.sources import formats as sources
from ntulm.errors import UserError

Row = dict[str, Any]


def mapping(**changes: Any) -> TableMapping:
    return TableMapping.model_validate({"created_at": "time", "text": "text", "author": "author", **changes})


def rows(path: Path, table: TableMapping | None = None) -> list[Row]:
    batches = exports.batches(path, "table", table or mapping())
    assert all(batch.schema == sources.RAW_SCHEMA for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def json_lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


CSV = 'author,text,time,flag,label\nAnn,hello #a,2015-01-01 01:53:00,0,x\n@BOB,"two\nlines",2015-01-02T00:00:00Z,1,\n'


def test_a_csv_table(tmp_path):
    (tmp_path / "a.csv").write_bytes(CSV.encode())
    assert exports.detect(tmp_path) == "table"
    first, second = rows(tmp_path, mapping(repost_flag="flag", labels=["label"]))
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
    assert rows(tmp_path)[0]["author"] == "ann"


def test_bad_rows_of_a_csv(tmp_path):
    good = "ann,hello,2015-01-01"
    body = ["author,text,time", good, "only,two", "a,b,2015-02-30", 'x,"bad"quote,1', "", good]
    data = "\n".join(body).encode() + b"\nb\xe9a,caf\xe9,2015-01-01\n" + good.encode() + b"\n"
    (tmp_path / "a").write_bytes(data)
    found = [(row["line"], row["reject"]) for row in rows(tmp_path)]
    assert found == [
        (2, None), (3, "wrong number of columns"), (4, "date neither ISO 8601 nor Unix time"), (5, "invalid CSV"),
        (7, None), (8, "not UTF-8"), (9, None),
    ]  # fmt: skip


def test_a_quote_that_is_never_closed_swallows_nothing(tmp_path):
    (tmp_path / "a").write_text('author,text,time\nann,"open,2015-01-01\n' + "b,c,2015-01-01\n" * 10)
    found = [(row["line"], row["reject"]) for row in rows(tmp_path)]
    assert found == [(2, "quote not closed"), *((line, None) for line in range(3, 13))]


def test_a_json_lines_table(tmp_path):
    records = [
        {"author": 5, "text": "a/b", "time": 1420070400, "tags": ["é", "x"], "likes": ["1", "2"], "odd/na~me": "l"},
        {"author": "6", "text": "b", "time": "1420070400123", "tags": "x,y"},
        ["no", "object"],
    ]
    (tmp_path / "a").write_bytes(json_lines(*records) + b"{broken\n")
    table = mapping(hashtags="tags", favorited_by="likes", labels=["odd/na~me"])
    assert exports.detect(tmp_path) == "table"
    first, second, third, fourth = rows(tmp_path, table)
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
    first, second, third = rows(path, mapping(**fields, lang="langs", labels=["a.b"]))
    assert (first["author"], first["text"], first["lang"]) == ("ann@example.org", "hi", "en")
    assert first["hashtags"] == ["cats", "dogs"]
    assert first["labels"] == [{"field": "a.b", "value": "yes"}]
    assert second["hashtags"] == []
    assert third["author"] is None
    with pytest.raises(UserError, match=r"no column 'tags' .*; it has account.acct, .*tags.name"):
        rows(path, mapping(**fields | {"hashtags": "tags"}))


def test_html_becomes_text(tmp_path):
    html = (
        '<p>so <a href="https://a.example/tags/cats">#<span>cats</span></a> &amp; <b>dogs</b> 1 < 2</p>'
        '<p><span class="h-card"><a href="https://a.example/@bob">@<span>bob</span></a></span><br />bye</p>'
    )
    path = tmp_path / "a.jsonl"
    path.write_bytes(json_lines({"time": "2020-01-01", "author": "ann", "text": html}))
    (found,) = rows(path, mapping(html=True))
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
        rows(tmp_path, mapping(time_format=time_format))


def test_microseconds_since_1970(tmp_path):
    (tmp_path / "a.csv").write_text("time,text,author\n1577836800000000,a,b\n")
    (found,) = rows(tmp_path)
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
    first, second = rows(tmp_path, fields)
    assert (first["post_id"], first["author"], first["hashtags"]) == ("1", "Ann", ["x", "y"])
    assert (first["created_at"], second["created_at"]) == (times[0], None)
    assert (second["hashtags"], second["is_repost"], second["reposted"]["post_id"]) == (None, True, "1")


def test_a_cut_parquet_file_and_a_missing_column(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"no column 'time' \(corpus.table.created_at\); it has text"):
        rows(tmp_path)
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[:-10])
    with pytest.raises(UserError, match="damaged or cut off"):
        rows(tmp_path)


def test_a_table_needs_a_mapping_and_names_its_columns(tmp_path):
    (tmp_path / "a.csv").write_text(CSV)
    with pytest.raises(UserError, match="it has author, text, time, flag, label"):
        exports.batches(tmp_path, "table")


def test_a_time_format_of_the_table(tmp_path):
    (tmp_path / "a.csv").write_text("author,text,time\na,b,31/12/2015 23:59\na,b,32/12/2015 23:59\n")
    first, second = rows(tmp_path, mapping(time_format="%d/%m/%Y %H:%M"))
    assert first["created_at"] == datetime(2015, 12, 31, 23, 59, tzinfo=UTC)
    assert second["reject"] == "date not as time_format says"
