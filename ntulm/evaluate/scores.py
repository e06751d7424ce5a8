"""What the earlier stages measured, read and checked for the stage `evaluate`.

Reads `data/tasks/TASK/`, `data/probe/VARIANT/SEED/TASK/` and `data/pretrain/VARIANT/SEED/test_losses.safetensors`.
A variant, seed or task that was not run is left out; outputs that do not fit together are a `UserError`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors.numpy import load_file

from ntulm import layout
from ntulm.errors import UserError
from ntulm.files import read_json
from ntulm.variants import VARIANTS

if TYPE_CHECKING:
    from ntulm.params import Run

SYSTEM_ORDER = (*VARIANTS, "post-concat", "ntu", "tfidf")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class SplitPosts:
    """The NTUs of one split of a data set, after the target hashtag was removed; one entry a post."""

    authors: list[str | None]
    hashtags: list[list[str]]


@dataclass(frozen=True)
class ScoredDataset:
    """One data set with the test scores of every system.

    `labels` bool [T, C]; `scores` holds for each system S matrices float32 [T, C], one a seed; `metrics` has the main
    metric first.
    """

    task: str
    name: str
    family: str
    metrics: tuple[str, ...]
    splits: dict[str, SplitPosts]
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


def in_order(systems: Iterable[str]) -> list[str]:
    """Systems in the order of the paper's Table 3: variants, then what is made of `text`; any others by name."""
    return sorted(systems, key=lambda name: (SYSTEM_ORDER.index(name) if name in SYSTEM_ORDER else 99, name))


def read_datasets(run: Run) -> list[ScoredDataset]:
    """The data sets of the tasks of a run, by task and name; a family of two tasks is two, told apart by the task."""
    about = {task: read_json(layout.task(task) / "datasets.json") for task in run.tasks if layout.task(task).is_dir()}
    tasks_of: dict[str, set[str]] = defaultdict(set)
    for task, of_task in about.items():
        for one in of_task.values():
            tasks_of[one["family"]].add(task)
    return [
        _read_dataset(run, task, name, one, one["family"] + (f" ({task})" if len(tasks_of[one["family"]]) > 1 else ""))
        for task, of_task in about.items()
        for name, one in sorted(of_task.items())
    ]


def read_test_losses(run: Run) -> TestLosses | None:
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
        bits={system: [one["bits"].astype(np.float64) for one in tensors[system]] for system in in_order(tensors)},
    )


def _read_dataset(run: Run, task: str, name: str, about: dict[str, Any], family: str) -> ScoredDataset:
    table = pq.read_table(layout.task(task) / f"{name}.parquet", columns=["split", "author", "hashtags", "labels"])
    split = np.array(table["split"].to_pylist())
    authors, hashtags, labels = (table[column].to_pylist() for column in ("author", "hashtags", "labels"))
    rows = {part: np.flatnonzero(split == part) for part in SPLITS}
    return ScoredDataset(
        task=task,
        name=name,
        family=family,
        metrics=tuple(dict.fromkeys([about["metric"], *about["metrics"]])),
        splits={
            part: SplitPosts([authors[row] for row in of], [hashtags[row] or [] for row in of])
            for part, of in rows.items()
        },
        labels=_label_matrix([labels[row] for row in rows["test"]], len(about["classes"])),
        scores=_read_scores(run, task, name, (len(rows["test"]), len(about["classes"]))),
    )


def _label_matrix(labels: Sequence[Sequence[int]], classes: int) -> NDArray[np.bool_]:
    matrix = np.zeros((len(labels), classes), dtype=bool)
    for row, of_post in enumerate(labels):
        matrix[row, list(of_post)] = True
    return matrix


def _read_scores(run: Run, task: str, dataset: str, shape: tuple[int, int]) -> dict[str, list[NDArray[np.float32]]]:
    found = _by_system(
        (path.name.removesuffix(f".{dataset}.safetensors"), seed, path)
        for variant in run.variants
        for seed in run.seeds
        for path in sorted(layout.scores(variant, seed, task).glob(f"*.{dataset}.safetensors"))
    )
    return {system: [_score_matrix(path, shape) for path in found[system]] for system in in_order(found)}


def _score_matrix(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
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
