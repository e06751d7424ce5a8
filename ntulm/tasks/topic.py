"""Topic task (§4.1): several labels a post; posts of a topic are retrieved by score; metric: mean average precision.

Reads `data/corpus/` and, inside the task's `path`, the labels and the table that groups them. Whatever gives a label
away literally (cashtags, label words) leaves text and hashtags.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ntulm.errors import UserError
from ntulm.tasks.dataset import Dataset, Row, sample
from ntulm.tasks.masking import Mask
from ntulm.tasks.posts import SPLIT_NAMES, corpus_posts, label_key, post_labels, require_labelled
from ntulm.tasks.records import inside, records

if TYPE_CHECKING:
    from ntulm.tasks.config import Groups, TopicTask


def build(name: str, task: TopicTask) -> dict[str, Dataset]:
    """One multi-label data set, named as the task."""
    labels = post_labels(task.path, task.labels)
    words = {label for values in labels.values() for label in values} | set(task.mask_words)
    ungrouped = 0
    if task.groups:
        group_of, names = read_groups(task.path, task.groups)
        words |= names
        grouped = {post: sorted({group_of[v] for v in values if v in group_of}) for post, values in labels.items()}
        ungrouped = sum(not values for values in grouped.values())
        labels = {post: values for post, values in grouped.items() if values}
    posts = corpus_posts(task.split, task.seed)
    kept = require_labelled(posts, labels, Path(task.path))
    mask = Mask("cashtags" in task.mask, words if "label_words" in task.mask else ())
    classes, rows, empty = _rows(kept.to_pylist(), labels, mask, active=bool(task.mask))
    dropped = {
        "posts without a label": len(posts) - len(kept),
        "labels without a group": ungrouped,
        "empty text": empty,
    }
    family = f"Topic{SPLIT_NAMES[task.split]}"
    return {name: Dataset(family, "multi", classes, ["map"], sample(rows, task.max_posts, task.seed), dropped)}


def read_groups(path: str, groups: Groups) -> tuple[dict[str, str], set[str]]:
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


def _rows(
    posts: list[dict], labels: dict[str, list[str]], mask: Mask, active: bool
) -> tuple[list[str], list[Row], int]:
    classes = sorted({label for post in posts for label in labels[post["post_id"]]})
    index = {label: at for at, label in enumerate(classes)}
    rows = []
    for post in posts:
        text = mask.text(post["text"]) if active else post["text"]
        if text:
            own = sorted(index[label] for label in labels[post["post_id"]])
            hashtags = mask.hashtags(post["hashtags"])
            rows.append(Row(post["post_id"], post["split"], text, post["author"], hashtags, own))
    return classes, rows, len(posts) - len(rows)
