"""What stands in the cells of a table for no value, for a list, for an id, and for a repost."""

import csv
import json
from pathlib import Path
from typing import Any

import exports
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ntulm.corpus.config import TableMapping
from ntulm.corpus.records import read_export

Row = dict[str, Any]
OTHERS = {"reposted_id": "of", "reply_to_post": "to", "quoted_post": "quoted", "reposted_author": "of_user"}
LISTED = {"hashtags": "tags", "mentions": "users", "urls": "links", "places": "places", "cashtags": "cash"}
FORMS = ("csv", "jsonl", "parquet")


def mapping(**changes: Any) -> TableMapping:
    fixed = {"created_at": "time", "text": "text", "author": "author", "casefold_users": True}
    return TableMapping.model_validate({**fixed, **changes})


def post(number: int, **changes: Any) -> Row:
    return {
        "id": str(number),
        "time": f"2020-01-01T00:0{number}:00Z",
        "author": "ann",
        "text": f"text {number}",
    } | changes


def written(path: Path, form: str, *records: Row) -> Path:
    """The same records as a file of one of FORMS."""
    if form == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(list(records)), path)
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([records[0].keys(), *(record.values() for record in records)])
    return path


def rows(path: Path, **columns: str) -> list[Row]:
    return [
        row for batch in exports.batches(path, "table", mapping(post_id="id", **columns)) for row in batch.to_pylist()
    ]


def posts(path: Path, **columns: str) -> list[Row]:
    """The posts that become of a table, with what their texts say."""
    with read_export(str(path), "table", mapping(post_id="id", **columns), [], "id", path.parent / "spill") as reading:
        found = reading.connection.sql("SELECT * FROM post ORDER BY created_at, post_id")
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


# No value


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("none", ["NA", "N/A", "None", "nan", "NaN", "null", "NULL", r"\N", "<NA>", "NaT", ""])
def test_no_value_as_other_programs_write_it(tmp_path, form, none):
    cells = {column: none for column in (*OTHERS.values(), *LISTED.values(), "seen", "lang")}
    path = written(tmp_path / "a", form, post(1, **cells), post(2, **cells))
    for row in rows(path, **OTHERS, **LISTED, visibility="seen", lang="lang"):
        assert (row["reject"], row["is_repost"], row["reposted"]) == (None, False, None)
        assert all(row[name] is None for name in (*LISTED, "reply_to_post", "quoted_post", "visibility", "lang"))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("none", ["0", "-1", "0.0", "-1.0"])
def test_the_post_zero_is_none(tmp_path, form, none):
    path = written(tmp_path / "a", form, post(0, of=none, to=none, quoted=none))
    (row,) = rows(path, reposted_id="of", reply_to_post="to", quoted_post="quoted")
    assert (row["post_id"], row["is_repost"], row["reply_to_post"], row["quoted_post"]) == ("0", False, None, None)


@pytest.mark.parametrize("none", ["NA", "None", "nan", "NaN", "NULL", r"\N", "<NA>"])
def test_an_author_and_a_text_that_are_no_value(tmp_path, none):
    path = written(tmp_path / "a", "csv", post(1, author=none), post(2, text=none), post(3, time=none))
    assert [[row["author"], row["text"], row["reject"]] for row in rows(path)] == [
        [None, "text 1", None], ["ann", None, None], ["ann", "text 3", None],
    ]  # fmt: skip
    with read_export(str(path), "table", mapping(), [], "id", tmp_path / "spill") as reading:
        found = reading.connection.sql("SELECT reject FROM record WHERE reject IS NOT NULL ORDER BY line")
        assert [reason for (reason,) in found.fetchall()] == ["no author", "no text", "no date"]


@pytest.mark.parametrize("name", ["none", "null", "Na", "nAn", "n/a"])
def test_an_author_and_a_text_that_are_called_so(tmp_path, name):
    (row,) = rows(written(tmp_path / "a", "csv", post(1, author=name, text=name)))
    assert (row["author"], row["text"]) == (name.lower(), name)


def test_a_hashtag_in_a_text_may_be_called_none(tmp_path):
    path = written(tmp_path / "a", "csv", post(1, text="#none of #NA", tags="NA"), post(2, tags="none"))
    assert [set(found["hashtags"]) for found in posts(path, hashtags="tags")] == [{"none", "na"}, {"none"}]


# Lists


@pytest.mark.parametrize("form", FORMS)
def test_where_a_cell_of_a_list_is_empty_the_text_is_read(tmp_path, form):
    text = "#t for @bob https://a.example"
    empty, brackets = {"tags": "", "users": "", "links": ""}, {"tags": "[]", "users": "[]", "links": "[]"}
    path = written(tmp_path / "a", form, post(1, text=text, **empty), post(2, text=text, **brackets))
    found = posts(path, hashtags="tags", mentions="users", urls="links")
    assert [(one["hashtags"], one["mentions"], one["urls"]) for one in found] == [
        (["t"], ["bob"], ["https://a.example"]), ([], [], []),
    ]  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "cell", ["#a#b", "#a #b", "(a, b)", "('a', 'b')", "('#a', '#b')", "{a,b}", "＃a＃b", "['a' 'b']"]
)
def test_lists_as_other_programs_write_them(tmp_path, form, cell):
    (row,) = rows(written(tmp_path / "a", form, post(1, tags=cell)), hashtags="tags")
    assert row["hashtags"] == ["a", "b"]


def test_links_and_places_in_round_brackets(tmp_path):
    links, places = "('https://a.example/x_(y)', 'https://b.example/#c')", "('New York', \"Rome\")"
    (row,) = rows(written(tmp_path / "a", "csv", post(1, links=links, at=places)), urls="links", places="at")
    assert row["urls"] == ["https://a.example/x_(y)", "https://b.example/#c"]
    assert row["places"] == ["New York", "Rome"]


# Reposts


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("id_of", ["7", ""])
def test_of_an_original_that_is_cut_in_its_repost(tmp_path, form, id_of):
    """Also where the lists of the repost have the half hashtag, and whose post it is."""
    cut = {"text": "RT @bob: hello #whole it ends with #Hal…", "flag": "1", "of": id_of, "of_user": "Bob"}
    lists = {"tags": "whole #hal", "users": "bob eve"}
    path = written(tmp_path / "a", form, post(1, **cut, **lists))
    columns = {"repost_flag": "flag", "reposted_id": "of", "reposted_author": "of_user"}
    for listed in ({}, {"hashtags": "tags", "mentions": "users"}):
        (original,) = posts(path, **columns, **listed)
        assert (original["text"], original["author"]) == ("hello #whole it ends with", None)
        assert (original["hashtags"], original["recovered"]) == (["whole"], True)
        assert original["mentions"] == (["eve"] if listed else [])
        assert not id_of or original["post_id"] == id_of


def test_of_an_original_that_is_whole_in_its_repost(tmp_path):
    whole = {"text": "RT @bob: hello #whole", "of": "7", "of_user": "Bob"}
    (original,) = posts(written(tmp_path / "a", "csv", post(1, **whole)), reposted_id="of", reposted_author="of_user")
    assert (original["text"], original["author"], original["hashtags"]) == ("hello #whole", "bob", ["whole"])
    assert original["mentions"] == []


def test_a_flag_alone_and_a_cut_text(tmp_path):
    (original,) = posts(
        written(tmp_path / "a", "csv", post(1, text="RT @bob: so #on and #of…", flag="true")), repost_flag="flag"
    )
    assert (original["text"], original["hashtags"], original["author"]) == ("so #on and", ["on"], None)


def test_a_text_without_head_that_ends_in_dots_is_whole(tmp_path):
    (original,) = posts(written(tmp_path / "a", "csv", post(1, text="well #then…", of="7")), reposted_id="of")
    assert (original["text"], original["hashtags"]) == ("well #then…", ["then"])


# Ids


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "rounded", ["1.37642E+18", "1.376420000000000e+18", "1.4E18", "1,4E+18", "1e+18", "1" * 18 + ".0"]
)
def test_a_rounded_number_is_no_id(tmp_path, capsys, form, rounded):
    whole = post(1, id="1376420000000000001", text="original", of="", to="")
    cut = [post(number, id=rounded, of="", to=rounded) for number in (2, 3)]
    repost = post(4, text="RT @one: original", of=rounded, to="")
    path = written(tmp_path / "a", form, whole, *cut, repost, post(5, author=rounded, of="", to=""))
    columns = {"reposted_id": "of", "reply_to_post": "to"}
    found = rows(path, **columns)
    assert [row["post_id"] for row in found] == ["1376420000000000001", None, None, "4", None]
    assert [row["reply_to_post"] for row in found] == [None] * 5
    assert [row["is_repost"] for row in found] == [False, False, False, True, None]
    assert found[3]["reposted"]["post_id"] is None
    assert [row["reject"] for row in found] == [None] * 4 + ["author is a rounded number, no id"]
    said = capsys.readouterr().err
    assert "'id' (corpus.table.post_id) holds rounded numbers, as 1.37642E+18, in 2 records: they are no ids" in said
    assert "'author' (corpus.table.author) holds rounded numbers" in said
    texts = [(one["text"], one["recovered"]) for one in posts(path, **columns)]
    assert texts == [("original", False), ("text 2", False), ("text 3", False)]


def test_numbers_of_json_and_parquet_that_are_rounded(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text(json.dumps([post(1, id=1.37642e18), post(2, id=1.37642e18), post(3, id=12.0)]))
    assert [row["post_id"] for row in rows(tmp_path / "a.jsonl")] == [None, None, "12"]
    written(tmp_path / "b", "parquet", post(1, id=1.37642e18), post(2, id=float(1 << 53)), post(3, id=None))
    assert [row["post_id"] for row in rows(tmp_path / "b")] == [None, str(1 << 53), None]
    assert capsys.readouterr().err.count("rounded numbers") == 2


@pytest.mark.parametrize("name", ["1e5", "9e10", "5.5", "v1.0", "a.b", "12.5e", "0x1.8p3"])
def test_ids_that_look_like_rounded_numbers(tmp_path, capsys, name):
    (row,) = rows(written(tmp_path / "a", "csv", post(1, id=name, author=name)))
    assert (row["post_id"], row["author"], row["reject"], capsys.readouterr().err) == (name, name, None, "")


def test_a_whole_number_with_a_point_is_the_number(tmp_path):
    record = post(1, id="17.0", author="44196397.0", to="16.0", users="5.0 6")
    (row,) = rows(written(tmp_path / "a", "csv", record), reply_to_post="to", mentions="users")
    assert (row["post_id"], row["author"], row["reply_to_post"]) == ("17", "44196397", "16")
    assert row["mentions"] == ["5", "6"]
