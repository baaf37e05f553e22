-- When do people call, by weekday and hour of the local clock?
--
-- `live` conversations that began in the last 28 days, so that each weekday occurs four times.
-- Hours are in the reporting time zone, with daylight saving time; `started_at` is in UTC. An hour
-- without conversations has no row. Handoffs are counted separately, because they need staff.
--
-- Columns:
-- conversations_per_day: Conversations in the hour of one such day: a quarter of `conversations`.
SELECT
  d.iso_weekday,
  l.local_hour,
  COUNT(*) AS conversations,
  CAST(COUNT(*) AS DOUBLE PRECISION) / 4 AS conversations_per_day,
  COUNT(*) FILTER(WHERE
    l.is_finished AND l.is_handed_off) AS handed_off_conversations
FROM polyai.conversations_local AS l
JOIN polyai.dim_dates AS d
  ON d.local_date = l.local_date
WHERE
  l.environment = 'live'
  AND l.local_date > (
    SELECT
      MAX(last_local_date)
    FROM polyai.dim_agents
  ) - 28
GROUP BY
  d.iso_weekday,
  l.local_hour
ORDER BY
  conversations DESC NULLS LAST,
  d.iso_weekday,
  l.local_hour
