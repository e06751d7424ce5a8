"""Labels that the records of a JSON format bring, by the paths of `corpus.labels` (`VERACITY`, `annotation.stance`).

Library of the sources; not a format. Tables read theirs with their other columns (`table.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import duckdb
import pyarrow as pa

from ntulm.corpus.sources.json_paths import Extraction
from ntulm.errors import UserError

Connection = duckdb.DuckDBPyConnection
Place = tuple[str, int]  # file, line


class LabelPaths:
    """The paths, and what was met on them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = {f"label_{place}": path for place, path in enumerate(paths)}
        self._extraction = Extraction({}, self._paths, {}, dict.fromkeys(self._paths, "one_item"))
        self._first: str | None = None

    def added(self, connection: Connection, lines: pa.Table, rows: pa.Table) -> pa.Table:
        """The rows of RAW_SCHEMA with the labels of their records behind those that they have.

        Args:
            connection: with the macros of `json_paths`, and one thread.
            lines: `file`, `line`, `content`, `reject`; a record each.
            rows: that a format made of them.

        Raises:
            UserError: a record with a label holds several posts: whose it is nobody knows.
        """
        found = self._found(connection, lines)
        self._first = self._first or next(iter(lines["file"].to_pylist()), None)
        if not found:
            return rows
        posts = rows.select(["file", "line", "text", "is_repost"]).to_pylist()
        holders = [(row["file"], row["line"]) if row["text"] or row["is_repost"] else None for row in posts]
        for (file, line), count in Counter(place for place in holders if place in found).items():
            if count > 1:
                raise UserError(
                    f"{file}:{line}: a record with {count} posts and a label of its own; corpus.labels needs "
                    "one record per post"
                )
        labels = [
            [*(own or []), *(found.get(place, []) if place else [])]
            for own, place in zip(rows["labels"].to_pylist(), holders, strict=True)
        ]
        column = rows.schema.get_field_index("labels")
        return rows.set_column(column, rows.schema.field(column), pa.array(labels, rows.schema.field(column).type))

    def _found(self, connection: Connection, lines: pa.Table) -> dict[Place, list[dict[str, Any]]]:
        read = self._extraction.rows(connection, lines).to_pylist()
        found: dict[Place, list[dict[str, Any]]] = {}
        for row in read:
            own = [
                {"field": path, "value": value}
                for name, path in self._paths.items()
                for value in row[name] or []
                if value is not None
            ]
            if own and row["reject"] is None:
                found[row["file"], row["line"]] = own
        return found

    def judge(self) -> None:
        """What only the whole export tells.

        Raises:
            UserError: no record has a path, or what it leads to is an object.
        """
        for name, path in self._paths.items():
            if self._first is not None and name in self._extraction.unseen:
                raise UserError(f"{self._first}: no record has {path!r} (corpus.labels); expected the path of a value")
            if self._extraction.held_objects.get(name) and name not in self._extraction.taken:
                raise UserError(
                    f"{self._first}: {path!r} (corpus.labels) holds objects; expected the path of a value in them, "
                    f"such as '{path}.name'"
                )
