"""`ntulm forget --author NAME | --post ID`: an author or a post is not read again; and what still holds some of it.

Adds a line to the list that `corpus.forget` names, which the stage corpus honours, and prints which outputs of the
project still hold something of it. Nothing is deleted here: `dvc repro` builds them anew without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm import pseudonyms
from ntulm.corpus import forget
from ntulm.embeddings.table import EmbeddingTable
from ntulm.errors import UserError
from ntulm.files import read_json
from ntulm.layout import Layout
from ntulm.pseudonyms import from_environment
from ntulm.text import Reading, user_key

if TYPE_CHECKING:
    from ntulm.params import Params

COLUMNS = (
    "author",
    "reply_to",
    "quoted",
    "mentions",
    "user",
    "post_id",
    "known",
)  # of Parquet files, that hold users or post ids; `known` has users as ROLE:KEY
REBUILDS = (
    "`dvc repro` builds these anew without it. Then `dvc gc --workspace --cloud` removes every earlier version from "
    "the cache and the remote; promoted models that still hold it have to be replaced by a new one"
)
ARRIVED = "not built by `dvc repro`: remove the folder, and the next run of the flow `embed` fills it again without it"


def run(params: Params, author: str | None, post: str | None, layout: Layout) -> None:
    """Add to the list, and say what still holds something of it.

    Raises:
        UserError: neither or both are given, the name is empty, or there is no key for pseudonyms.
    """
    if (author is None) == (post is None):
        raise UserError("ntulm forget: expected one of --author NAME and --post ID")
    kind: forget.Kind = "post" if author is None else "author"
    value = str(post if author is None else author)
    reading = _reading(params, layout)
    path = layout.root / params.corpus.forget
    new = forget.entry(kind, value, pseudonyms.of(reading))
    added = forget.add(path, new)
    print(f"forget: {new} {'is now' if added else 'was already'} in {path}")
    found = list(holders(kind, value, reading, layout))
    print("\n".join(found) or "forget: no output holds anything of it under that name")
    if found:
        print(f"forget: {REBUILDS}")


def _reading(params: Params, layout: Layout) -> Reading:
    """How the corpus writes users; before there is one, as params.yaml wants it."""
    if layout.reading.is_file():
        return Reading(**read_json(layout.reading))
    plain = Reading(casefold_users=True, mention_hosts=False, html=False, mentions_in_text=True)
    if not params.corpus.pseudonyms:
        return plain
    return Reading(True, False, False, True, from_environment(plain).fingerprint)


def holders(kind: forget.Kind, value: str, reading: Reading, layout: Layout) -> Iterator[str]:
    """A line for each output that holds the user or the post."""
    wanted = _names(kind, value, reading)
    tasks = []
    for path in sorted((layout.root / "data").glob("**/*.parquet")):
        if found := rows(path, wanted):
            yield f"forget: {path}: {found:,} rows"
            tasks += [path.parent.name] if path.parent.parent == layout.data("tasks") else []
    for task in dict.fromkeys(tasks):
        folders = (folder for stage in ("encode", "probe") for folder in sorted(layout.data(stage).glob(f"*/*/{task}")))
        yield from (f"forget: {folder}: made from posts of it" for folder in folders)
    if any(rows(path, wanted) for path in sorted(layout.arrivals.glob("**/*.parquet"))):
        yield f"forget: {layout.arrivals}: {ARRIVED}"
    if tasks and layout.reports.is_dir():
        yield f"forget: {layout.reports}: may quote posts of it"
    if rows(layout.posts, wanted):
        trained = [folder for folder in (layout.adapt, *sorted(layout.data("pretrain").glob("*/*"))) if folder.is_dir()]
        yield from (f"forget: {folder}: may have been trained on posts of it" for folder in trained)
    if kind == "author":
        yield from _tables(wanted, layout)


def _names(kind: forget.Kind, value: str, reading: Reading) -> set[str]:
    """What outputs call the user or the post."""
    hidden = pseudonyms.of(reading)
    if kind == "post":
        return {value.strip() if hidden is None else hidden.post_id(value.strip())}
    keys = {user_key(value), user_key(value, casefold=True)}
    return keys if hidden is None else {hidden.user(key) for key in keys}


def _tables(wanted: set[str], layout: Layout) -> Iterator[str]:
    """Embedding tables, those of model directories and fetched versions too."""
    for path in sorted((layout.root / "data").glob("**/table.safetensors")):
        table = EmbeddingTable.load(path.parent)
        kinds = [name for name, form in table.types.items() if form == "user"]
        found = sum(int((table.rows(name, sorted(wanted)) >= 0).sum()) for name in kinds)
        if found:
            yield f"forget: {path.parent}: a vector of it"


def rows(path: Path, wanted: set[str]) -> int:
    """How many rows of a Parquet file hold one of the names in a column of users or post ids, or as an NTU."""
    if not path.is_file():
        return 0
    schema = pq.read_schema(path)
    names = [name for name in (*COLUMNS, "ntus", "key") if name in schema.names]
    names = [
        name for name in names if not pa.types.is_boolean(schema.field(name).type)
    ]  # `known` of labels says whether
    values = pa.array(sorted(wanted), pa.string())
    return sum(_hits(batch, values) for batch in pq.ParquetFile(path).iter_batches(columns=names)) if names else 0


def _hits(batch: pa.RecordBatch, values: pa.Array) -> int:
    held = pa.array([False] * len(batch))
    for name in batch.schema.names:
        held = pc.or_(held, _holds(batch.column(name), values, prefixed=name == "known"))
    return int(pc.sum(held).as_py() or 0)


def _holds(column: Any, values: pa.Array, prefixed: bool = False) -> pa.Array:
    """Whether each value, or an item of each list, is one of the values; `prefixed` items have a role in front."""
    if not pa.types.is_list(column.type):
        return pc.is_in(column, values)
    items = column.flatten()
    if prefixed:
        items = pc.replace_substring_regex(items, "^[^:]*:", "")
    if pa.types.is_struct(items.type):
        items = items.field("key")
    owners = pc.list_parent_indices(column).filter(pc.is_in(items, values))
    return pc.is_in(pa.array(range(len(column)), owners.type), pc.unique(owners))
