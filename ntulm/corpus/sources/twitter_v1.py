"""Twitter API v1.1 objects, one JSON object per line (.gz and .zst too), as the API and twarc write them.

DuckDB parses the lines with a given schema, never a guessed one: a line that is not as it should be costs itself and
nothing else. The long text and its entities are taken where the object carries them (`extended_tweet`, `full_text`).

A retweet is an object with `retweeted_status`. An old-style one ("RT @x: …" typed by hand) stays a post: its author may
have added or cut words, the original's id is unknown, and its text is what that author published.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from ntulm.corpus.sources.formats import RAW_SCHEMA
from ntulm.corpus.sources.lines import export_files, record_lines, side_by_side

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

Connection = duckdb.DuckDBPyConnection

_ENTITIES = {
    "hashtags": [{"text": "VARCHAR"}],
    "urls": [{"expanded_url": "VARCHAR", "url": "VARCHAR"}],
    "user_mentions": [{"id_str": "VARCHAR", "id": "VARCHAR"}],
}
_TWEET: dict[str, Any] = {
    "id_str": "VARCHAR",
    "id": "VARCHAR",
    "created_at": "VARCHAR",
    "lang": "VARCHAR",
    "text": "VARCHAR",
    "full_text": "VARCHAR",
    "user": {"id_str": "VARCHAR", "id": "VARCHAR"},
    "place": {"id": "VARCHAR", "full_name": "VARCHAR"},
    "entities": _ENTITIES,
    "extended_tweet": {"full_text": "VARCHAR", "entities": _ENTITIES},
}
STRUCTURE = json.dumps({**_TWEET, "retweeted_status": _TWEET})
TIME_FORMAT = "%a %b %d %H:%M:%S %z %Y"

# Mentions are user ids. Where a tweet has no entities its hashtags and links are taken from the text, but not its
# mentions: the text has handles, which would be a second key for the same user.
_MACROS = f"""
CREATE MACRO entities(tweet) AS coalesce(tweet.extended_tweet.entities, tweet.entities);
CREATE MACRO content(tweet) AS struct_pack(
    post_id := coalesce(tweet.id_str, tweet.id),
    created_at := try_strptime(tweet.created_at, '{TIME_FORMAT}'),
    lang := tweet.lang,
    text := coalesce(tweet.extended_tweet.full_text, tweet.full_text, tweet.text),
    author := coalesce(tweet.user.id_str, tweet.user.id),
    mentions := coalesce(
        list_transform(entities(tweet).user_mentions, lambda mention: coalesce(mention.id_str, mention.id)), []),
    hashtags := list_transform(entities(tweet).hashtags, lambda tag: tag.text),
    urls := list_transform(entities(tweet).urls, lambda link: coalesce(link.expanded_url, link.url)),
    places := list_filter([coalesce(tweet.place.id, tweet.place.full_name)], lambda place: place IS NOT NULL)
);
"""
# Each value is made once: DuckDB evaluates both sides of AND, and what two levels name twice, twice.
_READ = """
WITH parsed AS (
    SELECT file, line, content AS raw, reject AS unreadable, TRY(from_json(content, $structure)) AS tweet FROM lines
), contents AS (
    SELECT file, line, raw, unreadable, tweet IS NULL AS empty, tweet.user IS NULL AS anonymous,
        tweet.created_at AS written, content(tweet) AS own, content(tweet.retweeted_status) AS reposted
    FROM parsed
), judged AS (
    SELECT file, line, own, reposted, CASE
        WHEN unreadable IS NOT NULL THEN unreadable
        WHEN empty THEN CASE WHEN json_valid(raw) THEN 'not a post object' ELSE 'invalid JSON' END
        WHEN anonymous AND own.text IS NULL THEN 'not a post object'
        WHEN written IS NOT NULL AND own.created_at IS NULL THEN 'impossible date'
    END AS reject
    FROM contents
), readable AS (
    SELECT file, line, reject, CASE WHEN reject IS NULL THEN own END AS own,
        CASE WHEN reject IS NULL AND reposted.text IS NOT NULL THEN reposted END AS reposted
    FROM judged
)
SELECT file, line, reject, own.post_id, own.created_at, own.lang, own.text, own.author,
    own.mentions, own.hashtags, own.urls, own.places,
    CASE WHEN reject IS NULL THEN reposted IS NOT NULL END AS is_repost, reposted,
    NULL::VARCHAR[] AS favorited_by, NULL::STRUCT(field VARCHAR, "value" VARCHAR)[] AS labels
FROM readable
"""


def matches(head: bytes) -> bool:
    """Whether one of the first lines is a tweet; the others before it become rejects."""
    for line in head.split(b"\n"):
        try:
            value = json.loads(line.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, dict) or "created_at" not in value or not {"id", "id_str"} & value.keys():
            continue
        if isinstance(value.get("user"), dict) or ("entities" in value and "author_id" not in value):  # v2 has these
            return True
    return False


def read(path: Path, mapping: TableMapping | None) -> Iterator[pa.RecordBatch]:
    """Every line of the export in RAW_SCHEMA; a column mapping is of no use here."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(_MACROS)
        for table in side_by_side(connection, _parsed, record_lines(export_files(path))):
            yield from table.to_batches()


def _parsed(connection: Connection, lines: pa.Table) -> pa.Table:
    connection.register("lines", lines)  # one core, so the rows come back in their order
    return connection.sql(_READ, params={"structure": STRUCTURE}).to_arrow_table().cast(RAW_SCHEMA)
