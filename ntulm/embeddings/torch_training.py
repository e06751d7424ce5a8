"""Engine `torch` of the stage `embeddings`: which edges are learnt when, and on which device (§3.1, App. B).

Reads data/graph/pbg/ (graph/stage.py says what is in it) and writes nothing. torch_engine.py has the objective.

With `embeddings.partitions` = K, the nodes of each type are in K partitions and the edges in K² buckets, as in
PyTorch-BigGraph; an epoch goes through them in several passes, with a share of their edges in each (partitions.py). A
device trains one bucket after the other, with the partitions of the bucket in its memory: one per type and side that
its edges have. Several GPUs train at the same time, on buckets that share no partition. The uniform negatives of a
bucket are of its own partitions. With K = 1 there is one bucket and one pass, and the tables stay where they are.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import h5py
import numpy as np
import torch
from torch import Tensor

from ntulm.device import choose_device, has_bf16, to_device
from ntulm.embeddings.link_prediction import Model, Relation, read_relations, types_of
from ntulm.embeddings.partitions import EDGES, counts_of, in_order, partition_of, passes_of, rows_of, share_of
from ntulm.embeddings.torch_engine import Batch, Engine, Table, no_denormals

if TYPE_CHECKING:
    from ntulm.embeddings.config import Embeddings

INIT_SCALE = 0.001  # PBG's: standard deviation of the first vectors
LOSS_EVERY = 8  # the loss is not needed for the gradient, and costs a fifth of a step: it is of every 8th batch
TABLE_SHARE = 0.8  # of the free GPU memory; larger tables stay in the memory of the host


class Part(NamedTuple):
    """A partition of the nodes of a type."""

    type: str
    number: int


class Bucket(NamedTuple):
    """The edges between two partitions of each type."""

    lhs: int  # which partition
    rhs: int
    edges: list[tuple[Tensor, Tensor]]  # per relation, int32 [n] on each side, counted within their partition
    sides: dict[int, tuple[Part, Part]]  # of each relation that has edges here

    @property
    def parts(self) -> set[Part]:
        """All that its edges change."""
        return {part for sides in self.sides.values() for part in sides}


@dataclass
class Tables:
    """What is learnt, one partition after the other; every device has its part of it while it trains a bucket."""

    nodes: dict[str, Table]  # per type
    relations: Tensor  # float32 [R, D]
    relation_squares: Tensor  # float32 [R, D]
    alone: bool  # one device trains, and the relations lie there
    lock: threading.Lock = field(default_factory=threading.Lock)  # of the relations, which all buckets change


@dataclass(frozen=True)
class Worker:
    """A device with its own draws of uniform negatives."""

    device: torch.device
    arithmetic: torch.dtype
    random: torch.Generator


def train(
    config: Embeddings,
    pbg_input: Path,
    report: Callable[[int, float], None],
    devices: list[torch.device] | None = None,
) -> tuple[Model, list[float]]:
    """Train from a clean start; the same bytes for the same seed, machine and number of threads, on one CPU.

    Args:
        config: the section `embeddings`; `workers` is PBG's and not used.
        pbg_input: data/graph/pbg.
        report: called with (epoch from 1, mean loss of the batches that were measured) after each epoch.
        devices: where to train; None: all GPUs, or the CPU.

    Returns:
        The vectors, in the order of node ids and of relations.json, and the mean loss of an edge in each epoch.
    """
    workers = new_workers(config, all_devices() if devices is None else devices)
    relations = read_relations(pbg_input)
    tables = new_tables(config, counts_of(pbg_input, types_of(relations)), len(relations), workers)
    edges = read_edges(pbg_input / "train" / EDGES)
    passes = split(edges, relations, config.partitions)
    order = torch.Generator().manual_seed(config.seed)
    losses: list[float] = []
    for epoch in range(1, config.epochs + 1):
        losses.append(train_epoch(config, tables, passes, workers, order))
        report(epoch, losses[-1])
    nodes = {name: in_order(table.vectors.cpu().numpy(), config.partitions) for name, table in tables.nodes.items()}
    return Model(nodes, tables.relations.cpu().numpy()), losses


def all_devices() -> list[torch.device]:
    """Every GPU, or the CPU."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.device("cuda", number) for number in range(count)] or [choose_device()]


def new_workers(config: Embeddings, devices: list[torch.device]) -> list[Worker]:
    """As many as can have a bucket at the same time."""
    return [
        Worker(
            device,
            torch.bfloat16 if has_bf16(device) else torch.float32,
            torch.Generator(device).manual_seed(config.seed + 1 + number),
        )
        for number, device in enumerate(devices[: config.partitions])
    ]


def new_tables(config: Embeddings, counts: dict[str, int], relations: int, workers: list[Worker]) -> Tables:
    """Vectors drawn with INIT_SCALE, translations of zero; counts of nodes per type, drawn in that order."""
    drawn = torch.Generator().manual_seed(config.seed)
    device = workers[0].device
    stay = config.partitions == 1 and _fits(sum(counts.values()) * (config.dimension + 1) * 4, device)

    def table(rows: int) -> Table:
        vectors = torch.randn(rows, config.dimension, generator=drawn).mul_(INIT_SCALE)
        where = device if stay else torch.device("cpu")
        return Table(vectors.to(where), torch.zeros(rows, device=where))

    alone = len(workers) == 1
    shared = torch.zeros(2, relations, config.dimension, device=device if alone else torch.device("cpu"))
    nodes = {ntu_type: table(count) for ntu_type, count in counts.items()}
    return Tables(nodes, shared[0], shared[1], alone)


def read_edges(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Per relation of an edge list of PBG, its left and right nodes: int32 [n] each."""
    with h5py.File(path) as file:
        rel = np.asarray(file["rel"], dtype=np.int32)
        lhs, rhs = (torch.from_numpy(np.asarray(file[name], dtype=np.int32)) for name in ("lhs", "rhs"))
    found = (torch.from_numpy(np.flatnonzero(rel == relation)) for relation in range(rel.max(initial=-1) + 1))
    return [(lhs[places], rhs[places]) for places in found]


def split(edges: list[tuple[Tensor, Tensor]], relations: list[Relation], partitions: int) -> list[list[Bucket]]:
    """The passes of an epoch, and in each the buckets that have edges."""
    whole: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
    for rel, (lhs, rhs) in enumerate(edges):
        if partitions == 1:  # nothing to sort
            if len(lhs):
                whole.setdefault((0, 0), [(lhs[:0], rhs[:0])] * len(edges))[rel] = lhs, rhs
            continue
        keys = partition_of(lhs.long(), partitions) * partitions + partition_of(rhs.long(), partitions)
        for part in keys.argsort(stable=True).split(keys.bincount().tolist()):
            if len(part):
                key = divmod(int(keys[part[0]]), partitions)
                bucket = whole.setdefault(key, [(lhs[:0], rhs[:0])] * len(edges))
                bucket[rel] = lhs[part] // partitions, rhs[part] // partitions
    count = passes_of(partitions)
    found: list[list[Bucket]] = [[] for _ in range(count)]
    for key in sorted(whole):
        for number, buckets in enumerate(found):
            firsts = (share_of(number, sum(key) + rel, partitions) for rel in range(len(edges)))
            own = [(lhs[first::count], rhs[first::count]) for first, (lhs, rhs) in zip(firsts, whole[key], strict=True)]
            share = _bucket(*key, own, relations)
            if share.sides:
                buckets.append(share)
    return found


def _bucket(lhs: int, rhs: int, edges: list[tuple[Tensor, Tensor]], relations: list[Relation]) -> Bucket:
    sides = {
        rel: (Part(relations[rel].lhs, lhs), Part(relations[rel].rhs, rhs))
        for rel, (left, _) in enumerate(edges)
        if len(left)
    }
    return Bucket(lhs, rhs, edges, sides)


def train_epoch(
    config: Embeddings, tables: Tables, passes: list[list[Bucket]], workers: list[Worker], order: torch.Generator
) -> float:
    """Every bucket of every pass, in random order; the mean loss of an edge in the batches that were measured."""
    shuffled = [one[place] for one in passes for place in torch.randperm(len(one), generator=order).tolist()]
    seeds = [int(torch.randint(2**62, (1,), generator=order)) for _ in shuffled]
    schedule = Schedule(list(zip(shuffled, seeds, strict=True)))

    def work(worker: Worker) -> tuple[float, int]:
        total, edges = 0.0, 0
        with no_denormals():  # belongs to a thread
            while (taken := schedule.take()) is not None:
                bucket, seed = taken
                try:
                    found = train_bucket(config, tables, bucket, worker, torch.Generator().manual_seed(seed))
                finally:
                    schedule.release(bucket)
                total, edges = total + found[0], edges + found[1]
        return total, edges

    if len(workers) == 1:
        sums = [work(workers[0])]
    else:
        with ThreadPoolExecutor(len(workers)) as pool:
            sums = list(pool.map(work, workers))
    return sum(total for total, _ in sums) / max(1, sum(edges for _, edges in sums))


class Schedule:
    """Gives out buckets, none whose partitions another one has that is not back yet."""

    def __init__(self, buckets: list[tuple[Bucket, int]]) -> None:
        self._waiting = list(buckets)
        self._busy: list[Bucket] = []
        self._changed = threading.Condition()

    def take(self) -> tuple[Bucket, int] | None:
        """The next bucket and its seed, once its partitions are free; None when all are given out."""
        with self._changed:
            while self._waiting:
                for place, (bucket, _) in enumerate(self._waiting):
                    if all(bucket.parts.isdisjoint(other.parts) for other in self._busy):
                        self._busy.append(bucket)
                        return self._waiting.pop(place)
                self._changed.wait()
            return None

    def release(self, bucket: Bucket) -> None:
        """Its partitions are free."""
        with self._changed:
            self._busy.remove(bucket)
            self._changed.notify_all()


def train_bucket(
    config: Embeddings, tables: Tables, bucket: Bucket, worker: Worker, order: torch.Generator
) -> tuple[float, int]:
    """Each edge of a bucket once; the summed loss of the batches that were measured, and the number of their edges."""
    total, edges, device = 0.0, 0, worker.device
    with (
        _parts(tables, bucket, config.partitions, device) as sides,
        _relations(tables, device) as relations,
    ):
        engine = Engine(sides, *relations, config, worker.arithmetic, worker.random)
        for number, batch in enumerate(batches(bucket.edges, config.batch_size, order)):
            there = Batch(batch.relation, to_device(batch.lhs, device), to_device(batch.rhs, device))
            loss = engine.step(there, with_loss=number % LOSS_EVERY == 0)
            if loss is not None:
                total, edges = total + loss, edges + len(batch.lhs)
    return total, edges


def batches(edges: list[tuple[Tensor, Tensor]], size: int, order: torch.Generator) -> Iterator[Batch]:
    """Every edge once, shuffled within its relation, the batches of all relations in random order."""
    shuffled = [torch.randperm(len(lhs), generator=order).to(torch.int32) for lhs, _ in edges]
    places = [(rel, start) for rel, (lhs, _) in enumerate(edges) for start in range(0, len(lhs), size)]
    for place in torch.randperm(len(places), generator=order).tolist():
        rel, start = places[place]
        chosen = shuffled[rel][start : start + size]
        lhs, rhs = (side.index_select(0, chosen).long() for side in edges[rel])
        yield Batch(rel, lhs, rhs)


@contextmanager
def _parts(
    tables: Tables, bucket: Bucket, partitions: int, device: torch.device
) -> Iterator[dict[int, tuple[Table, Table]]]:
    """The tables on both sides of each relation of a bucket, on the device; a partition is there once."""
    with ExitStack() as stack:
        held = {
            part: stack.enter_context(_part(tables.nodes[part.type], part.number, partitions, device))
            for part in sorted(bucket.parts)
        }
        yield {rel: (held[lhs], held[rhs]) for rel, (lhs, rhs) in bucket.sides.items()}


@contextmanager
def _part(table: Table, number: int, partitions: int, device: torch.device) -> Iterator[Table]:
    """A partition on the device: a view where the table lies there or is whole, else a copy that is written back."""
    own = rows_of(len(table.vectors), partitions)[number]
    part = Table(table.vectors[own], table.squares[own])
    if partitions == 1 or part.vectors.device == device:
        yield part
        return
    copy = Table(part.vectors.to(device), part.squares.to(device))
    yield copy
    part.vectors.copy_(copy.vectors)
    part.squares.copy_(copy.squares)


@contextmanager
def _relations(tables: Tables, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Translations and their squares; where several devices train, copies, whose changes are added at the end."""
    shared = (tables.relations, tables.relation_squares)
    if tables.alone:
        yield shared
        return
    with tables.lock:
        before = [tensor.clone() for tensor in shared]
    copies = before[0].to(device, copy=True), before[1].to(device, copy=True)
    yield copies
    with tables.lock:
        for tensor, start, copy in zip(shared, before, copies, strict=True):
            tensor += copy.cpu() - start


def _fits(size: int, device: torch.device) -> bool:
    """Whether tables of that many bytes can lie on the device."""
    return device.type == "cpu" or size < TABLE_SHARE * torch.cuda.mem_get_info(device)[0]
