"""Twitter API v2 in the shapes that people hold it in: pages of the API and of client libraries (`data`, `includes`),
twarc2's flattened tweets, one tweet per record, and academictwitteR's folder (tweets in `data_*.json`, users and the
posts referred to in `users_*.json`).

A page gives one row per tweet, all with the page's line. `retweeted` among the `referenced_tweets` makes a repost. Its
own text is cut, so the original comes from where it stands: in the tweet itself (flattened), in the page's `includes`,
or in any file of includes. An original that is known only by a cut text loses its half last word and has no author:
nobody's post is not trained on. A retweet of a protected account is as hidden as what it retweets. Posts in `includes`
are no posts of their own: they give the texts of originals and the authors of what is quoted and answered.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from ntulm.corpus.sources import json_paths, twitter_texts
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import Sample, conformed
from ntulm.corpus.sources.label_paths import LabelPaths
from ntulm.corpus.sources.lines import record_lines, side_by_side
from ntulm.corpus.sources.twitter_references import References, is_includes, references_of
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

Connection = duckdb.DuckDBPyConnection
CUT, LIKELY, UNLIKELY = 0.9, 0.8, 0.6  # the beginning alone; a tweet without a sure sign; with hardly any

# Keys that tweets, and users, of this version alone have.
_TWEET_KEYS = {
    "author_id", "conversation_id", "edit_history_tweet_ids", "referenced_tweets", "public_metrics", "reply_settings",
    "context_annotations",
}  # fmt: skip
_USER_KEYS = {"public_metrics", "pinned_tweet_id", "profile_image_url", "verified", "protected", "description"}
_TIME, _ANY_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "2006-03-21T00:00:00Z"
_PROBLEM = "api.twitter.com/2/problems/"

_USER = {"id": "VARCHAR", "username": "VARCHAR", "protected": "BOOLEAN"}
_ENTITIES = {
    "hashtags": [{"tag": "VARCHAR"}],
    "cashtags": [{"tag": "VARCHAR"}],
    "mentions": [{"id": "VARCHAR", "username": "VARCHAR"}],
    "urls": [{"unwound_url": "VARCHAR", "expanded_url": "VARCHAR", "url": "VARCHAR"}],
}
_REFERRED: dict[str, Any] = {
    "type": "VARCHAR",
    "id": "VARCHAR",
    "author_id": "VARCHAR",
    "created_at": "VARCHAR",
    "lang": "VARCHAR",
    "text": "VARCHAR",
    "in_reply_to_user_id": "VARCHAR",
    "geo": {"place_id": "VARCHAR", "id": "VARCHAR"},
    "entities": _ENTITIES,
    "note_tweet": {"text": "VARCHAR", "entities": _ENTITIES},
    "author": _USER,
}
_TWEET = {**_REFERRED, "username": "VARCHAR", "in_reply_to_user": _USER, "referenced_tweets": [_REFERRED]}
# A record is a page, a tweet or a file of includes.
_RECORD = {
    **_TWEET,
    "data": [_TWEET],
    "includes": {"users": [_USER], "tweets": [_REFERRED]},
    "users": [_USER],
    "tweets": "JSON",
    "errors": "JSON",
    "meta": "JSON",
    "resource_id": "VARCHAR",
    "detail": "VARCHAR",
}
STRUCTURES = {"record": json.dumps(_RECORD), "tweet": json.dumps(_TWEET), "referred": json.dumps(_REFERRED)}

_MACROS = rf"""
{twitter_texts.MACROS}
CREATE MACRO as_tweet(record) AS struct_pack({", ".join(f"{name} := record.{name}" for name in _TWEET)});
CREATE MACRO pair(user) AS struct_pack(id := id_of(user.id), handle := user.username);
CREATE MACRO pairs(users) AS list_transform(users, lambda user: pair(user));
CREATE MACRO whole(pairs) AS
    list_filter(pairs, lambda pair: pair.id <> '' AND pair.handle <> '');
CREATE MACRO moment(written) AS
    CASE WHEN regexp_matches(written, '^\d{{4}}-\d\d-\d\d') THEN TRY_CAST(written AS TIMESTAMPTZ) END;
CREATE MACRO writer(tweet) AS coalesce(id_of(tweet.author_id), id_of(tweet.author.id));
-- A long text has entities of its own; where it has none they are taken from it.
CREATE MACRO entities(tweet) AS
    CASE WHEN tweet.note_tweet.text <> '' THEN tweet.note_tweet.entities ELSE tweet.entities END;
-- Null where the tweet has no entities: from the text. A kind that is not among them was not in the text.
CREATE MACRO listed(entities, list) AS CASE WHEN entities IS NOT NULL THEN coalesce(list, []) END;
CREATE MACRO mentioned(entities) AS
    listed(entities, list_transform(entities.mentions, lambda user: coalesce(id_of(user.id), user.username)));
CREATE MACRO tagged(tags) AS list_transform(tags, lambda tag: tag.tag);
CREATE MACRO linked(urls) AS
    list_transform(urls, lambda link: coalesce(link.unwound_url, link.expanded_url, link.url));
CREATE MACRO located(tweet) AS
    list_filter([coalesce(tweet.geo.place_id, tweet.geo.id)], lambda place: place IS NOT NULL);
CREATE MACRO content(tweet, entities) AS struct_pack(
    post_id := id_of(tweet.id),
    created_at := moment(tweet.created_at),
    lang := tweet.lang,
    text := coalesce(nullif(tweet.note_tweet.text, ''), tweet.text),
    author := writer(tweet),
    mentions := mentioned(entities),
    hashtags := listed(entities, tagged(entities.hashtags)),
    urls := listed(entities, linked(entities.urls)),
    places := located(tweet),
    cashtags := listed(entities, tagged(entities.cashtags)),
    community := NULL::VARCHAR,
    reply_to := id_of(tweet.in_reply_to_user_id),
    quoted := NULL::VARCHAR
);
-- Of an original of which there is nothing but the retweet.
CREATE MACRO known_id(handle, users) AS
    id_of(list_filter(
    users, lambda user: lower(user.username) = lower(handle) AND id_of(user.id) IS NOT NULL)[1].id);
CREATE MACRO remains(own, retweeted, author) AS struct_pack(
    post_id := id_of(retweeted.id),
    created_at := NULL::TIMESTAMPTZ,
    lang := own.lang,
    text := without_half_word(without_head(own.text)),
    author := CASE WHEN NOT is_cut(own.text) THEN author END,
    mentions := list_filter(own.mentions, lambda user: user IS DISTINCT FROM author),
    hashtags := without_half_tag(own.hashtags, own.text),
    urls := own.urls,
    places := [],
    cashtags := without_half_tag(own.cashtags, own.text),
    community := NULL::VARCHAR,
    reply_to := NULL::VARCHAR,
    quoted := NULL::VARCHAR
);
CREATE MACRO referred(tweet, kind) AS list_filter(tweet.referenced_tweets, lambda one: one.type = kind)[1];
"""

# The tables of a block, each from the one before.
_PAGES = """
CREATE OR REPLACE TEMP TABLE page AS
WITH read AS (
    SELECT row_number() OVER () AS page, file, line, reject, content,
        CASE WHEN reject IS NULL THEN TRY(from_json(content, $record)) END AS record
    FROM lines
), looked_at AS (
    SELECT *, CASE WHEN record IS NOT NULL AND record.data IS NULL AND record.text IS NULL
        THEN nullif(json_extract(content, '$.data')::VARCHAR, 'null') END AS one
    FROM read
)
SELECT page, file, line, record.includes.tweets AS included,
    whole(pairs(coalesce(record.includes.users, []) || coalesce(record.users, []))) AS people,
    flatten(list_transform(list_filter(record.includes.users, lambda user: user.protected),
        lambda user: [id_of(user.id), lower(user.username)])) AS hidden,
    CASE
        WHEN reject IS NOT NULL THEN reject
        WHEN record IS NULL THEN CASE WHEN json_valid(content) THEN 'not a post object' ELSE 'invalid JSON' END
    END AS unread,
    CASE
        WHEN coalesce(record.id, record.text, record.author_id, one) IS NOT NULL OR len(record.data) > 0 THEN NULL
        WHEN record.users IS NOT NULL OR record.tweets IS NOT NULL THEN 'users and posts referred to'
        WHEN record.resource_id IS NOT NULL OR record.detail IS NOT NULL THEN 'error message'
        WHEN record.data IS NOT NULL OR coalesce(record.errors, record.meta) IS NOT NULL OR record.includes IS NOT NULL
            THEN 'no posts on this page'
    END AS left_out,
    CASE
        WHEN record IS NULL THEN NULL
        WHEN record.text IS NOT NULL OR record.author_id IS NOT NULL THEN [as_tweet(record)]
        WHEN record.data IS NOT NULL THEN record.data
        WHEN one IS NOT NULL THEN [TRY(from_json(one, $tweet))]
        ELSE [as_tweet(record)]
    END AS tweets
FROM looked_at
"""
# A record becomes as many rows as its page has tweets, one at least.
_TWEETS = """
CREATE OR REPLACE TEMP TABLE tweet AS
SELECT row_number() OVER () AS row, *, referred(tweet, 'retweeted') AS retweeted, referred(tweet, 'quoted') AS quoted,
    referred(tweet, 'replied_to') AS answered, entities(tweet) AS entities
FROM (
    SELECT page, unnest(range(greatest(len(tweets), 1))) AS place,
        unnest(CASE WHEN len(tweets) > 0 THEN tweets ELSE [NULL] END) AS tweet
    FROM page
)
"""
_KNOWN = """
CREATE OR REPLACE TEMP TABLE known AS
SELECT page, referred.id AS id, first(referred) AS referred
FROM (SELECT page, unnest(included) AS referred FROM page)
WHERE referred.id IS NOT NULL
GROUP BY ALL
"""
_MISSING = """
CREATE OR REPLACE TEMP TABLE missing AS
SELECT DISTINCT page, id FROM (
    SELECT page, unnest([
        CASE WHEN retweeted.text IS NULL THEN retweeted.id END,
        CASE WHEN writer(quoted) IS NULL THEN quoted.id END,
        CASE WHEN writer(answered) IS NULL AND tweet.in_reply_to_user_id IS NULL THEN answered.id END
    ]) AS id FROM tweet
) ANTI JOIN known USING (page, id)
WHERE id IS NOT NULL
"""
_FOUND = "INSERT INTO known SELECT page, id, TRY(from_json(content, $referred)) FROM found JOIN missing USING (id)"
_ROWS = """
WITH joined AS (
    SELECT t.row, p.file, p.line, p.unread, p.left_out, place, tweet, content(tweet, entities) AS own, entities,
        retweeted, quoted, answered, coalesce(named.people, []) AS people,
        p.hidden,
        CASE WHEN retweeted.text IS NULL THEN r.referred ELSE retweeted END AS original,
        coalesce(writer(quoted), writer(q.referred)) AS quoted_author,
        coalesce(id_of(tweet.in_reply_to_user_id), id_of(tweet.in_reply_to_user.id), writer(answered),
            writer(a.referred)) AS reply_to
    FROM tweet t
    JOIN page p USING (page)
    -- With the first one alone: a join copies what it finds, here all users of the page.
    LEFT JOIN page named ON named.page = t.page AND t.place = 0
    LEFT JOIN known r ON r.id = retweeted.id AND r.page = t.page
    LEFT JOIN known q ON q.id = quoted.id AND q.page = t.page
    LEFT JOIN known a ON a.id = answered.id AND a.page = t.page
), judged AS (
    SELECT *,
        CASE
            WHEN unread IS NOT NULL THEN unread
            WHEN left_out IS NOT NULL OR (tweet.username IS NOT NULL AND own.text IS NULL) THEN NULL
            WHEN coalesce(own.post_id, own.text, own.author) IS NULL THEN 'not a post object'
            WHEN tweet.id IS NOT NULL AND own.post_id IS NULL THEN 'unreadable id'
            WHEN tweet.created_at IS NOT NULL AND own.created_at IS NULL THEN 'impossible date'
        END AS reject,
        CASE WHEN tweet.username IS NOT NULL AND own.text IS NULL THEN 'user profile' ELSE left_out END AS reason,
        -- Without a reference: the field was not asked for, and what stands so in this version's texts is a retweet.
        retweeted IS NOT NULL OR coalesce(regexp_matches(own.text, repost_head()), false) AS is_repost,
        quote_links(own.urls)[-1] AS quote_link,
        entities(original) AS original_entities
    FROM joined
), readable AS (
    SELECT * EXCLUDE (own), CASE WHEN reject IS NULL AND reason IS NULL THEN own END AS own,
        coalesce(writer(retweeted), writer(original), known_id(head_handle(own.text), entities.mentions),
            head_handle(own.text)) AS original_author
    FROM judged
)
SELECT file, line, reject, CASE WHEN unread IS NULL THEN reason END AS left_out,
    own.post_id, own.created_at, own.lang, own.text, own.author,
    own.mentions, own.hashtags, own.urls, own.places, own.cashtags,
    CASE WHEN own IS NOT NULL THEN reply_to END AS reply_to,
    CASE WHEN own IS NULL THEN NULL WHEN quoted_author IS NOT NULL THEN quoted_author
        WHEN link_part(quote_link, 2) = quoted.id THEN link_owner(quote_link) END AS quoted,
    CASE WHEN own IS NOT NULL THEN id_of(answered.id) END AS reply_to_post,
    CASE WHEN own IS NOT NULL THEN id_of(quoted.id) END AS quoted_post,
    CASE WHEN own IS NOT NULL AND (tweet.author.protected OR list_contains(hidden, own.author) OR (is_repost AND (
        original.author.protected OR list_contains(hidden, lower(original_author))))) THEN 'protected' END
        AS visibility,
    CASE WHEN own IS NOT NULL THEN is_repost END AS is_repost,
    CASE
        WHEN own IS NULL OR NOT is_repost THEN NULL
        WHEN original.text IS NOT NULL THEN content(original, original_entities)
        ELSE remains(own, retweeted, original_author)
    END AS reposted,
    people || whole(
        [pair(tweet), pair(tweet.author), pair(tweet.in_reply_to_user), pair(retweeted.author), pair(quoted.author),
            pair(answered.author)]
        || coalesce(pairs(entities.mentions), []) || coalesce(pairs(original_entities.mentions), [])
    ) AS people
FROM readable ORDER BY row
"""


def confidence(sample: Sample) -> float:
    """Sure of pages, tweets, users and messages that have keys of this version alone."""
    found = [_confidence(value) for value in sample.objects]
    return max([*found, _looks(sample.head)], default=0.0)


def _confidence(value: dict[str, Any]) -> float:
    if _is_problem(value):
        return 1.0
    if is_includes(value):
        return max((_confidence(one) for key in ("tweets", "users") for one in _objects(value.get(key))), default=0.0)
    if "text" not in value and (inner := _objects(value.get("data"))):
        return max(_confidence(one) for one in inner)
    if {"id", "text"} <= value.keys() and "user" not in value:
        signs = len(_TWEET_KEYS & value.keys())
        return 1.0 if signs > 1 else LIKELY if signs and _has_its_values(value) else 0.0
    if {"id", "username"} <= value.keys() and not {"acct", "text"} & value.keys():
        signs = len(_USER_KEYS & value.keys())
        return 1.0 if signs > 1 else LIKELY if signs else UNLIKELY if value.keys() <= {*_USER, "name"} else 0.0
    if "data" not in value and "id" not in value:
        errors = _objects(value.get("errors"))
        meta = value.get("meta")
        empty = isinstance(meta, dict) and {"result_count", "newest_id"} & meta.keys()
        return 1.0 if empty or any(_is_problem(one) for one in errors) else 0.0
    return 0.0


def _has_its_values(value: dict[str, Any]) -> bool:
    """Whether id and time are written as this version does: other tables have a column `author_id` too."""
    return str(value["id"]).isdigit() and _TIME.fullmatch(str(value.get("created_at", _ANY_TIME))) is not None


def _objects(value: Any) -> list[dict[str, Any]]:
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, dict)]


def _is_problem(value: dict[str, Any]) -> bool:
    return _PROBLEM in str(value.get("type")) and "title" in value


def _looks(head: bytes) -> float:
    """Of a page that is longer than the beginning of the file, and so is no object yet."""
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t[")
    if not re.match(rb'{\s*"(data|includes|users|tweets|meta|id|errors)"', start):
        return 0.0
    signs = {key for key in _TWEET_KEYS | {"pinned_tweet_id"} if re.search(rb'"%s"\s*:' % key.encode(), start)}
    return CUT if len(signs) > 1 else 0.0


def facts(mapping: TableMapping | None) -> Reading:
    """Users are ids; a text without entities gives handles, which `people` joins with the ids."""
    del mapping
    return Reading(casefold_users=False, mention_hosts=False, html=False, mentions_in_text=True)


def read(files: Sequence[File], mapping: TableMapping | None, labels: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Every tweet of the files in RAW_SCHEMA; a column mapping is of no use here."""
    del mapping
    paths = LabelPaths(labels)
    with references_of(files) as references, duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(_MACROS + json_paths.MACROS)

        def rows(cursor: Connection, lines: pa.Table) -> pa.Table:
            cursor.register("lines", lines)
            cursor.execute(_PAGES, {name: STRUCTURES[name] for name in ("record", "tweet")})
            cursor.execute(_TWEETS)
            cursor.execute(_KNOWN)
            if references is not None:
                cursor.execute(_MISSING)
                cursor.register("found", _found(cursor, references))
                cursor.execute(_FOUND, {"referred": STRUCTURES["referred"]})
            table = conformed(cursor.sql(_ROWS).to_arrow_table())
            return paths.added(cursor, lines, table) if labels else table

        for table in side_by_side(connection, rows, record_lines(files)):
            yield from table.to_batches()
    paths.judge()


def _found(cursor: Connection, references: References) -> pa.Table:
    """Id and content of the posts that this block misses."""
    found = references.find([row[0] for row in cursor.execute("SELECT DISTINCT id FROM missing").fetchall()])
    ids, contents = zip(*found, strict=True) if found else ((), ())
    return pa.table({"id": pa.array(ids, pa.string()), "content": pa.array(contents, pa.string())})
