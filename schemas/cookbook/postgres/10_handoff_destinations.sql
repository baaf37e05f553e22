-- Where are callers handed off to, and why?
--
-- Finished `live` conversations over the last 30 days that were handed off to a human. The reason
-- is free text of the agent, so two spellings are two rows.
--
-- Columns:
-- handoff_destination: Destination of the handoff, or `unknown`.
-- handoff_reason: Reason for the handoff, or `unknown`.
-- share_of_handoffs: Share of all handoffs of the agent.
-- polyai_duration_seconds_mean: Mean duration of the agent's part before the handoff.
SELECT
  agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = l.agent_id
  ) AS agent_name,
  COALESCE(handoff_destination, 'unknown') AS handoff_destination,
  COALESCE(handoff_reason, 'unknown') AS handoff_reason,
  COUNT(*) AS handed_off_conversations,
  CAST(COUNT(*) AS DOUBLE PRECISION) / SUM(COUNT(*)) OVER (PARTITION BY agent_id) AS share_of_handoffs,
  AVG(polyai_duration_seconds) AS polyai_duration_seconds_mean
FROM polyai.conversations_local AS l
WHERE
  environment = 'live'
  AND is_finished
  AND is_handed_off
  AND local_date > (
    SELECT
      MAX(last_local_date)
    FROM polyai.dim_agents
  ) - 30
GROUP BY
  agent_id,
  COALESCE(handoff_destination, 'unknown'),
  COALESCE(handoff_reason, 'unknown')
ORDER BY
  agent_id,
  handed_off_conversations DESC NULLS LAST,
  handoff_destination,
  handoff_reason
