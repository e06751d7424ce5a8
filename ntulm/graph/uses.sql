-- Uses of hashtags by users in the graph window (§3.1): the edges before any filter, with the keys of both nodes.
--
-- In:  views posts, engagements, splits (docs/architecture.md, "Data contracts");
--      variable relations (ordered list).
-- Out: tables tagged and raw_edges (rel is an index into `relations`); graph_nodes.sql goes on from there.
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
    SELECT author AS user_key, list_position(getvariable('relations'), 'authored') - 1 AS rel, hashtags FROM tagged
    UNION ALL
    SELECT unnest(list_distinct(mentions)), list_position(getvariable('relations'), 'co_mentioned') - 1, hashtags
    FROM tagged
    UNION ALL
    SELECT user_key, list_position(getvariable('relations'), kind) - 1, hashtags
    FROM (
        SELECT DISTINCT "user" AS user_key, kind, post_id
        FROM engagements
        WHERE created_at IS NULL OR created_at <= getvariable('window_end')
    )
    JOIN tagged USING (post_id)
)
SELECT user_key, rel::TINYINT AS rel, hashtag_key, count(*) AS count
FROM (
    SELECT user_key, rel, unnest(hashtags) AS hashtag_key
    FROM uses
    WHERE user_key IS NOT NULL AND rel >= 0
)
GROUP BY ALL;
