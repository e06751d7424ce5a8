import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, recall_score, top_k_accuracy_score

from ntulm.probe.metrics import LOWER_IS_BETTER, METRICS, metric, resampled


def single(rng, posts=60, classes=5, ties=False):
    labels = np.eye(classes, dtype=bool)[rng.integers(0, classes, posts)]
    scores = rng.normal(size=(posts, classes)) + labels
    return labels, np.round(scores) if ties else scores


def reference(name, labels, scores, weights):
    own, predicted = labels.argmax(1), scores.argmax(1)
    kept = weights > 0
    if name == "accuracy":
        return accuracy_score(own, predicted, sample_weight=weights)
    if name == "macro_f1":  # scikit-learn would count a class whose posts all weigh nothing
        return f1_score(own[kept], predicted[kept], average="macro", zero_division=0, sample_weight=weights[kept])
    if name == "macro_recall":
        present = np.unique(own[kept])
        return recall_score(own, predicted, labels=present, average="macro", sample_weight=weights)
    if name == "f1_1":
        return f1_score(own, predicted, labels=[1], average="macro", sample_weight=weights)
    if name == "stance_f1":
        return f1_score(own, predicted, labels=[1, 2], average="macro", sample_weight=weights)
    if name == "recall@10":
        return top_k_accuracy_score(own, scores, k=10, labels=range(scores.shape[1]), sample_weight=weights)
    if name == "macro_mae":
        errors = [
            np.average(np.abs(predicted - own)[own == c], weights=weights[own == c]) for c in np.unique(own[kept])
        ]
        return np.mean(errors)
    columns = [c for c in range(labels.shape[1]) if labels[kept, c].any()]
    return np.mean([average_precision_score(labels[:, c], scores[:, c], sample_weight=weights) for c in columns])


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("seed", range(5))
def test_equals_scikit_learn_with_weights(name, seed):
    rng = np.random.default_rng(seed)
    labels, scores = single(rng, classes=30 if name == "recall@10" else 5)
    for weights in (np.ones(60), rng.multinomial(60, np.full(60, 1 / 60)).astype(float)):
        assert metric(name, labels, scores, weights) == pytest.approx(reference(name, labels, scores, weights))


def test_an_error_on_a_scale_by_hand():
    labels = np.eye(5, dtype=bool)[[0, 0, 4, 2]]
    scores = np.eye(5)[[0, 2, 1, 2]]  # off by 0, 2, 3 and 0
    assert metric("macro_mae", labels, scores) == pytest.approx(((0 + 2) / 2 + 3 + 0) / 3)


def test_map_takes_several_labels_a_post_and_ties():
    rng = np.random.default_rng(1)
    labels = rng.random((80, 6)) < 0.3
    labels[:, 5] = False  # a class without a positive does not count
    for scores in (rng.random((80, 6)), rng.integers(0, 3, (80, 6)).astype(float)):
        expected = np.mean([average_precision_score(labels[:, c], scores[:, c]) for c in range(5)])
        assert metric("map", labels, scores) == pytest.approx(expected)


def test_map_by_hand():
    labels = np.array([[1], [0], [1], [0]], dtype=bool)
    assert metric("map", labels, np.array([[4.0], [3], [2], [1]])) == pytest.approx((1 + 2 / 3) / 2)


def test_recall_at_10_by_hand_and_ties_go_to_the_first_class():
    labels = np.eye(12, dtype=bool)[[0, 9, 10, 11]]
    assert metric("recall@10", labels, np.zeros((4, 12))) == 0.5


def test_macro_f1_counts_a_class_that_is_only_predicted():
    labels = np.eye(3, dtype=bool)[[0, 0, 1, 1]]
    scores = np.eye(3)[[0, 2, 1, 1]]
    assert metric("macro_f1", labels, scores) == pytest.approx((2 / 3 + 1 + 0) / 3)


@pytest.mark.parametrize("name", METRICS)
def test_resampled_equals_metric_row_by_row(name, monkeypatch):
    monkeypatch.setattr("ntulm.probe.metrics._CHUNK_CELLS", 150)  # several chunks
    rng = np.random.default_rng(2)
    labels, scores = single(rng, posts=40, classes=12, ties=True)
    weights = np.vstack([np.ones(40, dtype=np.int64), rng.multinomial(40, np.full(40, 1 / 40), size=9)])
    rows = resampled(name, labels, scores, weights)
    assert rows.dtype == np.float64
    assert rows[0] == metric(name, labels, scores)
    assert rows.tolist() == [metric(name, labels, scores, row) for row in weights]


@pytest.mark.parametrize("name", METRICS)
def test_a_weight_of_two_is_the_post_twice(name):
    rng = np.random.default_rng(3)
    labels, scores = single(rng, posts=30, classes=11, ties=True)
    counts = rng.integers(0, 3, 30)
    repeated = np.repeat(np.arange(30), counts)
    assert metric(name, labels, scores, counts) == pytest.approx(metric(name, labels[repeated], scores[repeated]))


def test_undefined_is_nan():
    none = np.zeros((0, 3))
    assert all(np.isnan(metric(name, none, none)) for name in METRICS)
    assert np.isnan(metric("map", np.zeros((4, 3), dtype=bool), np.zeros((4, 3))))
    labels = np.eye(3, dtype=bool)[[0, 0]]
    assert np.isnan(metric("f1_1", labels, np.eye(3)[[0, 0]]))
    assert np.isnan(resampled("accuracy", labels, np.eye(3)[[0, 0]], np.zeros((1, 2)))[0])


@pytest.mark.parametrize(
    ("name", "labels", "scores", "weights"),
    [
        ("auc", np.eye(2), np.eye(2), np.ones((1, 2))),
        ("map", np.eye(2), np.eye(3), np.ones((1, 2))),
        ("map", np.eye(2), np.eye(2), np.ones((1, 3))),
        ("accuracy", np.ones((2, 2)), np.eye(2), np.ones((1, 2))),
        ("stance_f1", np.eye(2), np.eye(2), np.ones((1, 2))),
    ],
)
def test_misuse_is_refused(name, labels, scores, weights):
    with pytest.raises(ValueError, match=r"metric|shapes|label"):
        resampled(name, labels, scores, weights)


@given(st.integers(0, 10_000), st.sampled_from(sorted(METRICS)))
@settings(max_examples=60, deadline=None)
def test_scores_lie_between_0_and_1_and_do_not_depend_on_the_order_of_posts(seed, name):
    rng = np.random.default_rng(seed)
    labels, scores = single(rng, posts=15, classes=4, ties=True)
    value = metric(name, labels, scores)
    order = rng.permutation(15)
    assert np.isnan(value) or 0 <= value <= (3 if name in LOWER_IS_BETTER else 1)  # an error of 4 classes is 3
    assert metric(name, labels[order], scores[order]) == pytest.approx(value, nan_ok=True)


def test_a_thousand_resamples_of_ten_thousand_posts_take_seconds():
    rng = np.random.default_rng(0)
    labels, scores = single(rng, posts=10_000, classes=20)
    weights = rng.multinomial(10_000, np.full(10_000, 1e-4), size=100)
    start = time.perf_counter()
    for name in METRICS:
        resampled(name, labels, scores, weights)
    assert time.perf_counter() - start < 20  # a generous ceiling: about half a second alone on a core
