-- `post` to `assigned`: its part, and whether it is in the graph window. Null cuts are open ends.
-- $by time: by the post's time. author, random: by a number in [0, 1) drawn from a hash of the author's or post's key.

CREATE TABLE assigned AS
WITH placed AS (
    SELECT
        post_id, created_at, author,
        drawn($seed::VARCHAR, CASE WHEN $by = 'author' THEN author ELSE post_id END) AS draw,
        created_at >= $graph_from AND created_at < $graph_until AS in_window
    FROM post
), parted AS (
    SELECT post_id, created_at, in_window, author, CASE
        -- Known from its reposts alone: nobody's post is not trained or tested on.
        WHEN author IS NULL THEN NULL
        WHEN $by = 'time' THEN part(created_at, $train_from, $validation_from, $test_from)
        ELSE part(draw, $train_share, $validation_share, $test_share)
    END AS split FROM placed
)
SELECT
    post_id, created_at, split,
    -- Where the parts are not parts of time, the graph sees posts of the train part only.
    in_window AND ($by = 'time' OR author IS NULL OR coalesce(split = 'train', false)) AS graph
FROM parted
ORDER BY created_at, post_id;
