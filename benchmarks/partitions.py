"""What partitions of the graph embedding cost in accuracy, by partitions and by nodes per partition on growing graphs.

    python -m benchmarks.partitions [--engine pbg] [--edges 20000 80000 320000] [--partitions 1 2 4 8] [--seeds 0 1 2]
    python -m benchmarks.partitions --graph PROJECT        # the graph and the settings of a project

One Markdown row per size and number of partitions: MRR of held-out edges, its mean over the seeds and its share of that
of one partition. `--contiguous` puts the frequent nodes into the first partition and the rare ones into the last, as
this project did before decision 0057; `--passes` is how often an epoch goes through the buckets.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic_graph import RELATIONS as NAMES
from benchmarks.synthetic_graph import by_degree, synthetic_edges, write_pbg_input
from ntulm.embeddings import partitions, pbg, stage
from ntulm.embeddings.config import Embeddings
from ntulm.embeddings.link_prediction import Edges, Model, Relation, link_prediction, read_relations, types_of
from ntulm.layout import Layout
from ntulm.params import load_params

SYNTHETIC = [Relation(name, "user", "hashtag") for name in NAMES]
HELD_OUT = 0.05
RANKED = 1000
SETTINGS = {  # of the synthetic graphs: the recipes', at a lower dimension
    **{"dimension": 50, "epochs": 10, "learning_rate": 0.1, "batch_size": 1000, "batch_negatives": 50},
    **{"uniform_negatives": 50, "workers": 1, "ranked_edges": RANKED},
}


class Graph:
    """All edges, and which are held out; ids count within a type, by degree, as the stage `graph` numbers them."""

    def __init__(
        self, edges: Edges, held_out: np.ndarray, relations: Sequence[Relation], counts: dict[str, int]
    ) -> None:
        self.edges, self.held_out, self.relations, self.counts = edges, held_out, list(relations), counts

    def numbered(self, ids: dict[str, np.ndarray]) -> "Graph":
        """With other ids: int64 [N] per type, of each node."""
        columns = [np.empty(len(self.edges), np.int64) for _ in range(2)]
        for rel, relation in enumerate(self.relations):
            own = self.edges.rel == rel
            for column, side, kind in zip(columns, (self.edges.given, self.edges.answer), relation.types, strict=True):
                column[own] = ids[kind][side[own]]
        return Graph(Edges(columns[0], self.edges.rel, columns[1]), self.held_out, self.relations, self.counts)

    def figures(self, model: Model) -> dict[str, Any]:
        """Link prediction of some of the held-out edges."""
        asked = np.sort(np.random.default_rng(0).permutation(np.flatnonzero(self.held_out))[:RANKED])
        return link_prediction(model, self.edges, self.held_out, asked, self.relations)


def synthetic(size: int) -> Graph:
    """A seeded graph of that many edges."""
    users, relations, hashtags = synthetic_edges(size)
    lhs, rhs = by_degree(users), by_degree(hashtags)
    held_out = np.random.default_rng(1).random(size) < HELD_OUT
    held_out &= np.isin(lhs, lhs[~held_out]) & np.isin(rhs, rhs[~held_out])
    counts = {"user": int(lhs.max()) + 1, "hashtag": int(rhs.max()) + 1}
    return Graph(Edges(lhs, relations, rhs), held_out, SYNTHETIC, counts)


def real(layout: Layout) -> Graph:
    """The graph of a project; an edge stands once, whatever `graph.max_count` is."""
    relations = read_relations(layout.pbg_input)
    counts = partitions.counts_of(layout.pbg_input, types_of(relations))
    empty = Model({kind: np.empty((count, 0), np.float32) for kind, count in counts.items()}, np.empty((0, 0)))
    edges, held_out = stage.read_edges(layout.edges, relations, empty)
    return Graph(edges, held_out, relations, counts)


def contiguous(nodes: int, count: int) -> np.ndarray:
    """Ids by which the first nodes come into the first partition, and so on: int64 [N]."""
    return np.concatenate([partitions.nodes_of(nodes, number, count) for number in range(count)])


def measured(graph: Graph, config: Embeddings) -> tuple[float, float]:
    """MRR of one training, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        given, work = Path(folder) / "input", Path(folder) / "work"
        work.mkdir()
        kept = graph.edges.take(~graph.held_out)
        write_pbg_input(given, [kept.given, kept.rel, kept.answer], graph.counts, graph.relations)
        start = time.perf_counter()
        if config.engine == "torch":
            from ntulm.embeddings import torch_training

            model, _ = torch_training.train(config, given, lambda *_: None)
        else:
            model, _ = pbg.train(config, given, work, lambda *_: None)
        return graph.figures(model)["mrr"], time.perf_counter() - start


def rows(graph: Graph, settings: dict[str, Any], asked: argparse.Namespace) -> None:
    """Print a row for each number of partitions."""
    whole = None
    for count in asked.partitions:
        own = (
            graph.numbered({kind: contiguous(n, count) for kind, n in graph.counts.items()})
            if asked.contiguous
            else graph
        )
        found = [measured(own, Embeddings(**settings | {"partitions": count, "seed": seed})) for seed in asked.seeds]
        mrr, seconds = (statistics.mean(column) for column in zip(*found, strict=True))
        spread = f" ± {statistics.stdev(one for one, _ in found):.4f}" if len(found) > 1 else ""
        whole = mrr if count == 1 else whole
        share = f"{mrr / whole:.2f}" if whole else ""
        nodes = " + ".join(f"{-(-n // count):,} {kind}s" for kind, n in graph.counts.items())
        edges = int((~graph.held_out).sum())
        print(f"| {edges:,} | {count} | {nodes} | {mrr:.4f}{spread} | {share} | {seconds:.0f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["pbg", "torch"], default="torch")
    parser.add_argument("--edges", type=int, nargs="+", default=[20_000, 80_000])
    parser.add_argument("--graph", type=Path)
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--passes", type=int, default=partitions.PASSES)
    parser.add_argument("--contiguous", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], help="such as uniform_negatives=100 batch_negatives=0")
    asked = parser.parse_args()
    partitions.PASSES = asked.passes
    changes = {"engine": asked.engine} | {name: int(n) for name, _, n in (one.partition("=") for one in asked.set)}
    print("| edges | partitions | nodes per partition | MRR | of one partition's | seconds |")
    print("| --: | --: | --: | --: | --: | --: |")
    if asked.graph:
        layout = Layout(asked.graph)
        rows(real(layout), load_params(layout.params).embeddings.model_dump() | changes, asked)
        return
    for size in asked.edges:
        rows(synthetic(size), SETTINGS | changes, asked)


if __name__ == "__main__":
    main()
