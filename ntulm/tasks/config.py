"""The section `tasks` of params.yaml: one class per kind of task."""

from typing import Annotated, Literal

from pydantic import Field

from ntulm.section import Count, Positive, Section, Share


class MaxPosts(Section):
    train: Positive
    validation: Positive
    test: Positive


class CorpusLabels(Section):
    """A label field that came with the posts: rows of `data/corpus/labels.parquet`."""

    file: Literal["labels.parquet"]
    field: str


class FileLabels(Section):
    """A CSV (.gz too) of post id and labels."""

    file: str
    id_column: str
    label_column: str
    separator: str | None


class Groups(Section):
    """A CSV or TSV that maps a label to a coarser one."""

    file: str
    label_column: str
    group_column: str
    word_columns: list[str]


class TopicTask(Section):
    kind: Literal["topic"]
    path: str
    labels: CorpusLabels | FileLabels
    groups: Groups | None
    split: Literal["corpus", "author", "random"]
    seed: Count
    mask: list[Literal["cashtags", "label_words"]]
    mask_words: list[str]
    max_posts: MaxPosts


class HashtagTask(Section):
    kind: Literal["hashtag"]
    path: str
    classes: Annotated[int, Field(ge=11)]  # Recall@10 of ten classes is always 1
    balanced: bool
    split: Literal["corpus", "author", "random"]
    seed: Count
    remove_target: bool
    max_posts: MaxPosts


class LabelledTask(Section):
    kind: Literal["labelled"]
    path: str
    labels: CorpusLabels | FileLabels
    split: Literal["corpus", "author", "random"]
    seed: Count
    max_posts: MaxPosts


class TableTask(Section):
    """Any labelled table: CSV, JSON lines or Parquet with a text and a label column."""

    kind: Literal["table"]
    path: str
    text_column: str
    label_column: str
    author_column: str | None
    casefold_users: bool
    split_column: str | None
    validation_share: Share
    test_share: Share
    seed: Count
    max_posts: MaxPosts


class TweetEvalTask(Section):
    kind: Literal["tweeteval"]
    path: str
    datasets: Annotated[list[str], Field(min_length=1)]
    seed: Count
    max_posts: MaxPosts


class SocialMediaIETask(Section):
    kind: Literal["socialmediaie"]
    path: str
    seed: Count
    max_posts: MaxPosts


class SemEvalTask(Section):
    kind: Literal["semeval"]
    path: str
    subtasks: Annotated[list[Literal["A", "BD", "CE"]], Field(min_length=1)]
    validation_share: Share
    seed: Count
    max_posts: MaxPosts


Task = Annotated[
    TopicTask | HashtagTask | LabelledTask | TableTask | TweetEvalTask | SemEvalTask | SocialMediaIETask,
    Field(discriminator="kind"),
]

TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]  # it names folders and pipeline stages
