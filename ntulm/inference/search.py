"""The nearest by cosine, exactly: NTUs of a table, posts of a store. A block at a time, whatever their number.

N vectors, D or H their length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ntulm.embeddings.table import EmbeddingTable, Part
from ntulm.errors import UserError
from ntulm.inference.store import batches_of

BLOCK_ROWS = 1 << 16  # vectors looked at together; changes what is found by rounding alone
LEAST_NORM = 1e-12
Found = list[tuple[str, float]]  # a name and its cosine, the nearest first


class Nearest:
    """The `count` names of the largest cosine among those that were offered; of equal ones, to rounding, any."""

    def __init__(self, query: NDArray, count: int) -> None:
        self.query = unit(np.asarray(query, np.float32)[None])[0]
        self.count = count
        self.best: Found = []

    def offer(self, vectors: NDArray, names: pa.Array | Sequence[str]) -> None:
        """N more vectors with their names."""
        if not len(vectors):
            return
        cosines = unit(np.asarray(vectors, np.float32)) @ self.query
        rows = np.argsort(-cosines, kind="stable")[: self.count]
        named = names.take(pa.array(rows)).to_pylist() if isinstance(names, pa.Array) else [names[row] for row in rows]
        more = [(name, float(cosines[row])) for name, row in zip(named, rows, strict=True)]
        self.best = sorted([*self.best, *more], key=lambda item: -item[1])[: self.count]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same directions, of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), LEAST_NORM)


def nearest_ntus(
    table: EmbeddingTable, query: NDArray[np.float32], types: Sequence[str], count: int, without: Iterable[str] = ()
) -> Found:
    """The NTUs of some types whose vectors are nearest to a vector of the table's length, by `TYPE NUL KEY`.

    Args:
        table: the embedding table.
        query: float32 [D].
        types: which count.
        count: how many.
        without: names that do not count.
    """
    nearest = Nearest(query, count)
    left_out = pa.array([name.encode() for name in without], pa.large_binary())
    for vectors, names in _blocks_of(table):
        own = pc.invert(pc.is_in(names, left_out))
        of_types = pa.array(np.zeros(len(names), bool))
        for name in types:
            of_types = pc.or_(of_types, pc.starts_with(names, f"{name}\0"))
        rows = np.flatnonzero(pc.and_(own, of_types).to_numpy(False))
        nearest.offer(vectors[rows], names.take(pa.array(rows)).cast(pa.large_string()))
    return nearest.best


def _blocks_of(table: EmbeddingTable) -> Iterator[tuple[NDArray[np.float32], pa.Array]]:
    parts: list[Part] = [table.base, *([] if table.overlay is None else [table.overlay])]
    for part in parts:
        for start in range(0, len(part), BLOCK_ROWS):
            names = part.names.slice(start, BLOCK_ROWS)
            yield part.vectors[start : start + BLOCK_ROWS], names


def key_of(name: str) -> str:
    """The key of a `TYPE NUL KEY`."""
    return name.split("\0", 1)[1]


def nearest_posts(
    store: Path, version: str, query: NDArray[np.float32], count: int, without: str | None = None
) -> Found:
    """The posts of a store, under one version of the model, whose vectors are nearest to a vector of length H.

    Raises:
        UserError: no store, or one without vectors of this version.
    """
    nearest, rows = Nearest(query, count), 0
    for batch in _batches(store, version):
        rows += len(batch)
        if without is not None:
            batch = batch.filter(pc.not_equal(batch["post_id"], without))
        nearest.offer(vectors_of(batch), batch["post_id"])
    if not rows:
        raise UserError(f"{store}: no vectors of the model {version}; `ntulm embed POSTS --out {store}` adds them")
    return nearest.best


def vector_of(store: Path, version: str | None, post_id: str) -> tuple[NDArray[np.float32], str]:
    """The vector float32 [H] of a post in a store, and the version of the model that it is of.

    Raises:
        UserError: it is not there, or under several versions of which none is named.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for batch in _batches(store, version):
        own = batch.filter(pc.equal(batch["post_id"], post_id))
        found |= dict(zip(own["model"].to_pylist(), vectors_of(own), strict=True))
    if not found:
        raise UserError(f"{store}: no post with the id {post_id!r}")
    if len(found) > 1:
        raise UserError(
            f"{store}: the post {post_id!r} has vectors of the models {', '.join(found)}; name one: --model"
        )
    version, vector = next(iter(found.items()))
    return vector, version


def vectors_of(batch: pa.RecordBatch) -> NDArray[np.float32]:
    """float32 [N, H]"""
    column = batch["vector"]
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    return values.reshape(len(column), column.type.list_size)


def _batches(store: Path, version: str | None) -> Iterator[pa.RecordBatch]:
    for batch in batches_of(store, BLOCK_ROWS, ["post_id", "model", "vector"]):
        yield batch if version is None else batch.filter(pc.equal(batch["model"], version))
