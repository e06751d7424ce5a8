-- The users of `forgotten` leave the posts of others.

CREATE TABLE unnamed AS
SELECT post_id, list(one ORDER BY place) FILTER (NOT EXISTS (FROM forgotten WHERE name = handle_key(one))) AS mentions
FROM (SELECT post_id, unnest(mentions) AS one, generate_subscripts(mentions, 1) AS place FROM post)
GROUP BY post_id
HAVING bool_or(EXISTS (FROM forgotten WHERE name = handle_key(one)));

UPDATE post SET mentions = coalesce(unnamed.mentions, []) FROM unnamed WHERE post.post_id = unnamed.post_id;
UPDATE post SET reply_to = NULL WHERE handle_key(reply_to) IN (SELECT name FROM forgotten);
UPDATE post SET quoted = NULL WHERE handle_key(quoted) IN (SELECT name FROM forgotten);
UPDATE post SET text = without_forgotten(text)
WHERE (contains(text, '@') OR contains(text, '＠')) AND without_forgotten(text) <> text;
