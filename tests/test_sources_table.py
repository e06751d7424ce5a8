"""Tables: CSV, JSON and Parquet through a mapping; what is not as it should be costs itself and is counted."""

import csv
import json
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import exports
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ntulm.corpus.config import TableMapping
from ntulm.corpus.records import read_export
from ntulm.corpus.sources import content, lines, table_values
from ntulm.corpus.sources import formats as sources
from ntulm.corpus.sources.csv_records import OPEN_QUOTE
from ntulm.corpus.sources.export import File
from ntulm.errors import UserError

Row = dict[str, Any]


def mapping(**changes: Any) -> TableMapping:
    return TableMapping.model_validate({"created_at": "time", "text": "text", "author": "author", **changes})


def rows(path: Path, table: TableMapping | None = None, labels: Sequence[str] = ()) -> list[Row]:
    batches = exports.batches(path, "table", table or mapping(), labels)
    assert all(batch.schema == sources.RAW_SCHEMA for batch in batches)
    return [row for batch in batches for row in batch.to_pylist()]


def json_lines(*records: Any) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


CSV = 'author,text,time,flag,label\nAnn,hello #a,2015-01-01 01:53:00,0,x\n@BOB,"two\nlines",2015-01-02T00:00:00Z,1,\n'


def test_a_csv_table(tmp_path):
    (tmp_path / "a.csv").write_bytes(CSV.encode())
    assert exports.detect(tmp_path) == "table"
    first, second = rows(tmp_path, mapping(repost_flag="flag"), ["label"])
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
    table = mapping(hashtags="tags", favorited_by="likes")
    assert exports.detect(tmp_path) == "table"
    first, second, third, fourth = rows(tmp_path, table, ["odd/na~me"])
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
    first, second, third = rows(path, mapping(**fields, lang="langs"), ["a.b"])
    assert (first["author"], first["text"], first["lang"]) == ("ann@example.org", "hi", "en")
    assert first["hashtags"] == ["cats", "dogs"]
    assert first["labels"] == [{"field": "a.b", "value": "yes"}]
    assert second["hashtags"] == []
    assert third["author"] is None
    with pytest.raises(
        UserError, match=r"'tags' \(corpus.table.hashtags\) holds objects in 2 of 3 .*they have tags.name"
    ):
        rows(path, mapping(**fields | {"hashtags": "tags"}))


def post(number: int, **changes: Any) -> Row:
    return {"id": str(number), "time": "2020-01-01T00:00:00Z", "author": "ann", "text": f"text {number}", **changes}


def test_paths_are_those_of_each_record_not_of_the_first(tmp_path):
    without = [post(number, pad="x" * 800) for number in range(300)]
    tags = {"entities": {"hashtags": [{"tag": "cats"}, {"tag": "dogs"}]}}
    (tmp_path / "a.jsonl").write_bytes(json_lines(*without, post(300, **tags), post(301, entities={"hashtags": []})))
    (tmp_path / "b.jsonl").write_bytes(json_lines(*without[:3], post(302, **tags)))
    found = rows(tmp_path, mapping(post_id="id", hashtags="entities.hashtags.tag"))
    assert {row["post_id"]: row["hashtags"] for row in found if row["hashtags"] is not None} == {
        "300": ["cats", "dogs"], "301": [], "302": ["cats", "dogs"],
    }  # fmt: skip
    assert len(found) == 306


@pytest.mark.parametrize(
    ("record", "path", "expected"),
    [
        ({"a": {"b": ["x", "y"]}}, "a.b", ["x", "y"]),
        ({"a": [{"b": "x"}, {"b": "y"}]}, "a.b", ["x", "y"]),
        ({"a": [{"b": {"c": "x"}}, {"b": [{"c": "y"}, {"c": ["z"]}]}, {"q": 1}, 3, None]}, "a.b.c", ["x", "y", "z"]),
        ({"a": {"b": [{"c": "x"}]}}, "a.b.c", ["x"]),
        ({"a": [{"b": [{"c": "x"}]}, {"b": []}]}, "a.b.c", ["x"]),
        ({"a.b": ["x"], "a": {"b": "no"}}, "a.b", ["x"]),
        ({"a": {'"~/\\': [{"é '$": 'x "y" z'}]}}, "a.\"~/\\.é '$", ['x "y" z']),
        ({"a": {"b": 17}}, "a.b", ["17"]),
        ({"a": {"b": "x,y z"}}, "a.b", ["x", "y", "z"]),
        ({"a": ["New York", " ", 3, True, None]}, "a", ["New York", "3", "true"]),
        ({"a": []}, "a.b", []),
        ({"a": None}, "a.b", None),
        ({"a": {"b": None}}, "a.b", None),
        ({"q": {"a": {"b": 1}}, "a": None}, "a.b", None),
    ],
)
def test_where_a_path_leads(tmp_path, record, path, expected):
    (tmp_path / "a.jsonl").write_bytes(json_lines(post(1, **record), post(2)))
    first, second = rows(tmp_path, mapping(hashtags=path))
    assert first["hashtags"] == expected
    assert second["hashtags"] is None


def test_an_object_is_never_taken_for_text(tmp_path):
    odd = [{"a": 1}, [{"a": 1}], ["x", "y"], [["x"], {"a": 1}]]
    (tmp_path / "a.jsonl").write_bytes(json_lines(*(post(1, text=value) for value in odd), post(2, text=["one"])))
    *bad, good = rows(tmp_path)
    assert {row["reject"] for row in bad} == {"'text' is an object or a list, not one text (corpus.table.text)"}
    assert (good["reject"], good["text"]) == (None, "one")


def test_objects_in_a_list_are_counted_and_said(tmp_path, capsys):
    tags = [{"name": "cats"}, {"name": "dogs"}]
    (tmp_path / "a.jsonl").write_bytes(
        json_lines(post(1, tags=["a"]), post(2, tags=tags), post(3, tags=["b", {"x": 1}]))
    )
    found = rows(tmp_path, mapping(hashtags="tags"))
    assert [row["hashtags"] for row in found] == [["a"], None, ["b"]]
    said = "table: 'tags' (corpus.table.hashtags) holds objects in 2 of 3 records, of which nothing is taken; they have"
    assert capsys.readouterr().err == f"{said} tags.name, tags.x\n"


def test_a_path_that_no_record_has_is_named_with_those_that_there_are(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(post(1), {"no": 1}))
    (tmp_path / "b.jsonl").write_bytes(json_lines(post(2, entities={"hashtags": [{"tag": "x"}]})))
    wanted = mapping(hashtags="entities.hastags.tag")
    message = (
        r"a.jsonl: no record has 'entities.hastags.tag' \(corpus.table.hashtags\); they have "
        r"id, time, author, text, no, entities.hashtags.tag$"
    )
    with pytest.raises(UserError, match=message):
        rows(tmp_path, wanted)
    with pytest.raises(UserError, match=r"no record has 'VERACITY' \(corpus.labels\)"):
        rows(tmp_path, mapping(), ["VERACITY"])


def test_columns_are_gathered_from_all_files_and_all_over_them(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(post(1, account=None, tags=[])))
    late = [post(number, pad="x" * 1000) for number in range(4000)]
    late[2600:3200] = [one | {"late": {"er": [{"x": 1, "y": {"z": []}}]}} for one in late[2600:3200]]
    (tmp_path / "b.jsonl").write_bytes(json_lines(*late))
    (tmp_path / "c.jsonl").write_bytes(json_lines(post(2, account={"acct": "a"}, tags=[{"name": "x"}])))
    table = sources.source("table")
    assert table.columns(exports.files(tmp_path)) == [
        "id", "time", "author", "text", "pad", "late.er.x", "late.er.y.z", "account.acct", "tags.name",
    ]  # fmt: skip


def test_labels_and_single_texts_inside_objects(tmp_path):
    labels = {"labels": {"VERACITY": "false", "topics": ["a b", "c"]}, "author": {"handle": "@Ann", "id": 7}}
    (tmp_path / "a.jsonl").write_bytes(json_lines(post(1, **labels), post(2)))
    wanted = {"author": "author.id", "author_handle": "author.handle"}
    first, second = rows(tmp_path, mapping(**wanted), ["labels.VERACITY", "labels.topics"])
    assert first["labels"] == [
        {"field": "labels.VERACITY", "value": "false"},
        {"field": "labels.topics", "value": "a b"},
        {"field": "labels.topics", "value": "c"},
    ]
    assert (first["author"], first["people"]) == ("7", [{"id": "7", "handle": "ann"}])
    assert (second["labels"], second["author"], second["people"]) == ([], None, None)


def test_a_mapping_needs_only_what_it_uses():
    assert mapping() == mapping(**dict.fromkeys(["lang", "hashtags", "urls"]), html=False)
    assert (mapping().casefold_users, mapping().mention_hosts) == (True, False)
    with pytest.raises(ValidationError, match="author"):
        TableMapping.model_validate({"text": "text", "created_at": "time"})


def test_every_key_of_the_mapping(tmp_path):
    record = post(
        1, links="https://a.example/1,2,https://b.example", where="New York, NY; Rome", cash=["AAPL"], sub="cats",
        to="@Bob", to_post=5, q="Eve", q_post="6", seen="Public",
    )  # fmt: skip
    keys = {
        "urls": "links", "places": "where", "cashtags": "cash", "community": "sub", "reply_to": "to",
        "reply_to_post": "to_post", "quoted": "q", "quoted_post": "q_post", "visibility": "seen",
    }  # fmt: skip
    expected = {
        "urls": ["https://a.example/1,2", "https://b.example"], "places": ["New York, NY", "Rome"],
        "cashtags": ["AAPL"], "community": "cats", "reply_to": "bob", "reply_to_post": "5", "quoted": "eve",
        "quoted_post": "6", "visibility": "public",
    }  # fmt: skip
    (tmp_path / "a").write_bytes(json_lines(record))
    (row,) = rows(tmp_path / "a", mapping(**keys))
    assert row | expected == row
    flat = {key: value[0] if isinstance(value, list) else value for key, value in record.items()}
    pq.write_table(pa.Table.from_pylist([flat]), tmp_path / "b")
    assert rows(tmp_path / "b", mapping(**keys)) == [row | {"file": str(tmp_path / "b")}]
    with (tmp_path / "c").open("w") as file:
        csv.writer(file).writerows([flat.keys(), flat.values()])
    assert rows(tmp_path / "c", mapping(**keys)) == [row | {"file": str(tmp_path / "c"), "line": 2}]
    assert rows(tmp_path / "c", mapping(places="q")) != []


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("['New York', \"Rome\"]", ["New York", "Rome"]),
        ("Rome|Bonn", ["Rome", "Bonn"]),
        ("Rome", ["Rome"]),
        ("[closed]", ["[closed]"]),
    ],
)
def test_places_as_text(tmp_path, written, expected):
    (tmp_path / "a").write_bytes(json_lines(post(1, where=written)))
    assert rows(tmp_path, mapping(places="where"))[0]["places"] == expected


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


def test_objects_of_the_second_version_of_the_api_are_no_table(tmp_path):
    (tmp_path / "a").write_bytes(
        json_lines({"id": "1", "text": "hi", "author_id": "7", "created_at": "2020-01-01T00:00:00Z", "entities": {}})
    )
    assert exports.detect(tmp_path) == "twitter_v2"


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


# dates


def read_at(tmp_path: Path, *written: Any, **changes: Any) -> list[Row]:
    (tmp_path / "a").write_bytes(json_lines(*(post(1, time=one) for one in written)))
    return rows(tmp_path / "a", mapping(**changes))


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("31.03.2021", '"%d.%m.%Y"'),
        ("31.3.2021 17:05", '"%d.%m.%Y %H:%M"'),
        ("31/03/2021", '"%d/%m/%Y"'),
        ("03/31/2021", '"%m/%d/%Y"'),
        ("03/04/2021", '"%d/%m/%Y" or "%m/%d/%Y"'),
        ("03/31/2021 05:17 PM", '"%m/%d/%Y %I:%M %p"'),
        ("Wed, 31 Mar 2021 17:05:00 +0200", '"%a, %d %b %Y %H:%M:%S %z"'),
        ("Wed, 31 Mar 2021 17:05:00 GMT", '"%a, %d %b %Y %H:%M:%S GMT"'),
        ("Wed Mar 31 17:05:00 +0000 2021", '"%a %b %d %H:%M:%S %z %Y"'),
        ("20210331", '"%Y%m%d"'),
        ("Mar 31, 2021", '"%b %d, %Y"'),
    ],
)
def test_a_date_of_another_form_gets_a_hint_that_is_right(tmp_path, written, hint):
    (bad,) = read_at(tmp_path, written)
    reason = "date neither ISO 8601 nor Unix time"
    assert bad["reject"] == f"{reason}; does corpus.table.time_format: {hint} fit?"
    (good,) = read_at(tmp_path, written, time_format=hint.split('"')[-2])
    assert good["created_at"] is not None
    assert good["created_at"].year == 2021


@pytest.mark.parametrize("written", ["yesterday", "31.13.2021", "2021-02-30", "17", "1e400", "12345678901", "٣", " x"])
def test_what_is_no_date_has_no_hint(tmp_path, written):
    (bad,) = read_at(tmp_path, written)
    assert bad["reject"] == "date neither ISO 8601 nor Unix time"


@pytest.mark.parametrize("written", ["infinity", "-infinity", "290000-01-01", "2020-01-01 (BC)", "9999-01-01"])
def test_a_date_that_no_post_has(tmp_path, written):
    for number, time_format in enumerate((None, "%Y-%m-%d")):
        folder = tmp_path / str(number)
        folder.mkdir()
        (bad,) = read_at(folder, written, time_format=time_format)
        assert bad["reject"] in ("impossible date", "date not as time_format says")
    (folder / "a").write_bytes(json_lines(post(1), post(2, time=written), post(3, time="8999-01-01")))
    with read_export(folder / "a", "table", mapping(), [], "id", tmp_path / "spill") as export:
        assert (export.counts["posts"], export.counts["rejects"]) == (1, 2)


@pytest.mark.parametrize(
    ("written", "time_format", "hour"),
    [
        ("2021-07-31 14:05:00 CEST", None, 12), ("2021-07-31 14:05:00 EDT", None, 18),
        ("2021-07-31 14:05:00 CDT", None, 19),
        ("2021-07-31 14:05:00 MDT", None, 20), ("2021-07-31 14:05:00 PDT", None, 21),
        ("2021-07-31 14:05 BST", None, 13),
        ("2021-07-31 14:05:00 EST", None, 19), ("2021-07-31 14:05:00 +0200", None, 12),
        ("2021-07-31 14:05:00 Z", None, 14), ("2021-07-31 14:05:00 -0100 UTC", None, 15),
        ("Sat Jul 31 14:05:00 PDT 2021", "%a %b %d %H:%M:%S %z %Y", 21), ("31.07.2021 14 PDT", "%d.%m.%Y %H PDT", 14),
    ],
)  # fmt: skip
def test_names_of_zones_and_offsets_with_a_blank(tmp_path, written, time_format, hour):
    (tmp_path / "a.csv").write_text(f"author,text,time\nann,hi,{written}\n")
    (row,) = rows(tmp_path, mapping(time_format=time_format))
    assert row["created_at"] is not None, row["reject"]
    assert (row["created_at"].day, row["created_at"].hour) == (31, hour)


@pytest.mark.parametrize(("written", "hint"), [("31/03/21 14:05", "%d/%m/%y %H:%M"), ("31-03-21", "%d-%m-%y")])
def test_a_year_of_two_digits_is_not_of_antiquity(tmp_path, written, hint):
    (tmp_path / "a.csv").write_text(f"author,text,time\nann,hi,{written}\n")
    (row,) = rows(tmp_path)
    assert row["created_at"] is None
    assert hint in row["reject"]
    (row,) = rows(tmp_path, mapping(time_format=hint))
    assert (row["created_at"].year, row["created_at"].month) == (2021, 3)


def test_zones_and_numbers_side_by_side(tmp_path):
    same = (
        "2020-01-01T12:00:00Z", "2020-01-01T14:00:00+02:00", "2020-01-01 12:00:00", "2020-01-01 13:00:00 Europe/Berlin",
        "2020-01-01T12:00:00.000000000Z", 1577880000, "1577880000", "1577880000.0", 1577880000.0, "1.57788e9",
        "1577880000000", 1577880000000000, "1577880000000000000", "1.57788E+12",
    )  # fmt: skip
    found = read_at(tmp_path, *same)
    assert {(row["created_at"], row["reject"]) for row in found} == {(datetime(2020, 1, 1, 12, tzinfo=UTC), None)}


# records of strangers


def test_a_hostile_record_stops_nothing(tmp_path):
    odd: list[Row] = [
        post(1, tags=["# " * 520]),
        post(2, text="#" + "\u1e9e" * 3000, tags=["\ufdfa" * 500]),
        post(3, text={"a": 1}),
        post(4, time="infinity"),
        post(5, author=[[[{"x": 1}]]]),
        post(6, text="a\0b"),
        post(7, time={"$date": 1}),
        post(8, tags={"a": [1]}),
        post(9, text="<" * 100_000, tags="[" * 10_000),
    ]
    good = [post(10), post(11, tags=["cats"])]
    (tmp_path / "a").write_bytes(json_lines(*odd, *good) + b"[" * 100_000 + b"\n" + b'{"a":' * 50_000 + b"\n")
    table = mapping(post_id="id", hashtags="tags", html=True)
    with read_export(tmp_path / "a", "table", table, [], "id", tmp_path / "spill") as export:
        counts = export.counts
    assert counts["read"] == counts["posts"] + counts["rejects"] == len(odd) + 4
    assert counts["rejects"] == 7


def test_what_cannot_be_converted_costs_its_own_row(tmp_path, monkeypatch):
    monkeypatch.setitem(table_values._TYPED, "author", "CASE WHEN $casefold THEN author::INT::VARCHAR END")
    authors = ["1", "2", "x", "4", "5", "y"]
    (tmp_path / "a").write_bytes(json_lines(*(post(1, author=author) for author in authors)))
    found = rows(tmp_path / "a")
    assert [row["author"] for row in found] == ["1", "2", None, "4", "5", None]
    assert [row["line"] for row in found if row["reject"] == "unreadable values"] == [3, 6]


WORDS = st.text(max_size=20) | st.sampled_from(["#a", "@b", "", "9"])
KEYS = st.sampled_from(["a", "b", "a.b", "time", "text"])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(st.dictionaries(KEYS, JUNK, max_size=5), max_size=6))
def test_every_json_record_is_one_row(tmp_path, records):
    full = {"a": [{"b": "x"}, "y"], "b": "x", "time": "2020-01-01", "text": "x"}
    (tmp_path / "a").write_bytes(json_lines(full, *records))
    table = mapping(author="b", hashtags="a.b", mentions="a", places="a")
    found = rows(tmp_path / "a", table, ["a.b", "b"])
    assert [row["line"] for row in found] == list(range(1, len(records) + 2))
    assert found[0]["hashtags"] == ["x"]
    for row, record in zip(found[1:], records, strict=True):
        assert row["reject"] is not None or not isinstance(record.get("text"), dict)
        assert row["text"] is None or isinstance(row["text"], str)


# CSV


def csv_file(path: Path, *lines: str) -> Path:
    path.write_bytes("".join(line + "\n" for line in lines).encode("utf-8", "surrogateescape"))
    return path


def fates(path: Path, table: TableMapping | None = None) -> list[tuple[int, str | None]]:
    return [(row["line"], row["reject"]) for row in rows(path, table)]


def test_an_open_quote_costs_its_own_line(tmp_path):
    plain = [f"author{number},text {number},2015-01-01" for number in range(3000)]
    plain[100] = 'ann,"open,2015-01-01'
    plain[1600] = 'bob,he said "so",2015-01-01'  # the next quote
    found = fates(csv_file(tmp_path / "a", "author,text,time", *plain))
    assert [line for line, reject in found] == list(range(2, 3002))
    assert [one for one in found if one[1]] == [(102, "quote not closed, or a record of more than 500 lines")]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        # The next quote ends the record as if it were whole: either reading may be right, so all lines are rejects.
        (
            ['ann,"open,2015-01-01', "b,c,2015-01-01", "b,c,2016-11-01", 'b,5",2015-01-01', "c,d,2015-01-01"],
            [(2, OPEN_QUOTE), (3, OPEN_QUOTE), (4, OPEN_QUOTE), (5, OPEN_QUOTE), (6, None)],
        ),
        (['ann,"open,2015-01-01', 'b,5",2015-01-01', "c,d,2015-01-01"], [(2, OPEN_QUOTE), (3, OPEN_QUOTE), (4, None)]),
        # … in the middle of a record: malformed.
        (['ann,"open,2015-01-01', "b,c,2015-01-01", 'b,"c",2015-01-01'], [(2, "invalid CSV"), (3, None), (4, None)]),
        # … and with another number of columns.
        (
            ['ann,"open,2015-01-01', "b,c,2015-01-01", 'b,c",x,2015-01-01'],
            [(2, "wrong number of columns"), (3, None), (4, "wrong number of columns")],
        ),
        # All fields in quotes.
        (
            ['"ann","2015-01-01,"text"', '"b","c","2015-01-01"', '"b","c","2015-01-01"'],
            [(2, "invalid CSV"), (3, None), (4, None)],
        ),
        # Until the end of the file.
        (['ann,"open,2015-01-01', "b,c,2015-01-01"], [(2, OPEN_QUOTE), (3, None)]),
        (["b,c,2015-01-01", 'ann,c,"2015-01-01'], [(2, None), (3, OPEN_QUOTE)]),
    ],
)
def test_reading_goes_on_after_an_open_quote(tmp_path, lines, expected):
    assert fates(csv_file(tmp_path / "a", "author,text,time", *lines)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "two\nlines",
        "a, b, c\nd, e, f\n1,2,3\n\n\n",
        'she said "so,\n"and" left"\n"',
        '"\n"\n,",\n',
        "author,text,time\n",
        "\n" * 400,
        "bob,text,2015-01-01\nand more words\nof my own\nin this text",
        "x" * 100_000 + "\n" + "y" * 20_000,
        "\r\nwindows\r\n",
    ],
)
def test_texts_of_several_lines_are_texts(tmp_path, text):
    for place, columns in enumerate(
        (["author", "text", "time"], ["time", "author", "text"], ["text", "time", "author"])
    ):
        row = {"author": "ann", "time": "2015-01-01", "text": text}
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
            path = tmp_path / f"{place}{quoting}"
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, columns, quoting=quoting)
                writer.writeheader()
                writer.writerows([row, {**row, "text": "next"}])
            assert [(one["reject"], one["text"]) for one in rows(path)] == [(None, text), (None, "next")]


def test_a_record_over_the_border_of_two_blocks_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "BLOCK_BYTES", 64)
    monkeypatch.setattr(content, "READ_BYTES", 16)
    body = [*(f"a,t{number},2015-01-01" for number in range(40)), 'ann,"open,2015-01-01']
    body += [*(f"b,t{number},2015-01-01" for number in range(40)), 'ann,"two', 'lines",2015-01-01', 'b,"open']
    found = rows(csv_file(tmp_path / "a", "author,text,time", *body))
    assert [(row["line"], row["reject"]) for row in found if row["reject"]] == [(42, "invalid CSV"), (85, OPEN_QUOTE)]
    assert [row["text"] for row in found if not row["reject"]] == [
        *(f"t{number}" for number in range(40)), *(f"t{number}" for number in range(40)), "two\nlines",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ("sep=;\nauthor;text;time", "ann;hello, you;2015-01-01"),
        ("\ufeffsep=;\r\nauthor;text;time", "ann;hello, you;2015-01-01"),
        ('\ufeff"author","text","time"', 'ann,"hello, you",2015-01-01'),
        ("\n\nauthor\ttext\ttime", "ann\thello, you\t2015-01-01"),
        (",author,text,time,", '0,ann,"hello, you",2015-01-01,'),
        ("author,text,time,x,x", 'ann,"hello, you",2015-01-01,1,2'),
        ('"a,b;c;d;e;f","author",text,time,"new\nline"', ',ann,"hello, you",2015-01-01,'),
        (
            "author,text,time," + ",".join(f"column{number}" for number in range(20_000)),
            'ann,"hello, you",2015-01-01' + "," * 20_000,
        ),
    ],
)  # fmt: skip
def test_headers(tmp_path, header, body):
    (tmp_path / "a").write_text(f"{header}\n{body}\n", newline="")
    assert exports.detect(tmp_path) == "table"
    (row,) = rows(tmp_path)
    assert (row["author"], row["text"], row["reject"]) == ("ann", "hello, you", None)
    columns = sources.source("table").columns(exports.files(tmp_path))
    assert [name for name in columns if name in ("author", "text", "time")] == ["author", "text", "time"]
    assert all(name.strip() for name in columns)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("author,text,time,text\na,b,1,c\n", r"a: 2 columns 'text'; corpus.table.text needs one$"),
        (
            "author," + "x" * 200_000 + "\na,b\n",
            r"a:1: the names of the columns are not readable: quote not closed, or a",
        ),
        ('author,"text,time\na,b,2015-01-01\n', r"a:1: the names of the columns are not readable: quote not closed$"),
        ('author,"te"xt,time\na,b,2015-01-01\n', r"a:1: the names of the columns are not readable: invalid CSV$"),
        ("\n\n\n", r"a: no column 'created_at' .*|a: no column 'time' .*it has no column$"),
        ("a\0b,c\x1bd\n1,2\n", r"no column 'time' .*; it has a\\x00b, c\\x1bd$"),
        (",".join(f"c{number}" for number in range(500)) + ",texts\n1\n", r"it has texts, .* and 441 more$"),
    ],
)
def test_headers_that_do_not_do(tmp_path, content, message):
    (tmp_path / "a").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        rows(tmp_path, mapping(created_at="time", author="texts" if "c499" in content else "author"))
    assert str(caught.value).isprintable()


def test_ragged_rows_nul_bytes_and_long_fields_cost_themselves(tmp_path):
    body = ["ann,a\0b,2015-01-01", "ann,x", "ann,x,2015-01-01,y", "x" * 200_000, ",,", "", "ann,ok,2015-01-01"]
    assert fates(csv_file(tmp_path / "a", "author,text,time", *body)) == [
        (2, "NUL byte"), (3, "wrong number of columns"), (4, "wrong number of columns"),
        (5, "quote not closed, or a field of more than 131,072 characters"), (6, None), (8, None),
    ]  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.sampled_from(['"', ",", "\n", "a", "ann,hi,2015-01-01\n", "\r", '""', "é"]), max_size=40))
def test_no_line_of_a_csv_is_lost_without_a_count(tmp_path, pieces):
    (tmp_path / "a").write_text("author,text,time\n" + "".join(pieces), newline="")
    read = rows(tmp_path / "a")
    found = [(row["line"], row["reject"]) for row in read]
    assert [line for line, _ in found] == sorted({line for line, _ in found})
    texts = [row["text"] for row in read if row["reject"] is None]
    inside = sum(text.count("\n") for text in texts if text)
    written = [line for line in "".join(pieces).split("\n") if line.strip("\r")]
    assert len(written) - inside - "".join(pieces).count(",") <= len(found) <= len("".join(pieces).split("\n"))


# Parquet

TIMES = [datetime(2015, 1, 1, tzinfo=UTC), datetime(2015, 1, 2, tzinfo=UTC), None]


def parquet_file(path: Path, **changes: Any) -> Path:
    columns: dict[str, Any] = {"author": ["ann", "bob", "eve"], "text": ["a", "b", "c"], "time": TIMES}
    pq.write_table(pa.table({**columns, **changes}), path)
    return path


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["1", None, "x"], pa.large_string()), ["1", None, "x"]),
        (pa.array(["1", None, "x"]).dictionary_encode(), ["1", None, "x"]),
        (pa.array([b"1", None, "é".encode()], pa.binary()), ["1", None, "é"]),
        (pa.array([b"12", None, b"34"], pa.binary(2)), ["12", None, "34"]),
        (pa.array([1, None, 1 << 60]), ["1", None, str(1 << 60)]),
        (pa.array([1.0, None, 1.5]), ["1", None, "1.5"]),
        (pa.array([float(1 << 53), float("nan"), float("inf")]), [str(1 << 53), None, None]),
        (pa.array([1, None, 10**30], pa.decimal128(38, 0)), ["1", None, str(10**30)]),
        (pa.array([1, None, 7], pa.decimal128(20, 2)), ["1", None, "7"]),
        (pa.array([[{"x": 1}]] * 3, pa.list_(pa.struct({"x": pa.int64()}))), "id: "),
    ],
)
def test_ids_of_many_types(tmp_path, values, expected):
    path = parquet_file(tmp_path / "a", id=values)
    if isinstance(expected, str):
        with pytest.raises(
            UserError, match=r"no column 'id' \(corpus.table.post_id\); it has author, text, time, id.x"
        ):
            rows(path, mapping(post_id="id"))
        return
    assert [row["post_id"] for row in rows(path, mapping(post_id="id"))] == expected


@pytest.mark.parametrize(
    "times",
    [
        pa.array([datetime(2015, 1, 1), datetime(2015, 1, 2), None], pa.timestamp("s")),
        pa.array([datetime(2015, 1, 1), datetime(2015, 1, 2), None], pa.timestamp("ns")),
        pa.array(TIMES, pa.timestamp("ms", tz="America/New_York")),
        pa.array([date(2015, 1, 1), date(2015, 1, 2), None], pa.date32()),
        pa.array([date(2015, 1, 1), date(2015, 1, 2), None], pa.date64()),
        pa.array([1420070400, 1420156800, None]),
        pa.array([1420070400.0, 1420156800.0, float("nan")]),
        pa.array(["2015-01-01", "2015-01-02", None]),
    ],
)
def test_times_of_many_types(tmp_path, times):
    assert [row["created_at"] for row in rows(parquet_file(tmp_path / "a", time=times))] == TIMES


def test_times_that_no_clock_shows(tmp_path):
    for unit, number in (("ms", (1 << 63) - 1), ("s", 1 << 50), ("ms", 1 << 62), ("us", -(1 << 61))):
        times = pa.array([1420070400, number, None], pa.timestamp(unit))
        found = rows(parquet_file(tmp_path / "a", time=times))
        assert [row["reject"] for row in found][1:] == ["impossible date", None]


def test_nested_columns_are_paths_as_in_json(tmp_path):
    records = [
        {"id": "1", "time": "2020-01-01", "a": {"u": {"name": "Ann", "id": 7}}, "post": {"text": "x", "tags": ["a b"]},
         "tags": [{"t": "cats"}, {"t": "dogs"}], "list": ["q"]},
        {"id": "2", "time": "2020-01-01", "a": None, "post": None, "tags": [], "list": None},
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "a")
    (tmp_path / "b").write_bytes(json_lines(*records))
    wanted = mapping(
        post_id="id", author="a.u.name", author_handle="a.u.id", text="post.text", hashtags="tags.t",
        places="post.tags", mentions="list",
    )  # fmt: skip
    labels = ["list", "a.u.id"]
    table = sources.source("table")
    assert table.columns(exports.files(tmp_path / "a")) == table.columns(exports.files(tmp_path / "b"))
    first, second = rows(tmp_path / "a", wanted, labels)
    assert (first["author"], first["text"], first["hashtags"]) == ("ann", "x", ["cats", "dogs"])
    assert (second["author"], second["hashtags"]) == (None, [])
    for one, other in zip([first, second], rows(tmp_path / "b", wanted, labels), strict=True):
        assert one | {"file": None} == other | {"file": None}


def test_text_that_is_not_utf8_costs_its_rows(tmp_path):
    texts = pa.array([b"a", b"caf\xe9", b"c"]).view(pa.string())
    listed = pa.ListArray.from_arrays([0, 1, 2, 3], pa.array([b"a", b"b", b"\xff"]).view(pa.string()))
    nested = pa.StructArray.from_arrays([pa.array([b"\xfe", b"b", b"c"]).view(pa.string())], ["x"])
    path = parquet_file(tmp_path / "a", text=texts)
    assert [row["reject"] for row in rows(path)] == [None, "not UTF-8", None]
    path = parquet_file(tmp_path / "b", tags=listed, in_=nested)
    found = rows(path, mapping(hashtags="tags", lang="in_.x"))
    assert [row["reject"] for row in found] == ["not UTF-8", None, "not UTF-8"]
    assert found[1]["hashtags"] == ["b"]


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
        pa.array([["a", "b"]] * 3, pa.list_(pa.string(), 2)),
        pa.array([[["a"], ["b"]]] * 3),
        pa.array([[b"a", b"b"]] * 3),
    ],
)
def test_what_is_no_single_text_costs_its_rows(tmp_path, values):
    found = rows(parquet_file(tmp_path / "a", odd=values), mapping(author="odd"))
    assert {row["reject"] for row in found} == {"'odd' is an object or a list, not one text (corpus.table.author)"}


@pytest.mark.parametrize(
    "values",
    [
        pa.nulls(3), pa.array([True, False, None]), pa.array([time(1, 2)] * 3), pa.array([timedelta(1)] * 3),
        pa.array([1.5, None, 2], pa.float16()), pa.array([b"\xff\x00"] * 3), pa.array([{"a": b"\xff"}] * 3),
        pa.array(["x"] * 3, pa.string_view()),
    ],
)  # fmt: skip
def test_any_type_of_a_column_is_read_or_named(tmp_path, values):
    path = parquet_file(tmp_path / "a", odd=values)
    (column,) = sources.source("table").columns(exports.files(path))[3:]
    assert outcome(lambda: len(rows(path, mapping(lang=column, hashtags=column)))) in (3, -1)


def mutated(path: Path, number: int, random: np.random.Generator) -> None:
    """A Parquet file with some bytes changed, which one depends on the number."""
    whole = pa.table(
        {
            "author": pa.array(["ann", "bob"] * 50).dictionary_encode(), "text": [f"text é {n}" for n in range(100)],
            "time": pa.array([1420070400 + n for n in range(100)], pa.timestamp("s")),
            "tags": [["a", "b"], [], None, ["c"]] * 25, "user": [{"name": [{"x": str(n)}]} for n in range(100)],
            "id": pa.array(range(100), pa.decimal128(20, 0)),
        }
    )  # fmt: skip
    pq.write_table(whole, path, compression=["none", "zstd", "snappy"][number % 3], row_group_size=40)
    data = bytearray(path.read_bytes())
    for place in random.integers(4, len(data) - 4, random.integers(1, 6)):
        data[place] = random.integers(256)
    path.write_bytes(data)


def outcome(work: Callable[[], Any]) -> int:
    """How many rows there are; -1 where there is a line on why there are none, -2 where that is no line."""
    try:
        return int(work())
    except UserError as error:
        return -1 if str(error).isprintable() else -2


def test_no_mutation_of_a_parquet_file_gives_a_traceback(tmp_path):
    random = np.random.default_rng(0)
    table = sources.source("table")
    wanted = mapping(hashtags="tags", lang="user.name.x", post_id="id")
    read: list[int] = []
    file = File.of(tmp_path / "a")

    def count() -> int:
        return sum(len(chunk.rows) for chunk in table._parquet_chunks(file, table._wanted(wanted, []), None))

    for number in range(400):
        mutated(file.path, number, random)
        read.append(outcome(count))
        if number % 20 == 0:
            assert read[-1] == outcome(lambda: len(rows(file.path, wanted)))
    assert -2 not in read
    assert 40 < read.count(-1) < 360
    assert 100 in read
