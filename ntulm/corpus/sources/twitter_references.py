"""The posts that tweets of version 2 refer to, where they stand in files of their own (academictwitteR's
`users_*.json`).

Library of the sources; not a format.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import duckdb
import pyarrow as pa

from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import Sample, sample
from ntulm.corpus.sources.lines import record_lines, side_by_side

Connection = duckdb.DuckDBPyConnection

_REFERENCES = """
SELECT json_extract_string(post, '$.id') AS id, post AS content
FROM (SELECT unnest(json_extract(content, '$.tweets[*]')) AS post FROM lines WHERE json_valid(content))
WHERE json_extract_string(post, '$.id') IS NOT NULL AND json_extract_string(post, '$.text') IS NOT NULL
"""


def is_includes(value: dict[str, Any]) -> bool:
    """Whether an object is the `includes` of a page, by itself."""
    return not {"id", "data", "text"} & value.keys() and any(
        isinstance(value.get(key), list) for key in ("users", "tweets")
    )


class References:
    """Posts that others refer to, by id, on disk: there may be as many as posts."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False)
        self._connection.execute("CREATE TABLE post (id TEXT PRIMARY KEY, content TEXT) WITHOUT ROWID")
        self._lock = Lock()

    def add(self, posts: Iterable[tuple[str, str]]) -> None:
        """Keep posts as JSON; the first of an id stays."""
        self._connection.executemany("INSERT OR IGNORE INTO post VALUES (?, ?)", posts)

    def find(self, ids: list[str]) -> list[tuple[str, str]]:
        """Id and JSON of those that are known."""
        question = "SELECT id, content FROM post WHERE id IN (SELECT value FROM json_each(?))"
        with self._lock:
            return self._connection.execute(question, [json.dumps(ids)]).fetchall()

    def close(self) -> None:
        """End it."""
        self._connection.close()


@contextmanager
def references_of(files: Sequence[File]) -> Iterator[References | None]:
    """The posts in files of includes; none where there are no such files."""
    holders = [file for file in files if _holds_includes(sample(file))]
    if not holders:
        yield None
        return
    with (
        TemporaryDirectory() as folder,
        closing(References(Path(folder) / "references.sqlite")) as references,
        duckdb.connect() as connection,
    ):

        def posts(cursor: Connection, lines: pa.Table) -> list[tuple[str, str]]:
            cursor.register("lines", lines)
            return cursor.execute(_REFERENCES).fetchall()

        for found in side_by_side(connection, posts, record_lines(holders)):
            references.add(found)
        yield references


def _holds_includes(start: Sample) -> bool:
    if start.objects:
        return any(is_includes(value) for value in start.objects)
    return re.match(rb'\s*{\s*"(users|tweets|media|places)"', start.head.removeprefix(b"\xef\xbb\xbf")) is not None
