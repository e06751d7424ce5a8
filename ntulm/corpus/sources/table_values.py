"""The strings of a table's rows as the columns of RAW_SCHEMA: users, times, lists, labels.

Library of `ntulm/corpus/sources/table.py`; not a format. A row that cannot be converted is a reject, and no more.
"""

# ruff: noqa: S608 - what stands in the queries are names of ours; what users and posts bring are parameters

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ntulm.corpus.sources import table_dates, twitter_texts
from ntulm.corpus.sources.formats import conformed
from ntulm.corpus.sources.table_dates import TIME_FORMATS, UNKNOWN_DATE
from ntulm.errors import UserError
from ntulm.text import SPACES, plain_text

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

Connection = duckdb.DuckDBPyConnection
LABEL = "label_"  # and a number: the columns of labels
SINGLES = (
    "post_id", "created_at", "text", "author", "author_handle", "lang", "community", "visibility", "reply_to",
    "reply_to_post", "quoted", "quoted_post", "repost_flag", "reposted_id", "reposted_author",
)  # fmt: skip
# How a text that stands for a list is taken apart.
SPLITTERS = {
    "hashtags": "items", "mentions": "items", "favorited_by": "items", "cashtags": "items", "urls": "link_items",
    "places": "place_items",
}  # fmt: skip
LISTS = tuple(SPLITTERS)
IDS = (
    "post_id",
    "author",
    "author_handle",
    "reply_to",
    "reply_to_post",
    "quoted",
    "quoted_post",
    "reposted_id",
    "reposted_author",
)

# How pandas, R, MySQL and others write that there is no value. The last three may be words of texts, or authors.
_NOTHING_IN_TEXTS = ("NaN", "nan", "NA", "None", "NULL", r"\N", "<NA>")
NOTHING = (*_NOTHING_IN_TEXTS, "null", "N/A", "NaT")
_NONE_IN_TEXTS, _NONE = (", ".join(f"'{word}'" for word in words) for words in (_NOTHING_IN_TEXTS, NOTHING))

MACROS = rf"""
-- As `user_key` in ntulm/text.py.
-- Most are plain, and sets of characters take their time.
CREATE MACRO bare_user(name) AS CASE
    WHEN regexp_full_match(name, '[0-9A-Za-z_.:-]*') THEN name
    ELSE trim(ltrim(trim(name, '{SPACES}'), '@＠'), '{SPACES}')
END;
CREATE MACRO user_key(name, casefold) AS
    nullif(CASE WHEN casefold THEN lower(bare_user(name)) ELSE bare_user(name) END, '');
CREATE MACRO filled(value) AS CASE WHEN trim(value) NOT IN ('', {_NONE}) THEN trim(value) END;
CREATE MACRO told(value) AS CASE WHEN value NOT IN ({_NONE_IN_TEXTS}) THEN value END;
-- A number that a spreadsheet or a float has rounded: whose id it was, nobody can tell.
CREATE MACRO is_rounded(value) AS (contains(value, '.') OR contains(value, '+'))
    AND regexp_full_match(trim(value), '\d\.\d+[eE]\+?\d+|\d(,\d+)?[eE]\+\d+|\d{{16,}}\.0+');
CREATE MACRO unrounded(value) AS CASE
    WHEN NOT contains(value, '.') AND NOT contains(value, '+') THEN value
    WHEN NOT is_rounded(value) THEN regexp_replace(value, '^(\d+)\.0+$', '\1')
END;
-- Of posts that are named, zero and minus one are none.
CREATE MACRO other_post(value) AS
    CASE WHEN NOT regexp_full_match(filled(value), '0+(\.0+)?|-1(\.0+)?') THEN filled(value) END;
-- A list is written `a b`, `a,b`, `a|b`, `#a#b`, `['a', 'b']`, `["a","b"]`, `('a', 'b')` or `{{a,b}}`.
CREATE MACRO items(value) AS regexp_extract_all(filled(value), '[^\s,;|"''\[\](){{}}#＃]+');
-- A link may hold a comma or a bar: there one item ends only where another starts.
CREATE MACRO unwrapped(value) AS regexp_replace(value, '^[({{](.*)[)}}]$', '\1');
CREATE MACRO link_items(value) AS
    regexp_extract_all(regexp_replace(unwrapped(filled(value)), '["'']?[,;|]\s*["'']?(https?://)', ' \1', 'g'),
        '[^\s"''\[\]]+');
-- A place may hold blanks and commas; in brackets it stands in quotes.
CREATE MACRO place_items(value) AS CASE
    WHEN filled(value) IS NULL THEN NULL
    WHEN regexp_full_match(trim(value), '[\[({{]\s*["''].*[\])}}]')
    THEN list_transform(regexp_extract_all(value, '"[^"]+"|''[^'']+'''), lambda place: place[2:-2])
    ELSE list_filter(list_transform(regexp_split_to_array(value, '[;|]'), lambda place: trim(place)),
        lambda place: place <> '')
END;
CREATE MACRO present(list) AS
    list_filter(list_transform(list, lambda item: trim(item)), lambda item: item IS NOT NULL AND item <> '');
-- Misskey's `home` is for all who look; `true` says that an account is protected.
CREATE MACRO visibility_of(value) AS CASE
    WHEN value IN ('false', 'f', '0', '0.0', 'no', 'n') THEN NULL
    WHEN value IN ('true', 't', '1', '1.0', 'yes', 'y') THEN 'protected'
    WHEN value = 'home' THEN 'unlisted'
    ELSE value
END;
"""
ROUNDED_AUTHOR = "author is a rounded number, no id"
_HINT = f"""SELECT CASE WHEN reject = '{UNKNOWN_DATE}' THEN concat_ws('" or "', {
    ", ".join(
        f"CASE WHEN year(try_strptime(trim(written), '{one}')) BETWEEN 1990 AND 2100 THEN '{one}' END"
        for one in TIME_FORMATS
    )
}) END FROM dates"""
# Our column -> SQL over the strings of `rows`: what is said there at all. First and apart, as macros name what they are
# given several times.
_SAID = {
    "post_id": "unrounded(filled(post_id))",
    "created_at": "filled(created_at)",
    "text": "told(text)",
    "author": "unrounded(told(author))",
    "author_handle": "unrounded(told(author_handle))",
    "community": "filled(community)",
    "visibility": "lower(filled(visibility))",
    "reply_to": "unrounded(filled(reply_to))",
    "reply_to_post": "unrounded(other_post(reply_to_post))",
    "quoted": "unrounded(filled(quoted))",
    "quoted_post": "unrounded(other_post(quoted_post))",
    "reposted_id": "unrounded(other_post(reposted_id))",
    "reposted_author": "unrounded(filled(reposted_author))",
    "repost_flag": "lower(trim(repost_flag))",
}
# Our column -> SQL over what is said; what a mapping lacks is left out, as each expression has to be planned.
_TYPED = {
    "post_id": "post_id",
    "created_at": "moment(created_at, $time_format)",
    "text": "text",
    "author": "user_key(author, $casefold)",
    "author_handle": "user_key(author_handle, $casefold)",
    "lang": "items(lang)[1]",
    "community": "community",
    "visibility": "visibility_of(visibility)",
    "reply_to": "user_key(reply_to, $casefold)",
    "reply_to_post": "reply_to_post",
    "quoted": "user_key(quoted, $casefold)",
    "quoted_post": "quoted_post",
    "reposted_id": "reposted_id",
    "reposted_author": "user_key(reposted_author, $casefold)",
    "repost_flag": "repost_flag",
}
_FLAGS = "('1', '1.0', 'true', 't', 'yes', 'y', 'retweet', 'retweeted', 'repost', 'reposted', 'reblog', 'share')"
_USERS = ("mentions", "favorited_by")
# Of the original, where `RT @x: …` is all there is of it.
_OF_REPOSTED = {
    "lang": "lang",
    "text": "CASE WHEN has_head THEN without_half_word(without_head(text)) ELSE text END",
    "mentions": "CASE WHEN has_head AND reposted_author IS NOT NULL "
    "THEN list_filter(mentions, lambda user: user <> reposted_author) ELSE mentions END",
    "hashtags": "CASE WHEN has_head THEN without_half_tag(hashtags, text) ELSE hashtags END",
    "urls": "urls",
    "places": "places",
    "cashtags": "CASE WHEN has_head THEN without_half_tag(cashtags, text) ELSE cashtags END",
    "community": "community",
}
_WITHIN = ("author_handle", "repost_flag", "reposted_id", "reposted_author")  # no columns of RAW_SCHEMA
_JUDGED = f"""CASE
    WHEN unreadable IS NOT NULL THEN unreadable
    WHEN is_rounded(written_author) THEN '{ROUNDED_AUTHOR}'
    WHEN written_at IS NULL THEN NULL
    WHEN created_at IS NULL AND $time_format IS NULL THEN '{UNKNOWN_DATE}'
    WHEN created_at IS NULL THEN 'date not as time_format says'
    WHEN NOT is_possible(created_at) THEN 'impossible date'
END"""


def prepare(connection: Connection, time_format: str | None) -> None:
    """What `converted` uses.

    Raises:
        UserError: the format is none of strptime.
    """
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(table_dates.MACROS)
    connection.execute(MACROS)
    connection.execute(twitter_texts.MACROS)
    try:
        if time_format is not None:
            connection.execute("SELECT try_strptime('2016', $1)", [time_format]).fetchall()
    except duckdb.Error as error:
        raise UserError(
            f"corpus.table.time_format: {time_format!r} is no format of strptime; expected null, or one like "
            "'%d.%m.%Y %H:%M'"
        ) from error


class Rounded:
    """How many ids of each column were rounded, over all chunks."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, connection: Connection, rows: pa.Table) -> None:
        """Those of rows that the connection has as `rows`."""
        names = [name for name in IDS if name in rows.column_names]
        sums = ", ".join(f"count(*) FILTER (is_rounded({name}))" for name in names)
        found = connection.execute(f"SELECT {sums} FROM rows WHERE reject IS NULL").fetchall()[0]
        with self._lock:
            self.counts.update(dict(zip(names, found, strict=True)))


def converted(
    connection: Connection,
    rows: pa.Table,
    mapping: TableMapping,
    labels: Sequence[str],
    time_format: str | None,
    rounded: Rounded,
) -> pa.Table:
    """Rows in RAW_SCHEMA.

    Args:
        connection: prepared, and with one thread, so that rows keep their order.
        rows: `file`, `line`, `reject`, and of SINGLES, LISTS and labels what there is: strings, or lists of strings.
        mapping: how they are to be read.
        labels: the columns of labels, `label_0` and so on in `rows`.
        time_format: of the dates, which a column of times has not.
        rounded: counts ids that are none.
    """
    if mapping.html and "text" in rows.column_names:
        texts = pa.array([text and plain_text(text) for text in rows["text"].to_pylist()], pa.string())
        rows = rows.set_column(rows.column_names.index("text"), "text", texts)
    statement = _statement(rows.schema, mapping.repost_flag is not None)
    values: dict[str, Any] = {"time_format": time_format, "casefold": mapping.casefold_users}
    values |= {f"{LABEL}name_{place}": label for place, label in enumerate(labels)}
    connection.register("rows", rows)
    table = conformed(connection.sql(statement, params=values).to_arrow_table())
    rounded.count(connection, rows)
    return _hinted(connection, table, rows["created_at"])


def _statement(schema: pa.Schema, flagged: bool) -> str:
    typed = {name: expression for name, expression in _TYPED.items() if name in schema.names}
    typed |= {name: _list(schema, name) for name in LISTS if name in schema.names}
    typed |= {name: "NULL::VARCHAR" for name in ("reposted_id", "reposted_author") if name not in typed}
    said = [f"{expression} AS {name}" for name, expression in _SAID.items() if name in schema.names]
    named = "other_post(reposted_id) IS NOT NULL" if "reposted_id" in schema.names else "false"
    typed["is_repost"] = f"coalesce(repost_flag IN {_FLAGS}, false)" if flagged else "is_named"
    pairs = [_pairs(schema, name) for name in schema.names if name.startswith(LABEL)]
    if pairs:
        typed["labels"] = " || ".join(pairs)
    kept = [name for name in typed if name not in _WITHIN]
    columns = [f"CASE WHEN reject IS NULL THEN {name} END AS {name}" for name in kept]
    if "author_handle" in typed:
        columns.append(
            "CASE WHEN reject IS NULL AND author <> author_handle "
            "THEN [{'id': author, 'handle': author_handle}] END AS people"
        )
    if flagged or {"reposted_id", "reposted_author"} & set(schema.names):
        same = ", ".join(f"{name} := {value}" for name, value in _OF_REPOSTED.items() if name in typed)
        columns.append(
            "CASE WHEN reject IS NULL AND is_repost "
            "AND (has_head OR coalesce(reposted_id, reposted_author) IS NOT NULL) THEN struct_pack("
            "post_id := reposted_id, "
            f"author := CASE WHEN NOT (has_head AND is_cut(text)) THEN reposted_author END, {same}) END AS reposted"
        )
    expressions = ", ".join(f"{expression} AS {name}" for name, expression in typed.items())
    return (
        f"WITH said AS (SELECT * REPLACE ({', '.join(said)}), author AS written_author, {named} AS is_named "
        f"FROM rows), typed AS (SELECT file, line, reject AS unreadable, created_at AS written_at, written_author, "
        f"{expressions} FROM said), judged AS (SELECT *, {_JUDGED} AS reject, "
        f"coalesce(is_repost AND regexp_matches(text, repost_head()), false) AS has_head FROM typed) "
        f"SELECT file, line, reject, {', '.join(columns)} FROM judged"
    )


def _list(schema: pa.Schema, name: str) -> str:
    is_text = pa.types.is_string(schema.field(name).type)
    listed = f"{SPLITTERS[name]}({name})" if is_text else f"present({name})"
    if name not in _USERS:
        return listed
    return f"list_transform({listed}, lambda user: user_key(unrounded(user), $casefold))"


def _pairs(schema: pa.Schema, name: str) -> str:
    listed = f"one_item({name})" if pa.types.is_string(schema.field(name).type) else name
    field = f"${LABEL}name_{name.removeprefix(LABEL)}"
    return f"coalesce(list_transform({listed}, lambda value: {{'field': {field}, 'value': value}}), [])"


def _hinted(connection: Connection, table: pa.Table, written: pa.ChunkedArray) -> pa.Table:
    """Reasons that say which time_format would read a date."""
    reject = table["reject"]
    if not pc.any(pc.equal(reject, UNKNOWN_DATE)).as_py():
        return table
    connection.register("dates", pa.table({"reject": reject, "written": written}))
    hints = [hint for (hint,) in connection.execute(_HINT).fetchall()]
    said = [
        f'{UNKNOWN_DATE}; does corpus.table.time_format: "{hint}" fit?' if hint else reason
        for reason, hint in zip(reject.to_pylist(), hints, strict=True)
    ]
    return table.set_column(table.column_names.index("reject"), "reject", pa.array(said, pa.string()))


def sparing(work: Callable[[pa.Table], pa.Table], rows: pa.Table) -> pa.Table:
    """`work(rows)`; the row that stops it is looked for, and costs itself alone.

    Args:
        work: gives RAW_SCHEMA, a row for each.
        rows: with `file` and `line`.

    Raises:
        UserError: what stops it is the type of a column.
    """
    try:
        return work(rows)
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.NotImplementedException, duckdb.BinderException) as error:
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"{rows['file'][0]}: a column cannot be read ({said}); expected texts, numbers, times"
        ) from error
    except (duckdb.Error, pa.ArrowException, UnicodeDecodeError):
        if len(rows) == 1:
            return conformed(rows.select(["file", "line"]).append_column("reject", pa.array(["unreadable values"])))
        half = len(rows) // 2
        return pa.concat_tables([sparing(work, rows.slice(0, half)), sparing(work, rows.slice(half))])
