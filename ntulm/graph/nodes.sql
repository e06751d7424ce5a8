-- Edges between keys to edges between numbered nodes, and which of them are held out.
--
-- In:  table raw_edges (user_key, rel, hashtag_key, count), each edge once; it is dropped, to give its memory back.
--      variables min_degree_user, min_degree_hashtag, held_out_share, seed.
-- Out: tables nodes, edges, and key_facts (one row: sizes before and after the filter).
-- Keys are long, edges are many: each edge meets its two keys once, in a hash join; all that follows are numbers. No
-- statement's result depends on the order of rows or on the number of threads, but for the codes, which are internal.

-- Degrees are counted once, before anything is dropped: one pass whatever the size, and a user stays although one of
-- the hashtags that made up the degree goes. A node that loses all its edges goes too.
CREATE TABLE user_keys AS
SELECT row_number() OVER () AS code, key, uses
FROM (SELECT user_key AS key, count(*) AS uses FROM raw_edges GROUP BY user_key);

CREATE TABLE hashtag_keys AS
SELECT row_number() OVER () AS code, key, uses
FROM (SELECT hashtag_key AS key, count(*) AS uses FROM raw_edges GROUP BY hashtag_key);

-- A user and a hashtag are drawn as a pair, with all their relations: had they another edge in training, the held-out
-- one would be no question. md5 of the keys: the draw is the same in every version, and a pair keeps it when data grows.
CREATE TABLE coded AS
SELECT
    users.code AS user_code,
    rel,
    hashtags.code AS hashtag_code,
    count,
    -- The hash is most of the work here: not done where none is held out.
    getvariable('held_out_share') > 0
        AND (md5_number_upper(concat(getvariable('seed'), '/', user_key, '/', hashtag_key)) >> 11) / pow(2, 53)
            < getvariable('held_out_share') AS candidate
FROM raw_edges
JOIN user_keys AS users ON users.key = user_key AND users.uses >= getvariable('min_degree_user')
JOIN hashtag_keys AS hashtags ON hashtags.key = hashtag_key AND hashtags.uses >= getvariable('min_degree_hashtag');

CREATE TABLE key_facts AS
SELECT
    (SELECT count(*) FROM raw_edges) AS edges_before_filter,
    (SELECT count(*) FROM coded) AS edges,
    (SELECT count(*) FROM user_keys) AS users_before_filter,
    (SELECT count(*) FROM hashtag_keys) AS hashtags_before_filter,
    (SELECT count(DISTINCT user_code) FROM coded) AS users,
    (SELECT count(DISTINCT hashtag_code) FROM coded) AS hashtags;

DROP TABLE raw_edges;

CREATE TABLE nodes AS
WITH counted AS (
    SELECT 'user' AS type, user_code AS code, count(*) AS degree, bool_and(candidate) AS drawn FROM coded GROUP BY ALL
    UNION ALL
    SELECT 'hashtag', hashtag_code, count(*), bool_and(candidate) FROM coded GROUP BY ALL
), keys AS (
    SELECT 'user' AS type, code, key FROM user_keys
    UNION ALL
    SELECT 'hashtag', code, key FROM hashtag_keys
)
SELECT row_number() OVER (ORDER BY type, degree DESC, key) - 1 AS id, type, key, degree, code, drawn
FROM counted JOIN keys USING (type, code);

-- Both nodes of a held-out edge keep a training edge; where all edges of a node were drawn, all of them are trained on.
CREATE TABLE edges AS
SELECT
    users.id AS lhs,
    rel,
    hashtags.id AS rhs,
    count,
    candidate AND NOT users.drawn AND NOT hashtags.drawn AS held_out
FROM coded
JOIN nodes AS users ON users.type = 'user' AND users.code = user_code
JOIN nodes AS hashtags ON hashtags.type = 'hashtag' AND hashtags.code = hashtag_code;

DROP TABLE coded;
