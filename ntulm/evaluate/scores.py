"""What the earlier stages measured, read and checked for the stage `evaluate`.

Reads `data/tasks/TASK/`, `data/probe/VARIANT/SEED/TASK/` and `data/pretrain/VARIANT/SEED/test_losses.safetensors`.
A variant, seed or task that was not run is left out; outputs that do not fit together are a `UserError`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ntulm.errors import UserError
from ntulm.files import read_json
from ntulm.layout import Layout
from ntulm.posts import Posts
from ntulm.variants import BOTH, NAMED, ROLE

if TYPE_CHECKING:
    from ntulm.params import Run

BASELINE = "text"
OF_BASELINE = (
    "post-concat",
    "ntu",
    "history",
    "tfidf",
    "author-id",
    "tfidf+author-id",
    "tfidf+ntu",
)  # systems that are made of the posts and vectors of the baseline
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class ScoredDataset:
    """One data set with the test scores of every system.

    `labels` bool [T, C]; `scores` holds for each system S matrices float32 [T, C], one per seed; `metrics` has the main
    metric first. `splits` are the posts as the systems saw them: a target hashtag is gone.
    """

    task: str
    name: str
    family: str
    metrics: tuple[str, ...]
    splits: dict[str, Posts]
    labels: NDArray[np.bool_]
    scores: dict[str, list[NDArray[np.float32]]]


@dataclass(frozen=True)
class TestLosses:
    """Bits of the masked test tokens [M]: for each system S vectors float64.

    `train_count` is how often the token stands in the training posts of the first seed.
    """

    __test__ = False  # not a test class of pytest

    post: NDArray[np.int32]
    in_hashtag: NDArray[np.bool_]
    train_count: NDArray[np.int64]
    bits: dict[str, list[NDArray[np.float64]]]


def in_order(systems: Iterable[str], variants: Sequence[str]) -> list[str]:
    """Systems in the order of the paper's Table 3: the baseline, the variants of the run in their order, then what is
    made of the baseline; any others by name.
    """
    order = [BASELINE, *(variant for variant in variants if variant != BASELINE), *OF_BASELINE]
    return sorted(systems, key=lambda name: (order.index(name) if name in order else len(order), name))


def shown_variant(variants: Sequence[str]) -> str:
    """The variant that stands for NTULM in Table 4 and the verdict: the paper's, else the one with most roles in its
    slots (of several, the last), else the last beside the baseline.
    """
    others = [variant for variant in variants if variant != BASELINE]
    if BOTH in others or not others:
        return BOTH
    with_slots = [variant for variant in others if variant not in NAMED]
    return max(reversed(with_slots), key=lambda variant: len(re.findall(ROLE, variant)), default=others[-1])


def read_datasets(run: Run, layout: Layout) -> list[ScoredDataset]:
    """The data sets of the tasks of a run, by task and name; a family of two tasks is two, told apart by the task."""
    about = {task: read_json(layout.task(task) / "datasets.json") for task in run.tasks if layout.task(task).is_dir()}
    tasks_of: dict[str, set[str]] = defaultdict(set)
    for task, of_task in about.items():
        for one in of_task.values():
            tasks_of[one["family"]].add(task)
    return [
        _read_dataset(
            run, task, name, one, one["family"] + (f" ({task})" if len(tasks_of[one["family"]]) > 1 else ""), layout
        )
        for task, of_task in about.items()
        for name, one in sorted(of_task.items())
    ]


def read_test_losses(run: Run, layout: Layout) -> TestLosses | None:
    """The masked-token losses of every variant that was pretrained, or None.

    Raises:
        UserError: two variants were measured on different masks.
    """
    found = _by_system(
        (variant, seed, path)
        for variant in run.variants
        for seed in run.seeds
        if (path := layout.pretrain(variant, seed) / "test_losses.safetensors").is_file()
    )
    if not found:
        return None
    tensors = {system: [load_file(path) for path in paths] for system, paths in found.items()}
    first_path = next(iter(found.values()))[0]
    first = next(iter(tensors.values()))[0]
    for system, paths in found.items():
        for path, other in zip(paths, tensors[system], strict=True):
            if any(not np.array_equal(first[key], other[key]) for key in ("post", "token", "in_hashtag")):
                raise UserError(f"{path}: other masked tokens than {first_path}; run `dvc repro` to pretrain both anew")
    return TestLosses(
        post=first["post"],
        in_hashtag=first["in_hashtag"].astype(bool),
        train_count=first["train_count"],
        bits={
            system: [one["bits"].astype(np.float64) for one in tensors[system]]
            for system in in_order(tensors, run.variants)
        },
    )


def _read_dataset(run: Run, task: str, name: str, about: dict[str, Any], family: str, layout: Layout) -> ScoredDataset:
    table = pq.read_table(layout.task(task) / f"{name}.parquet")
    splits = {part: Posts(table.filter(pc.equal(table["split"], part))) for part in SPLITS}
    labels = _label_matrix(splits["test"].table["labels"].to_pylist(), len(about["classes"]))
    return ScoredDataset(
        task=task,
        name=name,
        family=family,
        metrics=tuple(dict.fromkeys([about["metric"], *about["metrics"]])),
        splits=splits,
        labels=labels,
        scores=_read_scores(run, task, name, labels.shape, layout),
    )


def _label_matrix(labels: Sequence[Sequence[int]], classes: int) -> NDArray[np.bool_]:
    matrix = np.zeros((len(labels), classes), dtype=bool)
    for row, of_post in enumerate(labels):
        matrix[row, list(of_post)] = True
    return matrix


def _read_scores(
    run: Run, task: str, dataset: str, shape: tuple[int, ...], layout: Layout
) -> dict[str, list[NDArray[np.float32]]]:
    found = _by_system(
        (path.name.removesuffix(f".{dataset}.safetensors"), seed, path)
        for variant in run.variants
        for seed in run.seeds
        for path in sorted(layout.scores(variant, seed, task).glob(f"*.{dataset}.safetensors"))
    )
    return {system: [_score_matrix(path, shape) for path in found[system]] for system in in_order(found, run.variants)}


def _score_matrix(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    scores = load_file(path)["scores"]
    if scores.shape != shape:
        raise UserError(f"{path}: scores of shape {scores.shape}, the data set has {shape}; run `dvc repro`")
    return scores.astype(np.float32)


def _by_system(found: Iterable[tuple[str, int, Path]]) -> dict[str, list[Path]]:
    """Group (system, seed, path) by system, keeping the seeds that every system has, so that seeds stay paired."""
    paths: dict[str, dict[int, Path]] = defaultdict(dict)
    for system, seed, path in found:
        paths[system][seed] = path
    shared = set.intersection(*(set(seeds) for seeds in paths.values())) if paths else set()
    if paths and not shared:
        raise UserError(f"no seed of run.seeds was run for all of {', '.join(paths)}; run `dvc repro`")
    return {system: [seeds[seed] for seed in sorted(shared)] for system, seeds in paths.items()}
