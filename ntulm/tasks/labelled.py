"""A task of yours on the corpus's posts: one label a post, from the corpus's own labels or a CSV; metric: macro-F1.

Reads `data/corpus/` and, inside the task's `path`, the labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ntulm.tasks.dataset import Dataset, Row, sample
from ntulm.tasks.posts import corpus_posts, post_labels, require_labelled

if TYPE_CHECKING:
    from ntulm.tasks.config import LabelledTask


def build(name: str, task: LabelledTask) -> dict[str, Dataset]:
    """One single-label data set, named as the task; a post with two different labels is left out."""
    labels = post_labels(task.path, task.labels)
    posts = corpus_posts(task.split, task.seed)
    kept = require_labelled(posts, labels, Path(task.path)).to_pylist()
    clear = [post for post in kept if len(labels[post["post_id"]]) == 1 and post["text"].strip()]
    classes = sorted({labels[post["post_id"]][0] for post in clear})
    index = {label: at for at, label in enumerate(classes)}
    rows = [
        Row(
            post["post_id"],
            post["split"],
            post["text"],
            post["author"],
            post["hashtags"],
            [index[labels[post["post_id"]][0]]],
        )
        for post in clear
    ]
    dropped = {"posts without a label": len(posts) - len(kept), "two labels or empty text": len(kept) - len(clear)}
    chosen = sample(rows, task.max_posts, task.seed)
    return {name: Dataset(name, "single", classes, ["macro_f1", "accuracy"], chosen, dropped)}
