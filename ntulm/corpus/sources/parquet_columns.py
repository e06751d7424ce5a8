"""Parquet columns as strings, whatever their types; a value that is no text costs its row and nothing else.

Library of `ntulm/corpus/sources/table.py`; not a format. A damaged file, page or type is a UserError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm.corpus.sources.export import File
from ntulm.errors import UserError

MOST_SECONDS = 253_000_000_000  # before or after 1970: years of four digits. What is beyond is written as no date.
BEYOND = "infinity"
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


@contextmanager
def guarded(file: File, doing: str) -> Iterator[None]:
    """Whatever pyarrow raises as one line."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        said = " ".join(str(error).split())[:200]
        said = said if said.isprintable() else repr(said)
        raise UserError(f"{file}: damaged or cut off Parquet file, {doing} ({said}); write or copy it again") from error


def opened(file: File) -> pq.ParquetFile:
    """A file with its schema."""
    with guarded(file, "its schema is not readable"):
        parquet = pq.ParquetFile(file.path, page_checksum_verification=True)
        _ = parquet.schema_arrow
        return parquet


def columns(schema: pa.Schema) -> list[str]:
    """The names of the columns, and the paths to what lies in objects and lists of objects."""
    return [path for column in schema for path in _paths(column.name, column.type)]


def _paths(name: str, kind: pa.DataType) -> list[str]:
    if is_list(kind):
        return _paths(name, kind.value_type)
    if pa.types.is_struct(kind):
        return [path for inner in kind for path in _paths(f"{name}.{inner.name}", inner.type)]
    return [name]


def is_list(kind: pa.DataType) -> bool:
    """Of any make."""
    types = pa.types
    makes = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(make(kind) for make in makes)


def is_plain(kind: pa.DataType) -> bool:
    """Neither a list nor an object."""
    return not pa.types.is_nested(kind)


def batches(file: File, parquet: pq.ParquetFile, names: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of some top columns."""
    with guarded(file, "a page is not readable"):
        each = parquet.iter_batches(rows, columns=names)
    while True:
        with guarded(file, "a page is not readable"):
            batch = next(each, None)
        if batch is None:
            return
        yield batch


def strings(file: File, name: str, values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """A column as strings, or as lists of them, and in which rows it is no text.

    Raises:
        UserError: the type is none that can be written as text.
    """
    try:
        values = _as_text(values)
        values, bad = without_faults(values)
        return _as_strings(values), bad
    except (pa.ArrowException, ValueError, OverflowError) as error:
        expected = "expected strings, numbers, times, or lists or objects of these"
        raise UserError(f"{file}: column {name!r} is {values.type}; {expected}") from error


def without_faults(values: pa.Array) -> tuple[pa.Array, pa.Array]:
    """A column with null for what is not UTF-8, and which rows those are."""
    if _is_valid(values):
        return values, pa.repeat(False, len(values))
    bad = [not _is_valid(values.take(pa.array([row]))) for row in range(len(values))]  # a slice keeps all inner values
    return values.take(pa.array([None if fault else row for row, fault in enumerate(bad)], pa.int64())), pa.array(bad)


def _as_text(values: pa.Array) -> pa.Array:
    """Codes are looked up; bytes are taken for text, as some writers do not say which they write."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return _as_text(values.dictionary_decode())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return values.view(pa.string() if pa.types.is_binary(kind) else pa.large_string())
    return values


def _is_valid(values: pa.Array) -> bool:
    try:
        values.validate(full=True)
    except (pa.ArrowException, UnicodeDecodeError):
        return False
    return True


def _as_strings(values: pa.Array) -> pa.Array:
    kind = values.type
    if is_list(kind):
        return values.cast(pa.list_(pa.string()))
    if pa.types.is_timestamp(kind):
        return _moments(values)
    if pa.types.is_decimal(kind):
        return pc.replace_substring_regex(values.cast(pa.string()), r"\.0+$", "")
    if pa.types.is_floating(kind):
        return _numbers(values)
    if pa.types.is_fixed_size_binary(kind):
        return values.cast(pa.binary()).cast(pa.string())
    return values.cast(pa.string())


def _numbers(values: pa.Array) -> pa.Array:
    """Whole numbers that a float holds exactly without a point: ids are floats where some are missing."""
    values = values.cast(pa.float64())
    finite = pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
    whole = pc.and_(pc.equal(finite, pc.floor(finite)), pc.less_equal(pc.abs(finite), float(1 << 53)))
    integers = pc.if_else(whole, finite, pa.scalar(None, pa.float64())).cast(pa.int64()).cast(pa.string())
    return pc.coalesce(integers, finite.cast(pa.string()))


def _moments(values: pa.Array) -> pa.Array:
    """In UTC, but without its sign: the meaning of a time without a zone."""
    kind = values.type
    most = min(MOST_SECONDS * _PER_SECOND[kind.unit], (1 << 63) - 1)  # all of 64 bits, for nanoseconds
    numbers = values.cast(pa.int64())
    beyond = pc.or_(pc.greater(numbers, most), pc.less(numbers, -most))
    known = pc.if_else(beyond, pa.scalar(None, kind), values)
    written = known.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.timestamp("us")).cast(pa.string())
    return pc.if_else(pc.fill_null(beyond, False), BEYOND, written)
