"""The search of one probe: ours against the same search with a plain torch loop a trial.

Run: `python -m benchmarks.probe`. Both ask the same sampler and pruner, start from the same weights, see the same
batches, and share the loaded vectors; the time is that of the whole search, the metric after each epoch included.
"""

import copy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.harness import Benchmark, Outcome, run
from ntulm.probe import search as searching
from ntulm.probe import stage as probe
from ntulm.probe.config import Probe

FEATURES, CLASSES, TEST = 384, 20, 2000
SPREAD = 0.02  # accuracy by which ours may be worse before the benchmark fails
SETTINGS = Probe.model_validate(
    {
        "search": True,
        "trials": 6,
        "trials_at_once": 2,
        "startup_trials": 3,
        "warmup_epochs": 2,
        "max_epochs": 8,
        "patience": 3,
        "averaged_epochs": 1.0,
        "learning_rate": [1e-4, 1e-2],
        "weight_decay": [1e-6, 1e-1],
        "dropout": [0.0, 0.5],
        "batch_size": [64, 256],
        "baselines": [],
        "baseline_strengths": [10.0],
        "fixed": {"epochs": 8, "learning_rate": 1e-3, "weight_decay": 0.0, "dropout": 0.0, "batch_size": 64},
    }
)


def prepare(folder: Path, size: int) -> None:
    """Write vectors around the centres of their classes, far enough apart for an accuracy of about three quarters."""
    random = np.random.default_rng(0)
    labels = random.integers(0, CLASSES, size + 2 * TEST)
    centres = random.standard_normal((CLASSES, FEATURES))
    features = 0.13 * centres[labels] + random.standard_normal((len(labels), FEATURES))
    np.savez(folder / "vectors.npz", features=features.astype(np.float32), labels=labels)


def problem(folder: Path) -> searching.Problem:
    """The vectors as the stage sees them."""
    with np.load(folder / "vectors.npz") as file:
        features, labels = file["features"], np.eye(CLASSES, dtype=bool)[file["labels"]]
    split = np.repeat(["train", "validation", "test"], [len(features) - 2 * TEST, TEST, TEST])
    return probe.prepare({"kind": "single", "metric": "accuracy"}, FEATURES, features, labels, split)


def ours(folder: Path) -> Outcome:
    """The search of the stage `probe`."""
    return _searched(folder, SETTINGS, searching.fit)


def torch_loop(folder: Path) -> Outcome:
    """The same search; each trial is a module, automatic differentiation, the fused AdamW and torch's own average."""
    return _searched(folder, SETTINGS.model_copy(update={"trials_at_once": 1}), plain_fit)


def _searched(folder: Path, settings: Probe, fit: Callable[..., searching.Fit]) -> Outcome:
    data = problem(folder)
    plain, searching.fit = searching.fit, fit
    started = time.perf_counter()
    best, _, trials, _ = searching.search(settings, data, 0, "benchmark")
    seconds = time.perf_counter() - started
    searching.fit = plain
    epochs = sum(len(trial["epochs"]) for trial in trials)
    hits = _logits(data, best).argmax(1) == data.test.labels.argmax(1)
    seen, posts = epochs * len(data.train.labels), len(data.train.labels)
    products = 2 * seen * (2 * FEATURES * data.width + 3 * data.width * CLASSES)  # no gradient of the features
    pruned = sum(trial["state"] == "pruned" for trial in trials)
    evidence = {"accuracy": float(hits.mean()), "validation": best.value, "pruned": pruned, "posts": posts}
    return Outcome(seconds, seen, evidence, float(products))


@torch.no_grad()
def _logits(data: searching.Problem, best: searching.Fit) -> np.ndarray:
    """float32 [N, K] of the test posts, outside the measured time."""
    model = searching.MLP(FEATURES, data.width, CLASSES, 0.0).to(data.test.features.device)
    model.load_state_dict(best.weights)
    logits: np.ndarray = model.eval()(data.test.features).float().cpu().numpy()
    return logits


def plain_fit(problem: searching.Problem, section: Probe, settings: Any, seed: int, trial: Any = None) -> searching.Fit:
    """Train one probe as `ntulm.searching.fit` does, with torch's own parts."""
    targets, count = problem.train.targets(problem.kind), len(problem.train.labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = searching.MLP(FEATURES, problem.width, CLASSES, settings.dropout).to(targets.device)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        kept = 1 - 1 / max(1.0, section.averaged_epochs * -(-count // settings.batch_size))
        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(kept))
        best = searching.Fit(float("nan"), 0, {})
        for epoch in range(1, settings.epochs + 1):
            model.train()
            for rows in torch.randperm(count, device=targets.device).split(settings.batch_size):
                optimizer.zero_grad()
                F.cross_entropy(model(problem.train.features[rows]), targets[rows]).backward()
                optimizer.step()
                averaged.update_parameters(model)
            value = searching.evaluate(problem, averaged.module)
            if not best.epoch or value > best.value:
                best = searching.Fit(value, epoch, copy.deepcopy(averaged.module.state_dict()))
            searching.report(trial, value, epoch)
            if epoch - best.epoch >= section.patience:
                break
    return best


def same(evidence: Any) -> str:
    """The chosen probe is as good."""
    ours, other = evidence["ours"], evidence["torch loop"]
    text = "; ".join(
        f"{side}: accuracy {found['accuracy']:.3f} on {TEST} test posts, {found['validation']:.3f} on as many for "
        f"validation, {found['pruned']} of {SETTINGS.trials} trials pruned"
        for side, found in evidence.items()
    )
    if ours["accuracy"] < other["accuracy"] - SPREAD:
        sys.exit(f"the probe of ours is worse: {text}")
    return text


if __name__ == "__main__":
    run(
        Benchmark(
            module="benchmarks.probe",
            title="Searching a probe",
            unit="posts seen",
            prepare=prepare,
            sides={"ours": ours, "torch loop": torch_loop},
            same=same,
            size=8000,
            growth=(4000, 8000, 16000),
            precision="float32",
            limit="small products (a batch has 64 or 256 posts), and the optimizer's passes over all weights.",
        )
    )
