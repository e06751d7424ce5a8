"""Twitter API v1.1 objects, one JSON object per line (.gz and .zst too), as the API and twarc write them.

DuckDB parses the lines with a given schema, never a guessed one: a line that is not as it should be costs itself and
nothing else. The long text and its entities are taken where the object carries them (`extended_tweet`, `full_text`).

A retweet is an object with `retweeted_status`. An old-style one ("RT @x: …" typed by hand) stays a post: its author may
have added or cut words, the original's id is unknown, and its text is what that author published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import Sample
from ntulm.corpus.sources.json_records import read_json
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

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
STRUCTURE = {**_TWEET, "retweeted_status": _TWEET}
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
_QUERY = """, contents AS (
    SELECT file, line, unread, record.user IS NULL AS anonymous,
        record.created_at AS written, content(record) AS own, content(record.retweeted_status) AS reposted
    FROM parsed
), judged AS (
    SELECT file, line, own, reposted, CASE
        WHEN unread IS NOT NULL THEN unread
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
    CASE WHEN reject IS NULL THEN reposted IS NOT NULL END AS is_repost, reposted
FROM readable
"""


def confidence(sample: Sample) -> float:
    """Sure where one of the first objects is a tweet; the others become rejects."""
    return float(any(_is_tweet(value) for value in sample.objects))


def _is_tweet(value: dict[str, Any]) -> bool:
    if "created_at" not in value or not {"id", "id_str"} & value.keys():
        return False
    return isinstance(value.get("user"), dict) or ("entities" in value and "author_id" not in value)  # v2 has these


def facts(mapping: TableMapping | None) -> Reading:
    """Users are ids: a handle in a text would be a second key of the same user."""
    del mapping
    return Reading(casefold_users=False, mention_hosts=False, html=False, mentions_in_text=False)


def read(files: Sequence[File], mapping: TableMapping | None) -> Iterator[pa.RecordBatch]:
    """Every line of the files in RAW_SCHEMA; a column mapping is of no use here."""
    del mapping
    return read_json(files, STRUCTURE, _MACROS, _QUERY)
