"""Hashtag task (§4.1): which hashtag was taken out of the post? Metric: Recall@10.

Reads `data/corpus/`. The classes are the hashtags most used in training posts, so that nothing later touches the
vocabulary. The target leaves the text and the post's NTUs; the post's other hashtags stay.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.posts import Posts
from ntulm.tasks.dataset import SPLITS, Dataset, draw, sample
from ntulm.tasks.posts import SPLIT_NAMES, corpus_posts, with_labels, with_texts
from ntulm.text import remove

if TYPE_CHECKING:
    from ntulm.tasks.config import HashtagTask


def build(name: str, task: HashtagTask, scheme: NtuScheme, layout: Layout) -> dict[str, Dataset]:
    """One single-label data set, named as the task."""
    table = corpus_posts(task.split, task.seed, layout)
    posts = table.select(["split", "hashtags"]).to_pylist()
    classes = top_hashtags(posts, task.classes)
    index = {tag: place for place, tag in enumerate(classes)}
    eligible = np.flatnonzero([any(tag in index for tag in post["hashtags"]) for post in posts])
    table, chosen = table.take(pa.array(eligible)), targets([posts[row] for row in eligible], classes)
    if task.remove_target:
        texts = zip(table["text"].to_pylist(), chosen, strict=True)
        table = with_texts(table, [remove(text, target).strip() for text, target in texts])
    labelled = with_labels(scheme, table, [[index[target]] for target in chosen])
    usable = labelled.take(np.array([bool(text) for text in labelled.texts], bool))
    sampled = balance(usable, classes, task) if task.balanced else sample(usable, task.max_posts, task.seed)
    dropped = {"empty text": len(labelled) - len(usable), "beyond the sample": len(usable) - len(sampled)}
    if task.remove_target:
        sampled = without_targets(sampled, scheme, classes)
    # A control is no part of the mean over honest data sets.
    family = f"Hashtag{SPLIT_NAMES[task.split]}{'' if task.remove_target else ', target left in'}"
    return {name: Dataset(family, "single", classes, ["recall@10", "macro_f1", "accuracy"], sampled, dropped)}


def top_hashtags(posts: list[dict], count: int) -> list[str]:
    """The hashtags in most training posts, most used first; ties in the order of their code points."""
    used = Counter(tag for post in posts if post["split"] == "train" for tag in set(post["hashtags"]))
    if len(used) < count:
        raise UserError(
            f"classes: {count}, but the training posts use only {len(used)} hashtags; ask for fewer classes"
        )
    return sorted(used, key=lambda tag: (-used[tag], tag))[:count]


def targets(posts: list[dict], classes: list[str]) -> list[str]:
    """One class for each post; of several, the one that has fewest posts of the split so far.

    Posts that leave no choice come first. Any fixed preference would empty the classes that stand beside others.
    """
    known = set(classes)
    candidates = [sorted({tag for tag in post["hashtags"] if tag in known}) for post in posts]
    sizes: Counter[tuple[str, str]] = Counter()
    chosen = [""] * len(posts)
    for at in sorted(range(len(posts)), key=lambda at: len(candidates[at])):
        split = posts[at]["split"]
        chosen[at] = min(candidates[at], key=lambda tag: sizes[split, tag])
        sizes[split, chosen[at]] += 1
    return chosen


def without_targets(posts: Posts, scheme: NtuScheme, classes: list[str]) -> Posts:
    """The posts whose NTUs hold the hashtag of their label in no role, whatever field the role comes from."""
    roles = scheme.hashtag_roles
    labels = [classes[own[0]] for own in posts.table["labels"].to_pylist()]
    return posts.replace(
        ntus=[
            [ntu for ntu in own if ntu["role"] not in roles or ntu["key"] != target]
            for own, target in zip(posts.ntus.to_pylist(), labels, strict=True)
        ]
    )


def balance(posts: Posts, classes: list[str], task: HashtagTask) -> Posts:
    """The same number of posts for every class (§4.1): exactly so in train; elsewhere a class gives what it has."""
    if task.max_posts.train < len(classes):
        raise UserError(f"max_posts.train: {task.max_posts.train} posts for {len(classes)} classes; give each one")
    splits = np.array(posts.table["split"].to_pylist(), dtype=object)
    labels = np.array([own[0] for own in posts.table["labels"].to_pylist()], np.int64)
    chosen: list[np.ndarray] = []
    for split in SPLITS:
        groups = [np.flatnonzero((splits == split) & (labels == label)) for label in range(len(classes))]
        quota = fill([len(group) for group in groups], getattr(task.max_posts, split))
        if split == "train":
            rarest = min(range(len(classes)), key=lambda label: len(groups[label]))
            quota = min(quota, len(groups[rarest]))
            if not quota:
                raise UserError(
                    f"classes: {len(classes)} leaves no training post for #{classes[rarest]}; ask for fewer"
                )
        chosen.append(np.sort(np.concatenate([draw(group, quota, task.seed) for group in groups])))
    return posts.take(np.concatenate(chosen))


def fill(available: list[int], total: int) -> int:
    """The largest number of posts per class such that, taken as far as available, they are at most `total`."""
    quota = 0
    while quota < max(available) and sum(min(quota + 1, size) for size in available) <= total:
        quota += 1
    return quota
