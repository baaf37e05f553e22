-- One row per agent, channel, environment, variant and local date with turns.
-- Answers: How long do callers wait for a response, and how often too long?
-- Key: agent_id, channel, environment, variant_id, local_date
CREATE OR REPLACE VIEW polyai.turn_latency_daily AS
SELECT
  ids.agent_id,
  ids.channel,
  ids.environment,
  ids.variant_id,
  ids.local_date,
  ids.turns,
  ids.latency_turns,
  ids.latency_seconds_sum,
  ids.latency_seconds_mean,
  ids.latency_seconds_p50,
  ids.latency_seconds_p95,
  ids.latency_seconds_p99,
  ids.latency_seconds_max,
  ids.num_turns_over_2s,
  ids.num_turns_over_3s,
  agents.agent_name,
  variants.variant_name
FROM (
  SELECT
    l.agent_id,
    l.channel,
    l.environment,
    l.variant_id,
    l.local_date,
    COUNT(*) AS turns,
    COUNT(t.latency_seconds) AS latency_turns,
    SUM(t.latency_seconds) AS latency_seconds_sum,
    AVG(t.latency_seconds) AS latency_seconds_mean,
    PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY
      t.latency_seconds) AS latency_seconds_p50,
    PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY
      t.latency_seconds) AS latency_seconds_p95,
    PERCENTILE_CONT(0.99) WITHIN GROUP (ORDER BY
      t.latency_seconds) AS latency_seconds_p99,
    MAX(t.latency_seconds) AS latency_seconds_max,
    COUNT(CASE WHEN t.latency_seconds > 2 THEN 1 END) AS num_turns_over_2s,
    COUNT(CASE WHEN t.latency_seconds > 3 THEN 1 END) AS num_turns_over_3s
  FROM polyai.conversations_local AS l
  JOIN polyai.turns AS t
    ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
  GROUP BY
    l.agent_id,
    l.channel,
    l.environment,
    l.variant_id,
    l.local_date
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id
LEFT JOIN polyai.variants AS variants
  ON variants.agent_id = ids.agent_id AND variants.variant_id = ids.variant_id;
