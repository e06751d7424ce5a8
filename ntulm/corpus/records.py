"""From an export to a database of its posts, engagements and labels: what the stage corpus, `ntulm inspect` and the
check of arriving posts have in common.

Library of `ntulm/corpus`; the SQL files beside it say what a record becomes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import ARROW, SPECIAL

from ntulm import pseudonyms, text
from ntulm.corpus import forget, people
from ntulm.corpus.forget import Entry
from ntulm.corpus.people import People
from ntulm.corpus.sources import formats
from ntulm.corpus.sources.formats import Detection
from ntulm.corpus.sources.lines import side_by_side
from ntulm.pseudonyms import from_environment
from ntulm.resources import duckdb_memory
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import Corpus, TableMapping

HERE = Path(__file__).parent
MOST_MEMORY = "2GB"  # DuckDB spills to disk beyond this, or beyond its share of what there is; it changes no result

Counts = dict[str, int]
Connection = duckdb.DuckDBPyConnection

MOST_REASONS, OTHER = 20, "other reasons"
FATES = ("posts", "reposts", "duplicates", "filtered", "left_out", "rejects")  # each record has one of them
ASIDES = ("people", "deleted_post", "deleted_author", "restored_author")  # what a record says beside its post

_STRINGS = pa.list_(pa.string())


@dataclass(frozen=True)
class Privacy:
    """What of users must not get behind the corpus."""

    pseudonyms: bool
    forget: Sequence[Entry]

    @classmethod
    def of(cls, config: Corpus) -> Privacy:
        """As the section `corpus` wants it."""
        return cls(config.pseudonyms, forget.read(Path(config.forget)))


ALL_SHOWN = Privacy(False, ())


@dataclass(frozen=True)
class Reader:
    """An export that was read."""

    connection: Connection  # its posts, engagements and labels
    counts: Counts  # fates of its records
    detection: Detection
    reading: Reading
    notes: list[str]  # what has to be said of how it was opened
    people: People


@contextmanager
def read_export(
    path: str | Path,
    format_name: str,
    mapping: TableMapping | None,
    languages: list[str],
    duplicates: str,
    spill: Path,
    privacy: Privacy = ALL_SHOWN,
    labels: Sequence[str] = (),
) -> Iterator[Reader]:
    """The posts, engagements and labels of an export as tables of a database, and the fates of its records.

    Args:
        path: a file or a folder of raw exports.
        format_name: of them, or `auto`.
        mapping: of a table's columns; other formats take none.
        languages: codes to keep, empty for all.
        duplicates: `id`, or `text` for posts of the same text too.
        spill: a folder that need not be there, for what does not fit the memory.
        privacy: whose posts are not read, and whether users get pseudonyms.
        labels: columns of a table, or paths in the records of another format.
    """
    with formats.opened(path, spill) as export:
        detection = formats.detect(export, format_name)
        reading = formats.source(detection.format).facts(mapping)
        if privacy.pseudonyms:
            reading = replace(reading, pseudonyms=from_environment(reading).fingerprint)
        with workspace(spill, reading) as connection:
            add_records(connection, formats.read(detection, mapping, labels), languages)
            forget.mark(connection, privacy.forget, pseudonyms.of(reading))
            counts = resolve(connection, duplicates)
            people.join(connection)
            forget.unname(connection)
            found = people.count(connection)
            people.hide(connection, pseudonyms.of(reading))
            yield Reader(connection, counts, detection, reading, export.notes, found)


@contextmanager
def workspace(spill: Path, reading: Reading) -> Iterator[Connection]:
    """A database in memory that spills into `spill`, with the functions, patterns and the table of the SQL files."""
    functions = _functions(reading)
    settings: dict[str, Any] = {"memory_limit": duckdb_memory(MOST_MEMORY), "temp_directory": str(spill)}
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
        "cashtags_of": (of_each(text.cashtags), "VARCHAR", "VARCHAR[]"),
    }


def add_records(connection: Connection, batches: Iterable[pa.RecordBatch], languages: list[str]) -> None:
    """Fill the tables `record`, `person`, `gone_post` and `account_event` from batches of RAW_SCHEMA.

    The records are numbered in the order in which they were read.
    """
    statement, asides = ((HERE / name).read_text(encoding="utf-8") for name in ("records.sql", "asides.sql"))

    def insert(cursor: Connection, batch: pa.RecordBatch) -> None:
        cursor.register("batch", pa.Table.from_batches([batch]))
        cursor.execute(statement, {"languages": languages})
        if any(batch.column(name).null_count < batch.num_rows for name in ASIDES):
            cursor.execute(asides)

    for _ in side_by_side(connection, insert, _numbered(batches)):
        pass


def _numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    read = 0
    for batch in batches:
        yield batch.append_column("ordinal", pa.array(np.arange(read, read + batch.num_rows)))
        read += batch.num_rows


def resolve(connection: Connection, duplicates: str) -> Counts:
    """`record` to `post`, `engagement` and `label`; the fates of the records, which add up to what was read."""
    connection.execute("SET VARIABLE by_text = $by_text", {"by_text": duplicates == "text"})
    is_any_gone = _is_any(connection, "gone_post", "gone_author", "account_event")
    for name, needed in (("gone.sql", is_any_gone), ("posts.sql", True)):
        if needed:
            connection.execute((HERE / name).read_text(encoding="utf-8"))
    counts = dict(zip(("read", *FATES, "recovered"), row(connection, "SELECT * FROM fates"), strict=True))
    assert counts["read"] == sum(counts[name] for name in FATES), counts
    return counts


def _is_any(connection: Connection, *tables: str) -> bool:
    return any(connection.table(table).limit(1).fetchall() for table in tables)


def reasons(connection: Connection, column: Literal["reject", "left_out"]) -> list[tuple[str, int, str, int]]:
    """Why records are rejects or left out, the most frequent reason first: reason, records, file and line of the first.

    A source's words can be as many as its records: the rarest are one reason, `OTHER`.
    """
    statement = (HERE / "reasons.sql").read_text(encoding="utf-8")
    return connection.execute(
        statement, {"is_reject": column == "reject", "most": MOST_REASONS, "other": OTHER}
    ).fetchall()


def row(connection: Connection, query: str, values: dict[str, Any] | None = None) -> tuple[Any, ...]:
    """The first row of a query's result; nothing is left unfetched, so that the connection stays free."""
    rows: list[tuple[Any, ...]] = connection.execute(query, values).fetchall()
    return rows[0]
