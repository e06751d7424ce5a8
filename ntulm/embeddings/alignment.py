"""Turn the table of one training into the space of another, so that what was trained on the latter can use the former.

Two trainings place the same NTUs alike among each other, and each table as a whole at random: scores u · (v + r) stay
the same when all vectors are turned together. So the later table is turned onto the earlier one by the orthogonal
matrix that brings the rows they have in common closest (orthogonal Procrustes problem; Schönemann 1966):

    min over orthogonal Q of  ||X Q - Y||      Q = U V^T of the singular value decomposition X^T Y = U S V^T

X are the later rows, Y the earlier ones. Library of `ntulm refresh`; needs numpy and pyarrow alone.

N NTUs, D dimension.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ntulm.embeddings.operators import Operators
from ntulm.embeddings.table import FORMAT, TABLE_FILE, EmbeddingTable, write_overlay
from ntulm.errors import UserError
from ntulm.tensors import blocks, map_tensors, write_tensors

AT_ONCE = 1 << 18  # rows
FEWEST = 2  # rows in common per dimension: half of them fit a turn, the other half judge it


@dataclass(frozen=True)
class Turn:
    """How a later table lies in the space of an earlier one."""

    matrix: np.ndarray  # float64 [D, D], orthogonal; to the right of the later rows
    common: int  # NTUs that both tables have
    before: float  # mean cosine between the rows of an NTU, as they were trained
    after: float  # the same, turned; each row by the turn that fits the other half of them


def turn_onto(earlier: EmbeddingTable, later: EmbeddingTable) -> Turn:
    """Find the turn from the trained rows in common; rows that were folded in do not count.

    Raises:
        UserError: vectors of other lengths, key forms that differ, or too few NTUs in common.
    """
    _refuse_other(earlier, later)
    rows = np.concatenate([np.empty((2, 0), np.int64), *_common(earlier, later)], axis=1)
    common = rows.shape[1]
    if common < FEWEST * later.dimension:
        raise UserError(
            f"the two tables have {common:,} NTUs in common; expected at least {FEWEST * later.dimension:,}, "
            f"{FEWEST} per dimension: tables of graphs of the same users, written alike"
        )
    products = np.zeros((2, later.dimension, later.dimension))
    for half, x, y in _halves(earlier, later, rows):
        products[half] += x.T @ y
    turns = [_orthogonal(product) for product in products[::-1]]  # each half by the other's
    before = after = 0.0
    for half, x, y in _halves(earlier, later, rows):
        before += _cosines(x, y)
        after += _cosines(x @ turns[half], y)
    return Turn(_orthogonal(products.sum(0)), common, before / common, after / common)


def write_turned(directory: Path, earlier: EmbeddingTable, later: Path, turn: Turn) -> None:
    """Write the later table and its relations, turned, into a directory in the place of those that it has.

    The mean rows are those of the earlier table: they stand for what is not known, and that has not changed.

    Args:
        directory: with the earlier table, or an empty one.
        earlier: the table whose space it is.
        later: the folder of the later table.
        turn: that fits the two.
    """
    table, relations = EmbeddingTable.load(later), Operators.load(later)
    tensors, _ = map_tensors(later / TABLE_FILE)
    matrix = turn.matrix.astype(np.float32)
    forms = dict(sorted((earlier.types | table.types).items()))
    own = {kind: mean @ matrix for kind, mean in table.type_means.items()} | earlier.type_means
    changed = {
        "vectors": np.concatenate([block @ matrix for block in blocks(table.vectors)]),
        "mean": earlier.mean,
        "type_means": np.stack([own[kind] for kind in forms]),
    }
    (directory / TABLE_FILE).unlink(missing_ok=True)  # may be mapped into memory: another file takes its place
    write_tensors(directory / TABLE_FILE, tensors | changed, {"format": FORMAT, "types": json.dumps(forms)})
    folded = table.later()
    turned = EmbeddingTable.load(directory).with_overlay(folded._replace(vectors=folded.vectors @ matrix))
    write_overlay(directory, turned)
    relations.turned(matrix).write(directory)


def _refuse_other(earlier: EmbeddingTable, later: EmbeddingTable) -> None:
    if earlier.dimension != later.dimension:
        raise UserError(f"vectors of length {later.dimension}; those of the model have {earlier.dimension}")
    for kind, form in later.types.items():
        if earlier.types.get(kind, form) != form:
            raise UserError(f"keys of {kind} in the form {form!r}; those of the model are {earlier.types[kind]!r}")


def _common(earlier: EmbeddingTable, later: EmbeddingTable) -> Iterator[np.ndarray]:
    """Rows of the trained NTUs that both have, in the later and in the earlier table: int64 [2, n]."""
    for start in range(0, len(later.base), AT_ONCE):
        found = earlier.base.find(later.base.names.slice(start, AT_ONCE).to_pylist())
        there = np.flatnonzero(found >= 0)
        yield np.stack([start + there, found[there]])


def _halves(
    earlier: EmbeddingTable, later: EmbeddingTable, rows: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Every other pair of rows: which half, and their vectors float64 [n, D], later and earlier."""
    for half in (0, 1):
        own = rows[:, half::2]
        for start in range(0, own.shape[1], AT_ONCE):
            one, other = own[:, start : start + AT_ONCE]
            yield half, later.vectors[one].astype(np.float64), earlier.vectors[other].astype(np.float64)


def _orthogonal(product: np.ndarray) -> np.ndarray:
    left, _, right = np.linalg.svd(product)
    return np.asarray(left @ right)


def _cosines(one: np.ndarray, other: np.ndarray) -> float:
    """The sum of the cosines of n pairs; of a row of zeros: 0."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(1) / np.maximum(norms, np.finfo(float).tiny)).sum())
