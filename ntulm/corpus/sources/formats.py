"""Raw exports, one module per format, all read into one schema of raw records.

A source module exposes three functions:
    confidence(sample: Sample) -> float
        how sure it is that a file is of this format, from its beginning: 0 (no) to 1 (nothing else looks so). Files
        that only go with posts (a list of users, likes) count too;
    facts(mapping: TableMapping | None) -> Reading
        how this format writes users and texts;
    read(files: Sequence[File], mapping: TableMapping | None) -> Iterator[pa.RecordBatch]
        every record of the files, in RAW_SCHEMA, in the order of (file, line).
A record that cannot be read is a row with `file`, `line` and `reject` (the reason) and null in every other column.
A file that cannot be read (missing, empty, cut off, of another format) is a UserError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ntulm.corpus.sources import documents
from ntulm.corpus.sources.export import Export, File, opened
from ntulm.corpus.sources.lines import HEAD_BYTES, head
from ntulm.errors import UserError

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

__all__ = ["FORMATS", "RAW_SCHEMA", "Detection", "Sample", "conformed", "detect", "opened", "read", "source"]

FORMATS = (
    "twitter_v1", "twitter_v2", "twitter_archive", "bluesky", "mastodon", "reddit", "synthetic", "table"
)  # fmt: skip
SAMPLE_OBJECTS = 200
SURE = 0.5  # of a format: less than this is no reason to read a file so

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
    pa.field("cashtags", _STRINGS),  # raw, without `$`
    # Null where there is none.
    pa.field("community", pa.string()),  # subreddit, group, channel
    pa.field("reply_to", pa.string()),  # the user who is answered
    pa.field("quoted", pa.string()),  # the user whose post is quoted
]
RAW_SCHEMA = pa.schema(
    [
        pa.field("file", pa.string()),
        pa.field("line", pa.int64()),  # from 1; of a file without lines, the record
        pa.field("reject", pa.string()),  # null: readable
        # Readable, and no post to keep: why. Such a row may still have `people`, `deleted_*` and a favorite.
        pa.field("left_out", pa.string()),
        *_POST_FIELDS,
        # The posts answered and quoted; their authors are `reply_to` and `quoted` where those are null.
        pa.field("reply_to_post", pa.string()),
        pa.field("quoted_post", pa.string()),
        pa.field("visibility", pa.string()),  # null: public; the corpus keeps `public` and `unlisted` alone
        pa.field("is_repost", pa.bool_()),
        pa.field("is_favorite", pa.bool_()),  # the record is no post: its author likes `reposted`
        pa.field("reposted", pa.struct(_POST_FIELDS)),  # the original as the repost or favorite embeds it
        pa.field("favorited_by", _STRINGS),  # users
        pa.field("labels", pa.list_(pa.struct([("field", pa.string()), ("value", pa.string())]))),
        # The same person under two names: every user of the record of whom it has both.
        pa.field("people", pa.list_(pa.struct([("id", pa.string()), ("handle", pa.string())]))),
        pa.field("deleted_post", pa.string()),  # the record says that this post was taken back
        pa.field("deleted_author", pa.string()),  # … or that this account was
    ]
)


@dataclass(frozen=True)
class Sample:
    """The beginning of a file."""

    file: File
    head: bytes  # up to HEAD_BYTES, decompressed
    objects: list[dict[str, Any]]  # the first JSON objects, up to SAMPLE_OBJECTS; none if it is no JSON


@dataclass(frozen=True)
class Detection:
    """What an export is."""

    format: str
    confidence: float  # of the least sure of the files
    files: list[File]  # that are of the format
    alien: list[File]  # that are not, and are skipped


def source(name: str) -> ModuleType:
    """The module of a format, imported when it is used."""
    return import_module(f"ntulm.corpus.sources.{name}")


def sample(file: File) -> Sample:
    """The beginning of a file."""

    start = head(file, HEAD_BYTES)
    return Sample(file, start, objects(start))


def objects(start: bytes) -> list[dict[str, Any]]:
    """The first JSON objects of a file: of its lines, of an array, pretty-printed, behind an assignment.

    A document is itself the object, its lists as far as they go; so is the only object of a file that is cut.
    """
    return documents.objects(start, SAMPLE_OBJECTS)


def detect(export: Export, wanted: str = "auto") -> Detection:
    """The format of an export: the one wanted, or, for `auto`, the one that most of its bytes look like.

    Raises:
        UserError: no file is of a known format.
    """
    samples = [sample(file) for file in export.files]
    if wanted != "auto":
        return Detection(wanted, 1.0, export.files, [])
    best: list[tuple[float, str]] = []
    for one in samples:
        sure = [(source(name).confidence(one), name) for name in FORMATS]
        best.append(max(sure, key=lambda pair: pair[0]))
    size: dict[str, int] = {}
    for one, (confidence, name) in zip(samples, best, strict=True):
        if confidence >= SURE:
            size[name] = size.get(name, 0) + one.file.path.stat().st_size
    if not size:
        raise UserError(
            f"{export.files[0]}: format not recognised; expected {', '.join(FORMATS)} (see docs/sources.md); "
            "`corpus.format` overrides the detection"
        )
    chosen = max(size, key=lambda name: size[name])
    found = [sure >= SURE and name == chosen for sure, name in best]
    return Detection(
        chosen,
        min(sure for sure, name in best if name == chosen and sure >= SURE),
        [file for file, own in zip(export.files, found, strict=True) if own],
        [file for file, own in zip(export.files, found, strict=True) if not own],
    )


def read(detection: Detection, mapping: TableMapping | None) -> Iterator[pa.RecordBatch]:
    """Every record of an export, as batches of RAW_SCHEMA."""
    batches: Iterator[pa.RecordBatch] = source(detection.format).read(detection.files, mapping)
    return batches


def conformed(table: pa.Table) -> pa.Table:
    """A table with some columns of RAW_SCHEMA as one with all of them; what is missing is null."""
    columns = [
        _conformed(table[field.name].combine_chunks(), field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in RAW_SCHEMA
    ]
    return pa.table(columns, schema=RAW_SCHEMA)


def _conformed(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    if not pa.types.is_struct(wanted) or not pa.types.is_struct(values.type):
        return values.cast(wanted)
    have = {field.name for field in values.type}
    parts = [
        values.field(field.name).cast(field.type) if field.name in have else pa.nulls(len(values), field.type)
        for field in wanted
    ]
    return pa.StructArray.from_arrays(parts, fields=list(wanted), mask=values.is_null())


def first_of(files: Sequence[File]) -> Sample:
    """The beginning of the first file."""
    return sample(files[0])
