"""Stage corpus: raw exports to posts, engagements, labels, splits and rejects.

Reads whatever `corpus.path` names, through `ntulm/corpus/sources`; writes data/corpus/*.parquet, reading.json (how the
source writes users and texts) and metrics/corpus.json.
Every record that is read has one fate: it is a post, a repost, a duplicate, filtered (language), left out (read, and no
post to keep) or a reject. The same input gives the same bytes.

    ntulm corpus
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ntulm.corpus.records import FATES, Connection, Counts, Privacy, read_export, reasons, row
from ntulm.errors import UserError
from ntulm.files import whole_directory, write_json
from ntulm.layout import Layout

if TYPE_CHECKING:
    from ntulm.corpus.config import Corpus, Splits

HERE = Path(__file__).parent
ROW_GROUP = 1 << 16  # rows
EARLIEST, LATEST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)
PARTS = {"train": "train_from", "validation": "validation_from", "test": "test_from"}

_STRINGS = pa.list_(pa.string())
TABLES = {
    "posts": (
        "SELECT * EXCLUDE (recovered) FROM post ORDER BY created_at, post_id",
        pa.schema(
            [
                ("post_id", pa.string()),
                ("created_at", pa.timestamp("us", tz="UTC")),
                ("lang", pa.string()),
                ("text", pa.string()),
                ("author", pa.string()),
                *((name, _STRINGS) for name in ("mentions", "hashtags", "urls", "places", "cashtags")),
                *((name, pa.string()) for name in ("community", "reply_to", "quoted")),
            ]
        ),
    ),
    "engagements": (
        'SELECT * FROM engagement ORDER BY created_at NULLS FIRST, post_id, "user", kind',
        pa.schema(
            [
                ("user", pa.string()),
                ("post_id", pa.string()),
                ("kind", pa.string()),
                ("created_at", pa.timestamp("us", tz="UTC")),
            ]
        ),
    ),
    "labels": (
        'SELECT * FROM label ORDER BY post_id, field, "value"',
        pa.schema([("post_id", pa.string()), ("field", pa.string()), ("value", pa.string())]),
    ),
    "splits": (
        "SELECT post_id, split, graph FROM assigned ORDER BY created_at, post_id",
        pa.schema([("post_id", pa.string()), ("split", pa.string()), ("graph", pa.bool_())]),
    ),
    "rejects": (
        "SELECT file, line, reject AS reason FROM record WHERE reject IS NOT NULL ORDER BY ordinal",
        pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string())]),
    ),
}


def run(config: Corpus, layout: Layout) -> None:
    """Read the export, judge its records, write the tables, how the source is to be read, and the metrics."""
    check(config)
    with (
        whole_directory(layout.corpus) as directory,
        read_export(
            config.path,
            config.format,
            config.table,
            config.languages,
            config.duplicates,
            directory / ".spill",
            Privacy.of(config),
            config.labels,
        ) as export,
    ):
        connection, counts = export.connection, export.counts
        refuse_rejects(connection, counts, config.max_reject_share)
        refuse_nothing(counts, config)
        assign_splits(connection, config.splits)
        metrics = {"format": export.detection.format, **counts, **figures(connection)}
        metrics["people"] = {name: getattr(export.people, name) for name in ("joined", "mentioned", "strangers")}
        metrics["pseudonyms"] = export.reading.pseudonyms  # the fingerprint of their key
        refuse_empty_parts(connection, metrics["splits"], config.splits)
        for table, (query, schema) in TABLES.items():
            write_table(connection, query, schema, directory / f"{table}.parquet")
        write_json(directory / layout.reading.name, asdict(export.reading))
        shutil.rmtree(directory / ".spill", ignore_errors=True)
    write_json(layout.metrics("corpus"), metrics)
    print(summary(metrics))
    if export.people.warning:
        print(f"corpus: warning: {export.people.warning}")


def check(config: Corpus) -> None:
    """What can be told to be wrong before anything is read."""
    splits = config.splits
    for key in ("graph_from", "graph_until", *PARTS.values()):
        _refuse_no_date(key, getattr(splits, key))
    in_order = [("graph_from", "graph_until"), ("train_from", "validation_from"), ("validation_from", "test_from")]
    for earlier, later in in_order:
        _refuse_order(splits, earlier, later, equal=False)
    if splits.by == "time":
        _refuse_order(splits, "graph_until", "validation_from", equal=True)
    else:
        for key in PARTS.values():
            if isinstance(getattr(splits, key), str):
                raise UserError(
                    f"corpus.splits.{key}: {getattr(splits, key)!r} is a date, but corpus.splits.by is "
                    f"{splits.by!r}; expected a share, like 0.7"
                )
    if config.languages and config.table is not None and config.table.lang is None:
        raise UserError("corpus.languages: the table has no language (corpus.table.lang is null); expected []")


def _refuse_no_date(key: str, cut: str | float) -> None:
    try:
        if isinstance(cut, str):
            datetime.fromisoformat(cut)
    except ValueError as error:
        raise UserError(f"corpus.splits.{key}: {cut!r} is no date ({error}); expected one like 2016-10-01") from error


def _refuse_order(splits: Splits, earlier: str, later: str, equal: bool) -> None:
    first, second = getattr(splits, earlier), getattr(splits, later)
    if isinstance(first, str) == isinstance(second, str) and (first > second or (first == second and not equal)):
        raise UserError(
            f"corpus.splits.{earlier}: {first!r} is not before corpus.splits.{later} ({second!r}); "
            "expected graph_from < graph_until <= validation_from and train_from < validation_from < test_from"
        )


def refuse_rejects(connection: Connection, counts: Counts, max_share: float) -> None:
    """More rejects than allowed stop the stage: the message names the worst reason and where it is first seen."""
    if counts["rejects"] <= max_share * counts["read"]:
        return
    reason, times, file, line = reject_reasons(connection)[0]
    raise UserError(
        f"{file}:{line}: {reason} (the first of {times} such records); {counts['rejects']} of {counts['read']} records "
        f"are rejected, corpus.max_reject_share allows {max_share:.2%}; `ntulm inspect` lists the reasons"
    )


def reject_reasons(connection: Connection) -> list[tuple[str, int, str, int]]:
    """Why records are rejected (see `records.reasons`)."""
    return reasons(connection, "reject")


def left_out_reasons(connection: Connection) -> list[tuple[str, int, str, int]]:
    """Why records are left out (see `records.reasons`)."""
    return reasons(connection, "left_out")


def refuse_nothing(counts: Counts, config: Corpus) -> None:
    """An export without a post of its own is no corpus."""
    if counts["posts"]:
        return
    fates = ", ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in FATES[1:])
    hint = f"; corpus.languages keeps {', '.join(config.languages)}" if counts["filtered"] else ""
    raise UserError(f"{config.path}: no usable post in {counts['read']} records ({fates}){hint}")


def assign_splits(connection: Connection, splits: Splits) -> None:
    """`post` to `assigned`; cuts that are shares become times first, so that they can be compared with dates."""
    cuts = {key: _moment(connection, getattr(splits, key)) for key in ("graph_from", "graph_until")}
    if splits.by == "time":
        cuts |= {key: _moment(connection, getattr(splits, key)) for key in PARTS.values()}
        if cuts["graph_until"] > cuts["validation_from"]:
            raise UserError(
                f"corpus.splits.graph_until: {splits.graph_until!r} is {cuts['graph_until']:%Y-%m-%d}, after "
                f"validation_from ({cuts['validation_from']:%Y-%m-%d}); the graph must not see what is tested"
            )
    else:
        cuts |= dict.fromkeys(PARTS.values(), LATEST)
    shares = {
        key.replace("_from", "_share"): float(getattr(splits, key)) if splits.by != "time" else None
        for key in PARTS.values()
    }
    statement = (HERE / "splits.sql").read_text(encoding="utf-8")
    connection.execute(statement, {**cuts, **shares, "by": splits.by, "seed": splits.seed})


def _moment(connection: Connection, cut: str | float) -> datetime:
    """The time of a cut: posts at it or later are behind it."""
    if isinstance(cut, str):
        return datetime.fromisoformat(cut).replace(tzinfo=UTC)
    (posts,) = row(connection, "SELECT count(*) FROM post")
    position = int(cut * posts)
    if cut <= 0 or position >= posts:
        return EARLIEST if cut <= 0 else LATEST
    moment = row(connection, "SELECT created_at FROM post ORDER BY created_at LIMIT 1 OFFSET $n", {"n": position})[0]
    return moment.astimezone(UTC)


def refuse_empty_parts(connection: Connection, parts: Counts, splits: Splits) -> None:
    """A part without posts would only be noticed stages later."""
    for part, key in [*PARTS.items(), ("graph", "graph_until")]:
        if not parts[part]:
            first, last = row(connection, "SELECT min(created_at), max(created_at) FROM post")
            raise UserError(
                f"corpus.splits.{key}: {getattr(splits, key)!r} leaves no post for {part}; the posts are of "
                f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
            )


def figures(connection: Connection) -> dict[str, Any]:
    """What the metrics say of the tables."""
    first, last, authors, recovered_authors, tags = row(connection, "SELECT * FROM figures")
    parts = dict(connection.execute("SELECT coalesce(split, 'none'), count(*) FROM assigned GROUP BY 1").fetchall())
    kinds = dict(connection.execute("SELECT kind, count(*) FROM engagement GROUP BY kind").fetchall())
    (graph,) = row(connection, "SELECT count(*) FROM assigned WHERE graph")
    (labels,) = row(connection, "SELECT count(*) FROM label")
    return {
        "first": first.isoformat(),
        "last": last.isoformat(),
        "authors": authors,
        "posts_without_author": recovered_authors,
        "hashtags": tags,
        "labels": labels,
        "left_out_reasons": {reason: count for reason, count, _, _ in left_out_reasons(connection)},
        "engagements": {kind: kinds.get(kind, 0) for kind in ("favorited", "reposted")},
        "splits": {**{part: parts.get(part, 0) for part in (*PARTS, "none")}, "graph": graph},
    }


def summary(metrics: dict[str, Any]) -> str:
    """Two lines for people."""
    fates = ", ".join(f"{metrics[name]:,} {name.replace('_', ' ')}" for name in FATES)
    why = ", ".join(f"{count:,} {reason}" for reason, count in metrics["left_out_reasons"].items())
    left_out = f"corpus: left out: {why}\n" if why else ""
    splits = ", ".join(f"{count:,} {part}" for part, count in metrics["splits"].items())
    return (
        f"corpus: {metrics['read']:,} records ({metrics['format']}): {fates}; {metrics['recovered']:,} recovered\n"
        f"{left_out}"
        f"corpus: {metrics['authors']:,} authors, {metrics['hashtags']:,} hashtags, {metrics['first'][:10]} to "
        f"{metrics['last'][:10]}; posts: {splits}"
    )


def write_table(connection: Connection, query: str, schema: pa.Schema, path: Path) -> None:
    """Write a query's rows in its order, in row groups of one size: the bytes do not depend on the threads."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        pending = schema.empty_table()
        for batch in connection.sql(query).to_arrow_reader(ROW_GROUP):
            pending = pa.concat_tables([pending, pa.table(batch).cast(schema)])
            while pending.num_rows >= ROW_GROUP:
                writer.write_table(pending.slice(0, ROW_GROUP).combine_chunks())
                pending = pending.slice(ROW_GROUP)
        if pending.num_rows:
            writer.write_table(pending.combine_chunks())
