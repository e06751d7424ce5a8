-- One batch of raw records (`batch`) to the table `record`: the content that a record is about, made uniform, and why it
-- is not usable, if so. The content of a repost or favorite is its original.
-- $languages: codes to keep, empty for all. What a text says by itself (hashtags_of, mentions_of, links_of) is told by
-- ntulm/text.py; a text is taken there only where it holds a sign of it.

INSERT INTO record BY NAME
WITH content AS (
    SELECT
        * EXCLUDE (text, left_out, is_favorite),
        author AS actor,
        text AS own_text,
        CASE
            WHEN reject IS NOT NULL THEN NULL
            WHEN left_out IS NOT NULL THEN in_words(left_out)
            WHEN visibility IS NOT NULL AND lower(visibility) NOT IN ('public', 'unlisted')
                THEN 'visibility: ' || in_words(visibility)
            WHEN is_favorite THEN 'like'
        END AS left_out,
        -- Of a like that only some may see nothing is taken.
        coalesce(is_favorite, false) AND reject IS NULL AND author <> ''
            AND (visibility IS NULL OR lower(visibility) IN ('public', 'unlisted')) AS is_favorite,
        coalesce(is_repost OR is_favorite, false) AS embeds,
        CASE
            WHEN is_favorite OR (is_repost AND reposted IS NOT NULL) THEN reposted
            ELSE struct_pack(
                post_id := CASE WHEN NOT is_repost THEN post_id END,
                created_at := created_at,
                lang := lang,
                text := CASE WHEN is_repost THEN regexp_replace(text, repost_pattern(), '') ELSE text END,
                author := CASE WHEN NOT is_repost THEN author END,
                mentions := mentions, hashtags := hashtags, urls := urls, places := places, cashtags := cashtags,
                community := community, reply_to := reply_to, quoted := quoted)
        END AS about
    FROM batch
), readable AS (
    SELECT
        *,
        embeds AND about.post_id IS NULL AS by_text,  -- the original has no id: known by its text
        CASE WHEN contains(about.text, '&') THEN unescape_html(about.text) ELSE about.text END AS text
    FROM content
), named_alone AS (
    SELECT
        *,
        reject IS NULL AND left_out IS NULL AND embeds AND coalesce(about.post_id <> '', false)
            AND NOT coalesce(regexp_matches(text, written_pattern()), false) AS names_original
    FROM readable
), lacking AS (
    SELECT *, CASE
        WHEN reject IS NOT NULL THEN reject
        WHEN left_out IS NOT NULL AND NOT is_favorite THEN NULL
        WHEN contains(concat_ws('', post_id, actor, about.post_id, about.author, text), chr(0)) THEN 'NUL byte'
        WHEN actor IS NULL OR trim(actor) = '' THEN 'no author'
        WHEN NOT names_original AND (text IS NULL OR NOT regexp_matches(text, written_pattern())) THEN 'no text'
        WHEN coalesce(created_at, about.created_at) IS NULL OR (created_at IS NULL AND NOT is_favorite) THEN 'no date'
        -- Before the first posts, or zero written as a date; and years that only a wrong unit gives.
        WHEN year(coalesce(created_at, about.created_at)) NOT BETWEEN 1990 AND 2100
            OR year(coalesce(about.created_at, created_at)) NOT BETWEEN 1990 AND 2100 THEN 'impossible date'
    END AS lack
    FROM named_alone
), judged AS (
    SELECT
        * EXCLUDE (reject, is_favorite, left_out, names_original),
        CASE WHEN left_out IS NULL OR lack = 'NUL byte' THEN lack END AS reject,
        CASE
            WHEN names_original AND lack IS NULL THEN 'repost without its original'
            WHEN lack IS DISTINCT FROM 'NUL byte' THEN left_out
        END AS left_out,
        names_original AND lack IS NULL AS names_original,
        is_favorite AND lack IS DISTINCT FROM 'NUL byte' AS is_favorite,
        lack IS NULL AND (left_out IS NULL OR is_favorite) AND NOT names_original AS has_content
    FROM lacking
), named AS (
    SELECT
        * EXCLUDE (lang, created_at, post_id, author, mentions, hashtags, urls, places, cashtags, community, reply_to, quoted,
            reply_to_post, quoted_post),
        about.lang AS lang,
        coalesce(about.created_at, created_at) AS created_at,
        nullif(about.author, '') AS author,
        coalesce(about.post_id, derived_id(about.author, created_at, text)) AS post_id,
        coalesce(post_id, derived_id(actor, created_at, own_text)) AS record_id,
        created_at AS acted_at,
        nullif(trim(about.community), '') AS community,
        nullif(about.reply_to, '') AS reply_to,
        nullif(about.quoted, '') AS quoted,
        -- What an embedded original answers, the record does not say.
        CASE WHEN NOT embeds THEN reply_to_post END AS reply_to_post,
        CASE WHEN NOT embeds THEN quoted_post END AS quoted_post
    FROM judged
), listed AS (
    SELECT
        * EXCLUDE (about),
        CASE
            WHEN about.mentions IS NOT NULL THEN about.mentions
            WHEN has_content AND (contains(text, '@') OR contains(text, '＠')) THEN mentions_of(text)
            ELSE []
        END AS mentions,
        CASE
            WHEN about.hashtags IS NULL THEN
                CASE WHEN has_content AND (contains(text, '#') OR contains(text, '＃')) THEN hashtags_of(text) ELSE [] END
            WHEN len(about.hashtags) = 0 THEN []
            -- Most are plain, and these need no visit to Python.
            WHEN regexp_full_match(array_to_string(about.hashtags, ''), '\w*')
                THEN list_transform(about.hashtags, lambda tag: lower(tag))
            ELSE normal_hashtags(about.hashtags)
        END AS hashtags,
        CASE
            WHEN about.urls IS NOT NULL THEN about.urls
            WHEN has_content AND (contains(text, '://') OR contains(lower(text), 'www.')) THEN links_of(text)
            ELSE []
        END AS urls,
        coalesce(about.places, []) AS places,
        CASE
            WHEN about.cashtags IS NOT NULL THEN
                list_transform(about.cashtags, lambda symbol: lower(ltrim(trim(symbol), '$')))
            WHEN has_content AND contains(text, '$') THEN cashtags_of(text)
            ELSE []
        END AS cashtags
    FROM named
)
SELECT
    ordinal, file, line, reject, left_out,
    reject IS NULL AND left_out IS NULL AND NOT is_kept_language AS filtered,
    coalesce(is_repost, false) AND NOT is_favorite AND NOT names_original AS is_repost,
    names_original,
    is_favorite,
    coalesce(by_text, false) AS by_text,
    has_content AND (is_kept_language OR NOT is_favorite) AS has_content,
    record_id, actor, acted_at, edited_at, post_id, created_at, lang,
    CASE WHEN has_content THEN text END AS text,
    author,
    distinct_items(mentions) AS mentions,
    distinct_items(hashtags) AS hashtags,
    distinct_items(urls) AS urls,
    distinct_items(places) AS places,
    distinct_items(cashtags) AS cashtags,
    community, reply_to, quoted, reply_to_post, quoted_post, local_id,
    favorited_by,
    labels
FROM (
    SELECT *, len($languages::VARCHAR[]) = 0 OR coalesce(list_contains($languages, lang), false) AS is_kept_language
    FROM listed
);
