"""JSON records by SQL: what the JSON formats have in common.

Library of the sources; not a format. DuckDB parses each record with a given structure, never a guessed one: a record
that is not as it should be costs itself and nothing else. A format says, in SQL, which column of RAW_SCHEMA is what.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import duckdb
import pyarrow as pa

from ntulm.corpus.sources import json_paths
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import conformed
from ntulm.corpus.sources.label_paths import LabelPaths
from ntulm.corpus.sources.lines import record_lines, side_by_side

Connection = duckdb.DuckDBPyConnection

# What `query` starts from: `record` is the parsed value, null where it could not be parsed; `unread` says why.
_PARSED = """
WITH read AS (
    SELECT file, line, content, reject, CASE WHEN reject IS NULL THEN TRY(from_json(content, $structure)) END AS record
    FROM lines
), parsed AS (
    SELECT file, line, content, record, CASE
        WHEN reject IS NOT NULL THEN reject
        WHEN record IS NULL THEN CASE WHEN json_valid(content) THEN 'not a post object' ELSE 'invalid JSON' END
    END AS unread FROM read
)
"""


def read_json(
    files: Sequence[File],
    structure: Any,
    macros: str,
    query: str,
    items: tuple[str, ...] = (),
    tables: Mapping[str, pa.Table] | None = None,
    values: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    lines: Iterator[pa.Table] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Every record of the files as batches of RAW_SCHEMA.

    Args:
        files: of one format.
        structure: of a record, as `from_json` of DuckDB takes it, in Python values.
        macros: SQL that defines what `query` uses.
        query: SQL that goes on after `WITH …, parsed AS (file, line, content, record, unread)`, with a comma or a
            SELECT, and gives `file`, `line`, `reject` and any other columns of RAW_SCHEMA, in the order of `parsed`.
            It must pass `unread` on as `reject`.
        items: keys of a JSON document (`{"orderedItems": [...]}`) whose lists hold its records; a document without
            any of them is one record.
        tables: that `query` uses, by name.
        values: what `query` names beside `$structure`.
        labels: paths to labels in the records.
        lines: the records as `record_lines` gives them, where they do not lie in the files as JSON.
    """
    for table in query_json(files, structure, macros, query, items, tables, values, labels, lines):
        yield from conformed(table).to_batches()


def query_json(
    files: Sequence[File],
    structure: Any,
    macros: str,
    query: str,
    items: tuple[str, ...] = (),
    tables: Mapping[str, pa.Table] | None = None,
    values: Mapping[str, Any] | None = None,
    labels: Sequence[str] = (),
    lines: Iterator[pa.Table] | None = None,
) -> Iterator[pa.Table]:
    """What `query` gives of the records, whatever its columns; the arguments are those of `read_json`."""
    given = {"structure": json.dumps(structure), **(values or {})}
    paths = LabelPaths(labels)

    def parsed(connection: Connection, block: pa.Table) -> pa.Table:
        connection.register("lines", block)  # one core, so the rows come back in their order
        rows = connection.sql(_PARSED + query, params=given).to_arrow_table()
        return paths.added(connection, block, conformed(rows)) if labels else rows

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name, table in (tables or {}).items():
            connection.register("given", table)
            connection.execute(f'CREATE TABLE "{name}" AS FROM given')  # of the database, so that all cursors see it
        connection.execute(macros + json_paths.MACROS)
        yield from side_by_side(connection, parsed, record_lines(files, items) if lines is None else lines)
    paths.judge()
