"""What the Twitter formats have in common, in SQL: ids, and texts of retweets without their original (`RT @x: …`).

Library of the sources; not a format.
"""

import re

from ntulm.text import SQL_PATTERNS

DATE = re.compile(r"\w{3} \w{3} \d\d \d\d:\d\d:\d\d [+-]\d{4} \d{4}")  # as version 1 and archives write it
TIME_FORMAT, OLD_TIME_FORMAT = "%a %b %d %H:%M:%S %z %Y", "%Y-%m-%d %H:%M:%S %z"  # the old one in archives until 2018

MACROS = rf"""
-- MongoDB writes a long number as an object; no other object is an id, and -1 is Twitter's for an unknown account.
CREATE MACRO id_of(written) AS CASE
    WHEN starts_with(written, '{{') THEN nullif(regexp_extract(written, '^{{"\$number\w+":"?(\d+)"?}}$', 1), '')
    WHEN starts_with(written, '[') OR written = '-1' THEN NULL
    ELSE written
END;
CREATE MACRO key(thing) AS coalesce(id_of(thing.id_str), id_of(thing.id));
CREATE MACRO is_unreadable(thing) AS coalesce(thing.id_str, thing.id) IS NOT NULL AND key(thing) IS NULL;
CREATE MACRO written_moment(written) AS
    coalesce(try_strptime(written, '{TIME_FORMAT}'), try_strptime(written, '{OLD_TIME_FORMAT}'));
CREATE MACRO quote_links(urls) AS
    list_filter(urls, lambda url: regexp_matches(url, '^https?://(?:\w+\.)?(?:twitter|x)\.com/\w+/status/\d+'));
CREATE MACRO link_part(url, place) AS
    nullif(regexp_extract(url, '\.?(?:twitter|x)\.com/(\w+)/status/(\d+)', place), '');
CREATE MACRO link_owner(url) AS nullif(link_part(url, 1), 'i');
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
