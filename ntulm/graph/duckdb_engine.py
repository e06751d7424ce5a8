"""The engine `duckdb` of the stage `graph`: one process, bounded memory, and the disk beyond it (relational.py)."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from duckdb import func

from ntulm.errors import UserError
from ntulm.graph.keys import keys_of_lists, reader
from ntulm.resources import duckdb_memory

DRAW = "CREATE OR REPLACE TEMPORARY MACRO draw(text) AS (md5_number_upper(text) >> 11) / pow(2, 53)"


class DuckDb:
    """The tables of a connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        connection.execute(DRAW)

    def read(self, name: str, path: Path) -> None:
        self._connection.read_parquet(str(path)).create_view(name)

    def add(self, name: str, table: pa.Table) -> None:
        self._connection.from_arrow(table).create(name)

    def let(self, name: str, value: float) -> None:
        self._connection.execute(f"SET VARIABLE {name} = $value", {"value": value})

    @contextmanager
    def key_functions(self, forms: Sequence[str]) -> Iterator[None]:
        strings = duckdb.list_type(duckdb.sqltype("VARCHAR"))
        for form in forms:
            function = partial(keys_of_lists, reader(form))
            self._connection.create_function(f"keys_of_{form}", function, [strings], strings, type=func.ARROW)
        try:
            yield
        finally:
            with suppress(duckdb.Error):  # a query that was left unfinished: its own error is the one to see
                for form in forms:
                    self._connection.remove_function(f"keys_of_{form}")

    def run(self, statements: str) -> None:
        self._connection.execute(statements)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()

    def batches(self, query: str, rows: int) -> Iterator[pa.RecordBatch]:
        found = self._connection.sql(query).to_arrow_reader(rows)
        assert found is not None
        yield from found


@contextmanager
def database(memory_limit: str, out: Path) -> Iterator[DuckDb]:
    """A DuckDB in memory that spills into the unfinished output, which goes away with it after a kill.

    Raises:
        UserError: the memory does not suffice.
    """
    limit = duckdb_memory(memory_limit)
    with tempfile.TemporaryDirectory(prefix="spill-", dir=out) as spill:
        settings: dict[str, Any] = {"memory_limit": limit, "temp_directory": spill}
        with duckdb.connect(":memory:", config=settings) as connection:
            try:
                yield DuckDb(connection)
            except duckdb.OutOfMemoryException as error:
                reason = str(error).splitlines()[0]
                if limit != memory_limit:
                    raise UserError(
                        f"graph: {limit}, its share of this machine or container, is too small ({reason})"
                    ) from error
                raise UserError(f"graph.memory_limit: {limit} is too small; raise it ({reason})") from error
