"""Posts: the one container that every stage after the corpus hands posts around in. Library only; needs pyarrow alone.

A `Posts` is an Arrow table with the columns of COLUMNS and any others that its maker adds (`split` and `labels` of a
task, `created_at` of arriving posts). Rows are posts; their order is the contract for vectors and scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ntulm.ntus import FIELDS, NTUS, NtuScheme, ntus_of
from ntulm.variants import SHUFFLE_SEED, Variant

COLUMNS = pa.schema(
    [
        ("post_id", pa.string()),
        ("text", pa.string()),
        ("author", pa.string()),  # null: not known
        ("ntus", NTUS),
    ]
)


@dataclass(frozen=True)
class Posts:
    """N posts."""

    table: pa.Table

    @classmethod
    def of(cls, scheme: NtuScheme, fields: Mapping[str, Sequence[Any]], **more: Any) -> Posts:
        """N posts from columns as in the posts table of the corpus (`post_id` and FIELDS), and further columns."""
        ntus = ntus_of(scheme, {name: fields[name] for name in FIELDS if name in fields})
        core = [
            pa.array(fields["post_id"], pa.string()),
            pa.array(fields["text"], pa.string()),
            pa.array(fields["author"], pa.string()),
            ntus,
        ]
        table = pa.table(core, schema=COLUMNS)
        for name, values in more.items():
            table = table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
        return cls(table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def texts(self) -> list[str]:
        return self.table["text"].to_pylist()

    @property
    def authors(self) -> list[str | None]:
        return self.table["author"].to_pylist()

    @property
    def ntus(self) -> pa.ListArray:
        """N lists of type NTUS, in one chunk."""
        return self.table["ntus"].combine_chunks()

    def take(self, rows: np.ndarray) -> Posts:
        """The posts at int64 or bool rows."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Posts(self.table.take(pa.array(rows)))

    def replace(self, **columns: Any) -> Posts:
        """The posts with some columns replaced, in place of those of the same names."""
        table = self.table
        for name, values in columns.items():
            place = table.schema.get_field_index(name)
            kind = table.schema.field(place).type
            table = table.set_column(place, name, values if isinstance(values, pa.Array) else pa.array(values, kind))
        return Posts(table)

    def without_ntus(self, rows: np.ndarray) -> Posts:
        """The posts with those at int64 `rows` having no NTU."""
        hidden = np.zeros(len(self), bool)
        hidden[rows] = True
        ntus = self.ntus
        nothing = pa.array([[]], NTUS)
        places = np.where(hidden, len(ntus), np.arange(len(ntus)))
        return self.replace(ntus=pa.concat_arrays([ntus, nothing]).take(pa.array(places)))

    def seen_by(self, variant: Variant) -> Posts:
        """The posts as a variant sees them; the NTUs of `shuffled` come from a fixed permutation of these posts."""
        posts = self
        if variant.shuffled:
            order = np.random.default_rng(SHUFFLE_SEED).permutation(len(self))
            posts = posts.replace(ntus=self.ntus.take(pa.array(order)))
        if variant.words:
            wanted = set(variant.words)
            before = [[ntu["key"] for ntu in own if ntu["role"] in wanted] for own in self.ntus.to_pylist()]
            posts = posts.replace(text=[" ".join([*own, text]) for own, text in zip(before, self.texts, strict=True)])
        return posts
