-- One batch of raw records (`batch`) to the table `record`: the content that a record is about, made uniform, and why it
-- is not usable, if so. The content of a repost is its original.
-- $languages: codes to keep, empty for all. What a text says by itself (hashtags_of, mentions_of, links_of) is told by
-- ntulm/text.py; a text is taken there only where it holds a sign of it.

INSERT INTO record BY NAME
WITH content AS (
    SELECT
        * EXCLUDE (text),
        author AS actor,
        text AS own_text,
        is_repost AND reposted.post_id IS NULL AS by_text,  -- the original has no id: known by its text
        CASE
            WHEN is_repost AND reposted IS NOT NULL THEN reposted
            ELSE struct_pack(
                post_id := CASE WHEN NOT is_repost THEN post_id END,
                created_at := created_at,
                lang := lang,
                text := CASE WHEN is_repost THEN regexp_replace(text, repost_pattern(), '') ELSE text END,
                author := CASE WHEN NOT is_repost THEN author END,
                mentions := mentions, hashtags := hashtags, urls := urls, places := places)
        END AS about
    FROM batch
), readable AS (
    SELECT *, CASE WHEN contains(about.text, '&') THEN unescape_html(about.text) ELSE about.text END AS text FROM content
), judged AS (
    SELECT * EXCLUDE (reject), CASE
        WHEN reject IS NOT NULL THEN reject
        WHEN contains(concat_ws('', post_id, actor, about.post_id, about.author, text), chr(0)) THEN 'NUL byte'
        WHEN actor IS NULL OR trim(actor) = '' THEN 'no author'
        WHEN text IS NULL OR NOT regexp_matches(text, written_pattern()) THEN 'no text'
        WHEN created_at IS NULL THEN 'no date'
        -- Before the first posts, or zero written as a date; and years that only a wrong unit gives.
        WHEN year(created_at) NOT BETWEEN 1990 AND 2100
            OR year(coalesce(about.created_at, created_at)) NOT BETWEEN 1990 AND 2100 THEN 'impossible date'
    END AS reject
    FROM readable
), named AS (
    SELECT
        * EXCLUDE (lang, created_at, post_id, author, mentions, hashtags, urls, places),
        about.lang AS lang,
        coalesce(about.created_at, created_at) AS created_at,
        nullif(about.author, '') AS author,
        coalesce(about.post_id, derived_id(about.author, created_at, text)) AS post_id,
        coalesce(post_id, derived_id(actor, created_at, own_text)) AS record_id,
        created_at AS acted_at
    FROM judged
), listed AS (
    SELECT
        * EXCLUDE (about),
        CASE
            WHEN about.mentions IS NOT NULL THEN about.mentions
            WHEN reject IS NULL AND (contains(text, '@') OR contains(text, '＠')) THEN mentions_of(text)
            ELSE []
        END AS mentions,
        CASE
            WHEN about.hashtags IS NULL THEN
                CASE WHEN reject IS NULL AND (contains(text, '#') OR contains(text, '＃')) THEN hashtags_of(text) ELSE [] END
            WHEN len(about.hashtags) = 0 THEN []
            -- Most are plain, and these need no visit to Python.
            WHEN regexp_full_match(array_to_string(about.hashtags, ''), '\w*')
                THEN list_transform(about.hashtags, lambda tag: lower(tag))
            ELSE normal_hashtags(about.hashtags)
        END AS hashtags,
        CASE
            WHEN about.urls IS NOT NULL THEN about.urls
            WHEN reject IS NULL AND (contains(text, '://') OR contains(lower(text), 'www.')) THEN links_of(text)
            ELSE []
        END AS urls,
        coalesce(about.places, []) AS places
    FROM named
)
SELECT
    ordinal, file, line, reject,
    reject IS NULL AND len($languages::VARCHAR[]) > 0 AND NOT coalesce(list_contains($languages, lang), false) AS filtered,
    coalesce(is_repost, false) AS is_repost,
    coalesce(by_text, false) AS by_text,
    record_id, actor, acted_at, post_id, created_at, lang,
    CASE WHEN reject IS NULL THEN text END AS text,
    author,
    distinct_items(mentions) AS mentions,
    distinct_items(hashtags) AS hashtags,
    distinct_items(urls) AS urls,
    distinct_items(places) AS places,
    favorited_by,
    labels
FROM listed;
