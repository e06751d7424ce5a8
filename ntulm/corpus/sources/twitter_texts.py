"""Texts of retweets that come without their original: `RT @x: …`, often cut. SQL for the Twitter formats.

Library of the sources; not a format.
"""

import re

from ntulm.text import SQL_PATTERNS

DATE = re.compile(r"\w{3} \w{3} \d\d \d\d:\d\d:\d\d [+-]\d{4} \d{4}")  # as version 1 and archives write it
TIME_FORMAT = "%a %b %d %H:%M:%S %z %Y"

MACROS = rf"""
CREATE MACRO repost_head() AS '{SQL_PATTERNS["repost_pattern"]}';
CREATE MACRO head_handle(text) AS nullif(regexp_extract(text, '^(?:RT|rt) [@＠](\w+):', 1), '');
CREATE MACRO without_head(text) AS regexp_replace(text, repost_head(), '');
CREATE MACRO is_cut(text) AS ends_with(text, '…');
-- What stands before the cut may be half a word, half a hashtag or half a link.
CREATE MACRO without_half_word(text) AS
    CASE WHEN is_cut(text) THEN regexp_replace(text, '\s*\S*…$', '') ELSE text END;
CREATE MACRO without_half_tag(tags, text) AS CASE WHEN is_cut(text)
    THEN list_filter(tags, lambda tag:
        lower(ltrim(tag, '#＃$')) <> lower(regexp_extract(text, '[#＃$]([^\s#＃$]*)…$', 1))) ELSE tags END;
"""
