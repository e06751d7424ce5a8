"""Users under one name each: ids in the place of handles, where the export says which belong together.

Library of `ntulm/corpus/records.py`; joined.sql, people.sql and pseudonyms.sql do the work.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
from duckdb.func import ARROW

from ntulm.pseudonyms import Pseudonyms

HERE = Path(__file__).parent
MOST = 0.9  # of the names: so many of one kind, and the others are exceptions
# A number, a decentralised identifier, or a hash as releases of anonymised accounts have them.
ID_PATTERN = r"\d+|did:.+|[0-9a-f]{32,}|[A-Za-z0-9+/_-]{40,}=*"


@dataclass(frozen=True)
class People:
    """Who the users of posts and engagements are."""

    joined: int  # users with an id that some records name by handle: under their id now
    mentioned: int  # names in mentions
    strangers: int  # of these, nobody's key as an author
    split: bool  # authors are ids, mentions are handles: the same people are two

    @property
    def warning(self) -> str | None:
        """What there is to say of users who are two, in one line."""
        if not self.split:
            return None
        return (
            f"{self.strangers:,} of {self.mentioned:,} mentioned names are nobody's author key: authors are ids and "
            "mentions are handles, so a person who is mentioned and writes counts as two; give authors by handle, or "
            "an export that has both"
        )


def join(connection: duckdb.DuckDBPyConnection) -> None:
    """Replace handles in `post` and `engagement` by ids, as far as `person` says."""
    for needed, name in (("person", "joined.sql"), ("joined", "people.sql")):
        if connection.table(needed).limit(1).fetchall():
            connection.execute((HERE / name).read_text(encoding="utf-8"))


def hide(connection: duckdb.DuckDBPyConnection, pseudonyms: Pseudonyms | None) -> None:
    """Put pseudonyms in the place of users in `post`, `engagement` and `label`; None leaves them."""
    if pseudonyms is None:
        return

    def each(change: Callable[[str], str]) -> Callable[[pa.ChunkedArray], pa.Array]:
        return lambda values: pa.array([change(value) for value in values.to_pylist()], pa.string())

    functions = {"pseudonym": pseudonyms.user, "hidden_text": pseudonyms.text, "hidden_id": pseudonyms.post_id}
    functions["hidden_link"] = pseudonyms.link
    for name, change in functions.items():
        connection.create_function(name, each(change), ["VARCHAR"], "VARCHAR", type=ARROW)
    try:
        connection.execute((HERE / "pseudonyms.sql").read_text(encoding="utf-8"))
    finally:
        with suppress(duckdb.Error):  # a query that was left unfinished: its own error is the one to see
            for name in functions:
                connection.remove_function(name)


def count(connection: duckdb.DuckDBPyConnection) -> People:
    """Count users; call it before they get pseudonyms, which look alike."""
    statement = (HERE / "people_figures.sql").read_text(encoding="utf-8")
    found = connection.execute(statement, {"pattern": ID_PATTERN}).fetchall()
    ((joined, mentioned, strangers, author_ids, mention_ids),) = found
    return People(joined, mentioned, strangers, author_ids > MOST and mention_ids < 1 - MOST and strangers > 0)
