"""Raw exports, one module per format, all read into one schema of raw records.

A source module exposes two functions:
    matches(head: bytes) -> bool
        whether the first bytes of an export's first file (decompressed, up to HEAD_BYTES) are of this format;
    read(path: Path, mapping: TableMapping | None) -> Iterator[pa.RecordBatch]
        every record of the file or folder, in RAW_SCHEMA, in the order of (file, line).
A record that cannot be read is a row with `file`, `line` and `reject` (the reason) and null in every other column.
A file that cannot be read (missing, empty, cut off, of another format) is a UserError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pyarrow as pa

from ntulm.errors import UserError

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

FORMATS = ("twitter_v1", "synthetic", "table")  # the order of detection: `table` takes whatever has columns
HEAD_BYTES = 1 << 16
_ARRAY = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:window\.YTD|\[\s*(?:[{\]]|\Z))")  # not a CSV whose first column is `[id]`

_STRINGS = pa.list_(pa.string())
_POST_FIELDS = [
    pa.field("post_id", pa.string()),  # null: derived from the content
    pa.field("created_at", pa.timestamp("us", tz="UTC")),
    pa.field("lang", pa.string()),
    pa.field("text", pa.string()),
    pa.field("author", pa.string()),
    # Null where the source has no such field: taken from the text. Hashtags are raw, without `#`.
    pa.field("mentions", _STRINGS),
    pa.field("hashtags", _STRINGS),
    pa.field("urls", _STRINGS),
    pa.field("places", _STRINGS),
]
RAW_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("line", pa.int64()),  # from 1; of a table without lines, the row
        pa.field("reject", pa.string()),  # null: readable
        *_POST_FIELDS,
        pa.field("is_repost", pa.bool_()),
        pa.field("reposted", pa.struct(_POST_FIELDS)),  # the original as the repost embeds it
        pa.field("favorited_by", _STRINGS),  # users
        pa.field("labels", pa.list_(pa.struct([("field", pa.string()), ("value", pa.string())]))),
    ]
)


def source(name: str) -> ModuleType:
    """The module of a format, imported when it is used."""
    return import_module(f"ntulm.corpus.sources.{name}")


def first_bytes(path: Path) -> tuple[Path, bytes]:
    """An export's first file and how it begins.

    Raises:
        UserError: the path is missing or empty, or holds a JSON array, which any format would take for something else.
    """
    from ntulm.corpus.sources.lines import export_files, head

    first = export_files(path)[0]
    start = head(first, HEAD_BYTES)
    if _ARRAY.match(start):
        raise UserError(f"{first}: a JSON array; expected one object per line, as `jq -c '.[]'` writes it")
    return first, start


def read(path: Path, format_name: str, mapping: TableMapping | None) -> Iterator[pa.RecordBatch]:
    """Every record of an export, as batches of RAW_SCHEMA; `format_name` is not `auto`, see `detect`."""
    first_bytes(path)
    batches: Iterator[pa.RecordBatch] = source(format_name).read(path, mapping)
    return batches


def named(path: Path, format_name: str) -> str:
    """The format of an export: the one named, or, for `auto`, what `detect` finds."""
    return detect(path) if format_name == "auto" else format_name


def detect(path: Path) -> str:
    """The format of an export, from the content of its first file.

    Raises:
        UserError: the path is missing, empty or of no known format.
    """
    first, start = first_bytes(path)
    for name in FORMATS:
        if source(name).matches(start):
            return name
    raise UserError(
        f"{first}: format not recognised; expected Twitter API v1.1 objects (one JSON object per line), a CSV, "
        "JSON lines or Parquet table, or a world of the generator; `corpus.format` overrides the detection"
    )
