-- One row per threshold that an agent crossed on a local date; `live` conversations only.
-- Answers: What is wrong and needs attention today?
-- Key: agent_id, local_date, flag
--
-- The thresholds are PolyAI's. `latency_p50` and `latency_p95`: above 3 seconds. `function_errors`:
-- above 5 % of the calls. `handoff_rate`: above 50 %. `handoff_above_baseline`: at least 20 % above
-- the rate of the seven days before. `volume_down`: at least 30 % below the mean of the same
-- weekday in the four weeks before, as far back as the agent's first day; days without
-- conversations count as 0. The volume of today is not evaluated before the day is over.
CREATE OR REPLACE VIEW polyai.red_flags AS
WITH first_days AS (
  SELECT
    agent_id,
    MIN(local_date) AS first_local_date
  FROM polyai.conversations_local
  WHERE
    environment = 'live'
  GROUP BY
    agent_id
), counts AS (
  SELECT
    agent_id,
    local_date,
    COUNT(*) AS conversations,
    COUNT(CASE WHEN is_finished THEN 1 END) AS finished_conversations,
    COUNT(CASE WHEN is_finished AND is_handed_off THEN 1 END) AS handed_off_conversations
  FROM polyai.conversations_local
  WHERE
    environment = 'live'
  GROUP BY
    agent_id,
    local_date
), days AS (
  SELECT
    a.agent_id,
    d.local_date,
    d.iso_weekday,
    COALESCE(c.conversations, 0) AS conversations,
    COALESCE(c.finished_conversations, 0) AS finished_conversations,
    COALESCE(c.handed_off_conversations, 0) AS handed_off_conversations
  FROM first_days AS a
  JOIN polyai.dim_dates AS d
    ON d.local_date >= a.first_local_date
  LEFT JOIN counts AS c
    ON c.agent_id = a.agent_id AND c.local_date = d.local_date
), compared AS (
  SELECT
    agent_id,
    local_date,
    conversations,
    CAST(handed_off_conversations AS DOUBLE) / NULLIF(finished_conversations, 0) AS handoff_rate,
    CAST(SUM(handed_off_conversations) OVER (PARTITION BY agent_id ORDER BY local_date ROWS BETWEEN 7 PRECEDING AND 1 PRECEDING) AS DOUBLE) / NULLIF(
      SUM(finished_conversations) OVER (PARTITION BY agent_id ORDER BY local_date ROWS BETWEEN 7 PRECEDING AND 1 PRECEDING),
      0
    ) AS handoff_rate_baseline,
    CAST(AVG(conversations) OVER (
      PARTITION BY agent_id, iso_weekday
      ORDER BY local_date
      ROWS BETWEEN 4 PRECEDING AND 1 PRECEDING
    ) AS DOUBLE) AS conversations_baseline
  FROM days
), latencies AS (
  SELECT
    l.agent_id,
    l.local_date,
    QUANTILE_CONT(t.latency_seconds, 0.5) AS latency_seconds_p50,
    QUANTILE_CONT(t.latency_seconds, 0.95) AS latency_seconds_p95
  FROM polyai.conversations_local AS l
  JOIN polyai.turns AS t
    ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
  WHERE
    l.environment = 'live'
  GROUP BY
    l.agent_id,
    l.local_date
), functions AS (
  SELECT
    agent_id,
    local_date,
    CAST(SUM(function_errors) AS DOUBLE) / SUM(function_calls) AS function_error_rate
  FROM polyai.function_health_daily
  WHERE
    environment = 'live'
  GROUP BY
    agent_id,
    local_date
), judged AS (
  SELECT
    agent_id,
    local_date,
    'latency_p50' AS flag,
    latency_seconds_p50 AS value,
    CAST(3 AS DOUBLE) AS threshold,
    CAST(NULL AS DOUBLE) AS baseline,
    latency_seconds_p50 > 3 AS is_red
  FROM latencies
  UNION ALL
  SELECT
    agent_id,
    local_date,
    'latency_p95',
    latency_seconds_p95,
    CAST(3 AS DOUBLE),
    CAST(NULL AS DOUBLE),
    latency_seconds_p95 > 3
  FROM latencies
  UNION ALL
  SELECT
    agent_id,
    local_date,
    'function_errors',
    function_error_rate,
    CAST(0.05 AS DOUBLE),
    CAST(NULL AS DOUBLE),
    function_error_rate > 0.05
  FROM functions
  UNION ALL
  SELECT
    agent_id,
    local_date,
    'handoff_rate',
    handoff_rate,
    CAST(0.5 AS DOUBLE),
    CAST(NULL AS DOUBLE),
    handoff_rate > 0.5
  FROM compared
  UNION ALL
  SELECT
    agent_id,
    local_date,
    'handoff_above_baseline',
    handoff_rate,
    1.2 * handoff_rate_baseline,
    handoff_rate_baseline,
    handoff_rate_baseline > 0 AND handoff_rate >= 1.2 * handoff_rate_baseline
  FROM compared
  UNION ALL
  SELECT
    agent_id,
    local_date,
    'volume_down',
    CAST(conversations AS DOUBLE),
    0.7 * conversations_baseline,
    conversations_baseline,
    conversations_baseline > 0 AND conversations <= 0.7 * conversations_baseline
  FROM compared
  WHERE
    local_date < CAST(CURRENT_TIMESTAMP AT TIME ZONE 'UTC' AS DATE)
)
SELECT
  ids.agent_id,
  ids.local_date,
  ids.flag,
  ids.value,
  ids.threshold,
  ids.baseline,
  agents.agent_name
FROM (
  SELECT
    agent_id,
    local_date,
    flag,
    value,
    threshold,
    baseline
  FROM judged
  WHERE
    is_red
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id;
