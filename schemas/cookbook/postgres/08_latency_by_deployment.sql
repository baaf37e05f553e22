-- Did a deployment make the agent slower?
--
-- Percentiles over the turns with a known latency of each deployment, `live` only, over the last 30
-- days, newest deployment first. They are computed from the turns, because percentiles of daily
-- percentiles mean nothing. PolyAI's target is below 2 seconds; above 3 seconds is a red flag. With
-- few turns, the 95th percentile is a single bad turn.
--
-- Columns:
-- deployment_id: Deployment of the agent that answered, or `unknown`.
-- first_local_date: Local date of its first conversation in the period.
-- conversations: Conversations with a turn of known latency.
-- share_over_3s: Turns with a latency above 3 s ÷ turns.
SELECT
  l.agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = l.agent_id
  ) AS agent_name,
  COALESCE(l.deployment_id, 'unknown') AS deployment_id,
  MAX(d.version) AS deployment_version,
  MAX(d.created_at) AS deployed_at,
  MAX(d.created_by) AS deployed_by,
  MAX(d.message) AS deployment_message,
  MIN(l.local_date) AS first_local_date,
  COUNT(DISTINCT l.conversation_id) AS conversations,
  COUNT(*) AS latency_turns,
  PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY
    t.latency_seconds) AS latency_seconds_p50,
  PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY
    t.latency_seconds) AS latency_seconds_p95,
  CAST(COUNT(*) FILTER(WHERE
    t.latency_seconds > 3) AS DOUBLE PRECISION) / COUNT(*) AS share_over_3s
FROM polyai.conversations_local AS l
JOIN polyai.turns AS t
  ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
LEFT JOIN polyai.deployments AS d
  ON d.agent_id = l.agent_id AND d.deployment_id = l.deployment_id
WHERE
  l.environment = 'live'
  AND NOT t.latency_seconds IS NULL
  AND l.local_date > (
    SELECT
      MAX(last_local_date)
    FROM polyai.dim_agents
  ) - 30
GROUP BY
  l.agent_id,
  COALESCE(l.deployment_id, 'unknown')
ORDER BY
  l.agent_id,
  first_local_date DESC NULLS LAST,
  deployment_id
