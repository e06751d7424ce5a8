"""What is wrong with the tasks, told before anything is trained: `ntulm params`, and the start of the stage corpus.

Reads the files that the tasks name, and of the corpus, where it is there, its labels and hashtags. Each message names
the key to change. What only the corpus can tell of posts is left to the stage `tasks`, which runs right after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.tasks import stage
from ntulm.tasks.config import (
    CorpusLabels,
    FileLabels,
    Groups,
    HashtagTask,
    LabelledTask,
    SemEvalTask,
    SocialMediaIETask,
    TableTask,
    Task,
    TopicTask,
    TweetEvalTask,
)
from ntulm.tasks.dataset import SPLITS
from ntulm.tasks.dataset import check as check_dataset
from ntulm.tasks.hashtag import top_hashtags
from ntulm.tasks.posts import corpus_posts, post_labels
from ntulm.tasks.records import columns, inside
from ntulm.tasks.table import labelled_rows, split_of
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.params import Params

# Stands in for that of the corpus, which need not be there yet: it changes texts and NTUs, not what is checked.
READING = Reading(casefold_users=True, mention_hosts=False, html=False, mentions_in_text=True)
NO_NTUS = NtuScheme({}, {})  # looking for them takes long, and nothing here depends on them
# A column with more different values than this, and than this share of its rows, is none of labels.
MANY_VALUES, MOST_VALUES = 20, 0.5


class _Labelled(Protocol):
    @property
    def path(self) -> str: ...
    @property
    def labels(self) -> CorpusLabels | FileLabels: ...


def check_tasks(params: Params, layout: Layout) -> None:
    """Open the files of the tasks that are run.

    Raises:
        UserError: names each task from which nothing could be learnt, and the key to change.
    """
    kept = None if params.corpus.table is None else params.corpus.labels
    problems = []
    for name, task in _wanted(params):
        try:
            check_task(name, task, kept, layout)
        except UserError as error:
            problems.append(f"tasks.{name}: {error}")
    if problems:
        raise UserError("; ".join(problems))


def _wanted(params: Params) -> list[tuple[str, Task]]:
    return [(name, params.tasks[name]) for name in params.run.tasks]


def check_task(name: str, task: Task, kept: list[str] | None, layout: Layout) -> None:
    """One task.

    Args:
        name: of it.
        task: its settings.
        kept: the label columns of the corpus's table (`corpus.labels`); None where it is none.
        layout: of the project.

    Raises:
        UserError: the message begins with the key.
    """
    match task:
        case TableTask():
            _check_table(task, layout)
        case HashtagTask():
            if task.balanced and task.max_posts.train < task.classes:
                raise UserError(
                    f"max_posts.train: {task.max_posts.train} posts for {task.classes} classes; give each class one, "
                    "or lower classes"
                )
        case TopicTask() | LabelledTask():
            _check_labels(task, kept, layout)
            if isinstance(task, TopicTask) and task.groups is not None:
                _check_groups(task, task.groups, layout)
        case TweetEvalTask() | SemEvalTask() | SocialMediaIETask():
            if not (layout.root / task.path).exists():
                raise UserError(f"path: {layout.root / task.path}: not found")
            for dataset_name, dataset in stage.of_texts(name, task, NO_NTUS, READING, layout).items():
                check_dataset(dataset_name, dataset)


def _check_table(task: TableTask, layout: Layout) -> None:
    path = layout.root / task.path
    if not path.is_file():
        raise UserError(f"path: {path}: " + ("a folder; expected one file" if path.exists() else "not found"))
    named = ("text_column", "label_column", "author_column", "split_column")
    _require_columns({key: getattr(task, key) for key in named}, columns(path), str(path))
    rows, _ = labelled_rows(task, layout)
    _check_classes("label_column", task.label_column, [label for _, _, label in rows], str(path))
    splits = Counter(split_of(record, text, task) for record, text, _ in rows)
    for split in SPLITS:
        if not splits[split]:
            key = "split_column" if task.split_column is not None else "validation_share and test_share"
            parts = ", ".join(f"{splits[part]} {part}" for part in SPLITS)
            raise UserError(f"{key}: no {split} posts in {path} ({parts}); each of {', '.join(SPLITS)} needs some")
    trained = {label for record, text, label in rows if split_of(record, text, task) == "train"}
    if len(trained) < 2:
        raise UserError(
            f"label_column: all training posts of {path} are of class {trained.pop()!r}; expected two or more"
        )


def _require_columns(named: Mapping[str, str | None], present: Sequence[str], file: str) -> None:
    for key, column in named.items():
        if column is not None and column not in present:
            raise UserError(f"{key}: {column!r} is no column of {file}; it has {', '.join(present)}")


def _check_classes(key: str, column: str, labels: Sequence[str], file: str) -> None:
    classes = set(labels)
    if len(classes) < 2:
        only = f" ({next(iter(classes))!r})" if classes else ""
        raise UserError(f"{key}: {column!r} has {len(classes)} class{only} in {file}; a task needs at least two")
    if len(classes) > max(MANY_VALUES, MOST_VALUES * len(labels)):
        raise UserError(
            f"{key}: {column!r} has {len(classes):,} different values in {len(labels):,} rows of {file}; "
            "is it a column of labels?"
        )


def _check_labels(task: _Labelled, kept: list[str] | None, layout: Layout) -> None:
    path, labels = layout.root / task.path, task.labels
    if isinstance(labels, CorpusLabels):
        if path.resolve() != layout.corpus.resolve() and not path.exists():
            raise UserError(f"path: {path}: not found; labels that came with the posts are in data/corpus")
        if path.resolve() == layout.corpus.resolve() and kept is not None and labels.field not in kept:
            given = ", ".join(kept) or "none"
            raise UserError(f"labels.field: {labels.field!r} is not among corpus.labels ({given}); add it there")
        return
    file = inside(path, labels.file)
    if not file.is_file():
        raise UserError(f"labels.file: {file}: not found")
    named = {"labels.id_column": labels.id_column, "labels.label_column": labels.label_column}
    _require_columns(named, columns(file), str(file))
    values = [label for own in post_labels(path, labels, layout).values() for label in own]
    _check_classes("labels.label_column", labels.label_column, values, str(file))


def _check_groups(task: TopicTask, groups: Groups, layout: Layout) -> None:
    file = inside(layout.root / task.path, groups.file)
    if not file.is_file():
        raise UserError(f"groups.file: {file}: not found")
    named = {
        "groups.label_column": groups.label_column,
        "groups.group_column": groups.group_column,
    }
    words = {f"groups.word_columns.{place}": column for place, column in enumerate(groups.word_columns)}
    _require_columns(named | words, columns(file), str(file))


def corpus_notes(params: Params, layout: Layout) -> list[str]:
    """What the corpus as it is now would be too small for, where there is one; the next one may not be."""
    if not layout.posts.is_file() or not layout.splits.is_file():
        return []
    notes = []
    for name, task in _wanted(params):
        try:
            if isinstance(task, HashtagTask):
                posts = corpus_posts(task.split, task.seed, layout)
                top_hashtags(posts.select(["split", "hashtags"]).to_pylist(), task.classes)
            elif isinstance(task, TopicTask | LabelledTask) and isinstance(task.labels, CorpusLabels):
                post_labels(layout.root / task.path, task.labels, layout)
        except UserError as error:
            notes.append(f"tasks.{name}: {error}")
    return notes
