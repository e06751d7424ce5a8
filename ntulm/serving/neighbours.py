"""The NTUs of the embedding table that lie nearest to one of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.inference.model import Model
from ntulm.inference.search import nearest_ntus
from ntulm.text import KEY_FORMS, user_key


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
    found = nearest_ntus(table, table.vectors_of(np.array([row]))[0], types, top, [_name(table, row).decode()])
    named = [(*name.partition("\0"), cosine) for name, cosine in found]
    return [Neighbour(kind, key, cosine) for kind, _, key, cosine in named]


def _name(table: EmbeddingTable, row: int) -> bytes:
    later = row - len(table.base)
    names: pa.LargeBinaryArray = table.base.names if later < 0 or table.overlay is None else table.overlay.names
    found: bytes = names[row if later < 0 else later].as_py()
    return found
