"""`ntulm suggest`: hashtags for posts that have not all of theirs yet.

With a classifier of hashtags (the task `hashtag`, or another one by --task) its likeliest classes. Without one the
hashtags whose vectors in the embedding table are nearest to the mean of the post's known NTUs: a post without any gets
none. Hashtags that a post has are not suggested.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from ntulm.errors import UserError
from ntulm.inference.incoming import Faults
from ntulm.inference.model import Model, load
from ntulm.inference.progress import Progress
from ntulm.inference.search import key_of, nearest_ntus
from ntulm.ntus import rows_of
from ntulm.posts import Posts
from ntulm.text import normalise
from ntulm.use.output import Record, check_ending, opened
from ntulm.use.posts import check_source, read_incoming

TASK = "hashtag"  # of the pipeline, whose classes are hashtags
FORM = "hashtag"  # a key form
BY_CLASSIFIER, BY_TABLE = "classifier", "table"
SCHEMA = pa.schema(
    [
        ("post_id", pa.string()),
        ("hashtags", pa.map_(pa.string(), pa.float32())),
        ("by", pa.string()),
        ("known", pa.bool_()),
    ]
)


def run(source: str, model_name: str, task: str | None, top: int, out: Path | None) -> None:
    """Suggest `top` hashtags for each post of `source`: probabilities of the classifier, or cosines.

    Raises:
        UserError: no such posts, model or task, or a table without hashtags where there is no classifier.
    """
    check_ending(out)
    if top < 1:
        raise UserError(f"--top {top}: expected at least 1")
    check_source(source)
    model, faults, progress = load(model_name), Faults(), Progress("suggest")
    chosen = task or (TASK if TASK in model.tasks else None)
    with opened(out, SCHEMA) as output:
        for part in read_incoming(source, model.settings):
            faults.add(part.faults)
            found = (
                by_table(model, part.posts, top) if chosen is None else by_classifier(model, part.posts, chosen, top)
            )
            output.write(found)
            progress.add(len(found), None if out is None and sys.stdout.isatty() else part.share)
        if faults.count and not progress.posts:
            raise UserError(f"{source}: none of {faults.count:,} rows is a post; {faults.first}")
    progress.done()
    how = f"the classifier {chosen}" if chosen else "the embedding table (the model has no classifier `hashtag`)"
    print("\n".join([f"{progress.posts:,} posts, hashtags by {how}", *faults.lines()]), file=sys.stderr)


def by_classifier(model: Model, posts: Posts, task: str, top: int) -> list[Record]:
    """The likeliest classes with their probabilities."""
    records: list[Record] = []
    for post_id, one, own in zip(ids_of(posts), model.predict(posts, task), hashtags_of(model, posts), strict=True):
        ranked = sorted(one.probabilities.items(), key=lambda item: -item[1])
        named = [(name, round(score, 4)) for name, score in ranked if normalise(name) not in own][:top]
        records.append({"post_id": post_id, "hashtags": dict(named), "by": BY_CLASSIFIER, "known": one.known})
    return records


def by_table(model: Model, posts: Posts, top: int) -> list[Record]:
    """The hashtags nearest to what is known of a post, with their cosines."""
    table, scheme = model.table, model.settings.scheme
    types = [name for name, form in scheme.types.items() if form == FORM]
    if not types:
        raise UserError(
            "the model has neither a classifier `hashtag` nor hashtags in its table: nothing to suggest from"
        )
    rows, offsets, _ = rows_of(table, scheme, posts.ntus, list(scheme.of_posts))
    records: list[Record] = []
    for place, (post_id, own) in enumerate(zip(ids_of(posts), hashtags_of(model, posts), strict=True)):
        known = rows[offsets[place] : offsets[place + 1]]
        known = known[known >= 0]
        named: dict[str, float] = {}
        if len(known):
            mean = np.asarray(table.vectors_of(known).mean(0))
            without = [f"{name}\0{key}" for name in types for key in own]
            found = nearest_ntus(table, mean, types, top, without)
            named = {key_of(name): round(cosine, 4) for name, cosine in found}
        records.append({"post_id": post_id, "hashtags": named, "by": BY_TABLE, "known": bool(len(known))})
    return records


def ids_of(posts: Posts) -> list[str]:
    """The ids of N posts."""
    return list(posts.table["post_id"].to_pylist())


def hashtags_of(model: Model, posts: Posts) -> list[set[str]]:
    """The hashtags that each of N posts has already."""
    roles = model.settings.scheme.hashtag_roles
    return [{ntu["key"] for ntu in own if ntu["role"] in roles} for own in posts.ntus.to_pylist()]
