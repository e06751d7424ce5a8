"""What an export holds, before a corpus is made of it: format, counts, and what would be rejected and why.

Reads the export with the code of the stage corpus, writes nothing.

    ntulm inspect PATH
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ntulm.corpus.config import TableMapping
from ntulm.corpus.records import read_export, row
from ntulm.corpus.sources import formats
from ntulm.corpus.stage import reject_reasons
from ntulm.errors import UserError

# Names under which tables have these columns, the likelier first.
COLUMN_NAMES = {
    "post_id": ("post_id", "tweet_id", "id_str", "id", "status_id"),
    "created_at": (
        "created_at",
        "createdat",
        "record.createdat",
        "indexedat",
        "publish_date",
        "timestamp",
        "datetime",
        "date",
        "time",
        "tweet_time",
        "created_utc",
    ),
    "text": ("text", "record.text", "full_text", "content", "tweet_text", "tweet", "body", "message"),
    "author": (
        "author",
        "author_id",
        "user_id",
        "userid",
        "user",
        "username",
        "screen_name",
        "user_screen_name",
        "account.acct",
        "author.handle",
        "acct",
        "handle",
        "account",
        "author.did",
        "did",
    ),
    "lang": ("lang", "language", "tweet_language", "record.langs", "langs"),
    "repost_flag": ("retweet", "is_retweet", "is_repost", "repost"),
    "reposted_id": ("retweeted_id", "retweet_tweetid", "retweeted_status_id", "reposted_id"),
    "reposted_author": ("retweeted_user_id", "retweet_userid", "reposted_author"),
    "favorited_by": ("favorited_by", "liked_by"),
    "hashtags": ("hashtags", "tags.name", "tags"),
    "mentions": ("mentions.acct", "mentions", "user_mentions"),
}
FEDIVERSE = ("account.acct", "acct", "account")  # of authors; texts are HTML there
ATPROTO = ("author.handle", "handle")  # handles have hosts in both
NAME_LENGTH, MOST_COLUMNS = 60, 100  # of columns that are shown
REQUIRED = ("created_at", "text", "author")


@dataclass(frozen=True)
class Reason:
    reason: str
    records: int
    example: str  # FILE:LINE of the first


@dataclass(frozen=True)
class Inspection:
    path: str
    format: str
    files: int
    columns: tuple[str, ...]  # of a table
    mapping: TableMapping | None  # of a table
    origin: str  # where the mapping comes from
    counts: dict[
        str, int
    ]  # fates of the records, authors, hashtags, engagements; empty where no mapping could be guessed
    first: str | None
    last: str | None
    rejects: tuple[Reason, ...]


def run(path: Path, format: str, own: TableMapping | None) -> None:
    """Print what the file or folder holds; `format` is a name or `auto`, `own` the mapping of params.yaml."""
    print(format_inspection(inspect(path, format, own)))


def inspect(path: Path, format: str = "auto", own: TableMapping | None = None) -> Inspection:
    """Read the whole export and count. Duplicates are those by id, and no language is filtered.

    `own` is a mapping that counts where the table has its columns; else one is guessed.
    """
    if format not in ("auto", *formats.FORMATS):
        raise UserError(f"--format: {format!r} is no format; expected auto, {', '.join(sorted(formats.FORMATS))}")
    columns: tuple[str, ...] = ()
    mapping, origin = None, ""
    with tempfile.TemporaryDirectory() as spill, formats.opened(path, Path(spill)) as export:
        detection = formats.detect(export, format)
        name, files = detection.format, detection.files
        if name == "table":
            columns = tuple(formats.source(name).columns(files))
    if name == "table":
        mapping, origin = fitting(own, columns), "as params.yaml says"
        if mapping is None:
            mapping, origin = guess_mapping(columns), "guessed"
        if mapping is None:
            return Inspection(str(path), name, len(files), columns, None, origin, {}, None, None, ())
    with (
        tempfile.TemporaryDirectory() as spill,
        read_export(path, name, mapping, [], "id", Path(spill)) as read,
    ):
        connection, counts = read.connection, read.counts
        first, last, counts["authors"], _, counts["hashtags"] = row(connection, "SELECT * FROM figures")
        (counts["engagements"],) = row(connection, "SELECT count(*) FROM engagement")
        reasons = reject_reasons(connection)
    rejects = tuple(Reason(reason, records, f"{file}:{line}") for reason, records, file, line in reasons)
    dates = [None if moment is None else moment.isoformat() for moment in (first, last)]
    return Inspection(str(path), name, len(files), columns, mapping, origin, counts, dates[0], dates[1], rejects)


def fitting(mapping: TableMapping | None, columns: tuple[str, ...]) -> TableMapping | None:
    """The mapping, where there is one and the table has its columns."""
    if mapping is None:
        return None
    needed = [value for field, value in mapping.model_dump().items() if field in COLUMN_NAMES and value]
    return mapping if {*needed, *mapping.labels} <= set(columns) else None


def guess_mapping(columns: tuple[str, ...]) -> TableMapping | None:
    """A mapping from the usual names of columns; None where text, author or time has no usual name."""
    found = guess_columns(columns)
    if any(found[field] is None for field in REQUIRED):
        return None
    settings: dict[str, Any] = {
        "time_format": None,
        "html": found["author"] in FEDIVERSE,
        "casefold_users": True,
        "mention_hosts": found["author"] in FEDIVERSE + ATPROTO,
        "labels": [],
    }
    return TableMapping.model_validate({**found, **settings})


def guess_columns(columns: tuple[str, ...]) -> dict[str, str | None]:
    """Field of the mapping -> the column with a usual name of it."""
    by_name = {column.strip().casefold(): column for column in columns}
    return {
        field: next((by_name[name] for name in names if name in by_name), None) for field, names in COLUMN_NAMES.items()
    }


def format_inspection(inspection: Inspection) -> str:
    """The lines to print. Names and counts only: no text and no author of a post."""
    lines = [f"{inspection.path}: format {inspection.format}, {inspection.files} file(s)"]
    if inspection.format == "table":
        # A file without a header has a post in its place.
        lines.append("  columns: " + ", ".join(column[:NAME_LENGTH] for column in inspection.columns[:MOST_COLUMNS]))
        lines += _mapping_lines(inspection)
    counts = inspection.counts
    if not counts:
        return "\n".join(lines)
    names = ("read", "posts", "reposts", "duplicates", "rejects", "recovered", "authors", "hashtags", "engagements")
    said = {"read": "records", "recovered": "originals recovered from reposts"}
    lines += [f"  {said.get(name, name)}: {counts[name]:,}" for name in names]
    if inspection.first:
        lines.append(f"  from {inspection.first} to {inspection.last}")
    if inspection.mapping and counts["posts"] and not counts["hashtags"]:
        lines.append("  no hashtag: are the texts HTML (corpus.table.html), or is there a column of hashtags?")
    lines += [f"  rejected: {item.reason}: {item.records:,}, first at {item.example}" for item in inspection.rejects]
    return "\n".join(lines)


def _mapping_lines(inspection: Inspection) -> list[str]:
    if inspection.mapping is None:
        found = guess_columns(inspection.columns)
        missing = ", ".join(field for field in REQUIRED if found[field] is None)
        return [
            f"  no column mapping could be guessed: no usual name for {missing}; "
            "say which column is what in corpus.table of params.yaml"
        ]
    given = [
        f"{field}: {json.dumps(value)}" for field, value in inspection.mapping.model_dump().items() if value is not None
    ]
    nothing = [f"{field}: null" for field, value in inspection.mapping.model_dump().items() if value is None]
    whole = ", ".join(given + nothing)
    return [f"  read as, {inspection.origin}: corpus.table={{{whole}}}"]
