-- One row per function, agent, channel, environment, variant and local date.
-- Answers: Which functions fail or are slow?
-- Key: agent_id, channel, environment, variant_id, local_date, function_name
CREATE OR REPLACE VIEW polyai.function_health_daily AS
SELECT
  ids.agent_id,
  ids.channel,
  ids.environment,
  ids.variant_id,
  ids.local_date,
  ids.function_name,
  ids.function_calls,
  ids.function_errors,
  ids.function_error_rate,
  ids.function_duration_ms_mean,
  ids.function_duration_ms_p50,
  ids.function_duration_ms_p95,
  agents.agent_name,
  variants.variant_name
FROM (
  SELECT
    l.agent_id,
    l.channel,
    l.environment,
    l.variant_id,
    l.local_date,
    COALESCE(f.name, 'unknown') AS function_name,
    COUNT(*) AS function_calls,
    COUNT(f.error) AS function_errors,
    CAST(COUNT(f.error) AS DOUBLE PRECISION) / COUNT(*) AS function_error_rate,
    AVG(f.duration_ms) AS function_duration_ms_mean,
    PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY
      f.duration_ms) AS function_duration_ms_p50,
    PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY
      f.duration_ms) AS function_duration_ms_p95
  FROM polyai.conversations_local AS l
  JOIN polyai.function_events AS f
    ON f.agent_id = l.agent_id AND f.conversation_id = l.conversation_id
  GROUP BY
    l.agent_id,
    l.channel,
    l.environment,
    l.variant_id,
    l.local_date,
    COALESCE(f.name, 'unknown')
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id
LEFT JOIN polyai.variants AS variants
  ON variants.agent_id = ids.agent_id AND variants.variant_id = ids.variant_id;
