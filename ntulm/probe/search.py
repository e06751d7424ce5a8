"""The search for a probe: settings drawn by Optuna, probes trained on frozen vectors, judged on validation posts.

Library of `ntulm/probe/stage.py`. N posts, F features, H hidden (the backbone's width), C classes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ntulm.errors import UserError
from ntulm.probe.classifier import Scaling
from ntulm.probe.metrics import metric
from ntulm.probe.perceptron import Perceptron

if TYPE_CHECKING:
    from ntulm.probe.config import FixedProbe, Probe

_GENERATOR = Lock()


@dataclass(frozen=True)
class Split:
    """One split on the device: `features` float32 [N, F] and `labels` bool [N, C] (numpy, for the metrics)."""

    features: Tensor
    labels: NDArray[np.bool_]

    def targets(self, kind: str) -> Tensor:
        """What the loss takes: int64 [N] (softmax) or float32 [N, C] (sigmoid)."""
        labels = torch.from_numpy(self.labels).to(self.features.device)
        return labels.float() if kind == "multi" else labels.int().argmax(1)


@dataclass(frozen=True)
class Problem:
    """One system on one data set: `kind` (single, multi), `metric` to search for, the scaling and the three splits."""

    kind: str
    metric: str
    width: int
    scaling: Scaling
    train: Split
    validation: Split
    test: Split
    bare: Problem | None = None  # with nothing known of the posts to learn from; None: one probe for all posts
    known: NDArray[np.bool_] | None = None  # [T], where there is `bare`: the test posts that its probe does not score


@dataclass
class Fit:
    """A trained probe at its best epoch: metric on validation posts, epochs from 1, weights on the device."""

    value: float
    epoch: int
    weights: dict[str, Tensor]

    @property
    def layers(self) -> tuple[Tensor, ...]:
        """The weights in the order of the layers."""
        return tuple(self.weights.values())


class MLP(nn.Sequential):
    """Two layers: F to H with tanh, then H to C (App. B: 768 to 768 to classes)."""

    def __init__(self, features: int, width: int, classes: int, dropout: float) -> None:
        super().__init__(nn.Linear(features, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, classes))


def search(
    probe: Probe, problem: Problem, seed: int, where: str
) -> tuple[Fit, FixedProbe, list[dict[str, Any]], optuna.Study]:
    """Optuna's search over learning rate, weight decay, dropout, batch size and, through the best epoch, epochs.

    Space, sampler, pruner, number of trials and seeds are the same for every system; test posts are never looked at.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(n_startup_trials=probe.startup_trials, seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=probe.startup_trials, n_warmup_steps=probe.warmup_epochs),
    )
    best: tuple[Fit, FixedProbe] | None = None
    epochs: dict[int, int] = {}
    for first in range(0, probe.trials, probe.trials_at_once):
        trials = [study.ask() for _ in range(first, min(first + probe.trials_at_once, probe.trials))]
        settings = [suggest(probe, trial) for trial in trials]
        for trial, own, found in zip(
            trials, settings, _side_by_side(problem, probe, settings, seed, trials), strict=True
        ):
            if found is None:
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                continue
            study.tell(trial, found.value)
            epochs[trial.number] = found.epoch
            if best is None or found.value > best[0].value:
                best = found, own
    if best is None:
        raise UserError(f"probe: {where}: every trial diverged or {problem.metric} is undefined on validation posts")
    return *best, [_describe(trial, epochs.get(trial.number)) for trial in study.trials], study


def _side_by_side(
    problem: Problem, probe: Probe, settings: list[FixedProbe], seed: int, trials: list[optuna.Trial]
) -> list[Fit | None]:
    """Train trials at the same time, on a share of the cores each; None for one that was pruned.

    At a probe's size two trials on a core each are faster than one after the other on two. None sees what another of
    them reports: the pruner looks at trials that are complete, and the study hears of these together, later.
    """

    def train(own: FixedProbe, trial: optuna.Trial) -> Fit | None:
        try:
            return fit(problem, probe, own, seed, trial)
        except optuna.TrialPruned:
            return None

    if len(trials) == 1:
        return [train(settings[0], trials[0])]
    threads = max(1, torch.get_num_threads() // len(trials))
    with ThreadPoolExecutor(len(trials), initializer=partial(torch.set_num_threads, threads)) as pool:
        return list(pool.map(train, settings, trials))


def suggest(probe: Probe, trial: optuna.Trial) -> FixedProbe:
    """One point of the search space."""
    return type(probe.fixed)(
        epochs=probe.max_epochs,
        learning_rate=trial.suggest_float("learning_rate", *probe.learning_rate, log=True),
        weight_decay=trial.suggest_float("weight_decay", *probe.weight_decay, log=True),
        dropout=trial.suggest_float("dropout", *probe.dropout),
        batch_size=trial.suggest_categorical("batch_size", probe.batch_size),
    )


def _describe(trial: optuna.trial.FrozenTrial, epoch: int | None) -> dict[str, Any]:
    steps = {str(step): value for step, value in sorted(trial.intermediate_values.items())}
    state = trial.state.name.lower()
    value = trial.value if epoch is not None else None
    return {"number": trial.number, "state": state, "value": value, "epoch": epoch, "epochs": steps, **trial.params}


def fit(problem: Problem, probe: Probe, settings: FixedProbe, seed: int, trial: optuna.Trial | None = None) -> Fit:
    """Train one probe and keep the epoch that is best on validation posts; stop `patience` epochs after it.

    Judged and kept is a running average of the weights over about `averaged_epochs` epochs: the weights of one moment
    lean to the batches just seen, by more than systems differ where classes are rare (docs/decisions/0004).
    Every trial starts from the same weights and sees the same batches for a seed: settings are all that differs.

    Raises:
        optuna.TrialPruned: the trial is not promising, diverged, or the metric is undefined.
    """
    train = problem.train
    targets, count = train.targets(problem.kind), len(train.labels)
    steps = -(-count // settings.batch_size)
    with _GENERATOR, torch.random.fork_rng():  # the library's start draws from the generator that all threads share
        torch.manual_seed(seed)
        model = _model(problem, settings.dropout)
    device = train.features.device
    generator = torch.Generator(device).manual_seed(seed)
    probed = Perceptron(model, settings.learning_rate, settings.weight_decay, generator)
    kept = 1 - 1 / max(1.0, probe.averaged_epochs * steps)  # of the average, at each step
    best = Fit(float("nan"), 0, {})
    for epoch in range(1, settings.epochs + 1):
        for rows in torch.randperm(count, device=device, generator=generator).split(settings.batch_size):
            probed.step(train.features[rows], targets[rows], problem.kind, kept)
        weights = probed.average()
        model.load_state_dict(weights)
        value = evaluate(problem, model)
        if not best.epoch or value > best.value:
            best = Fit(value, epoch, weights)
        if trial is not None:
            report(trial, value, epoch)
        if np.isnan(value) or epoch - best.epoch >= probe.patience:
            break
    return best


def report(trial: optuna.Trial, value: float, epoch: int) -> None:
    """Tell the study the metric after an epoch.

    Raises:
        optuna.TrialPruned: the trial is not promising, or the metric is undefined.
    """
    if not np.isnan(value):
        trial.report(value, epoch)
    if np.isnan(value) or trial.should_prune():
        raise optuna.TrialPruned


@torch.no_grad()
def evaluate(problem: Problem, model: nn.Module) -> float:
    """The metric on validation posts; nan where it is undefined or the model has diverged."""
    model.eval()
    logits = model(problem.validation.features)
    if not torch.isfinite(logits).all():
        return float("nan")
    return metric(problem.metric, problem.validation.labels, logits.float().cpu().numpy())


def _model(problem: Problem, dropout: float) -> MLP:
    features, classes = problem.train.features.shape[1], problem.train.labels.shape[1]
    return MLP(features, problem.width, classes, dropout).to(problem.train.features.device)
