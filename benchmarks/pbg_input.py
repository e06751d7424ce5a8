"""Edges between keys to the input files of PyTorch-BigGraph: the last step of the stage `graph` against PBG's importer.

    python -m benchmarks.pbg_input [--growth]

Ours reads the edges from Parquet, numbers the nodes by degree, and writes nodes, edges and PBG's HDF5 files, all that
the stage does after it has the edges; PBG's importer reads the same edges as TSV. Neither holds edges out.
"""

import hashlib
import json
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import duckdb
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.harness import Benchmark, Outcome, run
from benchmarks.synthetic_graph import RELATIONS, synthetic_edges
from ntulm.graph import stage as graph
from ntulm.graph.config import Graph, Relation
from ntulm.graph.duckdb_engine import DuckDb

MEMORY_LIMIT = "2GB"


def prepare(folder: Path, size: int) -> None:
    """The same edges as Parquet and as TSV, in random order; keys look like handles and hashtags."""
    edges = synthetic_edges(size)
    user, relation, hashtag = edges[:, np.random.default_rng(1).permutation(edges.shape[1])]
    users = pc.binary_join_element_wise("user_", pa.array(user * 7919 % 10_000_019).cast(pa.string()), "")
    hashtags = pc.binary_join_element_wise("tag", pa.array(hashtag).cast(pa.string()), "")
    keyed = {"left_key": users, "rel": pa.array(relation, pa.int8()), "right_key": hashtags}
    count = pa.array(np.ones(len(user), np.int64))
    pq.write_table(pa.table({**keyed, "count": count}), folder / "edges.parquet")
    names = pa.array(RELATIONS).take(keyed["rel"])
    plain = pa.table({"lhs": users, "rel": names, "rhs": hashtags})
    options = pa.csv.WriteOptions(include_header=False, delimiter="\t", quoting_style="none")
    pa.csv.write_csv(plain, folder / "edges.tsv", options)


def ours(folder: Path) -> Outcome:
    """What `graph.run` does from the table raw_edges on."""
    config = Graph(
        engine="duckdb",
        relations={name: Relation(left="user", right="hashtag") for name in RELATIONS},
        min_degree={"user": 1, "hashtag": 1},
        max_count=1,
        held_out_share=0.0,
        seed=0,
        memory_limit=MEMORY_LIMIT,
    )
    out = folder / f"ours-{time.time_ns()}"
    out.mkdir()
    started = time.perf_counter()
    settings: dict[str, Any] = {"memory_limit": MEMORY_LIMIT, "temp_directory": str(out / "spill")}
    with duckdb.connect(config=settings) as connection:
        connection.read_parquet(str(folder / "edges.parquet")).create("raw_edges")
        database = DuckDb(connection)
        shape = graph.Shape({name: ("user", "hashtag") for name in RELATIONS})
        graph.number_nodes(database, config, shape)
        graph.write(database, config, shape, out)
    seconds = time.perf_counter() - started
    nodes = pq.read_table(out / "nodes.parquet", columns=["type", "key"])
    keys = {kind: nodes.filter(pc.equal(nodes["type"], kind))["key"].combine_chunks() for kind in ("user", "hashtag")}
    with h5py.File(out / "pbg" / "train" / "edges_0_0.h5") as file:
        names = [relation["name"] for relation in json.loads((out / "pbg" / "relations.json").read_text())]
        return Outcome(seconds, len(file["lhs"]), _digest(file, keys["user"], keys["hashtag"], names))


def importer(folder: Path) -> Outcome:
    """torchbiggraph_import_from_tsv."""
    from torchbiggraph.config import EntitySchema, RelationSchema
    from torchbiggraph.converters.import_from_tsv import convert_input_data

    out = folder / f"importer-{time.time_ns()}"  # it skips what it finds
    entities = {"user": EntitySchema(num_partitions=1), "hashtag": EntitySchema(num_partitions=1)}
    relations = [RelationSchema(name=name, lhs="user", rhs="hashtag") for name in RELATIONS]
    columns = {"lhs_col": 0, "rel_col": 1, "rhs_col": 2}
    started = time.perf_counter()
    with redirect_stdout(sys.stderr):  # it reports its progress
        convert_input_data(entities, relations, str(out), [str(out / "train")], [folder / "edges.tsv"], **columns)
    seconds = time.perf_counter() - started
    users, hashtags = (json.loads((out / f"entity_names_{kind}_0.json").read_text()) for kind in ("user", "hashtag"))
    with h5py.File(out / "train" / "edges_0_0.h5") as file:
        return Outcome(seconds, len(file["lhs"]), _digest(file, pa.array(users), pa.array(hashtags), RELATIONS))


def same(evidence: Mapping[str, Any]) -> str:
    """The same edges between the same keys."""
    first, second = evidence.values()
    assert first == second, evidence
    return f"the same {first['edges']:,} edges between the same keys, {first['digest'][:12]}"


def _digest(file: h5py.File, users: pa.Array, hashtags: pa.Array, relations: list[str]) -> dict[str, Any]:
    """Number of edges and a hash of them as sorted triples of keys."""
    columns = {
        "user": users.take(pa.array(file["lhs"][:])),
        "rel": pa.array(relations).take(pa.array(file["rel"][:])),
        "hashtag": hashtags.take(pa.array(file["rhs"][:])),
    }
    triples = pa.table(columns)
    rows = duckdb.execute(
        "SELECT md5(string_agg(line, '\n' ORDER BY line)) FROM "
        "(SELECT concat_ws('\t', \"user\", rel, hashtag) AS line FROM triples)"
    ).fetchall()
    return {"edges": triples.num_rows, "digest": hashlib.sha256(rows[0][0].encode()).hexdigest()}


BENCHMARK = Benchmark(
    module="benchmarks.pbg_input",
    title="Edges to the input of PyTorch-BigGraph",
    unit="edges",
    prepare=prepare,
    sides={"ours": ours, "torchbiggraph's importer": importer},
    same=same,
    size=1_000_000,
    rounds=2,
    growth=(625_000, 2_500_000, 10_000_000),
    limit="hashing the keys of edges to find their nodes, then writing; the importer is Python, edge by edge.",
    notes=[f"Ours is held to {MEMORY_LIMIT} of memory in DuckDB."],
)

if __name__ == "__main__":
    run(BENCHMARK)
