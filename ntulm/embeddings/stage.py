"""Stage `embeddings`: one vector per user and hashtag from the graph (§3.1, App. B), and how well they predict links.

Reads data/graph/{nodes,edges}.parquet and data/graph/pbg/.
Writes data/embeddings/table.safetensors (table.py), data/embeddings/relations.safetensors (`vectors` float32 [R, D],
the relations' names in its metadata) and metrics/embeddings.json.
Command: `ntulm embeddings`, or `dvc repro embeddings`.

The engine is PyTorch-BigGraph (pbg.py) or our own (torch_training.py): the same objective and parameters.
Training starts clean, always: an unfinished attempt is thrown away, never resumed, so that one worker of PBG, and the
engine `torch` on one CPU, give the same bytes for the same input and settings.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors.numpy import save

from ntulm import files, layout
from ntulm.embeddings import pbg
from ntulm.embeddings.link_prediction import Edges, Model, link_prediction
from ntulm.embeddings.table import write_table
from ntulm.errors import UserError

if TYPE_CHECKING:
    from ntulm.embeddings.config import Embeddings


def run(config: Embeddings) -> None:
    """Train, write the table and measure held-out edges.

    Raises:
        UserError: the graph is missing, or training diverged.
    """
    for path in (layout.NODES, layout.EDGES):
        if not path.is_file():
            raise UserError(f"{path}: not found; run `dvc repro graph` first, which writes it")
    names = files.read_json(layout.PBG_INPUT / "relations.json")
    with files.whole_directory(layout.EMBEDDINGS) as out:
        model, losses = _train(config, out)
        nodes = pq.read_table(layout.NODES, columns=["type", "key"])
        # Nodes are ordered by type, and `hashtag` sorts before `user`.
        write_table(out, nodes["type"], nodes["key"], np.concatenate([model.hashtags, model.users]))
        (out / "relations.safetensors").write_bytes(save({"vectors": model.relations}, {"names": json.dumps(names)}))
        edges, held_out = read_edges(layout.EDGES, names, len(model.hashtags))
        asked = sample(np.flatnonzero(held_out), config.ranked_edges, config.seed)
        figures = link_prediction(model, edges, held_out, asked, names)
    files.write_json(layout.metrics("embeddings"), summarise(figures, config, model, losses))


def read_edges(path: Path, names: list[str], hashtags: int) -> tuple[Edges, np.ndarray]:
    """All E edges of edges.parquet, nodes counted within their type, and which are held out, bool [E]."""
    table = pq.read_table(path, columns=["lhs", "rel", "rhs", "held_out"])
    rel = pc.index_in(table["rel"], pa.array(names)).to_numpy().astype(np.int64)
    return Edges(table["lhs"].to_numpy() - hashtags, rel, table["rhs"].to_numpy()), table["held_out"].to_numpy()


def sample(places: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` of the places, in order, the same for the same seed."""
    if len(places) <= most:
        return places
    return np.sort(np.random.default_rng(seed).choice(places, most, replace=False))


def summarise(figures: dict[str, Any], config: Embeddings, model: Model, losses: list[float]) -> dict[str, Any]:
    """The metrics of the stage: the link prediction figures, the size of the table, and the loss of every epoch."""
    return {
        **figures,
        "nodes": {"user": len(model.users), "hashtag": len(model.hashtags)},
        "dimension": config.dimension,
        "final_loss": losses[-1],
        "history": [{"epoch": epoch, "loss": loss} for epoch, loss in enumerate(losses, 1)],
    }


def _train(config: Embeddings, out: Path) -> tuple[Model, list[float]]:
    def report(epoch: int, loss: float) -> None:
        print(f"embeddings: epoch {epoch} of {config.epochs}, loss {loss:.4f}", flush=True)

    if config.engine == "torch":
        from ntulm.embeddings import torch_training

        model, losses = torch_training.train(config, layout.PBG_INPUT, report)
    else:
        # Inside the unfinished output, so that a kill leaves one thing to remove.
        with tempfile.TemporaryDirectory(prefix="work-", dir=out) as work:
            model, losses = pbg.train(config, layout.PBG_INPUT, Path(work), report)
    if not np.isfinite(losses[-1]):
        raise UserError(f"embeddings.learning_rate: training diverged at {config.learning_rate}; lower it")
    return model, losses
