"""Reddit: dumps of submissions and comments (Pushshift, Arctic Shift) and pages of its API.

A submission is its title and, below a blank line, its text; what it links to is a link. A comment answers what
`parent_id` names. Posts are known by their full names (`t3_abc`, `t1_def`): the two kinds count their ids apart. The
subreddit is the community; users whom a text names are `u/name`. A crosspost under the title of its original is a
repost of it, one under a title of its own is a post that quotes it. What was deleted or removed is left out, and what
deleted accounts wrote too: `[deleted]` is nobody.

Reads: JSON lines, arrays, and listings (`{"kind": "Listing", "data": {"children": […]}}`) with all their answers; CSV
and Parquet with a column for each field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ntulm.corpus.sources import table_records
from ntulm.corpus.sources.content import HEAD_BYTES, head
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import Sample
from ntulm.corpus.sources.json_records import read_json
from ntulm.corpus.sources.lines import record_lines
from ntulm.text import Reading

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

ITEMS = ("data",)  # of a page, where it is a list
MAX_ANSWERS = 16  # below one another; Reddit loads ten. Without a limit a hostile page would be copied once per level

_ORIGINAL: dict[str, Any] = {
    "id": "VARCHAR",
    "name": "VARCHAR",
    "author": "VARCHAR",
    "created_utc": "VARCHAR",  # a number, a string of one, or a date
    "subreddit": "VARCHAR",
    "title": "VARCHAR",
    "selftext": "VARCHAR",
    "url": "VARCHAR",
    "is_self": "BOOLEAN",
    "removed_by_category": "VARCHAR",  # who took it down; null: nobody
    "_meta": {"removal_type": "VARCHAR"},  # the same, by Arctic Shift, which keeps the text
}
_THING: dict[str, Any] = {
    **_ORIGINAL,
    "subreddit_type": "VARCHAR",
    "body": "VARCHAR",
    "parent_id": "VARCHAR",
    "crosspost_parent_list": [_ORIGINAL],
}
STRUCTURE: dict[str, Any] = {**_THING, "kind": "VARCHAR", "data": _THING}  # dumps have no `data`
# What stands in the place of a title or text: `[removed]`, `[ Removed by Reddit in response to a copyright notice. ]`
_GONE = (
    r"(?i)\s*\[\s*(?:deleted|removed|unavailable)"
    r"(?: by (?:user|author|moderators?|reddit)\b(?:[^\[\]\n]|\[[^\[\]\n]*\])*)?\s*\]\s*"
)

# Markdown to the text that it shows, with links beside their words; `<` and `>` may be written as entities.
_LABEL = r"(?:[^\[\]\\]|\\.)*"
_TARGET = r'(?:<|&lt;)?(https?://(?:[^\s()\\<>]|\\.|\([^\s()]*\))+?)(?:>|&gt;)?(?:\s+"[^"]*")?'
_PLAIN = "said"
for _markup, _shown in (
    (rf"!?\[https?://{_LABEL}\]\({_TARGET}\)", r"\1"),
    (rf"!?\[({_LABEL})\]\({_TARGET}\)(\w)", r"\1 (\2) \3"),
    (rf"!?\[({_LABEL})\]\({_TARGET}\)", r"\1 (\2)"),
    (r"(?:<|&lt;)(https?://[^\s<>]+?)(?:>|&gt;)", r"\1"),
    (r"\\([!-/:-@\[-`{-~])", r"\1"),
):
    _PLAIN = f"regexp_replace({_PLAIN}, '{_markup}', '{_shown}', 'g')"

_PATHS = [
    f"$.data{start}.children[*]{'.data.replies.data.children[*]' * level}"
    for level in range(MAX_ANSWERS)
    for start in ("", ".replies.data")  # of a listing, and of one comment
]
_CHILDREN = ", ".join(f"json_extract(page, '{path}')" for path in _PATHS)
_MACROS = rf"""
CREATE MACRO moment(value) AS CASE WHEN regexp_matches(value, '^\d{{4}}-') THEN TRY_CAST(value AS TIMESTAMPTZ)
    ELSE TRY(to_timestamp(TRY_CAST(value AS DOUBLE))) END;
CREATE MACRO is_gone(said) AS coalesce(regexp_full_match(said, '{_GONE}'), false);
CREATE MACRO is_removed(thing) AS is_gone(thing.title) OR is_gone(thing.selftext)
    OR coalesce(thing.removed_by_category, '') NOT IN ('', 'None', 'nan')  -- as Python's libraries write nothing
    OR coalesce(thing._meta.removal_type, '') <> '';
-- PRAW's objects, as JSON or as Python prints them: `Redditor(name='ann')`.
CREATE MACRO unwrapped(value, key) AS CASE
    WHEN starts_with(value, '{{') THEN TRY(json_extract_string(value, '$.' || key))
    WHEN ends_with(value, ''')') THEN nullif(regexp_extract(value, '^\w+\(' || key || '=''([^'']*)''\)$', 1), '')
    ELSE value END;
-- No name has brackets, but what stands in its place has: `[deleted]`. PRAW says `None`.
CREATE MACRO account(name) AS CASE WHEN NOT regexp_full_match(name, '\s*(?:\[.*\]|None)\s*')
    THEN nullif(lower(trim(name)), '') END;
CREATE MACRO username(author) AS account(unwrapped(author, 'name'));
CREATE MACRO community_of(subreddit) AS unwrapped(subreddit, 'display_name');
CREATE MACRO is_full(name) AS coalesce(regexp_matches(name, '^t\d_\w+$'), false);
CREATE MACRO full_name(kind, name, id) AS
    CASE WHEN is_full(name) THEN name WHEN is_full(id) THEN id ELSE kind || '_' || id END;
-- Reddit's editor writes these where its user left a line empty; the corpus resolves what other entities there are.
CREATE MACRO bare(said) AS regexp_replace(said, '&(?:amp;)?#x200B;', '', 'gi');
CREATE MACRO plain(said) AS CASE WHEN contains(said, '://') OR contains(said, '\') THEN {_PLAIN} ELSE said END;
CREATE MACRO titled(title, said) AS concat_ws(chr(10) || chr(10), nullif(trim(bare(title)), ''),
    nullif(trim(bare(said)), ''));
CREATE MACRO users_in(said) AS CASE WHEN contains(said, 'u/')
    THEN regexp_extract_all(lower(said), '(?:^|[^\w/.-])/?u/([\w-]{{3,20}})', 1) ELSE [] END;
-- The address of a submission without a text is what it is about, unless that is the submission itself. Null: what
-- there are of links, the text says.
CREATE MACRO links(address, is_self, id, said) AS CASE
    WHEN is_self IS NOT TRUE AND regexp_matches(address, '^https?://') AND NOT contains(address, '/comments/' || id)
    THEN list_concat([replace(address, '&amp;', '&')],
        list_transform(regexp_extract_all(said, 'https?://\S+'), lambda link: rtrim(link, '.,;:!?)]}}"''…'))) END;
CREATE MACRO children_of(page) AS list_concat({_CHILDREN});
CREATE MACRO submission(s, name, said) AS struct_pack(
    post_id := name,
    created_at := moment(s.created_utc),
    "text" := titled(s.title, said),
    author := username(s.author),
    mentions := users_in(said),
    urls := links(s.url, s.is_self, s.id, said),
    community := community_of(s.subreddit)
);
"""
# Each value is made once: DuckDB evaluates both sides of AND, and what two levels name twice, twice.
_QUERY = r""", pages AS (
    SELECT file, line, unread, record, CASE WHEN unread IS NULL AND contains(content, '"children"')
        THEN list_filter(children_of(content), lambda child: json_type(child) = 'OBJECT')
        ELSE [] END AS children
    FROM parsed
), things AS (
    SELECT file, line, unread, record, unnest(CASE
        WHEN len(children) > 0 AND coalesce(record.data.id, record.id) IS NULL THEN children
        ELSE list_concat([NULL::JSON], children) END) AS child
    FROM pages
), told AS (
    SELECT file, line, unread, CASE WHEN child IS NULL THEN record ELSE TRY(from_json(child, $structure)) END AS thing
    FROM things
), opened AS (
    SELECT file, line, unread, thing.kind AS wrapped, CASE
        WHEN thing.data IS NOT NULL THEN thing.data
        ELSE struct_pack(id := thing.id, name := thing.name, author := thing.author,
            created_utc := thing.created_utc, subreddit := thing.subreddit, title := thing.title,
            selftext := thing.selftext, url := thing.url, is_self := thing.is_self,
            removed_by_category := thing.removed_by_category, _meta := thing._meta,
            subreddit_type := thing.subreddit_type, body := thing.body, parent_id := thing.parent_id,
            crosspost_parent_list := thing.crosspost_parent_list)
    END AS thing
    FROM told
), kinds AS (
    SELECT file, line, unread, wrapped, thing, thing.crosspost_parent_list[1] AS original, CASE
        WHEN unread IS NOT NULL THEN 'unread'
        WHEN thing.body IS NOT NULL AND thing.title IS NULL AND coalesce(thing.id, thing.name) IS NOT NULL THEN 't1'
        WHEN thing.title IS NOT NULL AND thing.subreddit IS NOT NULL AND coalesce(thing.id, thing.name) IS NOT NULL
            THEN 't3'
        WHEN wrapped IN ('Listing', 'more', 't2', 't4', 't5') THEN 'other'
        ELSE 'unread'
    END AS kind
    FROM opened
), named AS (
    SELECT *,
        full_name(kind, thing.name, thing.id) AS name, full_name('t3', original.name, original.id) AS original_name,
        moment(thing.created_utc) AS written_at,
        kind = 't3' AND original.title IS NOT NULL
            AND lower(trim(original.title)) = lower(trim(thing.title)) AS is_repost
    FROM kinds
), judged AS (
    SELECT *,
        CASE
            WHEN kind = 'unread' THEN coalesce(unread, 'not a post object')
            WHEN kind IN ('t1', 't3') AND thing.created_utc IS NOT NULL AND written_at IS NULL THEN 'impossible date'
        END AS reject,
        kind IN ('t1', 't3')
            AND (is_gone(thing.body) OR is_removed(thing) OR username(thing.author) IS NULL) AS is_taken_back,
        is_removed(original) OR username(original.author) IS NULL AS is_original_gone,
        plain(coalesce(thing.body, thing.selftext)) AS said, plain(original.selftext) AS original_said
    FROM named
), sorted AS (
    SELECT *, CASE
        WHEN reject IS NOT NULL THEN NULL
        WHEN kind = 'other' THEN CASE wrapped WHEN 'Listing' THEN 'empty page' WHEN 'more' THEN 'answers not loaded'
            WHEN 't2' THEN 'profile' WHEN 't4' THEN 'direct message' ELSE 'subreddit' END
        WHEN is_taken_back OR (is_repost AND is_original_gone) THEN 'deleted or removed'
    END AS left_out
    FROM judged
), filled AS (
    SELECT *, reject IS NULL AND left_out IS NULL AS is_kept, CASE
        WHEN reject IS NOT NULL OR left_out IS NOT NULL THEN NULL
        WHEN kind = 't3' THEN submission(thing, name, said)
        ELSE struct_pack(post_id := name, created_at := written_at, "text" := trim(bare(said)),
            author := username(thing.author), mentions := users_in(said), urls := NULL::VARCHAR[],
            community := community_of(thing.subreddit))
    END AS own
    FROM sorted
)
SELECT file, line, reject, left_out, own.post_id, own.created_at, own.author, own.community,
    CASE WHEN NOT is_repost THEN own."text" END AS "text",
    CASE WHEN NOT is_repost THEN own.mentions END AS mentions,
    CASE WHEN NOT is_repost THEN own.urls END AS urls,
    CASE WHEN is_kept AND kind = 't1' AND regexp_matches(thing.parent_id, '^t[13]_\w+$') THEN thing.parent_id
    END AS reply_to_post,
    CASE WHEN is_kept AND NOT is_repost THEN original_name END AS quoted_post,
    CASE WHEN is_kept AND NOT is_repost THEN username(original.author) END AS quoted,
    CASE WHEN is_kept THEN
        CASE WHEN thing.subreddit_type IN ('private', 'employees_only', 'gold_only') THEN 'private' ELSE 'public' END
    END AS visibility,
    CASE WHEN is_kept THEN is_repost END AS is_repost,
    CASE WHEN is_kept AND is_repost THEN submission(original, original_name, original_said) END AS reposted,
    CASE WHEN reject IS NULL AND is_taken_back THEN name END AS deleted_post
FROM filled
"""


def confidence(sample: Sample) -> float:
    """Sure where one of the first objects is a submission or a comment, or a page of them; or a row, by its columns."""
    return float(any(_is_reddit(value) for value in sample.objects) or _is_table(sample.file, sample.head))


def _is_table(file: File, start: bytes) -> bool:
    """Whether it has the columns, and dates that are read without being told how."""
    row = table_records.first_row(file, start, STRUCTURE)
    return _is_thing(row) and re.fullmatch(r"\d{4}-\d\d-.*|[\d.]+(?:[eE]\+?\d+)?", str(row["created_utc"])) is not None


def _is_thing(row: dict[str, Any]) -> bool:
    """Whether these fields are enough to know a submission or a comment."""
    return {"id", "author", "created_utc", "subreddit"} <= row.keys() and bool({"title", "body"} & row.keys())


def _is_reddit(value: dict[str, Any]) -> bool:
    inner = value.get("data")
    if isinstance(inner, list):
        return any(isinstance(item, dict) and _is_reddit(item) for item in inner)
    if isinstance(inner, dict):
        return value.get("kind") in ("Listing", "t1", "t3")
    if _is_thing(value):
        return True
    if not value.keys() >= {"subreddit", "created_utc", "author"}:
        return False
    is_comment = "body" in value and bool(value.keys() & {"link_id", "parent_id"})
    return is_comment or ("title" in value and bool(value.keys() & {"selftext", "is_self", "permalink", "domain"}))


def facts(mapping: TableMapping | None) -> Reading:
    """Users are names, the same in any case; `@name` is nobody."""
    del mapping
    return Reading(casefold_users=True, mention_hosts=False, html=False, mentions_in_text=False)


def read(files: Sequence[File], mapping: TableMapping | None, labels: Sequence[str] = ()) -> Iterator[pa.RecordBatch]:
    """Every record of the files in RAW_SCHEMA; a column mapping is of no use here."""
    del mapping
    return read_json(files, STRUCTURE, _MACROS, _QUERY, ITEMS, labels=labels, lines=_lines(files, labels))


def _lines(files: Sequence[File], labels: Sequence[str]) -> Iterator[pa.Table]:
    wanted = {*STRUCTURE, *labels, *(path.split(".")[0] for path in labels)}
    for is_table, group in groupby(files, lambda file: _is_table(file, head(file, HEAD_BYTES))):
        if is_table:
            for file in group:
                yield from table_records.record_tables(file, wanted, "created_utc")
        else:
            yield from record_lines(group, ITEMS)
