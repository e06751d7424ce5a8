"""Topic task (§4.1): several labels per post; posts of a topic are retrieved by score; metric: mean average precision.

Reads `data/corpus/` and, inside the task's `path`, the labels and the table that groups them. Whatever gives a label
away literally (cashtags, label words) leaves text and NTUs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.tasks.dataset import Dataset, sample
from ntulm.tasks.masking import Mask
from ntulm.tasks.posts import (
    SPLIT_NAMES,
    corpus_posts,
    label_key,
    post_labels,
    require_labelled,
    with_labels,
    with_texts,
)
from ntulm.tasks.records import inside, records

if TYPE_CHECKING:
    from ntulm.tasks.config import Groups, TopicTask


def build(name: str, task: TopicTask, scheme: NtuScheme, layout: Layout) -> dict[str, Dataset]:
    """One multi-label data set, named as the task."""
    path = layout.root / task.path
    labels = post_labels(path, task.labels, layout)
    words = {label for values in labels.values() for label in values} | set(task.mask_words)
    ungrouped = 0
    if task.groups:
        group_of, names = read_groups(path, task.groups)
        words |= names
        grouped = {post: sorted({group_of[v] for v in values if v in group_of}) for post, values in labels.items()}
        ungrouped = sum(not values for values in grouped.values())
        labels = {post: values for post, values in grouped.items() if values}
    posts = corpus_posts(task.split, task.seed, layout)
    kept = require_labelled(posts, labels, path)
    classes = sorted({label for post_id in kept["post_id"].to_pylist() for label in labels[post_id]})
    mask = Mask("cashtags" in task.mask, words if "label_words" in task.mask else ())
    usable = _usable(kept, mask if task.mask else None)
    labelled = with_labels(scheme, usable, _indices(usable["post_id"].to_pylist(), labels, classes))
    dropped = {
        "posts without a label": len(posts) - len(kept),
        "labels without a group": ungrouped,
        "empty text": len(kept) - len(usable),
    }
    chosen = mask.ntus(sample(labelled, task.max_posts, task.seed), scheme)
    return {name: Dataset(f"Topic{SPLIT_NAMES[task.split]}", "multi", classes, ["map"], chosen, dropped)}


def read_groups(path: Path, groups: Groups) -> tuple[dict[str, str], set[str]]:
    """Each label's group, and every word of the table that names a label or a group."""
    group_of: dict[str, str] = {}
    words: set[str] = set()
    for where, row in records(
        inside(path, groups.file), [groups.label_column, groups.group_column, *groups.word_columns]
    ):
        label, group = label_key(row[groups.label_column]), row[groups.group_column].strip()
        if not label or not group:
            raise UserError(f"{where}: empty {groups.label_column} or {groups.group_column}")
        if group_of.setdefault(label, group) != group:
            raise UserError(f"{where}: {label!r} is in two groups, {group_of[label]!r} and {group!r}")
        words |= {label, group, *(row[column].strip() for column in groups.word_columns)}
    return group_of, words


def _usable(posts: pa.Table, mask: Mask | None) -> pa.Table:
    """The posts with masked texts, those of which nothing is left aside."""
    texts = posts["text"].to_pylist()
    if mask is not None:
        texts = [mask.text(text) for text in texts]
    return with_texts(posts, texts).filter(pa.array([bool(text) for text in texts], pa.bool_()))


def _indices(post_ids: list[str], labels: dict[str, list[str]], classes: list[str]) -> list[list[int]]:
    index = {label: place for place, label in enumerate(classes)}
    return [sorted(index[label] for label in labels[post_id]) for post_id in post_ids]
