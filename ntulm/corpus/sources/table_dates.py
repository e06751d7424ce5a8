"""The dates of a table: ISO 8601 with what exports make of it, Unix time, and what a format of strptime reads.

Library of `ntulm/corpus/sources/table_values.py` and `ntulm inspect`; not a format.
"""

from __future__ import annotations

# Tried where a date is neither ISO 8601 nor Unix time: a hint, not a guess that is acted on.
TIME_FORMATS = (
    "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d/%m/%Y", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y",
    "%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p", "%d-%m-%Y", "%d-%m-%Y %H:%M",
    "%d-%m-%Y %H:%M:%S", "%a, %d %b %Y %H:%M:%S %z", "%a, %d %b %Y %H:%M:%S GMT", "%a %b %d %H:%M:%S %z %Y", "%Y%m%d",
    "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d.%m.%y", "%d.%m.%y %H:%M", "%d/%m/%y", "%d/%m/%y %H:%M",
    "%m/%d/%y", "%m/%d/%y %H:%M", "%d-%m-%y", "%d-%m-%y %H:%M",
)  # fmt: skip
# Names of zones that DuckDB does not know, or takes for another one (BST, Bangladesh's).
_ZONES = {
    "BST": "+0100", "WEST": "+0100", "CEST": "+0200", "EEST": "+0300", "EDT": "-0400", "CDT": "-0500", "MDT": "-0600",
    "PDT": "-0700", "AKDT": "-0800",
}  # fmt: skip
_NAMED = rf"\b({'|'.join(_ZONES)})\b"
_OFFSETS = ", ".join(f"'{name}': '{offset}'" for name, offset in _ZONES.items())

MACROS = rf"""
CREATE MACRO unix_time(number) AS CASE
    WHEN number >= 1e8 AND number < 1e10 THEN to_timestamp(number)
    WHEN number >= 1e11 AND number < 1e13 THEN to_timestamp(number / 1e3)
    WHEN number >= 1e14 AND number < 1e16 THEN to_timestamp(number / 1e6)
    WHEN number >= 1e17 AND number < 1e19 THEN to_timestamp(number / 1e9)
END;
-- `year` has no sign.
CREATE MACRO is_possible(moment) AS moment BETWEEN TIMESTAMPTZ '0002-01-01' AND TIMESTAMPTZ '9998-01-01';
CREATE MACRO with_offset(value) AS CASE
    WHEN regexp_matches(value, '{_NAMED}')
    THEN regexp_replace(value, '{_NAMED}', MAP {{{_OFFSETS}}}[regexp_extract(value, '{_NAMED}', 1)])
    ELSE value
END;
-- `2021-03-31 14:05 +0000 UTC` is `2021-03-31 14:05+0000`.
CREATE MACRO attached(value) AS
    regexp_replace(with_offset(value), '(:\d\d(\.\d+)?) ?([+-]\d\d:?\d\d|Z)( UTC| GMT)?$', '\1\3');
CREATE MACRO moment(value, format) AS CASE
    -- Words that DuckDB takes for dates, whatever the format.
    WHEN format IS NOT NULL AND lower(value) NOT IN ('infinity', '-infinity', 'epoch')
    THEN coalesce(try_strptime(value, format), try_strptime(with_offset(value), format))::TIMESTAMPTZ
    WHEN format IS NOT NULL THEN NULL
    WHEN regexp_full_match(value, '\d+(\.\d*)?([eE]\+?\d\d?)?') THEN unix_time(TRY_CAST(value AS DOUBLE))
    -- `31/03/21` would be a day of the year 31.
    WHEN regexp_matches(value, '^\d{{1,3}}[-/]') THEN NULL
    WHEN ends_with(value, 'BST') THEN TRY_CAST(attached(value) AS TIMESTAMPTZ)
    ELSE coalesce(TRY_CAST(value AS TIMESTAMPTZ), TRY_CAST(attached(value) AS TIMESTAMPTZ))
END;
"""
UNKNOWN_DATE = "date neither ISO 8601 nor Unix time"
