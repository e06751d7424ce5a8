"""A task of yours on the corpus's posts: one label per post, from the corpus's own labels or a CSV; metric: macro-F1.

Reads `data/corpus/` and, inside the task's `path`, the labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.tasks.dataset import Dataset, sample
from ntulm.tasks.posts import corpus_posts, post_labels, require_labelled, with_labels

if TYPE_CHECKING:
    from ntulm.tasks.config import LabelledTask


def build(name: str, task: LabelledTask, scheme: NtuScheme, layout: Layout) -> dict[str, Dataset]:
    """One single-label data set, named as the task; a post with two different labels is left out."""
    path = layout.root / task.path
    labels = post_labels(path, task.labels, layout)
    posts = corpus_posts(task.split, task.seed, layout)
    kept = require_labelled(posts, labels, path)
    pairs = zip(kept["post_id"].to_pylist(), kept["text"].to_pylist(), strict=True)
    clear = kept.take(pa.array(np.flatnonzero([len(labels[key]) == 1 and bool(text.strip()) for key, text in pairs])))
    own = [labels[key][0] for key in clear["post_id"].to_pylist()]
    classes = sorted(set(own))
    index = {label: place for place, label in enumerate(classes)}
    labelled = with_labels(scheme, clear, [[index[label]] for label in own])
    dropped = {"posts without a label": len(posts) - len(kept), "two labels or empty text": len(kept) - len(clear)}
    chosen = sample(labelled, task.max_posts, task.seed)
    return {name: Dataset(name, "single", classes, ["macro_f1", "accuracy"], chosen, dropped)}
