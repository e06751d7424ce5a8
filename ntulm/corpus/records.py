"""From an export to a database of its posts, engagements and labels: what the stage corpus, `ntulm inspect` and the
check of arriving posts have in common.

Library of `ntulm/corpus`; the SQL files beside it say what a record becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import ARROW, SPECIAL

from ntulm import text
from ntulm.corpus.sources import formats
from ntulm.corpus.sources.lines import side_by_side
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

HERE = Path(__file__).parent
MEMORY_LIMIT = "2GB"  # DuckDB spills to disk beyond this; it changes no result

Counts = dict[str, int]
Connection = duckdb.DuckDBPyConnection

_STRINGS = pa.list_(pa.string())


@contextmanager
def read_export(
    path: Path, name: str, mapping: TableMapping | None, languages: list[str], duplicates: str, spill: Path
) -> Iterator[tuple[Connection, Counts]]:
    """The posts, engagements and labels of an export as tables of a database, and the fates of its records.

    Args:
        path: a file or a folder of raw exports.
        name: of their format.
        mapping: of a table's columns; other formats take none.
        languages: codes to keep, empty for all.
        duplicates: `id`, or `text` for posts of the same text too.
        spill: a folder that need not be there, for what does not fit the memory.
    """
    with workspace(spill, reading_of(name, mapping)) as connection:
        add_records(connection, formats.read(path, name, mapping), languages)
        yield connection, resolve(connection, duplicates)


def reading_of(name: str, mapping: TableMapping | None) -> Reading:
    """How a source of that format writes users and texts."""
    if name == "table" and mapping is not None:
        # A column of mentions changes nothing: where a record gives none, its text is read.
        return Reading(mapping.casefold_users, mapping.mention_hosts, mapping.html, mentions_in_text=True)
    # Users of tweets are ids: a handle in the text would be a second key of the same user.
    return Reading(
        casefold_users=name == "synthetic", mention_hosts=False, html=False, mentions_in_text=name != "twitter_v1"
    )


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
