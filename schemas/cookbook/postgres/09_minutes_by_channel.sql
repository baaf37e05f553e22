-- How many minutes are used each month, and how many of them saved a person's time?
--
-- Finished conversations of all environments, because tests use minutes too. PolyAI computes
-- savings as the agent's minutes times a rate that you set: multiply `contained_polyai_minutes` by
-- yours. Your contract defines what counts as a minute; chats last long and cost little. A
-- conversation without a known duration adds nothing.
--
-- Columns:
-- month: First day of the month, in the reporting time zone.
-- polyai_minutes: Minutes of the agent's part.
-- handle_minutes: Minutes of the whole contacts, including the part after a handoff.
-- contained_polyai_minutes: Minutes of the agent's part of conversations without a handoff.
SELECT
  agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = l.agent_id
  ) AS agent_name,
  CAST(DATE_TRUNC('MONTH', local_date) AS DATE) AS month,
  channel,
  environment,
  COUNT(*) AS finished_conversations,
  CAST(SUM(polyai_duration_seconds) AS DOUBLE PRECISION) / 60 AS polyai_minutes,
  CAST(SUM(handle_time_seconds) AS DOUBLE PRECISION) / 60 AS handle_minutes,
  CAST(SUM(polyai_duration_seconds) FILTER(WHERE
    is_contained) AS DOUBLE PRECISION) / 60 AS contained_polyai_minutes
FROM polyai.conversations_local AS l
WHERE
  is_finished
GROUP BY
  agent_id,
  CAST(DATE_TRUNC('MONTH', local_date) AS DATE),
  channel,
  environment
ORDER BY
  month DESC NULLS LAST,
  agent_id,
  channel,
  environment
