"""Paired bootstrap: how far a system's gain over the text baseline could be chance (pure functions, no files).

Test posts are drawn with replacement, the same draw for every system, and each figure is computed anew for each draw;
with several seeds, seeds are drawn as well, the same draw for every system and data set. The interval of a gain is
the percentile interval of the gains of the draws. The paper gives single runs without intervals (§5).

Known limits. Repeated posts raise mean average precision, more so where it is low, so intervals of large MAP gains with
few positives per class lie too low (simulated, 25 positives: of a gain of 85 %, 57 % of the intervals hold the gain on
endless posts; of a gain of 10 %, 95 %). Verdicts stay on the safe side: bias-corrected and basic intervals gave more
false "better". A bootstrap over S seeds gives only (S - 1) / S of their variance.

Shapes: R resamples, S seeds, N test posts, C classes.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ntulm.probe.metrics import metric, resampled

Floats = NDArray[np.float64]

BETTER, WORSE, NO_DIFFERENCE, TOO_FEW = "better", "worse", "no difference shown", "too few posts"
CHUNK_CELLS = 4_000_000  # counts held at once: 32 MB; draws do not depend on it


@dataclass(frozen=True)
class Sample:
    """A figure and its values under the resamples: `draws` float64 [R], NaN where the figure is undefined."""

    value: float
    draws: Floats

    def interval(self, confidence: float) -> tuple[float, float]:
        """The percentile interval of the draws.

        An undefined draw could have been anything: it counts as minus infinity for the lower bound and as infinity
        for the upper. A bound that lands on such a draw is NaN.
        """
        tail = (1 - confidence) / 2
        low = np.quantile(np.where(np.isnan(self.draws), -np.inf, self.draws), tail, method="lower")
        high = np.quantile(np.where(np.isnan(self.draws), np.inf, self.draws), 1 - tail, method="higher")
        return (float(low) if np.isfinite(low) else np.nan, float(high) if np.isfinite(high) else np.nan)


@dataclass(frozen=True)
class Bootstrap:
    """How to resample; every stream of draws is named, so that a figure does not depend on what else was run."""

    resamples: int
    seed: int

    def counts(self, stream: str, size: int) -> Iterator[Floats]:
        """How often each of `size` posts is drawn: float64 [r, size] blocks whose rows add up to R."""
        random = self._random(stream)
        rows = max(1, CHUNK_CELLS // max(size, 1))
        for start in range(0, self.resamples, rows):
            block = min(rows, self.resamples - start)
            drawn = random.integers(0, size, size=(block, size)) + size * np.arange(block)[:, None]
            yield np.bincount(drawn.ravel(), minlength=block * size).reshape(block, size).astype(np.float64)

    def seed_shares(self, seeds: int) -> Floats:
        """The weight of each seed in each resample: float64 [R, S], rows sum to 1; the same for all data sets."""
        return np.concatenate(list(self.counts("seeds", seeds))) / seeds

    def _random(self, stream: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(stream.encode())])


def over_seeds(per_seed: Sequence[Sample], shares: Floats) -> Sample:
    """Pool seeds: the mean for the value, the mean over the drawn seeds (`shares` [R, S]) within each resample."""
    draws = np.stack([sample.draws for sample in per_seed], axis=1)
    # A seed that was not drawn must not spoil the resample with its NaN.
    weighted = np.where(shares > 0, shares * draws, 0.0)
    return Sample(float(np.mean([sample.value for sample in per_seed])), weighted.sum(axis=1))


def metric_samples(
    names: Sequence[str],
    labels: NDArray[np.bool_],
    scores: Mapping[str, Sequence[NDArray[np.floating]]],
    bootstrap: Bootstrap,
    stream: str,
) -> dict[tuple[str, str], Sample]:
    """Each metric of each system on the same resampled posts.

    Args:
        names: metrics, as in `ntulm.probe.metrics`.
        labels: bool [N, C], N at least 1.
        scores: for each system S matrices [N, C], one per seed, in the order of `labels`.
        bootstrap: how to resample.
        stream: names the draw of posts: data sets of different names are drawn independently.

    Returns:
        The pooled sample of each (metric, system).
    """
    keys = [(name, system, seed) for name in names for system, seeds in scores.items() for seed in range(len(seeds))]
    draws: dict[tuple[str, str, int], list[Floats]] = {key: [] for key in keys}
    for weights in bootstrap.counts(stream, len(labels)):
        for name, system, seed in keys:
            draws[name, system, seed].append(resampled(name, labels, scores[system][seed], weights))
    samples = {
        (name, system, seed): Sample(
            metric(name, labels, scores[system][seed]), np.concatenate(draws[name, system, seed])
        )
        for name, system, seed in keys
    }
    return {
        (name, system): over_seeds(
            [samples[name, system, seed] for seed in range(len(seeds))], bootstrap.seed_shares(len(seeds))
        )
        for name in names
        for system, seeds in scores.items()
    }


def ratio_samples(
    sums: Mapping[str, Sequence[Floats]], counts: Floats, bootstrap: Bootstrap, stream: str
) -> dict[str, Sample]:
    """Mean bits per masked token of each system, posts resampled as clusters of their tokens (a post's tokens depend).

    Args:
        sums: for each system S vectors [N], one per seed: the summed bits of each post.
        counts: [N], the masked tokens of each post.
        bootstrap: how to resample.
        stream: names the draw of posts.
    """
    blocks = {system: [[] for _ in seeds] for system, seeds in sums.items()}  # type: dict[str, list[list[Floats]]]
    for weights in bootstrap.counts(stream, len(counts)):
        tokens = weights @ counts
        for system, seeds in sums.items():
            for seed, bits in enumerate(seeds):
                blocks[system][seed].append((weights @ bits) / tokens)
    return {
        system: over_seeds(
            [
                Sample(float(bits.sum() / counts.sum()), np.concatenate(blocks[system][seed]))
                for seed, bits in enumerate(seeds)
            ],
            bootstrap.seed_shares(len(seeds)),
        )
        for system, seeds in sums.items()
    }


def mean_sample(samples: Sequence[Sample]) -> Sample:
    """The mean over data sets, draw by draw: §4.3, "the average of metrics for each task in the dataset"."""
    return Sample(
        float(np.mean([sample.value for sample in samples])), np.mean([sample.draws for sample in samples], axis=0)
    )


def relative_gain(sample: Sample, base: Sample, lower_is_better: bool = False) -> Sample:
    """The gain of `sample` over `base` in % of `base` (§4.3), positive where `sample` is the better one."""
    sign = -100.0 if lower_is_better else 100.0
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = sign * (sample.draws - base.draws) / base.draws
        value = sign * (np.float64(sample.value) - base.value) / base.value
    return Sample(float(value) if np.isfinite(value) else np.nan, np.where(np.isfinite(draws), draws, np.nan))


def verdict(low: float, high: float, posts: int, min_posts: int) -> str:
    """What an interval of a gain allows to say; fewer posts than `min_posts` allow nothing."""
    if posts < min_posts:
        return TOO_FEW
    if low > 0:
        return BETTER
    return WORSE if high < 0 else NO_DIFFERENCE
