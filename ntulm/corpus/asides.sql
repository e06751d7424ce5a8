-- What one batch of raw records (`batch`) says beside its posts: the ids and handles of users, and what was taken back.

INSERT INTO person
SELECT * REPLACE (trim(id) AS id, handle_key(handle) AS handle)
FROM (  -- most names come many times, and are trimmed once
    SELECT max(ordinal) AS ordinal, max(created_at) AS said_at, one.id AS id, one.handle AS handle
    FROM (SELECT ordinal, created_at, unnest(people) AS one FROM batch WHERE reject IS NULL AND people IS NOT NULL)
    GROUP BY one.id, one.handle
)
WHERE trim(id) <> '' AND handle_key(handle) <> '' AND NOT contains(id || handle, chr(0));

INSERT INTO gone_post
SELECT DISTINCT deleted_post, 'deleted by its author' FROM batch WHERE reject IS NULL AND deleted_post <> '';

INSERT INTO account_event
SELECT ordinal, created_at, one.name, one.is_open
FROM (
    SELECT ordinal, created_at, unnest([
        struct_pack(name := deleted_author, is_open := false), struct_pack(name := restored_author, is_open := true)
    ]) AS one
    FROM batch WHERE reject IS NULL AND (deleted_author <> '' OR restored_author <> '')
)
WHERE one.name <> '';
