"""Mastodon and what speaks its language: statuses of the API, dumps of its streams, the archive of an account.

Users are `name@host` everywhere, with the host of their address where a server leaves it out for its own: ids are a
server's, and another one has them for somebody else. A status is known by its `uri`, so that two servers' copies are
one post. A boost is a repost of the status that it embeds; in archives, of an address. The text is the content warning
and, below it, the content; options of polls are no text. Mentions and hashtags are those that the record lists, links
those of the HTML, in full where the text shows a part.

Reads: JSON lines, arrays, pages, `{"event", "payload"}`; of an archive `outbox.json`, `likes.json` (favorites of the
owner, whom `actor.json` names) and `bookmarks.json` (left out).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ntulm.corpus.sources import formats
from ntulm.corpus.sources.content import head
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import Sample
from ntulm.corpus.sources.json_records import read_json
from ntulm.corpus.sources.lines import record_lines
from ntulm.text import SPACES, SQL_PATTERNS, Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

ITEMS = ("orderedItems", "statuses", "ancestors", "descendants", "accounts")  # of a page
OWNER_BYTES = 1 << 20  # no actor.json is larger

_ACCOUNT = {"id": "VARCHAR", "username": "VARCHAR", "acct": "VARCHAR", "url": "VARCHAR", "uri": "VARCHAR"}
_STATUS: dict[str, Any] = {
    "id": "VARCHAR",
    "uri": "VARCHAR",
    "created_at": "VARCHAR",
    "edited_at": "VARCHAR",
    "content": "VARCHAR",
    "spoiler_text": "VARCHAR",
    "visibility": "VARCHAR",
    "language": "VARCHAR",
    "in_reply_to_id": "VARCHAR",
    "in_reply_to_account_id": "VARCHAR",
    "account": _ACCOUNT,
    "mentions": [_ACCOUNT],
    "tags": [{"name": "VARCHAR"}],
    "media_attachments": [{"id": "VARCHAR"}],
    "poll": {"id": "VARCHAR"},
    "quote": "JSON",  # an object of the API, an address in archives
}
_ACTIVITY: dict[str, Any] = {  # of archives: an activity, or the note that it is about
    "@context": "JSON",
    "type": "VARCHAR",
    "actor": "VARCHAR",
    "object": "JSON",
    "published": "VARCHAR",
    "updated": "VARCHAR",
    "to": "JSON",  # an address or a list of them
    "cc": "JSON",
    "attributedTo": "VARCHAR",
    "summary": "VARCHAR",
    "inReplyTo": "VARCHAR",
    "contentMap": "JSON",
    "tag": [{"type": "VARCHAR", "name": "VARCHAR", "href": "VARCHAR"}],
    "attachment": [{"type": "VARCHAR"}],
    "quoteUri": "VARCHAR",
    "quoteUrl": "VARCHAR",
    "preferredUsername": "VARCHAR",
}
STRUCTURE: dict[str, Any] = {
    **_STATUS,
    **_ACTIVITY,
    "reblog": _STATUS,
    "status": {"id": "VARCHAR"},  # of a notification
    "acct": "VARCHAR",
    "event": "VARCHAR",
    "payload": "VARCHAR",  # JSON in a string, or as it is
}
_PUBLIC = r'"(?:https://www\.w3\.org/ns/activitystreams#|as:)?Public"'

_MACROS = rf"""
CREATE MACRO written_pattern() AS '{SQL_PATTERNS["written_pattern"]}';
CREATE MACRO moment(value) AS CASE WHEN regexp_matches(value, '^\d{{4}}-') THEN TRY_CAST(value AS TIMESTAMPTZ) END;
CREATE MACRO host(address) AS nullif(regexp_extract(address, '^https?://([^/?#]+)', 1), '');
CREATE MACRO listed(names) AS list_filter(names, lambda name: name <> '');
-- https://host/@name, https://host/users/name and what is below it.
CREATE MACRO handle_at(address) AS CASE
    WHEN regexp_matches(address, '^https?://[^/]+/(?:@|users/)[\w.-]+(?:/|$)')
    THEN lower(regexp_extract(address, '/(?:@|users/)([\w.-]+)', 1) || '@' || host(address)) END;
CREATE MACRO handle(account) AS lower(CASE
    WHEN contains(account.acct, '@') THEN account.acct
    ELSE coalesce(account.acct, account.username) || coalesce('@' || host(coalesce(account.url, account.uri)), '') END);
-- An account that shows no address is at home where its status is.
CREATE MACRO writer(account, address) AS handle(account) || CASE
    WHEN contains(handle(account), '@') OR host(address) IS NULL THEN '' ELSE '@' || lower(host(address)) END;
CREATE MACRO named(tag) AS CASE WHEN length(tag.name) - length(replace(tag.name, '@', '')) > 1
    THEN lower(ltrim(tag.name, '@')) ELSE coalesce(handle_at(tag.href), lower(ltrim(tag.name, '@'))) END;

-- As `plain_text` in ntulm/text.py; the corpus resolves what other entities there are.
CREATE MACRO unquoted(markup) AS regexp_replace(
    regexp_replace(markup, '(?s)<p class="quote-inline">.*?</p>', '', 'g'),
    '(?s)<span class="quote-inline">.*?</span>', '', 'g');
CREATE MACRO stripped(markup) AS regexp_replace(regexp_replace(unquoted(markup),
    '(?i)<(?:br|hr|/p|/div|/li|/blockquote|/pre|/h\d)\b[^>]*>', chr(10), 'g'),
    '(?s)</?[a-zA-Z][^>]*>|<!--.*?-->', '', 'g');
CREATE MACRO entities(markup) AS replace(replace(replace(replace(replace(markup,
    '&lt;', '<'), '&gt;', '>'), '&quot;', '"'), '&#39;', ''''), '&amp;', '&');
-- Ten times as fast as `trim`.
CREATE MACRO trimmed(words) AS regexp_replace(regexp_replace(words, '[{SPACES}]+$', ''), '^[{SPACES}]+', '');
CREATE MACRO plain(markup) AS trimmed(entities(stripped(markup)));
CREATE MACRO links(markup) AS CASE WHEN regexp_matches(markup, '(?i)<a\s') THEN list_filter(
    list_transform(
        list_filter(regexp_extract_all(unquoted(markup), '(?i)<a\s[^>]*>'),
            lambda tag: NOT regexp_matches(tag, '(?i)class\s*=\s*["''][^"'']*\b(?:mention|hashtag)\b')),
        lambda tag: entities(regexp_extract(tag, '(?i)\shref\s*=\s*["'']([^"'']*)', 1))),
    lambda link: regexp_matches(link, '(?i)^https?://')) END;

-- Whom the HTML links to; for records without a list.
CREATE MACRO mentioned(markup) AS list_transform(
    list_filter(regexp_extract_all(unquoted(markup), '(?i)<a\s[^>]*>'),
        lambda tag: regexp_matches(tag, '(?i)class\s*=\s*["''][^"'']*\bmention\b')),
    lambda tag: handle_at(regexp_extract(tag, '(?i)\shref\s*=\s*["'']([^"'']*)', 1)));

CREATE MACRO audience("to", cc) AS CASE
    WHEN regexp_matches("to"::VARCHAR, '{_PUBLIC}') THEN 'public'
    WHEN regexp_matches(cc::VARCHAR, '{_PUBLIC}') THEN 'unlisted'
    WHEN regexp_matches(concat("to"::VARCHAR, cc::VARCHAR), '/followers"') THEN 'private'
    ELSE 'direct'
END;
CREATE MACRO shown(warning, content) AS concat_ws(chr(10), nullif(trimmed(warning), ''), content);
-- An answer names a status by its id on the server that was asked; with its author's there, no other server has it.
CREATE MACRO local_id(id, account_id) AS id || '/' || account_id;
-- Who wrote the status that is answered: its author again, or one of those mentioned.
CREATE MACRO answered(s) AS CASE
    WHEN s.in_reply_to_account_id IS NULL THEN NULL
    WHEN s.in_reply_to_account_id = s.account.id THEN writer(s.account, s.uri)
    ELSE list_transform(list_filter(s.mentions, lambda one: one.id = s.in_reply_to_account_id),
        lambda one: handle(one))[1] END;
CREATE MACRO quoted_post(quote) AS CASE json_type(quote)
    WHEN 'OBJECT' THEN coalesce(quote->>'$.quoted_status.uri', quote->>'$.uri')
    WHEN 'VARCHAR' THEN quote->>'$' END;
CREATE MACRO quoted_author(quote) AS CASE WHEN json_type(quote) = 'OBJECT' THEN list_transform(
    [from_json(coalesce(quote->'$.quoted_status.account', quote->'$.account'), '{json.dumps(_ACCOUNT)}')],
    lambda account: handle(account))[1] END;
CREATE MACRO content(s) AS struct_pack(
    post_id := coalesce(s.uri, s.id || coalesce('@' || host(coalesce(s.account.url, s.account.uri)), '')),
    created_at := moment(s.created_at),
    lang := lower(split_part(s.language, '-', 1)),
    "text" := shown(s.spoiler_text, plain(s.content)),
    author := writer(s.account, s.uri),
    mentions := coalesce(
        listed(coalesce(list_transform(s.mentions, lambda one: handle(one)), mentioned(s.content))), []),
    hashtags := list_transform(s.tags, lambda tag: tag.name),
    urls := links(s.content),
    reply_to := answered(s),
    quoted := coalesce(quoted_author(s.quote), handle_at(quoted_post(s.quote)))
);
CREATE MACRO note(n, author, published) AS struct_pack(
    post_id := n.id,
    created_at := moment(coalesce(n.published, published)),
    lang := lower(split_part(json_keys(n.contentMap)[1], '-', 1)),
    "text" := shown(n.summary, plain(n.content)),
    author := author,
    mentions := listed(list_transform(list_filter(n.tag, lambda tag: tag."type" = 'Mention'), lambda tag: named(tag))),
    hashtags := list_transform(
        list_filter(n.tag, lambda tag: tag."type" = 'Hashtag'), lambda tag: ltrim(tag.name, '#＃')),
    urls := links(n.content),
    reply_to := handle_at(n.inReplyTo),
    quoted := handle_at(coalesce(quoted_post(n.quote), n.quoteUri, n.quoteUrl))
);
CREATE MACRO act(id, moment, author) AS struct_pack(
    post_id := id, created_at := moment, lang := NULL::VARCHAR, "text" := NULL::VARCHAR, author := author,
    mentions := NULL::VARCHAR[], hashtags := NULL::VARCHAR[], urls := NULL::VARCHAR[], reply_to := NULL::VARCHAR,
    quoted := NULL::VARCHAR);
CREATE MACRO event_reason(event) AS CASE
    WHEN event = 'delete' THEN 'deleted by its author'
    WHEN event LIKE 'notification%' THEN 'notification'
    WHEN event = 'conversation' THEN 'direct message'
    WHEN event NOT IN ('update', 'status.update') THEN 'stream notice'
END;
CREATE MACRO wordless(pictures, polls, quote) AS CASE
    WHEN pictures > 0 THEN 'picture without text'
    WHEN polls THEN 'poll without text'
    WHEN quote IS NOT NULL THEN 'quote without text'
    ELSE 'post without text' END;
"""
# Each value is made once: DuckDB evaluates both sides of AND, and what two levels name twice, twice.
_QUERY = r""", told AS (
    SELECT file, line, unread, record."type" AS activity, record.id AS id, record.actor AS actor,
        record.object AS object, record.published AS published, record."to" AS "to", record.cc AS cc,
        event_reason(record.event) AS event_reason, record.event AS event, record.payload AS payload,
        CASE WHEN content LIKE '"%' THEN TRY(json_extract_string(content, '$')) END AS address,
        regexp_replace(file, '[^/]*$', '') AS folder,
        CASE
            WHEN record.event IN ('update', 'status.update') THEN TRY(from_json(record.payload, $structure))
            WHEN record."type" IN ('Create', 'Update', 'Announce') AND json_type(record.object) = 'OBJECT'
                THEN TRY(from_json(record.object, $structure))
            ELSE record
        END AS item
    FROM parsed
), kinds AS (
    SELECT *,
        coalesce($names[list_position($addresses, actor)], handle_at(actor)) AS actor_name,
        coalesce(item.attributedTo, actor) AS writer,
        CASE json_type(object) WHEN 'VARCHAR' THEN object->>'$' WHEN 'OBJECT' THEN object->>'$.id' END AS object_id,
        CASE
            WHEN unread IS NOT NULL AND address IS NULL THEN 'unread'
            WHEN event_reason IS NOT NULL THEN 'event'
            WHEN address IS NOT NULL THEN CASE
                WHEN file LIKE '%bookmarks.json' THEN 'bookmark'
                WHEN file LIKE '%likes.json' THEN 'address liked' ELSE 'unread' END
            WHEN item.account IS NOT NULL AND coalesce(item.reblog.uri, item.reblog.id) IS NOT NULL THEN 'boost'
            WHEN item.account IS NOT NULL AND item.content IS NOT NULL THEN 'status'
            WHEN item.account IS NOT NULL AND item.status IS NOT NULL AND item."type" IS NOT NULL THEN 'notification'
            WHEN item.acct IS NOT NULL OR item.preferredUsername IS NOT NULL THEN 'profile'
            WHEN activity = 'Announce' THEN CASE
                WHEN object IS NULL THEN 'unread' WHEN item.content IS NOT NULL THEN 'note announced'
                ELSE 'announce' END
            WHEN activity IN ('Create', 'Update') THEN CASE
                WHEN item.content IS NOT NULL AND json_type(object) = 'OBJECT' THEN 'note'
                WHEN object IS NULL THEN 'unread' ELSE 'address alone' END
            WHEN activity = 'Like' AND object IS NOT NULL THEN 'like'
            WHEN activity = 'Delete' AND object IS NOT NULL THEN 'deletion'
            WHEN item.content IS NOT NULL AND (item.attributedTo IS NOT NULL) THEN 'note'
            WHEN activity IS NOT NULL AND actor IS NOT NULL THEN 'other activity'
            ELSE 'unread'
        END AS kind
    FROM told
), statuses AS (  -- a narrow value: each look into a wide one is paid for when the query is planned
    SELECT *, CASE
        WHEN kind = 'boost' THEN item.reblog
        WHEN kind = 'status' THEN struct_pack(id := item.id, uri := item.uri, created_at := item.created_at,
            edited_at := item.edited_at, content := item.content, spoiler_text := item.spoiler_text,
            visibility := item.visibility, "language" := item."language", in_reply_to_id := item.in_reply_to_id,
            in_reply_to_account_id := item.in_reply_to_account_id, account := item.account,
            mentions := item.mentions, tags := item.tags,
            media_attachments := item.media_attachments, poll := item.poll, quote := item.quote)
    END AS status
    FROM kinds
), contents AS (
    SELECT *,
        CASE
            WHEN status IS NOT NULL THEN content(status)
            WHEN kind IN ('note', 'note announced') THEN
                note(item, coalesce($names[list_position($addresses, writer)], handle_at(writer)), published)
            WHEN kind IN ('announce', 'like') THEN act(object_id, NULL::TIMESTAMPTZ, handle_at(object_id))
            WHEN kind = 'address liked' THEN act(address, NULL::TIMESTAMPTZ, handle_at(address))
        END AS about,
        CASE
            WHEN kind = 'boost' THEN act(coalesce(item.uri, item.id), moment(item.created_at),
                writer(item.account, item.uri))
            WHEN kind IN ('announce', 'note announced') THEN act(id, moment(published), actor_name)
            WHEN kind = 'like' THEN act(NULL, moment(published), actor_name)
            WHEN kind = 'address liked' THEN act(NULL, NULL::TIMESTAMPTZ, $names[list_position($folders, folder)])
        END AS act,
        CASE
            WHEN status.visibility NOT IN ('public', 'unlisted') THEN status.visibility
            WHEN kind IN ('status', 'boost') THEN item.visibility
            WHEN kind IN ('note', 'note announced') THEN audience(coalesce(item."to", "to"), coalesce(item.cc, cc))
            WHEN kind IN ('announce', 'like') AND coalesce("to", cc) IS NOT NULL THEN audience("to", cc)
        END AS visibility,
        CASE WHEN kind = 'note' THEN coalesce(item.published, published) ELSE coalesce(item.created_at, published)
        END AS written
    FROM statuses
), judged AS (
    SELECT *,
        CASE
        WHEN kind = 'unread' THEN coalesce(unread, 'not a post object')
        WHEN kind IN ('status', 'note') AND about.created_at IS NULL AND written IS NOT NULL THEN 'impossible date'
        WHEN kind IN ('boost', 'announce', 'note announced') AND act.created_at IS NULL AND written IS NOT NULL
            THEN 'impossible date'
        END AS reject,
        coalesce(visibility IN ('public', 'unlisted'), true) AS is_public,
        CASE
            WHEN kind IN ('status', 'boost') AND item.id IN (SELECT unnest($deleted)) THEN coalesce(act, about).post_id
            WHEN kind = 'boost' AND status.id IN (SELECT unnest($deleted)) THEN about.post_id
        END AS gone
    FROM contents
), reasons AS (
    SELECT *, CASE
        WHEN reject IS NOT NULL THEN NULL
        WHEN kind = 'event' THEN event_reason
        WHEN kind = 'address liked' THEN 'like'
        WHEN kind = 'deletion' THEN 'deleted by its author'
        WHEN kind IN ('bookmark', 'like', 'profile', 'notification', 'address alone', 'other activity') THEN kind
        WHEN gone IS NOT NULL THEN 'deleted by its author'
        WHEN kind = 'announce' OR NOT is_public THEN NULL
        WHEN NOT regexp_matches(about."text", written_pattern()) THEN CASE
            WHEN status IS NOT NULL THEN wordless(len(status.media_attachments), status.poll IS NOT NULL, status.quote)
            ELSE wordless(len(item.attachment),
                item."type" = 'Question', item.quote) END
    END AS left_out
    FROM judged
), rows AS (
    SELECT *,
        reject IS NULL AND left_out IS NULL AS is_kept,
        kind IN ('like', 'address liked') AND act.author IS NOT NULL AND about.post_id IS NOT NULL AS is_favorite,
        CASE WHEN kind IN ('status', 'note') THEN about ELSE act END AS own
    FROM reasons
), filled AS (
    SELECT * EXCLUDE (own), CASE WHEN is_kept OR is_favorite THEN own END AS own FROM rows
)
SELECT file, line, reject, left_out, own.post_id, own.created_at, own.lang, own."text", own.author,
    own.mentions, own.hashtags, own.urls, own.reply_to, own.quoted,
    CASE WHEN is_kept AND kind = 'note' THEN item.inReplyTo
        WHEN is_kept AND kind = 'status' AND own.reply_to IS NULL
        THEN local_id(status.in_reply_to_id, status.in_reply_to_account_id) END AS reply_to_post,
    CASE WHEN is_kept AND status IS NOT NULL THEN local_id(status.id, status.account.id) END AS local_id,
    CASE WHEN is_kept AND kind IN ('status', 'note') THEN
        coalesce(quoted_post(item.quote), item.quoteUri, item.quoteUrl) END AS quoted_post,
    CASE WHEN is_kept AND kind IN ('status', 'note') THEN coalesce(moment(coalesce(item.edited_at, item.updated)),
        CASE WHEN event = 'status.update' OR activity = 'Update' THEN own.created_at END) END AS edited_at,
    CASE WHEN is_kept OR is_favorite THEN visibility END AS visibility,
    CASE WHEN is_kept THEN kind NOT IN ('status', 'note') END AS is_repost,
    CASE WHEN is_favorite THEN true END AS is_favorite,
    CASE WHEN is_favorite OR (is_kept AND kind NOT IN ('status', 'note')) THEN about END AS reposted,
    CASE WHEN kind = 'deletion' THEN object_id WHEN reject IS NULL THEN gone END AS deleted_post
FROM filled
"""


def confidence(sample: Sample) -> float:
    """Sure where one of the first objects is a status, an event of a stream, or a part of an archive."""
    return float(any(_is_mastodon(value) or any(map(_is_mastodon, _items(value))) for value in sample.objects))


def _items(value: dict[str, Any]) -> list[dict[str, Any]]:
    pages = [value[key] for key in ITEMS if isinstance(value.get(key), list)]
    return [item for page in pages for item in page if isinstance(item, dict)]


def _is_mastodon(value: dict[str, Any]) -> bool:
    account = value.get("account")
    if isinstance(account, dict) and account.keys() & {"acct", "username"}:
        return bool(value.keys() & {"content", "reblog", "status"})
    if value.keys() >= {"event", "payload"}:
        return str(value["event"]) in ("update", "status.update", "delete", "notification", "conversation")
    if "activitystreams" in json.dumps(value.get("@context")):
        return bool(value.keys() & {"orderedItems", "object", "content", "preferredUsername"})
    is_activity = value.get("type") in ("Create", "Announce", "Like") and "activitystreams" in json.dumps(
        value.get("to")
    )
    return is_activity and "actor" in value


def facts(mapping: TableMapping | None) -> Reading:
    """Users are handles with hosts; texts are HTML, whose mentions show no host."""
    del mapping
    return Reading(casefold_users=True, mention_hosts=True, html=True, mentions_in_text=True)


def read(files: Sequence[File], mapping: TableMapping | None, labels: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Every record of the files in RAW_SCHEMA; a column mapping is of no use here."""
    del mapping
    owners = list(_owners(files))
    values: dict[str, list[str]] = {
        "folders": [folder for folder, _, _ in owners],
        "addresses": [address for _, address, _ in owners],
        "names": [name for _, _, name in owners],
        "deleted": sorted(_deleted(files)),
    }
    return read_json(files, STRUCTURE, _MACROS, _QUERY, ITEMS, values=values, labels=labels)


def _owners(files: Sequence[File]) -> Iterator[tuple[str, str, str]]:
    """Of each archive: its folder, the address of its owner, and the owner's handle."""
    for file in files:
        if not file.name.endswith("actor.json"):
            continue
        for value in formats.objects(head(file, OWNER_BYTES)):
            address, name = value.get("id"), value.get("preferredUsername")
            found = re.match(r"https?://([^/]+)/", address) if isinstance(address, str) else None
            if isinstance(address, str) and found and isinstance(name, str):
                yield file.name[: file.name.rfind("/") + 1], address, f"{name}@{found[1]}".lower()


def _deleted(files: Sequence[File]) -> set[str]:
    """The ids that streams say were deleted: a status has an id and a `uri`, and they name the id alone."""
    streams = [file for file in files if any("event" in value for value in formats.sample(file).objects)]
    found = set()
    for table in record_lines(streams, ITEMS):
        for line in table["content"].filter(pc.match_substring(table["content"], '"delete"')).to_pylist():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict) and value.get("event") == "delete":
                found.add(str(value.get("payload")))
    return found
