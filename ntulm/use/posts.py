"""POSTS of the command line, whatever they are: an export of a known format, a table, JSON lines on standard input.

A table with a column `text`, and standard input, need the light install alone. Every other export is read as the stage
`corpus` reads it, which needs `ntulm[pipeline]`: raw tweets, and tables that a mapping describes (that of
`corpus.table` in params.yaml, or the one that `ntulm inspect` guesses).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ntulm.errors import UserError
from ntulm.inference.directory import Settings
from ntulm.inference.incoming import Incoming, posts_of
from ntulm.inference.rows import (
    BYTE_ORDER_MARK,
    ROWS_AT_ONCE,
    STDIN,
    Fault,
    Part,
    columns_of,
    fields_in,
    files_of,
    head_of,
    kind_of,
    read_rows,
    read_stdin,
)
from ntulm.layout import Layout
from ntulm.posts import Posts
from ntulm.printable import printable
from ntulm.text import normalise, user_key

_REJECTS = "SELECT file, line, reject FROM record WHERE reject IS NOT NULL ORDER BY ordinal"
_POSTS = "SELECT post_id, text, author, mentions, hashtags, urls, places FROM post ORDER BY created_at, post_id"
WORLD = b"world:"  # how the description of a synthetic world begins


def read_incoming(source: str, settings: Settings) -> Iterator[Incoming]:
    """The posts of POSTS, a part at a time, as the model of `settings` reads them.

    Raises:
        UserError: nothing is there, it is of no known format, or a file is damaged.
    """
    if source == STDIN:
        return (posts_of(part, settings) for part in read_stdin())
    path = Path(source)
    file = files_of(path)[0]
    head = head_of(file)
    if not is_export(file, head):
        return (posts_of(part, settings) for part in table_parts(path, file))
    return export_parts(path, settings)


def check_source(source: str) -> None:
    """Refuse POSTS that are not there, before a model is loaded.

    Raises:
        UserError: names them.
    """
    if source != STDIN:
        files_of(Path(source))


def table_parts(path: Path, file: Path) -> Iterator[Part]:
    """The rows of a table, after saying which column is what, where that is not plain."""
    columns = columns_of(file)
    fields = fields_in(columns)
    other = {name: column for name, column in fields.items() if name != column}
    unused = [column for column in columns if column not in fields.values()]
    said = [f"{column} as {name}" for name, column in other.items()]
    said += [f"not used: {', '.join(unused)}"] if unused else []
    if said:
        print(printable(f"{path}: {'; '.join(said)}"), file=sys.stderr)
    return read_rows(path, fields)


def is_export(file: Path, head: bytes) -> bool:
    """Whether a file is one that the stage `corpus` has to read."""
    if is_tweet(head) or head.lstrip(BYTE_ORDER_MARK + b" \r\n\t").startswith(WORLD):
        return True
    columns = columns_of(file)
    return "text" not in [column.strip().casefold() for column in columns] or own_mapping(columns) is not None


def is_tweet(head: bytes) -> bool:
    """Whether a file holds tweets as version 1.1 of the API gave them: its first line is one."""
    if kind_of(head) != "json":
        return head.startswith(b"window.YTD")
    try:
        value = json.loads(head.removeprefix(BYTE_ORDER_MARK).split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "created_at" in value and isinstance(value.get("user"), dict)


def own_mapping(columns: list[str]) -> Any:
    """`corpus.table` of params.yaml in the working directory, where there is one and the columns are there."""
    if not Layout().params.is_file() or find_spec("duckdb") is None:
        return None
    from ntulm.corpus.inspect import fitting
    from ntulm.params import load_params

    return fitting(load_params(Layout().params).corpus.table, tuple(columns))


def export_parts(path: Path, settings: Settings) -> Iterator[Incoming]:
    """The posts of an export, its reposts and copies resolved, as the stage `corpus` has them."""
    done = 0
    for rows, faults, total in export_posts(path):
        source, fields = settings.source, {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
        if rows:
            users = [None if name is None else user_key(name, source.casefold_users) for name in fields["author"]]
            fields |= {"author": users, "hashtags": [[normalise(tag) for tag in own] for own in fields["hashtags"]]}
            named = [[user_key(name, source.casefold_users) for name in own] for own in fields["mentions"]]
            done += len(rows)
            posts = Posts.of(settings.scheme, fields | {"mentions": named})
        else:
            posts = posts_of(Part(), settings).posts
        yield Incoming(posts, faults, done / max(total, 1), list(range(len(posts))))


def export_posts(path: Path) -> Iterator[tuple[list[dict[str, Any]], list[Fault], int]]:
    """Rows of posts (`post_id`, `text`, `author`, `mentions`, `hashtags`, `urls`, `places`), faults, posts in all.

    The one place where the commands meet the reader of the corpus.
    """
    from ntulm.corpus.inspect import guess_columns, guess_mapping
    from ntulm.corpus.records import read_export
    from ntulm.corpus.sources import formats

    name, mapping = formats.detect(path), None
    if name == "table":
        columns = formats.source(name).columns(path)
        mapping = own_mapping(columns) or guess_mapping(tuple(columns))
        if mapping is None:
            missing = [
                field for field in ("created_at", "text", "author") if guess_columns(tuple(columns))[field] is None
            ]
            raise UserError(
                f"{path}: a table without a column `text`, and without one of a usual name for {', '.join(missing)}; "
                "name the column of the texts `text`, or say which column is what in corpus.table of params.yaml"
            )
    with (
        tempfile.TemporaryDirectory() as spill,
        read_export(path, name, mapping, [], "id", Path(spill)) as (connection, counts),
    ):
        total = counts["posts"] + counts["recovered"]
        for batch in connection.sql(_REJECTS).to_arrow_reader(ROWS_AT_ONCE):
            yield [], [Fault(f"{row['file']}:{row['line']}", row["reject"]) for row in batch.to_pylist()], total
        for batch in connection.sql(_POSTS).to_arrow_reader(ROWS_AT_ONCE):
            yield batch.to_pylist(), [], total
