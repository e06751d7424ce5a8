-- What the other corpus files use: the table of records, and small functions. The macros *_pattern() come from
-- ntulm/text.py.

CREATE TABLE record (
    ordinal BIGINT, file VARCHAR, line BIGINT, reject VARCHAR, filtered BOOLEAN, is_repost BOOLEAN,
    by_text BOOLEAN,       -- a repost whose original is known by its text alone
    record_id VARCHAR,     -- of the record itself
    actor VARCHAR, acted_at TIMESTAMPTZ,  -- who wrote the record, and when
    -- The content: of a repost, its original.
    post_id VARCHAR, created_at TIMESTAMPTZ, lang VARCHAR, text VARCHAR, author VARCHAR,
    mentions VARCHAR[], hashtags VARCHAR[], urls VARCHAR[], places VARCHAR[],
    favorited_by VARCHAR[], labels STRUCT(field VARCHAR, "value" VARCHAR)[]
);

CREATE MACRO distinct_items(list) AS CASE
    WHEN len(list) = 0 OR (len(list) = 1 AND list[1] <> '') THEN list
    ELSE list_filter(list, lambda item, place: item <> '' AND list_position(list, item) = place) END;

-- 80 bits: one chance in a million of a collision among a billion posts.
CREATE MACRO derived_id(author, created_at, text) AS
    'x' || substr(sha256(concat_ws(chr(31), author, epoch_us(created_at), text)), 1, 20);

CREATE MACRO drawn(seed, key) AS (md5_number_upper(concat(seed, '/', key)) >> 11) / pow(2, 53);

CREATE MACRO part(place, train_from, validation_from, test_from) AS
    CASE WHEN place >= test_from THEN 'test' WHEN place >= validation_from THEN 'validation'
         WHEN place >= train_from THEN 'train' END;

-- Without the sign of a copy, links, case and white space: what makes two texts the same. Each search runs only where
-- it can find something, and most white space is plain: this is the dearest expression of the stage.
CREATE MACRO without(text, hint, pattern, instead) AS
    CASE WHEN contains(text, hint) THEN regexp_replace(text, pattern, instead, 'g') ELSE text END;
CREATE MACRO without_spaces(text) AS
    CASE WHEN regexp_matches(text, '[\s\p{Z}]') THEN regexp_replace(text, '[\s\p{Z}]+', '', 'g') ELSE text END;
-- Which posts are copies is no question of NTUs: links are searched for as ever, so that corpora stay what they were.
CREATE MACRO text_key(text) AS without_spaces(replace(
    without(without(lower(nfc_normalize(text)), 'rt @', repost_pattern(), ''), 'http', 'https?://\S+', ''), ' ', ''));
