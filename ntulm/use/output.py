"""Where answers go: a Parquet, CSV or JSON lines file by its ending, whole or not at all, or standard output."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ntulm.errors import UserError
from ntulm.files import whole_file
from ntulm.printable import json_line

ENDINGS = (".parquet", ".csv", ".jsonl")
Record = Mapping[str, Any]  # values: a string, a number, a list of strings, or a dict of numbers by name


class Output(Protocol):
    """Takes records as they are made."""

    def write(self, records: Sequence[Record]) -> None: ...


def check_ending(out: Path | None) -> None:
    """Refuse a file of another kind before anything is computed.

    Raises:
        UserError: names the endings.
    """
    if out is not None and out.suffix not in ENDINGS:
        raise UserError(f"--out {out}: expected a name that ends in {', '.join(ENDINGS)}")


@contextmanager
def opened(out: Path | None, schema: pa.Schema, plain: Sequence[str] = ()) -> Iterator[Output]:
    """An output of records with the columns of `schema`; without `out`, JSON lines on standard output.

    Args:
        out: the file.
        schema: its columns, which Parquet has as they are.
        plain: lists of at most one item, whose item stands in a CSV; other lists and dicts stand there as JSON.

    Raises:
        UserError: the file cannot be written.
    """
    if out is None:
        yield _Lines()
        return
    try:
        with whole_file(out) as partial:
            if out.suffix == ".parquet":
                with pq.ParquetWriter(partial, schema, compression="zstd") as writer:
                    yield _Parquet(writer, schema)
            else:
                with partial.open("w", encoding="utf-8", newline="") as file:
                    yield _Csv(file, schema.names, plain) if out.suffix == ".csv" else _JsonFile(file)
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror or error}") from error


class _Lines:
    def write(self, records: Sequence[Record]) -> None:
        try:
            for record in records:
                sys.stdout.write(json_line(record) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # as with `| head`: who reads has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(1) from None


class _JsonFile:
    def __init__(self, file: Any) -> None:
        self.file = file

    def write(self, records: Sequence[Record]) -> None:
        self.file.writelines(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records)


class _Csv:
    def __init__(self, file: Any, names: list[str], plain: Sequence[str]) -> None:
        self.writer, self.names, self.plain = csv.writer(file, lineterminator="\n"), names, plain
        self.writer.writerow(names)

    def write(self, records: Sequence[Record]) -> None:
        self.writer.writerows([self._cell(name, record[name]) for name in self.names] for record in records)

    def _cell(self, name: str, value: Any) -> Any:
        if isinstance(value, bool):
            return str(value).lower()
        if name in self.plain:
            return next(iter(value), "")
        return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


class _Parquet:
    def __init__(self, writer: pq.ParquetWriter, schema: pa.Schema) -> None:
        self.writer, self.schema = writer, schema

    def write(self, records: Sequence[Record]) -> None:
        if records:
            maps = {field.name for field in self.schema if pa.types.is_map(field.type)}
            rows = [
                {key: list(one.items()) if key in maps else one for key, one in record.items()} for record in records
            ]
            self.writer.write_table(pa.Table.from_pylist(rows, schema=self.schema))
