"""Arriving posts beside those that the model in production was trained on: which are new, and what can be told of each.

Reads the corpus of a project, or raw exports, which it normalises with the code of the stage corpus without writing
anything that stays. Library only; `ntulm check` uses it. Of a post only figures leave this module: no text, no author.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm.corpus.records import Privacy, read_export
from ntulm.corpus.stage import TABLES, write_table
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.files import read_json
from ntulm.layout import Layout
from ntulm.ntus import FIELDS, NtuScheme, known_posts, ntus_of
from ntulm.pseudonyms import VARIABLE, from_environment
from ntulm.text import Reading, bare

if TYPE_CHECKING:
    from ntulm.corpus.config import Corpus
    from ntulm.params import Params

COLUMNS = ["post_id", "created_at", *FIELDS]
WORD = re.compile(r"[^\W\d_]+")
POST, REJECT = "post", "reject"


@dataclass(frozen=True)
class Records:
    """Posts with an author (COLUMNS), and the rejects beside them (file, line)."""

    posts: pa.Table
    rejects: pa.Table

    def without(self, known: Records) -> Records:
        """What `known` does not hold: posts by id, rejects by file and line."""
        held = pc.is_in(self.posts["post_id"], known.posts["post_id"].combine_chunks())
        rejects = self.rejects.join(known.rejects, ["file", "line"], join_type="left anti")
        return Records(self.posts.filter(pc.invert(held)), rejects)


def read_records(layout: Layout, split: str | None = None) -> Records:
    """The corpus of a project, or one split of it (rejects have none).

    Raises:
        UserError: the stage corpus has not run there.
    """
    for path in (layout.posts, layout.splits, layout.rejects):
        if not path.is_file():
            raise UserError(f"{path}: not found; run `dvc repro corpus` first, which writes it")
    written = pq.read_schema(layout.posts).names  # an older corpus has fewer
    posts = pq.read_table(layout.posts, columns=[name for name in COLUMNS if name in written])
    if split is not None:
        posts = posts.filter(pc.equal(pq.read_table(layout.splits, columns=["split"])["split"], split))
    return _with_author(posts, pq.read_table(layout.rejects, columns=["file", "line"]))


def read_exports(config: Corpus, path: Path) -> Records:
    """Raw exports as the stage corpus would read them, without splits.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        read_export(
            path,
            config.format,
            config.table,
            config.languages,
            config.duplicates,
            Path(folder) / "spill",
            Privacy.of(config),
        ) as export,
    ):
        connection = export.connection
        for table in ("posts", "rejects"):
            query, schema = TABLES[table]
            write_table(connection, query, schema, Path(folder) / f"{table}.parquet")
        posts = pq.read_table(Path(folder) / "posts.parquet", columns=COLUMNS)
        rejects = pq.read_table(Path(folder) / "rejects.parquet", columns=["file", "line"])
    return _with_author(posts, rejects)


def _with_author(posts: pa.Table, rejects: pa.Table) -> Records:
    return Records(posts.filter(pc.is_valid(posts["author"])), rejects)


def found_records(params: Params, exports: Path | None, champion: Layout, layout: Layout) -> Records:
    """All that lies where posts arrive: the raw exports, or without them `data/corpus`; what `champion` holds as well.

    Raises:
        UserError: nothing is there, or its users are written otherwise than those of the model in production.
    """
    refuse_other_names(params, exports, champion, layout)
    return read_records(layout) if exports is None else read_exports(params.corpus, exports)


def refuse_other_names(params: Params, exports: Path | None, champion: Layout, layout: Layout) -> None:
    """Names on one side and pseudonyms on the other, or those of two keys, have no post's author in common.

    Raises:
        UserError: so it is here.
    """
    if not champion.reading.is_file():
        return
    known = Reading(**read_json(champion.reading))
    own = known
    if exports is None and layout.reading.is_file():
        own = Reading(**read_json(layout.reading))
    elif exports is not None:
        fingerprint = from_environment(known).fingerprint if params.corpus.pseudonyms else None
        own = replace(known, pseudonyms=fingerprint)
    if own.pseudonyms != known.pseudonyms:
        raise UserError(
            f"corpus.pseudonyms: users here have {_names(own)}, those of {champion.root} have {_names(known)}; "
            f"set corpus.pseudonyms and {VARIABLE} as they were, or build anew"
        )


def _names(reading: Reading) -> str:
    return "their own names" if reading.pseudonyms is None else f"pseudonyms of the key {reading.pseudonyms}"


def posts_per_day(posts: pa.Table) -> tuple[float, int]:
    """Posts per day, over the days that have any, and the number of those days."""
    days = len(pc.unique(pc.cast(posts["created_at"], pa.date32())))
    return (len(posts) / days if days else 0.0), days


def most_used_words(texts: Iterable[str], number: int) -> frozenset[str]:
    """The words that stand in the texts most often; equally frequent ones by the alphabet."""
    counts = Counter(word for text in texts for word in words(text))
    return frozenset(sorted(counts, key=lambda word: (-counts[word], word))[:number])


def words(text: str) -> list[str]:
    """The words of a text in small letters, without links, mentions and hashtags."""
    return WORD.findall(bare(text).lower())


def frame(
    records: Records, common: frozenset[str], table: EmbeddingTable | None, scheme: NtuScheme, roles: Sequence[str]
) -> pd.DataFrame:
    """One row per record: `fate` (post, reject), and of a post, what the checks compare.

    Args:
        records: the posts and rejects.
        common: the most used words of the training window.
        table: the embedding table in production; without one nothing is said of known NTUs.
        scheme: which NTUs posts have.
        roles: those that count as known.

    Returns:
        Columns `length` (of the text), `has_hashtag`, `common_words` (share of the post's words; 0 for a post
        without words) and, with a table, `knows_any` (an NTU that plays one of the roles).
    """
    fields = {name: records.posts[name].to_pylist() for name in FIELDS if name in records.posts.column_names}
    columns: dict[str, Sequence[float] | np.ndarray] = {
        "length": [float(len(text)) for text in fields["text"]],
        "has_hashtag": [float(bool(tags)) for tags in fields["hashtags"]],
        "common_words": [_share(words(text), common) for text in fields["text"]],
    }
    if table is not None:
        columns["knows_any"] = known_posts(table, scheme, ntus_of(scheme, fields), roles).astype(float)
    posts = pd.DataFrame(columns).assign(fate=POST)
    rejects = pd.DataFrame({"fate": [REJECT] * len(records.rejects)})
    return pd.concat([posts, rejects], ignore_index=True)


def _share(found: list[str], common: frozenset[str]) -> float:
    return sum(word in common for word in found) / len(found) if found else 0.0
