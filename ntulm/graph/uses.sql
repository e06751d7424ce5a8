-- What graph/uses.py builds its queries on (§3.1).
--
-- In:  views posts, engagements, splits (docs/architecture.md, "Data contracts").
-- Out: views window_posts and timely_engagements; graph/uses.py makes the tables own and raw_edges from them.
-- No statement depends on the order of rows or on the number of threads.
--
-- An edge of a relation joins an NTU that plays the left role in a post to one that plays the right role in the same
-- post, and counts the posts in which they do: favoriting a post twice, or mentioning someone twice in it, counts once.
-- Where both roles have one type, no NTU is joined to itself; where they are one role, each pair stands once, with the
-- smaller key on the left.

CREATE VIEW window_posts AS
FROM posts JOIN splits USING (post_id) WHERE graph;

-- Engagements carry their own time. One that comes after the window is not known yet when the window ends: counting it
-- would leak from behind the validation cut. The end is the time of the window's last post; one without a time counts.
CREATE TABLE window_end AS SELECT max(created_at) AS last FROM window_posts;

CREATE VIEW timely_engagements AS
FROM engagements
WHERE "user" IS NOT NULL AND (created_at IS NULL OR created_at <= (SELECT last FROM window_end));
