"""Reading an export into raw records: a format's reader against a plain loop of the same meaning.

    python -m benchmarks.readers FORMAT [--growth]

FORMAT is a key of FORMATS. The loop is what one writes first: `json.loads` line by line, a walk through the
dictionaries, and one Arrow table. It judges nothing; ours rejects, counts and numbers records as well.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from benchmarks.harness import Benchmark, Outcome, run
from benchmarks.raw_tweets import write_tweets

TWEETS_PER_MEGABYTE = 475
COLUMNS = ("post_id", "created_at", "lang", "text", "author", "mentions", "hashtags", "urls")


class Format(NamedTuple):
    """How a format is measured."""

    reader: str  # of ntulm/corpus/sources
    write: Callable[[Path, int], None]  # a file of about that many megabytes
    row: Callable[[Any], tuple]  # of COLUMNS, from a parsed line: the plain loop
    mapping: Mapping[str, Any] | None = None


def _tweets(path: Path, megabytes: int) -> None:
    write_tweets(path, megabytes * TWEETS_PER_MEGABYTE)


def _table_row(record: Any) -> tuple:
    entities = record.get("entities") or {}
    return (
        record.get("id_str"),
        datetime.strptime(record["created_at"], "%a %b %d %H:%M:%S %z %Y").astimezone(UTC),
        record.get("lang"),
        record.get("text"),
        (record.get("user") or {}).get("id_str"),
        [one.get("id_str") for one in entities.get("user_mentions") or []],
        [one.get("text") for one in entities.get("hashtags") or []],
        [one.get("expanded_url") for one in entities.get("urls") or []],
    )


FORMATS = {
    "table": Format(
        "table",
        _tweets,
        _table_row,
        {
            "post_id": "id_str",
            "created_at": "created_at",
            "time_format": "%a %b %d %H:%M:%S %z %Y",
            "lang": "lang",
            "text": "text",
            "author": "user.id_str",
            "mentions": "entities.user_mentions.id_str",
            "hashtags": "entities.hashtags.text",
            "urls": "entities.urls.expanded_url",
        },
    ),
}


def ours(of: Format, folder: Path) -> Outcome:
    """The reader of the format, all its batches."""
    from ntulm.corpus.config import TableMapping
    from ntulm.corpus.sources import formats

    mapping = None if of.mapping is None else TableMapping.model_validate(of.mapping)
    reader = formats.source(of.reader)
    started = time.perf_counter()
    with formats.opened(folder / "export", folder / "spill") as export:
        batches = list(reader.read(export.files, mapping))
    seconds = time.perf_counter() - started
    return _outcome(folder, seconds, pa.Table.from_batches(batches).select(COLUMNS))


def loop(of: Format, folder: Path) -> Outcome:
    """json.loads, line by line."""
    started = time.perf_counter()
    with (folder / "export").open(encoding="utf-8") as file:
        rows = [of.row(json.loads(line)) for line in file]
    table = pa.table(dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))
    return _outcome(folder, time.perf_counter() - started, table)


def same(evidence: Mapping[str, Any]) -> str:
    """The same values in every column."""
    first, *others = evidence.values()
    assert all(other == first for other in others), evidence
    return f"the same {first['rows']:,} rows, {first['digest'][:12]}"


def _outcome(folder: Path, seconds: float, table: pa.Table) -> Outcome:
    digest = hashlib.sha256()
    for row in _rows(table):
        digest.update(json.dumps(row).encode())
    size = (folder / "export").stat().st_size
    return Outcome(seconds, size / 1e6, {"rows": len(table), "digest": digest.hexdigest()}, moved=size)


def _rows(table: pa.Table) -> Iterator[list[Any]]:
    for batch in table.to_batches():
        for row in batch.to_pylist():
            yield [value.timestamp() if isinstance(value, datetime) else value for value in row.values()]


def benchmark(name: str) -> Benchmark:
    """The benchmark of one format."""
    of = FORMATS[name]
    return Benchmark(
        module="benchmarks.readers",
        arguments=(name,),
        title=f"Reading: {name}",
        unit="MB",
        prepare=lambda folder, size: of.write(folder / "export", size),
        sides={"ours": lambda folder: ours(of, folder), "json loop": lambda folder: loop(of, folder)},
        same=same,
        size=200,
        growth=(50, 200, 800),
        limit="parsing JSON, and making the values into types.",
    )


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in FORMATS:
        sys.exit(f"usage: python -m benchmarks.readers FORMAT [--growth]; FORMAT is one of {', '.join(FORMATS)}")
    run(benchmark(sys.argv.pop(1)))
