-- Users joined; names mentioned, and those that are no author; shares of authors and of mentioned names that look like ids.

WITH authors AS (
    SELECT DISTINCT author AS name FROM post WHERE author IS NOT NULL
), mentioned AS (
    SELECT DISTINCT unnest(mentions) AS name FROM post
)
SELECT
    (SELECT count(DISTINCT id) FROM joined),
    (SELECT count(*) FROM mentioned),
    (SELECT count(*) FROM mentioned ANTI JOIN authors USING (name)),
    (SELECT coalesce(avg(regexp_full_match(name, $pattern)::INT), 0) FROM authors),
    (SELECT coalesce(avg(regexp_full_match(name, $pattern)::INT), 1) FROM mentioned);
