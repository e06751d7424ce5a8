"""The strings of a table's rows as the columns of RAW_SCHEMA: users, times, lists, labels.

Library of `ntulm/corpus/sources/table.py`; not a format. A row that cannot be converted is a reject, and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from ntulm.corpus.sources.formats import conformed
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
# Tried where a date is neither ISO 8601 nor Unix time: a hint, not a guess that is acted on.
TIME_FORMATS = (
    "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d/%m/%Y", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y",
    "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p", "%d-%m-%Y", "%d-%m-%Y %H:%M",
    "%d-%m-%Y %H:%M:%S", "%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S %z %Y", "%Y%m%d",
    "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y",
)  # fmt: skip

MACROS = rf"""
-- As `user_key` in ntulm/text.py.
-- Most are plain, and sets of characters take their time.
CREATE MACRO bare_user(name) AS CASE
    WHEN regexp_full_match(name, '[0-9A-Za-z_.:-]*') THEN name
    ELSE trim(ltrim(trim(name, '{SPACES}'), '@＠'), '{SPACES}')
END;
CREATE MACRO user_key(name, casefold) AS
    nullif(CASE WHEN casefold THEN lower(bare_user(name)) ELSE bare_user(name) END, '');
CREATE MACRO filled(value) AS nullif(trim(value), '');
-- A list is written `a b`, `a,b`, `a|b`, `['a', 'b']` or `["a","b"]`.
CREATE MACRO items(value) AS regexp_extract_all(value, '[^\s,;|"''\[\]]+');
-- A link may hold a comma or a bar: there one item ends only where another starts.
CREATE MACRO link_items(value) AS
    regexp_extract_all(regexp_replace(value, '["'']?[,;|]\s*["'']?(https?://)', ' \1', 'g'), '[^\s"''\[\]]+');
-- A place may hold blanks and commas; in brackets it stands in quotes.
CREATE MACRO place_items(value) AS CASE
    WHEN regexp_full_match(trim(value), '\[\s*["''].*\]')
    THEN list_transform(regexp_extract_all(value, '"[^"]+"|''[^'']+'''), lambda place: place[2:-2])
    ELSE list_filter(list_transform(regexp_split_to_array(value, '[;|]'), lambda place: trim(place)),
        lambda place: place <> '')
END;
CREATE MACRO present(list) AS
    list_filter(list_transform(list, lambda item: trim(item)), lambda item: item IS NOT NULL AND item <> '');
CREATE MACRO one_item(value) AS CASE WHEN value IS NOT NULL THEN [value] END;
CREATE MACRO unix_time(number) AS CASE
    WHEN number >= 1e8 AND number < 1e10 THEN to_timestamp(number)
    WHEN number >= 1e11 AND number < 1e13 THEN to_timestamp(number / 1e3)
    WHEN number >= 1e14 AND number < 1e16 THEN to_timestamp(number / 1e6)
    WHEN number >= 1e17 AND number < 1e19 THEN to_timestamp(number / 1e9)
END;
-- `year` has no sign.
CREATE MACRO is_possible(moment) AS moment BETWEEN TIMESTAMPTZ '0002-01-01' AND TIMESTAMPTZ '9998-01-01';
CREATE MACRO moment(value, format) AS CASE
    -- Words that DuckDB takes for dates, whatever the format.
    WHEN format IS NOT NULL AND lower(value) NOT IN ('infinity', '-infinity', 'epoch')
    THEN try_strptime(value, format)::TIMESTAMPTZ
    WHEN format IS NOT NULL THEN NULL
    WHEN regexp_full_match(value, '\d+(\.\d*)?([eE]\+?\d\d?)?') THEN unix_time(TRY_CAST(value AS DOUBLE))
    ELSE TRY_CAST(value AS TIMESTAMPTZ)
END;
"""
UNKNOWN_DATE = "date neither ISO 8601 nor Unix time"
_HINT = f"""SELECT CASE WHEN reject = '{UNKNOWN_DATE}' THEN concat_ws('" or "', {
    ", ".join(f"CASE WHEN year(try_strptime(trim(written), '{one}')) BETWEEN 1990 AND 2100 THEN '{one}' END"
    for one in TIME_FORMATS)}) END FROM dates"""
_CONVERT = """
WITH typed AS (
    SELECT
        file, line, reject AS unreadable, text,
        filled(post_id) AS post_id,
        filled(created_at) AS written_at,
        moment(written_at, $time_format) AS moment,
        items(lang)[1] AS lang,
        user_key(author, $casefold) AS author,
        user_key(author_handle, $casefold) AS author_handle,
        filled(community) AS community,
        lower(filled(visibility)) AS visibility,
        user_key(reply_to, $casefold) AS reply_to,
        filled(reply_to_post) AS reply_to_post,
        user_key(quoted, $casefold) AS quoted,
        filled(quoted_post) AS quoted_post,
        list_transform({mentions}, lambda name: user_key(name, $casefold)) AS mentions,
        {hashtags} AS hashtags,
        {urls} AS urls,
        {places} AS places,
        {cashtags} AS cashtags,
        list_transform({favorited_by}, lambda name: user_key(name, $casefold)) AS favorited_by,
        filled(reposted_id) AS reposted_id,
        user_key(reposted_author, $casefold) AS reposted_author,
        CASE WHEN $flagged
            THEN coalesce(lower(trim(repost_flag)) IN ('1', '1.0', 'true', 't', 'yes', 'y', 'retweet', 'repost'), false)
            ELSE reposted_id IS NOT NULL END AS is_repost,
        {labels} AS labels
    FROM rows
), judged AS (
    SELECT *, CASE
        WHEN unreadable IS NOT NULL THEN unreadable
        WHEN written_at IS NULL THEN NULL
        WHEN moment IS NULL AND $time_format IS NULL THEN '{unknown_date}'
        WHEN moment IS NULL THEN 'date not as time_format says'
        WHEN NOT is_possible(moment) THEN 'impossible date'
    END AS reject FROM typed
), readable AS (
    SELECT file, line, reject, CASE WHEN reject IS NULL THEN judged END AS own,
        CASE WHEN reject IS NULL AND is_repost AND coalesce(reposted_id, reposted_author) IS NOT NULL THEN struct_pack(
            post_id := reposted_id, lang := lang, text := text, author := reposted_author, mentions := mentions,
            hashtags := hashtags, urls := urls, places := places, cashtags := cashtags, community := community) END
        AS reposted
    FROM judged
)
SELECT file, line, reject, own.post_id, own.moment AS created_at, own.lang, own.text, own.author, own.mentions,
    own.hashtags, own.urls, own.places, own.cashtags, own.community, own.reply_to, own.quoted, own.reply_to_post,
    own.quoted_post, own.visibility, own.is_repost, reposted, own.favorited_by, own.labels,
    CASE WHEN own.author IS NOT NULL AND own.author_handle IS NOT NULL AND own.author <> own.author_handle
        THEN [{{'id': own.author, 'handle': own.author_handle}}] END AS people
FROM readable
"""


def prepare(connection: Connection, time_format: str | None) -> None:
    """What `converted` uses.

    Raises:
        UserError: the format is none of strptime.
    """
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(MACROS)
    try:
        if time_format is not None:
            connection.execute("SELECT try_strptime('2016', $1)", [time_format]).fetchall()
    except duckdb.Error as error:
        raise UserError(
            f"corpus.table.time_format: {time_format!r} is no format of strptime; expected null, or one like "
            "'%d.%m.%Y %H:%M'"
        ) from error


def converted(connection: Connection, rows: pa.Table, mapping: TableMapping, time_format: str | None) -> pa.Table:
    """Rows in RAW_SCHEMA.

    Args:
        connection: prepared, and with one thread, so that rows keep their order.
        rows: `file`, `line`, `reject`, and of SINGLES, LISTS and labels what there is: strings, or lists of strings.
        mapping: how they are to be read.
        time_format: of the dates, which a column of times has not.
    """
    if mapping.html and "text" in rows.column_names:
        texts = pa.array([text and plain_text(text) for text in rows["text"].to_pylist()], pa.string())
        rows = rows.set_column(rows.column_names.index("text"), "text", texts)
    for name in (*SINGLES, *LISTS):
        if name not in rows.column_names:
            rows = rows.append_column(name, pa.nulls(len(rows), pa.string()))
    values: dict[str, Any] = {
        "time_format": time_format,
        "casefold": mapping.casefold_users,
        "flagged": mapping.repost_flag is not None,
    }
    values |= {f"{LABEL}name_{place}": label for place, label in enumerate(mapping.labels)}
    connection.register("rows", rows)
    statement = _statement(rows.schema, len(mapping.labels))
    table = conformed(connection.sql(statement, params=values).to_arrow_table())
    return _hinted(connection, table, rows["created_at"])


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


def _statement(schema: pa.Schema, labels: int) -> str:
    lists = {
        name: f"{splitter}({name})" if pa.types.is_string(schema.field(name).type) else f"present({name})"
        for name, splitter in SPLITTERS.items()
    }
    pairs = []
    for place in range(labels):
        column = f"{LABEL}{place}"
        listed = f"one_item({column})" if pa.types.is_string(schema.field(column).type) else column
        pairs.append(
            f"coalesce(list_transform({listed}, lambda value: {{'field': ${LABEL}name_{place}, 'value': value}}), [])"
        )
    return _CONVERT.format(**lists, unknown_date=UNKNOWN_DATE, labels=" || ".join(pairs) or "NULL")


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
        raise UserError(f"{rows['file'][0]}: a column cannot be read ({said}); expected texts, numbers, times") from error
    except (duckdb.Error, pa.ArrowException, UnicodeDecodeError):
        if len(rows) == 1:
            return conformed(rows.select(["file", "line"]).append_column("reject", pa.array(["unreadable values"])))
        half = len(rows) // 2
        return pa.concat_tables([sparing(work, rows.slice(0, half)), sparing(work, rows.slice(half))])
