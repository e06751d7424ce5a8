"""Rows for NTUs that came after the training, from their edges to known ones; everything else stays as it is.

Library of `ntulm/inference/added.py`; it needs numpy alone, and no torch. `newcomers.py` reads the edges of posts.

A new node x gets the vector with the least

    Σ 2 w softplus(-s)  +  Σ a / K Σ softplus(s')  +  prior / 2 (x - m)ᵀ C⁻¹ (x - m)

- The first sum is over its edges, each with its weight w: what an epoch of training has of them (torch_engine.py).
- The second is what the same epoch has of x in negatives, in expectation: with n = batch_negatives +
  uniform_negatives, per side of a relation on which x can stand, d the weight of its edges there and `e` the edges of
  the relation over the nodes of the type, a = (2 d (batch_negatives - 1) + e uniform_negatives) / n against ends of
  training edges, and a = d uniform_negatives / n against any nodes. K of each kind are drawn once, for all new nodes.
- The third says where rows of the type lie: m and C are their mean and covariance. Without it the least lies far out
  (training stops long before that), and a row of few edges is worse than the mean row (docs/decisions/0051).

The sum is convex, so there is one answer, wherever one starts. In z, x = m + C^½ z, the third term is prior / 2 |z|²,
and accelerated gradient steps, whose length comes from a bound of the curvature, need some tens of rounds. All nodes of
a block take them together, as matrix products. Nodes are ordered by type and key before that: the order in which they
are given does not count.

Legend: B nodes of a block, E edges, S sides, K negatives of a kind, D dimension.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ntulm.embeddings.operators import Operators
from ntulm.embeddings.table import EmbeddingTable
from ntulm.tensors import blocks

SCORE_CELLS = 1 << 23  # scores of negatives held at a time: 32 MiB, and about as much again in work
EDGE_CELLS = 1 << 24  # values of the vectors of a block's edges: 64 MiB; a single node may have more
FLATTEST = 1e-3  # the least variance of a direction, as share of the largest: no row lies outside of a plane by chance
MOST_CURVED = 0.25  # the largest second derivative of softplus
WAYS = ("never", "batch")


@dataclass(frozen=True)
class FoldIn:
    """The section `fold_in` of params.yaml without pydantic, and what of the section `graph` it needs."""

    embed: str  # of WAYS
    min_edges: int
    prior: float
    negatives: int
    steps: int
    seed: int
    max_count: int  # of an edge
    relations: Mapping[str, tuple[str, str]]  # name -> left and right role

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "FoldIn":
        """From a JSON object of the fields."""
        relations = {name: (left, right) for name, (left, right) in value["relations"].items()}
        found = cls(**{**value, "relations": relations})
        if found.embed not in WAYS:
            raise ValueError(f"fold_in.embed: {found.embed!r}; expected one of {', '.join(WAYS)}")
        return found


class Edges(NamedTuple):
    """E edges between M new nodes and known ones, ordered by node; every node has one."""

    owner: np.ndarray  # int64 [E], which new node, ascending
    relation: np.ndarray  # int64 [E]
    side: np.ndarray  # int64 [E], on which side the new node stands: 0 left, 1 right
    row: np.ndarray  # int64 [E], the known one's row of the table
    weight: np.ndarray  # float32 [E]


class Terms(NamedTuple):
    """What the nodes of a type have in common, in z."""

    mean: np.ndarray  # [D]
    root: np.ndarray  # [D, D]; x = mean + root z
    sides: list[tuple[int, int]]  # S pairs of relation and side
    negatives: np.ndarray  # [2 S K, D], per side K ends of training edges and K of any nodes
    offsets: np.ndarray  # [2 S K], added to their scores
    curvature: np.ndarray  # [2 S], a bound of each kind's, for a weight of 1
    popularity: np.ndarray  # [S], edges per node of the type


def solve(table: EmbeddingTable, operators: Operators, settings: FoldIn, ntu_type: str, edges: Edges) -> np.ndarray:
    """The rows of M new nodes of one type, float32 [M, D]; the same input gives the same bytes on one machine.

    Args:
        table: rows of `edges` are those of its base.
        operators: the trained relations.
        settings: prior, negatives, steps and seed count here.
        ntu_type: of the new nodes.
        edges: theirs, of relations that were trained.
    """
    terms = shared_terms(table, operators, settings, ntu_type)
    sizes = np.bincount(edges.owner)
    found = np.empty((len(sizes), table.dimension), np.float32)
    most = max(1, SCORE_CELLS // max(1, len(terms.negatives)))
    ends = np.cumsum(sizes)
    for first, last in parts(ends, most, max(1, EDGE_CELLS // table.dimension)):
        own = slice(ends[first] - sizes[first], ends[last - 1])
        block = Edges(*(column[own] for column in edges))
        block = block._replace(owner=block.owner - first)
        found[first:last] = terms.mean + solve_block(table, operators, settings, terms, block) @ terms.root.T
    return found


def parts(ends: np.ndarray, most_nodes: int, most_edges: int) -> Iterator[tuple[int, int]]:
    """Blocks [first, last) of nodes, of which each has at least one; `ends` int64 [M]: where the edges of each end."""
    first = 0
    while first < len(ends):
        start = ends[first - 1] if first else 0
        fitting = int(np.searchsorted(ends, start + most_edges, "right"))
        last = min(max(fitting, first + 1), first + most_nodes)
        yield first, last
        first = last


def shared_terms(table: EmbeddingTable, operators: Operators, settings: FoldIn, ntu_type: str) -> Terms:
    """The negatives of a type, drawn once, and where its rows lie."""
    first, count = operators.nodes[ntu_type]
    mean, root = spread(table.vectors[first : first + count])
    random = np.random.default_rng(settings.seed)
    sides, negatives, offsets, popularity = [], [], [], []
    for relation, types in enumerate(operators.types):
        for side in (0, 1):
            if types[side] != ntu_type or not operators.edges[relation]:
                continue
            other_first, other_count = operators.nodes[types[1 - side]]
            uniform = other_first + random.integers(other_count, size=settings.negatives)
            for rows in (operators.sampled[relation, 1 - side, : settings.negatives], uniform):
                vectors, offset = targets(
                    table, operators, np.full(len(rows), relation), np.full(len(rows), side), rows
                )
                negatives.append(vectors @ root)
                offsets.append(vectors @ mean + offset)
            sides.append((relation, side))
            popularity.append(operators.edges[relation] / count)
    curvature = [np.linalg.eigvalsh(one.T @ one / len(one))[-1] for one in negatives]
    return Terms(
        mean,
        root,
        sides,
        np.concatenate(negatives),
        np.concatenate(offsets),
        np.array(curvature, np.float32) * np.float32(MOST_CURVED),
        np.array(popularity, np.float32),
    )


def spread(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean float32 [D] of rows, and a root of their covariance float32 [D, D]."""
    total, squares = np.zeros(vectors.shape[1]), np.zeros((vectors.shape[1],) * 2)
    for block in blocks(vectors):
        rows = block.astype(np.float64)
        total += rows.sum(axis=0)
        squares += rows.T @ rows
    mean = total / len(vectors)
    values, directions = np.linalg.eigh(squares / len(vectors) - np.outer(mean, mean))
    values = np.maximum(values, FLATTEST * max(values[-1], 0.0))
    return mean.astype(np.float32), (directions * np.sqrt(values)).astype(np.float32)


def targets(
    table: EmbeddingTable, operators: Operators, relation: np.ndarray, side: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What new nodes are scored with: s = x · t + o; t float32 [n, D] and o float32 [n].

    On the left s = x · (v + r), on the right s = u · (x + r) = x · u + u · r.
    """
    vectors = np.asarray(table.vectors[rows])
    translations = operators.vectors[relation]
    left = (side == 0)[:, None]
    offsets = np.einsum("nd,nd->n", vectors, translations)
    return np.where(left, vectors + translations, vectors), np.where(left[:, 0], np.float32(0), offsets)


def solve_block(
    table: EmbeddingTable, operators: Operators, settings: FoldIn, terms: Terms, edges: Edges
) -> np.ndarray:
    """z of the B nodes of a block, float32 [B, D]: gradient steps with momentum, taken back where it overshoots."""
    vectors, offsets = targets(table, operators, edges.relation, edges.side, edges.row)
    offsets = vectors @ terms.mean + offsets
    vectors = vectors @ terms.root
    size = int(edges.owner[-1]) + 1
    weights = negative_weights(operators, terms, edges, size)
    squares = 2 * edges.weight * np.einsum("ed,ed->e", vectors, vectors)
    curvature = weights @ terms.curvature + MOST_CURVED * np.bincount(edges.owner, squares, size) + settings.prior
    step = (1 / curvature).astype(np.float32)[:, None]
    starts = np.searchsorted(edges.owner, np.arange(size))
    current = ahead = np.zeros((size, table.dimension), np.float32)
    momentum = np.ones((size, 1), np.float32)
    for _ in range(settings.steps):
        slope = settings.prior * ahead + negative_slopes(ahead, terms, weights)
        pull = 2 * edges.weight * sigmoid(-(np.einsum("ed,ed->e", ahead[edges.owner], vectors) + offsets))
        slope -= np.add.reduceat(pull[:, None] * vectors, starts, axis=0)
        following = ahead - slope * step
        uphill = ((following - current) * slope).sum(axis=1, keepdims=True) > 0
        momentum = np.where(uphill, np.float32(1), momentum)
        faster = (1 + np.sqrt(1 + 4 * momentum * momentum)) / 2
        ahead = following + (momentum - 1) / faster * (following - current)
        current, momentum = following, faster
    return current


def negative_weights(operators: Operators, terms: Terms, edges: Edges, size: int) -> np.ndarray:
    """What each kind of negatives weighs for each node, float32 [B, 2 S]."""
    total = operators.batch_negatives + operators.uniform_negatives
    weights = np.empty((size, len(terms.sides), 2), np.float32)
    for place, (relation, side) in enumerate(terms.sides):
        own = (edges.relation == relation) & (edges.side == side)
        degree = np.bincount(edges.owner[own], edges.weight[own], size)
        in_batch = 2 * (operators.batch_negatives - 1) * degree
        weights[:, place, 0] = (in_batch + operators.uniform_negatives * terms.popularity[place]) / total
        weights[:, place, 1] = operators.uniform_negatives * degree / total
    return weights.reshape(size, -1)


def negative_slopes(z: np.ndarray, terms: Terms, weights: np.ndarray) -> np.ndarray:
    """The gradient of the negatives' part, float32 [B, D]."""
    slopes = sigmoid(z @ terms.negatives.T + terms.offsets).reshape(*weights.shape, -1)
    slopes *= (weights / np.float32(slopes.shape[2]))[:, :, None]
    found: np.ndarray = slopes.reshape(len(z), -1) @ terms.negatives
    return found


def sigmoid(scores: np.ndarray) -> np.ndarray:
    """Of float32 values, in their shape."""
    with np.errstate(over="ignore"):  # exp becomes infinite, and the quotient zero
        found: np.ndarray = 1 / (1 + np.exp(-scores))
    return found
