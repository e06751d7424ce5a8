"""Stage `probe`: a small MLP on frozen post vectors, its hyper-parameters searched on validation posts alone (App. B).

Reads `data/tasks/TASK/` and `data/encode/VARIANT/SEED/TASK/`. Writes test scores and the trials of each system and
data set to `data/probe/VARIANT/SEED/TASK/`, its best classifier beside them to `classifiers/SYSTEM.DATASET` there
(`ntulm/probe/classifier.py`), and `metrics/probe/VARIANT-SEED-TASK.json`. The baseline `tfidf` is not kept: it is
there to be compared with. Each search is also a study of Optuna in `monitoring/studies/TASK.log` (`studies.py`).
Command: `ntulm probe --variant VARIANT --seed SEED --task TASK`.

N posts, F features, H hidden (the backbone's width), C classes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from ntulm.errors import UserError
from ntulm.files import read_json, whole_directory, write_json
from ntulm.layout import Layout
from ntulm.probe.classifier import Classifier, Scaling, best_threshold, probabilities, save_classifier
from ntulm.probe.metrics import metric
from ntulm.probe.perceptron import Perceptron
from ntulm.probe.studies import keep_study, study_name
from ntulm.probe.systems import Apart, systems
from ntulm.probe.tfidf import tfidf_scores

if TYPE_CHECKING:
    from ntulm.probe.config import FixedProbe, Probe

_GENERATOR = Lock()
TFIDF = "tfidf"
SPLITS = ("train", "validation", "test")
CLASSIFIERS = "classifiers"  # the folder beside the scores


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


@dataclass(frozen=True)
class Solution:
    """The best probe of one system on one data set: what it says of the test posts, and how it was found."""

    scores: NDArray[np.float16]  # of the test posts, [T, C]
    figures: dict[str, Any]  # its entry in the metrics file
    trials: list[dict[str, Any]]
    best: Fit
    bare: Fit | None  # of posts of which nothing is known, where they have a probe of their own
    study: optuna.Study | None = None  # of a search


class MLP(nn.Sequential):
    """Two layers: F to H with tanh, then H to C (App. B: 768 to 768 to classes)."""

    def __init__(self, features: int, width: int, classes: int, dropout: float) -> None:
        super().__init__(nn.Linear(features, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, classes))


def run(probe: Probe, variant: str, seed: int, task: str, layout: Layout) -> None:
    """Search, train and score the probes of one variant and seed on every data set of one task.

    The variant `text` also writes the systems `post-concat` (§5.3), its vectors with the mean NTU vector after them,
    `ntu`, that vector alone, and `tfidf`, which is no probe: logistic regression on the words.

    Raises:
        UserError: vectors that are missing or do not have the rows of the data set, or a search that finds nothing.
    """
    datasets = read_json(layout.task(task) / "datasets.json")
    results: dict[str, dict[str, Any]] = {}
    with whole_directory(layout.scores(variant, seed, task)) as directory:
        (directory / CLASSIFIERS).mkdir()
        for name, dataset in datasets.items():
            posts = layout.task(task) / f"{name}.parquet"
            vectors = layout.vectors(variant, seed, task) / f"{name}.safetensors"
            split, labels = read_labels(posts, len(dataset["classes"]))
            for system in systems(vectors, variant):
                if len(system.features) != len(split):
                    rows = len(system.features)
                    raise UserError(f"{vectors}: {rows} rows, {name} has {len(split)}; run `ntulm encode` again")
                problem = prepare(dataset, system.width, system.features, labels, split, system.apart)
                solution = solve(probe, problem, dataset["metrics"], seed, f"{system.name} on {name}")
                save_file({"scores": solution.scores}, directory / f"{system.name}.{name}.safetensors")
                write_json(directory / f"{system.name}.{name}.trials.json", solution.trials)
                if solution.study is not None:
                    about_study = {"variant": variant, "metric": dataset["metric"]}
                    title = study_name(name, system.name, seed)
                    keep_study(solution.study, title, about_study, layout.studies(task))
                about = {"task": task, "dataset": name, "system": system.name, "variant": variant, "seed": seed}
                about |= {"precision": system.precision, "classes": dataset["classes"]}
                kept = classifier_of(problem, solution, about)
                save_classifier(kept, directory / CLASSIFIERS / f"{system.name}.{name}")
                results.setdefault(system.name, {})[name] = solution.figures
            if variant == "text" and probe.tfidf_strengths:
                path = directory / f"{TFIDF}.{name}.safetensors"
                results.setdefault(TFIDF, {})[name] = _tfidf(probe, posts, dataset, labels, split, path)
    write_json(layout.metrics("probe", variant, seed, task), results)


def read_labels(path: Path, classes: int) -> tuple[NDArray, NDArray[np.bool_]]:
    """The split of each row, [N], and its labels, bool [N, C]."""
    if not path.is_file():
        raise UserError(f"{path}: not found; run `ntulm tasks` first")
    table = pq.read_table(path, columns=["split", "labels"])
    column = table["labels"].combine_chunks()
    rows = np.repeat(np.arange(len(table)), column.value_lengths().to_numpy())
    labels = np.zeros((len(table), classes), dtype=bool)
    labels[rows, column.flatten().to_numpy()] = True
    return np.asarray(table["split"].to_pylist()), labels


def prepare(
    dataset: dict[str, Any],
    width: int,
    features: NDArray,
    labels: NDArray,
    split: NDArray,
    apart: Apart | None = None,
) -> Problem:
    """Standardise each feature by its mean and deviation on train posts, and put the splits on the device.

    A departure from the paper, the same for every system: post-concat joins two spaces of different scale, and what
    one learning rate makes of them must not depend on that. With `apart`, posts of which nothing is known get a problem
    of their own: all posts to learn from as if nothing were known of them.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scaling = Scaling.of(features[split == "train"])
    scaled = torch.from_numpy(scaling(features)).to(device)
    chosen = {name: np.flatnonzero(split == name) for name in SPLITS}
    train, validation, test = (
        Split(scaled[torch.from_numpy(rows).to(device)], labels[rows]) for rows in chosen.values()
    )
    problem = Problem(dataset["kind"], dataset["metric"], width, scaling, train, validation, test)
    if apart is None:
        return problem
    hidden = np.where((split == "test")[:, None], features, apart.hidden)  # test posts are scored as they are
    bare = prepare(dataset, width, hidden, labels, split)
    return replace(problem, bare=bare, known=apart.known[chosen["test"]])


def solve(probe: Probe, problem: Problem, metrics: list[str], seed: int, where: str) -> Solution:
    """Search, or train with the fixed settings, and score the test posts.

    Raises:
        UserError: no trial gave a probe, or the metric is undefined on the validation posts.
    """
    study = None
    if probe.search:
        best, settings, trials, study = search(probe, problem, seed, where)
    else:
        settings = probe.fixed
        best = fit(problem, probe, settings, seed)
        trials = [{"number": 0, "state": "complete", "value": best.value, "epoch": best.epoch, **settings.model_dump()}]
    if not np.isfinite(best.value):
        raise UserError(f"probe: {where}: {problem.metric} is undefined on the validation posts; give them more posts")
    scores = probabilities(best.layers, problem.test.features, problem.kind)
    bare = None
    if problem.bare is not None:  # the settings that were found, so that the search costs nothing more
        bare = fit(problem.bare, probe, settings, seed)
        if not np.isfinite(bare.value):
            raise UserError(f"probe: {where}: with nothing known, {problem.metric} is undefined on validation posts")
        unknown = probabilities(bare.layers, problem.bare.test.features, problem.kind)
        assert problem.known is not None
        scores = np.where(problem.known[:, None], scores, unknown)
    result = _figures(metrics, problem.test.labels, scores)
    result |= {"validation": best.value, "trials": len(trials)}
    result["best"] = {**settings.model_dump(), "epochs": best.epoch}
    return Solution(scores, result, trials, best, bare, study)


def classifier_of(problem: Problem, solution: Solution, about: dict[str, Any]) -> Classifier:
    """The best probe as what is kept of it; its threshold is chosen on validation posts."""
    measured = {
        "kind": problem.kind,
        "threshold": _threshold(problem, solution.best),
        "metric": problem.metric,
        "validation": solution.best.value,
        "test": solution.figures[problem.metric],
        "posts": {name: len(getattr(problem, name).labels) for name in SPLITS},
    }
    bare = None
    if problem.bare is not None and solution.bare is not None:
        of_bare = {"threshold": _threshold(problem.bare, solution.bare), "validation": solution.bare.value}
        bare = Classifier(solution.bare.layers, problem.bare.scaling, about | measured | of_bare)
    return Classifier(solution.best.layers, problem.scaling, about | measured, bare)


def _threshold(problem: Problem, best: Fit) -> float | None:
    if problem.kind != "multi":
        return None
    scores = probabilities(best.layers, problem.validation.features, problem.kind)
    return best_threshold(scores, problem.validation.labels)


def _tfidf(
    probe: Probe, posts: Path, dataset: dict[str, Any], labels: NDArray[np.bool_], split: NDArray, path: Path
) -> dict[str, Any]:
    texts = pq.read_table(posts, columns=["text"])["text"].to_pylist()
    scores, validation, strength = tfidf_scores(
        texts, labels, split, dataset["kind"], dataset["metric"], probe.tfidf_strengths
    )
    save_file({"scores": scores}, path)
    result = _figures(dataset["metrics"], labels[split == "test"], scores)
    return result | {"validation": validation, "trials": len(probe.tfidf_strengths), "best": {"strength": strength}}


def _figures(metrics: list[str], labels: NDArray[np.bool_], scores: NDArray[np.float16]) -> dict[str, Any]:
    """Metrics of the scores as they are stored, so that `evaluate` finds the same figures; null where undefined."""
    values = {name: metric(name, labels, scores) for name in metrics}
    return {name: None if np.isnan(value) else value for name, value in values.items()} | {"posts": len(scores)}


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
