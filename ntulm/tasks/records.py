"""Rows of the text files that benchmarks come in, with the file and line that an error message needs."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ntulm.errors import UserError

_FORMATS = "a name that ends in .csv, .tsv, .jsonl (each also with .gz) or .parquet"


class Record(NamedTuple):
    """One row: `where` is `FILE:LINE`, `values` holds the columns that were asked for."""

    where: str
    values: dict[str, str]


def lines(path: Path) -> list[str]:
    r"""The lines of a UTF-8 file, split at `\n` alone: posts hold other separators (U+2028, U+0085) as text.

    Raises:
        UserError: a missing, empty, truncated or wrongly encoded file, or a NUL byte.
    """
    text = _text(path)
    if not text.strip():
        raise UserError(f"{path}: empty file")
    if "\0" in text:
        raise UserError(
            f"{path}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: NUL byte; is the file binary or damaged?"
        )
    found = text.split("\n")
    if found[-1] == "":
        found.pop()
    return [line.removesuffix("\r") for line in found]


def records(path: Path, columns: list[str]) -> Iterator[Record]:
    """The rows of a table; a missing value is an empty string.

    Raises:
        UserError: as `lines`, an unknown file type, a missing column, a row of another width, an invalid JSON line.
    """
    suffix = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if suffix in ("csv", "tsv"):
        return _separated(path, columns, "," if suffix == "csv" else "\t")
    if suffix in ("jsonl", "ndjson", "json"):
        return _json_lines(path, columns)
    if suffix == "parquet":
        return _parquet(path, columns)
    raise UserError(f"{path}: unknown kind of table; expected {_FORMATS}")


def columns(path: Path) -> list[str]:
    """The names of the columns of a table.

    Raises:
        UserError: as `records`.
    """
    suffix = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if suffix in ("csv", "tsv"):
        return next(csv.reader(lines(path)[:1], _dialect("," if suffix == "csv" else "\t")), [])
    if suffix in ("jsonl", "ndjson", "json"):
        first = next(_json_lines(path, []))
        return list(json.loads(lines(path)[0])) if first else []
    if suffix == "parquet":
        next(_parquet(path, []), None)
        return list(pq.read_schema(path).names)
    raise UserError(f"{path}: unknown kind of table; expected {_FORMATS}")


def inside(path: Path, file: str) -> Path:
    """A file inside the task's `path`; where `path` is a file, it must be that file."""
    if not path.exists():
        raise UserError(f"path: {path}: not found")
    return path if path.is_file() and path.name == file else path / file


def _text(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: not found" if not path.exists() else f"{path}: a folder; expected a file")
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged or truncated gzip file ({error})") from error


def _require(path: Path, columns: list[str], present: list[str]) -> None:
    for column in columns:
        if column not in present:
            raise UserError(f"{path}: no column {column!r}; it has {', '.join(present)}")


def _dialect(separator: str) -> type[csv.Dialect]:
    class Dialect(csv.excel):
        delimiter = separator
        # A quote inside a tab-separated field is a character of the text, not syntax.
        quoting = csv.QUOTE_MINIMAL if separator == "," else csv.QUOTE_NONE
        strict = True

    return Dialect


def _separated(path: Path, columns: list[str], separator: str) -> Iterator[Record]:
    reader = csv.reader((line + "\n" for line in lines(path)), _dialect(separator))
    try:
        header = next(reader)
        _require(path, columns, header)
        for fields in reader:
            if len(fields) != len(header):
                raise UserError(f"{path}:{reader.line_num}: {len(fields)} fields; the header has {len(header)}")
            row = dict(zip(header, fields, strict=True))
            yield Record(f"{path}:{reader.line_num}", {column: row[column] for column in columns})
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error


def _json_lines(path: Path, columns: list[str]) -> Iterator[Record]:
    for count, line in enumerate(lines(path), 1):
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{count}: not valid JSON; each line must be one object") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}:{count}: not an object; each line must be one")
        if count == 1:
            _require(path, columns, list(row))
        yield Record(f"{path}:{count}", {column: _string(row.get(column)) for column in columns})


def _parquet(path: Path, columns: list[str]) -> Iterator[Record]:
    if not path.is_file():
        raise UserError(f"{path}: not found")
    try:
        _require(path, columns, pq.read_schema(path).names)
        rows = pq.read_table(path, columns=columns).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({' '.join(str(error).split())})") from error
    for count, row in enumerate(rows, 1):
        yield Record(f"{path}: row {count}", {column: _string(row[column]) for column in columns})


def _string(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate cannot be written to Parquet
