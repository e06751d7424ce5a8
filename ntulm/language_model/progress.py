"""Where a training run stands: its plan, what its checkpoint holds beside the tensors, and the meter that tells of it.

Library of `training.py`.
"""

import math
import sys
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ntulm.errors import UserError

PROGRESS_SECONDS = 15
NO_STEP = 2**62  # "no step went wrong"


@dataclass
class EarlyStopping:
    """Stop after `patience` evaluations in a row without a better loss."""

    patience: int
    best: float = math.inf
    since_best: int = 0

    def better(self, loss: float) -> bool:
        """Take note of an evaluation; True if it is the best so far."""
        improved = loss < self.best
        self.best = min(self.best, loss)
        self.since_best = 0 if improved else self.since_best + 1
        return improved

    @property
    def stopped(self) -> bool:
        """Whether the training should end."""
        return self.since_best >= self.patience


@dataclass(frozen=True)
class Plan:
    """Which step is in which epoch, and after which steps the validation loss is taken."""

    posts: int
    batch_size: int
    epochs: int
    evaluations_per_epoch: int

    @property
    def steps_per_epoch(self) -> int:
        """Steps that see every post once."""
        return -(-self.posts // self.batch_size)

    @property
    def steps(self) -> int:
        """All steps."""
        return self.epochs * self.steps_per_epoch

    def evaluates_after(self, step: int) -> bool:
        """Whether an evaluation follows when `step` steps are done; the last of an epoch always has one."""
        done, before = (count * self.evaluations_per_epoch // self.steps_per_epoch for count in (step, step - 1))
        return done > before


@dataclass
class State:
    """Where a run stands: what its checkpoint holds beside the tensors."""

    stopping: EarlyStopping
    step: int = 0
    seconds: float = 0.0  # spent on training steps
    nats: float = 0.0  # since the last evaluation
    masked: int = 0
    history: list[dict[str, float]] = field(default_factory=list)


def plan_posts(plan: Plan, steps: int) -> int:
    """How many posts `steps` steps have seen, repeats counted; within an epoch as if batches had as many posts each."""
    epochs, rest = divmod(steps, plan.steps_per_epoch)
    return epochs * plan.posts + min(rest * plan.batch_size, plan.posts)


class Meter:
    """Sums losses on the device, notices one that is not a number, and tells how the run goes, where it `speaks`."""

    def __init__(self, name: str, device: torch.device, plan: Plan, state: State, speaks: bool = True) -> None:
        self.name, self.plan, self.state, self.device, self.speaks = name, plan, state, device, speaks
        self.nats = torch.zeros((), dtype=torch.float64, device=device)
        self.first_bad = torch.full((), NO_STEP, dtype=torch.int64, device=device)
        self.started = self.told = self.written = time.monotonic()

    def add(self, loss: Tensor, masked: int, norm: Tensor, posts: int) -> None:
        """Count one step of `posts` posts; only now and then look at the sums, which waits for the device."""
        self.state.step += 1
        self.state.masked += masked
        self.nats += loss.double() * masked
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        self.first_bad = torch.where(bad, self.first_bad.clamp(max=self.state.step), self.first_bad)
        if self.speaks and time.monotonic() - self.told > PROGRESS_SECONDS:
            self.flush()
            self._tell(f"{self._train_bits():.3f} bits")

    def flush(self) -> None:
        """Move the sums from the device into the state.

        Raises:
            UserError: a loss or gradient was not a number.
        """
        self.state.nats += float(self.nats)
        self.nats.zero_()
        step, now = int(self.first_bad), time.monotonic()
        self.state.seconds += now - self.started
        self.started = now
        if step < NO_STEP:
            raise UserError(f"{self.name}: loss or gradient is not a number at step {step}; lower learning_rate")

    def read(self) -> float:
        """The mean training loss in bits since the last call."""
        self.flush()
        bits = self._train_bits()
        self.state.nats, self.state.masked = 0.0, 0
        return bits

    def evaluated(self, bits: float) -> None:
        """Tell the validation loss; the time of the evaluation is not training time."""
        self.started = time.monotonic()
        if self.speaks:
            self._tell(f"validation {bits:.3f} bits")

    def checkpoint_due(self, after: float) -> bool:
        """Whether the last checkpoint is more than `after` seconds ago."""
        due = time.monotonic() - self.written > after
        self.written = time.monotonic() if due else self.written
        return due

    def _train_bits(self) -> float:
        return self.state.nats / max(self.state.masked, 1) / math.log(2)

    def _tell(self, loss: str) -> None:
        self.told = time.monotonic()
        step, rate = self.state.step, plan_posts(self.plan, self.state.step) / max(self.state.seconds, 1e-9)
        left = (self.plan.steps - step) / step * self.state.seconds / 60
        line = f"{self.name}: step {step}/{self.plan.steps}, {loss}, {rate:.0f} posts per second, {left:.1f} min left"
        print(line, file=sys.stderr, flush=True)
