"""Stage `graph`: the heterogeneous user-hashtag graph of the posts in the graph window (§3.1), and PBG's input files.

Reads data/corpus/{posts,engagements,splits}.parquet.
Writes data/graph/nodes.parquet, data/graph/edges.parquet, data/graph/pbg/ and metrics/graph.json.
Command: `ntulm graph`, or `dvc repro graph`. The SQL stands in graph.sql and graph_nodes.sql.

data/graph/pbg/ is what PyTorch-BigGraph 1.0.0 trains from, in one partition:
    entity_count_{user,hashtag}_0.txt   number of nodes of a type; node ids count from 0 within each type here
    relations.json                      relation names; `rel` is an index into them
    {train,held_out}/edges_0_0.h5       lhs, rel, rhs: int64 [E]; in train an edge stands min(count, max_count) times
PBG's entity_names_*.json are left out: only its importer and exporter read them, and nodes.parquet has the names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ntulm import files, layout
from ntulm.errors import UserError

if TYPE_CHECKING:
    from ntulm.graph.config import Graph

BATCH_ROWS = 1 << 17  # rows of a Parquet row group and of a write to HDF5
PBG_FORMAT_VERSION = 1
POST_FACTS = """SELECT (SELECT count(*) FROM splits WHERE graph) AS posts,
    (SELECT count(*) FROM tagged) AS posts_with_hashtags"""
NODES = pa.schema([("id", pa.int64()), ("type", pa.string()), ("key", pa.string()), ("degree", pa.int64())])
EDGES = pa.schema(
    [
        ("lhs", pa.int64()),
        ("rel", pa.string()),
        ("rhs", pa.int64()),
        ("count", pa.int64()),
        ("held_out", pa.bool_()),
    ]
)


def run(config: Graph) -> None:
    """Extract the graph from the corpus and write it, with its metrics.

    Raises:
        UserError: the corpus is missing, memory_limit is too small, or there is no edge.
    """
    with files.whole_directory(layout.GRAPH) as out, _database(config.memory_limit, out) as database:
        extract(database, config)
        facts = _facts(database, POST_FACTS) | _facts(database, "FROM key_facts")
        _check_edges(facts, config)
        relations = write(database, config, out)
    files.write_json(layout.metrics("graph"), summarise(facts, relations))


def extract(database: duckdb.DuckDBPyConnection, config: Graph) -> None:
    """Fill the tables tagged, nodes, edges and key_facts of `database` from the corpus files.

    Raises:
        UserError: a file of the corpus is missing, or memory_limit does not suffice.
    """
    for name, path in (("posts", layout.POSTS), ("engagements", layout.ENGAGEMENTS), ("splits", layout.SPLITS)):
        if not path.is_file():
            raise UserError(f"{path}: not found; run `dvc repro corpus` first, which writes it")
        database.read_parquet(str(path)).create_view(name)
    database.execute("SET VARIABLE relations = $value", {"value": _ordered(config)})
    with _memory_errors(config):
        database.execute(resources.files("ntulm.graph").joinpath("uses.sql").read_text(encoding="utf-8"))
    number_nodes(database, config)


def number_nodes(database: duckdb.DuckDBPyConnection, config: Graph) -> None:
    """From the table raw_edges to nodes, edges and key_facts (graph_nodes.sql).

    Raises:
        UserError: memory_limit does not suffice.
    """
    variables = {
        "min_degree_user": config.min_degree.user,
        "min_degree_hashtag": config.min_degree.hashtag,
        "held_out_share": config.held_out_share,
        "seed": config.seed,
    }
    for name, value in variables.items():
        database.execute(f"SET VARIABLE {name} = $value", {"value": value})
    with _memory_errors(config):
        database.execute(resources.files("ntulm.graph").joinpath("nodes.sql").read_text(encoding="utf-8"))


def write(database: duckdb.DuckDBPyConnection, config: Graph, out: Path) -> list[dict[str, Any]]:
    """Write nodes.parquet, edges.parquet and PBG's files into an empty folder; what there is of each relation."""
    facts = _facts(database, "FROM key_facts")
    relations = _relations(database, config)
    write_nodes(database, out / layout.NODES.name)
    (out / layout.PBG_INPUT.name).mkdir()
    _write_counts(facts, relations, out / layout.PBG_INPUT.name)
    write_edges(database, config, facts, out)
    return relations


def write_nodes(database: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write nodes.parquet, ordered by id."""
    with pq.ParquetWriter(path, NODES, compression="zstd") as writer:
        for batch in _batches(database, "SELECT id, type, key, degree FROM nodes ORDER BY id"):
            writer.write_table(batch.cast(NODES), row_group_size=BATCH_ROWS)


def write_edges(database: duckdb.DuckDBPyConnection, config: Graph, facts: dict[str, int], out: Path) -> None:
    """Write edges.parquet and PBG's two edge lists in one ordered pass."""
    pbg = out / layout.PBG_INPUT.name
    query = "SELECT sum(least(count, $max)) FILTER (NOT held_out)::BIGINT, count(*) FILTER (held_out) FROM edges"
    ((train_rows, held_out_rows),) = database.execute(query, {"max": config.max_count}).fetchall()
    names = pa.array(_ordered(config))
    with (
        pq.ParquetWriter(out / layout.EDGES.name, EDGES, compression="zstd") as writer,
        EdgeList(pbg / "train", train_rows) as train,
        EdgeList(pbg / "held_out", held_out_rows) as held_out,
        _memory_errors(config),
    ):
        for batch in _batches(database, "SELECT lhs, rel, rhs, count, held_out FROM edges ORDER BY lhs, rel, rhs"):
            rel = pa.DictionaryArray.from_arrays(batch["rel"].combine_chunks().cast(pa.int32()), names)
            table = batch.set_column(1, "rel", rel.cast(pa.string())).cast(EDGES)
            writer.write_table(table, row_group_size=BATCH_ROWS)
            columns = {name: batch[name].to_numpy() for name in ("lhs", "rel", "rhs", "count", "held_out")}
            columns["lhs"] = columns["lhs"] - facts["hashtags"]  # hashtags stand before users in the ids of nodes
            times = np.minimum(columns["count"], config.max_count)
            train.append(columns, np.where(columns["held_out"], 0, times))
            held_out.append(columns, columns["held_out"].astype(np.int64))


class EdgeList:
    """One edges_0_0.h5 of PBG, of a known number of edges, written in pieces; use as a context manager."""

    def __init__(self, directory: Path, rows: int) -> None:
        directory.mkdir()
        self._file = h5py.File(directory / "edges_0_0.h5", "w")
        self._file.attrs["format_version"] = PBG_FORMAT_VERSION
        self._datasets = {name: self._file.create_dataset(name, (rows,), np.int64) for name in ("lhs", "rel", "rhs")}
        self._rows, self._end = rows, 0

    def __enter__(self) -> EdgeList:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        assert kind or self._end == self._rows, "fewer edges were written than announced"

    def append(self, columns: dict[str, np.ndarray], times: np.ndarray) -> None:
        """Write edge i of int64 columns lhs, rel, rhs times[i] times."""
        start, self._end = self._end, self._end + int(times.sum())
        if self._end > start:
            for name, dataset in self._datasets.items():
                dataset[start : self._end] = np.repeat(columns[name], times)


def summarise(facts: dict[str, int], relations: list[dict[str, Any]]) -> dict[str, Any]:
    """The metrics of the stage: what there is, what was held out, and what the degree filter dropped."""
    return {
        "posts": facts["posts"],
        "posts_with_hashtags": facts["posts_with_hashtags"],
        "nodes": {"user": facts["users"], "hashtag": facts["hashtags"]},
        "edges": facts["edges"],
        "held_out": sum(relation["held_out"] for relation in relations),
        "relations": {
            relation["name"]: {name: relation[name] for name in ("distinct", "total", "held_out")}
            for relation in relations
        },
        "dropped_by_degree": {
            "user": facts["users_before_filter"] - facts["users"],
            "hashtag": facts["hashtags_before_filter"] - facts["hashtags"],
            "edges": facts["edges_before_filter"] - facts["edges"],
        },
    }


def _ordered(config: Graph) -> list[str]:
    return sorted(set(config.relations))


@contextmanager
def _database(memory_limit: str, out: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB in memory that spills into the unfinished output, which goes away with it after a kill."""
    with tempfile.TemporaryDirectory(prefix="spill-", dir=out) as spill:
        settings: dict[str, Any] = {"memory_limit": memory_limit, "temp_directory": spill}
        with duckdb.connect(":memory:", config=settings) as database:
            yield database


@contextmanager
def _memory_errors(config: Graph) -> Iterator[None]:
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"graph.memory_limit: {config.memory_limit} is too small; raise it ({reason})") from error


def _facts(database: duckdb.DuckDBPyConnection, query: str) -> dict[str, int]:
    (facts,) = pa.Table.from_batches(_reader(database, query)).to_pylist()
    return dict(facts)


def _relations(database: duckdb.DuckDBPyConnection, config: Graph) -> list[dict[str, Any]]:
    query = "SELECT rel, count(*), sum(count)::BIGINT, count(*) FILTER (held_out) FROM edges GROUP BY rel ORDER BY rel"
    found = {row[0]: row[1:] for row in database.execute(query).fetchall()}
    relations = []
    for rel, name in enumerate(_ordered(config)):
        distinct, total, held_out = found.get(rel, (0, 0, 0))
        relations.append({"name": name, "distinct": distinct, "total": total, "held_out": held_out})
    return relations


def _check_edges(facts: dict[str, int], config: Graph) -> None:
    if facts["edges"]:
        return
    if not facts["posts"]:
        hint = "widen corpus.splits.graph_from and graph_until"
    elif not facts["posts_with_hashtags"]:
        hint = "widen corpus.splits.graph_from and graph_until, or check how hashtags are read (`ntulm inspect`)"
    elif not facts["edges_before_filter"]:
        hint = f"add to graph.relations ({', '.join(config.relations)}), or check how authors are read"
    else:
        hint = f"lower graph.min_degree (user: {config.min_degree.user}, hashtag: {config.min_degree.hashtag})"
    raise UserError(
        f"{layout.POSTS}: the graph has no edges: {facts['posts']} posts in the graph window, "
        f"{facts['posts_with_hashtags']} of them with hashtags, "
        f"{facts['edges_before_filter']} edges before the degree filter; {hint}"
    )


def _reader(database: duckdb.DuckDBPyConnection, query: str) -> pa.RecordBatchReader:
    reader = database.sql(query).to_arrow_reader(BATCH_ROWS)
    assert reader is not None
    return reader


def _batches(database: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.Table]:
    """Tables of exactly BATCH_ROWS rows (the last is shorter), so that the bytes of a file depend on its rows only."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in _reader(database, query):
        waiting.append(batch)
        rows += len(batch)
        while rows >= BATCH_ROWS:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, BATCH_ROWS).combine_chunks()
            waiting, rows = table.slice(BATCH_ROWS).to_batches(), rows - BATCH_ROWS
    if rows:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _write_counts(facts: dict[str, int], relations: list[dict[str, Any]], pbg: Path) -> None:
    for kind, count in (("user", facts["users"]), ("hashtag", facts["hashtags"])):
        (pbg / f"entity_count_{kind}_0.txt").write_text(f"{count}\n", encoding="utf-8")
    files.write_json(pbg / "relations.json", [relation["name"] for relation in relations])
