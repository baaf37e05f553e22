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
  ${agent_name(l)},
  coalesce(l.deployment_id, 'unknown') AS deployment_id,
  max(d.version) AS deployment_version,
  max(d.created_at) AS deployed_at,
  max(d.created_by) AS deployed_by,
  max(d.message) AS deployment_message,
  min(l.local_date) AS first_local_date,
  count(DISTINCT l.conversation_id) AS conversations,
  count(*) AS latency_turns,
  quantile_cont(t.latency_seconds, 0.5) AS latency_seconds_p50,
  quantile_cont(t.latency_seconds, 0.95) AS latency_seconds_p95,
  count(*) FILTER (WHERE t.latency_seconds > 3) / count(*) AS share_over_3s
FROM polyai.conversations_local AS l
JOIN polyai.turns AS t ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
LEFT JOIN polyai.deployments AS d
  ON d.agent_id = l.agent_id AND d.deployment_id = l.deployment_id
WHERE l.environment = 'live' AND t.latency_seconds IS NOT NULL
  AND l.local_date > (SELECT max(last_local_date) FROM polyai.dim_agents) - 30
GROUP BY l.agent_id, coalesce(l.deployment_id, 'unknown')
ORDER BY l.agent_id, first_local_date DESC, deployment_id
