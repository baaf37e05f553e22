-- One row per function, agent, channel, environment, variant and local date.
-- Answers: Which functions fail or are slow?
-- Key: agent_id, channel, environment, variant_id, local_date, function_name
SELECT
  l.agent_id,
  l.channel,
  l.environment,
  l.variant_id,
  l.local_date,
  coalesce(f.name, 'unknown') AS function_name,
  count(*) AS function_calls,
  count(f.error) AS function_errors,
  CAST(count(f.error) AS DOUBLE) / count(*) AS function_error_rate,
  avg(f.duration_ms) AS function_duration_ms_mean,
  quantile_cont(f.duration_ms, 0.5) AS function_duration_ms_p50,
  quantile_cont(f.duration_ms, 0.95) AS function_duration_ms_p95
FROM conversations_local AS l
JOIN function_events AS f ON f.agent_id = l.agent_id AND f.conversation_id = l.conversation_id
GROUP BY
  l.agent_id, l.channel, l.environment, l.variant_id, l.local_date, coalesce(f.name, 'unknown')
