"""SemEval 2013 to 2016 sentiment, tasks A, BD and CE (§4.1), per year (`SemEval 1`) and together (`SemEval 2`).

Reads the files `twitter-YEAR{train,dev,devtest,test}-{A,BD,CE}.tsv` anywhere under the task's `path`:
A is `id, label, text`, BD and CE are `id, topic, label, text`; further fields are ignored (some carry a date).
CE's labels are five points, -2 to 2, here five classes. No authors: the files have ids only. BD and CE: the topic's
words stand after the text, as in the paper.

Where the files leave a choice:
- A year is tested on its own test part and trained on its own train part; a year without one on that of the latest
  year before it, as the organisers of 2014 did. The paper's 30 training posts for 2014-A are its sarcasm test part;
  parts of other names, like that one, are left out and counted.
- dev and devtest are validation; a year without them gives a seeded share of its train posts.
- Together: all train parts, all validation parts, all test parts. (The paper seems to test on 2017, which is not here.)
- Test posts stay as they are, once each; whatever stands there, by id or by text, leaves validation and train.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.tasks.dataset import SPLITS, Dataset, posts_of_texts, sample, share
from ntulm.tasks.records import lines
from ntulm.text import Reading, without_full_links

if TYPE_CHECKING:
    from ntulm.tasks.config import SemEvalTask

_CLASSES = {"A": ["negative", "neutral", "positive"], "BD": ["negative", "positive"], "CE": ["-2", "-1", "0", "1", "2"]}
# The paper's, then the official one (of A and BD the recall, of CE the error), then plain.
_METRICS = ["macro_f1", "macro_recall", "accuracy"]
_METRICS_OF_POINTS = ["macro_f1", "macro_mae", "macro_recall", "accuracy"]
_FILE = re.compile(r"twitter-(\d{4})([a-z]+)-(A|BD|CE)\.(?:tsv|txt)")
_SPLIT = {"train": "train", "dev": "validation", "devtest": "validation", "test": "test"}
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")


class Tweet(NamedTuple):
    post_id: str
    topic: str
    label: str
    text: str

    @property
    def key(self) -> str:
        """What copies of a tweet share: the words, whatever their case and links."""
        return " ".join(without_full_links(self.text).casefold().split())


Parts = dict[str, list[Tweet]]  # by split


def build(name: str, task: SemEvalTask, scheme: NtuScheme, reading: Reading, layout: Layout) -> dict[str, Dataset]:
    """`YEAR-SUBTASK` for each year with a test part, and `task-SUBTASK`."""
    found: dict[str, Dataset] = {}
    for subtask in task.subtasks:
        years, dropped = read(layout.root / task.path, subtask)
        for year in sorted(year for year in years if years[year]["test"]):
            parts = with_training(years, year, subtask, task)
            found[f"{year}-{subtask}"] = _dataset("SemEval 1", parts, subtask, task, scheme, reading, Counter())
        together = {split: [tweet for year in sorted(years) for tweet in years[year][split]] for split in SPLITS}
        found[f"task-{subtask}"] = _dataset("SemEval 2", together, subtask, task, scheme, reading, dropped)
    return found


def read(root: Path, subtask: str) -> tuple[dict[str, Parts], Counter[str]]:
    """The tweets by year and split, and how many lines were left out, by reason."""
    named = {path: match for path in sorted(root.rglob("twitter-*")) if (match := _FILE.fullmatch(path.name))}
    files = {path: match for path, match in named.items() if match[3] == subtask}
    if not files:
        raise UserError(f"path: {root}: no file like twitter-2016train-{subtask}.tsv in it")
    years: dict[str, Parts] = {}
    dropped: Counter[str] = Counter()
    for path, match in files.items():
        year, part = match[1], match[2]
        tweets = _tweets(path, subtask, dropped)
        if part in _SPLIT:
            years.setdefault(year, {split: [] for split in SPLITS})[_SPLIT[part]] += tweets
        else:
            dropped[f"part {year}{part}"] += len(tweets)
    return years, dropped


def _tweets(path: Path, subtask: str, dropped: Counter[str]) -> list[Tweet]:
    width = 3 if subtask == "A" else 4
    tweets = []
    for number, line in enumerate(lines(path), 1):
        fields = line.split("\t")
        if len(fields) < width:
            expected = "id, label, text" if subtask == "A" else "id, topic, label, text"
            raise UserError(f"{path}:{number}: {len(fields)} fields; expected {expected}, separated by tabs")
        topic = decode(fields[1]) if width > 3 else ""
        tweet = Tweet(fields[0].strip(), topic, fields[width - 2].strip(), decode(fields[width - 1]))
        if tweet.label not in _CLASSES[subtask]:
            dropped[f"label {tweet.label!r}"] += 1
        elif tweet.text in ("", "Not Available"):
            dropped["no text"] += 1
        else:
            tweets.append(tweet)
    return tweets


def decode(raw: str) -> str:
    r"""A field of the files as text: CSV quotes, `\"` and `\u2019` escapes and HTML entities (some twice) resolved."""
    text = raw.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('""', '"')
    text = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text.replace('\\"', '"'))
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # joins pairs, marks single halves
    return " ".join(html.unescape(html.unescape(text)).replace("\0", " ").split())


def with_training(years: dict[str, Parts], year: str, subtask: str, task: SemEvalTask) -> Parts:
    """The year's test posts with what they are trained and validated on."""
    usable = [earlier for earlier in sorted(years) if earlier <= year and years[earlier]["train"]]
    if not usable:
        raise UserError(f"path: {task.path}: {year}-{subtask} has test posts, but no train part of {year} or before")
    return {**years[usable[-1]], "test": years[year]["test"]}


def with_validation(parts: Parts, task: SemEvalTask) -> Parts:
    """The parts, with a seeded share of the train posts as validation if they have none."""
    if parts["validation"]:
        return parts
    drawn = [share(task.seed, tweet.post_id) < task.validation_share for tweet in parts["train"]]
    held_out = [tweet for tweet, out in zip(parts["train"], drawn, strict=True) if out]
    return {
        **parts,
        "train": [t for t, out in zip(parts["train"], drawn, strict=True) if not out],
        "validation": held_out,
    }


def clean(parts: Parts) -> tuple[Parts, int]:
    """No tweet twice, and none in two splits: test keeps it before validation, validation before train."""
    ids: set[str] = set()
    keys: set[str] = set()
    kept: Parts = {}
    for split in ("test", "validation", "train"):
        once = {(tweet.post_id, tweet.topic): tweet for tweet in reversed(parts[split])}  # the first of equal ones
        kept[split] = [t for t in reversed(once.values()) if t.post_id not in ids and (t.key not in keys or not t.key)]
        ids |= {tweet.post_id for tweet in kept[split]}
        keys |= {tweet.key for tweet in kept[split]}
    return kept, sum(map(len, parts.values())) - sum(map(len, kept.values()))


def _dataset(
    family: str,
    parts: Parts,
    subtask: str,
    task: SemEvalTask,
    scheme: NtuScheme,
    reading: Reading,
    dropped: Counter[str],
) -> Dataset:
    kept, doubles = clean(with_validation(parts, task))
    classes = _CLASSES[subtask]
    tweets = [tweet for split in SPLITS for tweet in kept[split]]
    posts = posts_of_texts(
        scheme,
        reading,
        post_ids=[tweet.post_id for tweet in tweets],
        splits=[split for split in SPLITS for _ in kept[split]],
        texts=[tweet.text for tweet in tweets],
        labels=[classes.index(tweet.label) for tweet in tweets],
    )
    # After the NTUs have been read, for the topic is not of the post.
    with_topics = [f"{text} {tweet.topic}".strip() for text, tweet in zip(posts.texts, tweets, strict=True)]
    posts = posts.replace(text=with_topics)
    chosen = sample(posts, task.max_posts, task.seed)
    metrics = _METRICS_OF_POINTS if subtask == "CE" else _METRICS
    return Dataset(family, "single", classes, metrics, chosen, {**dropped, "copies of other posts": doubles})
