"""A seeded graph with communities and popular nodes, and graphs as engines read them, for the benchmarks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from ntulm.embeddings.link_prediction import Relation
from ntulm.files import write_json

RELATIONS = ["authored", "co_mentioned", "reposted"]  # each from users to hashtags
COMMUNITY = 100  # hashtags of a community
STRAY = 0.2  # of the edges leave their community
SKEW = 2.0  # a node's share of the edges falls with its place to the power of 1/SKEW - 1


def synthetic_edges(size: int, seed: int = 0) -> np.ndarray:
    """int64 [3, size]: user, relation, hashtag of distinct edges, sorted; ids need not be dense.

    Users are a twentieth of the edges, hashtags a fiftieth. A user's community is its id modulo their number.
    """
    random = np.random.default_rng(seed)
    communities = max(2, size // 50 // COMMUNITY)
    users, hashtags = max(size // 20, 10 * communities), communities * COMMUNITY
    codes = np.empty(0, np.int64)
    while len(codes) < size:  # popular pairs are drawn more than once
        drawn = size // 4
        user = (users * random.random(drawn) ** SKEW).astype(np.int64)
        own = (COMMUNITY * random.random(drawn) ** SKEW).astype(np.int64) * communities + user % communities
        any_hashtag = (hashtags * random.random(drawn) ** SKEW).astype(np.int64)
        hashtag = np.where(random.random(drawn) < STRAY, any_hashtag, own)
        relation = random.integers(len(RELATIONS), size=drawn)
        codes = np.union1d(codes, (user * len(RELATIONS) + relation) * hashtags + hashtag)
    codes = np.sort(random.choice(codes, size, replace=False))
    return np.stack([codes // hashtags // len(RELATIONS), codes // hashtags % len(RELATIONS), codes % hashtags])


def by_degree(keys: np.ndarray) -> np.ndarray:
    """The place of each key in the order of how often it stands, ties at random: int64 [E]."""
    _, inverse, degrees = np.unique(keys, return_inverse=True, return_counts=True)
    ties = np.random.default_rng(2).random(len(degrees))
    places = np.empty(len(degrees), np.int64)
    places[np.lexsort([ties, -degrees])] = np.arange(len(degrees))
    return places[inverse]


def write_pbg_input(
    folder: Path, edges: Sequence[np.ndarray], counts: Mapping[str, int], relations: Sequence[Relation]
) -> None:
    """What the stage `graph` writes for the engines, of one partition.

    Args:
        folder: where.
        edges: int64 [E] each: left nodes, relations, right nodes, counted within their types.
        counts: how many nodes each type has.
        relations: in the order of their numbers.
    """
    (folder / "train").mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "train" / "edges_0_0.h5", "w") as file:
        file.attrs["format_version"] = 1
        for name, column in zip(("lhs", "rel", "rhs"), edges, strict=True):
            file[name] = column
    for kind, count in counts.items():
        (folder / f"entity_count_{kind}_0.txt").write_text(f"{count}\n")
    write_json(folder / "relations.json", [relation._asdict() for relation in relations])
