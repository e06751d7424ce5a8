"""How well a graph embedding predicts edges that it has not seen: MRR and Hits@10 beside a popularity baseline.

Library of the stage `embeddings`, whatever its engine. Each held-out edge of a relation asks two questions: which of
all nodes of the type on its right (given the left one), which of all nodes of the type on its left (given the right
one). The rank is *filtered*: other true answers, trained on or held out, do not compete, nor does the given node; ties
get their mean rank. The baseline ranks by the training edges that a candidate has on that side of the relation.

Shapes: E edges, R relations, D dimension, N candidates (nodes of a type), b questions of a block.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ntulm.files import read_json

SCORE_CELLS = 1 << 24  # scores held at a time: 64 MiB

Scores = Callable[[np.ndarray], np.ndarray]  # places of b questions -> float32 [b, N]


class Relation(NamedTuple):
    """Edges from nodes of one type to nodes of another, or of the same."""

    name: str
    lhs: str
    rhs: str
    symmetric: bool = False  # an edge stands for both directions

    @property
    def types(self) -> tuple[str, str]:
        """On the left and on the right."""
        return self.lhs, self.rhs


@dataclass(frozen=True)
class Model:
    """The vectors that score an edge with u · (v + r), equation 1."""

    nodes: Mapping[str, np.ndarray]  # type -> float32 [N, D]
    relations: np.ndarray  # float32 [R, D]


@dataclass(frozen=True)
class Edges:
    """E edges seen from one side: what is given, and which candidate is the answer."""

    given: np.ndarray  # int64 [E]
    rel: np.ndarray  # int64 [E]
    answer: np.ndarray  # int64 [E]

    def __len__(self) -> int:
        return len(self.rel)

    def take(self, which: np.ndarray) -> "Edges":
        """The edges at the given places (int64 or bool)."""
        return Edges(self.given[which], self.rel[which], self.answer[which])

    def turned(self) -> "Edges":
        """The same edges, asked from the other side."""
        return Edges(self.answer, self.rel, self.given)


def read_relations(pbg_input: Path) -> list[Relation]:
    """The R relations of data/graph/pbg."""
    return [Relation(**one) for one in read_json(pbg_input / "relations.json")]


def both_ways(edges: Edges, relations: Sequence[Relation]) -> Edges:
    """The edges, those of symmetric relations in both directions."""
    turned = edges.take(np.array([relation.symmetric for relation in relations])[edges.rel]).turned()
    parts = zip((edges.given, edges.rel, edges.answer), (turned.given, turned.rel, turned.answer), strict=True)
    return Edges(*(np.concatenate(pair) for pair in parts)) if len(turned) else edges


def types_of(relations: Sequence[Relation]) -> list[str]:
    """The types of the relations in order of first appearance, left first: the order in which vectors are drawn."""
    return list(dict.fromkeys(ntu_type for relation in relations for ntu_type in (relation.lhs, relation.rhs)))


def link_prediction(
    model: Model, edges: Edges, held_out: np.ndarray, asked: np.ndarray, relations: Sequence[Relation]
) -> dict[str, Any]:
    """The figures of held-out edges.

    Args:
        edges: all E edges; given are left and answers are right, each counted from 0 within its type.
        held_out: bool [E], not trained on.
        asked: int64 [n], the places of the held-out edges to measure.
        relations: all R.

    Returns:
        {mrr, hits@10, edges, popularity: {mrr, hits@10}} over both sides, and the same for the questions of
        sides: {type of the answer} (with `candidates`) and relations: {name}; a figure over no edge is None.
    """
    lefts, rights = _side_ranks(model, edges, held_out, asked, relations)
    rel = edges.rel[asked]
    sides = {}
    for ntu_type in types_of(relations):
        on_left, on_right = (np.array([one.types[side] == ntu_type for one in relations])[rel] for side in (0, 1))
        ranks = np.concatenate([rights[:, on_right], lefts[:, on_left]], axis=1)
        candidates = len(model.nodes[ntu_type])
        sides[ntu_type] = {**figures(ranks, int((on_left | on_right).sum())), "candidates": candidates}
    ranks = np.stack([rights, lefts], axis=1)  # [2, 2, n]
    by_relation = {one.name: _chosen(ranks, rel == place) for place, one in enumerate(relations)}
    return {**_chosen(ranks, np.ones(len(rel), bool)), "sides": sides, "relations": by_relation}


def figures(ranks: np.ndarray, edges: int) -> dict[str, Any]:
    """MRR and Hits@10.

    Args:
        ranks: float64 [2, q], of the model and of the popularity baseline in each question.
        edges: how many edges asked them.
    """
    if not ranks.size:
        return {"mrr": None, "hits@10": None, "edges": 0, "popularity": {"mrr": None, "hits@10": None}}
    model, popularity = ({"mrr": float((1 / own).mean()), "hits@10": float((own <= 10).mean())} for own in ranks)
    return {**model, "edges": edges, "popularity": popularity}


def _chosen(ranks: np.ndarray, chosen: np.ndarray) -> dict[str, Any]:
    return figures(ranks[:, :, chosen].reshape(2, -1), int(chosen.sum()))


def filtered_ranks(asked: Edges, known: Edges, scores: Scores, candidates: int, one_type: bool = False) -> np.ndarray:
    """float64 [n]: the rank of each answer among all candidates but the other answers that are known to be true.

    Args:
        asked: the questions.
        known: edges that are true.
        scores: of all candidates.
        candidates: N.
        one_type: what is given is one of the candidates, and no answer to its own question.
    """
    groups, answers = _grouped(known)
    ranks = np.empty(len(asked), np.float64)
    block = max(1, SCORE_CELLS // max(1, candidates))
    for start in range(0, len(asked), block):
        rows = np.arange(start, min(start + block, len(asked)))
        table = scores(rows)
        own = np.arange(len(rows)), asked.answer[rows]
        reached = table[own][:, None]
        table[_known_cells(_group(asked.take(rows)), groups, answers)] = -np.inf
        if one_type:
            table[own[0], asked.given[rows]] = -np.inf
        table[own] = -np.inf  # the answer itself is no competitor
        ranks[rows] = 1 + (table > reached).sum(axis=1) + (table == reached).sum(axis=1) / 2
    return ranks


def _side_ranks(
    model: Model, edges: Edges, held_out: np.ndarray, asked: np.ndarray, relations: Sequence[Relation]
) -> tuple[np.ndarray, np.ndarray]:
    """float64 [2, n] each: the ranks of the left answers and those of the right ones, of the model and the baseline."""
    lefts, rights = np.empty((2, len(asked))), np.empty((2, len(asked)))
    pairs = [relation.types for relation in relations]
    for lhs, rhs in dict.fromkeys(pairs):  # relations between the same types are asked about together
        among = np.array([pair == (lhs, rhs) for pair in pairs])
        own, places = among[edges.rel], among[edges.rel[asked]]
        mine, questions = both_ways(edges.take(own), relations), edges.take(asked[places])
        training = both_ways(edges.take(own & ~held_out), relations)
        to_left, to_right = _scores(model, lhs, rhs, questions)
        size = len(relations), len(model.nodes[rhs])
        rights[:, places] = _side(mine, training, questions, to_right, size, lhs == rhs)
        size = len(relations), len(model.nodes[lhs])
        turned = mine.turned(), training.turned(), questions.turned()
        lefts[:, places] = _side(*turned, to_left, size, lhs == rhs)
    return lefts, rights


def _scores(model: Model, lhs: str, rhs: str, asked: Edges) -> tuple[Scores, Scores]:
    """Of all candidates for the left, and for the right; u · r is the same for every right one and left out."""
    lefts, rights, relations = model.nodes[lhs], model.nodes[rhs], model.relations
    return (
        lambda rows: (rights[asked.answer[rows]] + relations[asked.rel[rows]]) @ lefts.T,
        lambda rows: lefts[asked.given[rows]] @ rights.T,
    )


def _side(
    known: Edges, training: Edges, asked: Edges, scores: Scores, size: tuple[int, int], one_type: bool
) -> np.ndarray:
    """float64 [2, n]: the ranks of the model and those of the popularity baseline."""
    popularity = _popularity(training, size)
    return np.stack(
        [
            filtered_ranks(asked, known, scores, size[1], one_type),
            filtered_ranks(asked, known, lambda rows: popularity[asked.rel[rows]], size[1], one_type),
        ]
    )


def _popularity(training: Edges, shape: tuple[int, int]) -> np.ndarray:
    """float32 [R, N]: training edges of each candidate in each relation."""
    cells = np.bincount(training.rel * shape[1] + training.answer, minlength=shape[0] * shape[1])
    return cells.reshape(shape).astype(np.float32)


def _group(edges: Edges) -> np.ndarray:
    return (edges.rel << 48) | edges.given  # a graph with more nodes than that has other worries


def _grouped(known: Edges) -> tuple[np.ndarray, np.ndarray]:
    groups = _group(known)
    order = np.argsort(groups, kind="stable")
    return groups[order], known.answer[order]


def _known_cells(wanted: np.ndarray, groups: np.ndarray, answers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells (question, candidate) of a block that are known to be true."""
    starts = np.searchsorted(groups, wanted, "left")
    counts = np.searchsorted(groups, wanted, "right") - starts
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(np.arange(len(wanted)), counts), answers[np.repeat(starts, counts) + within]
