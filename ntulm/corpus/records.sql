-- One batch of raw records (`batch`) to the table `record`: the content that a record is about, made uniform, and why it
-- is not usable, if so. The content of a repost is its original.
-- $languages: codes to keep, empty for all. $casefold: users are handles, written in any case.
-- $hosts: a handle in a text may have a host, `@name@host` or `@name.domain`.

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
                text := CASE WHEN is_repost THEN regexp_replace(text, '^RT @\w+:\s*', '') ELSE text END,
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
        WHEN text IS NULL OR NOT regexp_matches(text, '[^\s\p{Z}]') THEN 'no text'
        WHEN created_at IS NULL THEN 'no date'
        -- Before the first posts, or zero written as a date; and years that only a wrong unit gives.
        WHEN year(created_at) NOT BETWEEN 1990 AND 2100
            OR year(coalesce(about.created_at, created_at)) NOT BETWEEN 1990 AND 2100 THEN 'impossible date'
    END AS reject
    FROM readable
), plain AS (  -- without its links, which hold signs that look like hashtags and mentions; null where nothing is sought in it
    SELECT *, CASE WHEN reject IS NULL AND (about.mentions IS NULL OR about.hashtags IS NULL)
        THEN without(text, 'http', 'https?://\S+', ' ') END AS plain
    FROM judged
), named AS (
    SELECT
        * EXCLUDE (lang, created_at, post_id, author, mentions, hashtags, urls, places),
        about.lang AS lang,
        coalesce(about.created_at, created_at) AS created_at,
        nullif(about.author, '') AS author,
        coalesce(about.post_id, derived_id(about.author, created_at, text)) AS post_id,
        coalesce(post_id, derived_id(actor, created_at, own_text)) AS record_id,
        created_at AS acted_at
    FROM plain
), listed AS (
    SELECT
        * EXCLUDE (about),
        coalesce(
            about.mentions,
            list_transform(
                CASE WHEN $hosts
                    THEN list_transform(
                        regexp_extract_all(
                            plain, '(?:^|[^\p{L}\p{N}_@＠/.])[@＠]([A-Za-z0-9_][A-Za-z0-9_.-]*(?:@[A-Za-z0-9.-]+)?)', 1),
                        lambda name: rtrim(name, '.-'))
                    ELSE regexp_extract_all(plain, '(?:^|[^\p{L}\p{N}_@＠/.])[@＠]([A-Za-z0-9_]{1,30})', 1) END,
                lambda name: CASE WHEN $casefold THEN lower(name) ELSE name END)) AS mentions,
        CASE
            WHEN about.hashtags IS NULL THEN hashtags_of(plain)
            WHEN len(about.hashtags) = 0 THEN []
            -- Most are plain, and these need no visit to Python.
            WHEN regexp_full_match(array_to_string(about.hashtags, ''), '\w*')
                THEN list_transform(about.hashtags, lambda tag: lower(tag))
            ELSE normal_hashtags(about.hashtags)
        END AS hashtags,
        coalesce(
            about.urls,
            list_transform(regexp_extract_all(text, 'https?://\S+'), lambda link: rtrim(link, '.,;:!?)]}"''…'))) AS urls,
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
