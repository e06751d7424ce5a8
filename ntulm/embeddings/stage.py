"""Stage `embeddings`: one vector per node of the graph (§3.1, App. B), and how well they predict links.

Reads data/graph/{nodes,edges}.parquet, data/graph/types.json and data/graph/pbg/.
Writes data/embeddings/table.safetensors (table.py), data/embeddings/relations.safetensors (operators.py) and
metrics/embeddings.json.
Command: `ntulm embeddings`, or `dvc repro embeddings`.

The engine is PyTorch-BigGraph (pbg.py) or our own (torch_training.py): the same objective and parameters.
Training starts clean, always: an unfinished attempt is thrown away, never resumed, so that one worker of PBG in one
process, and the engine `torch` on one CPU, give the same bytes for the same input and settings. Several processes of
PBG (machines.py) do not; on a machine that is not the first of them, nothing is written.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm import files
from ntulm.embeddings import pbg
from ntulm.embeddings.link_prediction import Edges, Model, Relation, link_prediction, read_relations
from ntulm.embeddings.machines import ALONE, Share, share
from ntulm.embeddings.operators import Operators, sample_edges
from ntulm.embeddings.table import write_table
from ntulm.errors import UserError
from ntulm.layout import Layout

if TYPE_CHECKING:
    from ntulm.embeddings.config import Embeddings


def run(config: Embeddings, layout: Layout) -> None:
    """Train, write the table and measure held-out edges.

    Raises:
        UserError: the graph is missing, or training diverged.
    """
    for path in (layout.nodes, layout.edges):
        if not path.is_file():
            raise UserError(f"{path}: not found; run `dvc repro graph` first, which writes it")
    relations = read_relations(layout.pbg_input)
    own = share(config.partitions) if config.engine == "pbg" else ALONE
    if not own.leads:
        _assist(config, layout, own)
        return
    with files.whole_directory(layout.embeddings) as out:
        model, losses = _train(config, layout, out, own)
        nodes = pq.read_table(layout.nodes, columns=["type", "key"])
        vectors = np.concatenate([model.nodes[ntu_type] for ntu_type in sorted(model.nodes)])  # nodes are so ordered
        write_table(out, nodes["type"], nodes["key"], vectors, files.read_json(layout.node_types))
        operators_of(config, model, relations, layout.pbg_input).write(out)
        edges, held_out = read_edges(layout.edges, relations, model)
        asked = sample(np.flatnonzero(held_out), config.ranked_edges, config.seed)
        figures = link_prediction(model, edges, held_out, asked, relations)
    files.write_json(layout.metrics("embeddings"), summarise(figures, config, model, losses))


def operators_of(config: Embeddings, model: Model, relations: list[Relation], pbg_input: Path) -> Operators:
    """The trained relations, with what solving for later rows needs of the graph."""
    sizes = {ntu_type: len(model.nodes[ntu_type]) for ntu_type in sorted(model.nodes)}
    nodes, first = {}, 0
    for ntu_type, size in sizes.items():
        nodes[ntu_type], first = (first, size), first + size
    with h5py.File(pbg_input / "train" / "edges_0_0.h5") as file:
        lhs, rel, rhs = (np.asarray(file[name], dtype=np.int64) for name in ("lhs", "rel", "rhs"))
    for side, rows in ((0, lhs), (1, rhs)):
        rows += np.array([nodes[one.types[side]][0] for one in relations], np.int64)[rel]
    return Operators(
        names=[one.name for one in relations],
        types=[one.types for one in relations],
        vectors=model.relations,
        sampled=sample_edges(lhs, rel, rhs, len(relations), config.seed),
        edges=np.bincount(rel, minlength=len(relations)).tolist(),
        nodes=nodes,
        batch_negatives=config.batch_negatives,
        uniform_negatives=config.uniform_negatives,
    )


def read_edges(path: Path, relations: list[Relation], model: Model) -> tuple[Edges, np.ndarray]:
    """All E edges of edges.parquet, nodes counted within their type, and which are held out, bool [E]."""
    table = pq.read_table(path, columns=["lhs", "rel", "rhs", "held_out"])
    rel = pc.index_in(table["rel"], pa.array([one.name for one in relations])).to_numpy().astype(np.int64)
    types = sorted(model.nodes)
    sizes = np.cumsum([0] + [len(model.nodes[ntu_type]) for ntu_type in types])
    first = dict(zip(types, sizes[:-1].tolist(), strict=True))
    left, right = (np.array([first[one.types[side]] for one in relations])[rel] for side in (0, 1))
    return Edges(table["lhs"].to_numpy() - left, rel, table["rhs"].to_numpy() - right), table["held_out"].to_numpy()


def sample(places: np.ndarray, most: int, seed: int) -> np.ndarray:
    """At most `most` of the places, in order, the same for the same seed."""
    if len(places) <= most:
        return places
    return np.sort(np.random.default_rng(seed).choice(places, most, replace=False))


def summarise(figures: dict[str, Any], config: Embeddings, model: Model, losses: list[float]) -> dict[str, Any]:
    """The metrics of the stage: the link prediction figures, the size of the table, and the loss of every epoch."""
    return {
        **figures,
        "nodes": {ntu_type: len(vectors) for ntu_type, vectors in model.nodes.items()},
        "dimension": config.dimension,
        "final_loss": losses[-1],
        "history": [{"epoch": epoch, "loss": loss} for epoch, loss in enumerate(losses, 1)],
    }


def _train(config: Embeddings, layout: Layout, out: Path, own: Share) -> tuple[Model, list[float]]:
    def report(epoch: int, loss: float) -> None:
        print(f"embeddings: epoch {epoch} of {config.epochs}, loss {loss:.4f}", flush=True)

    if config.engine == "torch":
        from ntulm.embeddings import torch_training

        model, losses = torch_training.train(config, layout.pbg_input, report)
    else:
        if own.count > 1:
            print(f"embeddings: {own.count} processes on {own.machines} machines", flush=True)
        # Inside the unfinished output, so that a kill leaves one thing to remove.
        with tempfile.TemporaryDirectory(prefix="work-", dir=out) as work:
            model, losses = pbg.train(config, layout.pbg_input, Path(work), report, own)
    if not np.isfinite(losses[-1]):
        raise UserError(f"embeddings.learning_rate: training diverged at {config.learning_rate}; lower it")
    return model, losses


def _assist(config: Embeddings, layout: Layout, own: Share) -> None:
    """Train with the first machine, which writes the results."""
    print(f"embeddings: machine {own.own} of {own.machines}; machine 0 writes the results", flush=True)
    work = layout.embeddings.with_name(f".partial-{layout.embeddings.name}-{own.own}")
    shutil.rmtree(work, ignore_errors=True)  # of one that was killed
    work.mkdir(parents=True)
    try:
        pbg.assist(config, layout.pbg_input, work, own)
    finally:
        shutil.rmtree(work, ignore_errors=True)
