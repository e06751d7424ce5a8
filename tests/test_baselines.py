"""Baselines without NTULM: words, authors, NTU vectors, and what an author wrote before."""

import numpy as np
import pytest

from ntulm.errors import UserError
from ntulm.probe.baselines import LINEAR, Posts, history, linear, parts_of

SPLIT = np.array(["train"] * 60 + ["validation"] * 20 + ["test"] * 20)
WORDS = [["#cat", "dog"], ["rain", "$SUN"], ["car", "bus"]]


def posts(seed=0, texts=True, authors=True):
    """100 posts of three classes, told by the words, by the author or by neither; four columns of labels."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, len(SPLIT))
    said = [
        f"{random.choice(WORDS[label]) if texts else 'it'} and {random.choice(['this', 'that'])}" for label in classes
    ]
    names = [f"a{label}{random.integers(0, 2)}" if authors else f"b{random.integers(0, 5)}" for label in classes]
    ntu = np.eye(5, dtype=np.float32)[classes] * np.float32(1e-3)
    return Posts(said, names, SPLIT, ntu), np.eye(4, dtype=bool)[classes]  # a fourth class without a post


def scored(system, seen, labels, kind="single", name="accuracy"):
    return linear(system, parts_of(seen, [system]), labels, seen.split, kind, name, [0.1, 10.0])


@pytest.mark.parametrize("system", LINEAR)
@pytest.mark.parametrize(("kind", "name"), [("single", "accuracy"), ("multi", "map")])
def test_what_tells_the_class_is_learnt_and_a_class_without_posts_is_never_chosen(system, kind, name):
    seen, labels = posts()
    labels = labels if kind == "single" else labels[:, :3]
    found = scored(system, seen, labels, kind, name)
    assert found.scores.shape == (20, labels.shape[1])
    assert (found.scores.argmax(1) == labels[SPLIT == "test"].argmax(1)).all()
    assert found.validation == 1.0
    assert found.strength in (0.1, 10.0)
    if kind == "single":
        assert (found.scores[:, 3] == 0).all()


def test_each_baseline_sees_its_own_parts_alone():
    by_author, labels = posts(texts=False)
    assert scored("tfidf", by_author, labels).validation < 0.7
    assert (
        scored("author-id", by_author, labels).validation
        == scored("tfidf+author-id", by_author, labels).validation
        == 1
    )
    by_words, labels = posts(authors=False)
    assert scored("author-id", by_words, labels).validation < 0.7
    assert scored("tfidf+author-id", by_words, labels).validation == 1


@pytest.mark.parametrize("system", ["tfidf", "author-id"])
def test_test_labels_are_not_looked_at(system):
    seen, labels = posts(texts=False, authors=False)
    other = labels.copy()
    other[SPLIT == "test"] = np.roll(labels[SPLIT == "test"], 1, axis=1)
    assert (scored(system, seen, other).scores == scored(system, seen, labels).scores).all()


def test_words_that_all_stand_once_are_a_user_error():
    seen, _ = posts()
    with pytest.raises(UserError, match=r"probe\.baselines: no word stands in two training posts"):
        parts_of(seen._replace(texts=[f"word{row}" for row in range(len(SPLIT))]), ["tfidf+ntu"])


def test_what_posts_lack_no_baseline_has():
    seen, labels = posts()
    without = seen._replace(authors=[None] * len(SPLIT), ntu=None)
    assert scored("tfidf", without, labels) is not None
    assert all(scored(system, without, labels) is None for system in ("author-id", "tfidf+author-id", "tfidf+ntu"))


def test_an_author_of_no_training_post_is_nobody():
    seen, labels = posts(texts=False)
    named = [name if place < 80 else f"new{place}" for place, name in enumerate(seen.authors)]
    scores = scored("author-id", seen._replace(authors=named), labels).scores
    assert (scores == scores[0]).all()


def test_history_is_the_mean_of_the_other_training_posts():
    vectors = np.arange(12, dtype=np.float32).reshape(6, 2)
    split = np.array(["train", "train", "train", "test", "validation", "test"])
    found = history(vectors, ["a", "a", "b", "a", "b", None], split)
    assert found is not None
    assert found.tolist() == [
        [2, 3, 1],  # the other post of a
        [0, 1, 1],
        [0, 0, 0],  # b has no other training post
        [1, 2, 1],  # both of a
        [4, 5, 1],
        [0, 0, 0],  # nobody
    ]
    assert history(vectors, [None] * 6, split) is None
