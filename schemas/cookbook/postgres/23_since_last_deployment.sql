-- What changed since the last deployment?
--
-- The two newest deployments of each agent in `live`, by the first conversation that each answered,
-- newest first: who deployed what, and how finished conversations went with it. Version, user and
-- message are NULL where the key may not read the names behind ids. The newer deployment has had
-- less time: compare the rates, with an eye on the number of conversations behind them.
--
-- Columns:
-- deployments_ago: 0 for the newest deployment, 1 for the one before.
-- finished_conversations: Finished conversations that the deployment answered.
WITH counted AS (
  SELECT
    agent_id,
    deployment_id,
    MIN(started_at) AS first_started_at,
    COUNT(*) AS finished_conversations,
    COUNT(*) FILTER(WHERE
      is_contained) AS contained,
    AVG(handle_time_seconds) AS handle_time_seconds_mean,
    AVG(poly_score) FILTER(WHERE
      poly_score_scale = '1-5') AS poly_score_1_5_mean
  FROM polyai.fct_conversations
  WHERE
    environment = 'live' AND is_finished AND NOT deployment_id IS NULL
  GROUP BY
    agent_id,
    deployment_id
), ordered AS (
  SELECT
    *,
    ROW_NUMBER() OVER (PARTITION BY agent_id ORDER BY first_started_at DESC NULLS LAST, deployment_id) - 1 AS deployments_ago
  FROM counted
)
SELECT
  o.agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = o.agent_id
  ) AS agent_name,
  o.deployments_ago,
  o.deployment_id,
  d.deployment_version,
  d.deployed_at,
  d.deployed_by,
  d.deployment_message,
  o.finished_conversations,
  CAST(o.contained AS DOUBLE PRECISION) / o.finished_conversations AS containment_rate,
  o.handle_time_seconds_mean,
  o.poly_score_1_5_mean
FROM ordered AS o
LEFT JOIN polyai.dim_deployments AS d
  ON d.agent_id = o.agent_id AND d.deployment_id = o.deployment_id
WHERE
  o.deployments_ago < 2
ORDER BY
  o.agent_id,
  o.deployments_ago
