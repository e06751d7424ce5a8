"""params.yaml as a whole: the sections of the stages put together, read and checked."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

from ntulm.corpus.config import Corpus
from ntulm.embeddings.config import Embeddings
from ntulm.errors import UserError
from ntulm.evaluate.config import Evaluate
from ntulm.graph.config import Graph
from ntulm.language_model.config import Adapt, Batches, Encode, Pretrain
from ntulm.probe.config import Probe
from ntulm.production.config import Challenge, Check
from ntulm.report.config import Report
from ntulm.section import Count, Positive, Range, Section, Variant
from ntulm.tasks.config import Task, TaskName


class Run(Section):
    variants: Annotated[list[Variant], Field(min_length=1)]
    seeds: Annotated[list[Count], Field(min_length=1)]
    tasks: list[str]


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
