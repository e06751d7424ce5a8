"""Any labelled table: CSV, JSON lines or Parquet with a text and a label column; metric: macro-F1.

Reads the file at the task's `path`. Hashtags are taken from the text. Without a split column, the splits are drawn by
text, so that copies of a text cannot stand on both sides.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.tasks.dataset import Dataset, posts_of_texts, sample, share
from ntulm.tasks.records import Record, records
from ntulm.text import Reading, user_key

if TYPE_CHECKING:
    from ntulm.tasks.config import TableTask

_SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
_SPLITS["test"] = "test"


def build(name: str, task: TableTask, scheme: NtuScheme, reading: Reading, layout: Layout) -> dict[str, Dataset]:
    """One single-label data set, named as the task."""
    kept, dropped = labelled_rows(task, layout)
    classes = sorted({label for _, _, label in kept})
    index = {label: at for at, label in enumerate(classes)}
    posts = posts_of_texts(
        scheme,
        reading,
        post_ids=[str(place) for place in range(len(kept))],
        splits=[split_of(record, text, task) for record, text, _ in kept],
        texts=[text for _, text, _ in kept],
        labels=[index[label] for _, _, label in kept],
        authors=[_author(record, task) for record, _, _ in kept],
    )
    chosen = sample(posts, task.max_posts, task.seed)
    return {name: Dataset(name, "single", classes, ["macro_f1", "accuracy"], chosen, dict(dropped))}


def labelled_rows(task: TableTask, layout: Layout) -> tuple[list[tuple[Record, str, str]], Counter[str]]:
    """The rows that have a text and a label, with these two, and how many have not, by reason."""
    asked = (task.text_column, task.label_column, task.author_column, task.split_column)
    columns = list(dict.fromkeys(column for column in asked if column is not None))
    dropped: Counter[str] = Counter()
    kept = []
    for record in records(layout.root / task.path, columns):
        text, label = record.values[task.text_column].strip(), record.values[task.label_column].strip()
        if not text or not label:
            dropped["no text" if not text else "no label"] += 1
        else:
            kept.append((record, text, label))
    return kept, dropped


def _author(record: Record, task: TableTask) -> str | None:
    """The author as the corpus writes it, or no vector would be found."""
    if task.author_column is None:
        return None
    return user_key(record.values[task.author_column], task.casefold_users) or None


def split_of(record: Record, text: str, task: TableTask) -> str:
    """The split of a row: its column says it, or a number drawn from the text."""
    if task.split_column is None:
        drawn = share(task.seed, " ".join(text.casefold().split()))
        if drawn < task.test_share:
            return "test"
        return "validation" if drawn < task.test_share + task.validation_share else "train"
    value = record.values[task.split_column].strip().lower()
    if value not in _SPLITS:
        raise UserError(f"{record.where}: {task.split_column}: {value!r}; expected one of {', '.join(_SPLITS)}")
    return _SPLITS[value]
