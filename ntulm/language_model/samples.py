"""Which posts of the corpus the language model learns from and is measured on.

Reads `data/corpus/posts.parquet` and `splits.parquet`, whose rows are in the same order. The stages `adapt` and
`pretrain` use it. A post without an author is known from its reposts alone; its text may be cut, so it is left out.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm import layout
from ntulm.errors import UserError

FIXED_SEED = 0  # validation and test posts are the same for every seed, so that seeds can be compared post by post


@dataclass(frozen=True)
class Sample:
    """N posts of one split, in the order of the corpus."""

    texts: list[str]
    authors: list[str]
    hashtags: list[list[str]]
    ordinals: np.ndarray  # int32 [N], number of the post among all posts of its split

    def __len__(self) -> int:
        return len(self.texts)


def sample_posts(split: str, max_posts: int, seed: int) -> Sample:
    """Draw at most `max_posts` posts of a split, each with the same chance.

    Raises:
        UserError: the corpus is missing, its files do not belong together, or the split has no post.
    """
    for path in (layout.POSTS, layout.SPLITS):
        if not path.is_file():
            raise UserError(f"{path}: not found; run `dvc repro corpus` first, which writes it")
    members = pc.fill_null(pc.equal(pq.read_table(layout.SPLITS, columns=["split"])["split"], split), False)
    authored = pq.read_table(layout.POSTS, columns=["author"])["author"].is_valid()
    if len(members) != len(authored):
        raise UserError(f"{layout.SPLITS}: {len(members)} rows for {len(authored)} posts; run `dvc repro corpus` again")
    in_split = np.flatnonzero(members.to_numpy())
    eligible = np.flatnonzero(authored.to_numpy()[in_split])
    if not len(eligible):
        raise UserError(f"{layout.SPLITS}: no {split} post with an author; move the cuts of corpus.splits")
    if len(eligible) > max_posts:
        eligible = np.sort(np.random.default_rng(seed).choice(eligible, max_posts, replace=False))
    posts = _read_rows(in_split[eligible])
    return Sample(
        posts["text"].to_pylist(),
        posts["author"].to_pylist(),
        [tags or [] for tags in posts["hashtags"].to_pylist()],
        eligible.astype(np.int32),
    )


def _read_rows(rows: np.ndarray) -> pa.Table:
    """The posts at `rows` int64 [N] (ascending); the file is read in parts."""
    kept, start = [], 0
    with pq.ParquetFile(layout.POSTS) as file:
        for part in file.iter_batches(columns=["text", "author", "hashtags"]):
            first, last = np.searchsorted(rows, [start, start + len(part)])
            kept.append(part.take(pa.array(rows[first:last] - start)))
            start += len(part)
    return pa.Table.from_batches(kept)
