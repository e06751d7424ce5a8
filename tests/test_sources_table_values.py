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
