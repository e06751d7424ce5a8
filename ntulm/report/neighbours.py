"""A look at the embedding table, a node type at a time: which nodes are used most, and what lies nearest to them.

Reads `data/graph/nodes.parquet` and `data/embeddings/`. Library of the stage `report`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ntulm.embeddings.table import EmbeddingTable

SHOWN, NEAREST = 12, 8  # nodes with their neighbourhood, and neighbours of each
CANDIDATES = 5000  # the most used nodes, among which neighbours are looked for
SIGNS = {"hashtag": "#", "cashtag": "$"}  # before keys of these forms
PEOPLE = "user"  # a key form: no report shows who is near whom


@dataclass(frozen=True)
class Neighbourhood:
    """A node and those of its type whose vectors have the largest cosine with its own."""

    key: str
    degree: int
    nearest: list[tuple[str, float]]


@dataclass(frozen=True)
class Look:
    """What is shown of a node type."""

    node_type: str
    sign: str  # before each key
    neighbourhoods: list[Neighbourhood]


@dataclass(frozen=True)
class Nodes:
    """The K most used nodes of a type, most used first, with their vectors float32 [K, D] of length 1."""

    keys: list[str]
    degrees: list[int]
    vectors: NDArray[np.float32]

    def first(self, count: int) -> "Nodes":
        """Those that are used most."""
        return Nodes(self.keys[:count], self.degrees[:count], self.vectors[:count])


def most_used(nodes: Path, table: EmbeddingTable) -> dict[str, Nodes]:
    """The most used nodes of each type of the graph, by name of the type.

    Args:
        nodes: the node list of the graph.
        table: the embedding table.
    """
    present = sorted(pc.unique(pq.read_table(nodes, columns=["type"])["type"]).to_pylist())
    return {node_type: frequent_nodes(nodes, table, node_type) for node_type in present}


def looks(nodes: Mapping[str, Nodes], types: Mapping[str, str]) -> list[Look]:
    """A look at each node type whose keys are no users; `types` has the key form of each type."""
    shown = (name for name in nodes if types.get(name, "") != PEOPLE)
    return [Look(name, SIGNS.get(types.get(name, ""), ""), neighbourhoods(nodes[name])) for name in shown]


def frequent_nodes(nodes: Path, table: EmbeddingTable, node_type: str) -> Nodes:
    """The nodes of a type to look at."""
    read = pq.read_table(nodes, columns=["type", "key", "degree"])
    own = read.filter(pc.equal(read["type"], node_type)).sort_by([("degree", "descending"), ("key", "ascending")])
    own = own.slice(0, CANDIDATES)
    keys = own["key"].to_pylist()
    vectors = table.vectors_of(table.rows(node_type, keys))
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return Nodes(keys, own["degree"].to_pylist(), vectors)


def neighbourhoods(nodes: Nodes) -> list[Neighbourhood]:
    """Of the most used nodes, each with its nearest, itself left out."""
    shown = min(SHOWN, len(nodes.keys))
    cosines = nodes.vectors[:shown] @ nodes.vectors.T
    cosines[np.arange(shown), np.arange(shown)] = -np.inf
    found = []
    for place in range(shown):
        nearest = [at for at in np.argsort(-cosines[place], kind="stable")[:NEAREST] if np.isfinite(cosines[place, at])]
        pairs = [(nodes.keys[at], float(cosines[place, at])) for at in nearest]
        found.append(Neighbourhood(nodes.keys[place], nodes.degrees[place], pairs))
    return found
