"""What every benchmark becomes: rows with a split and labels, what they are scored by, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ntulm.errors import UserError

if TYPE_CHECKING:
    from ntulm.tasks.config import MaxPosts

SPLITS = ("train", "validation", "test")

SCHEMA = pa.schema(
    {
        "post_id": pa.string(),
        "split": pa.string(),
        "text": pa.string(),
        "author": pa.string(),
        "hashtags": pa.list_(pa.string()),
        "labels": pa.list_(pa.int32()),
    }
)


class Row(NamedTuple):
    """One post of a data set; `labels` are indices into the data set's classes."""

    post_id: str
    split: str
    text: str
    author: str | None
    hashtags: list[str]
    labels: list[int]


@dataclass(frozen=True)
class Dataset:
    """`metrics[0]` is the one that the probe's search maximises on validation posts; `dropped` is counts by reason."""

    family: str
    kind: Literal["single", "multi"]
    classes: list[str]
    metrics: list[str]
    rows: list[Row]
    dropped: dict[str, int] = field(default_factory=dict)


def check(name: str, dataset: Dataset) -> None:
    """Refuse a data set from which nothing can be learnt or measured.

    Raises:
        UserError: an empty split, fewer than two classes in all or among the training posts, a label out of range,
            or not exactly one label a post where the kind is `single`.
    """
    if len(dataset.classes) < 2:
        only = f" ({dataset.classes[0]!r})" if dataset.classes else ""
        raise UserError(f"data set {name}: {len(dataset.classes)} class{only}; a task needs at least two")
    for split in SPLITS:
        if not any(row.split == split for row in dataset.rows):
            raise UserError(f"data set {name}: no {split} posts; each of {', '.join(SPLITS)} needs some")
    for row in dataset.rows:
        if not row.labels or not all(0 <= label < len(dataset.classes) for label in row.labels):
            last = len(dataset.classes) - 1
            raise UserError(f"data set {name}: post {row.post_id}: labels {row.labels}; expected 0 to {last}")
        if dataset.kind == "single" and len(row.labels) != 1:
            raise UserError(
                f"data set {name}: post {row.post_id}: {len(row.labels)} labels; the kind `single` takes one"
            )
    trained = {label for row in dataset.rows if row.split == "train" for label in row.labels}
    if len(trained) < 2:
        only = dataset.classes[trained.pop()]
        raise UserError(f"data set {name}: all training posts are of class {only!r}; a task needs at least two")


def describe(dataset: Dataset) -> dict[str, Any]:
    """The data set's entry in `datasets.json`."""
    sizes = Counter(row.split for row in dataset.rows)
    return {
        "family": dataset.family,
        "kind": dataset.kind,
        "classes": dataset.classes,
        "metric": dataset.metrics[0],
        "metrics": dataset.metrics,
        "posts": {split: sizes[split] for split in SPLITS},
    }


def statistics(dataset: Dataset) -> dict[str, Any]:
    """The data set's entry in the metrics file: sizes, what the posts carry, class balance, what was dropped."""
    splits = {split: _count([row for row in dataset.rows if row.split == split]) for split in SPLITS}
    return {"classes": len(dataset.classes), "dropped": dict(sorted(dataset.dropped.items())), **splits}


def _count(rows: Sequence[Row]) -> dict[str, int]:
    labels = Counter(label for row in rows for label in row.labels)
    return {
        "posts": len(rows),
        "authors": len({row.author for row in rows} - {None}),
        "hashtags": len({tag for row in rows for tag in row.hashtags}),
        "posts_with_hashtag": sum(bool(row.hashtags) for row in rows),
        "classes": len(labels),
        "smallest_class": min(labels.values(), default=0),
        "largest_class": max(labels.values(), default=0),
    }


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as Parquet; their order is the contract for the vectors."""
    columns = zip(*rows, strict=True)
    arrays = [pa.array(list(column), type=kind.type) for column, kind in zip(columns, SCHEMA, strict=True)]
    pq.write_table(pa.table(arrays, schema=SCHEMA), path, compression="zstd")


def sample(rows: Iterable[Row], max_posts: MaxPosts, seed: int) -> list[Row]:
    """At most `max_posts` rows of each split, drawn without replacement; splits in order, rows in theirs."""
    kept = []
    by_split: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in rows:
        by_split[row.split].append(row)
    for split, of_split in by_split.items():
        kept += draw(of_split, getattr(max_posts, split), seed)
    return kept


def draw(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """At most `count` rows, drawn without replacement, in their order."""
    if len(rows) <= count:
        return list(rows)
    chosen = np.random.default_rng(seed).choice(len(rows), size=count, replace=False)
    return [rows[index] for index in np.sort(chosen)]


def number(seed: int, *keys: str) -> int:
    """A number that looks random and depends on the seed and the keys alone, whatever else is in the data."""
    return int.from_bytes(
        blake2b("\0".join([str(seed), *keys]).encode("utf-8", "replace"), digest_size=8).digest(), "big"
    )


def share(seed: int, *keys: str) -> float:
    """`number` in [0, 1)."""
    return number(seed, *keys) / 2**64
