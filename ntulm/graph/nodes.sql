-- Edges between keys to edges between numbered nodes, and which of them are held out.
--
-- In:  table raw_edges (left_key, rel, right_key, count), each edge once; it is dropped, to give its memory back.
--      table relations (rel, left_type, right_type) and table types (type, name, min_degree), `type` counting from 0 in
--      the order of the names; variables held_out_share, seed.
-- Out: tables nodes, edges, key_facts (one row: edges before and after the filter) and type_facts (nodes likewise).
-- Keys are long, edges are many: each edge meets its two keys once, in a hash join; all that follows are numbers. No
-- statement's result depends on the order of rows or on the number of threads, but for the codes, which are internal.

-- Degrees are counted once, before anything is dropped: one pass whatever the size, and a node stays although one of
-- the nodes that made up its degree goes. A node that loses all its edges goes too.
CREATE TABLE node_keys AS
SELECT row_number() OVER () AS code, type, key, uses, uses >= min_degree AS kept
FROM (
    SELECT type, key, sum(uses)::BIGINT AS uses
    FROM (
        SELECT left_type AS type, left_key AS key, count(*) AS uses FROM raw_edges JOIN relations USING (rel) GROUP BY ALL
        UNION ALL
        SELECT right_type, right_key, count(*) FROM raw_edges JOIN relations USING (rel) GROUP BY ALL
    )
    GROUP BY ALL
)
JOIN types USING (type);

-- Two nodes are drawn as a pair, with all their relations, whatever the direction: had they another edge in training,
-- the held-out one would be no question. md5 of the keys: the draw is the same in every version, and a pair keeps it
-- when data grows. The last type stands first in it, and of one type the smaller key.
CREATE TABLE coded AS
WITH typed AS (
    SELECT
        *,
        left_type < right_type OR (left_type = right_type AND left_key > right_key) AS turned
    FROM raw_edges
    JOIN relations USING (rel)
)
SELECT
    lhs.code AS left_code,
    rel,
    rhs.code AS right_code,
    count,
    -- The hash is most of the work here: not done where none is held out.
    getvariable('held_out_share') > 0
        AND draw(concat(
            getvariable('seed')::VARCHAR, '/', if(turned, right_key, left_key), '/', if(turned, left_key, right_key)
        )) < getvariable('held_out_share') AS candidate
FROM typed
JOIN node_keys AS lhs ON lhs.type = left_type AND lhs.key = left_key AND lhs.kept
JOIN node_keys AS rhs ON rhs.type = right_type AND rhs.key = right_key AND rhs.kept;

CREATE TABLE key_facts AS
SELECT (SELECT count(*) FROM raw_edges) AS edges_before_filter, (SELECT count(*) FROM coded) AS edges;

DROP TABLE raw_edges;

CREATE TABLE nodes AS
WITH counted AS (
    SELECT code, count(*) AS degree, bool_and(candidate) AS drawn
    FROM (
        SELECT left_code AS code, candidate FROM coded
        UNION ALL
        SELECT right_code, candidate FROM coded
    )
    GROUP BY ALL
)
SELECT row_number() OVER (ORDER BY type, degree DESC, key) - 1 AS id, type, key, degree, code, drawn
FROM counted JOIN node_keys USING (code);

CREATE TABLE type_facts AS
SELECT
    name,
    (SELECT count(*) FROM node_keys WHERE node_keys.type = types.type) AS before_filter,
    (SELECT count(*) FROM nodes WHERE nodes.type = types.type) AS nodes
FROM types;

-- Both nodes of a held-out edge keep a training edge; where all edges of a node were drawn, all of them are trained on.
CREATE TABLE edges AS
SELECT
    lhs.id AS lhs,
    rel,
    rhs.id AS rhs,
    count,
    candidate AND NOT lhs.drawn AND NOT rhs.drawn AS held_out
FROM coded
JOIN nodes AS lhs ON lhs.code = left_code
JOIN nodes AS rhs ON rhs.code = right_code;

DROP TABLE coded;
