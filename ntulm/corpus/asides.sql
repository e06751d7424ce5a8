-- What one batch of raw records (`batch`) says beside its posts: the ids and handles of users, and what was taken back.

INSERT INTO person
SELECT max(ordinal), max(created_at), id, handle
FROM (
    SELECT ordinal, created_at, trim(one.id) AS id, handle_key(one.handle) AS handle
    FROM (SELECT ordinal, created_at, unnest(people) AS one FROM batch WHERE reject IS NULL AND people IS NOT NULL)
)
WHERE id <> '' AND handle <> '' AND NOT contains(id || handle, chr(0))
GROUP BY id, handle;

INSERT INTO gone_post
SELECT DISTINCT deleted_post, 'deleted by its author' FROM batch WHERE reject IS NULL AND deleted_post <> '';

INSERT INTO gone_author
SELECT DISTINCT deleted_author, 'account deleted' FROM batch WHERE reject IS NULL AND deleted_author <> '';
