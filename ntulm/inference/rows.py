"""Posts out of files and standard input, a part at a time, however large they are: CSV, JSON lines, Parquet.

A column is a field of a post where it has the field's name or a usual one (USUAL), and is left out otherwise. A row
that is no post is a `Fault`: where it stands and why. Files may be packed with gzip or zstd. Needs pyarrow alone.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ntulm.errors import UserError

STDIN = "-"
ROWS_AT_ONCE = 1024  # the memory that a part takes; changes nothing else
HEAD_BYTES = 1 << 16
MAX_LINE_BYTES = 1 << 26  # no post is longer: a file without line breaks must not fill the memory
DELIMITERS = ",\t;|"
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}  # by how a file begins
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# Names under which tables have the fields, the likelier first.
USUAL = {
    "post_id": ("post_id", "tweet_id", "id_str", "id", "status_id"),
    "text": ("text", "full_text", "content", "tweet_text", "tweet", "body", "message", "post"),
    "author": ("author", "author_id", "user_id", "userid", "user", "username", "screen_name", "handle", "acct"),
    "hashtags": ("hashtags", "tags"),
    "mentions": ("mentions", "user_mentions"),
    "urls": ("urls", "links"),
    "places": ("places",),
    "created_at": ("created_at", "createdat", "timestamp", "datetime", "date", "time"),
    "label": ("label", "class", "category", "target", "y"),
}
POST = tuple(name for name in USUAL if name != "label")
_ITEMS = re.compile(r"[^\s,;|\"'\[\]]+")  # a list written as a string: `a b`, `a,b`, `a|b`, `['a', 'b']`, `["a","b"]`


class Fault(NamedTuple):
    """A row that cannot be read."""

    where: str  # FILE:LINE, of Parquet FILE:ROW, from 1
    reason: str


@dataclass
class Part:
    """Some rows of the input: each a dict of fields."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    places: list[str] = field(default_factory=list)  # where each row stands
    faults: list[Fault] = field(default_factory=list)
    share: float | None = None  # of the input that has been read; None where its size is not known

    def __len__(self) -> int:
        return len(self.rows) + len(self.faults)


def files_of(path: Path) -> list[Path]:
    """A file, or those of a folder in the order of their names, hidden ones left out.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return [path]
    found = sorted(one for one in path.rglob("*") if one.is_file() and not _is_hidden(one.relative_to(path)))
    if not found:
        raise UserError(f"{path}: {'the folder has no files' if path.is_dir() else 'not found'}; expected posts")
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def kind_of(head: bytes) -> str:
    """`parquet`, `json` (lines) or `csv`, by how a file begins."""
    start = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if head[:4] == b"PAR1":
        return "parquet"
    return "json" if start[:1] == b"{" or _is_text(start.split(b"\n", 1)[0]) else "csv"


def _is_text(line: bytes) -> bool:
    """Whether a line is a JSON string, and not the quoted header of a table of texts."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, str) and value.strip().casefold() not in USUAL["text"]


def head_of(file: Path) -> bytes:
    """The first bytes of a file, unpacked.

    Raises:
        UserError: the file is empty, damaged or cannot be read, or holds a JSON array.
    """
    with _opened(file) as (stream, _):
        head = _checked(file, stream.read, HEAD_BYTES)
    if not head.strip():
        raise UserError(f"{file}: empty file; expected posts")
    if re.match(rb"(?:\xef\xbb\xbf)?\s*\[\s*(?:[{\]]|\Z)", head):
        raise UserError(f"{file}: a JSON array; expected one object per line, as `jq -c '.[]'` writes it")
    return bytes(head)


def columns_of(file: Path) -> list[str]:
    """The columns of a table: its header, or the keys of its first objects."""
    head = head_of(file)
    match kind_of(head):
        case "parquet":
            return list(_parquet(file).schema_arrow.names)
        case "json":
            return _first_keys(head)
        case _:
            line = head.removeprefix(BYTE_ORDER_MARK).decode("utf-8", "replace").split("\n", 1)[0]
            return _header(line)


def _first_keys(head: bytes) -> list[str]:
    """The keys of the first objects, which need not all have the same; without any: the lines are texts."""
    keys: dict[str, None] = {}
    for line in head.removeprefix(BYTE_ORDER_MARK).split(b"\n"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            keys |= dict.fromkeys(value)
    return list(keys) or ["text"]


def fields_in(columns: Iterable[str], fields: Iterable[str] = POST) -> dict[str, str]:
    """Field -> the column that has its name or a usual one, upper and lower case being the same."""
    by_name: dict[str, str] = {}
    for column in columns:
        by_name.setdefault(column.strip().casefold(), column)
    found = {name: next((by_name[one] for one in USUAL[name] if one in by_name), None) for name in fields}
    return {name: column for name, column in found.items() if column is not None}


def read_rows(path: Path, columns: Mapping[str, str]) -> Iterator[Part]:
    """The rows of a file or folder.

    Args:
        path: where.
        columns: field -> column. A file without one of them gives rows without that field.

    Raises:
        UserError: a file is missing, empty, damaged or a table without text.
    """
    files = files_of(path)
    sizes = [file.stat().st_size for file in files]
    before = 0
    for file, size in zip(files, sizes, strict=True):
        for part in _read_file(file, columns):
            part.share = (before + (part.share or 0.0) * size) / max(sum(sizes), 1)
            yield part
        before += size


def _read_file(file: Path, columns: Mapping[str, str]) -> Iterator[Part]:
    head = head_of(file)
    kind = kind_of(head)
    if kind == "json":  # a key that only later objects have
        columns = {name: name for name in POST} | dict(columns)
    elif columns.get("text") not in columns_of(file):
        shown = ", ".join(columns_of(file))
        raise UserError(f"{file}: no column {columns.get('text', 'text')!r}; it has {shown}")
    if kind == "parquet":
        yield from _parquet_parts(file, columns)
        return
    with _opened(file) as (stream, progress):
        read = _json_parts if kind == "json" else _csv_parts
        for part in read(str(file), _lines(file, stream), columns):
            part.share = progress()
            yield part


def read_stdin() -> Iterator[Part]:
    """The JSON lines on standard input; a line is an object with the fields of a post, or a string: its text."""
    yield from _json_parts("standard input", _lines(Path("standard input"), sys.stdin.buffer), None)


# Bytes


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, Any]]:
    """The unpacked content of a file as a stream, and a function that says which share of the file is read."""
    size = max(file.stat().st_size, 1)
    try:
        with file.open("rb") as raw:
            start = raw.read(4)
            raw.seek(0)
            packing = PACKED.get(start[:2]) or PACKED.get(start)
            stream: Any = (
                raw if packing is None else io.BufferedReader(_Unpacked(pa.CompressedInputStream(raw, packing)))
            )
            yield stream, lambda: raw.tell() / size
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror or error}") from error


class _Unpacked(io.RawIOBase):
    """Arrow's stream for `io.BufferedReader`, which reads lines."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self.stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _checked(file: Path, read: Any, size: int) -> Any:
    try:
        return read(size)
    except (OSError, EOFError) as error:
        raise UserError(f"{file}: damaged or cut off ({_one_line(error)}); copy it again") from error


def _lines(file: Path, stream: Any) -> Iterator[bytes]:
    """Lines with their ends."""
    number = 0
    while line := _checked(file, stream.readline, MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise UserError(f"{file}:{number}: line of more than {MAX_LINE_BYTES >> 20} MB; expected one post per line")
        yield line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line


# JSON lines


def _json_parts(name: str, lines: Iterable[bytes], columns: Mapping[str, str] | None) -> Iterator[Part]:
    """Without `columns`, a row has whatever the object has."""
    part = Part()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        value, reason = _json(line)
        if reason is None:
            part.rows.append(value if columns is None else _row(value, columns))
            part.places.append(where)
        else:
            part.faults.append(Fault(where, reason))
        if len(part) == ROWS_AT_ONCE:
            yield part
            part = Part()
    if len(part):
        yield part


def _json(line: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return {}, "not UTF-8"
    except (ValueError, RecursionError):
        return {}, "not JSON"
    if isinstance(value, str):
        return {"text": value}, None
    return (value, None) if isinstance(value, dict) else ({}, "neither a JSON object nor a string")


def _row(value: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a record; lists that are written as strings are taken apart."""
    return {name: _value(name, value[column]) for name, column in columns.items() if value.get(column) is not None}


def _value(name: str, value: Any) -> Any:
    if not isinstance(value, str) or name in ("text", "post_id", "author", "created_at", "label"):
        return value
    if name in ("hashtags", "mentions"):
        return _ITEMS.findall(value)
    try:  # a place may have a space in its name, a link a comma
        items = json.loads(value)
    except (ValueError, RecursionError):
        items = value
    return items if isinstance(items, list) else [value]


# CSV


def _header(line: str) -> list[str]:
    delimiter = max(DELIMITERS, key=line.count)
    return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])


def _csv_parts(name: str, lines: Iterable[bytes], columns: Mapping[str, str]) -> Iterator[Part]:
    texts = (line.decode("utf-8", "surrogateescape") for line in lines)
    first = next(texts)
    header = _header(first)
    named = {field: column for field, column in columns.items() if column in header}
    reader = csv.reader(texts, delimiter=max(DELIMITERS, key=first.count), strict=True)
    part = Part()
    for number, row, reason in _csv_records(name, reader):
        where = f"{name}:{number}"
        if reason is None and len(row) != len(header):
            reason = f"{len(row)} columns; the header has {len(header)}"
        if reason is None:
            part.rows.append(_row({key: value or None for key, value in zip(header, row, strict=True)}, named))
            part.places.append(where)
        else:
            part.faults.append(Fault(where, reason))
        if len(part) == ROWS_AT_ONCE:
            yield part
            part = Part()
    if len(part):
        yield part


def _csv_records(name: str, reader: Any) -> Iterator[tuple[int, list[str], str | None]]:
    """The line on which a record starts (the header is line 1), its values, and why it is not readable."""
    while True:
        line = reader.line_num + 2
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "field larger" in str(error) or "end of data" in str(error):  # what follows would be swallowed
                raise UserError(f"{name}:{line}: a quote that opens here is not closed; expected CSV") from error
            yield line, [], "not CSV"
            continue
        if row:
            yield line, row, None


# Parquet


def _parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: damaged or cut off Parquet file ({_one_line(error)})") from error


def _parquet_parts(file: Path, columns: Mapping[str, str]) -> Iterator[Part]:
    parquet = _parquet(file)
    named = {name: column for name, column in columns.items() if column in parquet.schema_arrow.names}
    count, start = max(parquet.metadata.num_rows, 1), 0
    try:
        for batch in parquet.iter_batches(ROWS_AT_ONCE, columns=list(dict.fromkeys(named.values()))):
            rows = [_row(row, named) for row in batch.to_pylist()]
            places = [f"{file}:{start + place}" for place in range(1, len(rows) + 1)]
            start += len(rows)
            yield Part(rows, places, share=start / count)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: damaged Parquet file after row {start} ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
