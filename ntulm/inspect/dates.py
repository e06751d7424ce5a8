"""How the times of a table are written: which format a column of times needs.

The reader understands ISO 8601 and Unix time by itself; anything else needs `corpus.table.time_format`. Candidates are
tried on values with the function that reads the table later. Library of `ntulm inspect`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from ntulm.corpus.sources.table_dates import MACROS

FEW = 5  # values that decide which formats are tried on all
SOME, READ = 0.5, 0.9  # share of the values that a format has to read: of these few, and of all

_DAYS = (  # of equally good ones the first is proposed
    "%d.%m.%Y", "%d.%m.%y", "%m/%d/%Y", "%d/%m/%Y", "%m/%d/%y", "%d/%m/%y", "%d-%m-%Y", "%m-%d-%Y", "%d-%m-%y",
    "%m-%d-%y", "%y-%m-%d", "%y/%m/%d", "%Y-%m-%d", "%Y.%m.%d", "%d-%b-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y",
    "%B %d, %Y", "%Y%m%d",
)  # fmt: skip
_TIMES = ("%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "%I:%M:%S%p", "%I:%M%p")
_BETWEEN = (" ", ", ", "T", " - ")
WHOLE = (
    "%a %b %d %H:%M:%S %z %Y",  # Twitter
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S %Z",
    "%a %b %d %H:%M:%S %Y",
    "%Y%m%d%H%M%S",
    "%I:%M %p · %b %d, %Y",  # Twitter's page
)
FORMATS = (*WHOLE, *(day + between + time for day in _DAYS for between in _BETWEEN for time in _TIMES), *_DAYS)

_PLAIN = "SELECT avg((moment(value, NULL) IS NOT NULL)::INT) FROM (SELECT unnest($values::VARCHAR[]) AS value)"
# A year of two digits is not one of four: strptime takes 21 for the year 21. No post is of a year to come.
_BY_FORMAT = """
SELECT avg((year(written) BETWEEN 1990 AND year(current_date) + 1)::INT) AS share,
    bit_xor(hash(value, written)) AS meaning
FROM (
    SELECT value, coalesce(moment(value, $format), TIMESTAMPTZ '0001-01-01') AS written
    FROM (SELECT unnest($values::VARCHAR[]) AS value))
"""


@dataclass(frozen=True)
class TimeFormat:
    """How a column's times are read."""

    format: str | None  # None: without a format
    values: int  # that it was tried on
    or_else: str | None = None  # another format that reads all of them too, with another meaning


def time_format(values: Sequence[str]) -> TimeFormat | None:
    """The format that reads the values; None if there is no such, or no value."""
    distinct = list(dict.fromkeys(values))
    if not distinct:
        return None
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(MACROS)
        ((share,),) = connection.execute(_PLAIN, {"values": distinct}).fetchall()
        if share >= READ:
            return TimeFormat(None, len(distinct))
        asked = [{"values": distinct, "format": name} for name in _likely(connection, distinct[:FEW])]
        tried = [(given["format"], *connection.execute(_BY_FORMAT, given).fetchall()[0]) for given in asked]
        found = [one for one in tried if one[1] >= READ]
    if not found:
        return None
    (best, most, meaning), *others = sorted(found, key=lambda one: (-one[1], FORMATS.index(one[0])))
    other = next((name for name, share, says in others if share == most and says != meaning), None)
    return TimeFormat(best, len(distinct), other)


def _likely(connection: duckdb.DuckDBPyConnection, values: list[str]) -> list[str]:
    """The formats that read most of a few values: a query for all, since most formats read none."""
    read = ", ".join(f"avg((try_strptime(with_offset(value), '{name}') IS NOT NULL)::INT)" for name in FORMATS)
    query = f"SELECT [{read}] FROM (SELECT unnest($values::VARCHAR[]) AS value)"  # noqa: S608 - formats of our own
    ((shares,),) = connection.execute(query, {"values": values}).fetchall()
    return [name for name, share in zip(FORMATS, shares, strict=True) if share >= SOME]
