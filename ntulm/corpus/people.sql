-- The ids of the table `joined` in the place of handles, in `post` and `engagement`.

CREATE TABLE mentioned AS
SELECT post_id, distinct_items(list(coalesce(joined.id, one) ORDER BY place)) AS mentions
FROM (SELECT post_id, unnest(mentions) AS one, generate_subscripts(mentions, 1) AS place FROM post)
LEFT JOIN joined ON one = joined.name
GROUP BY post_id
HAVING bool_or(joined.id IS NOT NULL);

CREATE TABLE joined_post AS
SELECT post.* REPLACE (
    coalesce(writer.id, author) AS author,
    coalesce(mentioned.mentions, post.mentions) AS mentions,
    coalesce(answered.id, reply_to) AS reply_to,
    coalesce(cited.id, quoted) AS quoted)
FROM post
LEFT JOIN mentioned USING (post_id)
LEFT JOIN joined writer ON author = writer.name
LEFT JOIN joined answered ON reply_to = answered.name
LEFT JOIN joined cited ON quoted = cited.name;

CREATE TABLE joined_engagement AS
SELECT coalesce(joined.id, "user") AS "user", post_id, kind, created_at
FROM engagement LEFT JOIN joined ON "user" = name
WHERE kind <> 'favorited'
UNION ALL
SELECT coalesce(joined.id, "user"), post_id, kind, min(created_at)
FROM engagement LEFT JOIN joined ON "user" = name
WHERE kind = 'favorited'
GROUP BY ALL;

DROP TABLE post;
DROP TABLE engagement;
ALTER TABLE joined_post RENAME TO post;
ALTER TABLE joined_engagement RENAME TO engagement;
