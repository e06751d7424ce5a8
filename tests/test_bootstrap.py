"""The paired bootstrap against cases with a known answer."""

import numpy as np
import pytest

from ntulm.evaluate.bootstrap import (
    BETTER,
    NO_DIFFERENCE,
    TOO_FEW,
    WORSE,
    Bootstrap,
    Sample,
    mean_sample,
    metric_samples,
    over_seeds,
    ratio_samples,
    relative_gain,
    verdict,
)

BOOTSTRAP = Bootstrap(resamples=400, seed=0)


def scores_of(labels, right, classes=2):
    """Score matrices whose highest class is the label where `right`, another class elsewhere."""
    return np.eye(classes, dtype=np.float32)[np.where(right, labels, (labels + 1) % classes)]


def accuracy_gain(right, right_of_text, bootstrap=BOOTSTRAP):
    labels = np.arange(len(right)) % 2
    scores = {"system": [scores_of(labels, right)], "text": [scores_of(labels, right_of_text)]}
    samples = metric_samples(["accuracy"], np.eye(2, dtype=bool)[labels], scores, bootstrap, "posts")
    return relative_gain(samples["accuracy", "system"], samples["accuracy", "text"])


def judged(gain, posts, min_posts):
    low, high = gain.interval(0.95)
    return verdict(low, high, posts, min_posts)


def test_identical_systems_differ_in_no_resample():
    right = np.random.default_rng(0).random(100) < 0.7
    gain = accuracy_gain(right, right)
    assert gain.value == 0
    assert gain.interval(0.95) == (0, 0)
    assert judged(gain, posts=100, min_posts=30) == NO_DIFFERENCE


def test_a_planted_difference_is_found_with_its_sign():
    right_of_text = np.arange(400) % 2 == 0
    right = right_of_text | (np.arange(400) % 8 == 1)  # right on 50 posts more
    better, worse = accuracy_gain(right, right_of_text), accuracy_gain(right_of_text, right)
    assert better.value == pytest.approx(100 * (250 - 200) / 200)
    assert judged(better, posts=400, min_posts=30) == BETTER
    assert judged(worse, posts=400, min_posts=30) == WORSE


def test_few_posts_get_no_verdict():
    assert verdict(1.0, 2.0, posts=29, min_posts=30) == TOO_FEW


def test_pairing_makes_the_interval_narrower_than_independent_draws():
    random = np.random.default_rng(1)
    right_of_text = random.random(300) < 0.6
    right = right_of_text ^ (random.random(300) < 0.03)
    labels = np.zeros(300, dtype=int)
    truth = np.eye(2, dtype=bool)[labels]
    own = metric_samples(["accuracy"], truth, {"system": [scores_of(labels, right)]}, BOOTSTRAP, "one")
    text = metric_samples(["accuracy"], truth, {"text": [scores_of(labels, right_of_text)]}, BOOTSTRAP, "another")
    apart = relative_gain(own["accuracy", "system"], text["accuracy", "text"]).interval(0.95)
    paired = accuracy_gain(right, right_of_text).interval(0.95)
    assert paired[1] - paired[0] < 0.5 * (apart[1] - apart[0])


def test_95_percent_of_the_intervals_hold_the_true_gain():
    random = np.random.default_rng(2)
    hits = 0
    for trial in range(200):
        right_of_text = random.random(200) < 0.6
        right = np.where(random.random(200) < 0.5, right_of_text, random.random(200) < 0.7)  # 0.65 on average
        low, high = accuracy_gain(right, right_of_text, Bootstrap(200, trial)).interval(0.95)
        hits += low <= 100 * (0.65 - 0.6) / 0.6 <= high
    assert 0.90 <= hits / 200 <= 0.99


def test_the_same_stream_draws_the_same_posts_whatever_the_block_size(monkeypatch):
    whole = np.concatenate(list(BOOTSTRAP.counts("posts", 50)))
    monkeypatch.setattr("ntulm.evaluate.bootstrap.CHUNK_CELLS", 50 * 7)
    blocks = np.concatenate(list(BOOTSTRAP.counts("posts", 50)))
    assert np.array_equal(whole, blocks)
    assert (whole.sum(1) == 50).all()
    assert not np.array_equal(whole, np.concatenate(list(BOOTSTRAP.counts("other posts", 50))))


def test_seeds_are_drawn_too_and_widen_the_interval():
    labels = np.arange(400) % 2
    random = np.random.default_rng(3)
    truth = np.eye(2, dtype=bool)[labels]
    seeds = [scores_of(labels, random.random(400) < share) for share in (0.55, 0.75, 0.9)]
    three = metric_samples(["accuracy"], truth, {"system": seeds}, BOOTSTRAP, "posts")["accuracy", "system"]
    one = metric_samples(["accuracy"], truth, {"system": seeds[1:2]}, BOOTSTRAP, "posts")["accuracy", "system"]
    assert three.value == pytest.approx(np.mean([(scores.argmax(1) == labels).mean() for scores in seeds]))
    widths = [high - low for low, high in (three.interval(0.95), one.interval(0.95))]
    assert widths[0] > 1.5 * widths[1]


def test_the_nan_of_a_seed_that_was_not_drawn_does_not_spread():
    pooled = over_seeds([Sample(1.0, np.array([1.0, 1.0])), Sample(3.0, np.array([np.nan, 3.0]))], np.eye(2))
    assert pooled.value == 2.0
    assert pooled.draws.tolist() == [1.0, 3.0]


def test_undefined_draws_widen_the_interval_and_can_unbound_it():
    draws = np.arange(100.0)
    few, many = draws.copy(), draws.copy()
    few[:2], many[:10] = np.nan, np.nan
    low, high = Sample(50.0, few).interval(0.9)
    assert low <= 5
    assert high >= 95
    assert np.isnan(Sample(50.0, many).interval(0.9)).all()
    assert verdict(np.nan, np.nan, posts=100, min_posts=30) == NO_DIFFERENCE


def test_perplexity_resamples_posts_with_all_their_tokens():
    counts = np.array([1.0, 3.0, 2.0])
    text = np.array([2.0, 9.0, 4.0])
    samples = ratio_samples({"text": [text], "author": [text * 0.9]}, counts, BOOTSTRAP, "perplexity")
    assert samples["text"].value == pytest.approx(15 / 6)
    gain = relative_gain(samples["author"], samples["text"], lower_is_better=True)
    # Every token costs 10 % less, so every resample says so.
    assert gain.value == pytest.approx(10)
    assert gain.interval(0.95) == pytest.approx((10, 10))
    assert {round(value, 6) for value in samples["text"].draws} <= {
        round(float(weights @ text / (weights @ counts)), 6)
        for block in BOOTSTRAP.counts("perplexity", 3)
        for weights in block
    }


def test_a_family_is_the_mean_draw_by_draw():
    mean = mean_sample([Sample(1.0, np.array([1.0, 2.0])), Sample(3.0, np.array([5.0, np.nan]))])
    assert mean.value == 2.0
    assert mean.draws[0] == 3.0
    assert np.isnan(mean.draws[1])


def test_a_gain_over_nothing_is_undefined():
    gain = relative_gain(Sample(0.5, np.array([0.5])), Sample(0.0, np.array([0.0])))
    assert np.isnan(gain.value)
    assert np.isnan(gain.draws).all()
