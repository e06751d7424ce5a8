"""The first values of a table's columns: what the guess of its mapping is tried on.

Reads the beginning of some files of a table; library of `ntulm inspect`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow.parquet as pq

from ntulm.corpus.sources import csv_records
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import objects
from ntulm.corpus.sources.lines import head
from ntulm.corpus.sources.table_values import NOTHING

HEAD_BYTES = 1 << 20  # of a file
RECORDS = 1000  # of a file
FILES = 5  # spread over the export
PARQUET = b"PAR1"

Values = dict[str, list[str]]  # column -> its values that are not empty; a list of a JSON record is several, by ` `


def sampled(files: Sequence[File], columns: Sequence[str]) -> Values:
    """The values of columns at the beginning of a few files; a column that a file lacks has none there."""
    step = max(1, -(-len(files) // FILES))
    found: Values = {column: [] for column in columns}
    for file in files[::step]:
        for record in islice(_records(file, columns), RECORDS):
            for column in columns:
                value = str(record.get(column) or "").strip()
                if value and value not in NOTHING:
                    found[column].append(value)
    return found


def _records(file: File, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    start = head(file, HEAD_BYTES)
    if start[: len(PARQUET)] == PARQUET:
        yield from _parquet(file, columns)
    elif found := objects(start):
        yield from ({column: at(record, column) for column in columns} for record in found)
    else:
        yield from _csv(file)


def _csv(file: File) -> Iterator[dict[str, Any]]:
    """As the reader of the table takes it: with its delimiter, without the rows that it rejects."""
    table = csv_records.Table(file)
    for _, reject, row in islice(table.records(0), RECORDS):
        if reject is None:
            yield {name: _shown(value) for name, value in zip(table.header, row, strict=True)}


def _shown(value: str) -> str:
    """Text without what is not UTF-8: such a row is a reject, and no query takes it."""
    return value.encode("utf-8", "replace").decode()


def _parquet(file: File, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    parquet = pq.ParquetFile(file.path)
    present = [column for column in columns if column in parquet.schema_arrow.names]
    for batch in parquet.iter_batches(RECORDS, columns=present):
        for record in batch.to_pylist():
            yield {name: _text(value) for name, value in record.items()}
        return


def at(record: dict[str, Any], path: str) -> str:
    """What a path leads to in a JSON record, through objects and lists of objects; empty where that is nothing."""
    return " ".join(_found(record, path.split("."))) if path not in record else _text(record[path])


def _found(value: Any, steps: list[str]) -> list[str]:
    if isinstance(value, list):
        return [text for item in value for text in _found(item, steps)]
    if not steps:
        return [_text(value)] if value is not None else []
    return _found(value.get(steps[0]), steps[1:]) if isinstance(value, dict) else []


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return " ".join(str(item) for item in value if item is not None)
    return json.dumps(value) if isinstance(value, dict | list) else str(value)
