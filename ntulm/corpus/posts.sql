-- `record` to posts, engagements and labels: each usable record is a post, a repost or a duplicate; favorites
-- are engagements, and may bring the original that they embed.
-- Variable by_text: posts with the same text are duplicates too. Whatever is chosen among equals is chosen by order of the files or of time, so that the same input gives the same rows.

-- What texts that count as the same have in common; not comparable: nothing but links, and never the same. Only where
-- somebody asks for it: it takes as long as all else that is done with a record.
CREATE TABLE keyed AS
SELECT ordinal, CASE WHEN same = '' THEN text ELSE same END AS text_key, same <> '' AS comparable
FROM (
    SELECT ordinal, text, text_key(text) AS same FROM record
    WHERE has_content AND NOT filtered AND (getvariable('by_text') OR EXISTS (FROM record WHERE by_text))
);

-- The first record of each id; others are duplicates. Of a post that was edited it is the latest version.
CREATE TABLE edited AS
SELECT record_id, first(ordinal ORDER BY edited_at DESC, ordinal) AS ordinal
FROM usable WHERE edited_at IS NOT NULL GROUP BY record_id;

CREATE TABLE kept AS
SELECT min(ordinal) AS ordinal FROM usable ANTI JOIN edited USING (record_id) GROUP BY record_id
UNION ALL
SELECT ordinal FROM edited;

-- What can bring a post: these, and favorites that embed what is liked.
CREATE VIEW bringing AS
FROM record SEMI JOIN kept USING (ordinal)
UNION ALL
FROM record WHERE is_favorite AND has_content;

-- One candidate a post id: its own record if there is one, else the first repost that embeds it, else the first favorite.
-- Of these one that says whose the original is comes first, best with a date of its own: others know but a cut text.
CREATE TABLE candidate AS
SELECT
    post_id,
    coalesce(
        min(ordinal) FILTER (NOT is_repost AND NOT is_favorite),
        min(ordinal) FILTER (is_repost AND author IS NOT NULL AND created_at <> acted_at),
        min(ordinal) FILTER (is_repost AND author IS NOT NULL), min(ordinal) FILTER (is_repost),
        min(ordinal) FILTER (author IS NOT NULL), min(ordinal)) AS ordinal,
    bool_and(is_repost OR is_favorite) AS recovered
FROM bringing
WHERE NOT by_text
GROUP BY post_id;

-- Of posts with the same text the earliest survives; it takes over the engagements of the others.
CREATE TABLE survivor AS
SELECT
    c.post_id,
    c.ordinal,
    c.recovered,
    k.text_key,
    r.created_at,
    CASE WHEN getvariable('by_text') AND k.comparable
        THEN first_value(c.post_id) OVER (PARTITION BY k.comparable, k.text_key ORDER BY r.created_at, c.post_id)
        ELSE c.post_id END AS survivor_id
FROM candidate c JOIN record r USING (ordinal) LEFT JOIN keyed k USING (ordinal);

-- Originals known by their text alone: the earliest post with that text, else one recovered from the earliest repost.
CREATE TABLE original AS
WITH known AS (
    SELECT text_key, first(post_id ORDER BY created_at, post_id) AS post_id
    FROM survivor WHERE post_id = survivor_id GROUP BY text_key
), reposted AS (
    SELECT text_key, first(ordinal ORDER BY created_at, ordinal) AS ordinal
    FROM bringing JOIN keyed USING (ordinal) WHERE by_text GROUP BY text_key
)
SELECT
    text_key,
    ordinal,
    known.post_id IS NULL AS recovered,
    coalesce(known.post_id, derived_id(NULL, NULL::TIMESTAMPTZ, text_key)) AS post_id
FROM reposted LEFT JOIN known USING (text_key);

CREATE TABLE post AS
WITH chosen AS (
    SELECT post_id, ordinal, recovered FROM survivor WHERE post_id = survivor_id
    UNION ALL
    SELECT post_id, ordinal, true FROM original WHERE recovered
), wanted AS (
    SELECT unnest([
        CASE WHEN reply_to IS NULL THEN reply_to_post END, CASE WHEN quoted IS NULL THEN quoted_post END
    ]) AS post_id
    FROM record WHERE (reply_to IS NULL AND reply_to_post IS NOT NULL) OR (quoted IS NULL AND quoted_post IS NOT NULL)
), author_of AS (  -- of the posts that others answer or quote without saying whose they are
    SELECT post_id, first(author ORDER BY place, ordinal) AS author
    FROM (
        SELECT c.post_id, r.author, 1 AS place, ordinal
        FROM candidate c JOIN record r USING (ordinal) WHERE c.post_id IN (FROM wanted)
        UNION ALL
        SELECT local_id, author, 2, ordinal FROM usable WHERE local_id IN (FROM wanted)
    )
    GROUP BY post_id
)
SELECT
    c.post_id, r.created_at, r.lang, r.text, r.author, r.mentions, r.hashtags, r.urls, r.places, r.cashtags, r.community,
    coalesce(r.reply_to, answered.author) AS reply_to,
    coalesce(r.quoted, quoted.author) AS quoted,
    c.recovered
FROM chosen c
JOIN record r USING (ordinal)
LEFT JOIN author_of answered ON r.reply_to IS NULL AND r.reply_to_post = answered.post_id
LEFT JOIN author_of quoted ON r.quoted IS NULL AND r.quoted_post = quoted.post_id
ORDER BY r.created_at, c.post_id;

-- Each usable record and the post it ended up with; of later copies of a record the favorites still count.
CREATE TABLE target AS
SELECT r.ordinal, coalesce(o.post_id, s.survivor_id) AS post_id, k.ordinal IS NOT NULL AS is_kept
FROM usable r
LEFT JOIN kept k ON r.ordinal = k.ordinal
LEFT JOIN keyed ON r.ordinal = keyed.ordinal
LEFT JOIN original o ON r.by_text AND keyed.text_key = o.text_key
LEFT JOIN survivor s ON NOT r.by_text AND r.post_id = s.post_id;

-- Reposts that only name their original, where it is here.
CREATE TABLE pointing AS
SELECT ordinal, actor, survivor_id AS post_id, acted_at
FROM (SELECT min(ordinal) AS ordinal FROM record WHERE names_original GROUP BY record_id)
JOIN record USING (ordinal) JOIN survivor USING (post_id);

UPDATE record SET left_out = NULL FROM pointing WHERE record.ordinal = pointing.ordinal;

CREATE TABLE liked AS
SELECT r.actor, coalesce(o.post_id, s.survivor_id) AS post_id, r.acted_at
FROM record r
LEFT JOIN keyed ON r.ordinal = keyed.ordinal
LEFT JOIN original o ON r.by_text AND keyed.text_key = o.text_key
LEFT JOIN survivor s ON NOT r.by_text AND r.post_id = s.post_id
WHERE r.is_favorite;

CREATE TABLE engagement AS
SELECT r.actor AS "user", t.post_id, 'reposted' AS kind, r.acted_at AS created_at
FROM record r JOIN target t USING (ordinal)
WHERE r.is_repost AND t.is_kept
UNION ALL
SELECT actor, post_id, 'reposted', acted_at FROM pointing
UNION ALL
SELECT fan, post_id, 'favorited', min(liked_at)
FROM (
    SELECT unnest(r.favorited_by) AS fan, t.post_id, NULL::TIMESTAMPTZ AS liked_at
    FROM record r JOIN target t USING (ordinal)
    UNION ALL
    FROM liked
)
WHERE fan <> '' AND post_id IS NOT NULL AND NOT EXISTS (FROM gone_name WHERE name = handle_key(fan))
GROUP BY fan, post_id;

-- The labels of copies with the same id are labels of the post; those of another post with the same text are not.
CREATE TABLE label AS
SELECT DISTINCT post_id, label.field AS field, label."value" AS "value"
FROM (SELECT r.post_id, unnest(r.labels) AS label FROM record r JOIN target t USING (ordinal)
      WHERE NOT r.is_repost AND r.post_id = t.post_id)
WHERE label.field IS NOT NULL AND label."value" <> '';

CREATE VIEW fates AS
SELECT
    read,
    posts,
    (SELECT count(*) FROM target JOIN record USING (ordinal) WHERE is_kept AND is_repost)
        + (SELECT count(*) FROM pointing) AS reposts,
    (SELECT count(*) FROM target WHERE NOT is_kept)
        + (SELECT count(*) FROM survivor WHERE NOT recovered AND post_id <> survivor_id) AS duplicates,
    filtered,
    left_out,
    rejects,
    recovered
FROM (
    SELECT count(*) AS read, count(*) FILTER (filtered) AS filtered, count(left_out) AS left_out, count(reject) AS rejects FROM record
), (
    SELECT count(*) FILTER (NOT recovered) AS posts, count(*) FILTER (recovered) AS recovered FROM post
);

CREATE VIEW figures AS
SELECT min(created_at), max(created_at), count(DISTINCT author), count(*) FILTER (author IS NULL),
    (SELECT count(DISTINCT tag) FROM (SELECT unnest(hashtags) AS tag FROM post))
FROM post;
