-- Which topics do callers ask about more than before?
--
-- `live` conversations by knowledge topic, the last 28 days compared with the 28 days before: whole
-- weeks, so that both periods have the same number of weekends. Shares are of all conversations,
-- because a topic that grows with the volume is not news. A conversation counts for each of its
-- topics, so shares add up to more than 1.
--
-- Columns:
-- conversations: Conversations of the last 28 days.
-- conversations_before: Conversations of the 28 days before.
-- share: Share of all conversations of the last 28 days; NULL if there were none.
-- share_before: Share of all conversations of the 28 days before.
-- share_change: share − share_before, NULL counting as 0.
WITH newest AS (
  SELECT
    MAX(last_local_date) AS local_date
  FROM polyai.dim_agents
), totals AS (
  SELECT
    k.agent_id,
    SUM(k.conversations) FILTER(WHERE
      k.local_date > n.local_date - 28) AS conversations,
    SUM(k.conversations) FILTER(WHERE
      k.local_date <= n.local_date - 28) AS conversations_before
  FROM polyai.kpi_daily AS k
  CROSS JOIN newest AS n
  WHERE
    k.environment = 'live' AND k.local_date > n.local_date - 56
  GROUP BY
    k.agent_id
), asked AS (
  SELECT
    t.agent_id,
    t.topic,
    COALESCE(SUM(t.conversations) FILTER(WHERE
      t.local_date > n.local_date - 28), 0) AS conversations,
    COALESCE(SUM(t.conversations) FILTER(WHERE
      t.local_date <= n.local_date - 28), 0) AS conversations_before
  FROM polyai.topics_daily AS t
  CROSS JOIN newest AS n
  WHERE
    t.environment = 'live' AND t.local_date > n.local_date - 56
  GROUP BY
    t.agent_id,
    t.topic
), shared AS (
  SELECT
    a.agent_id,
    a.topic,
    a.conversations,
    a.conversations_before,
    CAST(a.conversations AS DOUBLE PRECISION) / NULLIF(t.conversations, 0) AS share,
    CAST(a.conversations_before AS DOUBLE PRECISION) / NULLIF(t.conversations_before, 0) AS share_before
  FROM asked AS a
  JOIN totals AS t
    ON t.agent_id = a.agent_id
)
SELECT
  agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = s.agent_id
  ) AS agent_name,
  topic,
  conversations,
  conversations_before,
  share,
  share_before,
  COALESCE(share, 0) - COALESCE(share_before, 0) AS share_change
FROM shared AS s
ORDER BY
  agent_id,
  share_change DESC NULLS LAST,
  topic
