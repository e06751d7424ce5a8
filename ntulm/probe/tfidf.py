"""The baseline that needs no language model: TF-IDF of words and pairs of words, and logistic regression on it.

Library of `ntulm/probe/stage.py`. N posts, T of them test posts, C classes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from ntulm.errors import UserError
from ntulm.probe.metrics import metric

WORD = r"(?u)[@#$]?\w+"  # as written: a hashtag, a mention and a cashtag are not the word alone
ITERATIONS = 300  # of the solver at most; it stops earlier where it has converged


def tfidf_scores(
    texts: list[str],
    labels: NDArray[np.bool_],
    split: NDArray,
    kind: str,
    name: str,
    strengths: Sequence[float],
) -> tuple[NDArray[np.float16], float, float]:
    """Test scores of the strength that is best on validation posts.

    Args:
        texts: N posts.
        labels: bool [N, C].
        split: [N], each of train, validation, test.
        kind: `single` or `multi` labels per post.
        name: the metric that decides.
        strengths: inverse strengths of regularisation (scikit-learn's C) to try.

    Returns:
        probabilities float16 [T, C], the metric on validation posts, and the strength.
    """
    rows = {part: np.flatnonzero(split == part) for part in ("train", "validation", "test")}
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, token_pattern=WORD)
    try:
        words.fit([texts[row] for row in rows["train"]])
    except ValueError as error:  # its message says which words are missing, not where
        raise UserError(
            "probe.tfidf_strengths: no word stands in two training posts of the task; give it more posts, or [] for no "
            "such baseline"
        ) from error
    features = {part: words.transform([texts[row] for row in of]) for part, of in rows.items()}
    best: tuple[float, float, NDArray[np.float16]] | None = None
    for strength in strengths:
        model = LogisticRegression(C=strength, max_iter=ITERATIONS)
        found = _fit(model, features["train"], labels[rows["train"]], kind)
        value = metric(name, labels[rows["validation"]], _probabilities(found, features["validation"], labels))
        if best is None or value > best[0]:
            best = value, strength, _probabilities(found, features["test"], labels).astype(np.float16)
    assert best is not None
    return best[2], best[0], best[1]


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
