"""Raw records for tests: rows of RAW_SCHEMA, and the tables that the corpus makes of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from ruamel.yaml import YAML

from ntulm.configure import configured
from ntulm.corpus import people, stage
from ntulm.corpus.config import Corpus
from ntulm.corpus.records import Connection, Counts, add_records, resolve, workspace
from ntulm.corpus.sources import formats
from ntulm.corpus.sources.formats import RAW_SCHEMA
from ntulm.layout import Layout
from ntulm.text import Reading

START = datetime(2015, 1, 1, tzinfo=UTC)
READING = Reading(casefold_users=True, mention_hosts=False, html=False, mentions_in_text=True)


def post(number: int, **changes: Any) -> dict[str, Any]:
    """A raw record of a post, by an author of its own."""
    own = {"post_id": f"p{number}", "created_at": START + timedelta(minutes=number), "text": f"text {number}"}
    return {**own, "author": f"u{number}", "is_repost": False, **changes}


def repost(number: int, original: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A repost that embeds its original."""
    return post(number, is_repost=True, reposted=original, **changes)


def like(author: str, liked: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    """A favorite."""
    return {"author": author, "is_favorite": True, "reposted": liked, **changes}


def said(**values: Any) -> dict[str, Any]:
    """A record that is no post."""
    return {"left_out": "account event", **values}


def batch(rows: list[dict[str, Any]], first: int = 0) -> pa.RecordBatch:
    """A batch of RAW_SCHEMA; line numbers from `first`."""
    numbered = [{"file": "f", "line": line, **one} for line, one in enumerate(rows, first)]
    return pa.RecordBatch.from_pylist(numbered, RAW_SCHEMA)


@contextmanager
def resolved(
    spill: Path, *rows: dict[str, Any], duplicates: str = "id", languages: list[str] | None = None
) -> Iterator[tuple[Connection, Counts]]:
    """The database after all that the corpus does before its splits, each record in a batch of its own."""
    with workspace(spill / "spill", READING) as connection:
        add_records(connection, [batch([one], line) for line, one in enumerate(rows)], languages or [])
        counts = resolve(connection, duplicates)
        people.join(connection)
        yield connection, counts


def table(connection: Connection, query: str) -> list[dict[str, Any]]:
    """The rows of a query."""
    return list(connection.sql(query).to_arrow_table().to_pylist())


def written(monkeypatch: Any, layout: Layout, rows: list[dict[str, Any]], **changes: Any) -> None:
    """Run the stage corpus on raw records, as a format would read them."""
    export = layout.root / "export.jsonl"
    export.write_text("{}\n", encoding="utf-8")
    monkeypatch.setattr(formats, "read", lambda detection, mapping, labels: iter([batch(rows)]))
    monkeypatch.setattr(formats.source("twitter_v1"), "facts", lambda mapping: READING)
    values = YAML(typ="safe", pure=True).load(configured("quickstart", []))["corpus"]
    values |= {"path": str(export), "format": "twitter_v1", "duplicates": "id", **changes}
    values["forget"] = str(layout.root / "forget.txt")
    stage.run(Corpus.model_validate(values), layout)
