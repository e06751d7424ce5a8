"""The lines of a text file, and the records of a JSON file, as Arrow tables.

Library of the sources; not a format. A line that is not UTF-8 or holds NUL bytes is a row with a reason.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import duckdb
import numpy as np
import pyarrow as pa

from ntulm.corpus.sources.content import HEAD_BYTES, decompressed, head, line_breaks
from ntulm.corpus.sources.documents import document_tables, is_document
from ntulm.corpus.sources.export import File
from ntulm.errors import UserError

BLOCK_BYTES = 1 << 25  # text bytes a batch of lines: planning a query costs as much as a few MB
MAX_LINE_BYTES = 1 << 24  # no post is longer: a file without line breaks must not fill the memory
MAX_SIDE_BY_SIDE = 8  # blocks that are worked on at a time, however many cores there are: each takes memory
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
Connection = duckdb.DuckDBPyConnection
Item = TypeVar("Item")
Result = TypeVar("Result")


def record_lines(files: Iterable[File], items: tuple[str, ...] = ()) -> Iterator[pa.Table]:
    """The lines of many files as `line_tables` gives them, and their `file`; small files share a table.

    Args:
        files: whose lines.
        items: keys of a JSON document whose lists hold its records, as `document_tables` takes them. Of documents
            `line` is the record's number in the file.
    """
    waiting: list[pa.Table] = []
    size = 0
    for file in files:
        for table in record_tables(file, items):
            waiting.append(table.append_column("file", pa.repeat(str(file), len(table))))
            size += table.nbytes
            if size >= BLOCK_BYTES:
                yield pa.concat_tables(waiting).combine_chunks()
                waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()


def record_tables(file: File, items: tuple[str, ...] = ()) -> Iterator[pa.Table]:
    """The records of a JSON file as `line_tables` gives them: its lines, or what a document holds."""
    if is_document(_first_line(file), items):
        return document_tables(decompressed(file), str(file), items)
    return line_tables(file)


def _first_line(file: File) -> bytes:
    """The beginning of a file, with the end of its first line: pages of an API are lines of 100 KB and more."""
    for size in (HEAD_BYTES, HEAD_BYTES << 4, MAX_LINE_BYTES):
        start = head(file, size)
        if b"\n" in start or len(start) < size:
            break
    return start


def line_tables(file: File) -> Iterator[pa.Table]:
    """The lines of a UTF-8 file that are not blank: `line` (from 1), `content` and `reject`, one of the two null."""
    first = 1
    for block in blocks(file):
        table, count = _lines(block, first)
        first += count
        yield table


def side_by_side(
    connection: Connection, work: Callable[[Connection, Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """`work(cursor, item)` of each item, a core each, in the order of the items.

    DuckDB can also work on one block with all cores, but then most of a block's time is spent on one of them.
    """
    cores = min(os.cpu_count() or 1, MAX_SIDE_BY_SIDE)
    cursors: SimpleQueue[Connection] = SimpleQueue()
    for _ in range(cores):
        cursors.put(connection.cursor())

    def one(item: Item) -> Result:
        cursor = cursors.get()
        try:
            return work(cursor, item)
        finally:
            cursors.put(cursor)

    running: deque[Future[Result]] = deque()
    connection.execute("SET threads = 1")
    with ThreadPoolExecutor(cores) as pool:
        try:
            for item in items:
                running.append(pool.submit(one, item))
                if len(running) > cores:  # one waits, so that no core does
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            connection.execute("RESET threads")
            for _ in range(cores):
                cursors.get().close()


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, the next one made in a thread while the caller works on one."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(next, items, end)
        while (item := future.result()) is not end:
            future = pool.submit(next, items, end)
            yield item  # type: ignore[misc]


def blocks(file: File) -> Iterator[bytes]:
    """Whole lines, about BLOCK_BYTES at a time, each with its line break."""
    parts: list[bytes] = []
    size = unfinished = 0  # bytes waiting, and those of them behind the last line break
    line = 1
    for part in decompressed(file):
        cut = part.rfind(b"\n") + 1
        size += len(part)
        unfinished = len(part) - cut if cut else unfinished + len(part)
        if unfinished > MAX_LINE_BYTES:
            line += sum(line_breaks(one) for one in [*parts, part])
            raise UserError(f"{file}:{line}: line of more than {MAX_LINE_BYTES >> 20} MB; expected one record per line")
        if size < BLOCK_BYTES or not cut:
            parts.append(part)
            continue
        block = b"".join([*parts, memoryview(part)[:cut]])
        yield block
        line += line_breaks(block)
        parts, size = [part[cut:]], unfinished
    if rest := b"".join(parts):
        yield rest if rest.endswith(b"\n") else rest + b"\n"


def _lines(block: bytes, first: int) -> tuple[pa.Table, int]:
    """The lines of a block, numbered from `first`, and how many they were with the blank ones."""
    if first == 1 and block.startswith(BYTE_ORDER_MARK):
        block = block[len(BYTE_ORDER_MARK) :]
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    numbers = pa.array(np.arange(first, first + len(ends)))
    if b"\0" not in block and _is_utf8(block):
        content = pa.StringArray.from_buffers(len(ends), pa.py_buffer(offsets), pa.py_buffer(block))
        reject = pa.nulls(len(ends), pa.string())
    else:
        content, reject = _checked(block)
    batch = pa.record_batch([numbers, content, reject], names=["line", "content", "reject"])
    short = np.flatnonzero(np.diff(offsets) <= 2)
    blank = [i for i in short if not block[offsets[i] : offsets[i + 1]].strip()]
    if blank:
        kept = np.ones(len(ends), bool)
        kept[blank] = False
        batch = batch.filter(pa.array(kept))
    return pa.Table.from_batches([batch]), len(ends)


def _is_utf8(block: bytes) -> bool:
    try:
        str(block, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _checked(block: bytes) -> tuple[pa.Array, pa.Array]:
    """The slow way, for a block with a fault somewhere: each line is judged by itself."""
    content: list[str | None] = []
    reject: list[str | None] = []
    for line in block.split(b"\n")[:-1]:
        reason = "NUL byte" if b"\0" in line else None if _is_utf8(line) else "not UTF-8"
        content.append(line.decode() if reason is None else None)
        reject.append(reason)
    return pa.array(content, pa.string()), pa.array(reject, pa.string())
