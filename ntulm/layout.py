"""Where each stage writes, under one root; `dvc.yaml` names the same paths (a contract test compares).

Stage S writes its data under `data/S/` and its metrics under `metrics/S…json`; the last stage writes `reports/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The paths of a project.

    Args:
        root: its folder.
        borrowed: what some stages wrote, by the stage's name, where the folder is another project's: see `borrowing`.
    """

    root: Path = Path()
    borrowed: Mapping[str, Path] = field(default_factory=dict, hash=False)

    def borrowing(self, other: Layout, *stages: str) -> Layout:
        """This project, with the data of some stages read from another one: those stages must not run here."""
        return replace(self, borrowed={**self.borrowed, **{stage: other.data(stage) for stage in stages}})

    def data(self, stage: str) -> Path:
        """The folder of all that a stage writes for others."""
        return self.borrowed.get(stage, self.root / "data" / stage)

    @property
    def params(self) -> Path:
        """Every value that changes a result."""
        return self.root / "params.yaml"

    @property
    def corpus(self) -> Path:
        """Of the stage `corpus`; so are the six below."""
        return self.data("corpus")

    @property
    def posts(self) -> Path:
        return self.corpus / "posts.parquet"

    @property
    def engagements(self) -> Path:
        return self.corpus / "engagements.parquet"

    @property
    def labels(self) -> Path:
        return self.corpus / "labels.parquet"

    @property
    def splits(self) -> Path:
        return self.corpus / "splits.parquet"

    @property
    def rejects(self) -> Path:
        return self.corpus / "rejects.parquet"

    @property
    def reading(self) -> Path:
        """How the source writes users, mentions and texts: what a new post has to be read by."""
        return self.corpus / "reading.json"

    @property
    def graph(self) -> Path:
        """Of the stage `graph`; so are the four below."""
        return self.data("graph")

    @property
    def nodes(self) -> Path:
        return self.graph / "nodes.parquet"

    @property
    def edges(self) -> Path:
        return self.graph / "edges.parquet"

    @property
    def node_types(self) -> Path:
        """The key form of each type of NTU."""
        return self.graph / "types.json"

    @property
    def pbg_input(self) -> Path:
        return self.graph / "pbg"

    @property
    def embeddings(self) -> Path:
        """The embedding table."""
        return self.data("embeddings")

    @property
    def adapt(self) -> Path:
        """The adapted backbone."""
        return self.data("adapt")

    def pretrain(self, variant: str, seed: int) -> Path:
        """The language model of one variant and seed."""
        return self.data("pretrain") / variant / str(seed)

    def checkpoint(self, stage: str, variant: str = "", seed: int = 0) -> Path:
        """Where a training stage keeps what it needs to resume after a kill; not an output, removed on success."""
        return self.root / "data/checkpoints" / stage / variant / str(seed)

    def task(self, name: str) -> Path:
        """The data sets of one task: `datasets.json` and one Parquet file per data set."""
        return self.data("tasks") / name

    def vectors(self, variant: str, seed: int, task: str) -> Path:
        """The post vectors of one variant, seed and task: one safetensors file per data set."""
        return self.data("encode") / variant / str(seed) / task

    def scores(self, variant: str, seed: int, task: str) -> Path:
        """Test scores and classifiers of the best probes of one variant, seed and task, per system and data set."""
        return self.data("probe") / variant / str(seed) / task

    @property
    def evaluate(self) -> Path:
        """The tables."""
        return self.data("evaluate")

    @property
    def model(self) -> Path:
        """The model directory: all that is needed to read a new post and answer."""
        return self.data("model")

    @property
    def reports(self) -> Path:
        """Pages and figures for people."""
        return self.root / "reports"

    # Not of stages: written by `ntulm check`, `challenge`, `arrivals`, `drift` and `tune` for whoever decides.
    @property
    def tune(self) -> Path:
        return self.root / "data/tune"

    @property
    def check(self) -> Path:
        return self.root / "data/check"

    @property
    def challenge(self) -> Path:
        return self.root / "data/challenge"

    @property
    def arrivals(self) -> Path:
        """The posts that arrived, as the model in production sees them: vectors and labels."""
        return self.root / "data/arrivals"

    @property
    def drift(self) -> Path:
        return self.root / "data/drift"

    @property
    def monitoring(self) -> Path:
        """An Evidently workspace: what every check and every report found, over time."""
        return self.root / "monitoring"

    def studies(self, task: str) -> Path:
        """The searches of the probes of a task, a journal of Optuna; no output of the stage, like what is around it."""
        return self.monitoring / "studies" / f"{task}.log"

    @property
    def runs(self) -> Path:
        """Of each run that was reported: its headlines, where it came from, and a page that quotes no post."""
        return self.root / "data/runs"

    @property
    def champion(self) -> Layout:
        """What was fetched of the model in production: its corpus and its model directory."""
        return Layout(self.root / "data/champion")

    def version(self, name: str) -> Path:
        """The model directory of a promoted version, once somebody fetched it."""
        return self.root / "data/versions" / name

    def metrics(self, stage: str, *parts: object) -> Path:
        """The metrics file of a stage, or of one instance of it: `metrics/pretrain/author-0.json`."""
        name = "-".join(str(part) for part in parts)
        return self.root / "metrics" / (f"{stage}/{name}.json" if parts else f"{stage}.json")
