"""What runs inside a process of PyTorch-BigGraph 1.0.0: its training, with what it lacks put in the place of its own.

pbg.py starts it as `python -m ntulm.embeddings.pbg SETTINGS`, in which it is imported alone. It prints the mean loss of
every epoch. It ends when its standard input closes, so that it never outlives the stage.

PBG draws the order of buckets and seeds its workers anew in each run: here both follow from the seed. Among several
processes (PBG says machines; pbg.py, trainers),

- what they send each other is allowed to `torch.load`, which loads nothing else;
- a partition that was trained once is read from the process that keeps it (PBG: from a checkpoint on a disk that all
  machines share), and the process of rank 0 fetches and writes all of them once, after the last epoch;
- the first pass trains no bucket whose nodes are all new on both sides, as PBG means to. It numbers partitions alike on
  both sides, so where users and hashtags have partitions of their own it takes one side for the other.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
from functools import partial
from typing import Any, TextIO

import torch
import torchbiggraph.train as biggraph
from torchbiggraph.bucket_scheduling import (
    BucketStats,
    LockServer,
    SingleMachineBucketScheduler,
    create_ordered_buckets,
)
from torchbiggraph.checkpoint_manager import CheckpointManager
from torchbiggraph.config import ConfigSchema, parse_config
from torchbiggraph.stats import Stats
from torchbiggraph.types import Bucket, Side

SEED_STEP = 1_000_003  # between the seeds of two runs, so that there is room for the processes of each
RANK_STEP = 1_009  # between those of two trainers
PR_SET_PDEATHSIG = 1  # Linux's prctl.h


class SeededBuckets(SingleMachineBucketScheduler):
    """The buckets of a pass in an order that follows from the seed."""

    def __init__(self, *about: Any, seed: int) -> None:
        super().__init__(*about)
        self._random = random.Random(seed)  # noqa: S311

    def new_pass(self, is_first: bool) -> None:
        """Draw the order."""
        self.buckets = create_ordered_buckets(
            nparts_lhs=self.nparts_lhs, nparts_rhs=self.nparts_rhs, order=self.order, generator=self._random
        )
        self.stats: list[BucketStats] = []


class Buckets(LockServer):
    """Gives out buckets to several trainers; the process of rank 0 starts it in one of its own."""

    buckets: list[Bucket]
    dirty: set[Any]  # partitions that a process keeps
    _sides: set[tuple[Side, int]] | None = None  # what the first pass has trained so far

    def new_pass(self, is_first: bool = False) -> None:
        """Begin a pass; what was trained in one before counts as trained."""
        trained = self.dirty
        super().new_pass(is_first)
        self.dirty = trained
        self.initialized_partitions = None
        self._sides = {(Side.LHS, 0), (Side.RHS, 0)} if self.init_tree and is_first else None

    def acquire_bucket(self, rank: int, maybe_old_bucket: Bucket | None = None) -> tuple[Bucket | None, int]:
        """The next bucket for a trainer, if there is one that it can have now, and how many are not trained yet."""
        if self._sides is None:
            return super().acquire_bucket(rank, maybe_old_bucket)
        every = self.buckets
        self.buckets = [one for one in every if not self._sides.isdisjoint({(Side.LHS, one.lhs), (Side.RHS, one.rhs)})]
        bucket, _ = super().acquire_bucket(rank, maybe_old_bucket)
        self.buckets = every
        if bucket is not None:
            self._sides |= {(Side.LHS, bucket.lhs), (Side.RHS, bucket.rhs)}
        return bucket, len(every) - len(self.done) + (bucket is not None)


class Checkpoints(CheckpointManager):
    """Tells the loss of every epoch; among several trainers, writes the vectors once."""

    def __init__(self, *about: Any, passes: int, last: int, reports: TextIO, **more: Any) -> None:
        super().__init__(*about, **more)
        self._several: bool = more["num_machines"] > 1
        self.num_machines = 1  # rank 0 writes the partitions of all
        self._passes, self._last, self._reports = passes, last, reports
        self._found: list[Stats] = []

    def append_stats(self, stats: list[dict[str, Any]]) -> None:
        """Keep what PBG says of the buckets of a pass, and tell it after the last one of an epoch."""
        super().append_stats(stats)
        self._found += [Stats.from_dict(one["stats"]) for one in stats]
        if self._version(True) % self._passes == 0:
            print(mean_loss(self._found), file=self._reports, flush=True)
            self._found = []

    def write_new_version(self, config: ConfigSchema) -> None:
        """Write what other processes keep, if it is the last version."""
        if not self._several or (self.rank == 0 and self._version(True) == self._last):
            super().write_new_version(config)

    def remove_old_version(self, config: ConfigSchema) -> None:
        """Remove the version before; where several train, there are no vectors in it."""
        if self.rank == 0:
            super().remove_old_version(config)


def mean_loss(stats: list[Stats]) -> float:
    """Per edge, of buckets that may have none."""
    total = sum(one.count for one in stats)
    return sum(one.metrics["loss"] * (one.count / total) for one in stats if one.count)


def prepare(seed: int) -> None:
    """Prepare a process that PBG has started: a worker, or one that serves others.

    Args:
        seed: of the trainer, in the place of PBG's, which is the process id.
    """
    (number,) = multiprocessing.current_process()._identity  # 1 for the first
    torch.manual_seed(seed * SEED_STEP + number)
    torch.serialization.add_safe_globals([Bucket, BucketStats, Stats])
    if sys.platform == "linux":  # a trainer that is killed ends none of them
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Train as argv[1] says: JSON with `seed`, `rank`, `passes` of an epoch and PBG's own `config`."""
    reports = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever PBG or its workers print goes to the log
    threading.Thread(target=_end_with_parent, daemon=True).start()
    settings = json.loads(sys.argv[1])
    config, passes, rank = parse_config(settings["config"]), settings["passes"], settings["rank"]
    seed = settings["seed"] + rank * RANK_STEP
    torch.manual_seed(seed)
    torch.serialization.add_safe_globals([Bucket, BucketStats, Stats])
    biggraph.SingleMachineBucketScheduler = partial(SeededBuckets, seed=seed)
    biggraph.LockServer = Buckets
    last = config.num_epochs * passes
    biggraph.CheckpointManager = partial(Checkpoints, passes=passes, last=last, reports=reports)
    biggraph.train(config, rank=rank, subprocess_init=partial(prepare, seed))


def _end_with_parent() -> None:
    os.read(0, 1)
    for worker in multiprocessing.active_children():
        worker.kill()
    os._exit(1)
