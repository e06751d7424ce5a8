-- What the other corpus files use: the table of records, and small functions. The macros *_pattern() come from
-- ntulm/text.py.

CREATE TABLE record (
    ordinal BIGINT, file VARCHAR, line BIGINT, reject VARCHAR,
    left_out VARCHAR,      -- readable, and no post to keep: why; a favorite is one of these
    filtered BOOLEAN, is_repost BOOLEAN,
    is_favorite BOOLEAN,   -- `actor` likes the content
    names_original BOOLEAN,  -- a repost that gives its original's id alone: left out, unless the original is here
    by_text BOOLEAN,       -- a repost or favorite whose original is known by its text alone
    has_content BOOLEAN,   -- whether there is enough to make a post of; always so, but for favorites
    record_id VARCHAR,     -- of the record itself
    actor VARCHAR, acted_at TIMESTAMPTZ,  -- who wrote the record, and when
    edited_at TIMESTAMPTZ,  -- when this version of it was made, if it is not the first
    -- The content: of a repost or favorite, its original.
    post_id VARCHAR, created_at TIMESTAMPTZ, lang VARCHAR, text VARCHAR, author VARCHAR,
    mentions VARCHAR[], hashtags VARCHAR[], urls VARCHAR[], places VARCHAR[], cashtags VARCHAR[],
    community VARCHAR, reply_to VARCHAR, quoted VARCHAR, reply_to_post VARCHAR, quoted_post VARCHAR, local_id VARCHAR,
    favorited_by VARCHAR[], labels STRUCT(field VARCHAR, "value" VARCHAR)[]
);

-- What records say beside their posts: ids and handles of one user, and what was taken back.
CREATE TABLE person (ordinal BIGINT, said_at TIMESTAMPTZ, id VARCHAR, handle VARCHAR);
CREATE TABLE gone_post (post_id VARCHAR, reason VARCHAR);
CREATE TABLE gone_author (name VARCHAR, reason VARCHAR);
CREATE TABLE account_event (ordinal BIGINT, said_at TIMESTAMPTZ, name VARCHAR, is_open BOOLEAN);
CREATE TABLE gone_name (name VARCHAR, reason VARCHAR);  -- the same accounts by all their names, as handle_key has them
CREATE TABLE joined (name VARCHAR, id VARCHAR);         -- handles of posts and engagements, and the id that replaces them

-- Of several ids with one handle the latest record's counts.
CREATE VIEW owner AS
SELECT handle, first(id ORDER BY said_at DESC NULLS LAST, ordinal DESC, id) AS id FROM person GROUP BY handle;

-- The records that become posts, reposts or duplicates.
CREATE VIEW usable AS FROM record WHERE reject IS NULL AND left_out IS NULL AND NOT filtered;

-- A handle is the same in any case, with or without its sign.
CREATE MACRO handle_key(name) AS lower(ltrim(trim(name), '@＠'));

-- A source's own words, as they may be shown: in one line, not too long.
CREATE MACRO in_words(said) AS
    CASE WHEN length(said) > 60 THEN left(regexp_replace(said, '\p{C}+', ' ', 'g'), 60) || '…'
         ELSE regexp_replace(said, '\p{C}+', ' ', 'g') END;

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
