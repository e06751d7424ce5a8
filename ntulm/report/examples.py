"""Posts that NTUs put right, and posts that they put wrong. Library of the stage `report`.

A post is *right* where the likeliest class of a system is one of its labels. Put right is a test post that `text` has
wrong and the variant right; put wrong is the reverse. Which ones are shown is drawn by a hash of their ids, in turn
from each data set: the same posts each time, and not the most flattering ones.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import numpy as np
from numpy.typing import NDArray

from ntulm.embeddings.table import EmbeddingTable
from ntulm.evaluate.scores import BASELINE, ScoredDataset
from ntulm.files import read_json
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme, rows_of
from ntulm.posts import Posts
from ntulm.report.neighbours import PEOPLE, SIGNS
from ntulm.variants import parse_variant

LONGEST = 280  # characters of a post that are shown
WRITTEN = SIGNS | {PEOPLE: "@"}  # signs before keys, as people write them
JOINER = "\u200d"  # holds an emoji of several signs together

Known = list[tuple[str, bool]]  # NTUs of a post as people write them, and whether the table knows them


@dataclass(frozen=True)
class Guess:
    """The likeliest class of a system, by the mean over its seeds."""

    label: str
    score: float


@dataclass(frozen=True)
class Example:
    """A post, what it is, and what two systems took it for."""

    dataset: str
    text: str
    ntus: Known
    labels: list[str]
    before: Guess
    after: Guess


@dataclass(frozen=True)
class Turned:
    """What NTUs did to the test posts of the data sets of one run."""

    counts: list[tuple[str, int, int, int]]  # data set, posts, put right, put wrong
    right: list[Example]
    wrong: list[Example]


def turned(
    datasets: Sequence[ScoredDataset],
    variant: str,
    table: EmbeddingTable,
    scheme: NtuScheme,
    count: int,
    layout: Layout,
) -> Turned | None:
    """Compare `text` and the variant post by post; None where not both were run on a task.

    Args:
        datasets: with the scores of the systems.
        variant: the one that stands for NTULM.
        table: says which NTUs are known.
        scheme: roles and types of NTUs.
        count: examples of each kind, at most; 0: none is quoted.
        layout: where the names of the classes are.
    """
    counts: list[tuple[str, int, int, int]] = []
    right: list[list[Example]] = []
    wrong: list[list[Example]] = []
    for dataset in datasets:
        if BASELINE not in dataset.scores or variant not in dataset.scores:
            continue
        scores = [np.mean(dataset.scores[system], axis=0) for system in (BASELINE, variant)]
        before, after = (dataset.labels[np.arange(len(one)), one.argmax(axis=1)] for one in scores)
        counts.append((_name(dataset), len(before), int((~before & after).sum()), int((before & ~after).sum())))
        for chosen, found in ((~before & after, right), (before & ~after, wrong)):
            rows = _drawn(dataset.splits["test"], chosen, count)
            known = _ntus(dataset.splits["test"].take(rows), variant, table, scheme)
            found.append(_examples(dataset, rows, [one[rows] for one in scores], known, layout))
    return Turned(counts, _in_turn(right)[:count], _in_turn(wrong)[:count]) if counts else None


def _name(dataset: ScoredDataset) -> str:
    return dataset.family if dataset.name == dataset.task else f"{dataset.family}: {dataset.name}"


def _drawn(posts: Posts, chosen: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
    """Rows of some of the chosen posts [T], in the order of a hash of their ids."""
    rows = np.flatnonzero(chosen)
    ids = posts.table["post_id"].take(rows).to_pylist()
    order = sorted(range(len(rows)), key=lambda place: hashlib.sha256(ids[place].encode()).digest())
    return np.asarray(rows[np.array(order[:count], np.int64)], np.int64)


def _examples(
    dataset: ScoredDataset,
    rows: NDArray[np.int64],
    scores: Sequence[NDArray[np.float32]],
    known: Sequence[Known],
    layout: Layout,
) -> list[Example]:
    """The posts at rows [n] of the test posts, with the scores [n, C] that the baseline and the variant give them."""
    classes = read_json(layout.task(dataset.task) / "datasets.json")[dataset.name]["classes"]
    found = []
    for place, text in enumerate(dataset.splits["test"].take(rows).texts):
        guesses = [Guess(classes[int(one[place].argmax())], float(one[place].max())) for one in scores]
        labels = [classes[label] for label in np.flatnonzero(dataset.labels[rows[place]])]
        found.append(Example(_name(dataset), shown(text), known[place], labels, *guesses))
    return found


def shown(text: str) -> str:
    """A post in one line, without characters that act on the page, and cut where it is long."""
    line = " ".join("".join(one if one.isprintable() or one == JOINER else " " for one in text).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _ntus(posts: Posts, variant: str, table: EmbeddingTable, scheme: NtuScheme) -> list[Known]:
    """The NTUs of each post that the variant sees."""
    about = parse_variant(variant, scheme.of_posts)
    rows, offsets, places = rows_of(table, scheme, posts.ntus, about.roles or about.words)
    pairs = posts.ntus.flatten().take(places).to_pylist()
    names = [WRITTEN.get(scheme.types[scheme.roles[one["role"]].type], "") + one["key"] for one in pairs]
    own = list(zip(names, (rows >= 0).tolist(), strict=True))
    return [list(dict.fromkeys(own[first:last])) for first, last in pairwise(offsets)]


def _in_turn(groups: Sequence[Sequence[Example]]) -> list[Example]:
    """One of each group, then the next of each."""
    return [one for several in zip_longest(*groups) for one in several if one is not None]
