"""Stage `graph`: the heterogeneous graph of the NTUs of posts in the graph window (§3.1), and PBG's input files.

Which nodes and edges there are is data: the relations of the section `graph` join roles of the section `ntus`, and the
types of these roles are those of the nodes. uses.py and uses.sql make edges between keys from posts and engagements;
nodes.sql numbers the nodes, limits their degrees and draws the held-out edges. DuckDB or Spark
runs them (relational.py), with the same bytes.

Reads data/corpus/{posts,engagements,splits}.parquet.
Writes data/graph/nodes.parquet, data/graph/edges.parquet, data/graph/types.json (the key form of each type of the
section `ntus`), data/graph/pbg/ and metrics/graph.json.
Command: `ntulm graph`, or `dvc repro graph`.

data/graph/pbg/ is what PyTorch-BigGraph 1.0.0 trains from, in one partition:
    entity_count_TYPE_0.txt             number of nodes of a type; node ids count from 0 within each type here
    relations.json                      name, lhs and rhs (types) of each relation, and whether it is symmetric: one
                                        role on both sides, each pair once; `rel` is an index into them
    {train,held_out}/edges_0_0.h5       lhs, rel, rhs: int64 [E]; in train an edge stands min(count, max_count) times
PBG's entity_names_*.json are left out: only its importer and exporter read them, and nodes.parquet has the names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ntulm import files
from ntulm.errors import UserError
from ntulm.graph import duckdb_engine, uses
from ntulm.layout import Layout
from ntulm.resources import require_space

if TYPE_CHECKING:
    from ntulm.graph.config import Graph, Relation
    from ntulm.graph.relational import Relational
    from ntulm.ntus import NtuScheme

BATCH_ROWS = 1 << 17  # rows of a Parquet row group and of a write to HDF5
PBG_FOLDER = "pbg"
PBG_FORMAT_VERSION = 1
EDGE_COLUMNS = 3  # lhs, rel, rhs
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


@dataclass(frozen=True)
class Shape:
    """The relations of a graph, in the order of their index `rel`, and the types of the nodes that they join."""

    relations: dict[str, tuple[str, str]]  # name -> types on the left and on the right

    @property
    def types(self) -> list[str]:
        """In the order of nodes.parquet."""
        return sorted({ntu_type for types in self.relations.values() for ntu_type in types})

    def place(self, side: int) -> np.ndarray:
        """The place in `types` of the type that each relation has on side 0 or 1: int64 [R]."""
        return np.array([self.types.index(types[side]) for types in self.relations.values()], np.int64)


def run(config: Graph, scheme: NtuScheme, layout: Layout) -> None:
    """Extract the graph from the corpus and write it, with its metrics.

    Raises:
        UserError: the corpus is missing, memory_limit is too small, there is no edge, or the engine is not installed.
    """
    shape = shape_of(config, scheme)
    with files.whole_directory(layout.graph) as out, _engine(config, out) as database:
        extract(database, config, scheme, layout)
        _check_edges(database, config, scheme, layout)
        write(database, config, shape, out)
        files.write_json(out / layout.node_types.name, dict(scheme.types))
        metrics = summarise(database, shape)
    files.write_json(layout.metrics("graph"), metrics)


def shape_of(config: Graph, scheme: NtuScheme) -> Shape:
    """Relations in the order of their names, with the types of their roles."""
    return Shape(
        {
            name: (scheme.roles[relation.left].type, scheme.roles[relation.right].type)
            for name, relation in _ordered(config).items()
        }
    )


def extract(database: Relational, config: Graph, scheme: NtuScheme, layout: Layout) -> None:
    """Fill the tables own, nodes, edges and those of facts of `database` from the corpus files.

    Raises:
        UserError: a file of the corpus is missing.
    """
    for name, path in (("posts", layout.posts), ("engagements", layout.engagements), ("splits", layout.splits)):
        if not path.is_file():
            raise UserError(f"{path}: not found; run `dvc repro corpus` first, which writes it")
        database.read(name, path)
    uses.build(database, _ordered(config), scheme)
    number_nodes(database, config, shape_of(config, scheme))


def number_nodes(database: Relational, config: Graph, shape: Shape) -> None:
    """From the table raw_edges to nodes, edges and their facts (nodes.sql)."""
    database.let("held_out_share", config.held_out_share)
    database.let("seed", config.seed)
    columns = {"left_type": shape.place(0), "right_type": shape.place(1)}
    least = [config.min_degree[ntu_type] for ntu_type in shape.types]
    database.add("relations", pa.table({"rel": np.arange(len(shape.relations)), **columns}))
    database.add("types", pa.table({"type": np.arange(len(least)), "name": shape.types, "min_degree": least}))
    database.run(resources.files("ntulm.graph").joinpath("nodes.sql").read_text(encoding="utf-8"))


def write(database: Relational, config: Graph, shape: Shape, out: Path) -> None:
    """Write nodes.parquet, edges.parquet and PBG's files into an empty folder."""
    counts = _node_counts(database)
    pbg = out / PBG_FOLDER
    pbg.mkdir()
    write_nodes(database, shape, out / "nodes.parquet")
    for ntu_type, count in counts.items():
        (pbg / f"entity_count_{ntu_type}_0.txt").write_text(f"{count}\n", encoding="utf-8")
    relations = [
        {"name": name, "lhs": lhs, "rhs": rhs, "symmetric": config.relations[name].left == config.relations[name].right}
        for name, (lhs, rhs) in shape.relations.items()
    ]
    files.write_json(pbg / "relations.json", relations)
    write_edges(database, config, shape, out)


def write_nodes(database: Relational, shape: Shape, path: Path) -> None:
    """Write nodes.parquet, ordered by id."""
    names = pa.array(shape.types, pa.string())
    with pq.ParquetWriter(path, NODES, compression="zstd") as writer:
        for batch in _batches(database, "SELECT id, type, key, degree FROM nodes ORDER BY id"):
            writer.write_table(_named(batch, "type", names).cast(NODES), row_group_size=BATCH_ROWS)


def write_edges(database: Relational, config: Graph, shape: Shape, out: Path) -> None:
    """Write edges.parquet and PBG's two edge lists in one ordered pass."""
    pbg = out / PBG_FOLDER
    database.let("max_count", config.max_count)
    ((train_rows, held_out_rows),) = database.rows(
        """SELECT sum(least(count, getvariable('max_count'))) FILTER (WHERE NOT held_out)::BIGINT,
            count(*) FILTER (WHERE held_out) FROM edges"""
    )
    size = np.dtype(np.int64).itemsize * EDGE_COLUMNS * ((train_rows or 0) + held_out_rows)
    require_space(out, size, "the list of edges")  # HDF5 does not survive a full disk
    names = pa.array(list(shape.relations), pa.string())
    counts = np.array(list(_node_counts(database).values()))
    first = np.cumsum(counts) - counts  # the first id of each type
    with (
        pq.ParquetWriter(out / "edges.parquet", EDGES, compression="zstd") as writer,
        EdgeList(pbg / "train", train_rows) as train,
        EdgeList(pbg / "held_out", held_out_rows) as held_out,
    ):
        for batch in _batches(database, "SELECT lhs, rel, rhs, count, held_out FROM edges ORDER BY lhs, rel, rhs"):
            writer.write_table(_named(batch, "rel", names).cast(EDGES), row_group_size=BATCH_ROWS)
            columns = {name: batch[name].to_numpy() for name in ("lhs", "rel", "rhs", "count", "held_out")}
            for side, name in enumerate(("lhs", "rhs")):
                columns[name] = columns[name] - first[shape.place(side)][columns["rel"]]
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


def summarise(database: Relational, shape: Shape) -> dict[str, Any]:
    """The metrics of the stage: what there is, what was held out, and what the degree filter dropped."""
    facts = _facts(database)
    relations = _relations(database, shape)
    types = database.rows("SELECT name, before_filter, nodes FROM type_facts ORDER BY name")
    return {
        "posts": facts["posts"],
        "posts_that_relate": facts["posts_that_relate"],
        "nodes": {name: count for name, _, count in types},
        "edges": facts["edges"],
        "held_out": sum(relation["held_out"] for relation in relations.values()),
        "relations": relations,
        "dropped_by_degree": {
            **{name: before - count for name, before, count in types},
            "edges": facts["edges_before_filter"] - facts["edges"],
        },
    }


def _ordered(config: Graph) -> dict[str, Relation]:
    return dict(sorted(config.relations.items()))


def _named(batch: pa.Table, column: str, names: pa.Array) -> pa.Table:
    """The table with a column of places in `names` replaced by the names."""
    place = batch.schema.get_field_index(column)
    coded = pa.DictionaryArray.from_arrays(batch[column].combine_chunks().cast(pa.int32()), names)
    return batch.set_column(place, column, coded.cast(pa.string()))


def _engine(config: Graph, out: Path) -> AbstractContextManager[Relational]:
    if config.engine == "duckdb":
        return duckdb_engine.database(config.memory_limit, out)
    try:
        from ntulm.graph import spark_engine
    except ModuleNotFoundError as error:
        raise UserError(
            f"graph.engine: spark needs packages that are not installed ({error.name}): "
            "`pip install 'ntulm[spark]'`, and Java 17"
        ) from error
    return spark_engine.database(config.memory_limit, out)


def _facts(database: Relational) -> dict[str, int]:
    query = """SELECT edges_before_filter, edges, (SELECT count(*) FROM window_posts), (SELECT count(*) FROM own)
        FROM key_facts"""
    (facts,) = database.rows(query)
    return dict(zip(("edges_before_filter", "edges", "posts", "posts_that_relate"), facts, strict=True))


def _node_counts(database: Relational) -> dict[str, int]:
    """The number of nodes of each type, in the order of the names."""
    return dict(database.rows("SELECT name, nodes FROM type_facts ORDER BY name"))


def _relations(database: Relational, shape: Shape) -> dict[str, dict[str, int]]:
    query = "SELECT rel, count(*), sum(count)::BIGINT, count(*) FILTER (WHERE held_out) FROM edges GROUP BY rel"
    found = {row[0]: row[1:] for row in database.rows(query)}
    columns = ("distinct", "total", "held_out")
    return {
        name: dict(zip(columns, found.get(rel, (0, 0, 0)), strict=True)) for rel, name in enumerate(shape.relations)
    }


def _check_edges(database: Relational, config: Graph, scheme: NtuScheme, layout: Layout) -> None:
    facts = _facts(database)
    if facts["edges"]:
        return
    roles = uses.count_roles(database, config.relations, scheme)
    if not facts["posts"]:
        hint = "widen corpus.splits.graph_from and graph_until"
    elif not facts["edges_before_filter"]:
        hint = (
            "widen corpus.splits.graph_from and graph_until, check how these NTUs are read (`ntulm inspect`), "
            f"or add to graph.relations ({', '.join(config.relations)})"
        )
    else:
        hint = f"lower graph.min_degree ({_listed(config.min_degree)})"
    raise UserError(
        f"{layout.posts}: the graph has no edges: {facts['posts']} posts in the graph window, "
        f"of which have a value for the role {_listed(roles)}; "
        f"{facts['edges_before_filter']} edges before the degree filter; {hint}"
    )


def _listed(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {number}" for name, number in numbers.items())


def _batches(database: Relational, query: str) -> Iterator[pa.Table]:
    """Tables of exactly BATCH_ROWS rows (the last is shorter), so that the bytes of a file depend on its rows only."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in database.batches(query, BATCH_ROWS):
        waiting.append(batch)
        rows += len(batch)
        while rows >= BATCH_ROWS:
            table = pa.Table.from_batches(waiting)
            yield table.slice(0, BATCH_ROWS).combine_chunks()
            waiting, rows = table.slice(BATCH_ROWS).to_batches(), rows - BATCH_ROWS
    if rows:
        yield pa.Table.from_batches(waiting).combine_chunks()
