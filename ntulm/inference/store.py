"""The store of post embeddings: one Parquet file to which posts are added, none lost and none twice (§3.3).

A row is a post as one version of a model sees it; a file can hold rows of several versions of the same width.

    post_id string                  as given, or derived from the post
    model string                    the version of the model (`ntulm/inference/version.py`)
    vector fixed_size_list<float>   H values
    known list<string>              the NTUs that the model's table knows, as `role:key`
    content uint64                  a fingerprint of all that the model saw of the post (`incoming.fingerprints`)

While posts are added, what is done lies in parts in a folder beside the file, `.NAME.parts`; when all are, old rows and
parts become the new file at once. After a kill the parts are taken up by whoever adds the same posts with the same
version: a row counts by its post's id and content, whatever the input was called. Needs numpy and pyarrow alone.

N posts.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ntulm.errors import UserError
from ntulm.files import read_json, whole_file, write_json
from ntulm.printable import printable

FORMAT = "ntulm-vectors-1"
DIGEST = 16  # bytes of a post's id in memory: no two ids are taken for one
GROUP_ROWS = 1 << 14  # rows of a group of the file and, about, of a part: what lies in memory at a time
PART_SECONDS = 30.0  # a part is written after so long: what a kill can cost
RECENT = 1 << 20  # ids kept as Python objects before they are packed
KEYS = ["post_id", "model", "content"]
DAMAGED = (
    pa.ArrowException,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)  # what Arrow raises
HOW: dict[str, Any] = {"compression": "zstd", "use_dictionary": ["model", "known.list.element"]}  # vectors never repeat
Ids = NDArray[np.bytes_]


def schema(width: int) -> pa.Schema:
    """The columns of a store of vectors of that length."""
    return pa.schema(
        [
            pa.field("post_id", pa.string(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("vector", pa.list_(pa.float32(), width), nullable=False),
            pa.field("known", pa.list_(pa.string()), nullable=False),
            pa.field("content", pa.uint64(), nullable=False),
        ],
        metadata={"format": FORMAT},
    )


def open_store(path: Path) -> pq.ParquetFile:
    """A store to read.

    Raises:
        UserError: there is none, or the file is something else.
    """
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; `ntulm embed POSTS --out {path}` writes it") from error
    except DAMAGED as error:
        raise _damaged(path, error) from error
    found = file.schema_arrow
    width = found.field("vector").type.list_size if "vector" in found.names and _is_fixed(found) else 0
    if (found.metadata or {}).get(b"format") != FORMAT.encode() or not found.equals(schema(width)):
        raise UserError(f"{path}: a Parquet file, but no store of vectors of `ntulm embed`; name another file")
    return file


def _is_fixed(found: pa.Schema) -> bool:
    return pa.types.is_fixed_size_list(found.field("vector").type)


def batches_of(path: Path, size: int, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of a store, so many at a time.

    Raises:
        UserError: as `open_store`, or the file is damaged.
    """
    file = open_store(path)
    try:
        for batch in file.iter_batches(size, columns=columns):
            batch.validate(full=True)
            if any(column.null_count for column in batch.columns):
                raise ValueError("rows without a value")
            yield batch
    except DAMAGED as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(f"{path}: damaged, or no Parquet file ({printable(' '.join(str(error).split())[:100])})")


def width_of(file: pq.ParquetFile) -> int:
    """H of a store."""
    return int(file.schema_arrow.field("vector").type.list_size)


def digests(post_ids: Sequence[str]) -> Ids:
    """Ids as numpy compares them."""
    parts = [blake2b(post_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST).digest() for post_id in post_ids]
    return np.array(parts, f"S{DIGEST}")


def digests_of_rows(post_ids: Sequence[str], contents: NDArray[np.uint64]) -> Ids:
    """Ids together with what the posts say."""
    return digests([f"{content:x} {post_id}" for post_id, content in zip(post_ids, contents.tolist(), strict=True)])


class Keys:
    """The posts that stand somewhere already: found by id, each with its place, its content and a mark."""

    def __init__(self, ids: Ids, contents: NDArray[np.uint64]) -> None:
        self.order = np.argsort(ids, kind="stable")
        self.sorted = ids[self.order]
        self.contents = contents
        self.marked = np.zeros(len(ids), bool)

    def find(self, ids: Ids) -> NDArray[np.int64]:
        """Places int64 [N], -1 for a post that is not there."""
        if not len(self.sorted):
            return np.full(len(ids), -1, np.int64)
        at = np.minimum(np.searchsorted(self.sorted, ids), len(self.sorted) - 1)
        return np.where(self.sorted[at] == ids, self.order[at], -1)


class Seen:
    """Ids met in this run; packed, as there can be many."""

    def __init__(self) -> None:
        self.packed: Ids = np.empty(0, f"S{DIGEST}")
        self.recent: set[bytes] = set()
        self.count = 0  # ids that were asked for

    def add(self, ids: Ids) -> NDArray[np.bool_]:
        """Which of them are met for the first time, bool [N]."""
        at = np.minimum(np.searchsorted(self.packed, ids), max(len(self.packed) - 1, 0))
        old = self.packed[at] == ids if len(self.packed) else np.zeros(len(ids), bool)
        self.count += len(ids)
        new = np.zeros(len(ids), bool)
        for place, one in enumerate(ids.tolist()):
            if not old[place] and one not in self.recent:
                self.recent.add(one)
                new[place] = True
        if len(self.recent) > RECENT:
            self.packed = np.union1d(self.packed, np.array(list(self.recent), f"S{DIGEST}"))
            self.recent = set()
        return new


class Rows(NamedTuple):
    """N posts to add."""

    post_ids: list[str]
    contents: NDArray[np.uint64]
    vectors: NDArray[np.float32]  # [N, H]
    known: list[list[str]]


@dataclass
class Counts:
    """What became of the posts of an input."""

    embedded: int = 0
    there: int = 0  # in the store already, or done by a run that was interrupted
    changed: int = 0  # of the embedded: another text or other NTUs than under this id before
    repeated: int = 0  # an id that stood earlier in the same input
    foreign: int = 0  # done by an interrupted run, not in this input: left out


@dataclass
class Adding:
    """Posts being added to a store under one version; made by `adding`."""

    path: Path
    parts: Path
    version: str
    width: int
    base: Keys
    left: Keys  # of the parts that a run left
    seen: Seen = field(default_factory=Seen)
    counts: Counts = field(default_factory=Counts)
    waiting: list[pa.Table] = field(default_factory=list)
    written: float = field(default_factory=time.monotonic)

    def fresh(self, post_ids: Sequence[str], contents: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Which of N posts have to be embedded, bool [N]; the others are counted."""
        ids = digests(post_ids)
        first = self.seen.add(ids)
        at = self.base.find(ids)
        in_base = at >= 0
        same = in_base.copy()
        same[in_base] = self.base.contents[at[in_base]] == contents[in_base]
        places = self.left.find(digests_of_rows(post_ids, contents))
        in_left = (places >= 0) & ~same
        self.base.marked[at[first & in_base & ~same]] = True  # not to be kept
        self.left.marked[places[first & in_left]] = True  # to be kept
        self.counts.repeated += int((~first).sum())
        self.counts.there += int((first & (same | in_left)).sum())
        self.counts.changed += int((first & in_base & ~same & ~in_left).sum())
        return first & ~same & ~in_left

    def add(self, rows: Rows) -> None:
        """Add posts that were `fresh`; a part is written where there are enough of them or enough time has passed."""
        values = [
            pa.array(rows.post_ids, pa.string()),
            pa.repeat(self.version, len(rows.post_ids)),
            pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors.ravel(), pa.float32()), self.width),
            pa.array(rows.known, pa.list_(pa.string())),
            pa.array(rows.contents, pa.uint64()),
        ]
        self.waiting.append(pa.table(values, schema=schema(self.width)))
        self.counts.embedded += len(rows.post_ids)
        enough = sum(map(len, self.waiting)) >= GROUP_ROWS
        if enough or time.monotonic() - self.written >= PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a part."""
        if self.waiting:
            number = max((int(path.stem) for path in part_files(self.parts)), default=-1) + 1
            with _writing(self.path), whole_file(self.parts / f"{number:08d}.parquet") as partial:
                pq.write_table(pa.concat_tables(self.waiting), partial, **HOW)
            self.waiting = []
        self.written = time.monotonic()

    def finish(self) -> None:
        """Make the new file of the old rows and the parts, and remove the parts."""
        self.flush()
        self.counts.foreign = int((~self.left.marked).sum())
        if self.counts.embedded or self.left.marked.any() or not self.path.exists():
            with _writing(self.path), whole_file(self.path) as partial:
                with pq.ParquetWriter(partial, schema(self.width), **HOW) as writer:
                    for table in _grouped(self._tables()):
                        writer.write_table(table, GROUP_ROWS)
                with partial.open("rb") as file:
                    os.fsync(file.fileno())  # the parts are removed next
        shutil.rmtree(self.parts)

    def _tables(self) -> Iterator[pa.Table]:
        """The rows of the new file."""
        place = 0
        if self.path.exists():
            for batch in batches_of(self.path, GROUP_ROWS):
                table = pa.Table.from_batches([batch])
                own = pc.equal(table["model"], self.version).to_numpy(False).astype(bool)
                kept = np.ones(len(table), bool)
                kept[own] = ~self.base.marked[place : place + int(own.sum())]
                place += int(own.sum())
                yield table.filter(pa.array(kept))
        place, left = 0, len(self.left.marked)
        for path in part_files(self.parts):
            table = pq.read_table(path)
            if place < left:
                table, count = table.filter(pa.array(self.left.marked[place : place + len(table)])), len(table)
                place += count
            yield table


def _grouped(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of at least GROUP_ROWS."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        if sum(map(len, waiting)) >= GROUP_ROWS:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def part_files(folder: Path) -> list[Path]:
    """The finished parts, in the order in which they were written."""
    return sorted(folder.glob("[0-9]*.parquet"))


@contextmanager
def adding(path: Path, version: str, width: int) -> Iterator[Adding]:
    """Add posts to a store; `finish` makes them stand in it. Left without it, the parts stay for the next time.

    Raises:
        UserError: the file is no store or of another width, cannot be written, or another process adds to it.
    """
    parts = path.with_name(f".{path.name}.parts")
    with _writing(path):
        parts.mkdir(parents=True, exist_ok=True)
        lock = (parts / "lock").open("w")
    with lock:
        _take(lock, parts, path)
        with _writing(path):
            base = _base_keys(path, version, width)  # not before: another process may just have finished
            left = _left_keys(parts, {"format": FORMAT, "model": version, "width": width})
        store = Adding(path, parts, version, width, base, left)
        try:
            yield store
        finally:
            if parts.exists():  # stopped by an error or by the user: keep what is done
                store.flush()
                if not part_files(parts):
                    shutil.rmtree(parts)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


def _take(lock: TextIO, parts: Path, path: Path) -> None:
    """Keep other processes out until the file is closed."""
    busy = f"{path}: another `ntulm embed` is adding to it; wait until it is done"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = os.fstat(lock.fileno()).st_ino != (parts / "lock").stat().st_ino
    except (BlockingIOError, FileNotFoundError) as error:
        raise UserError(busy) from error
    if gone:  # the other one has just finished, and removed its folder
        raise UserError(busy)


def _base_keys(path: Path, version: str, width: int) -> Keys:
    """The posts of the store under this version, by their ids."""
    if not path.exists():
        return Keys(np.empty(0, f"S{DIGEST}"), np.empty(0, np.uint64))
    file = open_store(path)
    if width_of(file) != width:
        raise UserError(
            f"{path}: holds vectors of length {width_of(file)}, the model's have {width}; name another file"
        )
    ids, contents = [np.empty(0, f"S{DIGEST}")], [np.empty(0, np.uint64)]
    for batch in batches_of(path, GROUP_ROWS, KEYS):
        own = batch.filter(pc.equal(batch["model"], version))
        ids.append(digests(own["post_id"].to_pylist()))
        contents.append(own["content"].to_numpy(zero_copy_only=False))
    return Keys(np.concatenate(ids), np.concatenate(contents))


def _marked(marker: Path) -> object:
    """What the parts are of; None where that is damaged."""
    try:
        return read_json(marker)
    except UserError:
        return None


def _left_keys(parts: Path, about: dict[str, object]) -> Keys:
    """The rows of the parts that a run left, by id and content; those of another version or damaged are removed."""
    marker = parts / "about.json"
    if marker.exists() and _marked(marker) != about:
        for path in part_files(parts):
            path.unlink()
    write_json(marker, about)
    ids, contents = [np.empty(0, f"S{DIGEST}")], [np.empty(0, np.uint64)]
    for path in part_files(parts):
        try:
            table = pa.Table.from_batches(batches_of(path, GROUP_ROWS)).select(KEYS)
        except (UserError, ValueError):  # the second: no row
            path.unlink()  # cut off with the machine, or damaged: its posts are embedded again
            continue
        contents.append(table["content"].to_numpy())
        ids.append(digests_of_rows(table["post_id"].to_pylist(), contents[-1]))
    return Keys(np.concatenate(ids), np.concatenate(contents))
