"""The list of authors and posts that are not to be read again: `corpus.forget` of params.yaml names the file.

A line is `author NAME` or `post ID`; with pseudonyms it is `author-hash …` or `post-hash …`, so that the list names
nobody. Whoever is listed is left out with all posts, also where others reposted them, and leaves the mentions and texts
of others. Library of the stage corpus and of `ntulm forget`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
from duckdb.func import ARROW

from ntulm.errors import UserError
from ntulm.pseudonyms import Pseudonyms

HERE = Path(__file__).parent
KINDS = ("author", "post", "author-hash", "post-hash")
REASON = "to be forgotten"
NOBODY = "@user"  # what stands in the texts of others, as where mentions are masked

# Kind -> where `mark` puts what is listed, and the names that a hash may stand for.
TABLES = {
    "author": (
        "gone_author",
        "SELECT actor AS name FROM record UNION SELECT author FROM record UNION SELECT unnest(mentions) FROM record "
        "UNION SELECT unnest(favorited_by) FROM record UNION SELECT id FROM person UNION SELECT handle FROM person",
    ),
    "post": ("gone_post", "SELECT post_id AS name FROM record UNION SELECT record_id FROM record"),
}

Kind = Literal["author", "post"]


@dataclass(frozen=True)
class Entry:
    """A line of the list."""

    kind: str  # of KINDS
    value: str

    def __str__(self) -> str:
        return f"{self.kind} {self.value}"


def entry(kind: Kind, value: str, pseudonyms: Pseudonyms | None) -> Entry:
    """The line for a user (id or handle, in any case) or a post id."""
    bare = handle_key(value) if kind == "author" else value.strip()
    if not bare or not bare.isprintable():
        raise UserError(f"--{kind}: {value!r}; expected a name or an id")
    return Entry(kind, bare) if pseudonyms is None else Entry(f"{kind}-hash", _hash(kind, pseudonyms, bare))


def _hash(kind: str, pseudonyms: Pseudonyms, value: str) -> str:
    return pseudonyms.listed(f"{kind} {handle_key(value) if kind == 'author' else value}")


def handle_key(name: str) -> str:
    """As the macro in tables.sql: a handle is the same in any case, with or without its sign."""
    return name.strip().lstrip("@＠").lower()


def read(path: Path) -> list[Entry]:
    """The entries of a list; a file that is not there has none (DVC, for which it is an input, refuses that)."""
    if not path.is_file():
        return []
    entries = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8; expected lines like `author NAME`") from error
    for number, line in enumerate(lines, 1):
        kind, _, value = line.strip().partition(" ")
        if not kind or kind.startswith("#"):
            continue
        if kind not in KINDS or not value.strip():
            raise UserError(f"{path}:{number}: {line[:60]!r}; expected `author NAME` or `post ID`")
        entries.append(Entry(kind, value.strip()))
    return entries


def add(path: Path, new: Entry) -> bool:
    """Add a line, if it is not there yet; whether it was added."""
    if new in read(path):
        return False
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    whole = before if not before or before.endswith("\n") else before + "\n"
    path.write_text(f"{whole}{new}\n", encoding="utf-8")
    return True


def mark(connection: duckdb.DuckDBPyConnection, entries: Sequence[Entry], pseudonyms: Pseudonyms | None) -> None:
    """Put what is listed beside what records say was taken back, before fates are decided.

    Raises:
        UserError: the list has hashes, and there are no pseudonyms whose key would tell whose they are.
    """
    for kind, (table, names) in TABLES.items():
        found = [one.value for one in entries if one.kind == kind]
        hashes = {one.value for one in entries if one.kind == f"{kind}-hash"}
        if hashes and pseudonyms is None:
            raise UserError(f"corpus.forget: {kind}-hash: without corpus.pseudonyms nobody can tell whose it is")
        if hashes and pseudonyms is not None:
            found += _of_hashes(connection, names, hashes, partial(_hash, kind, pseudonyms))
        connection.execute(
            f"INSERT INTO {table} SELECT unnest($names::VARCHAR[]), $reason", {"names": found, "reason": REASON}
        )


def _of_hashes(
    connection: duckdb.DuckDBPyConnection, names: str, hashes: set[str], hashed: Callable[[str], str]
) -> list[str]:
    """Which of the names of a query have one of the hashes."""

    def is_listed(values: pa.ChunkedArray) -> pa.Array:
        return pa.array([hashed(value) in hashes for value in values.to_pylist()], pa.bool_())

    query = f"SELECT name FROM ({names}) WHERE name IS NOT NULL AND is_listed(name)"  # noqa: S608 - one of TABLES
    return [name for (name,) in _with_function(connection, "is_listed", is_listed, "BOOLEAN", query)]


def unname(connection: duckdb.DuckDBPyConnection) -> None:
    """Take the forgotten users out of the posts of others: mentions, who is answered or quoted, texts."""
    query = "CREATE TABLE forgotten AS SELECT name FROM gone_name WHERE reason = $reason"
    connection.execute(query, {"reason": REASON})
    names = [
        name for (name,) in connection.execute("SELECT name FROM forgotten ORDER BY len(name) DESC, name").fetchall()
    ]
    if not names:
        return
    pattern = re.compile(rf"[@＠](?:{'|'.join(map(re.escape, names))})(?![A-Za-z0-9_])", re.IGNORECASE)

    def without(values: pa.ChunkedArray) -> pa.Array:
        return pa.array([pattern.sub(NOBODY, text) for text in values.to_pylist()], pa.string())

    script = (HERE / "forget.sql").read_text(encoding="utf-8")
    _with_function(connection, "without_forgotten", without, "VARCHAR", script)


def _with_function(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    function: Callable[[pa.ChunkedArray], pa.Array],
    gives: str,
    query: str,
) -> list[tuple[str, ...]]:
    """What a query gives that uses a function of strings."""
    connection.create_function(name, function, ["VARCHAR"], gives, type=ARROW)
    try:
        return connection.execute(query).fetchall()
    finally:
        with suppress(duckdb.Error):  # a query that was left unfinished: its own error is the one to see
            connection.remove_function(name)
