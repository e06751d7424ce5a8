"""Stage `tasks`: labelled data sets from the corpus or from a benchmark's files, one task at a time.

Reads `data/corpus/` (topic, hashtag, labelled) or the task's `path` (table, tweeteval, semeval, socialmediaie).
Writes `data/tasks/NAME/datasets.json`, `data/tasks/NAME/DATASET.parquet` and `metrics/tasks/NAME.json` (counts).
Command: `ntulm tasks --task NAME`.

One module per kind of task, each with `build(name, task, scheme, layout) -> {data set's name: Dataset}`.
"""

from ntulm.errors import UserError
from ntulm.files import read_json, whole_directory, write_json
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.tasks import hashtag, labelled, semeval, socialmediaie, table, topic, tweeteval
from ntulm.tasks.config import (
    HashtagTask,
    LabelledTask,
    SemEvalTask,
    SocialMediaIETask,
    TableTask,
    Task,
    TopicTask,
    TweetEvalTask,
)
from ntulm.tasks.dataset import Dataset, check, describe, statistics, write_posts
from ntulm.text import Reading


def run(name: str, task: Task, scheme: NtuScheme, layout: Layout) -> None:
    """Build, check and write the data sets of one task (§4.1).

    Raises:
        UserError: a missing or malformed file, a data set with one class, an empty split, a label out of range.
    """
    try:
        datasets = build(name, task, scheme, layout)
        for dataset_name, dataset in datasets.items():
            check(dataset_name, dataset)
    except UserError as error:
        raise UserError(f"tasks.{name}: {error}") from error
    with whole_directory(layout.task(name)) as directory:
        for dataset_name, dataset in datasets.items():
            write_posts(directory / f"{dataset_name}.parquet", dataset.posts)
        write_json(directory / "datasets.json", {key: describe(dataset) for key, dataset in datasets.items()})
    write_json(layout.metrics("tasks", name), {key: statistics(dataset, scheme) for key, dataset in datasets.items()})


def leave_out(name: str, layout: Layout) -> None:
    """Write that a task has no data sets: DVC has a stage for each key of `tasks`, wanted or not."""
    with whole_directory(layout.task(name)) as directory:
        write_json(directory / "datasets.json", {})
    write_json(layout.metrics("tasks", name), {})
    print(f"tasks.{name}: not in run.tasks, so not built")


def build(name: str, task: Task, scheme: NtuScheme, layout: Layout) -> dict[str, Dataset]:
    """The data sets of a task by name; nothing is written."""
    match task:
        case TopicTask():
            return topic.build(name, task, scheme, layout)
        case HashtagTask():
            return hashtag.build(name, task, scheme, layout)
        case LabelledTask():
            return labelled.build(name, task, scheme, layout)
        case _:
            return of_texts(name, task, scheme, Reading(**read_json(layout.reading)), layout)


def of_texts(
    name: str,
    task: TableTask | TweetEvalTask | SemEvalTask | SocialMediaIETask,
    scheme: NtuScheme,
    reading: Reading,
    layout: Layout,
) -> dict[str, Dataset]:
    """Of a benchmark's files, whose texts are read as the corpus reads its own."""
    match task:
        case TableTask():
            return table.build(name, task, scheme, reading, layout)
        case TweetEvalTask():
            return tweeteval.build(name, task, scheme, reading, layout)
        case SemEvalTask():
            return semeval.build(name, task, scheme, reading, layout)
        case SocialMediaIETask():
            return socialmediaie.build(name, task, scheme, reading, layout)
