"""params.yaml as frozen, typed sections, one class a section. Unknown keys, wrong types and missing keys are errors.

No class carries a default: a default here would be invisible to DVC. What a key means stands as a comment
beside it in `ntulm/recipes/*.yaml`.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

from ntulm.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


def _date_as_text(value: Any) -> Any:
    """YAML makes a date of 2016-10-01 without quotes."""
    return value.isoformat() if type(value) is date else value


Cut = Annotated[
    Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}:\d{2}Z)?$")] | Share, BeforeValidator(_date_as_text)
]
Variant = Literal["text", "author", "hashtag", "author+hashtag", "shuffled", "words", "unadapted"]


class Section(BaseModel):
    """A part of params.yaml: frozen, strict, without defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Run(Section):
    variants: Annotated[list[Variant], Field(min_length=1)]
    seeds: Annotated[list[Count], Field(min_length=1)]
    tasks: list[str]


class TableMapping(Section):
    """Which column of a table is what; null where the table has none."""

    post_id: str | None
    created_at: str
    time_format: str | None
    text: str
    author: str
    lang: str | None
    repost_flag: str | None
    reposted_id: str | None
    reposted_author: str | None
    favorited_by: str | None
    hashtags: str | None
    mentions: str | None
    html: bool
    casefold_users: bool
    mention_hosts: bool
    labels: list[str]


class Splits(Section):
    by: Literal["time", "author", "random"]
    seed: Count
    graph_from: Cut
    graph_until: Cut
    train_from: Cut
    validation_from: Cut
    test_from: Cut


class Corpus(Section):
    path: str
    format: Literal["auto", "twitter_v1", "table", "synthetic"]
    table: TableMapping | None
    languages: list[str]
    duplicates: Literal["id", "text"]
    max_reject_share: Share
    splits: Splits


class MinDegree(Section):
    user: Positive
    hashtag: Positive


class Graph(Section):
    relations: Annotated[list[Literal["authored", "favorited", "reposted", "co_mentioned"]], Field(min_length=1)]
    min_degree: MinDegree
    max_count: Positive
    held_out_share: Annotated[float, Field(ge=0, lt=0.5)]
    seed: Count
    memory_limit: Annotated[str, Field(pattern=r"^\d+(\.\d+)?(MB|GB)$")]


class Embeddings(Section):
    engine: Literal["pbg", "torch"]
    dimension: Positive
    epochs: Positive
    learning_rate: Rate
    batch_size: Positive
    batch_negatives: Positive
    uniform_negatives: Positive
    partitions: Positive
    workers: Positive
    ranked_edges: Positive
    seed: Count

    @model_validator(mode="after")
    def _batches_are_whole(self) -> "Embeddings":
        if self.batch_size % self.batch_negatives:
            raise ValueError(f"batch_size must be a multiple of batch_negatives ({self.batch_negatives})")
        if self.engine == "pbg" and self.partitions > 1:
            raise ValueError("partitions must be 1 with the engine pbg; `engine: torch` has them")
        return self


class Batches(Section):
    max_length: Annotated[int, Field(ge=4)]
    mask_urls: bool
    mask_mentions: bool


class Training(Section):
    """What the two fine-tuning stages share."""

    max_posts: Count
    max_validation_posts: Positive
    epochs: Positive
    patience: Positive
    evaluations_per_epoch: Positive
    batch_size: Positive
    learning_rate: Rate
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_share: Share
    mask_share: Annotated[float, Field(gt=0, lt=1)]


class Adapt(Training):
    backbone: str
    seed: Count


class Pretrain(Training):
    max_test_posts: Positive
    slot_layer_norm: bool
    slot_scale: Rate
    slot_learning_rate_factor: Rate
    slot_weight: Annotated[float, Field(ge=0, lt=1)] | None
    slot_dropout: Annotated[float, Field(ge=0, lt=1)]
    hide_masked_hashtags: bool


class Encode(Section):
    batch_size: Positive
    dtype: Literal["float16", "float32"]
    hidden_share: Annotated[float, Field(ge=0, lt=1)]


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
    subtasks: Annotated[list[Literal["A", "BD"]], Field(min_length=1)]
    validation_share: Share
    seed: Count
    max_posts: MaxPosts


Task = Annotated[
    TopicTask | HashtagTask | LabelledTask | TableTask | TweetEvalTask | SemEvalTask | SocialMediaIETask,
    Field(discriminator="kind"),
]


TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$")]  # it names folders and pipeline stages


class FixedProbe(Section):
    epochs: Positive
    learning_rate: Rate
    weight_decay: Annotated[float, Field(ge=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    batch_size: Positive


def _ordered(ends: list[float]) -> list[float]:
    if ends[0] > ends[1]:
        raise ValueError(f"the low end {ends[0]} is above the high end {ends[1]}")
    return ends


Range = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_ordered)]
RateRange = Annotated[list[Rate], Field(min_length=2, max_length=2), AfterValidator(_ordered)]  # drawn in log space
DropoutRange = Annotated[
    list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2), AfterValidator(_ordered)
]


class Probe(Section):
    search: bool
    trials: Positive
    trials_at_once: Positive
    startup_trials: Positive
    warmup_epochs: Count
    max_epochs: Positive
    patience: Positive
    averaged_epochs: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    learning_rate: RateRange
    weight_decay: RateRange
    dropout: DropoutRange
    batch_size: Annotated[list[Positive], Field(min_length=1)]
    fixed: FixedProbe
    tfidf_strengths: list[Rate]


class Evaluate(Section):
    resamples: Annotated[int, Field(ge=100)]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    seed: Count
    min_posts: Positive


class Report(Section):
    min_coverage: Share


class Check(Section):
    min_posts: Positive
    min_rate: Share
    max_reject_share: Share
    min_known_share: Share
    min_hashtag_ratio: Share
    max_length_drift: Rate
    max_language_drift: Rate
    common_words: Positive


class Challenge(Section):
    variant: Variant
    seed: Count
    tasks: Annotated[list[str], Field(min_length=1)]
    max_loss: Annotated[float, Field(ge=0)]


class Between(Section):
    between: Range


class OneOf(Section):
    one_of: Annotated[list[int | float | bool | None], Field(min_length=1)]


class Tune(Section):
    variant: Literal["author", "hashtag", "author+hashtag", "shuffled"]
    task: str
    trials: Positive
    seed: Count
    train_posts: Positive
    validation_posts: Positive
    space: dict[str, Between | OneOf]


class Params(Section):
    """The whole of params.yaml."""

    run: Run
    corpus: Corpus
    graph: Graph
    embeddings: Embeddings
    batches: Batches
    adapt: Adapt
    pretrain: Pretrain
    encode: Encode
    tasks: dict[TaskName, Task]
    probe: Probe
    evaluate: Evaluate
    report: Report
    check: Check
    challenge: Challenge
    tune: Tune

    @model_validator(mode="after")
    def _tasks_are_defined(self) -> "Params":
        named = {"run.tasks": self.run.tasks, "challenge.tasks": self.challenge.tasks, "tune.task": [self.tune.task]}
        for key, names in named.items():
            for name in names:
                if name not in self.tasks:
                    raise ValueError(f"{key} names {name!r}, which the section `tasks` does not define")
        return self


def load_params(path: Path) -> Params:
    """Read and check a parameter file.

    Raises:
        UserError: the file is missing or not YAML, or a key is unknown, missing or of the wrong type or value.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; run in the project's root, or write it with `ntulm configure RECIPE`")
    try:
        values = YAML(typ="safe", pure=True).load(path)
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    return check_params(values, str(path))


def check_params(values: Any, where: str) -> Params:
    """Turn parsed YAML into `Params`; `where` names its source in the message of the UserError."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(_explain(where, dict(item)) for item in error.errors())) from error


def check_challenge(params: Params) -> None:
    """Refuse a section `challenge` that does not fit the pipeline, before anything is built.

    Raises:
        UserError: its model is not built, or the test posts of a task are not the newest ones.
    """
    wanted, run = params.challenge, params.run
    if wanted.variant not in run.variants or wanted.seed not in run.seeds:
        raise UserError(f"challenge: {wanted.variant}, seed {wanted.seed}: not among run.variants and run.seeds")
    for task in wanted.tasks:
        if task not in run.tasks:
            raise UserError(f"challenge.tasks: {task!r} is not among run.tasks ({', '.join(run.tasks)})")
        split = getattr(params.tasks[task], "split", None)
        if split != "corpus" or params.corpus.splits.by != "time":
            raise UserError(
                f"challenge.tasks: the test posts of {task!r} are not the newest ones; "
                f"expected tasks.{task}.split: corpus and corpus.splits.by: time"
            )


def _explain(where: str, item: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where}: {key}: unknown key"
    if item["type"] == "missing":
        return f"{where}: {key}: missing; `ntulm configure RECIPE` writes a complete file"
    got = "" if isinstance(item["input"], dict) else f", got {item['input']!r}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {key}: {message}{got}" if key else f"{where}: {message}{got}"
