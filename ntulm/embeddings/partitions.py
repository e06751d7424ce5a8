"""Nodes in K partitions and edges in K² buckets, as PyTorch-BigGraph trains graphs that are too large to be held whole.

Library of pbg.py and torch_training.py; needs numpy and h5py alone.

Node i of a type lies in row i // K of its partition, and an edge in the bucket of its two partitions. The K nodes of a
row are dealt out to the partitions in turn, from one that a hash of the row says. The stage `graph` numbers nodes by
degree, so every partition has frequent and rare nodes in equal shares. Were it the frequent ones in the first and the
rare ones in the last, the scores of two partitions could not be compared, since the negatives of an edge come from its
own bucket. The hash is for numbers with a pattern: with i % K, a community might be a partition.

An epoch goes through all buckets PASSES times, each time with another share of their edges: a bucket that is trained
for long moves its nodes to where they suit each other, and away from all others. docs/decisions/0057 has figures.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import h5py
import numpy as np

from ntulm.resources import require_space

if TYPE_CHECKING:
    from torch import Tensor

EDGES = "edges_0_0.h5"  # of data/graph/pbg/train
COLUMNS = ("lhs", "rel", "rhs")
FORMAT_VERSION = 1  # PBG's
AT_ONCE = 1 << 21  # edges; some 200 MB while they are sorted
PASSES = 4  # more cost traffic of partitions, and bring little
SPREAD, SHIFT = 0x9E3779B1, 16  # Fibonacci hashing

Ids = TypeVar("Ids", int, np.ndarray, "Tensor")


def passes_of(partitions: int) -> int:
    """How often an epoch goes through the buckets."""
    return PASSES if partitions > 1 else 1


def share_of(number: int, bucket: int, partitions: int) -> int:
    """Which share of the edges of a bucket a pass has; the first one is the largest, and not always of one pass."""
    return (number - bucket) % passes_of(partitions)


def counts_of(pbg_input: Path, types: Sequence[str]) -> dict[str, int]:
    """How many nodes each type has."""
    return {ntu_type: int((pbg_input / f"entity_count_{ntu_type}_0.txt").read_text()) for ntu_type in types}


def size(items: int, number: int, shares: int) -> int:
    """How many of so many items the share of a number, from 0, has, where they are dealt out one after the other."""
    return len(range(number, items, shares))


def partition_of(ids: Ids, partitions: int) -> Ids:
    """In which partition nodes lie; int64, any shape."""
    return (ids + _turn(ids // partitions)) % partitions


def nodes_in(nodes: int, number: int, partitions: int) -> int:
    """How many of so many nodes of a type lie in a partition."""
    rows, rest = divmod(nodes, partitions)
    return rows + ((number - _turn(rows)) % partitions < rest)


def nodes_of(nodes: int, number: int, partitions: int) -> np.ndarray:
    """The ids of a partition of so many nodes of a type, row by row: int64 [n]."""
    rows = np.arange(nodes // partitions + 1)
    ids = rows * partitions + (number - _turn(rows)) % partitions
    return ids[ids < nodes]


def _turn(rows: Ids) -> Ids:
    return rows * SPREAD >> SHIFT


def split(pbg_input: Path, counts: Mapping[str, int], partitions: int, out: Path) -> list[Path]:
    """Write the input of PBG in so many partitions: `entity_count_TYPE_P.txt`, and `edges_L_R.h5` for every pass.

    Memory does not grow with the graph. The edges of a bucket stay in their order.

    Args:
        pbg_input: data/graph/pbg.
        counts: the nodes of each type.
        partitions: K, above 1.
        out: an existing folder for them.

    Returns:
        The folders of the passes.

    Raises:
        UserError: the disk has no room for them.
    """
    for ntu_type, nodes in counts.items():
        for partition in range(partitions):
            own = nodes_in(nodes, partition, partitions)
            (out / f"entity_count_{ntu_type}_{partition}.txt").write_text(f"{own}\n", encoding="utf-8")
    source = pbg_input / "train" / EDGES
    require_space(out, source.stat().st_size, "the edges in buckets")  # HDF5 does not survive a full disk
    folders = [out / f"pass_{number}" for number in range(passes_of(partitions))]
    with h5py.File(source) as edges:
        totals = np.zeros(partitions**2, np.int64)
        for lhs, _, rhs in _blocks(edges):
            totals += np.bincount(_buckets(lhs, rhs, partitions), minlength=len(totals))
        for number, folder in enumerate(folders):
            folder.mkdir()
            for bucket, total in enumerate(totals.tolist()):
                share = share_of(number, bucket, partitions)
                _create(folder / _name(bucket, partitions), size(total, share, len(folders)))
        _fill(folders, edges, partitions)
    return folders


def rows_of(nodes: int, partitions: int) -> list[slice]:
    """Where each partition lies in a table that has one after the other."""
    ends = np.cumsum([0] + [nodes_in(nodes, number, partitions) for number in range(partitions)]).tolist()
    return [slice(*own) for own in pairwise(ends)]


def in_order(table: np.ndarray, partitions: int) -> np.ndarray:
    """A table [N, D] that has one partition after the other, in the order of the node ids."""
    if partitions == 1:
        return table
    return joined((table[own] for own in rows_of(len(table), partitions)), table.shape, partitions)


def joined(parts: Iterable[np.ndarray], shape: tuple[int, ...], partitions: int) -> np.ndarray:
    """float32 [N, D] in the order of the node ids, of the rows of all K partitions."""
    whole = np.empty(shape, np.float32)
    for partition, rows in enumerate(parts):
        whole[nodes_of(len(whole), partition, partitions)] = rows
    return whole


def _name(bucket: int, partitions: int) -> str:
    return f"edges_{bucket // partitions}_{bucket % partitions}.h5"


def _create(path: Path, rows: int) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["format_version"] = FORMAT_VERSION
        for name in COLUMNS:
            file.create_dataset(name, (rows,), np.int64)


def _fill(folders: Sequence[Path], edges: h5py.File, partitions: int) -> None:
    """Deal the edges of each bucket out to the passes, one after the other."""
    seen = [0] * partitions**2
    for lhs, rel, rhs in _blocks(edges):
        buckets = _buckets(lhs, rhs, partitions)
        order = np.argsort(buckets, kind="stable")
        columns = dict(zip(COLUMNS, (lhs[order] // partitions, rel[order], rhs[order] // partitions), strict=True))
        starts = np.searchsorted(buckets[order], np.arange(len(seen) + 1)).tolist()
        for bucket, before in enumerate(seen):
            seen[bucket] += starts[bucket + 1] - starts[bucket]
            for number, folder in enumerate(folders):
                share = share_of(number, bucket, partitions)
                first, last = (size(total, share, len(folders)) for total in (before, seen[bucket]))
                if last == first:
                    continue
                own = slice(starts[bucket] + (share - before) % len(folders), starts[bucket + 1], len(folders))
                with h5py.File(folder / _name(bucket, partitions), "r+") as file:  # more than can be open at once
                    for name, column in columns.items():
                        file[name][first:last] = column[own]


def _blocks(edges: h5py.File) -> Iterator[list[np.ndarray]]:
    """Left nodes, relations and right nodes, int64 [n] each, some edges at a time."""
    for start in range(0, len(edges["rel"]), AT_ONCE):
        yield [np.asarray(edges[name][start : start + AT_ONCE], np.int64) for name in COLUMNS]


def _buckets(lhs: np.ndarray, rhs: np.ndarray, partitions: int) -> np.ndarray:
    return partition_of(lhs, partitions) * partitions + partition_of(rhs, partitions)
