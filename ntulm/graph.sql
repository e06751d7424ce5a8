-- User-hashtag graph of the posts in the graph window (§3.1), in one DuckDB script.
--
-- In:  views posts, engagements, splits (docs/architecture.md, "Data contracts");
--      variables relations (ordered list), min_degree_user, min_degree_hashtag, held_out_share, seed.
-- Out: tables nodes, edges (rel is an index into `relations`), facts (one row, for messages and metrics).
-- No statement depends on the order of rows or on the number of threads.

-- Engagements carry their own time. One that comes after the window is not known yet when the window ends: counting it
-- would leak from behind the validation cut. The end is the time of the window's last post; one without a time counts.
SET VARIABLE window_end = (SELECT max(created_at) FROM posts JOIN splits USING (post_id) WHERE graph);

CREATE TABLE tagged AS
SELECT post_id, author, mentions, hashtags
FROM posts
JOIN splits USING (post_id)
WHERE graph AND len(hashtags) > 0;

-- Each use of a post's hashtags by a user. Favoriting twice, or mentioning someone twice in a post, is one use.
CREATE TABLE raw_edges AS
WITH uses AS (
    SELECT author AS user_key, 'authored' AS rel, hashtags FROM tagged
    UNION ALL
    SELECT unnest(list_distinct(mentions)), 'co_mentioned', hashtags FROM tagged
    UNION ALL
    SELECT user_key, rel, hashtags
    FROM (
        SELECT DISTINCT "user" AS user_key, kind AS rel, post_id
        FROM engagements
        WHERE created_at IS NULL OR created_at <= getvariable('window_end')
    )
    JOIN tagged USING (post_id)
)
SELECT user_key, rel, hashtag_key, count(*) AS count
FROM (
    SELECT user_key, rel, unnest(hashtags) AS hashtag_key
    FROM uses
    WHERE user_key IS NOT NULL AND list_contains(getvariable('relations'), rel)
)
GROUP BY user_key, rel, hashtag_key;

-- Degrees are counted once, before anything is dropped: one pass whatever the size, and a user stays although one of
-- the hashtags that made up the degree goes. A node that loses all its edges goes too.
CREATE TABLE kept AS
SELECT *
FROM raw_edges
SEMI JOIN (
    SELECT user_key FROM raw_edges GROUP BY user_key HAVING count(*) >= getvariable('min_degree_user')
) USING (user_key)
SEMI JOIN (
    SELECT hashtag_key FROM raw_edges GROUP BY hashtag_key HAVING count(*) >= getvariable('min_degree_hashtag')
) USING (hashtag_key);

CREATE TABLE nodes AS
WITH degrees AS (
    SELECT 'user' AS type, user_key AS key, count(*) AS degree FROM kept GROUP BY user_key
    UNION ALL
    SELECT 'hashtag', hashtag_key, count(*) FROM kept GROUP BY hashtag_key
)
SELECT row_number() OVER (ORDER BY type, degree DESC, key) - 1 AS id, type, key, degree
FROM degrees;

-- A user and a hashtag are drawn as a pair, with all their relations: had they another edge in training, the held-out
-- one would be no question. md5 of the keys: the draw is the same in every version, and a pair keeps it when data grows.
CREATE TABLE drawn AS
SELECT
    users.id AS lhs,
    list_position(getvariable('relations'), rel) - 1 AS rel,
    hashtags.id AS rhs,
    count,
    (md5_number_upper(concat(getvariable('seed'), '/', user_key, '/', hashtag_key)) >> 11) / pow(2, 53)
        < getvariable('held_out_share') AS candidate
FROM kept
JOIN nodes AS users ON users.type = 'user' AND users.key = user_key
JOIN nodes AS hashtags ON hashtags.type = 'hashtag' AND hashtags.key = hashtag_key;

-- Both nodes of a held-out edge keep a training edge; where all edges of a node were drawn, all of them are trained on.
CREATE TABLE edges AS
WITH trained AS (
    SELECT lhs AS id FROM drawn GROUP BY lhs HAVING NOT bool_and(candidate)
    UNION ALL
    SELECT rhs FROM drawn GROUP BY rhs HAVING NOT bool_and(candidate)
)
SELECT
    lhs,
    rel,
    rhs,
    count,
    candidate AND lhs IN (SELECT id FROM trained) AND rhs IN (SELECT id FROM trained) AS held_out
FROM drawn;

CREATE TABLE facts AS
SELECT
    (SELECT count(*) FROM splits WHERE graph) AS posts,
    (SELECT count(*) FROM tagged) AS posts_with_hashtags,
    (SELECT count(*) FROM raw_edges) AS edges_before_filter,
    (SELECT count(*) FROM kept) AS edges,
    (SELECT count(DISTINCT user_key) FROM raw_edges) AS users_before_filter,
    (SELECT count(DISTINCT hashtag_key) FROM raw_edges) AS hashtags_before_filter,
    (SELECT count(*) FROM nodes WHERE type = 'user') AS users,
    (SELECT count(*) FROM nodes WHERE type = 'hashtag') AS hashtags;
