"""The training loop of the stages `adapt` and `pretrain`: masked language modelling with early stopping (§3.2, App. B).

Library only. It resumes after a kill from a checkpoint under `data/checkpoints/` and then gives the same result as an
undisturbed run: order, masks and dropout depend on (seed, epoch, step), never on how often the process was started.

Several processes (`ranks.py`) train one model: each takes its share of the posts of every batch, the loss is divided by
the masked tokens of all shares, and gradients are added up before they are clipped, so that the steps are those of one
process within rounding. The same run may go on with another number of processes. Dropout alone is drawn by each process
for itself: with it, the loss of two processes differs from that of one as that of another seed of dropout would.
"""

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ntulm.device import attention_without_plans, has_bf16, mixed_precision, to_device
from ntulm.errors import UserError
from ntulm.language_model.batches import (
    FIXED,
    MaskedBatch,
    Masking,
    Tokens,
    length_order,
    training_order,
    uniform,
)
from ntulm.language_model.checkpoint import (
    Checkpoint,
    fingerprint,
    restore_training,
    training_tensors,
    weights_fingerprint,
)
from ntulm.language_model.dropout import replace_dropout
from ntulm.language_model.model import NtulmForMaskedLM, token_losses
from ntulm.language_model.progress import EarlyStopping, Meter, Plan, State, plan_posts
from ntulm.language_model.ranks import ALONE, Ranks
from ntulm.language_model.slots import Hide, Slots

if TYPE_CHECKING:
    from ntulm.language_model.config import Slot, Training

MAX_GRADIENT_NORM = 1.0  # the Hugging Face Trainer's default, which the paper used
CHECKPOINT_SECONDS = 300  # beside the checkpoint at each evaluation
SLOT_STREAM, POST_STREAM = 3, 5  # of draws; the masks have 0 to 2, the posts that probes see without NTUs 4


@dataclass(frozen=True)
class Examples:
    """Tokenised posts and, for a model with slots, their NTUs."""

    tokens: Tokens
    slots: Slots | None = None
    ntus_of_tokens: np.ndarray | None = None  # int64 [R, T], numbers of NTUs that are left out of the slots while the
    # token is masked, -1 for none (`ntulm/language_model/slots.py`); None: nothing is left out

    def slot_tensors(self, posts: np.ndarray, device: torch.device, hide: Hide | None = None) -> dict[str, Tensor]:
        """What the model wants beside tokens, by argument; nothing without slots. `hide` as in `Slots.vectors`."""
        return {} if self.slots is None else self.slots.tensors(posts, device, hide)

    def hide(self, batch: MaskedBatch, slot: "Slot", seed: int, epoch: int) -> Hide | None:
        """Which NTUs do not count for a batch; None: all do.

        Args:
            batch: of these posts.
            slot: `dropout`, the share of the NTUs that are left out, and `hidden_posts`, the share of the posts that
                lose all of theirs, drawn anew in every epoch.
            seed: of the draws.
            epoch: of the draws.
        """
        if not slot.dropout and not slot.hidden_posts and self.ntus_of_tokens is None:
            return None
        own = np.zeros(0, np.int64) if self.ntus_of_tokens is None else self.ntus_of_tokens[:, batch.places]

        def hidden(numbers: np.ndarray) -> np.ndarray:
            dropped = (uniform(numbers, seed, epoch, SLOT_STREAM) < slot.dropout) | np.isin(numbers, own)
            if self.slots is not None and slot.hidden_posts:
                owners = self.slots.owners(numbers)
                dropped |= uniform(owners, seed, epoch, POST_STREAM) < slot.hidden_posts
            return dropped

        return hidden


@dataclass(frozen=True)
class Outcome:
    """What a training run tells: goes into the metrics file, but for the rate, which no two runs have in common."""

    steps: int
    posts_per_second: float
    history: list[dict[str, float]]


@dataclass(frozen=True)
class Job:
    """Everything that a training run needs; the model has its final shape and is on its device."""

    name: str
    model: NtulmForMaskedLM
    train: Examples
    validation: Examples
    masking: Masking
    settings: "Training"
    seed: int
    slot: "Slot | None"  # how slots are trained; None for a model without any
    checkpoint: Path
    ranks: Ranks = ALONE  # the processes that train it together


def train_model(job: Job) -> Outcome:
    """Train `job.model` in place, up to the weights with the best validation loss; these are the same on all ranks.

    Raises:
        UserError: a loss or a gradient is not a number; names the step. Or ranks differ in posts or settings, or ended.
    """
    settings, model, ranks = job.settings, job.model, job.ranks
    plan = Plan(len(job.train.tokens), settings.batch_size, settings.epochs, settings.evaluations_per_epoch)
    if model.device.type == "cpu":
        replace_dropout(model)  # a GPU has a kernel for it
    ranks.share_weights(model)
    optimizer = make_optimizer(model, settings, job.slot)
    checkpoint = Checkpoint(job.checkpoint, _fingerprint(job))
    ranks.check_same(checkpoint.fingerprint, f"{job.name}: posts, settings, torch or kind of device")
    state, best = _resume(job, optimizer, checkpoint)
    meter = Meter(job.name, model.device, plan, state, speaks=ranks.leads)
    order: list[np.ndarray] = []
    while state.step < plan.steps and not state.stopping.stopped:
        epoch, place = divmod(state.step, plan.steps_per_epoch)
        if not order or place == 0:
            order = training_order(job.train.tokens.lengths, settings.batch_size, job.seed, epoch)
        factor = learning_rate_factor(state.step, plan.steps, settings.warmup_share)
        meter.add(*train_step(job, optimizer, order[place], epoch, state.step, factor), len(order[place]))
        if plan.evaluates_after(state.step):
            train_bits = meter.read()
            validation_bits = float(np.mean(evaluate(job, job.validation).bits))
            state.history.append({"step": state.step, "train_bits": train_bits, "validation_bits": validation_bits})
            if state.stopping.better(validation_bits):
                best = {name: weight.detach().clone() for name, weight in model.named_parameters()}
            meter.evaluated(validation_bits)
        # By the clock, which ranks do not have in common: nothing in here may wait for the others.
        if ranks.leads and (plan.evaluates_after(state.step) or meter.checkpoint_due(CHECKPOINT_SECONDS)):
            meter.flush()
            _write(checkpoint, job, optimizer, state, best)
    _load_weights(model, best)
    return Outcome(state.step, plan_posts(plan, state.step) / max(state.seconds, 1e-9), state.history)


def train_step(
    job: Job, optimizer: torch.optim.Optimizer, posts: np.ndarray, epoch: int, step: int, factor: float
) -> tuple[Tensor, int, Tensor]:
    """One update by `posts` int64 [B], of which each rank takes its share.

    Returns:
        The loss, the number of masked tokens and the gradient's norm, those of all ranks, without waiting for them.
    """
    model, ranks = job.model.train(), job.ranks
    share = ranks.share(posts)
    own = share if len(share) else posts[:1]  # fewer posts than ranks: this one counts nothing
    batch = job.masking.batch(job.train.tokens, own, job.seed, epoch)
    masked = job.masking.count(job.train.tokens, posts, job.seed, epoch) if ranks.several else len(batch.places)
    # Dropout follows from the step, so that a resumed run draws the same; each rank draws its own.
    torch.manual_seed((job.seed * 1_000_003 + step) * ranks.count + ranks.own)
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * factor
    hide = job.train.hide(batch, job.slot, job.seed, epoch) if job.slot else None
    slots = job.train.slot_tensors(own, model.device, hide)
    loss = masked_losses(model, batch, slots).sum() / max(masked, 1)
    if not len(share):
        loss = loss * 0.0
    loss.backward()
    loss = ranks.add_up(loss.detach(), model.parameters())
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad()
    return loss, masked, norm


def masked_losses(model: NtulmForMaskedLM, batch: MaskedBatch, slots: dict[str, Tensor]) -> Tensor:
    """-ln p of the masked tokens of a batch: float32 [M], 0 where padded; `slots` are arguments of the model."""
    device = model.device
    input_ids, attention_mask, positions, targets = (
        to_device(part, device) for part in (batch.input_ids, batch.attention_mask, batch.positions, batch.targets)
    )
    with mixed_precision(device), attention_without_plans(device):
        logits = model(input_ids, attention_mask, **slots, positions=positions).logits
    return token_losses(logits, targets)


@dataclass(frozen=True)
class TokenLosses:
    """The loss of each masked token of posts with fixed masks, by post and place."""

    places: np.ndarray  # int64 [M], places in `Tokens.ids`, ascending
    bits: np.ndarray  # float32 [M], -log2 p


@torch.inference_mode()
def evaluate(job: Job, posts: Examples) -> TokenLosses:
    """Measure the model on posts; their masks are the same for every variant, seed and evaluation.

    Each rank measures its share of the batches; all get the losses of all posts, those of one process.

    Raises:
        UserError: a loss is not a number, or no token is masked.
    """
    job.model.eval()
    places, nats = [np.zeros(0, np.int64)], [torch.zeros(0, device=job.model.device)]
    for group in job.ranks.share(length_order(posts.tokens.lengths, job.settings.batch_size)):
        batch = job.masking.batch(posts.tokens, group, seed=0, epoch=FIXED)
        losses = masked_losses(job.model, batch, posts.slot_tensors(group, job.model.device))
        places.append(batch.places)
        nats.append(losses[: len(batch.places)])
    found = job.ranks.gather(torch.from_numpy(np.concatenate(places))).cpu().numpy()
    order = np.argsort(found, kind="stable")
    bits = job.ranks.gather(torch.cat(nats)).cpu().numpy()[order] / np.float32(math.log(2))
    if not len(bits):
        raise UserError(f"{job.name}: no token is masked in {len(posts.tokens)} posts; give more posts or longer ones")
    if not np.isfinite(bits).all():
        raise UserError(f"{job.name}: the loss on held-out posts is not a number; lower learning_rate")
    return TokenLosses(found[order], bits.astype(np.float32))


def make_optimizer(model: NtulmForMaskedLM, settings: "Training", slot: "Slot | None") -> torch.optim.Optimizer:
    """AdamW with the projections' own learning rate; biases and norms are not decayed, as in the HF Trainer."""
    groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((name.startswith("projections."), parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "full_lr": settings.learning_rate * (slot.learning_rate_factor if slot and is_slot else 1.0),
                "weight_decay": settings.weight_decay if is_matrix else 0.0,
            }
            for (is_slot, is_matrix), parameters in groups.items()
        ],
        lr=settings.learning_rate,
        fused=True,
    )


def learning_rate_factor(step: int, steps: int, warmup_share: float) -> float:
    """The share of the full rate at `step` (from 0): linear rise over the warm-up, then linear fall to 0."""
    warmup = math.ceil(steps * warmup_share)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return (steps - step) / max(steps - warmup, 1)


def _fingerprint(job: Job) -> str:
    parts: list[Any] = [job.settings.model_dump(mode="json"), job.seed]
    parts += [job.slot.model_dump(mode="json") if job.slot else None, job.train.ntus_of_tokens is not None]
    parts += [job.model.config.to_dict(), weights_fingerprint(job.model), torch.__version__]
    parts += [job.model.device.type, has_bf16(job.model.device)]
    for posts in (job.train, job.validation):
        parts += [posts.tokens.fingerprint(), posts.slots.fingerprint() if posts.slots else None]
    return fingerprint(*parts)


def _resume(job: Job, optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> tuple[State, dict[str, Tensor]]:
    """The state to go on from and the best weights so far; the first rank reads, all get them."""
    found = job.ranks.from_first(checkpoint.read() if job.ranks.leads else None)
    if found is None:
        return State(EarlyStopping(job.settings.patience)), {}
    tensors, values = found
    restore_training(job.model, optimizer, tensors)
    best = {name.removeprefix("best."): value for name, value in tensors.items() if name.startswith("best.")}
    state = State(**{**values, "stopping": EarlyStopping(**values["stopping"])})
    if job.ranks.leads:
        print(f"{job.name}: resumes after step {state.step}", file=sys.stderr, flush=True)
    return state, best


def _write(
    checkpoint: Checkpoint, job: Job, optimizer: torch.optim.Optimizer, state: State, best: dict[str, Tensor]
) -> None:
    tensors = training_tensors(job.model, optimizer) | {f"best.{name}": value for name, value in best.items()}
    checkpoint.write(tensors, asdict(state))


@torch.no_grad()
def _load_weights(model: NtulmForMaskedLM, weights: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.copy_(weights[name])
