-- When do people call, by weekday and hour of our own clock?
--
-- Conversations of `live` that began in the last 28 days, in which each weekday comes four times.
-- Hours are those of the reporting time zone, with its summer time: never those of `started_at`,
-- which is UTC. An hour without a conversation has no row. People are needed for what is handed
-- off, so that is counted beside.
--
-- Columns:
-- conversations_per_day: A quarter of `conversations`: how many such an hour has on one such day.
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
