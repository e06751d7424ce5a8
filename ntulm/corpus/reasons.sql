-- Why records are rejects ($is_reject) or left out: reason, records, file and line of the first.

WITH found AS (
    SELECT reason, count(*) AS times, min(ordinal) AS ordinal
    FROM (SELECT ordinal, CASE WHEN $is_reject THEN reject ELSE left_out END AS reason FROM record)
    WHERE reason IS NOT NULL
    GROUP BY reason
), shown AS (
    SELECT CASE WHEN row_number() OVER (ORDER BY times DESC, reason) > $most THEN $other ELSE reason END AS reason, times, ordinal
    FROM found
)
SELECT reason, times, file, line
FROM (SELECT reason, sum(times)::BIGINT AS times, min(ordinal) AS ordinal FROM shown GROUP BY reason)
JOIN record USING (ordinal)
ORDER BY times DESC, reason;
