"""The stages and their order, read from `dvc.yaml` through DVC. There is no second list of stages."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage import Stage
from ruamel.yaml import YAML

from flows.failure import CommandError

PIPELINE_FILE = "dvc.yaml"


@dataclass(frozen=True)
class Pipeline:
    """Stages by name, matrix spelled out (`pretrain@author-0`), in an order that respects what each reads.

    `pools` has the work pool of each stage that is to run in one; the others run where the flow runs.
    """

    upstream: dict[str, frozenset[str]]
    pools: dict[str, str] = field(default_factory=dict)

    @property
    def stages(self) -> Sequence[str]:
        return tuple(self.upstream)

    def starting_at(self, stage: str) -> "Pipeline":
        """The part that `dvc repro --downstream` would run: the stage, all its instances, and all that follows.

        Raises:
            CommandError: there is no such stage.
        """
        chosen = {name for name in self.upstream if stage in (name, family(name))}
        if not chosen:
            raise CommandError(f"from_stage {stage!r}: unknown; dvc.yaml has {', '.join(self.stages)}")
        for name, needed in self.upstream.items():  # in order, so that what follows comes after what it follows
            if needed & chosen:
                chosen.add(name)
        upstream = {name: needed & chosen for name, needed in self.upstream.items() if name in chosen}
        return Pipeline(upstream, {name: pool for name, pool in self.pools.items() if name in chosen})

    def up_to(self, stage: str) -> "Pipeline":
        """The part that `dvc repro STAGE` would run: the stage and all that it needs."""
        chosen = {stage}
        for name in reversed(self.stages):  # backwards, so that a stage comes before what it needs
            if name in chosen:
                chosen |= self.upstream[name]
        return Pipeline({name: needed for name, needed in self.upstream.items() if name in chosen})


def family(stage: str) -> str:
    """The name in `dvc.yaml` of an instance of a stage: `pretrain` of `pretrain@author-0`."""
    return stage.partition("@")[0]


def read_pipeline(root: Path, by_pool: bool = False) -> Pipeline:
    """Ask DVC for the stages and what each of them needs; by pool, where `meta.pool` in dvc.yaml sends each as well.

    Raises:
        CommandError: DVC does not accept the pipeline or its parameters.
    """
    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph  # an edge leads from a stage to one that it needs
            needs = {stage_name(stage): {stage_name(needed) for needed in graph.successors(stage)} for stage in graph}
            listed = [stage_name(stage) for stage in repo.index.stages]
            pools = {
                stage_name(stage): stage.meta["pool"] for stage in repo.index.stages if "pool" in (stage.meta or {})
            }
    except DvcException as error:
        detail = f"{error}; {error.__cause__}" if error.__cause__ else str(error)
        raise CommandError(f"dvc.yaml: {' '.join(detail.split())}") from error
    return Pipeline(_in_order(needs, listed), pools if by_pool else {})


def has_remote(root: Path) -> bool:
    """Whether results can be handed to another workspace: DVC has a default remote."""
    with Repo(str(root)) as repo:
        return bool(repo.config["core"].get("remote"))


def stage_name(stage: Stage) -> str:
    """What `dvc repro` in the root calls the stage; data tracked by a `.dvc` file is a stage without a name."""
    name: str | None = getattr(stage, "name", None)
    if name is None:
        return stage.path_in_repo
    return name if stage.path_in_repo == PIPELINE_FILE else f"{stage.path_in_repo}:{name}"


def _in_order(needs: dict[str, set[str]], listed: Sequence[str]) -> dict[str, frozenset[str]]:
    """Order the stages so that each comes after what it needs, and otherwise as `dvc.yaml` lists them."""
    ordered: dict[str, frozenset[str]] = {}
    while len(ordered) < len(needs):
        name = next(name for name in listed if name not in ordered and needs[name] <= ordered.keys())
        ordered[name] = frozenset(needs[name])
    return ordered


def stage_families(root: Path) -> list[str]:
    """The names of the stages as `dvc.yaml` writes them, for the choices of a form."""
    return list(YAML(typ="safe", pure=True).load(root / PIPELINE_FILE)["stages"])
