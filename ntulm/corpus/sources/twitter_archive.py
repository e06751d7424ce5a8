"""The archive of one's own account that Twitter and X give out: `data/tweets.js`, `account.js`, `like.js` and others.

Each file is an assignment (`window.YTD.tweets.part0 = [...]`); a record's line is its number. The author of all posts
is the account of `account.js`. A retweet has no reference and no original: it is what begins with `RT @x:`. The
original is known by its text alone, and only if that is whole: many are cut (`…`), and such an original loses its half
last word and has no author, so that it is nobody's post: not trained on, and still somebody reposted its hashtags.

A long post is cut in `tweets.js`; its text stands in `note-tweet.js` under an id of its own, so the two are joined by
the time and the beginning of the text. Likes are favorites. Direct messages, told by the file's name, are never
opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ntulm.corpus.sources import twitter_texts
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import Sample, conformed, sample
from ntulm.corpus.sources.json_records import query_json, read_json
from ntulm.errors import UserError
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

PRIVATE = re.compile(r"(^|/)[^/]*direct[-_]?messages?[^/]*\.js(on)?$", re.IGNORECASE)
WITHOUT_PREFIX = 0.9  # the objects alone

_FILE = re.compile(r"(^|/)((community|deleted)-)?(tweets?|likes?|note-tweets?|account)(-part\d+)?\.js(on)?$")
_ASSIGNMENT = re.compile(rb"\s*window\.(YTD\.(\w+)\.part\d+|__THAR_CONFIG)\s*=")
_VARIABLES = {b"tweet", b"tweets", b"community_tweet", b"deleted_tweets", b"like", b"note_tweet", b"account"}
_OF_OTHERS = {"user", "user_id_str"}  # whose tweet it is: an archive's are of one account and do not say so
_WRAPPERS = {
    "tweet": {"full_text", "text"},
    "like": {"tweetId"},
    "noteTweet": {"noteTweetId"},
    "account": {"accountId"},
}

_TWEET: dict[str, Any] = {
    "id_str": "VARCHAR",
    "id": "VARCHAR",
    "created_at": "VARCHAR",
    "lang": "VARCHAR",
    "full_text": "VARCHAR",
    "text": "VARCHAR",
    "in_reply_to_user_id_str": "VARCHAR",
    "in_reply_to_user_id": "VARCHAR",
    "in_reply_to_screen_name": "VARCHAR",
    "in_reply_to_status_id_str": "VARCHAR",
    "in_reply_to_status_id": "VARCHAR",
    "quoted_status_id_str": "VARCHAR",
    "community_id_str": "VARCHAR",
    "place": {"id": "VARCHAR", "full_name": "VARCHAR"},
    "entities": {
        "hashtags": [{"text": "VARCHAR"}],
        "symbols": [{"text": "VARCHAR"}],
        "urls": [{"expanded_url": "VARCHAR", "url": "VARCHAR"}],
        "user_mentions": [{"id_str": "VARCHAR", "id": "VARCHAR", "screen_name": "VARCHAR"}],
    },
}
_LONG = {"text": "VARCHAR", "urls": [{"expandedUrl": "VARCHAR"}]}
_ACCOUNT = {"accountId": "VARCHAR", "username": "VARCHAR"}
STRUCTURE = {
    **_TWEET,  # older archives have the tweets themselves
    "tweet": _TWEET,
    "like": {"tweetId": "VARCHAR", "fullText": "VARCHAR"},
    "noteTweet": {
        "noteTweetId": "VARCHAR",
        "tweetId": "VARCHAR",
        "createdAt": "VARCHAR",
        "core": _LONG,
        "noteTweetResults": {"text": "VARCHAR", "result": {"text": "VARCHAR"}},
    },
    "account": _ACCOUNT,
}

_FOLDER = "CREATE MACRO folder(file) AS regexp_replace(file, '[^/]*$', '');"
_MACROS = rf"""
{twitter_texts.MACROS}
{_FOLDER}
CREATE MACRO bare(record) AS struct_pack({", ".join(f"{name} := record.{name}" for name in _TWEET)});
CREATE MACRO plain(text) AS replace(replace(replace(text, '&lt;', '<'), '&gt;', '>'), '&amp;', '&');
CREATE MACRO known_id(handle, users) AS coalesce(
    key(list_filter(users, lambda user: lower(user.screen_name) = lower(handle) AND key(user) IS NOT NULL)[1]),
    handle);
CREATE MACRO answered_id(tweet) AS
    coalesce(id_of(tweet.in_reply_to_user_id_str), id_of(tweet.in_reply_to_user_id));
-- Long texts by the second in which they were written: those of one second, for one author.
CREATE MACRO long_of(notes, tweet_text) AS list_filter(notes, lambda note:
    length(note.text) > length(tweet_text)
    AND starts_with(plain(note.text), left(regexp_replace(plain(tweet_text), '\s*…?\s*(https://t\.co/\w*)?$', ''), 100))
)[1];
-- Null without entities: from the text.
CREATE MACRO listed(entities, list) AS CASE WHEN entities IS NOT NULL THEN coalesce(list, []) END;
CREATE MACRO tagged(tags) AS list_transform(tags, lambda tag: tag.text);
"""
_QUERY = """, kinds AS (
    SELECT p.*, regexp_matches(p.file, '(^|/)deleted-[^/]*$') AS deleted, a.id AS owner,
        CASE WHEN record.tweet IS NOT NULL THEN record.tweet
            WHEN coalesce(record.id_str, record.id) IS NOT NULL THEN bare(record) END AS tweet
    FROM parsed p LEFT JOIN account a ON a.file = p.file
), tweets AS (
    SELECT *, tweet.entities AS entities, key(tweet) AS post_id,
        written_moment(tweet.created_at) AS created_at,
        coalesce(tweet.full_text, tweet.text) AS written
    FROM kinds
), joined AS (
    SELECT t.*, coalesce(n.note, long_of(s.notes, written)) AS note
    FROM tweets t
    LEFT JOIN note_of_post n ON n.folder = folder(t.file) AND n.post_id = t.post_id
    LEFT JOIN note_of_second s ON s.folder = folder(t.file) AND s.second = epoch(t.created_at)::BIGINT
), listed AS (
    SELECT *, coalesce(note.text, written) AS text,
        coalesce(regexp_matches(written, repost_head()), false) AS is_repost,
        known_id(head_handle(written), entities.user_mentions) AS reposted_author,
        CASE WHEN note IS NULL THEN listed(entities, list_transform(
            entities.user_mentions, lambda user: coalesce(key(user), user.screen_name))) END AS mentions,
        CASE WHEN note IS NULL THEN listed(entities, tagged(entities.hashtags)) END AS hashtags,
        CASE WHEN note IS NULL THEN listed(entities, tagged(entities.symbols)) END AS cashtags,
        coalesce(note.urls, listed(entities, list_transform(
            entities.urls, lambda link: coalesce(link.expanded_url, link.url)))) AS urls,
        list_filter([coalesce(tweet.place.id, tweet.place.full_name)], lambda place: place IS NOT NULL) AS places
    FROM joined
), judged AS (
    SELECT *, CASE
        WHEN unread IS NOT NULL THEN unread
        WHEN deleted AND post_id IS NOT NULL THEN NULL
        WHEN record.like.tweetId IS NOT NULL OR record.noteTweet IS NOT NULL OR record.account IS NOT NULL THEN NULL
        WHEN tweet IS NULL OR (post_id IS NULL AND text IS NULL) THEN 'not a post object'
        WHEN is_unreadable(tweet) THEN 'unreadable id'
        WHEN tweet.created_at IS NOT NULL AND created_at IS NULL THEN 'impossible date'
    END AS reject, CASE
        WHEN unread IS NOT NULL THEN NULL
        WHEN deleted AND post_id IS NOT NULL THEN 'deleted by its author'
        WHEN record.like.tweetId IS NOT NULL THEN 'like'
        WHEN record.noteTweet IS NOT NULL THEN 'long text of a post'
        WHEN record.account IS NOT NULL THEN 'account'
    END AS left_out
    FROM listed
), readable AS (
    SELECT file, line, reject, left_out, deleted, post_id AS id, record, owner, tweet, entities, is_repost,
        reposted_author, CASE WHEN reject IS NULL AND left_out IS NULL THEN struct_pack(
            post_id, created_at, lang := tweet.lang, text, mentions, hashtags, urls, places, cashtags) END AS own
    FROM judged
)
SELECT file, line, reject, left_out, own.post_id, own.created_at, own.lang, own.text,
    CASE WHEN own IS NOT NULL OR left_out = 'like' THEN owner END AS author,
    own.mentions, own.hashtags, own.urls, own.places, own.cashtags,
    CASE WHEN own IS NOT NULL THEN tweet.community_id_str END AS community,
    CASE WHEN own IS NOT NULL THEN coalesce(answered_id(tweet), tweet.in_reply_to_screen_name) END AS reply_to,
    CASE WHEN own IS NOT NULL
        THEN coalesce(id_of(tweet.in_reply_to_status_id_str), id_of(tweet.in_reply_to_status_id)) END AS reply_to_post,
    CASE WHEN NOT is_repost THEN link_owner(quote_links(own.urls)[-1]) END AS quoted,
    CASE WHEN own IS NOT NULL AND NOT is_repost
        THEN coalesce(id_of(tweet.quoted_status_id_str), link_part(quote_links(own.urls)[-1], 2)) END AS quoted_post,
    CASE WHEN own IS NOT NULL THEN is_repost END AS is_repost,
    CASE WHEN left_out = 'like' THEN true END AS is_favorite,
    CASE WHEN own IS NOT NULL AND is_repost THEN struct_pack(
        post_id := NULL, lang := own.lang, text := without_half_word(without_head(own.text)),
        author := CASE WHEN NOT is_cut(own.text) THEN reposted_author END,
        mentions := list_filter(own.mentions, lambda user: user IS DISTINCT FROM reposted_author),
        hashtags := without_half_tag(own.hashtags, own.text), urls := own.urls,
        cashtags := without_half_tag(own.cashtags, own.text))
    WHEN left_out = 'like' THEN struct_pack(
        post_id := record.like.tweetId, lang := NULL, text := record.like.fullText, author := NULL,
        mentions := NULL, hashtags := NULL, urls := NULL, cashtags := NULL)
    END AS reposted,
    CASE WHEN reject IS NULL AND deleted THEN id END AS deleted_post,
    CASE WHEN reject IS NULL THEN list_filter(
        list_transform(coalesce(entities.user_mentions, []),
            lambda user: struct_pack(id := key(user), handle := user.screen_name))
        || [struct_pack(id := answered_id(tweet),
                handle := tweet.in_reply_to_screen_name),
            struct_pack(id := record.account.accountId, handle := record.account.username)],
        lambda user: user.id <> '' AND user.handle <> '') END AS people
FROM readable
"""
_ACCOUNTS = (
    "SELECT file, coalesce(record.account, struct_pack(accountId := NULL, username := NULL)) AS account FROM parsed"
)
_NOTES = """
SELECT folder(file) AS folder, record.noteTweet.tweetId AS post_id,
    epoch(TRY_CAST(record.noteTweet.createdAt AS TIMESTAMPTZ))::BIGINT AS second,
    coalesce(record.noteTweet.core.text, record.noteTweet.noteTweetResults.text,
        record.noteTweet.noteTweetResults.result.text) AS text,
    list_transform(record.noteTweet.core.urls, lambda link: link.expandedUrl) AS urls
FROM parsed
"""


def confidence(sample: Sample) -> float:
    """Sure by the assignment, or the name of what is not opened; else by the objects around the posts."""
    if PRIVATE.search(sample.file.name) or _ASSIGNMENT.match(sample.head.removeprefix(b"\xef\xbb\xbf")):
        return 1.0
    return max((_confidence(value) for value in sample.objects), default=0.0)


def _confidence(value: dict[str, Any]) -> float:
    for wrapper, keys in _WRAPPERS.items():
        inner = value.get(wrapper)
        if isinstance(inner, dict) and keys & inner.keys() and "id" not in value and not _OF_OTHERS & inner.keys():
            return WITHOUT_PREFIX
    # A tweet of version 1 without its author.
    bare = (
        "full_text" in value
        and not _OF_OTHERS & value.keys()
        and twitter_texts.DATE.fullmatch(str(value.get("created_at")))
    )
    return WITHOUT_PREFIX if bare else 0.0


def facts(mapping: TableMapping | None) -> Reading:
    """Users are ids; handles are given where an archive has no more, and `people` joins the two."""
    del mapping
    return Reading(casefold_users=False, mention_hosts=False, html=False, mentions_in_text=True)


def read(files: Sequence[File], mapping: TableMapping | None, labels: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Every tweet and like of the files in RAW_SCHEMA; a file of the archive that has neither is one record, left out.

    Raises:
        UserError: nothing says whose tweets these are.
    """
    del mapping
    known = [file for file in files if not PRIVATE.search(file.name) and _has_records(file)]
    accounts = _accounts([file for file in known if _kind(file) == "account"])
    owners = {file.name: _owner(file, accounts) for file in known if _kind(file) not in ("account", "note-tweet")}
    tables = {"account": _as_table(owners), **_long_texts([file for file in known if _kind(file) == "note-tweet"])}
    records = read_json(known, STRUCTURE, _MACROS, _QUERY, tables=tables, labels=labels) if known else iter(())
    yield from records
    yield from _left_out([file for file in files if file not in known])


def _kind(file: File) -> str:
    """tweet, like, note-tweet or account, by the name; whatever else has records holds tweets."""
    match = _FILE.search(file.name)
    return match.group(4).removesuffix("s") if match else "tweet"


def _has_records(file: File) -> bool:
    if _FILE.search(file.name):
        return True
    start = sample(file)
    if match := _ASSIGNMENT.match(start.head.removeprefix(b"\xef\xbb\xbf")):
        return match.group(2) in _VARIABLES
    return confidence(start) > 0


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _accounts(files: Sequence[File]) -> dict[str, tuple[str, str | None]]:
    """Id (else the handle) and handle of the account of each folder."""
    found = {}
    if files:
        for table in query_json(files, STRUCTURE, "", _ACCOUNTS):
            for row in table.to_pylist():
                number, handle = row["account"]["accountId"], row["account"]["username"]
                if number or handle:
                    found[_folder(row["file"])] = (number or handle, handle)
    return found


def _owner(file: File, accounts: dict[str, tuple[str, str | None]]) -> tuple[str, str | None]:
    """Of the account in the same folder, or of the only one that there is."""
    if (owner := accounts.get(_folder(file.name))) is not None:
        return owner
    if len(accounts) == 1:
        return next(iter(accounts.values()))
    raise UserError(
        f"{file}: no account.js beside it; expected the archive's data/account.js, which says whose tweets these are"
    )


def _as_table(owners: dict[str, tuple[str, str | None]]) -> pa.Table:
    columns = [list(owners), [number for number, _ in owners.values()], [handle for _, handle in owners.values()]]
    return pa.table([pa.array(values, pa.string()) for values in columns], names=["file", "id", "handle"])


def _long_texts(files: Sequence[File]) -> dict[str, pa.Table]:
    """Long texts by the post that they say they are of, and by the second: the clocks may differ by one."""
    by_post: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    by_second: dict[tuple[str, Any], list[dict[str, Any]]] = {}
    for table in query_json(files, STRUCTURE, _FOLDER, _NOTES) if files else ():
        for row in table.to_pylist():
            if not row["text"]:
                continue
            note = {"text": row["text"], "urls": row["urls"]}
            if row["post_id"]:
                by_post.setdefault((row["folder"], row["post_id"]), []).append(note)
            elif row["second"] is not None:
                for second in range(row["second"] - 1, row["second"] + 2):
                    by_second.setdefault((row["folder"], second), []).append(note)
    note = pa.struct([("text", pa.string()), ("urls", pa.list_(pa.string()))])
    post, second = pa.field("post_id", pa.string()), pa.field("second", pa.int64())
    firsts = [notes[0] for notes in by_post.values()]
    return {
        "note_of_post": _keyed(by_post, post, pa.field("note", note), firsts),
        "note_of_second": _keyed(by_second, second, pa.field("notes", pa.list_(note)), list(by_second.values())),
    }


def _keyed(keys: Iterable[tuple[str, Any]], key: pa.Field, value: pa.Field, values: list[Any]) -> pa.Table:
    pairs = list(keys)
    folders = pa.array([folder for folder, _ in pairs], pa.string())
    columns = [folders, pa.array([of for _, of in pairs], key.type), pa.array(values, value.type)]
    return pa.table(columns, names=["folder", key.name, value.name])


def _left_out(files: Sequence[File]) -> Iterator[pa.RecordBatch]:
    """A row per file that was not opened, or holds no posts."""
    if files:
        reasons = [
            "direct messages, not opened" if PRIVATE.search(file.name) else "file of the archive without posts"
            for file in files
        ]
        columns = {
            "file": pa.array([str(file) for file in files], pa.string()),
            "line": pa.array([1] * len(files), pa.int64()),
            "left_out": pa.array(reasons, pa.string()),
        }
        yield from conformed(pa.table(columns)).to_batches()
