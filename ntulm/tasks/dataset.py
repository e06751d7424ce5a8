"""What every benchmark becomes: posts with a split and labels, what they are scored by, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm import pseudonyms
from ntulm.errors import UserError
from ntulm.ntus import NTUS, NtuScheme
from ntulm.posts import Posts
from ntulm.text import Reading, fields_of, readable

if TYPE_CHECKING:
    from ntulm.tasks.config import MaxPosts

SPLITS = ("train", "validation", "test")

SCHEMA = pa.schema(
    {
        "post_id": pa.string(),
        "split": pa.string(),
        "text": pa.string(),
        "author": pa.string(),
        "ntus": NTUS,
        "labels": pa.list_(pa.int32()),  # indices into the data set's classes
    }
)


@dataclass(frozen=True)
class Dataset:
    """`metrics[0]` is the one that the probe's search maximises on validation posts; `dropped` is counts by reason.

    `posts` have the columns of SCHEMA.
    """

    family: str
    kind: Literal["single", "multi"]
    classes: list[str]
    metrics: list[str]
    posts: Posts
    dropped: dict[str, int] = field(default_factory=dict)


def labelled_posts(
    scheme: NtuScheme, fields: dict[str, list[Any]], splits: Sequence[str], labels: Sequence[Sequence[int]]
) -> Posts:
    """N posts with the columns `split` and `labels`, from columns as `Posts.of` takes them."""
    return Posts.of(
        scheme,
        fields,
        split=pa.array(splits, pa.string()),
        labels=pa.array(labels, SCHEMA.field("labels").type),
    )


def posts_of_texts(
    scheme: NtuScheme,
    reading: Reading,
    post_ids: list[str],
    splits: list[str],
    texts: list[str],
    labels: list[int],
    authors: list[str | None] | None = None,
) -> Posts:
    """N posts of a benchmark, which come as raw texts with one label each; their NTUs are what the texts say.

    Args:
        reading: how the corpus writes users and texts: the same post has the same text and NTUs wherever it is read.
    """
    read = [readable(text, reading) for text in texts]
    fields: dict[str, list[Any]] = {"post_id": post_ids, "text": read, "author": authors or [None] * len(texts)}
    if scheme.of_posts:
        fields |= fields_of_texts(read, reading)
    if (hidden := pseudonyms.of(reading)) is not None:
        fields = hidden.fields(fields) | {"post_id": post_ids}  # numbers and ids of the benchmark's own
    return labelled_posts(scheme, fields, splits, [[label] for label in labels])


def fields_of_texts(texts: Sequence[str], reading: Reading) -> dict[str, list[Any]]:
    """The fields of posts that can be read from their texts: the one place where benchmarks' texts are searched."""
    found = [fields_of(text, reading) for text in texts]
    return {
        "hashtags": [one.hashtags for one in found],
        "mentions": [one.mentions for one in found],
        "urls": [one.urls for one in found],
        "cashtags": [one.cashtags for one in found],
    }


def check(name: str, dataset: Dataset) -> None:
    """Refuse a data set from which nothing can be learnt or measured.

    Raises:
        UserError: an empty split, fewer than two classes in all or among the training posts, a label out of range,
            or not exactly one label per post where the kind is `single`.
    """
    if len(dataset.classes) < 2:
        only = f" ({dataset.classes[0]!r})" if dataset.classes else ""
        raise UserError(f"data set {name}: {len(dataset.classes)} class{only}; a task needs at least two")
    post_ids, splits, all_labels = (dataset.posts.table[key].to_pylist() for key in ("post_id", "split", "labels"))
    for split in SPLITS:
        if split not in splits:
            raise UserError(f"data set {name}: no {split} posts; each of {', '.join(SPLITS)} needs some")
    for post_id, labels in zip(post_ids, all_labels, strict=True):
        if not labels or not all(0 <= label < len(dataset.classes) for label in labels):
            last = len(dataset.classes) - 1
            raise UserError(f"data set {name}: post {post_id}: labels {labels}; expected 0 to {last}")
        if dataset.kind == "single" and len(labels) != 1:
            raise UserError(f"data set {name}: post {post_id}: {len(labels)} labels; the kind `single` takes one")
    trained = {label for split, own in zip(splits, all_labels, strict=True) if split == "train" for label in own}
    if len(trained) < 2:
        only = dataset.classes[trained.pop()]
        raise UserError(f"data set {name}: all training posts are of class {only!r}; a task needs at least two")


def describe(dataset: Dataset) -> dict[str, Any]:
    """The data set's entry in `datasets.json`."""
    sizes = Counter(dataset.posts.table["split"].to_pylist())
    return {
        "family": dataset.family,
        "kind": dataset.kind,
        "classes": dataset.classes,
        "metric": dataset.metrics[0],
        "metrics": dataset.metrics,
        "posts": {split: sizes[split] for split in SPLITS},
    }


def statistics(dataset: Dataset, scheme: NtuScheme) -> dict[str, Any]:
    """The data set's entry in the metrics file: sizes, what the posts carry, class balance, what was dropped."""
    splits = {split: _count(of_split(dataset.posts, split), scheme) for split in SPLITS}
    return {"classes": len(dataset.classes), "dropped": dict(sorted(dataset.dropped.items())), **splits}


def of_split(posts: Posts, split: str) -> Posts:
    """The posts of one split, in their order."""
    return Posts(posts.table.filter(pc.equal(posts.table["split"], split)))


def _count(posts: Posts, scheme: NtuScheme) -> dict[str, Any]:
    labels = Counter(label for own in posts.table["labels"].to_pylist() for label in own)
    keys: dict[str, set[str]] = {role: set() for role in scheme.of_posts}
    carriers: Counter[str] = Counter()
    for own in posts.ntus.to_pylist():
        carriers.update({ntu["role"] for ntu in own})
        for ntu in own:
            keys[ntu["role"]].add(ntu["key"])
    return {
        "posts": len(posts),
        "authors": len(set(posts.authors) - {None}),
        "ntus": {role: {"posts": carriers[role], "distinct": len(of_role)} for role, of_role in keys.items()},
        "classes": len(labels),
        "smallest_class": min(labels.values(), default=0),
        "largest_class": max(labels.values(), default=0),
    }


def write_posts(path: Path, posts: Posts) -> None:
    """Write posts as Parquet; their order is the contract for the vectors."""
    pq.write_table(posts.table.select(SCHEMA.names).cast(SCHEMA), path, compression="zstd")


def sample(posts: Posts, max_posts: MaxPosts, seed: int) -> Posts:
    """At most `max_posts` posts of each split, drawn without replacement; splits in order, posts in theirs."""
    splits = np.array(posts.table["split"].to_pylist(), dtype=object)
    rows = [draw(np.flatnonzero(splits == split), getattr(max_posts, split), seed) for split in SPLITS]
    return posts.take(np.concatenate(rows))


def draw(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """At most `count` of the rows int64 [n], drawn without replacement, in their order."""
    if len(rows) <= count:
        return rows
    return rows[np.sort(np.random.default_rng(seed).choice(len(rows), size=count, replace=False))]


def number(seed: int, *keys: str) -> int:
    """A number that looks random and depends on the seed and the keys alone, whatever else is in the data."""
    return int.from_bytes(
        blake2b("\0".join([str(seed), *keys]).encode("utf-8", "replace"), digest_size=8).digest(), "big"
    )


def share(seed: int, *keys: str) -> float:
    """`number` in [0, 1)."""
    return number(seed, *keys) / 2**64
