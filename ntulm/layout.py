"""Where each stage writes, relative to the project root; `dvc.yaml` names the same paths (a contract test compares).

Stage S writes its data under `data/S/` and its metrics under `metrics/S…json`; the last stage writes `reports/`.
"""

from pathlib import Path

PARAMS = Path("params.yaml")

CORPUS = Path("data/corpus")
POSTS = CORPUS / "posts.parquet"
ENGAGEMENTS = CORPUS / "engagements.parquet"
LABELS = CORPUS / "labels.parquet"
SPLITS = CORPUS / "splits.parquet"
REJECTS = CORPUS / "rejects.parquet"

GRAPH = Path("data/graph")
NODES = GRAPH / "nodes.parquet"
EDGES = GRAPH / "edges.parquet"
PBG_INPUT = GRAPH / "pbg"

EMBEDDINGS = Path("data/embeddings")
ADAPT = Path("data/adapt")
EVALUATE = Path("data/evaluate")
REPORTS = Path("reports")

# Not of stages: written by `ntulm check`, `ntulm challenge` and `ntulm tune` for whoever decides.
TUNE = Path("data/tune")
CHECK = Path("data/check")
CHALLENGE = Path("data/challenge")
MONITORING = Path("monitoring")  # an Evidently workspace: what every check and every report found, over time


def pretrain(variant: str, seed: int) -> Path:
    """The model directory of one variant and seed."""
    return Path(f"data/pretrain/{variant}/{seed}")


def checkpoint(stage: str, variant: str = "", seed: int = 0) -> Path:
    """Where a training stage keeps what it needs to resume after a kill; not an output, removed on success."""
    return Path("data/checkpoints") / stage / variant / str(seed)


def task(name: str) -> Path:
    """The data sets of one task: `datasets.json` and one Parquet file a data set."""
    return Path(f"data/tasks/{name}")


def vectors(variant: str, seed: int, name: str) -> Path:
    """The post vectors of one variant, seed and task: one safetensors file a data set."""
    return Path(f"data/encode/{variant}/{seed}/{name}")


def scores(variant: str, seed: int, name: str) -> Path:
    """The test scores of the best probes of one variant, seed and task: one safetensors file a system and data set."""
    return Path(f"data/probe/{variant}/{seed}/{name}")


def metrics(stage: str, *parts: object) -> Path:
    """The metrics file of a stage, or of one instance of it: `metrics/pretrain/author-0.json`."""
    return (
        Path("metrics", stage, "-".join(str(part) for part in parts) + ".json")
        if parts
        else Path("metrics", stage + ".json")
    )
