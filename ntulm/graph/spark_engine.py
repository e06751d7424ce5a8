"""The engine `spark` of the stage `graph`: the same SQL, for more posts than one machine takes (relational.py).

Needs `ntulm[spark]` and Java 17. Where Spark was started or configured by its own means (`spark-submit`,
SPARK_CONF_DIR, PYSPARK_SUBMIT_ARGS), these say where it runs; otherwise it runs in this machine's cores and within
graph.memory_limit.

A table is a folder of Parquet files inside of the unfinished output, which goes away with it after a kill. So each is
computed once, whatever fails meanwhile: the numbers that a table gives to its rows would differ the second time. All
machines of a cluster have to see that folder, and the corpus, under the same path.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlglot  # noqa: F401 - of spark_sql.py; missing, it is told from here
from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as f

from ntulm.errors import UserError
from ntulm.graph import spark_sql
from ntulm.graph.keys import keys_of_lists, reader
from ntulm.resources import MEGABYTE, UNITS, cores, duckdb_memory

SUBMITTED = "PYSPARK_GATEWAY_PORT"  # spark-submit sets it: Java runs already
STARTED_OTHERWISE = (SUBMITTED, "PYSPARK_SUBMIT_ARGS", "SPARK_CONF_DIR")
LOGGING = Path(__file__).with_name("log4j2.properties")
LEAST_MEGABYTES = 512  # below this Spark does not start
ROW_BITS = 33  # of monotonically_increasing_id(): the row in its partition; the partition stands above
PLACE = "place in partition"
SESSION = {"spark.sql.session.timeZone": "UTC", "spark.sql.ansi.enabled": "true"}  # whatever the cluster's settings


class Spark:
    """The tables of a session, in a folder."""

    def __init__(self, session: SparkSession, folder: Path) -> None:
        self._session, self._folder = session, folder
        self._variables: dict[str, float] = {}
        self._results = itertools.count()
        session.sql(spark_sql.DRAW)

    def read(self, name: str, path: Path) -> None:
        self._parquet(path).createOrReplaceTempView(name)

    def add(self, name: str, table: pa.Table) -> None:
        (self._folder / name).mkdir()
        pq.write_table(table, self._folder / name / "part-0.parquet")
        self.read(name, self._folder / name)

    def let(self, name: str, value: float) -> None:
        self._variables[name] = value

    def key_functions(self, forms: Sequence[str]) -> nullcontext[None]:
        for form in forms:
            self._session.udf.register(f"keys_of_{form}", _key_function(form))
        return nullcontext()

    def run(self, statements: str) -> None:
        for one in spark_sql.statements(statements, self._variables):
            if one.does == "drop":
                self._session.catalog.dropTempView(one.name)
                shutil.rmtree(self._folder / one.name)
            elif one.does == "view":
                self._session.sql(one.query).createOrReplaceTempView(one.name)
            else:
                self._create(one)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._session.sql(spark_sql.query(query, self._variables)).collect()]

    def batches(self, query: str, rows: int) -> Iterator[pa.RecordBatch]:
        folder = self._folder / f"result-{next(self._results)}"
        self._write(self._session.sql(spark_sql.query(query, self._variables)), folder)
        for part in sorted(folder.glob("part-*.parquet"), key=_partition):
            with pq.ParquetFile(part) as file:
                yield from file.iter_batches(rows)
        shutil.rmtree(folder)

    def _create(self, table: spark_sql.Statement) -> None:
        found, folder = self._session.sql(table.query), self._folder / table.name
        if table.number:
            found = found.withColumn(PLACE, f.monotonically_increasing_id())
        self._write(found, folder)
        made = self._parquet(folder)
        if table.ordered:
            made = self._numbered(made, table)
        elif table.number:
            made = made.withColumnRenamed(PLACE, table.number)
        made.createOrReplaceTempView(table.name)

    def _numbered(self, made: DataFrame, table: spark_sql.Statement) -> DataFrame:
        """Rows in order across partitions, numbered from 0: each partition is short of what stands before it."""
        partition = f.shiftright(PLACE, ROW_BITS)
        counts = sorted(tuple(row) for row in made.groupBy(partition).count().collect())
        first = [0, *itertools.accumulate(count for _, count in counts)][: len(counts)]
        starts = pa.table(
            {"partition": pa.array([one for one, _ in counts], pa.int64()), "first": pa.array(first, pa.int64())}
        )
        self.add(f"{table.name}_starts", starts)
        row = f.col(PLACE).bitwiseAND(f.lit((1 << ROW_BITS) - 1))
        starts_of = f.broadcast(self._session.table(f"{table.name}_starts"))
        joined = made.join(starts_of, partition == f.col("partition"))
        return joined.withColumn(table.number, f.col("first") + row).drop("partition", "first", PLACE)

    def _parquet(self, path: Path) -> DataFrame:
        return self._session.read.parquet(_address(path, read=True))

    def _write(self, frame: DataFrame, folder: Path) -> None:
        frame.write.parquet(_address(folder))


@contextmanager
def database(memory_limit: str, out: Path) -> Iterator[Spark]:
    """A session of Spark whose tables lie in the unfinished output.

    Raises:
        UserError: there is no Java, or the memory does not suffice.
    """
    with tempfile.TemporaryDirectory(prefix="spill-", dir=out) as name:
        folder = Path(name).resolve()
        with _own_words(memory_limit), _session(memory_limit, folder) as session:
            yield Spark(session, folder)


@contextmanager
def _session(memory_limit: str, folder: Path) -> Iterator[SparkSession]:
    """A session of its own: of the Spark that runs in this process, or of one that is started and stopped."""
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # which has ntulm
    running = SparkSession.getActiveSession()
    started = running or _start(memory_limit, folder)
    try:
        session = started.newSession()  # its names, functions and settings are nobody else's
        for key, value in SESSION.items():
            session.conf.set(key, value)
        yield session
    finally:
        if running is None:
            started.stop()


def _start(memory_limit: str, folder: Path) -> SparkSession:
    if SUBMITTED not in os.environ:
        _require_java()
    builder = SparkSession.builder.appName("ntulm graph")
    if not any(name in os.environ for name in STARTED_OTHERWISE):
        for key, value in _of_this_machine(memory_limit, folder).items():
            builder.config(key, value)
    try:
        return builder.getOrCreate()
    except PySparkException as error:
        if error.getCondition() != "JAVA_GATEWAY_EXITED":
            raise
        raise UserError(
            "graph.engine: Java did not start Spark, its own words stand above; Spark needs Java 17"
        ) from error


def _of_this_machine(memory_limit: str, folder: Path) -> dict[str, str]:
    """Settings of a Spark in this process' cores and memory, which opens no port to the outside."""
    limit = duckdb_memory(memory_limit)
    megabytes = int(float(limit[:-2]) * UNITS[limit[-2:]] / MEGABYTE)
    if megabytes < LEAST_MEGABYTES:
        raise UserError(f"graph.memory_limit: {limit} is too small; Spark needs {LEAST_MEGABYTES}MB")
    return {
        "spark.master": f"local[{cores()}]",
        "spark.driver.memory": f"{megabytes}m",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": f'"-Dlog4j2.configurationFile={LOGGING}" "-Djava.io.tmpdir={folder}"',
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.local.dir": str(folder),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
    }


def _require_java() -> None:
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=None if home is None else str(Path(home) / "bin"))
    if found is None:
        where = "on the PATH" if home is None else f"in JAVA_HOME, {home}"
        raise UserError(f"graph.engine: spark needs Java, which is not found {where}; install Java 17")


@contextmanager
def _own_words(memory_limit: str) -> Iterator[None]:
    """Faults of the memory in one line."""
    try:
        yield
    except (PySparkException, Py4JError, ConnectionError) as error:
        if "OutOfMemoryError" in str(error):
            raise UserError(f"graph.memory_limit: {memory_limit} is too small for Spark; raise it") from error
        if isinstance(error, Py4JNetworkError | ConnectionError):
            raise UserError(
                f"graph: Spark's Java process has ended; if it was for memory: graph.memory_limit is {memory_limit}"
            ) from error
        raise


def _key_function(form: str) -> Any:
    def keys(lists: pa.Array) -> pa.Array:
        return keys_of_lists(reader(form), lists)

    make: Any = f.arrow_udf  # its declared types ask for a kind, which it takes from the annotations above
    return make(keys, "array<string>")


def _address(path: Path, read: bool = False) -> str:
    """A path for Spark, which takes the signs of patterns in what it reads for patterns."""
    absolute = str(path.resolve())
    return "file://" + (re.sub(r"([\[\]{}*?\\])", r"\\\1", absolute) if read else absolute)


def _partition(part: Path) -> int:
    return int(part.name.split("-")[1])
