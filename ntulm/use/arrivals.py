"""`ntulm arrivals PROJECT [--exports PATH]`: posts that arrive, embedded and labelled by the model in production.

PROJECT is a folder laid out like this one that holds `data/corpus` and `data/model` of the model in production. Posts
arrive where `ntulm check` looks for them: `data/corpus`, or the raw exports at PATH. Embedded are

- all that the corpus in PROJECT does not hold and that are new to the store, or say something else than they did;
- of those that stand in the store under earlier versions alone, the backlog after a promotion, the newest
  `arrivals.backlog_per_run`: the next runs embed the rest;
- once per version, `arrivals.reference_posts` test posts of the corpus in PROJECT, which `ntulm drift` compares with.

Each run adds to `data/arrivals` (`ntulm/production/kept.py`), and none takes anything away.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm.files import whole_file, write_json
from ntulm.inference.model import Model, load
from ntulm.inference.progress import Progress
from ntulm.inference.rows import ROWS_AT_ONCE
from ntulm.inference.store import adding, digests, open_store, width_of
from ntulm.inference.version import version_of
from ntulm.layout import Layout
from ntulm.ntus import FIELDS, LISTS
from ntulm.posts import Posts
from ntulm.production.arriving import found_records, read_records
from ntulm.production.kept import INDEX, MOMENT, Kept
from ntulm.production.labels import label_store
from ntulm.use.embed import add, folds_in
from ntulm.use.posts import as_read

if TYPE_CHECKING:
    from ntulm.inference.store import Counts
    from ntulm.params import Params


@dataclass(frozen=True)
class Todo:
    """What a run has to do: tables of posts as `ntulm.production.arriving.COLUMNS` has them."""

    arriving: pa.Table  # those that are done already are passed over later
    backlog: pa.Table
    left: int  # of the backlog, for the next runs
    gone: int  # of earlier versions alone, and no longer where posts arrive


@dataclass
class Done:
    """What a run did, in figures."""

    version: str  # of the model
    embedded: int = 0  # that arrived
    backlog: int = 0  # that were embedded anew
    backlog_left: int = 0
    gone: int = 0
    stored: int = 0  # under this version, in all
    reference: int = 0  # posts to compare with
    labelled: dict[str, int] = field(default_factory=dict)  # now, by classifier

    @property
    def nothing(self) -> bool:
        """Whether there was nothing to do."""
        return not (self.embedded or self.backlog or any(self.labelled.values()))

    def __str__(self) -> str:
        said = [f"{self.embedded:,} posts arrived and were embedded"]
        said += [f"{self.backlog:,} of the backlog embedded anew"] if self.backlog or self.backlog_left else []
        said += [f"{self.backlog_left:,} left of it"] if self.backlog_left else []
        said += [f"{self.gone:,} of earlier versions are no longer among the exports"] if self.gone else []
        said += [f"{name}: {count:,} labelled" for name, count in self.labelled.items()]
        return f"{'; '.join(said)}; {self.stored:,} posts stored under model {self.version}"


def run(params: Params, project: Path, exports: Path | None, layout: Layout) -> None:
    """Embed, label, and say what was done.

    Raises:
        UserError: nothing lies where posts arrive, there is no model in PROJECT, its users are written otherwise, or
            another process adds to the store.
    """
    champion, kept = Layout(project), Kept(layout.arrivals)
    found, held = found_records(params, exports, champion, layout).posts, read_records(champion).posts
    model, version = load(champion.model), version_of(champion.model)
    make_room(kept.store, model.encoder.width)
    todo = choose(found, held, kept, version, params.arrivals.backlog_per_run)
    done = Done(version, backlog_left=todo.left, gone=todo.gone)
    before, plain = kept.stored(version), replace(model)  # what arriving posts are compared with stays the same
    if folds_in(model):
        print(f"arrivals: {model.add_parts(parts_of(pa.concat_tables([todo.arriving, todo.backlog]), model))}")
    changed = embed(model, pa.concat_tables([todo.arriving, todo.backlog]), version, kept.store).changed
    after = kept.stored(version)
    new = after.filter(pc.invert(pc.is_in(after, before)))
    done.backlog = int(pc.sum(pc.is_in(todo.backlog["post_id"], new)).as_py() or 0)
    done.embedded, done.stored = len(new) - done.backlog + changed, len(after)
    add_to_index(found.filter(pc.is_in(found["post_id"], after)), kept)
    done.labelled = label_store(model, kept.store, version, kept.labels)
    done.reference = keep_reference(plain, champion, version, params.arrivals.reference_posts, kept)
    write_json(kept.run, asdict(done) | {"nothing": done.nothing})
    print(f"arrivals: {done}")


def make_room(store: Path, width: int) -> None:
    """Put a store of vectors of another length aside: a file has one length, and the new model another."""
    if store.is_file() and (old := width_of(open_store(store))) != width:
        os.replace(store, store.with_name(f"{store.stem}.{old}{store.suffix}"))


def choose(found: pa.Table, held: pa.Table, kept: Kept, version: str, backlog_per_run: int) -> Todo:
    """Which posts have to be embedded.

    Args:
        found: all posts that lie where posts arrive.
        held: those of the corpus of the model in production.
        kept: of earlier runs, if there were any.
        version: of the model in production.
        backlog_per_run: at most so many of the backlog.
    """
    current = kept.stored(version)
    ever = pc.unique(pa.concat_arrays([kept.stored(), kept.index()["post_id"].combine_chunks()]))
    earlier = ever.filter(pc.invert(pc.is_in(ever, current)))
    is_backlog = pc.is_in(found["post_id"], earlier)
    is_held = pc.is_in(found["post_id"], held["post_id"].combine_chunks())
    backlog = found.filter(is_backlog).sort_by([("created_at", "descending"), ("post_id", "ascending")])
    arriving = found.filter(pc.invert(pc.or_(is_backlog, is_held)))
    left = max(0, len(backlog) - backlog_per_run)
    return Todo(arriving, backlog.slice(0, backlog_per_run), left, len(earlier) - len(backlog))


def embed(model: Model, posts: pa.Table, version: str, store: Path) -> Counts:
    """Add to a store what it lacks of the posts, in one go: what a killed run left is taken up, the rest dropped."""
    progress = Progress("arrivals")
    with adding(store, version, model.encoder.width) as open_:
        done = 0
        for part in parts_of(posts, model):
            add(model, part, open_)
            done += len(part)
            progress.add(len(part), done / len(posts))
        open_.finish()
    progress.done()
    return open_.counts


def parts_of(table: pa.Table, model: Model) -> Iterator[Posts]:
    """`posts_of`, some at a time."""
    for start in range(0, len(table), ROWS_AT_ONCE):
        yield posts_of(table.slice(start, ROWS_AT_ONCE), model)


def posts_of(table: pa.Table, model: Model) -> Posts:
    """Posts of a corpus as the model reads them."""
    fields = table.to_pydict()
    for name in FIELDS:  # an older corpus has fewer
        fields.setdefault(name, [[] if name in LISTS else None] * len(table))
    return Posts.of(model.settings.scheme, as_read(fields, model.settings.source))


def add_to_index(posts: pa.Table, kept: Kept) -> None:
    """Note the posts that are not noted yet as having arrived now."""
    there = kept.index()
    new = posts.filter(pc.invert(pc.is_in(posts["post_id"], there["post_id"].combine_chunks())))
    if len(new) or not kept.posts.is_file():
        arrived = pa.repeat(pa.scalar(datetime.now(UTC), MOMENT), len(new))
        columns = [new["post_id"], new["created_at"].cast(MOMENT), new["author"], arrived]
        with whole_file(kept.posts) as partial:
            pq.write_table(pa.concat_tables([there, pa.table(columns, schema=INDEX)]), partial, compression="zstd")


def keep_reference(model: Model, champion: Layout, version: str, number: int, kept: Kept) -> int:
    """Embed and label what arriving posts are compared with, once per version; how many posts that are."""
    reference = kept.reference(version)
    for other in kept.references.glob("*"):
        if other != reference.folder:
            shutil.rmtree(other)  # of an earlier model
    posts = drawn(read_records(champion, "test").posts, number)
    embed(model, posts, version, reference.store)
    label_store(model, reference.store, version, reference.labels)
    return len(posts)


def drawn(posts: pa.Table, number: int) -> pa.Table:
    """Some of the posts, the same ones each time: by a hash of their ids."""
    order = digests(posts["post_id"].to_pylist()).argsort(kind="stable")
    return posts.take(pa.array(order[:number]))
