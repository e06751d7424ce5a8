"""Any table of posts, CSV (`,` tab `;` or `|`), JSON lines or Parquet, read through a column mapping (`corpus.table`).

Every value is taken as a string first and made into its type in one place: three formats, one meaning. What the table
has no column for is null, and hashtags, mentions and links are then taken from the text.

A column of JSON lines is a key, or a path through objects and lists of objects: `author.handle`, `tags.name`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ntulm.corpus.sources import json_paths
from ntulm.corpus.sources.content import HEAD_BYTES, head
from ntulm.corpus.sources.export import File
from ntulm.corpus.sources.formats import Sample, conformed, first_of
from ntulm.corpus.sources.lines import ahead, blocks, line_tables
from ntulm.errors import UserError
from ntulm.text import SPACES, Reading, plain_text

if TYPE_CHECKING:
    from ntulm.corpus.config import TableMapping

DELIMITERS = ",\t;|"
BATCH_ROWS = 1 << 16
Connection = duckdb.DuckDBPyConnection
Record = tuple[int, str | None, list[str]]  # line, reject, values
FIELDS = (
    "post_id", "created_at", "text", "author", "lang", "repost_flag", "reposted_id", "reposted_author",
    "favorited_by", "hashtags", "mentions",
)  # fmt: skip
_LABELS = pa.list_(pa.struct([("field", pa.string()), ("value", pa.string())]))

_MACROS = rf"""
-- As `user_key` in ntulm/text.py.
CREATE MACRO bare_user(name) AS trim(ltrim(trim(name, '{SPACES}'), '@＠'), '{SPACES}');
CREATE MACRO user_key(name, casefold) AS
    nullif(CASE WHEN casefold THEN lower(bare_user(name)) ELSE bare_user(name) END, '');
-- A list is written `a b`, `a,b`, `a|b`, `['a', 'b']` or `["a","b"]`.
CREATE MACRO items(value) AS regexp_extract_all(value, '[^\s,;|"''\[\]]+');
CREATE MACRO moment(value, format) AS CASE
    WHEN format IS NOT NULL THEN try_strptime(value, format)::TIMESTAMPTZ
    WHEN regexp_full_match(value, '\d{{9,10}}(\.\d+)?') THEN to_timestamp(value::DOUBLE)
    WHEN regexp_full_match(value, '\d{{12,13}}') THEN to_timestamp(value::DOUBLE / 1000)
    WHEN regexp_full_match(value, '\d{{15,16}}') THEN to_timestamp(value::DOUBLE / 1000000)
    ELSE TRY_CAST(value AS TIMESTAMPTZ)
END;
"""
_CONVERT = """
WITH typed AS (
    SELECT
        line, reject AS unreadable,
        nullif(trim(post_id), '') AS post_id,
        nullif(trim(created_at), '') AS written_at,
        moment(written_at, $time_format) AS created_at,
        items(lang)[1] AS lang,
        text,
        user_key(author, $casefold) AS author,
        list_transform(items(mentions), lambda name: user_key(name, $casefold)) AS mentions,
        items(hashtags) AS hashtags,
        list_transform(items(favorited_by), lambda name: user_key(name, $casefold)) AS favorited_by,
        nullif(trim(reposted_id), '') AS reposted_id,
        user_key(reposted_author, $casefold) AS reposted_author,
        CASE WHEN $flagged
            THEN coalesce(lower(trim(repost_flag)) IN ('1', '1.0', 'true', 't', 'yes', 'y', 'retweet', 'repost'), false)
            ELSE reposted_id IS NOT NULL END AS is_repost,
        labels
    FROM rows
), judged AS (
    SELECT *, CASE
        WHEN unreadable IS NOT NULL THEN unreadable
        WHEN written_at IS NOT NULL AND created_at IS NULL THEN CASE
            WHEN $time_format IS NULL THEN 'date neither ISO 8601 nor Unix time'
            ELSE 'date not as time_format says' END
    END AS reject FROM typed
), readable AS (
    SELECT line, reject, CASE WHEN reject IS NULL THEN judged END AS own,
        CASE WHEN reject IS NULL AND is_repost AND coalesce(reposted_id, reposted_author) IS NOT NULL THEN struct_pack(
            post_id := reposted_id, created_at := NULL::TIMESTAMPTZ, lang := lang, text := text,
            author := reposted_author, mentions := mentions, hashtags := hashtags, urls := NULL::VARCHAR[],
            places := NULL::VARCHAR[]) END AS reposted
    FROM judged
)
SELECT $file AS file, line, reject, own.post_id, own.created_at, own.lang, own.text, own.author, own.mentions,
    own.hashtags, NULL::VARCHAR[] AS urls, NULL::VARCHAR[] AS places, own.is_repost, reposted,
    own.favorited_by, own.labels
FROM readable ORDER BY line
"""
# One parse a line for all columns; a value that is a list stays JSON text, which `items` takes apart.
_JSON_ROWS = """
WITH parsed AS (
    SELECT line, content, reject, TRY(json_extract_string(content, $pointers::VARCHAR[])) AS fields FROM lines
)
SELECT line, CASE
    WHEN reject IS NOT NULL THEN reject
    WHEN fields IS NULL THEN 'invalid JSON'
    WHEN json_type(content) <> 'OBJECT' THEN 'not a post object'
END AS reject, fields FROM parsed ORDER BY line
"""


LIKELY = 0.5  # what has columns is a table, unless another format knows better


def confidence(sample: Sample) -> float:
    """Likely for a Parquet file, JSON objects or a header with several columns."""
    if _kind(sample.head) != "csv":
        return LIKELY
    try:
        first = sample.head.split(b"\n", 1)[0].decode("utf-8-sig")
    except UnicodeDecodeError:
        return 0.0
    return LIKELY if first.strip().replace("\t", "").isprintable() and len(_header(first)) > 1 else 0.0


def facts(mapping: TableMapping | None) -> Reading:
    """As the mapping says. A column of mentions changes nothing: where a record gives none, its text is read."""
    if mapping is None:
        return Reading(casefold_users=False, mention_hosts=False, html=False, mentions_in_text=True)
    return Reading(mapping.casefold_users, mapping.mention_hosts, mapping.html, mentions_in_text=True)


def columns(files: Sequence[File]) -> list[str]:
    """The names of the columns of the first file, in their order."""
    first = first_of(files)
    file, start = first.file, first.head
    match _kind(start):
        case "parquet":
            return list(_parquet(file).schema_arrow.names)
        case "json":
            return json_paths.paths(start)
        case _:
            return _header(start.decode("utf-8-sig", "replace").split("\n", 1)[0])


def read(files: Sequence[File], mapping: TableMapping | None) -> Iterator[pa.RecordBatch]:
    """Every row of the files in RAW_SCHEMA."""
    if mapping is None:
        raise UserError(
            f"corpus.table: null, but {files[0]} is a table; say which column is what; it has "
            f"{', '.join(columns(files))}"
        )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(_MACROS)
        _check_time_format(connection, mapping.time_format)
        for file in files:
            for rows, time_format in _rows(connection, file, mapping):
                if mapping.html:
                    texts = pa.array([text and plain_text(text) for text in rows["text"].to_pylist()], pa.string())
                    rows = rows.set_column(rows.column_names.index("text"), "text", texts)
                values = {
                    "file": str(file),
                    "time_format": time_format,
                    "casefold": mapping.casefold_users,
                    "flagged": mapping.repost_flag is not None,
                }
                connection.register("rows", rows)
                yield from conformed(connection.sql(_CONVERT, params=values).to_arrow_table()).to_batches()


def _check_time_format(connection: Connection, time_format: str | None) -> None:
    try:
        if time_format is not None:
            connection.execute("SELECT try_strptime('2016', $1)", [time_format]).fetchall()
    except duckdb.Error as error:
        raise UserError(
            f"corpus.table.time_format: {time_format!r} is no format of strptime; expected null, or one like "
            "'%d.%m.%Y %H:%M'"
        ) from error


def _kind(head: bytes) -> str:
    start = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    return "parquet" if head[:4] == b"PAR1" else "json" if start[:1] == b"{" else "csv"


def _rows(connection: Connection, file: File, mapping: TableMapping) -> Iterator[tuple[pa.Table, str | None]]:
    """The rows of a file as strings, one column per field of the mapping, and the format of their times."""
    match _kind(head(file, HEAD_BYTES)):
        case "parquet":
            return ((rows, time_format) for rows, time_format in _parquet_rows(file, mapping))
        case "json":
            return ((rows, mapping.time_format) for rows in _json_rows(connection, file, mapping))
        case _:
            return ((rows, mapping.time_format) for rows in _csv_rows(file, mapping))


def _wanted(file: File, mapping: TableMapping, present: list[str]) -> dict[str, str]:
    """Field -> column for the fields that the mapping has; a UserError for a column that the file lacks."""
    fields = {name: getattr(mapping, name) for name in FIELDS if getattr(mapping, name) is not None}
    for key, column in [*fields.items(), *(("labels", label) for label in mapping.labels)]:
        if column not in present:
            raise UserError(f"{file}: no column {column!r} (corpus.table.{key}); it has {', '.join(present)}")
        if present.count(column) > 1:
            raise UserError(f"{file}: {present.count(column)} columns {column!r}; corpus.table.{key} needs one")
    return fields


def _as_rows(
    lines: pa.Array, reject: pa.Array, values: dict[str, pa.Array], fields: dict[str, str], labels: list[str]
) -> pa.Table:
    """Rows from columns by name: fields under their own names, labels as one list a row."""
    count = len(lines)
    table = {"line": lines, "reject": reject}
    table |= {name: values[fields[name]] if name in fields else pa.nulls(count, pa.string()) for name in FIELDS}
    if labels:
        names = pa.array(labels * count, pa.string())
        order = [column * count + row for row in range(count) for column in range(len(labels))]
        parts = pa.concat_arrays([values[label] for label in labels]).take(pa.array(order, pa.int64()))
        pairs = pa.StructArray.from_arrays([names, parts], fields=list(_LABELS.value_type))
        offsets = pa.array(range(0, len(order) + 1, len(labels)), pa.int32())
        table["labels"] = pa.ListArray.from_arrays(offsets, pairs)
    else:
        table["labels"] = pa.nulls(count, _LABELS)
    return pa.table(table)


# CSV


def _delimiter(header: str) -> str:
    return max(DELIMITERS, key=header.count)


def _header(line: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=_delimiter(line)), [])
    except csv.Error:  # more characters than a field may have: no header
        return []


def _csv_rows(file: File, mapping: TableMapping) -> Iterator[pa.Table]:
    lines = _text_lines(file)
    first = next(lines).removeprefix("\ufeff")
    header = _header(first)
    fields = _wanted(file, mapping, header)
    places = {column: header.index(column) for column in [*fields.values(), *mapping.labels]}
    records: list[Record] = []
    for record in _csv_records(file, csv.reader(lines, delimiter=_delimiter(first), strict=True), len(header)):
        records.append(record)
        if len(records) == BATCH_ROWS:
            yield _csv_table(records, places, fields, mapping.labels)
            records = []
    if records:
        yield _csv_table(records, places, fields, mapping.labels)


def _text_lines(file: File) -> Iterator[str]:
    """Lines with their ends, as the csv module wants them; bytes that are not UTF-8 are kept for the record to tell."""
    for block in ahead(blocks(file)):
        yield from io.StringIO(block.decode("utf-8", "surrogateescape"), newline="\n")


def _csv_records(file: File, reader: Any, width: int) -> Iterator[Record]:
    """The line on which a record starts (the header is line 1), why it is not readable, and its values."""
    faulty = [""] * width
    while True:
        line = reader.line_num + 2
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # Whatever follows an open quote would be swallowed without a count.
            if "field larger" in str(error):
                most = f"a field has more than {csv.field_size_limit():,} characters"
                raise UserError(f"{file}:{line}: {most}; is a quote that opens here not closed?") from error
            if "end of data" in str(error):
                raise UserError(f"{file}:{line}: a quote that opens here is not closed; expected CSV") from error
            yield line, "invalid CSV", faulty
            continue
        if len(row) == width:
            yield line, None, row
        elif row:
            yield line, "wrong number of columns", faulty


def _csv_table(records: list[Record], places: dict[str, int], fields: dict[str, str], labels: list[str]) -> pa.Table:
    try:
        values = {column: _column(records, place) for column, place in places.items()}
    except UnicodeEncodeError:
        records = [_readable(record) for record in records]
        values = {column: _column(records, place) for column, place in places.items()}
    lines = pa.array([line for line, _, _ in records], pa.int64())
    return _as_rows(lines, pa.array([reject for _, reject, _ in records], pa.string()), values, fields, labels)


def _column(records: list[Record], place: int) -> pa.Array:
    return pa.array([row[place] for _, _, row in records], pa.string())


def _readable(record: Record) -> Record:
    line, reject, row = record
    if any("\ud800" <= character <= "\udfff" for value in row for character in value):
        return line, reject or "not UTF-8", [""] * len(row)
    return record


# JSON lines


def _json_rows(connection: Connection, file: File, mapping: TableMapping) -> Iterator[pa.Table]:
    start = head(file, HEAD_BYTES)
    fields = _wanted(file, mapping, json_paths.paths(start))
    names = list(dict.fromkeys([*fields.values(), *mapping.labels]))
    lists = json_paths.lists(start)
    top = json_paths.keys(start)
    pointers = [json_paths.pointer(lists.get(name, name), top) for name in names]
    for lines in line_tables(file):
        connection.register("lines", lines)
        rows = connection.sql(_JSON_ROWS, params={"pointers": pointers}).to_arrow_table().combine_chunks()
        found = rows["fields"].combine_chunks()
        values = {name: pc.list_element(found, place).cast(pa.string()) for place, name in enumerate(names)}
        for name in lists.keys() & values.keys():
            values[name] = json_paths.joined(connection, values[name], name.removeprefix(lists[name] + "."))
        yield _as_rows(rows["line"], rows["reject"], values, fields, mapping.labels)


# Parquet


def _parquet(file: File) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file.path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file}: damaged or cut off Parquet file ({' '.join(str(error).split())})") from error


def _parquet_rows(file: File, mapping: TableMapping) -> Iterator[tuple[pa.Table, str | None]]:
    parquet = _parquet(file)
    fields = _wanted(file, mapping, list(parquet.schema_arrow.names))
    typed = pa.types.is_temporal(parquet.schema_arrow.field(mapping.created_at).type)
    first = 1
    for batch in parquet.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys([*fields.values(), *mapping.labels]))):
        values = {name: _strings(file, name, batch[name]) for name in batch.schema.names}
        lines = pa.array(range(first, first + batch.num_rows), pa.int64())
        rows = _as_rows(lines, pa.nulls(batch.num_rows, pa.string()), values, fields, mapping.labels)
        yield rows, None if typed else mapping.time_format
        first += batch.num_rows


def _strings(file: File, name: str, values: pa.Array) -> pa.Array:
    try:
        if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
            return pc.binary_join(values.cast(pa.list_(pa.string())), " ")
        if pa.types.is_timestamp(values.type):  # in UTC, but without its sign: the meaning of a time without a zone
            exact = values.cast(pa.timestamp("us", values.type.tz), safe=False)
            return exact.cast(pa.timestamp("us")).cast(pa.string())
        return values.cast(pa.string())
    except pa.ArrowException as error:
        expected = "expected strings, numbers, times or lists of strings"
        raise UserError(f"{file}: column {name!r} is {values.type}; {expected}") from error
