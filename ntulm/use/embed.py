"""`ntulm embed`: posts to a store of vectors, to which only what is new for this version of the model is added.

Reads POSTS and a model directory, writes a Parquet file (`ntulm/inference/store.py`). Where the model's settings say so
(`fold_in.embed: batch`), POSTS are read whole first, and new authors, hashtags … get a row from their edges in them.
The model stays as it is. A post that stands on such a row has another fingerprint than without it: it is embedded anew
when the row changes (docs/decisions/0051).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from ntulm.errors import UserError
from ntulm.inference.added import contents
from ntulm.inference.directory import find
from ntulm.inference.incoming import Faults, Incoming
from ntulm.inference.model import Model, load
from ntulm.inference.progress import Progress
from ntulm.inference.rows import Fault
from ntulm.inference.store import Adding, Rows, adding
from ntulm.inference.version import version_of
from ntulm.posts import COLUMNS, Posts
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
    with ExitStack() as kept:
        parts: Iterator[Incoming] = read_incoming(source, model.settings)
        if folds_in(model):
            parts = folded_in(model, parts, Path(kept.enter_context(TemporaryDirectory())) / "posts.arrow")
        for part in parts:
            faults.add(part.faults)
            add(model, part.posts, store)
            progress.add(len(part.posts), part.share)
    progress.done()
    return progress.rate


def folds_in(model: Model) -> bool:
    """Whether the model's settings say that new NTUs of the posts that it embeds get a row (`fold_in.embed`)."""
    return model.settings.fold_in is not None and model.settings.fold_in.embed == "batch"


def folded_in(model: Model, parts: Iterator[Incoming], file: Path) -> Iterator[Incoming]:
    """The same posts after the new NTUs of all of them were folded in; meanwhile they lie in `file`, as Arrow."""
    faults: list[Fault] = []
    total = done = 0

    def through(writer: pa.RecordBatchStreamWriter) -> Iterator[Posts]:
        nonlocal total
        for part in parts:
            faults.extend(part.faults)
            total += len(part.posts)
            for batch in part.posts.table.combine_chunks().to_batches():
                writer.write_batch(batch)
            yield part.posts

    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, COLUMNS) as writer:
        report = model.add_parts(through(writer))
    print(f"embed: {report}", file=sys.stderr)
    with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as reader:
        for batch in reader:
            done += batch.num_rows
            yield Incoming(Posts(pa.Table.from_batches([batch])), faults, done / total, list(range(batch.num_rows)))
            faults = []
    if faults:  # and no post
        yield Incoming(Posts(COLUMNS.empty_table()), faults, 1.0, [])


def add(model: Model, posts: Posts, store: Adding) -> None:
    """Embed those of N posts that the store does not have."""
    seen = contents(posts, model.table, model.stored, model.settings.scheme)
    fresh = store.fresh(posts.table["post_id"].to_pylist(), seen)
    if not fresh.any():
        return
    new = posts.take(fresh)
    vectors = model.encode(new)
    if not np.isfinite(vectors).all():
        raise UserError("a post's vector is not a number; the model is broken")
    known = [[f"{ntu.role}:{ntu.key}" for ntu in own] for own in model.known(new)]
    store.add(Rows(new.table["post_id"].to_pylist(), seen[fresh], vectors, known))


def summary(out: Path, store: Adding, rate: float) -> str:
    """One line of what became of the posts."""
    counts = store.counts
    said = [f"{counts.embedded:,} posts embedded", f"{counts.there:,} were there"]
    said += [f"{counts.changed:,} of the embedded had changed"] if counts.changed else []
    said += [f"{counts.repeated:,} stood more than once"] if counts.repeated else []
    said += [f"{counts.foreign:,} of an interrupted run over other posts left out"] if counts.foreign else []
    return f"{out}: {', '.join(said)}; {rate:,.0f} posts per second; model {store.version}"
