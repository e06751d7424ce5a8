"""Raw exports, one module per format, all read into one schema of raw records.

A source module exposes three functions:
    confidence(sample: Sample) -> float
        how sure it is that a file is of this format, from its beginning: 0 (no) to 1 (nothing else looks so). Files
        that only go with posts (a list of users, likes) count too;
    facts(mapping: TableMapping | None) -> Reading
        how this format writes users and texts;
    read(files: Sequence[File], mapping: TableMapping | None, labels: Sequence[str]) -> Iterator[pa.RecordBatch]
        every record of the files, in RAW_SCHEMA, in the order of (file, line); `labels` are the columns or paths of
        labels.
A record that cannot be read is a row with `file`, `line` and `reject` (the reason) and null in every other column.
A file that cannot be read (missing, empty, cut off, of another format) is a UserError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ntulm.corpus.sources import documents
from ntulm.corpus.sources.content import HEAD_BYTES, encoding_of, head, raw_head
from ntulm.corpus.sources.export import Export, File, opened
from ntulm.errors import UserError

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

__all__ = ["FORMATS", "RAW_SCHEMA", "Detection", "Sample", "conformed", "detect", "opened", "read", "source"]

FORMATS = (
    "twitter_v1", "twitter_v2", "twitter_archive", "bluesky", "mastodon", "reddit", "synthetic", "table"
)  # fmt: skip
SAMPLE_OBJECTS = 200
SHORT_HEAD_BYTES = 1 << 13  # of a file among many
MANY_FILES = 200  # of which the first are looked at more closely
ENCODING_BYTES = 1 << 20  # the first accent may stand far behind
MOST_NOTES, MOST_NAMES, NAME_LENGTH = 10, 12, 40
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
        pa.field("local_id", pa.string()),  # how `reply_to_post` may name the post too: its id on one server
        # When this version was made; null: as first written. Of a post's versions the latest counts.
        pa.field("edited_at", pa.timestamp("us", tz="UTC")),
        pa.field("visibility", pa.string()),  # null: public; the corpus keeps `public` and `unlisted` alone
        pa.field("is_repost", pa.bool_()),
        pa.field("is_favorite", pa.bool_()),  # the record is no post: its author likes `reposted`
        pa.field("reposted", pa.struct(_POST_FIELDS)),  # the original as the repost or favorite embeds it
        pa.field("favorited_by", _STRINGS),  # users
        pa.field("labels", pa.list_(pa.struct([("field", pa.string()), ("value", pa.string())]))),
        # The same person under two names: every user of the record of whom it has both.
        pa.field("people", pa.list_(pa.struct([("id", pa.string()), ("handle", pa.string())]))),
        pa.field("deleted_post", pa.string()),  # the record says that this post was taken back
        pa.field("deleted_author", pa.string()),  # … or that this account was, at `created_at`
        pa.field("restored_author", pa.string()),  # … or that this account is open, at `created_at`
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


def sample(file: File, size: int = HEAD_BYTES) -> Sample:
    """The beginning of a file."""
    return _sampled(file, head(file, size))


def _sampled(file: File, start: bytes) -> Sample:
    return Sample(file, start, objects(start))


def objects(start: bytes) -> list[dict[str, Any]]:
    """The first JSON objects of a file: of its lines, of an array, pretty-printed, behind an assignment.

    A document is itself the object, its lists as far as they go; so is the only object of a file that is cut.
    """
    return documents.objects(start, SAMPLE_OBJECTS)


@dataclass(frozen=True)
class _Verdict:
    """What a file looks like."""

    file: File  # with its encoding
    format: str  # the likeliest, or the one that is wanted
    confidence: float
    seen: str  # its kind in words; nothing of its content


def detect(export: Export, wanted: str = "auto") -> Detection:
    """The format of an export: the one wanted, or, for `auto`, the one that most of its bytes look like.

    Files of another kind are skipped where some are of that format; `export.notes` says which, and which are empty or
    in an encoding of their own. Where a format is wanted and no file looks like it, all are taken for it.

    Raises:
        UserError: no file is of a known format, or all are empty.
    """
    verdicts: list[_Verdict] = []
    empty: list[str] = []
    for number, file in enumerate(export.files):
        verdict = _verdict(file, FORMATS if wanted == "auto" else (wanted,), thorough=number < MANY_FILES)
        if verdict is None:
            empty.append(f"{file}: empty, not read")
        else:
            verdicts.append(verdict)
    if not verdicts:
        raise UserError(f"{export.files[0]}: empty file; expected posts (remove it if there are none)")
    chosen = _chosen(verdicts) if wanted == "auto" else wanted
    own = [one for one in verdicts if one.confidence >= SURE and one.format == chosen]
    own = own or (verdicts if wanted != "auto" else [])
    if not own:
        raise UserError(
            f"{verdicts[0].file}: format not recognised: {verdicts[0].seen}; expected {', '.join(FORMATS)} "
            "(docs/sources.md), or `corpus.format` to say which it is"
        )
    taken = {one.file.path for one in own}
    alien = [one for one in verdicts if one.file.path not in taken]
    _note(export, empty, "empty files")
    _note(export, [f"{one.file}: {one.seen}, not read" for one in alien], "files that are not read")
    _note(export, [f"{one.file}: read as {one.file.encoding}" for one in own if one.file.encoding], "such files")
    confidence = 1.0 if wanted != "auto" else min(one.confidence for one in own)
    return Detection(chosen, confidence, [one.file for one in own], [one.file for one in alien])


def _verdict(file: File, names: Sequence[str], thorough: bool) -> _Verdict | None:
    """What a file looks like; None if it is empty. Of one among very many, a short beginning is enough if it tells."""
    for size in (HEAD_BYTES,) if thorough else (SHORT_HEAD_BYTES, HEAD_BYTES):
        start = raw_head(file, size)
        if not start:
            return None
        encoding = encoding_of(start)
        if encoding is None and thorough and len(start) == size and start.isascii():
            encoding = encoding_of(raw_head(file, ENCODING_BYTES))
        if encoding is not None:
            file = replace(file, encoding=encoding)
            start = head(file, size)
        one = _sampled(file, start)
        confidence, name = max(((source(name).confidence(one), name) for name in names), key=lambda pair: pair[0])
        if confidence >= SURE:
            break
    seen = f"looks like {name}" if confidence >= SURE else _seen(one)
    return _Verdict(file, name, confidence, seen)


def _chosen(verdicts: list[_Verdict]) -> str:
    """The format that most bytes look like; `auto` if none does."""
    size: dict[str, int] = {}
    for one in verdicts:
        if one.confidence >= SURE:
            size[one.format] = size.get(one.format, 0) + one.file.path.stat().st_size
    return max(size, key=lambda name: size[name]) if size else "auto"


def _seen(one: Sample) -> str:
    """What kind of file it is: keys of JSON objects, but no value and no text of it."""
    if one.objects:
        keys = list(dict.fromkeys(key for value in one.objects for key in value))
        names = ", ".join(key[:NAME_LENGTH] for key in keys[:MOST_NAMES])
        return f"JSON objects with {names}{', …' if len(keys) > MOST_NAMES else ''}" if keys else "empty JSON objects"
    start = one.head.lstrip(b"\xef\xbb\xbf \r\n\t")
    if b"\0" in start or sum(byte < ord(" ") and byte not in b"\t\n\r\f" for byte in start[:NAME_LENGTH]):
        return f"no text (begins with the bytes {start[:4].hex(' ')})"
    if start.startswith((b"{", b"[")):
        return "JSON without objects, or damaged"
    return "markup" if start.startswith(b"<") else "text without columns"


def _note(export: Export, notes: list[str], more: str) -> None:
    """Say each once, of very many the first ones and how many there are more."""
    said = notes[:MOST_NOTES]
    if len(notes) > MOST_NOTES:
        said.append(f"{len(notes) - MOST_NOTES:,} more {more}")
    export.notes.extend(note for note in said if note not in export.notes)


def read(detection: Detection, mapping: TableMapping | None, labels: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Every record of an export, as batches of RAW_SCHEMA."""
    batches: Iterator[pa.RecordBatch] = source(detection.format).read(detection.files, mapping, labels)
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
