-- For which days have the numbers changed since yesterday?
--
-- Conversations that began more than 24 hours before the newest fetch and were fetched again within
-- these 24 hours: they had changed, or had reached an age at which they are fetched again for late
-- scores, surveys and annotations. So last week's report can rightly differ today. Conversations
-- that a backfill loaded for the first time are included.
--
-- Columns:
-- conversations: Conversations of the day that were fetched again.
-- last_fetched_at: Time of the latest of these fetches, UTC.
WITH newest AS (
  SELECT
    MAX(newest_fetched_at) - INTERVAL '24 HOUR' AS a_day_before
  FROM polyai.data_freshness
)
SELECT
  l.agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = l.agent_id
  ) AS agent_name,
  l.local_date,
  COUNT(*) AS conversations,
  MAX(l.fetched_at) AS last_fetched_at
FROM polyai.conversations_local AS l
CROSS JOIN newest AS n
WHERE
  l.fetched_at > n.a_day_before AND l.began_at < n.a_day_before
GROUP BY
  l.agent_id,
  l.local_date
ORDER BY
  l.local_date DESC NULLS LAST,
  l.agent_id
