"""Several processes that train one model together: what they share, add up and gather, and how all of them end.

Library of `training.py`. `launch.py` or torchrun starts the processes; the environment tells each its rank, from 0, and
how many there are. They speak over NCCL where each has a GPU, over gloo on CPUs. Rank 0 reads checkpoints, writes and
tells. Without such an environment there is one process, and nothing here does anything.

Nothing is pickled: what travels is tensors, and JSON as bytes.
"""

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ntulm.device import choose_device
from ntulm.errors import UserError

ENVIRONMENT = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}  # what torchrun tells each process
AGENT = "TORCHELASTIC_RUN_ID"  # torchrun watches over this process, and ends it when another one fails
PATIENCE = timedelta(minutes=30)  # for the slowest rank: one may still fetch the backbone, or write to a slow disk
GRACE_SECONDS = 30.0  # in which the agent ends a rank that did not fail first
BUCKET = 2**23  # numbers that are added up at once: while some travel, the next are copied together
FAILED = "ntulm/failed"  # how many ranks of a machine have failed
MACHINE = "GROUP_RANK"  # torchrun's number of this machine
PR_SET_PDEATHSIG = 1  # Linux's prctl.h


class Sliced(Protocol):
    """A sequence or an array."""

    def __getitem__(self, places: Any, /) -> Any: ...


Shared = TypeVar("Shared", bound=Sliced)


class LostError(UserError):
    """Another rank has ended or cannot be reached; why, it tells itself."""


@dataclass(frozen=True)
class Ranks:
    """All processes of a run, as one of them sees it. With `count` 1, each method gives back what it is given."""

    own: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this rank reads checkpoints, writes and tells."""
        return self.own == 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def share(self, items: Shared) -> Shared:
        """This rank's part of a sequence or array that all ranks have; parts of posts in order of length are alike."""
        return cast(Shared, items[self.own :: self.count]) if self.several else items

    def add_up(self, loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
        """Add up the gradients of all ranks, in place, and their losses float32 [], which is returned."""
        if not self.several:
            return loss
        total = loss.clone()
        parts = [total, *(parameter.grad for parameter in parameters if parameter.grad is not None)]
        travelling = []
        for bucket in _buckets(parts):
            flat = torch.cat([part.flatten() for part in bucket])
            with _together():
                travelling.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
        for bucket, flat, work in travelling:
            with _together():
                work.wait()
            for part, whole in zip(bucket, flat.split([part.numel() for part in bucket]), strict=True):
                part.copy_(whole.view_as(part))
        return total

    def gather(self, part: Tensor) -> Tensor:
        """The parts [n] of all ranks, one after the other; they may differ in length."""
        if not self.several:
            return part
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.count)]
        own = torch.tensor([len(part)], device=self.device)
        with _together():
            dist.all_gather(sizes, own)
        lengths = [int(size) for size in sizes]
        if not any(lengths):
            return part
        padded = torch.zeros(max(lengths), dtype=part.dtype, device=self.device)
        padded[: len(part)] = part.to(self.device)
        parts = [torch.zeros_like(padded) for _ in range(self.count)]
        with _together():
            dist.all_gather(parts, padded)
        return torch.cat([found[:length] for found, length in zip(parts, lengths, strict=True)])

    @torch.no_grad()
    def share_weights(self, model: nn.Module) -> None:
        """Give all ranks the weights of the first: another machine may have drawn them a little differently."""
        for parameter in model.parameters() if self.several else ():
            self._broadcast(parameter.data)

    def from_first(self, found: tuple[dict[str, Tensor], Any] | None) -> tuple[dict[str, Tensor], Any] | None:
        """Give all ranks what the first has: tensors by name and a JSON value, or None; that of others is not read."""
        if not self.several:
            return found
        about = None if found is None else [_shapes(found[0]), found[1]]
        about = json.loads(self._text_of_first(json.dumps(about)))
        if about is None:
            return None
        tensors = {}
        for name, (dtype, shape) in about[0].items():
            mine = found[0][name] if found else torch.empty(shape, dtype=getattr(torch, dtype))
            tensors[name] = self._broadcast(mine.to(self.device).contiguous())
        return tensors, about[1]

    def check_same(self, text: str, what: str) -> None:
        """Refuse to go on where ranks differ.

        Args:
            text: the same on all ranks, if all is well; of one length.
            what: it stands for.

        Raises:
            UserError: names a rank that differs.
        """
        if not self.several:
            return
        texts = self.gather(_bytes_of(text)).view(self.count, -1)
        for rank, other in enumerate(texts):
            if not torch.equal(other, texts[0]):
                raise UserError(f"{what} of rank {rank} differ from those of rank 0; give all machines the same")

    def _text_of_first(self, text: str) -> str:
        size = self._broadcast(torch.tensor([len(text.encode())], device=self.device))
        content = _bytes_of(text) if self.leads else torch.zeros(int(size), dtype=torch.uint8)
        return bytes(self._broadcast(content.to(self.device)).cpu().numpy()).decode()

    def _broadcast(self, tensor: Tensor) -> Tensor:
        with _together():
            dist.broadcast(tensor, src=0)
        return tensor


ALONE = Ranks(0, 1, torch.device("cpu"))


def _bytes_of(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)


def _shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[str, list[int]]]:
    return {name: (str(value.dtype).removeprefix("torch."), list(value.shape)) for name, value in tensors.items()}


def _buckets(parts: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Group tensors, in their order, into some of at least BUCKET numbers."""
    bucket: list[Tensor] = []
    for part in parts:
        bucket.append(part)
        if sum(own.numel() for own in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


@contextmanager
def joined() -> Iterator[Ranks]:
    """This process among those that train together, until all are done; alone where nobody started several.

    A fault ends all: the rank of a machine that fails first raises its error; others wait to be ended by torchrun, so
    that one line is told. A rank that only lost the others tells so where torchrun does not end it in time.

    Raises:
        UserError: the others cannot be reached.
    """
    if not os.environ.keys() >= ENVIRONMENT:
        yield ALONE
        return
    device = choose_device()
    if AGENT in os.environ:
        _end_with_the_agent()
    store = _join(device)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
        with _together():
            dist.barrier()  # what the first writes is written
    except Exception as error:
        if AGENT in os.environ:
            _wait_for_the_end(error, store)
        raise
    dist.destroy_process_group()


def _join(device: torch.device) -> dist.Store:
    """Meet the other processes; returns the store that all of them reach."""
    own_gpu = device if device.type == "cuda" else None
    try:
        store, rank, count = next(dist.rendezvous("env://", timeout=PATIENCE))
        dist.init_process_group(
            "gloo" if own_gpu is None else "nccl",
            store=store,
            rank=rank,
            world_size=count,
            timeout=PATIENCE,
            device_id=own_gpu,
        )
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise UserError(f"the other processes cannot be met at {where}: {_first_line(error)}") from error
    return store


@contextmanager
def _together() -> Iterator[None]:
    """What all ranks do at once: an error there is that of another rank."""
    try:
        yield
    except RuntimeError as error:
        raise LostError(f"another process of this run has ended or is out of reach: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _wait_for_the_end(error: Exception, store: dist.Store) -> None:
    """Return where this rank has something to tell; else wait for torchrun, which ends it."""
    if isinstance(error, LostError):
        time.sleep(GRACE_SECONDS)
    elif not _fails_first(store):
        time.sleep(GRACE_SECONDS)
        raise SystemExit(1) from error


def _fails_first(store: dist.Store) -> bool:
    try:
        return store.add(f"{FAILED}/{os.environ.get(MACHINE)}", 1) == 1
    except RuntimeError:  # the store went with the machine that failed before
        return True


def _end_with_the_agent() -> None:
    """Do not outlive the agent, and leave its interrupt to the agent to tell of."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
