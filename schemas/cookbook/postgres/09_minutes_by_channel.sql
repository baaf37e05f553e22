-- How many minutes do we use each month, and how many of them spared a person?
--
-- Finished conversations of all environments, because tests use minutes too. PolyAI works savings
-- out as the agent's part times a rate that you set: multiply `contained_polyai_minutes` by yours.
-- What your contract counts as a minute stands in the contract; chats last long and cost little.
-- A conversation without a known duration adds nothing.
--
-- Columns:
-- month: First day of the month, in the reporting zone.
-- polyai_minutes: The agent's part.
-- handle_minutes: The whole contacts, with the part after a handoff.
-- contained_polyai_minutes: The agent's part of those without a handoff.
SELECT
  agent_id,
  CAST(DATE_TRUNC('MONTH', local_date) AS DATE) AS month,
  channel,
  environment,
  COUNT(*) AS finished_conversations,
  CAST(SUM(polyai_duration_seconds) AS DOUBLE PRECISION) / 60 AS polyai_minutes,
  CAST(SUM(handle_time_seconds) AS DOUBLE PRECISION) / 60 AS handle_minutes,
  CAST(SUM(polyai_duration_seconds) FILTER(WHERE
    is_contained) AS DOUBLE PRECISION) / 60 AS contained_polyai_minutes
FROM polyai.conversations_local
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
