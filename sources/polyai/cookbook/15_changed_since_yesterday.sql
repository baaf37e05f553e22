-- Which days' numbers have changed since yesterday?
--
-- Conversations that began more than 24 hours before the newest read and were read again within
-- these 24 hours: they had changed, or were due to be looked at for late scores, surveys and
-- annotations. So a report of last week may differ today, and rightly. A backfill shows here as
-- well, with what it loaded for the first time.
--
-- Columns:
-- conversations: Conversations of the day that were read again.
-- last_fetched_at: When the last of them was read, in UTC.
WITH newest AS (
  SELECT max(newest_fetched_at) - INTERVAL 24 HOUR AS a_day_before
  FROM polyai.data_freshness
)
SELECT
  l.agent_id,
  l.local_date,
  count(*) AS conversations,
  max(l.fetched_at) AS last_fetched_at
FROM polyai.conversations_local AS l
CROSS JOIN newest AS n
WHERE l.fetched_at > n.a_day_before AND l.began_at < n.a_day_before
GROUP BY l.agent_id, l.local_date
ORDER BY l.local_date DESC, l.agent_id
