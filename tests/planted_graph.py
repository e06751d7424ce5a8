"""A small graph in which users use the hashtags of their community, for the tests of engines in partitions."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic_graph import by_degree, write_pbg_input
from ntulm.embeddings.config import Embeddings
from ntulm.embeddings.link_prediction import Edges, Model, Relation, link_prediction

USERS, HASHTAGS, COMMUNITIES = 80, 48, 4
RELATIONS = [Relation("authored", "user", "hashtag"), Relation("reposted", "user", "hashtag")]


def config(**changes: Any) -> Embeddings:
    """The section `embeddings`, with changes."""
    values: dict[str, Any] = {
        "engine": "pbg",
        "dimension": 16,
        "epochs": 3,
        "learning_rate": 0.2,
        "batch_size": 100,
        "batch_negatives": 20,
        "uniform_negatives": 20,
        "partitions": 2,
        "workers": 1,
        "ranked_edges": 1000,
        "seed": 0,
    }
    return Embeddings(**values | changes)


def planted() -> tuple[Edges, np.ndarray]:
    """All edges, and which are held out; nodes are numbered by degree, whatever their community."""
    random = np.random.default_rng(0)
    users = (USERS * random.random(5000) ** 2).astype(np.int64)
    hashtags = (HASHTAGS // COMMUNITIES * random.random(5000) ** 2).astype(np.int64) * COMMUNITIES + users % COMMUNITIES
    stray = random.random(5000) < 0.05
    hashtags[stray] = random.integers(HASHTAGS, size=stray.sum())
    users, hashtags = by_degree(users), by_degree(hashtags)
    lhs, rel, rhs = np.unique(np.stack([users, random.integers(2, size=5000), hashtags]), axis=1)
    held_out = random.random((USERS, HASHTAGS))[lhs, rhs] < 0.1
    return Edges(lhs, rel, rhs), held_out


def write_planted(folder: Path) -> Path:
    """The input of the engines, without what is held out."""
    edges, held_out = planted()
    kept = edges.take(~held_out)
    columns = [kept.given, kept.rel, kept.answer]
    write_pbg_input(folder, columns, {"user": USERS, "hashtag": HASHTAGS}, RELATIONS)
    return folder


def figures(model: Model) -> dict[str, Any]:
    """How well the held-out edges are predicted."""
    edges, held_out = planted()
    return link_prediction(model, edges, held_out, np.flatnonzero(held_out), RELATIONS)
