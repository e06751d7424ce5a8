"""Baselines that need no NTULM: what a sceptic would try first, under the same tasks, splits and metrics.

Library of `ntulm/probe/stage.py`. Linear ones are logistic regression on parts, each of norm 1 per post:

    words       TF-IDF of words and pairs of words
    author-id   the author, one feature per author of the training posts
    ntu         the mean NTU vector

`history` is a probe like any other: the text vector, and beside it the mean vector of the author's training posts.

N posts, T of them test posts, C classes, D the length of a vector.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import OneHotEncoder, normalize

from ntulm.errors import UserError
from ntulm.probe.metrics import metric

WORDS, AUTHOR, NTUS = "words", "author-id", "ntu"
LINEAR = {
    "tfidf": (WORDS,),
    "author-id": (AUTHOR,),
    "tfidf+author-id": (WORDS, AUTHOR),
    "tfidf+ntu": (WORDS, NTUS),
}  # system -> its parts
HISTORY = "history"
WORD = r"(?u)[@#$]?\w+"  # as written: a hashtag, a mention and a cashtag are not the word alone
ITERATIONS = 300  # of the solver at most; it stops earlier where it has converged


class Posts(NamedTuple):
    """What the baselines look at."""

    texts: Sequence[str]  # N
    authors: Sequence[str | None]  # N
    split: NDArray  # [N], each of train, validation, test
    ntu: NDArray[np.float32] | None  # [N, D]; None: there are none


class Linear(NamedTuple):
    """A baseline at the strength that is best on validation posts."""

    scores: NDArray[np.float16]  # probabilities of the test posts, [T, C]
    validation: float  # the metric on validation posts
    strength: float  # scikit-learn's C


def parts_of(posts: Posts, wanted: Sequence[str]) -> dict[str, csr_matrix]:
    """The parts that the systems `wanted` need and the posts have: [N, F] each.

    Raises:
        UserError: no word stands in two training posts.
    """
    needed = {part for system in wanted for part in LINEAR.get(system, ())}
    train = np.flatnonzero(posts.split == "train")
    found = {}
    if WORDS in needed:
        found[WORDS] = _words(list(posts.texts), train)
    if AUTHOR in needed and any(posts.authors[row] is not None for row in train.tolist()):
        found[AUTHOR] = _authors(posts.authors, train)
    if NTUS in needed and posts.ntu is not None:
        found[NTUS] = csr_matrix(normalize(posts.ntu))
    return found


def linear(
    system: str,
    parts: dict[str, csr_matrix],
    labels: NDArray[np.bool_],
    split: NDArray,
    kind: str,
    name: str,
    strengths: Sequence[float],
) -> Linear | None:
    """Train a baseline with each strength; None where the posts lack a part of it.

    Args:
        system: one of LINEAR.
        parts: as `parts_of` gives them.
        labels: bool [N, C].
        split: [N].
        kind: `single` or `multi` labels per post.
        name: the metric that decides.
        strengths: inverse strengths of regularisation (scikit-learn's C) to try.
    """
    if not set(LINEAR[system]) <= parts.keys():
        return None
    features = hstack([parts[part] for part in LINEAR[system]]).tocsr()
    rows = {part: np.flatnonzero(split == part) for part in ("train", "validation", "test")}
    best: Linear | None = None
    for strength in strengths:
        model = LogisticRegression(C=strength, max_iter=ITERATIONS)
        found = _fit(model, features[rows["train"]], labels[rows["train"]], kind)
        validation = _probabilities(found, features[rows["validation"]], labels)
        value = metric(name, labels[rows["validation"]], validation)
        if best is None or value > best.validation:
            scores = _probabilities(found, features[rows["test"]], labels).astype(np.float16)
            best = Linear(scores, value, strength)
    return best


def history(vectors: NDArray[np.float32], authors: Sequence[str | None], split: NDArray) -> NDArray[np.float32] | None:
    """What the author's other training posts say: their mean vector, without the post itself, and whether there is one.

    Splits by time make them the author's earlier posts for validation and test posts; for a training post they may be
    later ones too.

    Args:
        vectors: [N, D].
        authors: N.
        split: [N].

    Returns:
        float32 [N, D + 1], zeros where there is no such post; None if that is everywhere.
    """
    codes = {author: place for place, author in enumerate(dict.fromkeys(authors))}
    own = np.array([codes[author] for author in authors])
    named = np.array([author is not None for author in authors])
    train = np.flatnonzero((split == "train") & named)
    sums = np.zeros((len(codes), vectors.shape[1]), np.float64)
    np.add.at(sums, own[train], vectors[train])
    counts = np.bincount(own[train], minlength=len(codes))
    others, total = counts[own] * named, sums[own]
    others[train] -= 1
    total[train] -= vectors[train]
    if not others.any():
        return None
    mean = np.where(others[:, None] > 0, total / np.maximum(others, 1)[:, None], 0.0)
    return np.hstack([mean, (others > 0)[:, None]]).astype(np.float32)


def _words(texts: list[str], train: NDArray) -> csr_matrix:
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, token_pattern=WORD)
    try:
        words.fit([texts[row] for row in train])
    except ValueError as error:  # its message says which words are missing, not where
        raise UserError(
            "probe.baselines: no word stands in two training posts of the task; give it more posts, or leave the "
            "baselines with tfidf out"
        ) from error
    return words.transform(texts)


def _authors(authors: Sequence[str | None], train: NDArray) -> csr_matrix:
    column = np.array([[author] for author in authors], dtype=object)
    seen = column[[row for row in train.tolist() if authors[row] is not None]]
    return OneHotEncoder(handle_unknown="ignore").fit(seen).transform(column)


def _fit(
    model: LogisticRegression, features: csr_matrix, labels: NDArray[np.bool_], kind: str
) -> LogisticRegression | OneVsRestClassifier:
    if kind == "multi":
        return OneVsRestClassifier(model).fit(features, labels.astype(int))
    return model.fit(features, labels.argmax(1))


def _probabilities(
    model: LogisticRegression | OneVsRestClassifier, features: csr_matrix, labels: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """[n, C]; a class without a training post has probability 0."""
    scores = np.zeros((features.shape[0], labels.shape[1]))
    scores[:, model.classes_] = model.predict_proba(features)
    return scores
