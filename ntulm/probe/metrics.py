"""The scores that the tasks are judged by, once or on a thousand bootstrap resamples; numpy alone.

Used by `ntulm probe` (validation and test) and `ntulm evaluate` (intervals). Definitions are scikit-learn's, so that
figures can be compared; the tests hold each one against it.

N posts, C classes, R resamples, T distinct thresholds of a class.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_CHUNK_CELLS = 4_000_000  # weights held transposed at a time: 32 MB, whatever R and N are


def metric(name: str, labels: NDArray, scores: NDArray, weights: NDArray | None = None) -> float:
    """One score of one system on one set of posts.

    Args:
        name: one of METRICS; of those in LOWER_IS_BETTER, less is better.
        labels: bool [N, C]; exactly one true value a row, but for `map`, which takes any number.
        scores: float [N, C], higher is likelier. The predicted class is the first of the highest.
        weights: [N], how often each post counts; None counts each once.

    Returns:
        The score, nan where it is undefined: no posts, no positive label, no post of a class that the metric names.

    Raises:
        ValueError: an unknown name, or arrays whose shapes do not belong together.
    """
    rows = np.ones((1, len(labels))) if weights is None else np.asarray(weights)[None]
    return float(resampled(name, labels, scores, rows)[0])


def resampled(name: str, labels: NDArray, scores: NDArray, weights: NDArray) -> Floats:
    """The same score for R weightings of the posts at once, as a bootstrap needs it.

    Args:
        name, labels, scores: as in `metric`.
        weights: [R, N], integer or float; row r says how often each post stands in resample r.

    Returns:
        float64 [R], nan where a resample leaves the metric undefined.
    """
    labels, scores, weights = np.asarray(labels, dtype=bool), np.asarray(scores), np.asarray(weights)
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; there are {', '.join(METRICS)}")
    if labels.ndim != 2 or labels.shape != scores.shape or weights.ndim != 2 or weights.shape[1] != len(labels):
        raise ValueError(f"shapes: labels {labels.shape}, scores {scores.shape}, weights {weights.shape}")
    if name != "map" and not np.all(labels.sum(1) == 1):
        raise ValueError(f"{name} needs exactly one label per post")
    if 0 in labels.shape:
        return np.full(len(weights), np.nan)
    score = METRICS[name](labels, scores)
    step = max(1, _CHUNK_CELLS // len(labels))
    chunks = (weights[at : at + step] for at in range(0, len(weights), step))
    parts = [score(np.ascontiguousarray(chunk.T, dtype=np.float64)) for chunk in chunks]
    return np.concatenate(parts) if parts else np.empty(0)


# Each function below prepares what does not depend on the weights, and returns a function of weights [N, R], whose
# rows are contiguous, so that sorting the posts of a class is a copy of whole rows and sums run along R.
_Score = Callable[[Floats], Floats]


def _mean_average_precision(labels: NDArray, scores: NDArray) -> _Score:
    """Mean over the classes that have a positive post of the average precision of ranking all posts (§4.1)."""
    classes = [_average_precision(labels[:, c], scores[:, c]) for c in range(labels.shape[1]) if labels[:, c].any()]

    def score(weights: Floats) -> Floats:
        return _mean_of_defined([average_precision(weights) for average_precision in classes], weights.shape[1])

    return score


def _average_precision(positive: NDArray, scores: NDArray) -> _Score:
    """Sum over thresholds of precision times the gain in recall; posts of equal score share one threshold."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    hits = order[positive[order]]
    threshold_of_hit = np.searchsorted(starts, np.flatnonzero(positive[order]), side="right") - 1
    # Thresholds without a positive add nothing to the sum: they only join the next one that has some.
    kept, hit_starts = np.unique(threshold_of_hit, return_index=True)
    ends = np.r_[starts[1:], len(order)][kept]
    edges = np.r_[0, ends[:-1]]

    def score(weights: Floats) -> Floats:
        retrieved = np.add.reduceat(weights[order[: ends[-1]]], edges, axis=0).cumsum(0)  # [T, R]
        gained = np.add.reduceat(weights[hits], hit_starts, axis=0)
        found = gained.cumsum(0)
        precision = np.divide(found, retrieved, out=np.zeros_like(found), where=retrieved > 0)
        return _ratio((precision * gained).sum(0), found[-1])

    return score


def _hit_rate(hit: NDArray) -> _Score:
    def score(weights: Floats) -> Floats:
        return _ratio(hit.astype(np.float64) @ weights, weights.sum(0))

    return score


def _accuracy(labels: NDArray, scores: NDArray) -> _Score:
    return _hit_rate(labels.argmax(1) == scores.argmax(1))


def _recall_at_10(labels: NDArray, scores: NDArray) -> _Score:
    """Share of the posts whose class is among the ten of highest score; of equal scores, the first class goes first."""
    own = labels.argmax(1)[:, None]
    own_score = np.take_along_axis(scores, own, 1)
    before = (scores > own_score) | ((scores == own_score) & (np.arange(scores.shape[1]) < own))
    return _hit_rate(before.sum(1) < 10)


class _Confusion:
    """Weighted counts a class: labelled, predicted, and both; each [C, R].

    Summed over posts sorted by class: the cost is that of reading the weights, whatever C is.
    """

    def __init__(self, labels: NDArray, scores: NDArray) -> None:
        self.classes = labels.shape[1]
        own, predicted = labels.argmax(1), scores.argmax(1)
        self.own = _by_class(own, np.arange(len(own)))
        self.predicted = _by_class(predicted, np.arange(len(own)))
        right = np.flatnonzero(own == predicted)
        self.right = _by_class(own[right], right)

    def of_own(self, weights: Floats) -> Floats:
        """[C, R], the sum over the posts of a class."""
        return self._sum(self.own, weights)

    def counts(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        return self._sum(self.own, weights), self._sum(self.predicted, weights), self._sum(self.right, weights)

    def _sum(self, groups: tuple[Integers, Integers, Integers], weights: Floats) -> Floats:
        order, starts, present = groups
        totals = np.zeros((self.classes, weights.shape[1]))
        if len(order):
            totals[present] = np.add.reduceat(weights[order], starts, axis=0)
        return totals

    def f1(self, weights: Floats) -> Floats:
        """[C, R], nan for a class that is neither labelled nor predicted."""
        own, predicted, right = self.counts(weights)
        return _ratio(2 * right, own + predicted)


def _by_class(classes: NDArray, posts: NDArray) -> tuple[Integers, Integers, Integers]:
    """The posts in order of their class, where each class starts, and which classes occur."""
    present, starts = np.unique(np.sort(classes), return_index=True)
    return posts[np.argsort(classes, kind="stable")], starts, present


def _macro_f1(labels: NDArray, scores: NDArray) -> _Score:
    """Mean F1 over the classes that occur in the labels or the predictions, as scikit-learn's `average="macro"`."""
    confusion = _Confusion(labels, scores)

    def score(weights: Floats) -> Floats:
        return _mean_of_defined(list(confusion.f1(weights)), weights.shape[1])

    return score


def _macro_recall(labels: NDArray, scores: NDArray) -> _Score:
    """Mean over the classes that occur in the labels of the share of their posts that were found."""
    confusion = _Confusion(labels, scores)

    def score(weights: Floats) -> Floats:
        own, _, right = confusion.counts(weights)
        return _mean_of_defined(list(_ratio(right, own)), weights.shape[1])

    return score


def _macro_mae(labels: NDArray, scores: NDArray) -> _Score:
    """Mean over the classes that occur in the labels of how far, in classes, the predictions are from their posts.

    The classes are points of a scale, in its order: SemEval's official error of task CE (Baccianella et al. 2009).
    """
    confusion = _Confusion(labels, scores)
    far = np.abs(labels.argmax(1) - scores.argmax(1)).astype(np.float64)[:, None]

    def score(weights: Floats) -> Floats:
        errors = _ratio(confusion.of_own(weights * far), confusion.of_own(weights))
        return _mean_of_defined(list(errors), weights.shape[1])

    return score


def _f1_of(*classes: int) -> Callable[[NDArray, NDArray], _Score]:
    """Mean F1 of the named classes; undefined as soon as one of them neither occurs nor is predicted."""

    def prepare(labels: NDArray, scores: NDArray) -> _Score:
        if labels.shape[1] <= max(classes):
            raise ValueError(f"the metric needs a class {max(classes)}; there are {labels.shape[1]} classes from 0")
        confusion = _Confusion(labels, scores)
        return lambda weights: confusion.f1(weights)[list(classes)].mean(0)

    return prepare


def _ratio(numerator: Floats, denominator: Floats) -> Floats:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def _mean_of_defined(rows: list[Floats], count: int) -> Floats:
    """Mean over rows [R] without their nans; nan where every row is."""
    total, defined = np.zeros(count), np.zeros(count)
    for row in rows:
        total += np.nan_to_num(row)
        defined += ~np.isnan(row)
    return _ratio(total, defined)


METRICS: dict[str, Callable[[NDArray, NDArray], _Score]] = {
    "map": _mean_average_precision,
    "recall@10": _recall_at_10,
    "macro_f1": _macro_f1,
    "accuracy": _accuracy,
    "macro_recall": _macro_recall,
    "macro_mae": _macro_mae,
    "f1_1": _f1_of(1),
    "stance_f1": _f1_of(1, 2),
}
LOWER_IS_BETTER = frozenset({"macro_mae"})
