"""Engine `pbg` of the stage `embeddings`: PyTorch-BigGraph 1.0.0 with the paper's objective (§3.1, App. B).

Score u · (v + r): translation on the right side, dot product, logistic loss, negatives from the batch and uniform ones,
row-wise Adagrad, no bias and no global vector (equation 1 has none). PBG divides the negatives' loss by their number,
where equation 2 sums it.

Reads data/graph/pbg/ (ntulm/graph/stage.py says what is in it). Writes into the given work directory only.
`python -m ntulm.embeddings.pbg SETTINGS` is the process that trainers.py starts; it is no command for people.

PBG runs in processes of its own: it spawns workers that import their parent's main module, sets the number of threads,
and logs a lot. With `embeddings.partitions` above 1 it gets its input in partitions (partitions.py), and several of
these processes, on this machine or on others, can train together (machines.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ntulm.embeddings import machines, partitions
from ntulm.embeddings.link_prediction import Model, Relation, read_relations, types_of
from ntulm.embeddings.machines import ALONE, Share
from ntulm.embeddings.trainers import Trainers
from ntulm.files import sha256

if TYPE_CHECKING:
    from ntulm.embeddings.config import Embeddings


def train(
    config: Embeddings, pbg_input: Path, work: Path, report: Callable[[int, float], None], share: Share = ALONE
) -> tuple[Model, list[float]]:
    """Train from a clean start; among several machines, on the first one.

    Args:
        config: the section `embeddings`.
        pbg_input: data/graph/pbg.
        work: an existing directory for edges and checkpoints; PBG would resume from what it finds in it.
        report: called with (epoch from 1, mean loss) after each epoch.
        share: this machine's part.

    Returns:
        The vectors, in the order of node ids and of relations.json, and the mean loss per edge in each epoch.

    Raises:
        RuntimeError: PBG failed; the message ends with the last lines of its log.
        UserError: a process was ended, or another machine has ended, cannot be reached or has another graph.
    """
    losses: list[float] = []
    with closing(_losses(config, pbg_input, work, share)) as found:
        for loss in found:
            losses.append(loss)
            report(len(losses), loss)
    return _model(config, pbg_input, work / "checkpoint"), losses


def assist(config: Embeddings, pbg_input: Path, work: Path, share: Share) -> None:
    """Train with the first machine, which has the result; the arguments and errors are those of `train`."""
    for _ in _losses(config, pbg_input, work, share):
        pass


def _losses(config: Embeddings, pbg_input: Path, work: Path, share: Share) -> Generator[float, None, None]:
    """Train, and yield what the process of rank 0 reports, if it runs here."""
    relations = read_relations(pbg_input)
    entities, edges = pbg_input, [pbg_input / "train"]
    if config.partitions > 1:
        counts = partitions.counts_of(pbg_input, types_of(relations))
        entities, edges = work, partitions.split(pbg_input, counts, config.partitions, work)
    schema = _config(config, entities, work / "checkpoint", relations) | {"edge_paths": [str(path) for path in edges]}
    with machines.met(share, _fingerprint(config, pbg_input) if share.several else "") as meeting:
        if share.count > 1:
            schema |= {"num_machines": share.count, "distributed_init_method": meeting.url}
        settings = {"seed": config.seed, "passes": len(edges), "config": schema}
        with Trainers(settings, share.ranks, share.count) as trainers:
            meeting.watch(trainers.lose)
            yield from map(float, trainers.lines())


def _fingerprint(config: Embeddings, pbg_input: Path) -> str:
    """Of what has to be the same on all machines."""
    edges = sha256(pbg_input / "train" / partitions.EDGES)
    return hashlib.sha256(json.dumps([config.model_dump(), edges], sort_keys=True).encode()).hexdigest()


def _model(config: Embeddings, pbg_input: Path, checkpoint: Path) -> Model:
    """The vectors of the last checkpoint."""
    relations = read_relations(pbg_input)
    version = config.epochs * partitions.passes_of(config.partitions)
    state = checkpoint / f"model.v{version}.h5"
    translations = [_read(state, f"model/relations/{rel}/operator/rhs/translation") for rel in range(len(relations))]
    nodes = {}
    for ntu_type, count in partitions.counts_of(pbg_input, types_of(relations)).items():
        parts = (
            _read(checkpoint / f"embeddings_{ntu_type}_{number}.v{version}.h5", "embeddings")
            for number in range(config.partitions)
        )
        nodes[ntu_type] = partitions.joined(parts, (count, config.dimension), config.partitions)
    return Model(nodes, np.stack(translations))


def _config(config: Embeddings, pbg_input: Path, checkpoint: Path, relations: list[Relation]) -> dict[str, Any]:
    return {
        "entity_path": str(pbg_input),
        "edge_paths": [str(pbg_input / "train")],
        "checkpoint_path": str(checkpoint),
        "entities": {ntu_type: {"num_partitions": config.partitions} for ntu_type in types_of(relations)},
        "relations": [
            {"name": one.name, "lhs": one.lhs, "rhs": one.rhs, "operator": "translation"} for one in relations
        ],
        "dimension": config.dimension,
        "global_emb": False,
        "comparator": "dot",
        "loss_fn": "logistic",
        "num_epochs": config.epochs,
        "num_edge_chunks": 1,
        "lr": config.learning_rate,
        "batch_size": config.batch_size,
        "num_batch_negs": config.batch_negatives,
        "num_uniform_negs": config.uniform_negatives,
        "workers": config.workers,
        "eval_fraction": 0.0,  # the graph has held-out edges of its own
    }


def _read(path: Path, dataset: str) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file[dataset], dtype=np.float32)


def main() -> None:
    """Be a process of PBG."""
    from ntulm.embeddings import pbg_process

    pbg_process.main()


if __name__ == "__main__":
    main()
