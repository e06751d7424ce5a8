"""Bluesky: Jetstream events (both versions, and the older one-letter form), post views, feeds, pages of records.

A post is what its record says. Hashtags, links and mentions come from its facets, the tags that are not shown from
`tags`; only where a record has none of these are hashtags and links taken from the text. Users are DIDs; handles go
into `people` wherever a record has both. A date is what the author's client says, or when the network saw the post if
that was earlier: clients can say anything.

Reads: JSON lines, arrays, pages with `feed`, `posts`, `records`, `profiles` or `notifications`, and threads (both
versions) with the posts above and all answers below. Repositories (CAR files) come as events (`car.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import Sample
from ntulm.corpus.sources.json_records import read_json
from ntulm.text import SQL_PATTERNS, Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

ITEMS = ("feed", "posts", "records", "profiles", "notifications", "thread")  # of a page
MAX_ANSWERS = 32  # below one another; Bluesky loads six where nothing else is asked for
MAX_PARENTS = 100  # above one another; Bluesky loads eighty

_PROFILE = {"did": "VARCHAR", "handle": "VARCHAR"}
_COMMIT = {"operation": "VARCHAR", "type": "VARCHAR", "collection": "VARCHAR", "rkey": "VARCHAR", "record": "JSON"}
# Version 1 has the commit in an object of its own, version 2 beside the DID, and all of it in the `payload` of a frame.
_EVENT: dict[str, Any] = {
    "$type": "VARCHAR",
    "kind": "VARCHAR",
    "did": "VARCHAR",
    "time": "VARCHAR",
    "time_us": "VARCHAR",
    **_COMMIT,
    "commit": _COMMIT,
    "identity": _PROFILE,
    "account": {"did": "VARCHAR", "active": "BOOLEAN", "status": "VARCHAR"},
}
_SEEN = {"author": _PROFILE, "record": {"author": _PROFILE}}
_VIEW: dict[str, Any] = {
    "uri": "VARCHAR",
    "author": _PROFILE,
    "record": "JSON",
    "indexedAt": "VARCHAR",
    "labels": [{"val": "VARCHAR", "neg": "BOOLEAN"}],
    "embed": {"record": _SEEN},
}
STRUCTURE: dict[str, Any] = {
    **_EVENT,
    **_VIEW,
    "handle": "VARCHAR",
    "value": "JSON",  # what listRecords calls a record, and the second version of threads a post
    "thread": "JSON",
    "replies": "JSON",
    "parent": "JSON",
    "payload": _EVENT,
    "post": _VIEW,
    "reply": {"parent": {"author": _PROFILE}, "root": {"author": _PROFILE}},
    "reason": {"by": _PROFILE, "indexedAt": "VARCHAR", "uri": "VARCHAR"},
}
_RECORD: dict[str, Any] = {
    "$type": "VARCHAR",
    "text": "VARCHAR",
    "createdAt": "VARCHAR",
    "langs": ["VARCHAR"],
    "tags": ["VARCHAR"],
    "facets": [
        {
            "index": {"byteStart": "BIGINT", "byteEnd": "BIGINT"},
            "features": [{"tag": "VARCHAR", "uri": "VARCHAR", "did": "VARCHAR"}],
        }
    ],
    "reply": {"parent": {"uri": "VARCHAR"}},
    "embed": {
        "$type": "VARCHAR",
        "external": {"uri": "VARCHAR"},
        "media": {"external": {"uri": "VARCHAR"}},
        "record": {"uri": "VARCHAR", "record": {"uri": "VARCHAR"}},
    },
    "labels": {"values": [{"val": "VARCHAR"}]},
    "subject": {"uri": "VARCHAR"},
}
_GONE = "'deleted', 'takendown', 'suspended', 'deactivated'"  # what an account can be, and its posts with it

_ABOVE = ", ".join(f"'$.{'parent.' * level}post'" for level in range(MAX_PARENTS + 1))
_BELOW = ", ".join(f"json_extract(thread, '$.{'replies[*].' * level}post')" for level in range(1, MAX_ANSWERS + 1))
_TOO_FAR = [f"$.{'replies[*].' * (MAX_ANSWERS + 1)}post", f"$.{'parent.' * (MAX_PARENTS + 1)}post"]
_MACROS = rf"""
CREATE MACRO thread_of(content, r) AS CASE
    WHEN json_type(r.thread) = 'OBJECT' THEN r.thread
    WHEN json_type(r."replies") = 'ARRAY' OR json_type(r.parent) = 'OBJECT' THEN content::JSON
    WHEN json_type(r."value", '$.post') = 'OBJECT' THEN r."value" END;
CREATE MACRO posts_of(thread) AS list_filter(list_concat(json_extract(thread, [{_ABOVE}]), {_BELOW}),
    lambda post: json_type(post) = 'OBJECT');
CREATE MACRO is_too_deep(thread) AS len(json_extract(thread, '{_TOO_FAR[0]}')) > 0
    OR json_exists(thread, '{_TOO_FAR[1]}');
CREATE MACRO is_unseen(kind) AS coalesce(regexp_matches(kind,
    '#(?:(?:notFound|blocked)Post|threadItem(?:NotFound|Blocked|NoUnauthenticated))$'), false);
CREATE MACRO view_of(post) AS TRY(from_json(post, '{json.dumps(_VIEW)}'));
CREATE MACRO written_pattern() AS '{SQL_PATTERNS["written_pattern"]}';
CREATE MACRO record_of(value) AS TRY(from_json(value, '{json.dumps(_RECORD)}'));
CREATE MACRO did_of(uri) AS nullif(regexp_extract(uri, '^at://(did:[^/]+)', 1), '');
CREATE MACRO collection_of(uri) AS nullif(regexp_extract(uri, '^at://[^/]+/([^/]+)/', 1), '');
CREATE MACRO post_uri(uri) AS CASE WHEN collection_of(uri) = 'app.bsky.feed.post' THEN uri END;
CREATE MACRO moment(value) AS CASE WHEN regexp_matches(value, '^\d{{4}}-') THEN TRY_CAST(value AS TIMESTAMPTZ) END;
CREATE MACRO written(items) AS list_filter(items, lambda item: item <> '');
-- A handle that its owner's domain no longer confirms is shown as `handle.invalid`: nobody's.
CREATE MACRO person(did, name) AS CASE
    WHEN did <> '' AND name <> '' AND name NOT LIKE '%.invalid' THEN struct_pack(id := did, handle := lower(name)) END;
CREATE MACRO known(people) AS list_filter(people, lambda one: one IS NOT NULL);

CREATE MACRO event(e) AS struct_pack(
    did := e.did,
    operation := coalesce(e.commit.operation, e.commit."type", e.operation),
    uri := 'at://' || e.did || '/' || coalesce(e.commit.collection, e.collection) || '/'
        || coalesce(e.commit.rkey, e.rkey),
    record := coalesce(e.commit.record, e.record),
    seen_at := coalesce(TRY(make_timestamptz(TRY_CAST(e.time_us AS BIGINT))), moment(e.time)),
    account := CASE WHEN e.account.active IS NOT TRUE AND e.account.status IN ({_GONE})
        THEN coalesce(e.account.did, e.did) END,
    restored := CASE WHEN e.account.active THEN coalesce(e.account.did, e.did) END,
    notice := CASE
        WHEN e.account IS NOT NULL OR e.identity IS NOT NULL OR e."$type" LIKE '%#sync' THEN 'account event'
        WHEN e."$type" = 'error' OR e."$type" LIKE '%#info' THEN 'stream notice' END,
    labels := NULL::VARCHAR[],
    people := known([person(coalesce(e.identity.did, e.did), e.identity.handle)])
);
CREATE MACRO view(v, value) AS struct_pack(
    did := coalesce(v.author.did, did_of(v.uri)),
    operation := 'create',
    uri := v.uri,
    record := coalesce(value, v.record),
    seen_at := moment(v.indexedAt),
    account := NULL::VARCHAR,
    restored := NULL::VARCHAR,
    notice := NULL::VARCHAR,
    labels := list_transform(list_filter(v.labels, lambda label: label.neg IS NOT TRUE), lambda label: label.val),
    people := known([
        person(v.author.did, v.author.handle),
        person(v.embed.record.author.did, v.embed.record.author.handle),
        person(v.embed.record.record.author.did, v.embed.record.record.author.handle)])
);

-- A facet marks bytes of the text, not characters; of a mention they are the handle.
CREATE MACRO slice(value, place) AS TRY(decode(encode(value)[place.byteStart + 1 : place.byteEnd]));
CREATE MACRO named(value, facet) AS list_transform(
    [regexp_extract(slice(value, facet."index"), '^[@＠]([\w-]+(?:\.[\w-]+)+)$', 1)],
    lambda name: list_transform(facet.features, lambda feature: person(feature.did, name)))[1];
CREATE MACRO features(facets) AS flatten(list_transform(facets, lambda facet: coalesce(facet.features, [])));
CREATE MACRO external(embed) AS coalesce(embed.external.uri, embed.media.external.uri);
CREATE MACRO quoted_in(embed) AS post_uri(coalesce(embed.record.record.uri, embed.record.uri));
-- Who did something to a post and when; what it says is its own.
CREATE MACRO act(uri, moment, did) AS struct_pack(
    post_id := uri, created_at := moment, lang := NULL::VARCHAR, "text" := NULL::VARCHAR, author := did,
    mentions := NULL::VARCHAR[], hashtags := NULL::VARCHAR[], urls := NULL::VARCHAR[], reply_to := NULL::VARCHAR,
    quoted := NULL::VARCHAR);
CREATE MACRO content(uri, did, seen_at, marks, post) AS struct_pack(
    post_id := uri,
    created_at := least(moment(post.createdAt), seen_at),
    lang := lower(split_part(post.langs[1], '-', 1)),
    text := post.text,
    author := did,
    mentions := coalesce(written(list_transform(marks, lambda feature: feature.did)), []),
    hashtags := CASE WHEN marks IS NOT NULL OR len(post.tags) > 0
        THEN written(list_concat(list_transform(marks, lambda feature: feature.tag), post.tags)) END,
    urls := CASE WHEN marks IS NOT NULL OR external(post.embed) IS NOT NULL
        THEN written(list_concat(list_transform(marks, lambda feature: feature.uri), [external(post.embed)])) END,
    reply_to := did_of(post.reply.parent.uri),
    quoted := did_of(quoted_in(post.embed))
);
CREATE MACRO taken_back(collection) AS CASE collection
    WHEN 'app.bsky.feed.post' THEN 'deleted by its author'
    WHEN 'app.bsky.feed.like' THEN 'like taken back'
    WHEN 'app.bsky.feed.repost' THEN 'repost taken back'
    ELSE 'other record'
END;
CREATE MACRO other(collection) AS CASE collection
    WHEN 'app.bsky.graph.follow' THEN 'follow'
    WHEN 'app.bsky.graph.block' THEN 'block'
    WHEN 'app.bsky.actor.profile' THEN 'profile'
    ELSE 'other record'
END;
CREATE MACRO wordless(embed) AS CASE
    WHEN embed.record IS NOT NULL AND embed.media IS NULL THEN 'quote without text'
    WHEN embed."$type" IS NOT NULL THEN 'picture without text'
    ELSE 'post without text'
END;
"""

# Each value is made once: DuckDB evaluates both sides of AND, and what two levels name twice, twice.
_QUERY = """, threads AS (
    SELECT file, line, unread, record, CASE WHEN unread IS NULL THEN thread_of(content, record) END AS thread
    FROM parsed
), posts AS (
    SELECT file, line, unread, record, CASE
            WHEN is_unseen(coalesce(thread->>'$."$type"', record."value"->>'$."$type"', record."$type"))
            THEN 'post not shown' END AS unseen,
        unnest(CASE WHEN thread IS NULL THEN [NULL::JSON] ELSE coalesce(nullif(list_concat(posts_of(thread),
            CASE WHEN is_too_deep(thread) THEN ['true'::JSON] END), []), [NULL::JSON]) END) AS post
    FROM threads
), told AS (
    SELECT file, line, unread, CASE WHEN json_type(post) = 'BOOLEAN' THEN 'thread too deep' ELSE unseen END AS unseen,
        record.did AS did, record.handle AS handle, record.reason AS reason,
        [person(record.reply.parent.author.did, record.reply.parent.author.handle),
         person(record.reply.root.author.did, record.reply.root.author.handle),
         person(record.reason."by".did, record.reason."by".handle)] AS others,
        CASE
            WHEN post IS NOT NULL THEN view(view_of(post), NULL)
            WHEN record.post.uri IS NOT NULL THEN view(record.post, NULL)
            WHEN record.uri IS NOT NULL THEN view(record, record."value")
            WHEN record.payload IS NOT NULL THEN event(record.payload)
            ELSE event(record)
        END AS item
    FROM posts
), sorted AS (
    SELECT file, line, unread, unseen, did, handle, reason, item, list_concat(item.people, known(others)) AS people,
        coalesce(collection_of(item.uri), '') AS collection,
        coalesce(item.operation IN ('delete', 'd'), false) AS deleted,
        record_of(item.record) AS post
    FROM told
), kinds AS (
    SELECT *, nullif(features(post.facets), []) AS marks, CASE
        WHEN unread IS NOT NULL THEN 'unread'
        WHEN unseen IS NOT NULL THEN 'unseen'
        WHEN item.notice IS NOT NULL THEN 'notice'
        WHEN collection = '' THEN CASE WHEN did <> '' AND handle <> '' THEN 'profile' ELSE 'unread' END
        WHEN item.did IS NULL THEN 'unread'
        WHEN deleted THEN 'deleted'
        WHEN collection = 'app.bsky.feed.post' THEN CASE
            WHEN post."text" IS NULL THEN 'unread' WHEN reason."by".did IS NOT NULL THEN 'passed on' ELSE 'post' END
        WHEN collection IN ('app.bsky.feed.like', 'app.bsky.feed.repost') THEN CASE
            WHEN post.subject.uri IS NULL THEN 'unread' WHEN collection LIKE '%like' THEN 'like' ELSE 'repost' END
        ELSE 'other'
    END AS kind
    FROM sorted
), judged AS (
    SELECT *,
        CASE WHEN kind IN ('post', 'passed on')
            THEN content(item.uri, item.did, item.seen_at, marks, post) END AS about,
        CASE
            WHEN kind = 'unread' THEN coalesce(unread, 'not a post object')
            WHEN kind = 'post' AND post.createdAt IS NOT NULL AND moment(post.createdAt) IS NULL
                AND item.seen_at IS NULL THEN 'impossible date'
        END AS reject,
        CASE
            WHEN kind IN ('post', 'passed on') AND list_has_any(item.labels, ['!takedown', '!hide'])
                THEN 'hidden by moderators'
            WHEN kind IN ('post', 'passed on') AND NOT regexp_matches(post."text", written_pattern())
                THEN wordless(post.embed)
            WHEN kind = 'deleted' THEN taken_back(collection)
            WHEN kind = 'other' THEN other(collection)
            WHEN kind = 'unseen' THEN unseen
            WHEN kind = 'notice' THEN item.notice
            WHEN kind IN ('like', 'profile') THEN kind
        END AS left_out
    FROM kinds
), shown AS (
    SELECT *,
        CASE
            WHEN reject IS NOT NULL OR (left_out IS NOT NULL AND kind <> 'like') THEN NULL
            WHEN kind = 'post' THEN about
            WHEN kind = 'passed on' THEN act(
                coalesce(reason.uri, item.uri || '#' || reason."by".did), moment(reason.indexedAt), reason."by".did)
            WHEN kind = 'repost' THEN act(item.uri, least(moment(post.createdAt), item.seen_at), item.did)
            WHEN kind = 'like' THEN act(item.uri, least(moment(post.createdAt), item.seen_at), item.did)
        END AS own,
        reject IS NULL AND left_out IS NULL AS is_kept
    FROM judged
)
SELECT file, line, reject, left_out, own.post_id,
    CASE WHEN kind = 'notice' THEN CASE WHEN coalesce(item.account, item.restored) IS NOT NULL THEN item.seen_at END
        ELSE own.created_at END AS created_at, own.lang, own."text", own.author,
    own.mentions, own.hashtags, own.urls, own.reply_to, own.quoted,
    CASE WHEN is_kept AND kind = 'post' THEN post.reply.parent.uri END AS reply_to_post,
    CASE WHEN is_kept AND kind = 'post' THEN quoted_in(post.embed) END AS quoted_post,
    CASE WHEN is_kept AND kind = 'post' AND item.operation IN ('update', 'u')
        THEN coalesce(item.seen_at, own.created_at) END AS edited_at,
    CASE WHEN is_kept THEN kind IN ('passed on', 'repost') END AS is_repost,
    CASE WHEN kind = 'like' THEN true END AS is_favorite,
    CASE
        WHEN is_kept AND kind = 'passed on' THEN about
        WHEN kind IN ('like', 'repost') THEN act(post.subject.uri, NULL::TIMESTAMPTZ, did_of(post.subject.uri))
    END AS reposted,
    CASE WHEN is_kept AND kind = 'post' THEN list_transform(
        written(list_concat(item.labels, list_transform(post.labels."values", lambda label: label.val))),
        lambda name: struct_pack(field := 'label', "value" := name)) END AS labels,
    CASE WHEN reject IS NULL THEN nullif(list_concat(people,
        CASE WHEN kind = 'profile' THEN known([person(did, handle)]) END,
        CASE WHEN about IS NOT NULL THEN known(flatten(list_transform(post.facets,
            lambda facet: coalesce(named(post."text", facet), [])))) END), []) END AS people,
    CASE WHEN kind = 'deleted' AND left_out <> 'other record' THEN item.uri END AS deleted_post,
    CASE WHEN kind = 'notice' THEN item.account END AS deleted_author,
    CASE WHEN kind = 'notice' THEN item.restored END AS restored_author
FROM shown
"""


def confidence(sample: Sample) -> float:
    """Sure where one of the first objects is an event, a view or a page of them."""
    return float(any(_is_bluesky(value) or any(map(_is_bluesky, _items(value))) for value in sample.objects))


def _items(value: dict[str, Any]) -> list[dict[str, Any]]:
    pages = [value[key] for key in ITEMS if isinstance(value.get(key), list)]
    return [item for page in pages for item in page if isinstance(item, dict)]


def _is_bluesky(value: dict[str, Any]) -> bool:
    thread, post, payload = value.get("thread"), value.get("post"), value.get("payload")
    if isinstance(thread, dict):
        return _is_bluesky(thread) or str(thread.get("$type")).startswith("app.bsky.")
    if isinstance(payload, dict):
        return str(payload.get("$type")).startswith("network.bsky.jetstream.")
    if isinstance(post, dict):
        return str(post.get("uri")).startswith("at://")
    if str(value.get("uri")).startswith("at://"):
        return any(isinstance(value.get(key), dict) for key in ("record", "value", "author"))
    if not str(value.get("did")).startswith("did:"):
        return False
    return bool({"commit", "identity", "account", "collection", "handle"} & value.keys())


def facts(mapping: TableMapping | None) -> Reading:
    """Users are DIDs: a handle in a text would be a second key of the same user."""
    del mapping
    return Reading(casefold_users=False, mention_hosts=True, html=False, mentions_in_text=False)


def read(files: Sequence[File], mapping: TableMapping | None, labels: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Every record of the files in RAW_SCHEMA; a column mapping is of no use here."""
    del mapping
    return read_json(files, STRUCTURE, _MACROS, _QUERY, ITEMS, labels=labels)
