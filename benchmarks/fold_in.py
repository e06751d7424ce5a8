"""Link prediction of nodes that a graph embedding never saw: mean row, fold-in and training, by number of edges.

    python -m benchmarks.fold_in PROJECT

PROJECT has run the stages `corpus` and `graph`. A share of its nodes is hidden: the edges with a third of the
neighbours of each are questions (which known node is at the other end?), those with the others its support, of which 1,
3, 10 or 30 neighbours are shown; all relations between two nodes go together, and edges between two hidden nodes are
left out.
The engine `torch` trains a table without the hidden nodes; they are then folded in. Beside that, whole trainings with
as many neighbours of theirs, and with all of their support. All rank the same known nodes of a
type, other true answers aside. Several seeds draw nodes, edges and starts. One Markdown table on standard output.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pyarrow.parquet as pq

from ntulm.embeddings import torch_training
from ntulm.embeddings.config import Embeddings
from ntulm.embeddings.fold_in import Edges, FoldIn, solve
from ntulm.embeddings.link_prediction import Relation, read_relations
from ntulm.embeddings.operators import Operators, sample_edges
from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.files import write_json
from ntulm.layout import Layout
from ntulm.model import folding
from ntulm.params import Params, load_params

HIDDEN = 0.1  # of the nodes with at least LEAST edges
LEAST = 6
QUESTIONS = 1 / 3  # of a hidden node's neighbours
SUPPORTS = (1, 3, 10, 30)
ALL = 1 << 30
SEEDS = (0, 1)


class Graph(NamedTuple):
    """Edges between rows of all types together; `first` and `sizes` say which rows a type has."""

    relations: list[Relation]
    first: dict[str, int]
    sizes: dict[str, int]
    lhs: np.ndarray  # int64 [E]
    rel: np.ndarray
    rhs: np.ndarray
    weight: np.ndarray

    def rows(self, ntu_type: str) -> slice:
        """The rows of a type."""
        return slice(self.first[ntu_type], self.first[ntu_type] + self.sizes[ntu_type])


class Trained(NamedTuple):
    """Vectors of all rows, of which a table without the hidden ones has fewer, and translations."""

    vectors: np.ndarray
    relations: np.ndarray


@dataclass(frozen=True)
class Drawn:
    """What is hidden. Edges of hidden nodes count from the right where the hidden one stands there."""

    hidden: np.ndarray  # bool [N]
    known: np.ndarray  # places of edges between known nodes
    edges: np.ndarray  # int64 [n], places of edges with one hidden node
    node: np.ndarray  # int64 [n], the hidden one
    other: np.ndarray  # int64 [n], the known one
    side: np.ndarray  # int64 [n]
    order: np.ndarray  # int64 [n], which neighbour of the node's support it is; negative: a question
    support: np.ndarray  # int64 [n], how many neighbours the support of the node has


def main() -> None:
    """Measure and print."""
    layout = Layout(Path(sys.argv[1]))
    params = load_params(layout.params)
    graph = read_graph(params, layout)
    ranks: dict[tuple[str, int], dict[str, list[np.ndarray]]] = {}
    for seed in SEEDS:
        for key, own in measured(graph, params, seed).items():
            for name, values in own.items():
                ranks.setdefault(key, {}).setdefault(name, []).append(values)
        print(f"fold_in: seed {seed} done", file=sys.stderr, flush=True)
    print(markdown({key: {name: np.concatenate(v) for name, v in own.items()} for key, own in ranks.items()}))


def read_graph(params: Params, layout: Layout) -> Graph:
    """The graph of a project."""
    relations = read_relations(layout.pbg_input)
    types = sorted({name for one in relations for name in one.types})
    sizes = {name: int((layout.pbg_input / f"entity_count_{name}_0.txt").read_text()) for name in types}
    first = dict(zip(types, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    table = pq.read_table(layout.edges)
    names = {one.name: place for place, one in enumerate(relations)}
    rel = np.array([names[name] for name in table["rel"].to_pylist()], np.int64)
    weight = np.minimum(table["count"].to_numpy(), params.graph.max_count)
    return Graph(relations, first, sizes, table["lhs"].to_numpy(), rel, table["rhs"].to_numpy(), weight)


def draw(graph: Graph, seed: int) -> Drawn:
    """Hidden nodes, their questions and their support."""
    random = np.random.default_rng(seed)
    total = sum(graph.sizes.values())
    degree = np.bincount(graph.lhs, minlength=total) + np.bincount(graph.rhs, minlength=total)
    hidden = (degree >= LEAST) & (random.random(total) < HIDDEN)
    left, right = hidden[graph.lhs], hidden[graph.rhs]
    edges = random.permutation(np.flatnonzero(left ^ right))
    side = np.where(left[edges], 0, 1)
    node = np.where(side == 0, graph.lhs[edges], graph.rhs[edges])
    other = np.where(side == 0, graph.rhs[edges], graph.lhs[edges])
    order, support = ordered(node, other, random)
    by_node = np.lexsort((order, node))
    columns = (column[by_node] for column in (edges, node, other, side, order, support))
    return Drawn(hidden, np.flatnonzero(~left & ~right), *columns)


def ordered(node: np.ndarray, other: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Of each edge, which of its node's neighbours it leads to, questions below 0; and how many are no questions."""
    pairs, place = np.unique(np.stack([node, other]), axis=1, return_inverse=True)
    by_node = np.lexsort((random.random(pairs.shape[1]), pairs[0]))
    _, starts, own, counts = np.unique(pairs[0], return_index=True, return_inverse=True, return_counts=True)
    asked = np.maximum(1, (counts * QUESTIONS).astype(np.int64))
    order = np.empty(pairs.shape[1], np.int64)
    order[by_node] = np.arange(pairs.shape[1]) - starts[own] - asked[own]
    return order[place.ravel()], (counts - asked)[own][place.ravel()]


def measured(graph: Graph, params: Params, seed: int) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """Ranks of the answers, by type of the hidden node and size of the support, then by system."""
    drawn = draw(graph, seed)
    settings = Embeddings(**params.embeddings.model_dump() | {"engine": "torch", "seed": seed, "partitions": 1})
    kept = np.flatnonzero(~drawn.hidden)  # rows of the smaller table
    cold = train(settings, without(graph, drawn))
    whole = {size: train(settings, graph, used(drawn, size)) for size in (*SUPPORTS, ALL)}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        table, operators = as_table(settings, without(graph, drawn), cold, Path(folder))
        for ntu_type in graph.first:
            for size in SUPPORTS:
                asked = (drawn.order < 0) & (drawn.support >= size) & of_type(graph, drawn.node, ntu_type)
                if not asked.any():
                    continue
                nodes, rows = folded(
                    graph, drawn, table, operators, folding(params.fold_in, params.graph), ntu_type, size
                )
                vectors = np.zeros((len(drawn.hidden), table.dimension), np.float32)
                vectors[kept] = cold.vectors
                systems = {"mean": vectors.copy(), "fold-in": vectors}
                systems["mean"][drawn.hidden] = table.mean
                systems["fold-in"][nodes] = rows
                made = {name: Trained(own, cold.relations) for name, own in systems.items()}
                made |= {"trained": whole[size], "trained on all": whole[ALL]}
                found[ntu_type, size] = {name: ranks(graph, drawn, asked, own) for name, own in made.items()}
    return found


def of_type(graph: Graph, rows: np.ndarray, ntu_type: str) -> np.ndarray:
    """Whether rows are of a type."""
    own = graph.rows(ntu_type)
    return (rows >= own.start) & (rows < own.stop)


def used(drawn: Drawn, size: int) -> np.ndarray:
    """Places of the edges that a training with so much support sees."""
    return np.sort(np.concatenate([drawn.known, drawn.edges[(drawn.order >= 0) & (drawn.order < size)]]))


def without(graph: Graph, drawn: Drawn) -> Graph:
    """The graph of the known nodes, numbered anew."""
    number = np.cumsum(~drawn.hidden) - 1
    sizes = {name: int((~drawn.hidden[graph.rows(name)]).sum()) for name in graph.sizes}
    first = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
    known = drawn.known
    columns = (number[graph.lhs[known]], graph.rel[known], number[graph.rhs[known]], graph.weight[known])
    return Graph(graph.relations, first, sizes, *columns)


def train(settings: Embeddings, graph: Graph, places: np.ndarray | None = None) -> Trained:
    """Vectors of a graph, or of some of its edges."""
    chosen = np.arange(len(graph.rel)) if places is None else places
    chosen = np.repeat(chosen, graph.weight[chosen])
    first = [np.array([graph.first[one.types[side]] for one in graph.relations])[graph.rel[chosen]] for side in (0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        write_json(path / "relations.json", [one._asdict() for one in graph.relations])
        for name, size in graph.sizes.items():
            (path / f"entity_count_{name}_0.txt").write_text(f"{size}\n", encoding="utf-8")
        (path / "train").mkdir()
        with h5py.File(path / "train" / "edges_0_0.h5", "w") as file:
            file["lhs"], file["rel"] = graph.lhs[chosen] - first[0], graph.rel[chosen]
            file["rhs"] = graph.rhs[chosen] - first[1]
        model, _ = torch_training.train(settings, path, lambda epoch, loss: None)
    return Trained(np.concatenate([model.nodes[name] for name in graph.sizes]), model.relations)


def as_table(settings: Embeddings, graph: Graph, trained: Trained, folder: Path) -> tuple[EmbeddingTable, Operators]:
    """What the stage `embeddings` writes of a training."""
    types = [name for name, size in graph.sizes.items() for _ in range(size)]
    write_table(folder, types, [str(row) for row in range(len(types))], trained.vectors)
    edges = np.repeat(np.arange(len(graph.rel)), graph.weight)
    ends = graph.lhs[edges], graph.rel[edges], graph.rhs[edges]
    operators = Operators(
        names=[one.name for one in graph.relations],
        types=[one.types for one in graph.relations],
        vectors=trained.relations,
        sampled=sample_edges(*ends, len(graph.relations), settings.seed),
        edges=np.bincount(ends[1], minlength=len(graph.relations)).tolist(),
        nodes={name: (graph.first[name], size) for name, size in graph.sizes.items()},
        batch_negatives=settings.batch_negatives,
        uniform_negatives=settings.uniform_negatives,
    )
    return EmbeddingTable.load(folder), operators


def folded(
    graph: Graph, drawn: Drawn, table: EmbeddingTable, operators: Operators, how: FoldIn, ntu_type: str, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hidden nodes of a type with so much support, and their rows."""
    number = np.cumsum(~drawn.hidden) - 1
    chosen = (drawn.order >= 0) & (drawn.order < size) & of_type(graph, drawn.node, ntu_type)
    edges = drawn.edges[chosen]
    trained = np.array(operators.edges)[graph.rel[edges]] > 0
    edges, chosen = edges[trained], np.flatnonzero(chosen)[trained]
    nodes, owner = np.unique(drawn.node[chosen], return_inverse=True)  # edges stand by node already
    weight = graph.weight[edges].astype(np.float32)
    own = Edges(owner, graph.rel[edges], drawn.side[chosen], number[drawn.other[chosen]], weight)
    return nodes, solve(table, operators, how, ntu_type, own)


def ranks(graph: Graph, drawn: Drawn, asked: np.ndarray, trained: Trained) -> np.ndarray:
    """Filtered ranks of the known ends of questions among the known nodes of their type; ties get their mean."""
    found = np.empty(int(asked.sum()))
    rel = graph.rel[drawn.edges]
    for place, question in enumerate(np.flatnonzero(asked)):
        node, side, relation = drawn.node[question], drawn.side[question], rel[question]
        own = graph.rows(graph.relations[relation].types[1 - side])
        given = trained.vectors[node] + (trained.relations[relation] if side else 0)
        scores = trained.vectors[own] @ given
        scores[drawn.hidden[own]] = -np.inf
        reached = scores[drawn.other[question] - own.start]
        true = (drawn.node == node) & (drawn.side == side) & (rel == relation)
        scores[drawn.other[true] - own.start] = -np.inf
        found[place] = 1 + (scores > reached).sum() + (scores == reached).sum() / 2
    return found


def markdown(found: Mapping[tuple[str, int], Mapping[str, np.ndarray]]) -> str:
    """One row per type and size: MRR and Hits@10 of every system, and fold-in's share of the gain of the last one."""
    systems = ("mean", "fold-in", "trained", "trained on all")
    heads = [f"{name}: MRR | Hits@10" for name in ("mean row", "fold-in", "trained", "trained on all")]
    lines = [
        f"| new | neighbours | questions | {' | '.join(heads)} | share of its gain |",
        f"| :-- | --: | --: |{' --: | --: |' * len(systems)} --: |",
    ]
    for (ntu_type, size), own in found.items():
        scores = {name: float((1 / own[name]).mean()) for name in systems}
        cells = [f"{scores[name]:.3f} | {(own[name] <= 10).mean():.3f}" for name in systems]
        reached = share(scores["fold-in"], scores["mean"], scores["trained on all"])
        lines.append(f"| {ntu_type} | {size} | {len(own['mean']):,} | {' | '.join(cells)} | {reached} |")
    return "\n".join(lines)


def share(reached: float, start: float, goal: float) -> str:
    """Of the gain in MRR over the mean row; a dash where there is none."""
    return f"{(reached - start) / (goal - start):.0%}" if goal > start else "–"


if __name__ == "__main__":
    main()
