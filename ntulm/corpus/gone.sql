-- Whatever was taken back (`gone_post`, `gone_author`) leaves `record`: left out, whether it was read before or after.
-- An account is meant by its id and by the handles that are its own now; what is said of it last counts.

INSERT INTO gone_author
SELECT handle_key(name), 'account closed' FROM account_event GROUP BY 1
HAVING NOT last(is_open ORDER BY said_at NULLS FIRST, ordinal, is_open DESC);

INSERT INTO gone_name
WITH named AS (SELECT handle_key(name) AS name, max(reason) AS reason FROM gone_author GROUP BY 1),
ids AS (
    FROM named UNION ALL SELECT handle_key(owner.id), reason FROM owner JOIN named ON owner.handle = named.name
)
SELECT name, max(reason) AS reason
FROM (FROM ids UNION ALL SELECT owner.handle, reason FROM owner JOIN ids ON handle_key(owner.id) = ids.name)
GROUP BY name;

CREATE TABLE gone AS
SELECT ordinal, max(reason) AS reason
FROM (
    SELECT ordinal, reason FROM record JOIN gone_post USING (post_id)
    UNION ALL
    SELECT ordinal, reason FROM record r JOIN gone_post g ON r.record_id = g.post_id
    UNION ALL
    SELECT ordinal, reason FROM record JOIN gone_name ON handle_key(actor) = name
    UNION ALL
    SELECT ordinal, reason FROM record JOIN gone_name ON handle_key(author) = name
)
GROUP BY ordinal;

-- A repost that has no id of its original, and the text of a post that is gone: it must not bring it back.
INSERT INTO gone
WITH texts AS (
    SELECT ordinal, by_text, gone.reason, text_key(text) AS text_key
    FROM record LEFT JOIN gone USING (ordinal)
    WHERE has_content AND EXISTS (FROM record WHERE by_text)
), taken AS (
    SELECT text_key, max(reason) AS reason FROM texts
    GROUP BY text_key HAVING bool_and(by_text OR reason IS NOT NULL) AND bool_or(reason IS NOT NULL) AND text_key <> ''
)
SELECT ordinal, taken.reason FROM texts JOIN taken USING (text_key) WHERE by_text AND texts.reason IS NULL;

UPDATE record
SET left_out = gone.reason, filtered = false, is_repost = false, is_favorite = false, has_content = false,
    names_original = false
FROM gone
WHERE record.ordinal = gone.ordinal AND reject IS NULL AND (left_out IS NULL OR is_favorite OR names_original);
