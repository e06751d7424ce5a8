"""The NTUs of posts that a table was not trained with, and their edges to those that it was.

Library of `ntulm/inference/added.py`; it needs numpy and pyarrow alone. Edges are those of the stage `graph`: a
relation joins the NTUs of its left role in a post to those of its right role, counts the posts in which they meet, and
where both roles are one, the smaller key stands on the left. Relations of engagements have no edges here: posts carry
none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ntulm.embeddings.fold_in import Edges, FoldIn, solve
from ntulm.embeddings.operators import AGAIN, Operators
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.ntus import NtuScheme, rows_of
from ntulm.posts import Posts

PAIRS_AT_ONCE = 1 << 20  # pairs of a relation held at a time; a post of a thousand mentions has many
WAITING = 1 << 22  # edges that wait to be merged


class Side(NamedTuple):
    """The NTUs of N posts that play one role."""

    nodes: np.ndarray  # int64 [n]: a row of the table, or -1 - the number of a new NTU
    owners: np.ndarray  # int64 [n], the post of each, ascending
    keys: pa.Array  # n strings

    def chosen(self, which: np.ndarray) -> "Side":
        """Those where `which` bool [n] is true."""
        return Side(self.nodes[which], self.owners[which], self.keys.filter(pa.array(which)))


@dataclass(frozen=True)
class Folded:
    """M new NTUs of a type with their rows, ordered by key."""

    keys: list[str]
    vectors: np.ndarray  # float32 [M, D]
    edges: np.ndarray  # int64 [M], distinct edges that a row rests on


class Newcomers:
    """New NTUs and their edges, gathered from posts; then `solved`.

    Raises:
        UserError: settings and operators are not of the same relations.
    """

    def __init__(self, table: EmbeddingTable, scheme: NtuScheme, operators: Operators, settings: FoldIn) -> None:
        if operators.rows != len(table.base) or operators.vectors.shape[1] != table.dimension:
            raise UserError(f"relations.safetensors: not of this embedding table; {AGAIN}")
        self.table = replace(table, overlay=None)  # what was added before is as new as what comes now
        self.scheme, self.operators, self.settings = scheme, operators, settings
        self.numbers: dict[tuple[str, str], int] = {}  # (type, key) -> number in order of appearance
        self._edges = np.empty((2, 0), np.int64)  # packed, ascending, and counts
        self._waiting: list[np.ndarray] = []
        self._relations = list(self._usable())

    def _usable(self) -> Iterator[tuple[int, str, str]]:
        """Place, left and right role of each relation that was trained and that posts alone can show."""
        roles = self.scheme.of_posts
        for name, (left, right) in self.settings.relations.items():
            if name not in self.operators.names:
                raise UserError(f"relation {name!r}: not in relations.safetensors; run `dvc repro model` again")
            place = list(self.operators.names).index(name)
            if left in roles and right in roles and self.operators.edges[place]:
                yield place, left, right

    def add(self, posts: Posts) -> None:
        """Gather the new NTUs and edges of N posts."""
        roles = dict.fromkeys(role for _, *both in self._relations for role in both)
        sides = {role: self._side(posts.ntus, role) for role in roles}
        for place, left, right in self._relations:
            new_left, new_right = sides[left].nodes < 0, sides[right].nodes < 0
            self._meet(place, 0, sides[left].chosen(new_left), sides[right].chosen(~new_right), left == right)
            if left != right:  # else each pair was met
                self._meet(place, 1, sides[right].chosen(new_right), sides[left].chosen(~new_left), False)

    def solved(self, least: Mapping[tuple[str, str], int]) -> tuple[dict[str, Folded], list[tuple[str, str]]]:
        """Rows of the new NTUs with enough edges.

        Args:
            least: NTUs that have a row already, and how many edges it rests on: they need more than that.

        Returns:
            Per type the NTUs with their rows; and those (type, key) that had fewer than `min_edges`.
        """
        owner, relation, side, row, count = self._unpacked()
        degrees = np.bincount(owner, minlength=len(self.numbers))
        by_type: dict[str, list[tuple[str, int]]] = {}
        too_few = []
        for (ntu_type, key), number in self.numbers.items():
            if degrees[number] < self.settings.min_edges:
                too_few.append((ntu_type, key))
            elif degrees[number] > least.get((ntu_type, key), 0):
                by_type.setdefault(ntu_type, []).append((key, number))
        weight = np.minimum(count, self.settings.max_count).astype(np.float32)
        found = {}
        for ntu_type, members in sorted(by_type.items()):
            members.sort()
            numbers = np.array([number for _, number in members])
            places = np.full(len(self.numbers), -1, np.int64)
            places[numbers] = np.arange(len(numbers))
            own = np.flatnonzero(places[owner] >= 0)
            order = np.lexsort((row[own], side[own], relation[own], places[owner[own]]))  # the last one first
            sides, rows = side[own][order], row[own][order]
            edges = Edges(places[owner[own]][order], relation[own][order], sides, rows, weight[own][order])
            vectors = solve(self.table, self.operators, self.settings, ntu_type, edges)
            found[ntu_type] = Folded([key for key, _ in members], vectors, degrees[numbers])
        return found, too_few

    def _side(self, ntus: pa.Array, role: str) -> Side:
        rows, offsets, places = rows_of(self.table, self.scheme, ntus, [role])
        keys = ntus.flatten().field("key").take(pa.array(places))
        unknown = np.flatnonzero(rows < 0)
        ntu_type, numbers = self.scheme.roles[role].type, self.numbers
        for place, key in zip(unknown, keys.take(pa.array(unknown)).to_pylist(), strict=True):
            rows[place] = -1 - numbers.setdefault((ntu_type, key), len(numbers))
        return Side(rows, np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), keys)

    def _meet(self, relation: int, side: int, new: Side, known: Side, one_role: bool) -> None:
        """The edges of new NTUs on `side` of a relation with the known ones of the same posts."""
        starts, ends = (np.searchsorted(known.owners, new.owners, how) for how in ("left", "right"))
        totals = np.cumsum(ends - starts)
        for first in range(0, int(totals[-1]) if len(totals) else 0, PAIRS_AT_ONCE):
            pairs = np.arange(first, min(first + PAIRS_AT_ONCE, int(totals[-1])))
            here = np.searchsorted(totals, pairs, "right")
            there = ends[here] - (totals[here] - pairs)
            sides: np.ndarray | int = side
            if one_role:
                smaller = pc.less(new.keys.take(pa.array(here)), known.keys.take(pa.array(there)))
                sides = np.where(smaller.to_numpy(False).astype(bool), 0, 1)
            self._keep(-1 - new.nodes[here], relation, sides, known.nodes[there])

    def _keep(self, number: np.ndarray, relation: int, side: np.ndarray | int, row: np.ndarray) -> None:
        packed = (number * len(self.operators.names) + relation) * 2 + side
        if len(packed) and int(packed.max()) >= np.iinfo(np.int64).max // len(self.table):
            raise UserError(
                f"{len(self.numbers):,} new NTUs at once: too many for this table; give fewer posts at once"
            )
        self._waiting.append(np.stack(np.unique(packed * len(self.table) + row, return_counts=True)))
        if sum(part.shape[1] for part in self._waiting) > max(WAITING, self._edges.shape[1]):
            self._merge()

    def _merge(self) -> None:
        codes, counts = np.concatenate([self._edges, *self._waiting], axis=1)
        distinct, places = np.unique(codes, return_inverse=True)
        sums = np.zeros(len(distinct), np.int64)
        np.add.at(sums, places, counts)
        self._edges, self._waiting = np.stack([distinct, sums]), []

    def _unpacked(self) -> tuple[np.ndarray, ...]:
        """Number of the new NTU, relation, side, row and count of each edge, int64 [E]."""
        self._merge()
        codes, counts = self._edges
        codes, row = np.divmod(codes, max(1, len(self.table)))
        codes, side = np.divmod(codes, 2)
        number, relation = np.divmod(codes, len(self.operators.names))
        return number, relation, side, row, counts
