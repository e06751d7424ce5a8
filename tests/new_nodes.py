"""A small table of two communities with the relations that it was trained with, for the tests of what comes later."""

from pathlib import Path

import numpy as np
import tiny_model

from ntulm.embeddings.fold_in import FoldIn
from ntulm.embeddings.operators import Operators, sample_edges
from ntulm.embeddings.table import EmbeddingTable, write_table
from ntulm.layout import Layout

RELATIONS = {
    "authored": ("author", "hashtag"),
    "co_mentioned": ("mention", "hashtag"),
    "favorited": ("favoriter", "hashtag"),
    "reposted": ("reposter", "hashtag"),
}
USERS = [f"{side}{number}" for side in ("left", "right") for number in range(4)]
HASHTAGS = [f"{side}tag{number}" for side in ("l", "r") for number in range(4)]
SETTINGS = FoldIn(
    embed="never", min_edges=2, prior=1.0, negatives=64, steps=200, seed=0, max_count=5, relations=RELATIONS
)


def write_graph(directory: Path, dimension: int = 4, spare: str = "reposted") -> None:
    """Table and relations of 8 users and 8 hashtags, of each type half on either side; nobody has `spare`."""
    random = np.random.default_rng(0)
    hashtags, users = (_rows(names, dimension, random) for names in (HASHTAGS, USERS))
    types = ["hashtag"] * len(HASHTAGS) + ["user"] * len(USERS)
    write_table(directory, types, [*HASHTAGS, *USERS], np.concatenate([hashtags, users]))
    side = np.arange(8) // 4
    lhs, rhs = (ends.astype(np.int64) for ends in np.nonzero(side[:, None] == side[None, :]))
    trained = [place for place, name in enumerate(RELATIONS) if name != spare]
    ends = np.tile(lhs + len(HASHTAGS), len(trained)), np.repeat(trained, len(lhs)), np.tile(rhs, len(trained))
    Operators(
        names=list(RELATIONS),
        types=[("user", "hashtag")] * len(RELATIONS),
        vectors=(0.1 * random.standard_normal((len(RELATIONS), dimension))).astype(np.float32),
        sampled=sample_edges(*ends, len(RELATIONS), 0),
        edges=np.bincount(ends[1], minlength=len(RELATIONS)).tolist(),
        nodes={"hashtag": (0, len(HASHTAGS)), "user": (len(HASHTAGS), len(USERS))},
        batch_negatives=10,
        uniform_negatives=10,
    ).write(directory)


def build_model(root: Path, backbone: Path) -> Path:
    """The directory of a tiny model with this graph, which folds in NTUs from two edges on."""
    layout = Layout(root)
    tiny_model.build(tiny_model.params_of("fold_in.min_edges=2"), str(backbone), layout)
    write_graph(layout.model)
    return layout.model


def loaded(directory: Path) -> tuple[EmbeddingTable, Operators]:
    """What `write_graph` wrote."""
    return EmbeddingTable.load(directory), Operators.load(directory)


def _rows(names: list[str], dimension: int, random: np.random.Generator) -> np.ndarray:
    """Left ones along the first direction, right ones along the second."""
    sides = 2 * np.eye(2, dimension)[[int(name.startswith("r")) for name in names]]
    return (sides + 0.2 * random.standard_normal(sides.shape)).astype(np.float32)
