"""The posts that an exported model is measured on: labelled ones, a data set of the pipeline, or any POSTS."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ntulm.errors import UserError
from ntulm.files import read_json
from ntulm.inference.model import Model
from ntulm.inference.rows import STDIN
from ntulm.posts import Posts
from ntulm.use.labels import read_labels
from ntulm.use.posts import check_source, read_incoming

MOST = 2000  # posts, the first ones
DATASETS = "datasets.json"  # beside the data sets of a task


@dataclass(frozen=True)
class LabelledSample:
    """N posts, and where they have labels of a task of the model: bool [N, C], in the order of its classes."""

    posts: Posts
    task: str | None = None  # as `Model.tasks` has it
    labels: NDArray[np.bool_] | None = None


def sample_of(source: str, task: str | None, model: Model) -> LabelledSample:
    """The first posts of `source`.

    Args:
        source: POSTS; where `task` is given, a table with a column of labels; or data/tasks/TASK/DATASET.parquet, of
            which the test posts count.
        task: whose labels `source` has; None: it has none, or is a data set of the pipeline.
        model: whose classes they are.

    Raises:
        UserError: no such posts, or labels that are no classes of the task.
    """
    check_source(source)
    path = Path(source)
    if source != STDIN and (path.parent / DATASETS).is_file() and path.suffix == ".parquet":
        return of_dataset(path, model)
    if task is not None:
        return of_labels(path, task, model)
    parts = [part.posts for part in islice(read_incoming(source, model.settings), MOST)]
    posts = Posts(pa.concat_tables([part.table for part in parts]).slice(0, MOST))
    if not len(posts):
        raise UserError(f"{source}: no posts to measure on")
    return LabelledSample(posts)


def of_dataset(path: Path, model: Model) -> LabelledSample:
    """The test posts of a data set that the stage `tasks` wrote."""
    name = f"{path.parent.name}.{path.stem}"
    task = dict(zip(model.classifiers, model.tasks, strict=True)).get(name)
    if task is None:
        raise UserError(f"{path}: the model has no classifier of it; it has {', '.join(model.classifiers) or 'none'}")
    classes = read_json(path.parent / DATASETS)[path.stem]["classes"]
    if classes != model.classes(task):
        raise UserError(f"{path}: other classes than the model's classifier has; it was trained on another data set")
    table = pq.read_table(path)
    table = table.filter(pc.equal(table["split"], "test")).slice(0, MOST)
    labels = np.zeros((table.num_rows, len(classes)), bool)
    for row, own in enumerate(table["labels"].to_pylist()):
        labels[row, own] = True
    return LabelledSample(Posts(table), task, labels)


def of_labels(path: Path, task: str, model: Model) -> LabelledSample:
    """The rows of a table with a label each."""
    classes = model.classes(task)
    task = dict(zip(model.classifiers, model.tasks, strict=True)).get(task, task)
    labelled = read_labels(path, dict.fromkeys(("text", "author", "label")), model.settings)
    foreign = sorted(set(labelled.labels) - set(classes))
    if foreign:
        raise UserError(f"{path}: label {foreign[0]!r} is no class of {task}; it has {', '.join(classes)}")
    if not labelled.labels:
        raise UserError(f"{path}: no labelled posts to measure on")
    labels = np.array([[name == label for name in classes] for label in labelled.labels[:MOST]])
    return LabelledSample(labelled.posts.take(np.arange(len(labels))), task, labels)
