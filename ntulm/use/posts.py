"""POSTS of the command line, whatever they are: an export of a known format, a table, JSON lines on standard input.

A table with a column `text`, and standard input, need the light install alone. Every other export is read as the stage
`corpus` reads it, which needs `ntulm[pipeline]`: raw tweets, and tables that a mapping describes (that of
`corpus.table` in params.yaml, or the one that `ntulm inspect` guesses).
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ntulm import pseudonyms
from ntulm.errors import UserError
from ntulm.inference.directory import Settings
from ntulm.inference.incoming import Incoming, posts_of
from ntulm.inference.rows import (
    ROWS_AT_ONCE,
    STDIN,
    Fault,
    Part,
    columns_of,
    fields_in,
    files_of,
    read_rows,
    read_stdin,
)
from ntulm.layout import Layout
from ntulm.ntus import USERS
from ntulm.posts import Posts
from ntulm.printable import printable
from ntulm.text import Reading, normalise, user_key

_REJECTS = "SELECT file, line, reject FROM record WHERE reject IS NOT NULL ORDER BY ordinal"
_POSTS = """
SELECT post_id, text, author, reply_to, quoted, mentions, hashtags, urls, places, cashtags, community
FROM post ORDER BY created_at, post_id
"""


def read_incoming(source: str, settings: Settings) -> Iterator[Incoming]:
    """The posts of POSTS, a part at a time, as the model of `settings` reads them.

    Raises:
        UserError: nothing is there, it is of no known format, or a file is damaged.
    """
    if source == STDIN:
        return (posts_of(part, settings) for part in read_stdin())
    path = Path(source)
    file = files_of(path)[0]
    export = export_of(path, file)
    if export is None:
        return (posts_of(part, settings) for part in table_parts(path, file))
    return export_parts(path, settings, *export)


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


def export_of(path: Path, file: Path) -> tuple[str, Any] | None:
    """Format and mapping of what the stage `corpus` has to read; None for a table with a column `text`.

    Raises:
        UserError: it is of no known format, or a table of which nobody can tell which column is what.
    """
    if find_spec("duckdb") is None:
        if not has_texts(columns_of(file)):
            raise UserError(f"{path}: no table with a column `text`; exports need `pip install 'ntulm[pipeline]'`")
        return None
    from ntulm.corpus.sources import formats
    from ntulm.inspect.guess import guess, likely_columns
    from ntulm.inspect.values import sampled

    with tempfile.TemporaryDirectory() as spill, formats.opened(path, Path(spill)) as export:
        try:
            found = formats.detect(export)
        except UserError:
            if has_texts(columns_of(file)):  # a table of one column, or texts, one per line
                return None
            raise
        if found.format != "table":
            return found.format, None
        columns = formats.source("table").columns(found.files)
        if (own := own_mapping(columns)) is not None:
            return "table", own
        if has_texts(columns):
            return None
        guessed = guess(columns, sampled(found.files, likely_columns(columns)))
    if guessed.mapping is None:
        raise UserError(
            f"{path}: a table without a column `text`, and without one of a usual name for "
            f"{', '.join(guessed.missing)}; name the column of the texts `text`, or say which column is what in "
            "corpus.table of params.yaml"
        )
    return "table", guessed.mapping


def has_texts(columns: Sequence[str]) -> bool:
    """Whether one of the columns is called `text`."""
    return "text" in [column.strip().casefold() for column in columns]


def own_mapping(columns: list[str]) -> Any:
    """`corpus.table` of params.yaml in the working directory, where there is one and the columns are there."""
    if not Layout().params.is_file() or find_spec("duckdb") is None:
        return None
    from ntulm.inspect.inspection import fitting
    from ntulm.params import load_params

    return fitting(load_params(Layout().params).corpus.table, tuple(columns))


def export_parts(path: Path, settings: Settings, format_name: str, mapping: Any) -> Iterator[Incoming]:
    """The posts of an export, its reposts and copies resolved, as the stage `corpus` has them.

    The one place where the commands meet the reader of the corpus.
    """
    from ntulm.corpus.records import Privacy, read_export

    privacy = Privacy(settings.source.pseudonyms is not None, ())
    pseudonyms.of(settings.source)  # another key would make other users
    with (
        tempfile.TemporaryDirectory() as spill,
        read_export(path, format_name, mapping, [], "id", Path(spill), privacy) as export,
    ):
        for note in export.notes:
            print(printable(f"{path}: {note}"), file=sys.stderr)
        total, done = export.counts["posts"] + export.counts["recovered"], 0
        for batch in export.connection.sql(_REJECTS).to_arrow_reader(ROWS_AT_ONCE):
            faults = [Fault(f"{row['file']}:{row['line']}", row["reject"]) for row in batch.to_pylist()]
            yield Incoming(posts_of(Part(), settings).posts, faults, 0.0, [])
        for batch in export.connection.sql(_POSTS).to_arrow_reader(ROWS_AT_ONCE):
            posts = Posts.of(settings.scheme, as_read(batch.to_pydict(), settings.source))
            done += len(posts)
            yield Incoming(posts, [], done / max(total, 1), list(range(len(posts))))


def as_read(fields: dict[str, Any], reading: Reading) -> dict[str, Any]:
    """Columns of posts with users and hashtags as the model's own source writes them."""

    def user(name: str | None) -> str | None:
        return None if name is None else user_key(name, reading.casefold_users)

    return fields | {
        **{name: [user(value) for value in fields[name]] for name in USERS},
        "mentions": [[user(name) for name in own] for own in fields["mentions"]],
        "hashtags": [[normalise(tag) for tag in own] for own in fields["hashtags"]],
    }
