"""Engine `pbg` of the stage `embeddings`: PyTorch-BigGraph 1.0.0 with the paper's objective (§3.1, App. B).

Score u · (v + r): translation on the right side, dot product, logistic loss, negatives from the batch and uniform ones,
row-wise Adagrad, one partition, no bias and no global vector (equation 1 has none). PBG divides the negatives' loss by
their number, where equation 2 sums it.

Reads data/graph/pbg/ (ntulm/graph/stage.py says what is in it). Writes into the given work directory only.
`python -m ntulm.embeddings.pbg SETTINGS` is the process that `train` starts; it is no command for people.

PBG runs in a process of its own: it spawns workers that import their parent's main module, sets the number of threads,
and logs a lot. That process ends when its standard input closes, so that it never outlives the stage.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from ntulm.embeddings.link_prediction import Model, Relation, read_relations, types_of

if TYPE_CHECKING:
    from ntulm.embeddings.config import Embeddings

LOG_LINES = 15  # of PBG's log, shown when it fails
KEPT_LINES = 500  # in which the errors are looked for that came before
ERROR = re.compile(r"[\w.]*(?:Error|Exception): |.*error message = ")  # HDF5 says the second on a line of its own
LOG_SECONDS = 10.0  # in which the last of them come


def train(
    config: Embeddings, pbg_input: Path, work: Path, report: Callable[[int, float], None]
) -> tuple[Model, list[float]]:
    """Train from a clean start.

    Args:
        config: the section `embeddings`.
        pbg_input: data/graph/pbg.
        work: an existing directory for checkpoints; PBG would resume from what it finds in it.
        report: called with (epoch from 1, mean loss) after each epoch.

    Returns:
        The vectors, in the order of node ids and of relations.json, and the mean loss per edge in each epoch.

    Raises:
        RuntimeError: PBG failed; the message ends with the last lines of its log.
    """
    relations = read_relations(pbg_input)
    checkpoint = work / "checkpoint"
    settings = {"seed": config.seed, "config": _config(config, pbg_input, checkpoint, relations)}
    losses: list[float] = []
    for line in _engine_lines(settings):
        losses.append(float(line))
        report(len(losses), losses[-1])
    version = config.epochs
    state = checkpoint / f"model.v{version}.h5"
    translations = [_read(state, f"model/relations/{rel}/operator/rhs/translation") for rel in range(len(relations))]
    nodes = {
        ntu_type: _read(checkpoint / f"embeddings_{ntu_type}_0.v{version}.h5", "embeddings")
        for ntu_type in types_of(relations)
    }
    return Model(nodes, np.stack(translations)), losses


def _config(config: Embeddings, pbg_input: Path, checkpoint: Path, relations: list[Relation]) -> dict[str, Any]:
    return {
        "entity_path": str(pbg_input),
        "edge_paths": [str(pbg_input / "train")],
        "checkpoint_path": str(checkpoint),
        "entities": {ntu_type: {"num_partitions": 1} for ntu_type in types_of(relations)},
        "relations": [
            {"name": one.name, "lhs": one.lhs, "rhs": one.rhs, "operator": "translation"} for one in relations
        ],
        "dimension": config.dimension,
        "global_emb": False,
        "comparator": "dot",
        "loss_fn": "logistic",
        "num_epochs": config.epochs,
        "lr": config.learning_rate,
        "batch_size": config.batch_size,
        "num_batch_negs": config.batch_negatives,
        "num_uniform_negs": config.uniform_negatives,
        "workers": config.workers,
        "eval_fraction": 0.0,  # the graph has held-out edges of its own
    }


def _engine_lines(settings: dict[str, Any]) -> Iterator[str]:
    """Run the engine's process and yield what it reports, one line per epoch."""
    command = [sys.executable, "-W", "ignore", "-m", "ntulm.embeddings.pbg", json.dumps(settings)]
    log: deque[str] = deque(maxlen=KEPT_LINES)  # not a file: the disk may be what fails
    errors, written = os.pipe()  # of our own: `with` would close one of Popen's while it is read
    reader = threading.Thread(target=_collect, args=(errors, log), daemon=True)
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=written, text=True)  # noqa: S603
    finally:
        os.close(written)
        reader.start()
    with process:
        assert process.stdout is not None
        yield from process.stdout
        process.wait()  # before `with` closes its standard input, which ends it (as it must after an exception)
    if process.returncode:
        reader.join(LOG_SECONDS)
        lines = list(log)
        # The error that others followed: that a disk is full is told first, then what could not be closed.
        earlier = dict.fromkeys(line for line in lines[:-LOG_LINES] if ERROR.match(line))
        tail = "".join([*earlier, *lines[-LOG_LINES:]])
        raise RuntimeError(f"PyTorch-BigGraph ended with code {process.returncode}; its log ends with:\n{tail}")


def _collect(errors: int, log: deque[str]) -> None:
    with os.fdopen(errors, encoding="utf-8", errors="replace") as lines:
        log.extend(lines)


def _read(path: Path, dataset: str) -> np.ndarray:
    with h5py.File(path) as file:
        return np.asarray(file[dataset], dtype=np.float32)


def seed_worker(seed: int) -> None:
    """Undo PBG's seeding of a worker with its process id."""
    import torch

    (number,) = multiprocessing.current_process()._identity  # 1 for the first worker
    torch.manual_seed(seed * 1_000_003 + number)


def main() -> None:
    """Train as argv[1] says (JSON with `seed` and PBG's own `config`); print each epoch's loss."""
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever PBG or its workers print goes to the log
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import torch
    from torchbiggraph.config import parse_config
    from torchbiggraph.train import train_and_report_stats

    settings = json.loads(sys.argv[1])
    torch.manual_seed(settings["seed"])
    config = parse_config(settings["config"])
    for _, _, stats, _ in train_and_report_stats(config, subprocess_init=partial(seed_worker, settings["seed"])):
        print(stats.metrics["loss"], file=reports, flush=True)


def _end_with_parent() -> None:
    os.read(0, 1)
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(1)


if __name__ == "__main__":
    main()
