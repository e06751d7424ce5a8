"""How well a graph embedding predicts edges that it has not seen: MRR and Hits@10 beside a popularity baseline.

Library of the stage `embeddings`, whatever its engine. Each held-out edge asks two questions: which of all hashtags
(given user and relation), which of all users (given hashtag and relation). The rank is *filtered*: other true answers,
trained on or held out, do not compete; ties get their mean rank. The baseline ranks by the number of training edges
that a candidate has in the relation.

Shapes: E edges, U users, H hashtags, R relations, D dimension, N candidates (U or H), b questions of a block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

SCORE_CELLS = 1 << 24  # scores held at a time: 64 MiB

Scores = Callable[[np.ndarray], np.ndarray]  # places of b questions -> float32 [b, N]


@dataclass(frozen=True)
class Model:
    """The vectors that score an edge with u · (v + r), equation 1."""

    users: np.ndarray  # float32 [U, D]
    hashtags: np.ndarray  # float32 [H, D]
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


def link_prediction(
    model: Model, edges: Edges, held_out: np.ndarray, asked: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """The figures of held-out edges.

    Args:
        edges: all E edges; given are users and answers are hashtags, each counted from 0.
        held_out: bool [E], not trained on.
        asked: int64 [n], the places of the held-out edges to measure.
        names: the R relations.

    Returns:
        {mrr, hits@10, edges, popularity: {mrr, hits@10}} over both sides, and the same for each of
        sides: {hashtag, user} (with `candidates`) and relations: {name}; a figure over no edge is None.
    """
    rel = edges.rel[asked]
    questions = edges.take(asked)
    answered = {
        "hashtag": _side(edges, held_out, asked, hashtag_scores(model, questions), _shape(model, model.hashtags)),
        "user": _side(edges.turned(), held_out, asked, user_scores(model, questions), _shape(model, model.users)),
    }
    sides = {name: figures([ranks], np.ones(len(rel), bool)) for name, ranks in answered.items()}
    sides["hashtag"]["candidates"], sides["user"]["candidates"] = len(model.hashtags), len(model.users)
    both = list(answered.values())
    relations = {name: figures(both, rel == place) for place, name in enumerate(names)}
    return {**figures(both, np.ones(len(rel), bool)), "sides": sides, "relations": relations}


def hashtag_scores(model: Model, asked: Edges) -> Scores:
    """Scores of all hashtags; u · r is the same for every hashtag and left out."""
    return lambda rows: model.users[asked.given[rows]] @ model.hashtags.T


def user_scores(model: Model, asked: Edges) -> Scores:
    """Scores of all users."""
    return lambda rows: (model.hashtags[asked.answer[rows]] + model.relations[asked.rel[rows]]) @ model.users.T


def figures(answered: list[np.ndarray], chosen: np.ndarray) -> dict[str, Any]:
    """MRR and Hits@10.

    Args:
        answered: per side, ranks float64 [2, n]: of the model, of the popularity baseline.
        chosen: bool [n], the edges that count.
    """
    ranks = np.concatenate([side[:, chosen] for side in answered], axis=1)
    if not ranks.size:
        return {"mrr": None, "hits@10": None, "edges": 0, "popularity": {"mrr": None, "hits@10": None}}
    model, popularity = ({"mrr": float((1 / own).mean()), "hits@10": float((own <= 10).mean())} for own in ranks)
    return {**model, "edges": int(chosen.sum()), "popularity": popularity}


def filtered_ranks(asked: Edges, known: Edges, scores: Scores, candidates: int) -> np.ndarray:
    """float64 [n]: the rank of each answer among all candidates but the other answers that are known to be true."""
    groups, answers = _grouped(known)
    ranks = np.empty(len(asked), np.float64)
    block = max(1, SCORE_CELLS // candidates)
    for start in range(0, len(asked), block):
        rows = np.arange(start, min(start + block, len(asked)))
        table = scores(rows)
        own = np.arange(len(rows)), asked.answer[rows]
        reached = table[own][:, None]
        table[_known_cells(_group(asked.take(rows)), groups, answers)] = -np.inf
        table[own] = -np.inf  # the answer itself is no competitor
        ranks[rows] = 1 + (table > reached).sum(axis=1) + (table == reached).sum(axis=1) / 2
    return ranks


def _shape(model: Model, candidates: np.ndarray) -> tuple[int, int]:
    return len(model.relations), len(candidates)


def _side(edges: Edges, held_out: np.ndarray, asked: np.ndarray, scores: Scores, shape: tuple[int, int]) -> np.ndarray:
    """float64 [2, n]: the ranks of the model and those of the popularity baseline."""
    questions, candidates = edges.take(asked), shape[1]
    popularity = _popularity(edges.take(~held_out), shape)
    return np.stack(
        [
            filtered_ranks(questions, edges, scores, candidates),
            filtered_ranks(questions, edges, lambda rows: popularity[questions.rel[rows]], candidates),
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
