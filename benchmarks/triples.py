"""Link prediction on the triples of a knowledge graph, such as FB15k-237: edges per second, MRR and Hits@1 and @10.

    python -m benchmarks.triples FOLDER [--engine pbg] [--dimension 50] …

FOLDER holds OpenKE's benchmark files or train.txt, valid.txt, test.txt (triple_files.py). Trained on train; valid is
only filtered by. Needs torch, numpy and h5py, and for `--engine pbg` PyTorch-BigGraph, which trains on the CPU.

Ranks as in the literature: each test triple asks for its head and for its tail among all entities; other answers that
are true in train, valid or test do not compete; ties count by their mean rank (half of the equal ones are ahead).
*Both* is over the questions of both sides. Two more columns: the same without the entity that is given among the
candidates, as in `metrics/embeddings.json`, and what the training edges of a candidate, on that side of the relation,
predict alone. Edges per second are of the epochs after the first, which has the start-up in it.

The engines have one form of relation, the paper's: head · (tail + relation). It is made for NTUs, and is neither
DistMult nor ComplEx, whose published figures are a different model's: among tails the relation does not count at all,
as head · relation is the same for each of them, and an entity is its own nearest neighbour.

An edge has `batch_negatives` - 1 negatives from its batch and `uniform_negatives` on each side. A batch has edges of
one relation, so that rare relations have smaller batches, with fewer negatives.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.synthetic_graph import write_pbg_input
from benchmarks.triple_files import Triples, read_triples, remarks
from ntulm.device import choose_device
from ntulm.embeddings import pbg, torch_training
from ntulm.embeddings.link_prediction import Edges, Model, Relation, filtered_ranks
from ntulm.errors import UserError

TYPE = "entity"
SETTINGS = {  # as Marius publishes for FB15k-237: 500 negatives in chunks of 100 edges, of batches of 1,000
    "dimension": 50, "epochs": 10, "batch_size": 1000, "batch_negatives": 100, "uniform_negatives": 400, "workers": 1,
    "seed": 0,
}  # fmt: skip
LEARNING_RATE = 0.1


class Trained(NamedTuple):
    """A model and how long it took."""

    model: Model
    seconds: float  # with the start
    rate: float  # training triples per second, of the epochs after the first if there are any


class Ranks(NamedTuple):
    """float64 [n] of the test triples."""

    heads: np.ndarray
    tails: np.ndarray


def train(triples: Triples, settings: Any, folder: Path) -> Trained:
    """Train an engine.

    Args:
        settings: what the section `embeddings` has.
        folder: an empty one, for the engine's files.

    Raises:
        UserError: training diverged.
    """
    head, relation, tail = triples.train.T
    relations = [Relation(f"r{number}", TYPE, TYPE) for number in range(triples.relations)]
    write_pbg_input(folder, (head, relation, tail), {TYPE: triples.entities}, relations)
    ends: list[float] = []

    def report(epoch: int, loss: float) -> None:
        ends.append(time.perf_counter())
        print(f"epoch {epoch} of {settings.epochs}, loss {loss:.4f}", file=sys.stderr, flush=True)

    started = time.perf_counter()
    if settings.engine == "pbg":
        (folder / "work").mkdir()
        model, losses = pbg.train(settings, folder, folder / "work", report)
    else:
        model, losses = torch_training.train(settings, folder, report)
    seconds = time.perf_counter() - started
    if not np.isfinite(losses[-1]):
        raise UserError(f"--learning-rate: training diverged at {settings.learning_rate}; lower it")
    counted = ends[-1] - ends[0] if len(ends) > 1 else seconds
    return Trained(model, seconds, len(head) * max(1, len(ends) - 1) / counted)


def rank(triples: Triples, model: Model, given_out: bool) -> Ranks:
    """Filtered ranks of the test triples, the products on the GPU if there is one.

    Args:
        given_out: the entity that is given is no candidate.
    """
    asked, known = edges_of(triples.test), edges_of(triples.all)
    vectors, moves = model.nodes[TYPE], model.relations
    return Ranks(
        side_ranks(vectors, moves, asked.turned(), known.turned(), given_out),
        side_ranks(vectors, np.zeros_like(moves), asked, known, given_out),  # the relation adds the same to all tails
    )


def edges_of(triples: np.ndarray) -> Edges:
    """The questions for tails, of int64 [n, 3]."""
    return Edges(*triples.T)


def side_ranks(vectors: np.ndarray, moves: np.ndarray, asked: Edges, known: Edges, given_out: bool) -> np.ndarray:
    """float64 [n]: ranks of the answers among N candidates by candidate · (given + move of the relation).

    Args:
        vectors: float32 [N, D].
        moves: float32 [R, D].
    """
    device = choose_device()
    candidates = torch.from_numpy(vectors).to(device).T

    def scores(rows: np.ndarray) -> np.ndarray:
        moved = vectors[asked.given[rows]] + moves[asked.rel[rows]]
        products: np.ndarray = (torch.from_numpy(moved).to(device) @ candidates).cpu().numpy()
        return products

    return filtered_ranks(asked, known, scores, len(vectors), one_type=given_out)


def rank_by_popularity(triples: Triples) -> Ranks:
    """Filtered ranks by the number of training triples that have the candidate on that side of the relation."""
    training, asked, known = (edges_of(part) for part in (triples.train, triples.test, triples.all))
    size = triples.relations, triples.entities
    return Ranks(
        _popular(training.turned(), asked.turned(), known.turned(), *size),
        _popular(training, asked, known, *size),
    )


def _popular(training: Edges, asked: Edges, known: Edges, relations: int, entities: int) -> np.ndarray:
    cells, counts = np.unique(training.rel * entities + training.answer, return_counts=True)
    starts = np.searchsorted(cells, np.arange(relations + 1) * entities)

    def scores(rows: np.ndarray) -> np.ndarray:
        table = np.zeros((len(rows), entities), np.float32)
        for row, relation in enumerate(asked.rel[rows]):
            own = slice(starts[relation], starts[relation + 1])
            table[row, cells[own] % entities] = counts[own]
        return table

    return filtered_ranks(asked, known, scores, entities)


def table(ranks: Ranks, given_out: Ranks, popular: Ranks) -> str:
    """The figures of both sides and of each, as Markdown."""
    lines = [
        "| asked for | MRR | Hits@1 | Hits@10 | MRR, the given one left out | MRR by popularity |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for place, name in enumerate(("both", *Ranks._fields)):
        own, *others = (
            np.concatenate(one) if name == "both" else one[place - 1] for one in (ranks, given_out, popular)
        )
        figures = [(1 / own).mean(), (own <= 1).mean(), (own <= 10).mean(), *((1 / other).mean() for other in others)]
        lines.append(f"| {name} | {' | '.join(f'{figure:.4f}' for figure in figures)} |")
    return "\n".join(lines)


def settings_of(given: argparse.Namespace) -> Any:
    """What the engines read of the options.

    Raises:
        UserError: batches that the engines cannot cut.
    """
    if min(getattr(given, name) for name in SETTINGS if name != "seed") < 1:
        raise UserError("sizes, numbers of negatives, epochs and workers must be 1 or more")
    if given.batch_size % given.batch_negatives:
        raise UserError(f"--batch-size must be a multiple of --batch-negatives ({given.batch_negatives})")
    names = ("engine", "learning_rate", *SETTINGS)
    return SimpleNamespace(**{name: getattr(given, name) for name in names}, partitions=1)


def options(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", choices=["torch", "pbg"], default="torch")
    for name, value in SETTINGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"{value} if not given")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help=f"{LEARNING_RATE} if not given")
    return parser.parse_args(arguments)


def heading(name: str, triples: Triples, settings: Any) -> str:
    """What was read, and how it is trained."""
    return "\n".join(
        [
            f"{name}, {triples.form}: {len(triples.train):,} training triples, {triples.entities:,} entities, "
            f"{triples.relations:,} relations, {len(triples.test):,} test triples.",
            remarks(triples),
            f"Dimension {settings.dimension}, {settings.epochs} epochs, batches of {settings.batch_size:,}, "
            f"{settings.batch_negatives - 1} negatives of the batch and {settings.uniform_negatives} uniform ones per "
            f"side, learning rate {settings.learning_rate:g}, seed {settings.seed}; torch {torch.__version__}.",
        ]
    )


def measure(given: argparse.Namespace) -> None:
    """Read, train, rank and print."""
    settings, triples = settings_of(given), read_triples(given.folder)
    print(heading(given.folder.resolve().name, triples, settings), end="\n\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="triples-") as folder:
        trained = train(triples, settings, Path(folder))
    started = time.perf_counter()
    ranks = rank(triples, trained.model, given_out=False)
    seconds = time.perf_counter() - started
    on_gpu = settings.engine == "torch" and torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else "CPU"
    print(
        "| engine | device | edges/s | training, s | ranking, s |\n| --- | --- | ---: | ---: | ---: |",
        f"| {settings.engine} | {device} | {trained.rate:,.0f} | {trained.seconds:.1f} | {seconds:.1f} |\n",
        table(ranks, rank(triples, trained.model, given_out=True), rank_by_popularity(triples)),
        sep="\n",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    """Print two tables; a mistake of the user is one line."""
    try:
        measure(options(arguments))
    except UserError as error:
        raise SystemExit(f"triples: {error}") from None


if __name__ == "__main__":
    main()
