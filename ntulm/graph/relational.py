"""What the stage `graph` asks of an engine: to hold tables and to run the SQL of this folder on them.

The SQL is written once, in DuckDB's dialect; duckdb_engine.py runs it as it is, spark_engine.py what sqlglot makes of
it (spark_sql.py). Beside plain SQL it uses what an engine has to give it:
    getvariable(name)        a number that `let` has set
    draw(text)               a number of [0, 1) that the text decides: the upper 53 bits of the first eight bytes of its
                             MD5, the least significant byte first
    keys_of_FORM(values)     the keys of a list of strings, by a key form of `ntulm/text.py`, inside of `key_functions`
    row_number() OVER ()     in a table's SELECT: distinct numbers, not dense and in no order
    row_number() OVER (ORDER BY ...) - 1
                             in a table's SELECT: the places of the rows in that order, which has no ties
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa


class Relational(Protocol):
    """Tables and views under names, and numbers for getvariable()."""

    def read(self, name: str, path: Path) -> None:
        """Make a view of a Parquet file."""

    def add(self, name: str, table: pa.Table) -> None:
        """Make a table of a small one."""

    def let(self, name: str, value: float) -> None:
        """Set a variable."""

    def key_functions(self, forms: Sequence[str]) -> AbstractContextManager[None]:
        """Functions `keys_of_FORM` for queries inside of the context."""

    def run(self, statements: str) -> None:
        """Run statements: CREATE TABLE name AS, CREATE VIEW name AS and DROP TABLE."""

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The few rows of a query."""

    def batches(self, query: str, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows of a query, in its order, in batches of about `rows` rows."""
