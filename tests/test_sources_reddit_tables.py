"""Reddit as a table: CSV and Parquet with a column for each field."""

import csv
import json
from pathlib import Path
from typing import Any

import exports
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

NAMES = ["id", "author", "created_utc", "subreddit"]
SUBMISSIONS = [
    ["s1", "Ann", "1714521600", "Birds", "What flies", "A goose,\nsays u/bob", ""],
    ["s2", "[deleted]", "1714521600", "Birds", "What swims", "A duck", ""],
    ["s3", "Ann", "1714521600", "Birds", "What runs", "[removed]", ""],
    ["s4", "Ann", "1714521600", "Birds", "A link", "", "https://example.org/a"],
]
COMMENTS = [
    ["c1", "Bob", "2024-05-01 00:00:00", "Birds", "A goose.", "t3_s1"],
    ["c2", "Bob", "2024-05-01 00:00:00", "Birds", "[removed]", "t3_s1"],
]
TABLES = [([*NAMES, "title", "selftext", "url"], SUBMISSIONS), ([*NAMES, "body", "parent_id"], COMMENTS)]


def written(folder: Path, names: list[str], rows: list[list[str]], kind: str) -> Path:
    file = folder / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({name: [row[place] or None for row in rows] for place, name in enumerate(names)}), file)
    elif kind == "json":
        file.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows]), encoding="utf-8")
    else:
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([names, *rows])
    return file


def read(file: Path, labels: list[str] | None = None) -> list[dict[str, Any]]:
    assert exports.detect(file) == "reddit"
    return [row for batch in exports.batches(file, labels=labels or []) for row in batch.to_pylist()]


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_submissions_as_a_table(tmp_path, kind):
    first, nobody, removed, link = read(written(tmp_path, *TABLES[0], kind))
    assert (first["post_id"], first["text"]) == ("t3_s1", "What flies\n\nA goose,\nsays u/bob")
    assert (first["author"], first["community"], first["mentions"]) == ("ann", "Birds", ["bob"])
    assert nobody["left_out"] == removed["left_out"] == "deleted or removed"
    assert (link["text"], link["urls"]) == ("A link", ["https://example.org/a"])


@pytest.mark.parametrize("kind", ["csv", "parquet", "json"])
def test_comments_as_a_table(tmp_path, kind):
    first, removed = read(written(tmp_path, *TABLES[1], kind))
    assert (first["post_id"], first["text"], first["reply_to_post"]) == ("t1_c1", "A goose.", "t3_s1")
    assert first["created_at"].isoformat() == "2024-05-01T00:00:00+00:00"
    assert (removed["left_out"], removed["deleted_post"]) == ("deleted or removed", "t1_c2")


def test_the_text_of_a_submission_may_be_its_body(tmp_path):
    names, rows = [*NAMES, "title", "body"], [["s1", "Ann", "1714521600", "Birds", "What flies", "A goose"]]
    (row,) = read(written(tmp_path, names, rows, "csv"))
    assert (row["post_id"], row["text"]) == ("t3_s1", "What flies\n\nA goose")


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_labels_are_columns(tmp_path, kind):
    names, rows = [*NAMES, "body", "stance"], [["c1", "Bob", "1714521600", "Birds", "A goose.", "for"]]
    (row,) = read(written(tmp_path, names, rows, kind), ["stance"])
    assert row["labels"] == [{"field": "stance", "value": "for"}]


def test_a_row_with_too_few_columns_is_a_reject(tmp_path):
    file = written(tmp_path, *TABLES[1], "csv")
    with file.open("a", encoding="utf-8") as stream:
        stream.write("c9,Bob\n")
    assert [row["reject"] for row in read(file)] == [None, None, "wrong number of columns"]


def test_objects_in_parquet_are_read(tmp_path):
    row = {"id": "c1", "author": {"name": "Bob"}, "created_utc": 1714521600, "subreddit": "Birds", "body": "A goose."}
    rows = [row, {**row, "id": "c2", "_meta": {"removal_type": "deleted"}}]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema({
        "id": pa.string(), "author": pa.struct({"name": pa.string()}), "created_utc": pa.int64(),
        "subreddit": pa.string(), "body": pa.string(), "_meta": pa.struct({"removal_type": pa.string()}),
    })), tmp_path / "a.parquet")  # fmt: skip
    kept, gone = read(tmp_path / "a.parquet")
    assert (kept["author"], kept["left_out"], gone["left_out"]) == ("bob", None, "deleted or removed")


@pytest.mark.parametrize(
    ("names", "row"),
    [
        (["author", "created_utc", "subreddit", "title"], ["Ann", "1714521600", "Birds", "What"]),  # whose id?
        ([*NAMES, "title"], ["s1", "Ann", "05/13/2024 10:00", "Birds", "What"]),  # a mapping has to say how
        ([*NAMES, "score"], ["s1", "Ann", "1714521600", "Birds", "3"]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_other_tables_stay_tables(tmp_path, names, row, kind):
    assert exports.detect(written(tmp_path, names, [row], kind)) == "table"
