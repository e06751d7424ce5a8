import numpy as np
import pytest

from ntulm.errors import UserError
from ntulm.probe.tfidf import tfidf_scores

SPLIT = np.array(["train"] * 60 + ["validation"] * 20 + ["test"] * 20)
WORDS = [["#cat", "dog"], ["rain", "$SUN"], ["car", "bus"]]


def posts(seed=0):
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, len(SPLIT))
    texts = [f"{random.choice(WORDS[label])} and {random.choice(['this', 'that'])}" for label in classes]
    return texts, np.eye(4, dtype=bool)[classes]  # a fourth class without a post


@pytest.mark.parametrize(("kind", "name"), [("single", "accuracy"), ("multi", "map")])
def test_words_that_tell_the_class_are_learnt_and_a_class_without_posts_is_never_chosen(kind, name):
    texts, labels = posts()
    labels = labels if kind == "single" else labels[:, :3]
    scores, validation, strength = tfidf_scores(texts, labels, SPLIT, kind, name, [0.1, 10.0])
    assert scores.shape == (20, labels.shape[1])
    assert (scores.argmax(1) == labels[SPLIT == "test"].argmax(1)).all()
    assert validation == 1.0
    assert strength in (0.1, 10.0)
    if kind == "single":
        assert (scores[:, 3] == 0).all()


def test_test_labels_are_not_looked_at():
    texts, labels = posts()
    expected, *_ = tfidf_scores(texts, labels, SPLIT, "single", "accuracy", [1.0, 10.0])
    other = labels.copy()
    other[SPLIT == "test"] = np.roll(labels[SPLIT == "test"], 1, axis=1)
    assert (tfidf_scores(texts, other, SPLIT, "single", "accuracy", [1.0, 10.0])[0] == expected).all()


def test_words_that_all_stand_once_are_a_user_error():
    _, labels = posts()
    texts = [f"word{row}" for row in range(len(SPLIT))]
    with pytest.raises(UserError, match=r"probe\.tfidf_strengths: no word stands in two training posts"):
        tfidf_scores(texts, labels, SPLIT, "single", "accuracy", [1.0])
