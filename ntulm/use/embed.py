"""`ntulm embed`: posts to a store of vectors, to which only what is new for this version of the model is added.

Reads POSTS and a model directory, writes a Parquet file (`ntulm/inference/store.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from ntulm.errors import UserError
from ntulm.inference.directory import find
from ntulm.inference.incoming import Faults, fingerprints
from ntulm.inference.model import Model, load
from ntulm.inference.progress import Progress
from ntulm.inference.store import Adding, Rows, adding
from ntulm.inference.version import version_of
from ntulm.posts import Posts
from ntulm.use.posts import check_source, read_incoming


def run(source: str, model_name: str, out: Path) -> None:
    """Embed the posts of `source` that the store `out` does not have yet under this version, and say what was done.

    Raises:
        UserError: no such posts or model, a file that is no store, or no post could be read.
    """
    check_source(source)
    directory = find(model_name)
    model = load(directory)
    faults = Faults()
    try:
        with adding(out, version_of(directory), model.encoder.width) as store:
            rate = add_all(model, source, store, faults)
            if faults.count and not store.seen.count:
                raise UserError(f"{source}: none of {faults.count:,} rows is a post; {faults.first}")
            store.finish()
    except KeyboardInterrupt as error:
        raise UserError(f"{out}: interrupted; the same command goes on where it stopped") from error
    print("\n".join([summary(out, store, rate), *faults.lines()]), file=sys.stderr)


def add_all(model: Model, source: str, store: Adding, faults: Faults) -> float:
    """Embed what is new; posts per second."""
    progress = Progress("embed")
    for part in read_incoming(source, model.settings):
        faults.add(part.faults)
        add(model, part.posts, store)
        progress.add(len(part.posts), part.share)
    progress.done()
    return progress.rate


def add(model: Model, posts: Posts, store: Adding) -> None:
    """Embed those of N posts that the store does not have."""
    contents = np.fromiter(fingerprints(posts), np.uint64, len(posts))
    fresh = store.fresh(posts.table["post_id"].to_pylist(), contents)
    if not fresh.any():
        return
    new = posts.take(fresh)
    vectors = model.encode(new)
    if not np.isfinite(vectors).all():
        raise UserError("a post's vector is not a number; the model is broken")
    known = [[f"{ntu.role}:{ntu.key}" for ntu in own] for own in model.known(new)]
    store.add(Rows(new.table["post_id"].to_pylist(), contents[fresh], vectors, known))


def summary(out: Path, store: Adding, rate: float) -> str:
    """One line of what became of the posts."""
    counts = store.counts
    said = [f"{counts.embedded:,} posts embedded", f"{counts.there:,} were there"]
    said += [f"{counts.changed:,} of the embedded had changed"] if counts.changed else []
    said += [f"{counts.repeated:,} stood more than once"] if counts.repeated else []
    said += [f"{counts.foreign:,} of an interrupted run over other posts left out"] if counts.foreign else []
    return f"{out}: {', '.join(said)}; {rate:,.0f} posts per second; model {store.version}"
