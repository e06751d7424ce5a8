"""Rows of CSV and Parquet as JSON records, for formats that are passed on as tables too.

Library of the sources; not a format. A cell that is empty is no value. Values are strings; in Parquet, objects
and lists stay what they are.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ntulm.corpus.sources import csv_records, parquet_columns
from ntulm.corpus.sources.content import head
from ntulm.corpus.sources.export import File
from ntulm.errors import UserError

BATCH_ROWS = 1 << 14
PARQUET = b"PAR1"
Row = tuple[int, str | None, str | None]  # line, reject, content: one of the two is null


def first_row(file: File, start: bytes, wanted: Collection[str]) -> dict[str, Any]:
    """The first row of a file that begins so; nothing of JSON, and of what cannot be read."""
    try:
        if start.startswith(PARQUET):
            rows = next(_parquet(file, wanted, 1), [])
            return json.loads(rows[0][2] or "{}") if rows else {}
        text = start.decode("utf-8-sig", "replace").lstrip("\r\n")
        if text[:1] in ("{", "["):
            return {}
        table = csv.reader(io.StringIO(text), delimiter=csv_records.delimiter(text.split("\n", 1)[0]))
        return dict(zip(next(table, []), next(table, []), strict=False))
    except (UserError, csv.Error):
        return {}


def record_tables(file: File, wanted: Collection[str], time: str) -> Iterator[pa.Table]:
    """The rows of a file as `record_lines` gives records.

    Args:
        file: CSV or Parquet.
        wanted: the columns of Parquet that are read; of CSV all are.
        time: the column of the date.
    """
    for rows in _parquet(file, wanted) if head(file, len(PARQUET)) == PARQUET else _csv(file, time):
        lines, reject, content = zip(*rows, strict=True)
        texts = [pa.array(values, pa.string()) for values in (content, reject)]
        file_names = pa.repeat(str(file), len(lines))
        yield pa.table([pa.array(lines, pa.int64()), *texts, file_names], ["line", "content", "reject", "file"])


def _csv(file: File, time: str) -> Iterator[list[Row]]:
    table = csv_records.Table(file)
    records = table.records(table.header.index(time))
    while some := csv_records.readable(list(islice(records, BATCH_ROWS))):
        yield [
            (line, reject, None if reject else _json(table.header, [value or None for value in row]))
            for line, reject, row in some
        ]


def _parquet(file: File, wanted: Collection[str], most: int = BATCH_ROWS) -> Iterator[list[Row]]:
    parquet = parquet_columns.opened(file)
    names = [name for name in parquet.schema_arrow.names if name in wanted]
    if not names:
        return
    line = 1
    for batch in parquet_columns.batches(file, parquet, names, most):
        faults, values = pa.repeat(False, batch.num_rows), []
        for name in names:
            is_plain = parquet_columns.is_plain(batch[name].type)
            cells, bad = (
                parquet_columns.strings(file, name, batch[name])
                if is_plain
                else parquet_columns.without_faults(batch[name])
            )
            faults = pc.or_(faults, bad)
            values.append(cells.to_pylist())
        rows = zip(faults.to_pylist(), zip(*values, strict=True), strict=True)
        yield [
            (number, "not UTF-8", None) if fault else (number, None, _json(names, row))
            for number, (fault, row) in enumerate(rows, line)
        ]
        line += batch.num_rows


def _json(names: Sequence[str], values: Sequence[Any]) -> str:
    row = {name: value for name, value in zip(names, values, strict=True) if value is not None}
    return json.dumps(row, ensure_ascii=False, default=str)
