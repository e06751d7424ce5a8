"""The posts of the corpus as tasks see them: with an author, a split, and the labels that belong to them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm import pseudonyms
from ntulm.errors import UserError
from ntulm.files import read_json
from ntulm.layout import Layout
from ntulm.ntus import FIELDS, NtuScheme
from ntulm.posts import Posts
from ntulm.tasks.config import CorpusLabels, FileLabels
from ntulm.tasks.dataset import labelled_posts, number
from ntulm.tasks.records import inside, records
from ntulm.text import Reading

SPLIT_NAMES = {"corpus": "", "author": ", split by author", "random": ", split at random"}  # after a family's name


def corpus_posts(split: str, seed: int, layout: Layout) -> pa.Table:
    """`post_id`, FIELDS and `split` of every post that has an author and a corpus split, in corpus order.

    Args:
        split: `corpus` keeps the splits of the corpus; `author` and `random` draw new ones of the same sizes among the
            same posts, by whole authors or by single posts.
        seed: of that draw.
        layout: where the corpus is.
    """
    for path in (layout.posts, layout.splits):
        if not path.is_file():
            raise UserError(f"{path}: not found; run `ntulm corpus` first")
    written = pq.read_schema(layout.posts).names
    posts = pq.read_table(layout.posts, columns=[name for name in ("post_id", *FIELDS) if name in written])
    splits = pq.read_table(layout.splits, columns=["post_id", "split"])
    if not posts["post_id"].equals(splits["post_id"]):
        raise UserError(f"{layout.splits}: its posts are not those of {layout.posts}; run `ntulm corpus` again")
    posts = posts.append_column("split", splits["split"])
    posts = posts.filter(pc.and_(pc.is_valid(posts["author"]), pc.is_valid(posts["split"])))
    if split != "corpus" and len(posts):
        keys = posts["author" if split == "author" else "post_id"].to_pylist()
        drawn = redraw(keys, Counter(posts["split"].to_pylist()), seed)
        posts = posts.set_column(posts.schema.get_field_index("split"), "split", pa.array(drawn))
    return posts


def with_texts(posts: pa.Table, texts: list[str]) -> pa.Table:
    """The posts with other texts."""
    return posts.set_column(posts.schema.get_field_index("text"), "text", pa.array(texts, pa.string()))


def with_labels(scheme: NtuScheme, posts: pa.Table, labels: Sequence[Sequence[int]]) -> Posts:
    """The posts of a table as `corpus_posts` gives it, with their NTUs and labels; texts are masked before."""
    fields = {name: posts[name].to_pylist() for name in ("post_id", *FIELDS) if name in posts.column_names}
    return labelled_posts(scheme, fields, posts["split"].to_pylist(), labels)


def redraw(keys: Sequence[str], sizes: Counter[str], seed: int) -> list[str]:
    """New splits of about the given sizes such that posts of equal key (author or id) stay together.

    The keys stand in a seeded random order; test takes the first posts, validation the next, train the rest.
    A key goes where the middle of its posts falls, so that one big author does not empty or fill a split.
    """
    distinct, group, counts = np.unique(np.asarray(keys, dtype=object), return_inverse=True, return_counts=True)
    order = np.array([number(seed, key) for key in distinct], dtype=np.uint64).argsort(kind="stable")
    middle = np.empty(len(distinct))
    middle[order] = counts[order].cumsum() - counts[order] / 2
    names = np.full(len(distinct), "train", dtype=object)
    names[middle < sizes["test"] + sizes["validation"]] = "validation"
    names[middle < sizes["test"]] = "test"
    return names[group].tolist()


def post_labels(path: Path, labels: CorpusLabels | FileLabels, layout: Layout) -> dict[str, list[str]]:
    """Each labelled post's distinct labels in the order given; a leading `$` (a stock symbol's) is taken off."""
    pairs = _field(path, labels) if isinstance(labels, CorpusLabels) else _hidden(_file(path, labels), layout)
    found: dict[str, dict[str, None]] = {}
    for post_id, value in pairs:
        if bare := label_key(value):
            found.setdefault(post_id, {})[bare] = None
    return {post_id: list(values) for post_id, values in found.items()}


def label_key(value: str) -> str:
    """A label as it is compared: without white space around it and without a leading `$`."""
    return value.strip().lstrip("$").strip()


def _field(path: Path, labels: CorpusLabels) -> list[tuple[str, str]]:
    file = inside(path, labels.file)
    if not file.is_file():
        raise UserError(f"{file}: not found; run `ntulm corpus` first")
    rows = pq.read_table(file, columns=["post_id", "field", "value"])
    fields = pc.unique(rows["field"]).to_pylist()
    if labels.field not in fields:
        given = ", ".join(sorted(fields)) or "none; name those of the posts in corpus.labels"
        raise UserError(f"labels.field: {labels.field!r} is not in {file}; it has {given}")
    rows = rows.filter(pc.equal(rows["field"], labels.field))
    return list(zip(rows["post_id"].to_pylist(), rows["value"].to_pylist(), strict=True))


def _file(path: Path, labels: FileLabels) -> list[tuple[str, str]]:
    pairs = []
    for _, row in records(inside(path, labels.file), [labels.id_column, labels.label_column]):
        value = row[labels.label_column]
        values = [value] if labels.separator is None else value.split(labels.separator)
        pairs += [(row[labels.id_column], one) for one in values]
    return pairs


def _hidden(pairs: list[tuple[str, str]], layout: Layout) -> list[tuple[str, str]]:
    """The pairs with the ids that the posts have in a corpus with pseudonyms."""
    hidden = pseudonyms.of(Reading(**read_json(layout.reading))) if layout.reading.is_file() else None
    return pairs if hidden is None else [(hidden.post_id(post_id), value) for post_id, value in pairs]


def require_labelled(posts: pa.Table, labels: dict[str, list[str]], path: Path) -> pa.Table:
    """The posts that have a label, in corpus order; none is a user error that shows both kinds of id."""
    kept = posts.filter(pc.is_in(posts["post_id"], pa.array(list(labels), pa.string())))
    if not len(kept):
        example = next(iter(labels), "none")
        post = posts["post_id"][0].as_py() if len(posts) else "none"
        raise UserError(
            f"no label of {path} belongs to a post with author and split; ids there like {example!r}, here {post!r}"
        )
    return kept
