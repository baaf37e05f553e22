-- Did containment improve last month, and for which variants?
--
-- Contained ÷ finished conversations of each calendar month, `live` only; last month is the month
-- before that of the newest conversation. Daily counts are added up before they are divided: the
-- mean of daily rates would give a quiet Sunday the weight of a Monday. By PolyAI's rule, a
-- conversation that the caller gave up counts as contained; use
-- `contained_excl_abandoned_conversations` for the stricter rate.
--
-- Columns:
-- finished_before: Finished conversations of the month before last month.
-- containment_rate: Containment rate of last month; NULL without a finished conversation.
-- containment_rate_before: Containment rate of the month before last month.
-- containment_rate_change: Last month minus the month before; 0.02 is two percentage points.
WITH months AS (
  SELECT
    CAST(DATE_TRUNC('MONTH', MAX(last_local_date)) AS DATE) AS this_month,
    CAST(DATE_TRUNC('MONTH', MAX(last_local_date)) - INTERVAL '1 MONTH' AS DATE) AS last_month,
    CAST(DATE_TRUNC('MONTH', MAX(last_local_date)) - INTERVAL '2 MONTH' AS DATE) AS month_before
  FROM polyai.dim_agents
), counted AS (
  SELECT
    k.agent_id,
    k.variant_id,
    SUM(k.finished_conversations) FILTER(WHERE
      k.local_date >= m.last_month) AS finished,
    SUM(k.contained_conversations) FILTER(WHERE
      k.local_date >= m.last_month) AS contained,
    SUM(k.finished_conversations) FILTER(WHERE
      k.local_date < m.last_month) AS finished_before,
    SUM(k.contained_conversations) FILTER(WHERE
      k.local_date < m.last_month) AS contained_before
  FROM polyai.kpi_daily AS k
  CROSS JOIN months AS m
  WHERE
    k.environment = 'live'
    AND k.local_date >= m.month_before
    AND k.local_date < m.this_month
  GROUP BY
    k.agent_id,
    k.variant_id
)
SELECT
  c.agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = c.agent_id
  ) AS agent_name,
  c.variant_id,
  v.variant_name,
  c.finished AS finished_conversations,
  c.finished_before,
  CAST(c.contained AS DOUBLE PRECISION) / NULLIF(c.finished, 0) AS containment_rate,
  CAST(c.contained_before AS DOUBLE PRECISION) / NULLIF(c.finished_before, 0) AS containment_rate_before,
  CAST(c.contained AS DOUBLE PRECISION) / NULLIF(c.finished, 0) - CAST(c.contained_before AS DOUBLE PRECISION) / NULLIF(c.finished_before, 0) AS containment_rate_change
FROM counted AS c
JOIN polyai.dim_variants AS v
  ON v.agent_id = c.agent_id AND v.variant_id = c.variant_id
ORDER BY
  c.agent_id,
  c.finished DESC NULLS LAST,
  c.variant_id
