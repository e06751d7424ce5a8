"""Which posts of the corpus the language model learns from and is measured on.

Reads `data/corpus/posts.parquet` and `splits.parquet`, whose rows are in the same order. The stages `adapt` and
`pretrain` use it. A post without an author is known from its reposts alone; its text may be cut, so it is left out.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm.errors import UserError
from ntulm.layout import Layout
from ntulm.ntus import NtuScheme
from ntulm.posts import Posts

FIXED_SEED = 0  # validation and test posts are the same for every seed, so that seeds can be compared post by post
NO_NTUS = NtuScheme({}, {})  # of a stage that looks at texts alone


def sample_posts(split: str, max_posts: int, seed: int, scheme: NtuScheme, layout: Layout) -> Posts:
    """Draw at most `max_posts` posts of a split, each with the same chance.

    Returns:
        N posts in the order of the corpus, with a column `ordinal` int32: the number of the post among all posts of its
        split.

    Raises:
        UserError: the corpus is missing, its files do not belong together, or the split has no post.
    """
    for path in (layout.posts, layout.splits):
        if not path.is_file():
            raise UserError(f"{path}: not found; run `dvc repro corpus` first, which writes it")
    members = pc.fill_null(pc.equal(pq.read_table(layout.splits, columns=["split"])["split"], split), False)
    authored = pq.read_table(layout.posts, columns=["author"])["author"].is_valid()
    if len(members) != len(authored):
        raise UserError(f"{layout.splits}: {len(members)} rows for {len(authored)} posts; run `dvc repro corpus` again")
    in_split = np.flatnonzero(members.to_numpy())
    eligible = np.flatnonzero(authored.to_numpy()[in_split])
    if not len(eligible):
        raise UserError(f"{layout.splits}: no {split} post with an author; move the cuts of corpus.splits")
    if len(eligible) > max_posts:
        eligible = np.sort(np.random.default_rng(seed).choice(eligible, max_posts, replace=False))
    posts = _read_rows(layout.posts, in_split[eligible], scheme)
    fields = {name: posts[name].to_pylist() for name in posts.column_names}
    return Posts.of(scheme, fields, ordinal=eligible.astype(np.int32))


def _read_rows(path: Path, rows: np.ndarray, scheme: NtuScheme) -> pa.Table:
    """The posts at `rows` int64 [N] (ascending) with the fields of the scheme's roles; the file is read in parts."""
    kept, start = [], 0
    with pq.ParquetFile(path) as file:
        wanted = {"post_id", "text", "author", *(role.field for role in scheme.of_posts.values())}
        columns = [name for name in file.schema_arrow.names if name in wanted]
        for part in file.iter_batches(columns=columns):
            first, last = np.searchsorted(rows, [start, start + len(part)])
            kept.append(part.take(pa.array(rows[first:last] - start)))
            start += len(part)
    return pa.Table.from_batches(kept)
