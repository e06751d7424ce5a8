-- Which handles in `post` and `engagement` stand for an id: where a record has both. A name that is an id stays, whoever has
-- it as a handle.

INSERT INTO joined
WITH used AS (
    SELECT author AS name FROM post
    UNION SELECT reply_to FROM post
    UNION SELECT quoted FROM post
    UNION SELECT unnest(mentions) FROM post
    UNION SELECT "user" FROM engagement
)
SELECT used.name, owner.id
FROM used JOIN owner ON handle_key(used.name) = owner.handle
WHERE used.name NOT IN (SELECT id FROM person);
