"""How labelled posts are divided so that a figure is honest: stratified, copies and, where it can be, authors together.

N posts.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from ntulm.errors import UserError

LARGEST = 1.5  # of a fold, in terms of the mean: what is left has to be enough to learn from
Integers = NDArray[np.int64]


class Folds(NamedTuple):
    """N posts in folds."""

    folds: Integers  # [N], the fold that each post is tested in
    groups: Integers  # [N], posts of one group are in one fold
    said: str  # how they were made
    by_author: bool  # no author is on both sides


def divide(labels: Integers, texts: Sequence[str], authors: Sequence[str | None], folds: int, seed: int) -> Folds:
    """Stratified folds in which copies of a text stay together, and the posts of an author where all classes allow it.

    Raises:
        UserError: copies of few texts are all that a class has.
    """
    copies = [" ".join(text.casefold().split()) for text in texts]
    repeated = sum(count > 1 for count in Counter(author for author in authors if author is not None).values())
    if repeated:
        own = [copy if author is None else None for copy, author in zip(copies, authors, strict=True)]
        tries: dict[str, list[str | None]] = {
            "no author on both sides": [*copies],
            "no author on both sides, copies of a text may be": own,
        }
        for said, texts_together in tries.items():
            groups = together(texts_together, authors)
            found = _folds(labels, groups, folds, seed)
            if found is not None:
                return Folds(found, groups, said, by_author=True)
    groups = together(copies)
    found = _folds(labels, groups, folds, seed)
    if found is None:
        raise UserError(f"a class has fewer than {folds} different texts; label more of them")
    if repeated:
        return Folds(found, groups, "AUTHORS ON BOTH SIDES: a class has too few for other folds", by_author=False)
    said = "no author stands twice" if any(author is not None for author in authors) else "no authors given"
    return Folds(found, groups, said, by_author=any(author is not None for author in authors))


def together(*keys: Sequence[Hashable | None]) -> Integers:
    """Groups int64 [N]: posts that share a key of any kind are in one; None is no key."""
    count = len(keys[0])
    parent = list(range(count))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for of_kind in keys:
        first: dict[Hashable, int] = {}
        for place, key in enumerate(of_kind):
            if key is not None:
                parent[root(place)] = root(first.setdefault(key, place))
    return np.unique([root(place) for place in range(count)], return_inverse=True)[1].astype(np.int64)


def _folds(labels: Integers, groups: Integers, folds: int, seed: int) -> Integers | None:
    """The fold of each post; None where a class is not in every fold, or one fold is too large."""
    for label in np.unique(labels):
        if len(np.unique(groups[labels == label])) < folds:
            return None
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    found = np.zeros(len(labels), np.int64)
    for number, (_, tested) in enumerate(splitter.split(labels, labels, groups)):
        found[tested] = number
    cells = {(fold, label) for fold, label in zip(found.tolist(), labels.tolist(), strict=True)}
    balanced = np.bincount(found).max() <= LARGEST * len(labels) / folds
    return found if balanced and len(cells) == folds * len(np.unique(labels)) else None


def validation_rows(labels: Integers, groups: Integers, share: float, seed: int) -> NDArray[np.bool_]:
    """Which of N posts choose among settings: about a share of them, groups whole where every class stays learnable."""
    parts = max(2, round(1 / share))
    chosen = np.zeros(len(labels), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a class with fewer posts than parts
        by_group = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
        whole = len(np.unique(groups)) >= parts
        _, rows = next(by_group.split(labels, labels, groups)) if whole else (None, np.arange(len(labels)))
        if set(labels) - set(np.delete(labels, rows)) or set(labels) - set(labels[rows]):
            _, rows = next(StratifiedKFold(parts, shuffle=True, random_state=seed).split(labels, labels))
    chosen[rows] = True
    return chosen
