"""`Model.add`: rows for new authors, hashtags … of posts, in memory, in a directory, and what a store says of them.

Library of `ntulm/inference/model.py` and of `ntulm embed`; needs numpy and pyarrow alone.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ntulm.embeddings.newcomers import Newcomers
from ntulm.embeddings.operators import Operators
from ntulm.embeddings.table import EmbeddingTable, Later, write_overlay
from ntulm.errors import UserError
from ntulm.files import whole_directory
from ntulm.inference.directory import Settings
from ntulm.inference.incoming import fingerprints
from ntulm.ntus import NtuScheme, rows_of

if TYPE_CHECKING:
    from ntulm.posts import Posts


@dataclass(frozen=True)
class Added:
    """What became of the new NTUs of some posts, per type."""

    added: dict[str, int]  # have a row now
    renewed: dict[str, int]  # had one, from fewer edges
    kept: dict[str, int]  # had one, from as many edges or more
    too_few: dict[str, int]  # have none: fewer than `min_edges` edges to known NTUs

    def __str__(self) -> str:
        said = [f"{sum(counts.values()):,} {word}{_of(counts)}" for word, counts in self._named() if counts]
        return f"new NTUs: {'; '.join(said) or 'none'}"

    def _named(self) -> list[tuple[str, dict[str, int]]]:
        words = ("folded in", "folded in anew from more edges", "as they were", "left out, with too few edges")
        return list(zip(words, (self.added, self.renewed, self.kept, self.too_few), strict=True))


def _of(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{name} {count:,}' for name, count in counts.items())})"


def fold_in(
    table: EmbeddingTable, settings: Settings, directory: Path, parts: Iterable[Posts]
) -> tuple[EmbeddingTable, Added]:
    """The table with rows for the new NTUs of all parts together, and what became of them; `table` stays as it is.

    Raises:
        UserError: the model directory was made before models could do this.
    """
    if settings.fold_in is None:
        raise UserError(f"{directory}: made before new NTUs could be folded in; run `dvc repro embeddings model` again")
    newcomers = Newcomers(table, settings.scheme, Operators.load(directory), settings.fold_in)
    for posts in parts:
        newcomers.add(posts)
    before = table.later()
    resting = dict(zip(zip(before.types, before.keys, strict=True), before.edges.tolist(), strict=True))
    trained = np.iinfo(np.int64).max  # more than any number of edges: such a row stays
    solved, too_few = newcomers.solved({ntu: edges or trained for ntu, edges in resting.items()})
    found = {(kind, key) for kind, folded in solved.items() for key in folded.keys}
    report = Added(
        added=_counted(kind for kind, key in found if (kind, key) not in resting),
        renewed=_counted(kind for kind, key in found if (kind, key) in resting),
        kept=_counted(kind for kind, key in newcomers.numbers if (kind, key) in resting and (kind, key) not in found),
        too_few=_counted(kind for kind, key in too_few if (kind, key) not in resting),
    )
    if not found:
        return table, report
    stays = [place for place, ntu in enumerate(resting) if ntu not in found]
    kinds = [before.types[place] for place in stays] + [kind for kind, own in solved.items() for _ in own.keys]
    keys = [before.keys[place] for place in stays] + [key for own in solved.values() for key in own.keys]
    vectors = np.concatenate([before.vectors[stays], *(own.vectors for own in solved.values())])
    edges = np.concatenate([before.edges[stays], *(own.edges for own in solved.values())])
    order = sorted(range(len(keys)), key=lambda place: (kinds[place], keys[place]))
    later = Later([kinds[place] for place in order], [keys[place] for place in order], vectors[order], edges[order])
    return table.with_overlay(later), report


def save(source: Path, target: Path, table: EmbeddingTable) -> None:
    """A copy of a model directory with the overlay of `table`; the copy is whole or not there.

    Raises:
        UserError: there is something at `target` already.
    """
    if target.exists():
        raise UserError(f"{target}: there already; name a folder that does not exist")
    with whole_directory(target) as directory:
        shutil.copytree(source, directory, dirs_exist_ok=True)
        write_overlay(directory, table)


def contents(posts: Posts, table: EmbeddingTable, stored: EmbeddingTable, scheme: NtuScheme) -> np.ndarray:
    """Fingerprints of N posts, uint64 [N]: of all that the model sees, the rows of `table` that were added too.

    Args:
        posts: N posts.
        table: that the model uses.
        stored: that of its directory, which the model's version stands for.
        scheme: the NTUs of the model.
    """
    found = np.fromiter(fingerprints(posts), np.uint64, len(posts))
    if table is stored:
        return found
    roles = list(scheme.of_posts)
    rows, offsets, _ = rows_of(table, scheme, posts.ntus, roles)
    later = np.flatnonzero(rows >= len(table.base))
    vectors, there = table.vectors_of(rows[later]), rows_of(stored, scheme, posts.ntus, roles)[0][later]
    same = (there >= 0) & (stored.vectors_of(there) == vectors).all(axis=1)
    owners = np.repeat(np.arange(len(posts)), np.diff(offsets))[later]
    for owner, vector in zip(owners[~same], vectors[~same], strict=True):
        digest = blake2b(found[owner].tobytes() + vector.tobytes(), digest_size=8).digest()
        found[owner] = int.from_bytes(digest, "little")
    return found


def _counted(kinds: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(kinds).items()))
