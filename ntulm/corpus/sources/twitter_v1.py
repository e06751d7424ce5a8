"""Twitter API v1.1 objects, one JSON object per line (.gz and .zst too) or pages of the search (`statuses`), as the API
and twarc write them.

DuckDB parses the lines with a given schema, never a guessed one: a line that is not as it should be costs itself and
nothing else. The long text and its entities are taken where the object carries them (`extended_tweet`, `full_text`).

Streams also bring notices: of deleted posts and accounts, which the corpus takes back, and others, which are left out.
Posts of protected accounts, and retweets of such, have the visibility "protected".

A retweet is an object with `retweeted_status`. An old-style one ("RT @x: …" typed by hand) stays a post: its author may
have added or cut words, the original's id is unknown, and its text is what that author published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ntulm.corpus.sources import twitter_texts
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import Sample
from ntulm.corpus.sources.json_records import read_json
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

_ENTITIES = {
    "hashtags": [{"text": "VARCHAR"}],
    "urls": [{"expanded_url": "VARCHAR", "url": "VARCHAR"}],
    "user_mentions": [{"id_str": "VARCHAR", "id": "VARCHAR", "screen_name": "VARCHAR"}],
    "symbols": [{"text": "VARCHAR"}],
}
_USER = {"id_str": "VARCHAR", "id": "VARCHAR", "screen_name": "VARCHAR", "protected": "BOOLEAN"}
_TWEET: dict[str, Any] = {
    "id_str": "VARCHAR",
    "id": "VARCHAR",
    "created_at": "VARCHAR",
    "lang": "VARCHAR",
    "text": "VARCHAR",
    "full_text": "VARCHAR",
    "user": _USER,
    "place": {"id": "VARCHAR", "full_name": "VARCHAR"},
    "entities": _ENTITIES,
    "extended_tweet": {"full_text": "VARCHAR", "entities": _ENTITIES},
    "in_reply_to_user_id_str": "VARCHAR",
    "in_reply_to_user_id": "VARCHAR",
    "quoted_status": {"id_str": "VARCHAR", "id": "VARCHAR", "user": _USER},
}
_KEY = {"id_str": "VARCHAR", "id": "VARCHAR"}
NOTICES = (
    "scrub_geo", "limit", "status_withheld", "user_withheld", "disconnect", "warning", "event", "friends",
    "user_undelete", "user_protect", "user_unprotect", "user_suspend", "user_unsuspend", "user_update",
)  # fmt: skip
STRUCTURE = {
    **_TWEET,
    "retweeted_status": _TWEET,
    "in_reply_to_screen_name": "VARCHAR",
    "in_reply_to_status_id_str": "VARCHAR",
    "in_reply_to_status_id": "VARCHAR",
    "quoted_status_id_str": "VARCHAR",
    "quoted_status_id": "VARCHAR",
    "delete": {"status": _KEY, "tweet": _KEY},
    "user_delete": _KEY,
    **dict.fromkeys(NOTICES, "JSON"),
}
ITEMS = ("statuses",)  # pages of the search
FEW_SIGNS, AUTHORLESS = 0.8, 0.7

# Mentions are user ids. Where a tweet has no entities its hashtags and links are taken from the text, but not its
# mentions: the text has handles, which would be a second key for the same user.
_MACROS = f"""
{twitter_texts.MACROS}
CREATE MACRO entities(tweet) AS coalesce(tweet.extended_tweet.entities, tweet.entities);
CREATE MACRO pair(user) AS struct_pack(id := key(user), handle := user.screen_name);
CREATE MACRO notice(record) AS CASE
    WHEN record.delete IS NOT NULL THEN 'deleted by its author'
    WHEN record.user_delete IS NOT NULL THEN 'account deleted'
    {" ".join(f"WHEN record.{name} IS NOT NULL THEN '{name} notice'" for name in NOTICES)}
END;
CREATE MACRO content(tweet) AS struct_pack(
    post_id := key(tweet),
    created_at := written_moment(tweet.created_at),
    lang := tweet.lang,
    text := coalesce(tweet.extended_tweet.full_text, tweet.full_text, tweet.text),
    author := key(tweet.user),
    mentions := coalesce(list_transform(entities(tweet).user_mentions, lambda mention: key(mention)), []),
    hashtags := list_transform(entities(tweet).hashtags, lambda tag: tag.text),
    urls := list_transform(entities(tweet).urls, lambda link: coalesce(link.expanded_url, link.url)),
    places := list_filter([coalesce(tweet.place.id, tweet.place.full_name)], lambda place: place IS NOT NULL),
    cashtags := list_transform(entities(tweet).symbols, lambda symbol: symbol.text),
    community := NULL::VARCHAR,
    reply_to := coalesce(id_of(tweet.in_reply_to_user_id_str), id_of(tweet.in_reply_to_user_id)),
    quoted := key(tweet.quoted_status.user)
);
"""
# Each value is made once: DuckDB evaluates both sides of AND, and what two levels name twice, twice.
_QUERY = """, contents AS (
    SELECT file, line, unread, record.user IS NULL AS anonymous, is_unreadable(record) AS unreadable,
        record.created_at AS written, content(record) AS own, content(record.retweeted_status) AS reposted,
        coalesce(id_of(record.in_reply_to_status_id_str), id_of(record.in_reply_to_status_id)) AS reply_to_post,
        coalesce(id_of(record.quoted_status_id_str), id_of(record.quoted_status_id), key(record.quoted_status))
            AS quoted_post,
        CASE WHEN record.user.protected OR record.retweeted_status.user.protected THEN 'protected' END AS visibility,
        coalesce(key(record.delete.status), key(record.delete.tweet)) AS deleted_post,
        key(record.user_delete) AS deleted_author,
        CASE WHEN record.user IS NULL AND coalesce(record.text, record.full_text) IS NULL THEN notice(record) END
            AS left_out,
        list_filter(
            list_transform(coalesce(entities(record).user_mentions, []) || coalesce(
                entities(record.retweeted_status).user_mentions, []), lambda mention: pair(mention))
            || [pair(record.user), pair(record.retweeted_status.user), pair(record.quoted_status.user), struct_pack(
                id := coalesce(id_of(record.in_reply_to_user_id_str), id_of(record.in_reply_to_user_id)),
                handle := record.in_reply_to_screen_name)],
            lambda user: user.id <> '' AND user.handle <> '') AS people
    FROM parsed
), judged AS (
    SELECT *, CASE
        WHEN unread IS NOT NULL THEN unread
        WHEN left_out IS NOT NULL THEN NULL
        WHEN anonymous AND own.text IS NULL THEN 'not a post object'
        WHEN unreadable THEN 'unreadable id'
        WHEN written IS NOT NULL AND own.created_at IS NULL THEN 'impossible date'
    END AS reject
    FROM contents
), readable AS (
    SELECT * EXCLUDE (own, reposted), CASE WHEN reject IS NULL AND left_out IS NULL THEN own END AS own,
        CASE WHEN reject IS NULL AND left_out IS NULL AND reposted.text IS NOT NULL THEN reposted END AS reposted
    FROM judged
)
SELECT file, line, reject, left_out, own.post_id, own.created_at, own.lang, own.text, own.author,
    own.mentions, own.hashtags, own.urls, own.places, own.cashtags, own.reply_to, own.quoted,
    CASE WHEN own IS NOT NULL THEN reply_to_post END AS reply_to_post,
    CASE WHEN own IS NOT NULL THEN quoted_post END AS quoted_post,
    CASE WHEN own IS NOT NULL THEN visibility END AS visibility,
    CASE WHEN own IS NOT NULL THEN reposted IS NOT NULL END AS is_repost, reposted,
    CASE WHEN reject IS NULL THEN people END AS people,
    CASE WHEN left_out IS NOT NULL THEN deleted_post END AS deleted_post,
    CASE WHEN left_out IS NOT NULL THEN deleted_author END AS deleted_author
FROM readable
"""


def confidence(sample: Sample) -> float:
    """Sure where one of the first objects is a tweet with its author or a notice; the others become rejects."""
    return max((_confidence(value) for value in sample.objects), default=0.0)


def _confidence(value: dict[str, Any]) -> float:
    if isinstance(statuses := value.get("statuses"), list):
        return max((_confidence(one) for one in statuses if isinstance(one, dict)), default=0.0)
    delete = value.get("delete")
    if isinstance(delete, dict) and any(isinstance(delete.get(kind), dict) for kind in ("status", "tweet")):
        return 1.0
    if "created_at" not in value or not {"id", "id_str"} & value.keys():
        return 0.0
    is_dated = twitter_texts.DATE.fullmatch(str(value["created_at"])) is not None
    if isinstance(user := value.get("user"), dict):
        if {"id_str", "entities", "extended_tweet"} & value.keys() or "id_str" in user:
            return 1.0
        # Other services write objects and dates so too, but not in UTC.
        return FEW_SIGNS if "screen_name" in user and is_dated and "+0000" in value["created_at"] else 0.0
    # Without an author: version 2 writes its times otherwise, and where the long text stands it is an archive's.
    return AUTHORLESS if "entities" in value and "user_id_str" not in value and is_dated else 0.0


def facts(mapping: TableMapping | None) -> Reading:
    """Users are ids: a handle in a text would be a second key of the same user."""
    del mapping
    return Reading(casefold_users=False, mention_hosts=False, html=False, mentions_in_text=False)


def read(files: Sequence[File], mapping: TableMapping | None, labels: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Every line of the files in RAW_SCHEMA; a column mapping is of no use here."""
    del mapping
    return read_json(files, STRUCTURE, _MACROS, _QUERY, ITEMS, labels=labels)
