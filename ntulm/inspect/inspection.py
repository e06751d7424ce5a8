"""Reading an export for `ntulm inspect`: what it is, what its records become, and what has to be said of them.

Reads the export with the code of the stage corpus, writes nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

from ntulm.corpus.config import TableMapping
from ntulm.corpus.records import Connection, Reader, read_export, row
from ntulm.corpus.sources import formats
from ntulm.corpus.stage import refuse_empty_parts, refuse_rejects, reject_reasons
from ntulm.errors import UserError
from ntulm.inspect.guess import REQUIRED, Guess, guess, likely_columns
from ntulm.inspect.preview import Preview, preview, settings
from ntulm.inspect.values import sampled

SAMPLE = 10  # posts that are shown
JUDGED = 20_000  # posts of which scripts and words are looked at
NOTICED = 0.01  # share of the texts that begin as reposts do
KINDS = {"digits": "ids", "did": "DIDs", "handle": "handles"}  # of users


@dataclass(frozen=True)
class Reason:
    """Why records are no posts."""

    reason: str
    records: int
    example: str  # FILE:LINE of the first


@dataclass(frozen=True)
class Post:
    """A post as it was read."""

    author: str
    created_at: datetime
    text: str
    hashtags: list[str]
    mentions: list[str]
    urls: list[str]


@dataclass(frozen=True)
class Languages:
    """Which languages the posts say that they are in, and what can be told of a part of the texts themselves."""

    codes: dict[str, int]  # the most frequent first; posts without a code are not in it
    posts: int
    other_script: float  # share of the texts whose letters are mostly not Latin
    english_words: float  # share of the texts with one of the most usual English words


@dataclass(frozen=True)
class Inspection:
    """What is told of an export."""

    path: str
    format: str
    confidence: float
    files: tuple[str, ...]
    alien: tuple[str, ...]  # files of no format, or of another one, that are skipped
    notes: tuple[str, ...]
    columns: tuple[str, ...] = ()  # of a table
    mapping: TableMapping | None = None  # of a table
    origin: str = ""  # where the mapping comes from
    missing: tuple[str, ...] = ()  # for a mapping
    # Fates of the records, authors, hashtags, engagements; empty where no mapping could be guessed.
    counts: dict[str, int] = field(default_factory=dict)
    first: str | None = None
    last: str | None = None
    left_out: tuple[Reason, ...] = ()
    rejects: tuple[Reason, ...] = ()
    sample: tuple[Post, ...] = ()
    languages: Languages | None = None
    graph: Preview | None = None
    warnings: tuple[str, ...] = ()


def inspect(path: str | Path, format: str = "auto", own: TableMapping | None = None) -> Inspection:
    """Read the whole export and count. Duplicates are those by id, and no language is filtered.

    `own` is a mapping that counts where the table has its columns; else one is guessed.

    Raises:
        UserError: an unknown format, or an export that cannot be read.
    """
    if format not in ("auto", *formats.FORMATS):
        raise UserError(f"--format: {format!r} is no format; expected auto, {', '.join(sorted(formats.FORMATS))}")
    with tempfile.TemporaryDirectory() as spill, formats.opened(path, Path(spill)) as export:
        detection = formats.detect(export, format)
        found = Inspection(
            str(path),
            detection.format,
            detection.confidence,
            tuple(str(file) for file in detection.files),
            tuple(str(file) for file in detection.alien),
            tuple(export.notes),
        )
        if found.format == "table":
            found = _with_mapping(found, formats.source(found.format), detection.files, own)
    if found.missing:
        return found
    with (
        tempfile.TemporaryDirectory() as spill,
        read_export(path, format, found.mapping, [], "id", Path(spill)) as read,
    ):
        return _with_records(found, read)


def _with_mapping(found: Inspection, table: ModuleType, files: Sequence[Any], own: TableMapping | None) -> Inspection:
    columns = tuple(table.columns(files))
    mapping = fitting(own, columns)
    if mapping is not None:
        return replace(found, columns=columns, mapping=mapping, origin="as params.yaml says")
    guessed: Guess = guess(columns, sampled(files, likely_columns(columns)))
    return replace(
        found,
        columns=columns,
        mapping=guessed.mapping,
        origin="guessed",
        missing=guessed.missing,
        notes=(*found.notes, *guessed.notes),
        warnings=tuple(guessed.warnings),
    )


def fitting(mapping: TableMapping | None, columns: Sequence[str]) -> TableMapping | None:
    """The mapping, where there is one and the table has the columns without which there is no post."""
    if mapping is None or not {getattr(mapping, name) for name in REQUIRED} <= set(columns):
        return None
    return mapping


def _with_records(found: Inspection, read: Reader) -> Inspection:
    connection, counts = read.connection, dict(read.counts)
    first, last, counts["authors"], _, counts["hashtags"] = row(connection, "SELECT * FROM figures")
    (counts["engagements"],) = row(connection, "SELECT count(*) FROM engagement")
    found = replace(
        found,
        counts=counts,
        first=None if first is None else first.isoformat(),
        last=None if last is None else last.isoformat(),
        left_out=_left_out(connection),
        rejects=tuple(_reasons(reject_reasons(connection))),
    )
    if not counts["posts"]:
        return found
    warnings = _one_author(connection) + _two_kinds_of_users(connection) + _untold_reposts(connection, found.mapping)
    sample, languages = tuple(sample_posts(connection)), languages_of(connection)
    params = settings()
    try:
        refuse_rejects(connection, counts, params.corpus.max_reject_share)
    except UserError as error:
        warnings.append(f"the stage corpus would stop: {error}")
    graph = preview(connection, params)
    try:
        refuse_empty_parts(connection, {**graph.parts, "graph": 1}, params.corpus.splits)
    except UserError as error:
        warnings.append(f"the stage corpus would stop: {error}")
    return replace(found, sample=sample, languages=languages, graph=graph, warnings=(*found.warnings, *warnings))


def _reasons(rows: Sequence[tuple[str, int, str, int]]) -> list[Reason]:
    return [Reason(reason, records, f"{file}:{line}") for reason, records, file, line in rows]


def _left_out(connection: Connection) -> tuple[Reason, ...]:
    """Why records that were understood are no posts to keep, where the table of records says so."""
    columns = {name for name, *_ in connection.execute("DESCRIBE record").fetchall()}
    if "left_out" not in columns:
        return ()
    query = """SELECT left_out, count(*) AS times, first(file ORDER BY ordinal), first(line ORDER BY ordinal)
        FROM record WHERE left_out IS NOT NULL GROUP BY left_out ORDER BY times DESC, left_out"""
    return tuple(_reasons(connection.execute(query).fetchall()))


def sample_posts(connection: Connection) -> list[Post]:
    """Posts from the first to the last in time, at equal steps."""
    (posts,) = row(connection, "SELECT count(*) FROM post WHERE NOT recovered")
    number = min(SAMPLE, posts)
    places = [1 + round(at * (posts - 1) / max(1, number - 1)) for at in range(number)]
    query = """SELECT author, created_at, text, hashtags, mentions, urls FROM (
            SELECT *, row_number() OVER (ORDER BY created_at, post_id) AS place FROM post WHERE NOT recovered
        ) WHERE list_contains($places::BIGINT[], place) ORDER BY place"""
    return [Post(*values) for values in connection.execute(query, {"places": places}).fetchall()]


def languages_of(connection: Connection) -> Languages:
    """The codes of all posts, and the letters and words of some."""
    codes = connection.execute(
        "SELECT lang, count(*) AS times FROM post WHERE lang <> '' GROUP BY lang ORDER BY times DESC, lang"
    ).fetchall()
    (posts,) = row(connection, "SELECT count(*) FROM post")
    words = r"\b(the|and|you|that|this|with|have|not|they|from|for|are|is|to|of)\b"
    query = r"""
        WITH chosen AS (SELECT lower(text) AS text FROM post WHERE rowid % $step = 0),
        letters AS (
            SELECT text, length(regexp_replace(text, '\P{L}', '', 'g')) AS every,
                length(regexp_replace(text, '\P{Latin}', '', 'g')) AS latin
            FROM chosen)
        SELECT coalesce(avg((latin < every / 2)::INT), 0), coalesce(avg(regexp_matches(text, $words)::INT), 0)
        FROM letters"""
    other_script, english = row(connection, query, {"step": max(1, -(-posts // JUDGED)), "words": words})
    return Languages(dict(codes), posts, other_script, english)


def _one_author(connection: Connection) -> list[str]:
    (authors,) = row(connection, "SELECT count(DISTINCT author) FROM post")
    if authors != 1:
        return []
    return [
        "one author wrote all posts: who wrote a post says nothing here, so author information cannot help; hashtags "
        "may (run.variants=[text, hashtag] model.variant=hashtag)"
    ]


def _untold_reposts(connection: Connection, mapping: TableMapping | None) -> list[str]:
    """Reposts of a table that has no column for them."""
    if mapping is None or mapping.repost_flag or mapping.reposted_id:
        return []
    (share,) = row(connection, r"SELECT avg(regexp_matches(text, '^\s*RT\s+[@＠]\w')::INT) FROM post")
    if share < NOTICED:
        return []
    return [
        f"{share:.0%} of the texts begin with `RT @`: reposts are not told apart from posts; name the column that "
        "tells them (corpus.table.repost_flag or reposted_id), or write the table with one that is 1 for those texts"
    ]


def _two_kinds_of_users(connection: Connection) -> list[str]:
    """Ids as authors beside handles as mentions: the same person would be two nodes."""
    query = """
        WITH named AS (
            SELECT DISTINCT 'authors' AS place, author AS name FROM post WHERE author IS NOT NULL
            UNION ALL SELECT DISTINCT 'mentions', unnest(mentions) FROM post
        )
        SELECT place, CASE WHEN regexp_full_match(name, '\\d+') THEN 'digits'
            WHEN starts_with(name, 'did:') THEN 'did' ELSE 'handle' END AS kind, count(*)
        FROM named GROUP BY ALL ORDER BY count(*)"""
    most = {place: (kind, number) for place, kind, number in connection.execute(query).fetchall()}  # the last is most
    if len(most) < 2 or most["authors"][0] == most["mentions"][0]:
        return []
    (author, authors), (mention, mentions) = most["authors"], most["mentions"]
    return [
        f"authors are {KINDS[author]} ({authors:,}) and mentions are {KINDS[mention]} ({mentions:,}): whoever writes "
        "and is mentioned is two users in the graph; name a column of authors that is written as the mentions are "
        "(corpus.table.author), if there is one"
    ]
