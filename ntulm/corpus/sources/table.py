"""Any table of posts, CSV (`,` tab `;` or `|`), JSON or Parquet, read through a column mapping (`corpus.table`).

Every value is taken as a string first and made into its type in one place: three formats, one meaning. What the table
has no column for is null, and hashtags, mentions and links are then taken from the text.

A column of JSON is a key, or a path through objects and lists of objects: `author.handle`, `tags.name`; so is one of
nested Parquet.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ntulm.corpus.sources import csv_records, formats, json_paths, parquet_columns, table_values
from ntulm.corpus.sources.content import HEAD_BYTES, head
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import Sample
from ntulm.corpus.sources.json_paths import Extraction
from ntulm.corpus.sources.lines import record_lines, side_by_side
from ntulm.corpus.sources.table_values import LABEL, LISTS, SINGLES, SPLITTERS
from ntulm.errors import UserError
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

BATCH_ROWS = 1 << 16
LIKELY = 0.5  # what has columns is a table, unless another format knows better
SAMPLED_FILES, SAMPLED_BYTES = 32, 1 << 20  # that columns are looked for in, of a file
SHOWN_COLUMNS = 60  # in a message
Connection = duckdb.DuckDBPyConnection


@dataclass(frozen=True)
class Chunk:
    """Some rows before their values are made into types."""

    rows: pa.Table  # file, line, reject, and strings or lists of strings; JSON `content`, or `nested` structs
    extraction: Extraction | None  # of what is in those
    time_format: str | None


def confidence(sample: Sample) -> float:
    """Likely for a Parquet file, JSON objects or a header with several columns."""
    if _kind(sample.head) != "csv":
        return LIKELY
    try:  # the last character may be cut
        first = codecs.getincrementaldecoder("utf-8-sig")().decode(sample.head.lstrip(b"\r\n").split(b"\n", 1)[0])
    except UnicodeDecodeError:
        return 0.0
    if csv_records.SEPARATOR_LINE.fullmatch(first):
        return LIKELY
    printable = first.strip().replace("\t", "").isprintable()
    return LIKELY if printable and any(sign in first for sign in csv_records.DELIMITERS) else 0.0


def facts(mapping: TableMapping | None) -> Reading:
    """As the mapping says. A column of mentions changes nothing: where a record gives none, its text is read."""
    if mapping is None:
        return Reading(casefold_users=False, mention_hosts=False, html=False, mentions_in_text=True)
    return Reading(mapping.casefold_users, mapping.mention_hosts, mapping.html, mentions_in_text=True)


def columns(files: Sequence[File]) -> list[str]:
    """The names of the columns, in their order: of JSON, the paths in a sample from all files."""
    kinds = [(file, _kind(head(file, HEAD_BYTES))) for file in _spread(files)]
    found: dict[str, None] = {}
    if records := [record for file, kind in kinds if kind == "json" for record in _sampled(file)]:
        found |= dict.fromkeys(json_paths.paths(records))
    for file, kind in kinds:
        if kind == "parquet":
            found |= dict.fromkeys(parquet_columns.columns(parquet_columns.opened(file).schema_arrow))
        elif kind == "csv":
            found |= dict.fromkeys(csv_records.Table(file).header)
    return [column for column in found if column.strip()]


def _spread(files: Sequence[File]) -> list[File]:
    """Some of the files, from all over."""
    most = min(len(files), SAMPLED_FILES)
    return [files[place * len(files) // most] for place in range(most)]


def _sampled(file: File) -> Iterator[dict[str, Any]]:
    """Records from the beginning of a file, and from its middle where that can be reached without the rest."""
    start = head(file, SAMPLED_BYTES)
    yield from formats.objects(start)
    size = file.path.stat().st_size
    with file.path.open("rb") as stream:
        if size <= len(start) or stream.read(HEAD_BYTES) != start[:HEAD_BYTES]:
            return  # all of it, or compressed
        for part in range(1, 8):
            stream.seek(size * part // 8)
            stream.readline(SAMPLED_BYTES)
            yield from formats.objects(stream.read(HEAD_BYTES))


def read(files: Sequence[File], mapping: TableMapping | None, labels: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Every row of the files in RAW_SCHEMA.

    Raises:
        UserError: no mapping; a file is damaged, or lacks a column of the mapping; no record has a path of it.
    """
    if mapping is None:
        raise UserError(
            f"corpus.table: null, but {files[0]} is a table; say which column is what; it has {_has(files)}"
        )
    wanted = _wanted(mapping, labels)
    extraction, rounded = _extraction(wanted), table_values.Rounded()
    with duckdb.connect() as connection:
        table_values.prepare(connection, mapping.time_format)
        connection.execute(json_paths.MACROS)

        def converted(cursor: Connection, chunk: Chunk) -> pa.Table:
            def work(rows: pa.Table) -> pa.Table:
                rows = rows if chunk.extraction is None else chunk.extraction.rows(cursor, rows)
                return table_values.converted(cursor, rows, mapping, labels, chunk.time_format, rounded)

            return table_values.sparing(work, chunk.rows)

        for table in side_by_side(connection, converted, _chunks(files, wanted, mapping.time_format, extraction)):
            yield from table.to_batches()
    _judge(files, wanted, extraction)
    for name, count in rounded.counts.items():
        if count:
            said = f"table: {wanted[name]!r} ({_key(name)}) holds rounded numbers, as 1.37642E+18, in {count:,} records"
            print(f"{said}: they are no ids; write the table again with its ids as texts", file=sys.stderr)


def _chunks(
    files: Sequence[File], wanted: dict[str, str], time_format: str | None, extraction: Extraction
) -> Iterator[Chunk]:
    for kind, group in groupby(files, lambda file: _kind(head(file, HEAD_BYTES))):
        match kind:
            case "json":
                yield from (Chunk(lines, extraction, time_format) for lines in record_lines(group))
            case "parquet":
                for file in group:
                    yield from _parquet_chunks(file, wanted, time_format)
            case _:
                for file in group:
                    yield from (Chunk(rows, None, time_format) for rows in _csv_rows(file, wanted))


def _kind(start: bytes) -> str:
    if start[:4] == b"PAR1":
        return "parquet"
    bare = start.lstrip(b"\xef\xbb\xbf \r\n\t")
    return "json" if re.match(rb"\{|\[\s*[\[{]|window\.[\w.]+ = [\[{]", bare) else "csv"


def _wanted(mapping: TableMapping, labels: Sequence[str]) -> dict[str, str]:
    """Our name -> column or path, for what the mapping names; labels are `label_0`, `label_1`, …"""
    named = {name: getattr(mapping, name) for name in (*SINGLES, *LISTS)}
    wanted = {name: column for name, column in named.items() if column is not None}
    return wanted | {f"{LABEL}{place}": column for place, column in enumerate(labels)}


def _key(name: str) -> str:
    return "corpus.labels" if name.startswith(LABEL) else f"corpus.table.{name}"


def _has(files: Sequence[File], near: str = "") -> str:
    """What columns there are, those first that are nearest to a name."""
    return _listed(columns(files), near)


def _listed(names: Sequence[str], near: str = "") -> str:
    names = [name if name.isprintable() else repr(name)[1:-1] for name in names if name.strip()]
    if near and len(names) > SHOWN_COLUMNS:
        names = sorted(names, key=lambda name: -SequenceMatcher(None, near, name).ratio())
    more = len(names) - SHOWN_COLUMNS
    return ", ".join(names[:SHOWN_COLUMNS]) + (f" and {more} more" if more > 0 else "") or "no column"


def _extraction(wanted: dict[str, str], named: dict[str, str] | None = None) -> Extraction:
    """Of paths; `named` is what the mapping calls them, where that is something else."""
    named = named or wanted
    lists = {name: path for name, path in wanted.items() if name not in SINGLES}
    single = {name: path for name, path in wanted.items() if name in SINGLES}
    faults = {name: f"{named[name]!r} is an object or a list, not one text ({_key(name)})" for name in single}
    return Extraction(single, lists, faults, {name: SPLITTERS.get(name, "one_item") for name in lists}, ("lang",))


def _judge(files: Sequence[File], wanted: dict[str, str], extraction: Extraction) -> None:
    """What only the whole export tells: a path that no record has, or that leads to objects."""
    if not extraction.records:
        return
    for name in (name for name in wanted if name in extraction.unseen):
        raise UserError(
            f"{files[0]}: no record has {wanted[name]!r} ({_key(name)}); they have {_has(files, wanted[name])}"
        )
    for name, held in extraction.held_objects.items():
        if not held:
            continue
        inner = _listed([path for path in columns(files) if path.startswith(f"{wanted[name]}.")])
        said = f"{wanted[name]!r} ({_key(name)}) holds objects in {held:,} of {extraction.records:,} records"
        if name not in extraction.taken:
            raise UserError(f"{files[0]}: {said} and nothing else; expected texts: they have {inner}")
        print(f"table: {said}, of which nothing is taken; they have {inner}", file=sys.stderr)


def _require(file: File, wanted: dict[str, str], present: list[str]) -> None:
    """A UserError for a column that a file lacks."""
    for name, column in wanted.items():
        if column not in present:
            has = _listed(present, column)
            raise UserError(f"{file}: no column {column!r} ({_key(name)}); it has {has}")
        if present.count(column) > 1:
            raise UserError(f"{file}: {present.count(column)} columns {column!r}; {_key(name)} needs one")


def _rows(file: File, lines: pa.Array, reject: pa.Array, values: dict[str, pa.Array]) -> pa.Table:
    return pa.table({"file": pa.repeat(str(file), len(lines)), "line": lines, "reject": reject, **values})


# CSV


def _csv_rows(file: File, wanted: dict[str, str]) -> Iterator[pa.Table]:
    table = csv_records.Table(file)
    _require(file, wanted, table.header)
    places = {name: table.header.index(column) for name, column in wanted.items()}
    records: list[csv_records.Record] = []
    for record in table.records(places["created_at"]):
        records.append(record)
        if len(records) == BATCH_ROWS:
            yield _csv_table(file, records, places)
            records = []
    if records:
        yield _csv_table(file, records, places)


def _csv_table(file: File, records: list[csv_records.Record], places: dict[str, int]) -> pa.Table:
    records = csv_records.readable(records)
    values = {name: pa.array([row[place] for _, _, row in records], pa.string()) for name, place in places.items()}
    lines = pa.array([line for line, _, _ in records], pa.int64())
    return _rows(file, lines, pa.array([reject for _, reject, _ in records], pa.string()), values)


# Parquet


def _parquet_chunks(file: File, wanted: dict[str, str], time_format: str | None) -> Iterator[Chunk]:
    parquet = parquet_columns.opened(file)
    schema = parquet.schema_arrow
    top = {name: _top(schema, path) for name, path in wanted.items()}
    _require(file, wanted, parquet_columns.columns(schema))
    kinds = {name: schema.field(column).type for name, column in top.items()}
    # What is an object or a list goes the way of JSON, but for plain lists of what takes lists.
    nested = {name for name, kind in kinds.items() if not _is_flat(name, kind)}
    codes = {column: f"c{place}" for place, column in enumerate(dict.fromkeys(top[name] for name in sorted(nested)))}
    paths = {name: codes[top[name]] + wanted[name].removeprefix(top[name]) for name in nested}
    extraction = _extraction(paths, wanted) if nested else None
    is_time = pa.types.is_temporal(kinds["created_at"])
    line = 1
    for batch in parquet_columns.batches(file, parquet, list(dict.fromkeys(top.values())), BATCH_ROWS):
        rows = _parquet_rows(file, batch, {name: wanted[name] for name in wanted if name not in nested}, codes, line)
        line += batch.num_rows
        yield Chunk(rows, extraction, None if is_time else time_format)


def _top(schema: pa.Schema, path: str) -> str:
    """The column that a path starts with."""
    steps = path.split(".")
    starts = [".".join(steps[:length]) for length in range(len(steps), 0, -1)]
    return next((start for start in starts if start in schema.names), path)


def _is_flat(name: str, kind: pa.DataType) -> bool:
    return parquet_columns.is_plain(kind) or (
        name not in SINGLES and parquet_columns.is_list(kind) and parquet_columns.is_plain(kind.value_type)
    )


def _parquet_rows(
    file: File, batch: pa.RecordBatch, flat: dict[str, str], codes: dict[str, str], line: int
) -> pa.Table:
    faults, values = pa.repeat(False, batch.num_rows), {}
    for name, column in flat.items():
        values[name], bad = parquet_columns.strings(file, column, batch[column])
        faults = pc.or_(faults, bad)
    if codes:
        parts = [parquet_columns.without_faults(batch[column]) for column in codes]
        for _, bad in parts:
            faults = pc.or_(faults, bad)
        values["nested"] = pa.StructArray.from_arrays([part for part, _ in parts], list(codes.values()))
    reject = pc.if_else(faults, "not UTF-8", pa.scalar(None, pa.string()))
    return _rows(file, pa.array(range(line, line + batch.num_rows), pa.int64()), reject, values)
