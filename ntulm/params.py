"""params.yaml as a whole: the sections of the stages put together, read and checked."""

from pathlib import Path
from reprlib import Repr
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, model_validator

from ntulm.corpus.config import Corpus
from ntulm.embeddings.config import Embeddings, FoldIn
from ntulm.errors import UserError
from ntulm.evaluate.config import Evaluate
from ntulm.graph.config import Graph
from ntulm.language_model.config import Adapt, Batches, Encode, Pretrain
from ntulm.ntus import READABLE, NtuScheme
from ntulm.probe.config import Probe
from ntulm.production.config import Arrivals, Challenge, Check
from ntulm.report.config import Report
from ntulm.section import Count, Name, Positive, Range, Section
from ntulm.tasks.config import Task, TaskName
from ntulm.text import KEY_FORMS
from ntulm.variants import NAMED, parse_variant
from ntulm.yaml_file import read_yaml

WRITES = "`ntulm configure RECIPE` writes a complete file"
TASKS = "docs/how-to/your-own-posts.md has each kind of task whole"
IN_TASK = 3  # where the keys of a task begin in the place of a mistake: tasks, its name, its kind
SHORTENED = Repr()  # a short list of aliases of aliases is a long text
SHORTENED.maxlist = SHORTENED.maxdict = 12
SHORTENED.maxlevel, SHORTENED.maxlong = 3, 60
SHORTENED.maxstring = SHORTENED.maxother = 300
MOVED = {  # keys of earlier versions, and what they are now
    "graph.relations": "relations with a role on each side, e.g. {authored: {left: author, right: hashtag}}",
    "corpus.table.labels": "corpus.labels",
    "pretrain.slot_layer_norm": "pretrain.slot.layer_norm",
    "pretrain.slot_scale": "pretrain.slot.scale",
    "pretrain.slot_learning_rate_factor": "pretrain.slot.learning_rate_factor",
    "pretrain.slot_weight": "pretrain.slot.weight",
    "pretrain.slot_dropout": "pretrain.slot.dropout",
    "pretrain.hide_masked_hashtags": "pretrain.slot.hide_masked",
    "probe.tfidf_strengths": "probe.baselines and probe.baseline_strengths",
    "challenge.variant": "model.variant",
    "challenge.seed": "model.seed",
}


SYSTEMS = ("ntu", "tfidf", "history")  # systems beside the variants: their scores go by these names


def _kind_of_role(role: Any) -> str:
    """Which of the two classes below a role is of, so that a mistake in it is told once."""
    engaged = "engagement" in role if isinstance(role, dict) else isinstance(role, EngagementRole)
    return "engagement" if engaged else "field"


class FieldRole(Section):
    """NTUs that stand in a field of a post."""

    type: str
    field: Literal[
        "author", "reply_to", "quoted", "mentions", "hashtags", "urls", "places", "cashtags", "community", "text"
    ]

    @property
    def engagement(self) -> None:
        return None


class EngagementRole(Section):
    """Users who engaged with a post; for relations of the graph alone."""

    type: str
    engagement: Literal["favorited", "reposted"]

    @property
    def field(self) -> None:
        return None


def _key_form(name: str) -> str:
    if name not in KEY_FORMS:
        raise ValueError(f"expected one of {', '.join(KEY_FORMS)}")
    return name


class NtuType(Section):
    """How the keys of a type are written (`ntulm/text.py`)."""

    key: Annotated[str, AfterValidator(_key_form)]


class Ntus(Section):
    """The section `ntus`: which non-textual units there are."""

    types: Annotated[dict[Name, NtuType], Field(min_length=1)]
    roles: Annotated[
        dict[
            Name,
            Annotated[
                Annotated[FieldRole, Tag("field")] | Annotated[EngagementRole, Tag("engagement")],
                Discriminator(_kind_of_role),
            ],
        ],
        Field(min_length=1),
    ]

    @model_validator(mode="after")
    def _roles_have_types(self) -> "Ntus":
        for name, role in self.roles.items():
            if role.type not in self.types:
                raise ValueError(f"roles.{name}.type: {role.type!r} is not among types ({', '.join(self.types)})")
            if name in (*NAMED, *SYSTEMS):
                raise ValueError(f"roles.{name}: the name of a variant or system; expected another one")
            form = self.types[role.type].key
            if role.field is not None and role.field not in READABLE.get(form, (role.field,)):
                raise ValueError(
                    f"roles.{name}: keys of the form {form!r} cannot be read from the field {role.field!r}; "
                    f"expected {' or '.join(READABLE[form])}"
                )
            if role.field is None and form not in ("user", "verbatim"):
                raise ValueError(f"roles.{name}: whoever engaged is a user, not a key of the form {form!r}")
        return self

    @property
    def scheme(self) -> NtuScheme:
        """The same without pydantic, for the modules that do without it."""
        return NtuScheme({name: about.key for name, about in self.types.items()}, dict(self.roles))


class Model(Section):
    """The section `model`: which one of the run becomes the model directory."""

    variant: str
    seed: Count


class Run(Section):
    variants: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[Count], Field(min_length=1)]
    tasks: list[str]


class Between(Section):
    between: Range


class OneOf(Section):
    one_of: Annotated[list[int | float | bool | None], Field(min_length=1)]


class Tune(Section):
    variant: str
    task: str
    trials: Positive
    seed: Count
    train_posts: Positive
    validation_posts: Positive
    space: dict[str, Between | OneOf]


class Params(Section):
    """The whole of params.yaml."""

    run: Run
    ntus: Ntus
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
    model: Model
    report: Report
    check: Check
    challenge: Challenge
    arrivals: Arrivals
    fold_in: FoldIn
    tune: Tune

    @model_validator(mode="after")
    def _roles_are_defined(self) -> "Params":
        roles, types = self.ntus.roles, self.ntus.types
        for name, relation in self.graph.relations.items():
            for side in ("left", "right"):
                if getattr(relation, side) not in roles:
                    raise ValueError(
                        f"graph.relations.{name}.{side}: {getattr(relation, side)!r} is not among ntus.roles "
                        f"({', '.join(roles)})"
                    )
            if relation.left == relation.right and roles[relation.left].field == "author":
                raise ValueError(f"graph.relations.{name}: a post has one {relation.left}, so there is no edge")
        related = {roles[role].type for one in self.graph.relations.values() for role in (one.left, one.right)}
        for name in related - self.graph.min_degree.keys():
            raise ValueError(f"graph.min_degree: nothing for the type {name!r}, which a relation uses")
        for name in self.graph.min_degree.keys() - types.keys():
            raise ValueError(f"graph.min_degree: {name!r} is not among ntus.types ({', '.join(types)})")
        for role in self.evaluate.overlap:
            if role not in self.ntus.scheme.of_posts:
                raise ValueError(f"evaluate.overlap: {role!r} is not a role of a post's field in ntus.roles")
        return self

    @model_validator(mode="after")
    def _variants_are_of_roles(self) -> "Params":
        roles = self.ntus.scheme.of_posts
        named = {"run.variants": self.run.variants, "tune.variant": [self.tune.variant]}
        named |= {"model.variant": [self.model.variant], "encode.post_concat": [self.encode.post_concat]}
        for key, names in named.items():
            for name in names:
                try:
                    variant = parse_variant(name, roles)
                except UserError as error:
                    raise ValueError(f"{key}: {error}") from error
                if key in ("tune.variant", "encode.post_concat") and not variant.slots:
                    raise ValueError(f"{key}: {name!r} has no slot")
                if key == "encode.post_concat" and variant.shuffled:
                    raise ValueError(f"{key}: {name!r} has the NTUs of other posts; expected another variant")
        return self

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
    return check_params(read_yaml(path), str(path))


def check_params(values: Any, where: str) -> Params:
    """Turn parsed YAML into `Params`; `where` names its source in the message of the UserError."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        items = [dict(item) for item in error.errors()]
        moved = [f"{_key(item)} is now {MOVED[_key(item)]}" for item in items if _is_moved(item)]
        if moved:
            raise UserError(f"{where}: of an earlier version: {'; '.join(moved)}; {WRITES}") from error
        raise UserError("; ".join(_explained(where, items))) from error


def check_model(params: Params) -> None:
    """Refuse a section `model` whose model is not built, before anything is.

    Raises:
        UserError: names what is built.
    """
    wanted, run = params.model, params.run
    if wanted.variant not in run.variants or wanted.seed not in run.seeds:
        raise UserError(
            f"model: {wanted.variant}, seed {wanted.seed}: not among run.variants ({', '.join(run.variants)}) and "
            f"run.seeds ({', '.join(map(str, run.seeds))}); set model.variant and model.seed to what is run"
        )


def check_challenge(params: Params) -> None:
    """Refuse a section `challenge` that does not fit the pipeline, before anything is built.

    Raises:
        UserError: the model is not built, or the test posts of a task are not the newest ones.
    """
    check_model(params)
    for task in params.challenge.tasks:
        if task not in params.run.tasks:
            raise UserError(f"challenge.tasks: {task!r} is not among run.tasks ({', '.join(params.run.tasks)})")
        split = getattr(params.tasks[task], "split", None)
        if split != "corpus" or params.corpus.splits.by != "time":
            raise UserError(
                f"challenge.tasks: the test posts of {task!r} are not the newest ones; "
                f"expected tasks.{task}.split: corpus and corpus.splits.by: time"
            )


def _key(item: dict[str, Any]) -> str:
    """The dotted key of a mistake; of a task without its kind, which the file has no key for."""
    place = item["loc"]
    place = place[: IN_TASK - 1] + place[IN_TASK:] if place[:1] == ("tasks",) else place
    return ".".join(str(part) for part in place)


def _is_moved(item: dict[str, Any]) -> bool:
    return _key(item) in MOVED and (item["type"] == "extra_forbidden" or isinstance(item["input"], list))


def _explained(where: str, items: list[dict[str, Any]]) -> list[str]:
    """The mistakes, those of one task that lacks keys as one."""
    lacking: dict[str, list[str]] = {}
    others = []
    for item in items:
        if item["type"] == "missing" and item["loc"][0] == "tasks" and len(item["loc"]) > IN_TASK:
            lacking.setdefault(_key({"loc": item["loc"][:2]}), []).append(
                ".".join(str(part) for part in item["loc"][IN_TASK:])
            )
        else:
            others.append(_explain(where, item))
    return [
        *(f"{where}: {task}: {', '.join(keys)} missing; {TASKS}" for task, keys in lacking.items()),
        *others,
    ]


def _explain(where: str, item: dict[str, Any]) -> str:
    key = _key(item)
    if item["type"] == "extra_forbidden":
        return f"{where}: {key}: unknown key"
    if item["type"] == "missing":
        return f"{where}: {key}: missing; {WRITES}"
    got = "" if isinstance(item["input"], dict) else f", got {SHORTENED.repr(item['input'])}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{where}: {key}: {message}{got}" if key else f"{where}: {message}{got}"
