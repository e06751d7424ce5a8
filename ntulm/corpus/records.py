"""From an export to a database of its posts, engagements and labels: what the stage corpus, `ntulm inspect` and the
check of arriving posts have in common.

Library of `ntulm/corpus`; the SQL files beside it say what a record becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import ARROW, SPECIAL

from ntulm import text
from ntulm.corpus.sources import formats
from ntulm.corpus.sources.formats import Detection
from ntulm.corpus.sources.lines import side_by_side
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

HERE = Path(__file__).parent
MEMORY_LIMIT = "2GB"  # DuckDB spills to disk beyond this; it changes no result

Counts = dict[str, int]
Connection = duckdb.DuckDBPyConnection

_STRINGS = pa.list_(pa.string())


@dataclass(frozen=True)
class Reader:
    """An export that was read."""

    connection: Connection  # its posts, engagements and labels
    counts: Counts  # fates of its records
    detection: Detection
    reading: Reading
    notes: list[str]  # what has to be said of how it was opened


@contextmanager
def read_export(
    path: str | Path,
    format_name: str,
    mapping: TableMapping | None,
    languages: list[str],
    duplicates: str,
    spill: Path,
) -> Iterator[Reader]:
    """The posts, engagements and labels of an export as tables of a database, and the fates of its records.

    Args:
        path: a file or a folder of raw exports.
        format_name: of them, or `auto`.
        mapping: of a table's columns; other formats take none.
        languages: codes to keep, empty for all.
        duplicates: `id`, or `text` for posts of the same text too.
        spill: a folder that need not be there, for what does not fit the memory.
    """
    with formats.opened(path, spill) as export:
        detection = formats.detect(export, format_name)
        reading = formats.source(detection.format).facts(mapping)
        with workspace(spill, reading) as connection:
            add_records(connection, formats.read(detection, mapping), languages)
            counts = resolve(connection, duplicates)
            yield Reader(connection, counts, detection, reading, export.notes)


@contextmanager
def workspace(spill: Path, reading: Reading) -> Iterator[Connection]:
    """A database in memory that spills into `spill`, with the functions, patterns and the table of the SQL files."""
    functions = _functions(reading)
    settings: dict[str, Any] = {"memory_limit": MEMORY_LIMIT, "temp_directory": str(spill)}
    with duckdb.connect(config=settings) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, (function, takes, gives) in functions.items():
            connection.create_function(name, function, [takes], gives, type=ARROW, null_handling=SPECIAL)
        for name, pattern in text.SQL_PATTERNS.items():
            connection.execute(f"CREATE MACRO {name}() AS '{pattern}'")
        connection.execute((HERE / "tables.sql").read_text(encoding="utf-8"))
        try:
            yield connection
        finally:
            with suppress(duckdb.Error):  # a query that was left unfinished: its own error is the one to see
                for name in functions:
                    connection.remove_function(name)


def _functions(reading: Reading) -> dict[str, tuple[Callable[[pa.ChunkedArray], pa.Array], str, str]]:
    """Name -> function, what it takes, what it gives. What they are given is not null."""

    def of_each(function: Callable[[Any], list[str]]) -> Callable[[pa.ChunkedArray], pa.Array]:
        return lambda values: pa.array([function(value) for value in values.to_pylist()], _STRINGS)

    def users(value: str) -> list[str]:
        return [text.user_key(name, reading.casefold_users) for name in text.mentions(value, reading.mention_hosts)]

    def unescaped(values: pa.ChunkedArray) -> pa.Array:
        return pa.array([text.unescaped(value) for value in values.to_pylist()], pa.string())

    def normal(tags: list[str | None]) -> list[str]:
        return [text.normalise(tag) for tag in tags if tag is not None]

    return {
        "unescape_html": (unescaped, "VARCHAR", "VARCHAR"),
        "normal_hashtags": (of_each(normal), "VARCHAR[]", "VARCHAR[]"),
        "hashtags_of": (of_each(text.extract), "VARCHAR", "VARCHAR[]"),
        "mentions_of": (of_each(users), "VARCHAR", "VARCHAR[]"),
        "links_of": (of_each(text.links), "VARCHAR", "VARCHAR[]"),
    }


def add_records(connection: Connection, batches: Iterable[pa.RecordBatch], languages: list[str]) -> None:
    """Fill the table `record` from batches of RAW_SCHEMA, numbered in the order in which they were read."""
    statement = (HERE / "records.sql").read_text(encoding="utf-8")

    def insert(cursor: Connection, batch: pa.RecordBatch) -> None:
        cursor.register("batch", pa.Table.from_batches([batch]))
        cursor.execute(statement, {"languages": languages})

    for _ in side_by_side(connection, insert, _numbered(batches)):
        pass


def _numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    read = 0
    for batch in batches:
        yield batch.append_column("ordinal", pa.array(np.arange(read, read + batch.num_rows)))
        read += batch.num_rows


def resolve(connection: Connection, duplicates: str) -> Counts:
    """`record` to `post`, `engagement` and `label`; the fates of the records, which add up to what was read."""
    statements = (HERE / "posts.sql").read_text(encoding="utf-8")
    connection.execute("SET VARIABLE by_text = $by_text", {"by_text": duplicates == "text"})
    connection.execute(statements)
    names = ("read", "posts", "reposts", "duplicates", "filtered", "rejects", "recovered")
    counts = dict(zip(names, row(connection, "SELECT * FROM fates"), strict=True))
    assert counts["read"] == sum(counts[name] for name in names[1:6]), counts
    return counts


def row(connection: Connection, query: str, values: dict[str, Any] | None = None) -> tuple[Any, ...]:
    """The first row of a query's result; nothing is left unfetched, so that the connection stays free."""
    rows: list[tuple[Any, ...]] = connection.execute(query, values).fetchall()
    return rows[0]
