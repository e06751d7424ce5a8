-- `post`, `engagement` and `label` with pseudonyms in the place of users, in texts too. ntulm/pseudonyms.py makes them.

CREATE TABLE hidden_user AS
SELECT name, pseudonym(name) AS alias
FROM (
    SELECT author AS name FROM post
    UNION SELECT reply_to FROM post
    UNION SELECT quoted FROM post
    UNION SELECT unnest(mentions) FROM post
    UNION SELECT "user" FROM engagement
)
WHERE name IS NOT NULL;

CREATE TABLE hidden_post AS
SELECT post_id, hidden_id(post_id) AS alias FROM (
    SELECT post_id FROM post UNION SELECT post_id FROM engagement UNION SELECT post_id FROM label);

CREATE TABLE hidden_mentions AS
SELECT post_id, list(alias ORDER BY place) AS mentions
FROM (SELECT post_id, unnest(mentions) AS name, generate_subscripts(mentions, 1) AS place FROM post) JOIN hidden_user USING (name)
GROUP BY post_id;

CREATE TABLE hidden_links AS
SELECT post_id, distinct_items(list(hidden_link(link) ORDER BY place)) AS urls
FROM (SELECT post_id, unnest(urls) AS link, generate_subscripts(urls, 1) AS place FROM post)
GROUP BY post_id;

CREATE TABLE shown_post AS
SELECT post.* REPLACE (
    hidden_post.alias AS post_id,
    CASE WHEN contains(text, '@') OR contains(text, '＠') OR contains(text, '://') OR contains(lower(text), 'www.')
        THEN hidden_text(text) ELSE text END AS text,
    writer.alias AS author,
    coalesce(hidden_mentions.mentions, []) AS mentions,
    coalesce(hidden_links.urls, []) AS urls,
    answered.alias AS reply_to,
    cited.alias AS quoted)
FROM post
JOIN hidden_post USING (post_id)
LEFT JOIN hidden_mentions USING (post_id)
LEFT JOIN hidden_links USING (post_id)
LEFT JOIN hidden_user writer ON author = writer.name
LEFT JOIN hidden_user answered ON reply_to = answered.name
LEFT JOIN hidden_user cited ON quoted = cited.name;

CREATE TABLE shown_engagement AS
SELECT hidden_user.alias AS "user", hidden_post.alias AS post_id, kind, created_at
FROM engagement JOIN hidden_user ON "user" = name JOIN hidden_post USING (post_id);

CREATE TABLE shown_label AS
SELECT alias AS post_id, field, "value" FROM label JOIN hidden_post USING (post_id);

DROP TABLE post;
DROP TABLE engagement;
DROP TABLE label;
ALTER TABLE shown_post RENAME TO post;
ALTER TABLE shown_engagement RENAME TO engagement;
ALTER TABLE shown_label RENAME TO label;
