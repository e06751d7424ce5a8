"""The NTUs of the embedding table that lie nearest to one of it: an exact search by cosine, block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.inference.model import Model
from ntulm.text import KEY_FORMS, user_key

BLOCK = 1 << 16  # rows that are read at a time


class Neighbour(NamedTuple):
    """An NTU, and the cosine of its vector with the one that was asked for."""

    type: str
    key: str
    cosine: float


def row_of(model: Model, ntu_type: str, name: str) -> int:
    """The row of an NTU, however its name is written (`#Café`, `@Alice`); -1 where the table does not know it.

    Raises:
        UserError: the model has no such type.
    """
    types = model.settings.scheme.types
    if ntu_type not in types:
        raise UserError(f"type {ntu_type!r}: not in this model; it has {', '.join(types)}")
    form = types[ntu_type]
    keys = [user_key(name, model.settings.source.casefold_users)] if form == "user" else KEY_FORMS[form](name)
    return int(model.table.rows(ntu_type, keys[:1] or [None])[0])


def nearest(table: EmbeddingTable, row: int, types: Sequence[str], top: int) -> list[Neighbour]:
    """The `top` NTUs of some types that are nearest to the one in row `row`, which is left out, the nearest first.

    Equal cosines stand in the order of rows.
    """
    wanted = _unit(table.vectors_of(np.array([row])))[0]
    rows, cosines = np.zeros(0, np.int64), np.zeros(0, np.float32)
    for first in range(0, len(table), BLOCK):
        block = np.arange(first, min(first + BLOCK, len(table)))
        block = block[_of_types(table, block, types) & (block != row)]
        rows = np.concatenate([rows, block])
        cosines = np.concatenate([cosines, _unit(table.vectors_of(block)) @ wanted])
        best = np.lexsort((rows, -cosines))[:top]
        rows, cosines = rows[best], cosines[best]
    found = [_name(table, int(place)).decode().split("\0", 1) for place in rows]
    return [Neighbour(kind, key, float(cosine)) for (kind, key), cosine in zip(found, cosines, strict=True)]


def _of_types(table: EmbeddingTable, rows: np.ndarray, types: Sequence[str]) -> np.ndarray:
    """bool [n] of consecutive rows."""
    split = len(table.base)
    names = [table.base.names.slice(rows[0], max(0, min(split, rows[-1] + 1) - rows[0]))]
    if table.overlay is not None and rows[-1] >= split:
        names.append(table.overlay.names.slice(max(0, rows[0] - split), len(rows) - len(names[0])))
    own = np.zeros(len(rows), bool)
    for kind in types:
        prefix = f"{kind}\0".encode()
        own |= np.concatenate([pc.starts_with(part, prefix).to_numpy(zero_copy_only=False) for part in names])
    return own


def _name(table: EmbeddingTable, row: int) -> bytes:
    later = row - len(table.base)
    names: pa.LargeBinaryArray = table.base.names if later < 0 or table.overlay is None else table.overlay.names
    found: bytes = names[row if later < 0 else later].as_py()
    return found


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit
