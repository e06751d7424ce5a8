"""Hashtag task (§4.1): which hashtag was taken out of the post? Metric: Recall@10.

Reads `data/corpus/`. The classes are the hashtags most used in training posts, so that nothing later touches the
vocabulary. The target leaves the text and the post's NTUs; the post's other hashtags stay.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ntulm.errors import UserError
from ntulm.tasks.dataset import SPLITS, Dataset, Row, draw, sample
from ntulm.tasks.posts import SPLIT_NAMES, corpus_posts
from ntulm.text import remove

if TYPE_CHECKING:
    from ntulm.tasks.config import HashtagTask


def build(name: str, task: HashtagTask) -> dict[str, Dataset]:
    """One single-label data set, named as the task."""
    posts = corpus_posts(task.split, task.seed).to_pylist()
    classes = top_hashtags(posts, task.classes)
    index = {tag: at for at, tag in enumerate(classes)}
    posts = [post for post in posts if any(tag in index for tag in post["hashtags"])]
    rows = []
    for post, target in zip(posts, targets(posts, classes), strict=True):
        text, hashtags = without(post["text"], post["hashtags"], target, task.remove_target)
        rows.append(Row(post["post_id"], post["split"], text, post["author"], hashtags, [index[target]]))
    usable = [row for row in rows if row.text]
    chosen = balance(usable, classes, task) if task.balanced else sample(usable, task.max_posts, task.seed)
    dropped = {"empty text": len(rows) - len(usable), "beyond the sample": len(usable) - len(chosen)}
    # A control is no part of the mean over honest data sets.
    family = f"Hashtag{SPLIT_NAMES[task.split]}{'' if task.remove_target else ', target left in'}"
    return {name: Dataset(family, "single", classes, ["recall@10", "macro_f1", "accuracy"], chosen, dropped)}


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


def without(text: str, hashtags: list[str], target: str, remove_target: bool) -> tuple[str, list[str]]:
    """The post without its target; with `remove_target` false as it was, which only a leakage test should ask for."""
    if not remove_target:
        return text, hashtags
    return remove(text, target).strip(), [tag for tag in hashtags if tag != target]


def balance(rows: list[Row], classes: list[str], task: HashtagTask) -> list[Row]:
    """The same number of posts for every class (§4.1): exactly so in train; elsewhere a class gives what it has."""
    if task.max_posts.train < len(classes):
        raise UserError(f"max_posts.train: {task.max_posts.train} posts for {len(classes)} classes; give each one")
    at_of = {id(row): at for at, row in enumerate(rows)}
    chosen: list[Row] = []
    for split in SPLITS:
        groups: list[list[Row]] = [[] for _ in classes]
        for row in rows:
            if row.split == split:
                groups[row.labels[0]].append(row)
        quota = fill([len(group) for group in groups], getattr(task.max_posts, split))
        if split == "train":
            rarest = min(range(len(classes)), key=lambda label: len(groups[label]))
            quota = min(quota, len(groups[rarest]))
            if not quota:
                raise UserError(
                    f"classes: {len(classes)} leaves no training post for #{classes[rarest]}; ask for fewer"
                )
        drawn = [row for group in groups for row in draw(group, quota, task.seed)]
        chosen += sorted(drawn, key=lambda row: at_of[id(row)])
    return chosen


def fill(available: list[int], total: int) -> int:
    """The largest number of posts a class such that, taken as far as available, they are at most `total`."""
    quota = 0
    while quota < max(available) and sum(min(quota + 1, size) for size in available) <= total:
        quota += 1
    return quota
