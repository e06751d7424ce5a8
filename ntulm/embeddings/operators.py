"""The trained relations of a graph beside its table, with what else solving for new rows needs (`fold_in.py`).

Reads and writes `relations.safetensors` in the folder of the table. Library only; it needs numpy alone. The stage
`embeddings` writes it, the stage `model` copies it.

Tensors (R relations, D dimension, K sampled edges):
    vectors [R, D] float32    the translations: an edge scores u · (v + r)
    sampled [R, 2, K] int64   rows of the table: both ends of K training edges of each relation, drawn at random
Metadata: `names` and `types` (the pairs of left and right type) of the relations, and `trained`: `edges` (how many
edges of each relation an epoch has), `nodes` (type -> first row and number of rows), `batch_negatives` and
`uniform_negatives`, all as JSON. The sampled ends are as popular as those that training met in its batches.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ntulm.errors import UserError
from ntulm.tensors import map_tensors, write_tensors

OPERATORS_FILE = "relations.safetensors"
SAMPLED_EDGES = 2048  # kept of each relation: the most that `fold_in.negatives` can ask for
AGAIN = "run `dvc repro embeddings model` again"


@dataclass(frozen=True)
class Operators:
    """The relations of a table; made by `Operators.load`."""

    names: Sequence[str]
    types: Sequence[tuple[str, str]]  # on the left and on the right
    vectors: np.ndarray  # [R, D] float32
    sampled: np.ndarray  # [R, 2, K] int64
    edges: Sequence[int]  # of an epoch; a relation with none was not trained
    nodes: Mapping[str, tuple[int, int]]  # type -> first row, number of rows
    batch_negatives: int
    uniform_negatives: int

    @classmethod
    def load(cls, directory: Path) -> "Operators":
        """The relations beside the table of `directory`.

        Raises:
            UserError: there are none, they are damaged, or of an earlier version that kept less of them.
        """
        path = directory / OPERATORS_FILE
        if not path.is_file():
            raise UserError(f"{path}: not found; {AGAIN}, which write it")
        try:
            tensors, metadata = map_tensors(path)
            about = json.loads(metadata["trained"])
            found = cls(
                names=json.loads(metadata["names"]),
                types=[(left, right) for left, right in json.loads(metadata["types"])],
                vectors=np.array(tensors["vectors"]),
                sampled=np.array(tensors["sampled"]),
                edges=about["edges"],
                nodes={name: (first, count) for name, (first, count) in about["nodes"].items()},
                batch_negatives=int(about["batch_negatives"]),
                uniform_negatives=int(about["uniform_negatives"]),
            )
            found.check()
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: damaged, or of an earlier version ({error}); {AGAIN}") from error
        return found

    @property
    def rows(self) -> int:
        """The rows of the table that they were trained with."""
        return sum(count for _, count in self.nodes.values())

    def turned(self, matrix: np.ndarray) -> "Operators":
        """The relations of the same table with all rows turned by an orthogonal matrix float32 [D, D]."""
        return replace(self, vectors=self.vectors @ matrix)

    def check(self) -> None:
        """Refuse what does not belong together.

        Raises:
            ValueError: says what.
        """
        size = len(self.names)
        if not size == len(self.types) == len(self.edges) == len(self.vectors) == len(self.sampled):
            raise ValueError("not the same number of relations everywhere")
        if self.sampled.shape[1:2] != (2,) or self.sampled.ndim != 3 or self.vectors.ndim != 2:
            raise ValueError("a tensor of another shape")
        trained = self.sampled[np.array(self.edges, np.int64) > 0]
        if trained.size and not (trained.min() >= 0 and trained.max() < self.rows):
            raise ValueError("sampled edges outside of the table")
        if any(name not in self.nodes for pair in self.types for name in pair):
            raise ValueError("a relation of a type without rows")

    def write(self, directory: Path) -> None:
        """Write the file; the same values give the same bytes."""
        trained = {"edges": list(self.edges), "nodes": {name: list(place) for name, place in self.nodes.items()}}
        negatives = {"batch_negatives": self.batch_negatives, "uniform_negatives": self.uniform_negatives}
        metadata = {
            "names": json.dumps(list(self.names)),
            "types": json.dumps(list(self.types)),
            "trained": json.dumps(trained | negatives),
        }
        write_tensors(directory / OPERATORS_FILE, {"vectors": self.vectors, "sampled": self.sampled}, metadata)


def sample_edges(lhs: np.ndarray, rel: np.ndarray, rhs: np.ndarray, size: int, seed: int) -> np.ndarray:
    """Both ends of SAMPLED_EDGES edges of each of `size` relations, drawn with replacement: int64 [R, 2, K].

    Args:
        lhs, rel, rhs: int64 [E]: rows of the table and relations, an edge as often as an epoch has it.
        size: R; a relation without an edge has -1 everywhere.
    """
    random = np.random.default_rng(seed)
    sampled = np.full((size, 2, SAMPLED_EDGES), -1, np.int64)
    for relation in range(size):
        places = np.flatnonzero(rel == relation)
        if len(places):
            drawn = places[random.integers(len(places), size=SAMPLED_EDGES)]
            sampled[relation] = lhs[drawn], rhs[drawn]
    return sampled
