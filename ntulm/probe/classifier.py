"""A trained probe as files, and its scores of new vectors: what `ntulm probe` keeps and the model directory carries.

A classifier is two files beside each other, SYSTEM.DATASET or TASK.DATASET: `.safetensors` with the weights of the two
layers and the scaling of the features, and `.json` with what it is about (see `Classifier`). Where posts of which
nothing is known have a probe of their own (`encode.apart`), the first holds it as well, under `unknown.`, and the
second what is its own, under `unknown`. Library only; it needs numpy, torch and safetensors alone.

N posts, F features, H hidden, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from ntulm.errors import UserError

# Names of the file: of the layers, in the order in which `nn.Sequential` has their weights, and of the scaling.
LAYERS = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")
MEAN, DEVIATION = "mean", "deviation"
UNKNOWN, OWN = "unknown", ("threshold", "validation")  # of the probe for posts of which nothing is known


@dataclass(frozen=True)
class Scaling:
    """The mean and the deviation of each feature on training posts, float64 [F] each."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray) -> Scaling:
        """From the features [N, F] of the training posts."""
        train = features.astype(np.float64)
        deviation = train.std(0)
        deviation[deviation < 1e-6] = 1.0  # a feature that never changes says nothing: no division by rounding errors
        return cls(train.mean(0), deviation)

    def __call__(self, features: NDArray) -> NDArray[np.float32]:
        """Features [N, F], scaled."""
        return ((features - self.mean) / self.deviation).astype(np.float32)


@dataclass(frozen=True)
class Classifier:
    """A trained probe.

    `about` holds `task`, `dataset`, `system`, `variant`, `seed`, `kind` (`single` or `multi` labels per post),
    `classes` (C names), `threshold` (the probability from which on a class is a label; null for `single`, where the
    likeliest class is), `precision` (of the vectors that it learnt from, float16 or float32), `metric`,
    `validation` and `test` (the metric's values) and `posts` (how many of each split).
    """

    layers: tuple[Tensor, ...]  # weight [H, F], bias [H], weight [C, H], bias [C], all float32
    scaling: Scaling
    about: Mapping[str, Any]
    unknown: Classifier | None = None  # for posts of which nothing is known; None: this one is for all

    @property
    def classes(self) -> list[str]:
        """The C classes."""
        return list(self.about["classes"])

    def scores(self, features: NDArray, known: NDArray[np.bool_] | None = None) -> NDArray[np.float16]:
        """Probabilities float16 [N, C] of vectors [N, F], read in the precision of those that it learnt from.

        Args:
            features: the vectors.
            known: bool [N], whether the table knows an NTU of the post that the model looks at; needed where there is
                `unknown`.
        """
        if self.unknown is not None:
            own = replace(self, unknown=None).scores(features)
            return np.where(_column(known), own, self.unknown.scores(features))
        if features.shape[1] != len(self.scaling.mean):
            raise ValueError(f"{features.shape[1]} features; the classifier takes {len(self.scaling.mean)}")
        stored = features.astype(self.about["precision"]).astype(np.float32)
        scaled = torch.from_numpy(self.scaling(stored)).to(self.layers[0].device)
        return probabilities(self.layers, scaled, self.about["kind"])

    def chosen(self, scores: NDArray[np.float16], known: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
        """Which classes are labels of each post, bool [N, C]: the likeliest one, or all from the threshold on."""
        if self.unknown is not None:
            own = replace(self, unknown=None).chosen(scores)
            return np.where(_column(known), own, self.unknown.chosen(scores))
        if self.about["kind"] == "multi":
            return scores >= np.float16(self.about["threshold"])
        return np.arange(scores.shape[1]) == scores.argmax(1)[:, None]


@torch.no_grad()
def probabilities(layers: tuple[Tensor, ...], scaled: Tensor, kind: str) -> NDArray[np.float16]:
    """Softmax, or for `multi` a sigmoid for each class: float16 [N, C] of scaled features float32 [N, F]."""
    weight, bias, last_weight, last_bias = layers
    logits = F.linear(torch.tanh(F.linear(scaled, weight, bias)), last_weight, last_bias)
    scores = torch.sigmoid(logits) if kind == "multi" else torch.softmax(logits, 1)
    return scores.half().cpu().numpy()


def best_threshold(scores: NDArray[np.float16], labels: NDArray[np.bool_]) -> float:
    """The probability from which on a class counts as a label, so that F1 over all posts and classes is highest.

    Args:
        scores: float16 [N, C].
        labels: bool [N, C].

    Returns:
        One of the scores; of equally good ones the highest. 0.5 where no post has a label.
    """
    if not labels.any():
        return 0.5
    order = np.argsort(-scores, axis=None, kind="stable")
    ranked, hits = scores.ravel()[order], labels.ravel()[order].cumsum()
    last = np.r_[ranked[1:] != ranked[:-1], True]  # equal scores are labels together
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    return float(ranked[last][f1[last].argmax()])


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Write `path`.safetensors and `path`.json into a folder that is there."""
    tensors, about, unknown = _tensors(classifier), dict(classifier.about), classifier.unknown
    if unknown is not None:
        tensors |= {f"{UNKNOWN}.{name}": tensor for name, tensor in _tensors(unknown).items()}
        about[UNKNOWN] = {key: unknown.about[key] for key in OWN}
    save_file(tensors, _beside(path, ".safetensors"))
    text = json.dumps(about, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    _beside(path, ".json").write_text(text + "\n", encoding="utf-8")


def load_classifier(path: Path) -> Classifier:
    """Read `path`.safetensors and `path`.json.

    Raises:
        UserError: one of them is missing or damaged.
    """
    weights = _beside(path, ".safetensors")
    try:
        tensors = load_file(weights)
        about = json.loads(_beside(path, ".json").read_text(encoding="utf-8"))
        about_unknown = about.pop(UNKNOWN, None)
        found = _classifier(tensors, about, "")
        if about_unknown is None:
            return found
        return replace(found, unknown=_classifier(tensors, about | about_unknown, f"{UNKNOWN}."))
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{weights}: no classifier with its .json ({error}); run `dvc repro` anew") from error


def _refuse_other_shapes(classifier: Classifier) -> None:
    """Refuse parts that do not belong together."""
    about, width = classifier.about, len(classifier.scaling.mean)
    hidden, classes = len(classifier.layers[0]), len(about["classes"])
    shapes = [(hidden, width), (hidden,), (classes, hidden), (classes,)]
    if [tuple(layer.shape) for layer in classifier.layers] != shapes or classifier.scaling.deviation.shape != (width,):
        raise ValueError("weights, scaling and classes do not belong together")
    if any(layer.dtype != torch.float32 for layer in classifier.layers):
        raise ValueError("weights of another type than float32")
    names = [about["task"], about["dataset"], *about["classes"]]
    if about["kind"] not in ("single", "multi") or about["precision"] not in ("float16", "float32"):
        raise ValueError(f"kind {about['kind']!r}, precision {about['precision']!r}")
    if not all(isinstance(name, str) for name in names) or not isinstance(about["threshold"], float | int | None):
        raise ValueError("names or threshold of another type")


def _column(known: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    if known is None:
        raise ValueError(
            "`known` is missing; the classifier has a probe of its own for posts of which nothing is known"
        )
    return known[:, None]


def _tensors(classifier: Classifier) -> dict[str, NDArray]:
    tensors = {name: layer.cpu().numpy() for name, layer in zip(LAYERS, classifier.layers, strict=True)}
    return tensors | {MEAN: classifier.scaling.mean, DEVIATION: classifier.scaling.deviation}


def _classifier(tensors: Mapping[str, NDArray], about: Mapping[str, Any], prefix: str) -> Classifier:
    layers = tuple(torch.from_numpy(tensors[prefix + name]) for name in LAYERS)
    found = Classifier(layers, Scaling(tensors[prefix + MEAN], tensors[prefix + DEVIATION]), about)
    _refuse_other_shapes(found)
    return found


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)  # with_suffix would take the data set's name off
