"""Two encoders of a model side by side on posts: vectors, labels and, where there are labels, the score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ntulm.inference.model import Model
from ntulm.language_model.encoder import Encoder
from ntulm.probe.metrics import metric
from ntulm.use.sample import LabelledSample


@dataclass(frozen=True)
class Compared:
    """What changed on N posts, from one encoder to the other."""

    source: str
    posts: int
    known: tuple[float, float]  # the share of posts with a known NTU that the variant looks at
    cosine: float  # of the vectors, the mean
    least: float  # the least cosine
    same: Mapping[str, float]  # task -> the share of posts with the same labels
    task: str | None  # of the labels, where there are some
    metric: str | None
    scores: tuple[float, float] | None  # of the classifier of the task


def compare(model: Model, one: Encoder, other: Encoder, sample: LabelledSample, source: str) -> Compared:
    """Encode the posts with both, and label them with the classifiers of the model."""
    vectors = [encoder.encode(sample.posts) for encoder in (one, other)]
    known = [encoder.known(sample.posts) for encoder in (one, other)]
    cosines = (vectors[0] * vectors[1]).sum(1) / np.prod([np.linalg.norm(own, axis=1) for own in vectors], axis=0)
    found: dict[str, Any] = {"task": sample.task, "metric": None, "scores": None}
    if sample.task is not None and sample.labels is not None:
        classifier = dict(zip(model.tasks, model.classifiers.values(), strict=True))[sample.task]
        found["metric"] = name = classifier.about["metric"]
        pairs = zip(vectors, known, strict=True)
        found["scores"] = tuple(metric(name, sample.labels, classifier.scores(*pair)) for pair in pairs)
    return Compared(
        source=source,
        posts=len(sample.posts),
        known=(float(known[0].mean()), float(known[1].mean())),
        cosine=float(cosines.mean()),
        least=float(cosines.min()),
        same={task: same_labels(model, task, sample, vectors[0], vectors[1]) for task in model.tasks},
        **found,
    )


def same_labels(
    model: Model, task: str, sample: LabelledSample, before: NDArray[np.float32], after: NDArray[np.float32]
) -> float:
    """The share of posts whose labels are the same with both vectors."""
    one, other = (model.label(sample.posts, vectors, task) for vectors in (before, after))
    return float(np.mean([sorted(a.labels) == sorted(b.labels) for a, b in zip(one, other, strict=True)]))


def lines_of(found: Compared, before: str, after: str) -> list[str]:
    """Lines of Markdown; `before` and `after` are the names of the two."""
    lines = [
        f"On {found.posts:,} posts of `{found.source.replace('`', '')}`: cosine of the vectors {found.cosine:.4f} on "
        f"average, {found.least:.4f} at least; with a known NTU {found.known[0]:.1%} and {found.known[1]:.1%}.",
    ]
    if found.same:
        lines += ["", f"| task | same labels | metric | {before} | {after} |", "| --- | --- | --- | --- | --- |"]
    for task, share in found.same.items():
        scores: tuple[str, ...] = ("", "", "")
        if task == found.task and found.metric is not None and found.scores is not None:
            scores = (found.metric, *(f"{score:.3f}" for score in found.scores))
        lines.append(f"| {task} | {share:.1%} | {' | '.join(scores)} |")
    return lines
