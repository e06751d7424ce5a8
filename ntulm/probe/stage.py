"""Stage `probe`: a small MLP on frozen post vectors, its hyper-parameters searched on validation posts alone (App. B).

Reads `data/tasks/TASK/` and `data/encode/VARIANT/SEED/TASK/`. Writes test scores and the trials of each system and
data set to `data/probe/VARIANT/SEED/TASK/`, its best classifier beside them to `classifiers/SYSTEM.DATASET` there
(`ntulm/probe/classifier.py`), and `metrics/probe/VARIANT-SEED-TASK.json`. Baselines (`ntulm/probe/baselines.py`) are
not kept: they are there to be compared with. Each search is also a study of Optuna in `monitoring/studies/TASK.log`
(`studies.py`).
Command: `ntulm probe --variant VARIANT --seed SEED --task TASK`.

N posts, F features, H hidden (the backbone's width), C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from ntulm.errors import UserError
from ntulm.files import read_json, whole_directory, write_json
from ntulm.layout import Layout
from ntulm.probe.baselines import HISTORY, Posts, history, linear, parts_of
from ntulm.probe.classifier import Classifier, Scaling, best_threshold, probabilities, save_classifier
from ntulm.probe.metrics import metric
from ntulm.probe.search import Fit, Problem, Split, fit, search
from ntulm.probe.studies import keep_study, study_name
from ntulm.probe.systems import NTU, Apart, System, systems

if TYPE_CHECKING:
    from ntulm.probe.config import Probe

SPLITS = ("train", "validation", "test")
CLASSIFIERS = "classifiers"  # the folder beside the scores


@dataclass(frozen=True)
class Solution:
    """The best probe of one system on one data set: what it says of the test posts, and how it was found."""

    scores: NDArray[np.float16]  # of the test posts, [T, C]
    figures: dict[str, Any]  # its entry in the metrics file
    trials: list[dict[str, Any]]
    best: Fit
    bare: Fit | None  # of posts of which nothing is known, where they have a probe of their own
    study: optuna.Study | None = None  # of a search


def run(probe: Probe, variant: str, seed: int, task: str, layout: Layout) -> None:
    """Search, train and score the probes of one variant and seed on every data set of one task.

    The variant `text` also writes the systems `post-concat` (§5.3), its vectors with the mean NTU vector after them,
    `ntu`, that vector alone, and the baselines `probe.baselines`.

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
            found = systems(vectors, variant)
            if len(found[0].features) != len(split):
                rows = len(found[0].features)
                raise UserError(f"{vectors}: {rows} rows, {name} has {len(split)}; run `ntulm encode` again")
            about = {"task": task, "dataset": name, "variant": variant, "seed": seed, "metric": dataset["metric"]}
            if variant == "text" and probe.baselines:
                seen = _seen(posts, split, found)
                found += _history(probe, seen, found[0])
                for baseline, figures in _linear(probe, seen, dataset, labels, name, directory):
                    results.setdefault(baseline, {})[name] = figures
            for system in found:
                problem = prepare(dataset, system.width, system.features, labels, split, system.apart)
                solution = solve(probe, problem, dataset["metrics"], seed, f"{system.name} on {name}")
                _keep(problem, solution, system, dataset["classes"], about, directory, layout)
                results.setdefault(system.name, {})[name] = solution.figures
    write_json(layout.metrics("probe", variant, seed, task), results)


def _keep(
    problem: Problem,
    solution: Solution,
    system: System,
    classes: list[str],
    about: dict[str, Any],
    directory: Path,
    layout: Layout,
) -> None:
    """The scores, the trials, the study and, but for a baseline, the classifier of a system."""
    name = f"{system.name}.{about['dataset']}"
    save_file({"scores": solution.scores}, directory / f"{name}.safetensors")
    write_json(directory / f"{name}.trials.json", solution.trials)
    if solution.study is not None:
        title = study_name(about["dataset"], system.name, about["seed"])
        of_study = {key: about[key] for key in ("variant", "metric")}
        keep_study(solution.study, title, of_study, layout.studies(about["task"]))
    if system.name != HISTORY:
        of_classifier = {key: about[key] for key in ("task", "dataset", "variant", "seed")}
        of_classifier |= {"system": system.name, "precision": system.precision, "classes": classes}
        kept = classifier_of(problem, solution, of_classifier)
        save_classifier(kept, directory / CLASSIFIERS / name)


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


def _seen(path: Path, split: NDArray, found: list[System]) -> Posts:
    """What the baselines look at; `found` are the systems of the variant `text`."""
    table = pq.read_table(path, columns=["text", "author"])
    ntu = next((system.features for system in found if system.name == NTU), None)
    return Posts(table["text"].to_pylist(), table["author"].to_pylist(), split, ntu)


def _history(probe: Probe, posts: Posts, text: System) -> list[System]:
    """The baseline `history`, where it is wanted and an author has two posts."""
    earlier = history(text.features, posts.authors, posts.split) if HISTORY in probe.baselines else None
    return [] if earlier is None else [text._replace(name=HISTORY, features=np.hstack([text.features, earlier]))]


def _linear(
    probe: Probe, posts: Posts, dataset: dict[str, Any], labels: NDArray[np.bool_], name: str, directory: Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each linear baseline that is wanted and possible, and its entry in the metrics file; writes its scores."""
    parts = parts_of(posts, probe.baselines)
    for system in probe.baselines:
        if system == HISTORY:
            continue
        found = linear(system, parts, labels, posts.split, dataset["kind"], dataset["metric"], probe.baseline_strengths)
        if found is None:
            continue
        save_file({"scores": found.scores}, directory / f"{system}.{name}.safetensors")
        figures = _figures(dataset["metrics"], labels[posts.split == "test"], found.scores)
        tried = {"validation": found.validation, "trials": len(probe.baseline_strengths)}
        yield system, figures | tried | {"best": {"strength": found.strength}}


def _figures(metrics: list[str], labels: NDArray[np.bool_], scores: NDArray[np.float16]) -> dict[str, Any]:
    """Metrics of the scores as they are stored, so that `evaluate` finds the same figures; null where undefined."""
    values = {name: metric(name, labels, scores) for name in metrics}
    return {name: None if np.isnan(value) else value for name, value in values.items()} | {"posts": len(scores)}
