-- What changed since the last deployment?
--
-- The two newest deployments of each agent in `live`, newest first: who deployed what, and how finished
-- conversations went with it. The newest is the last one deployed, even if it has not finished a
-- conversation yet; its rates are then NULL. Where the key may not read the names behind ids, version,
-- user and message are NULL, and the first conversation counts as the time of the deployment. The
-- newer deployment has had less time: compare the rates, with an eye on the number of conversations
-- behind them.
--
-- Columns:
-- deployments_ago: 0 for the newest deployment, 1 for the one before.
-- finished_conversations: Finished conversations that the deployment answered.
WITH counted AS (
  SELECT
    agent_id,
    deployment_id,
    min(began_at) AS first_began_at,
    count(*) FILTER (WHERE is_finished) AS finished_conversations,
    count(*) FILTER (WHERE is_contained) AS contained,
    avg(handle_time_seconds) AS handle_time_seconds_mean,
    avg(poly_score) FILTER (WHERE is_finished AND poly_score_scale = '1-5') AS poly_score_1_5_mean
  FROM polyai.fct_conversations
  WHERE environment = 'live' AND deployment_id IS NOT NULL
  GROUP BY agent_id, deployment_id
), ordered AS (
  SELECT
    d.agent_id,
    d.deployment_id,
    d.deployment_version,
    d.deployed_at,
    d.deployed_by,
    d.deployment_message,
    coalesce(c.finished_conversations, 0) AS finished_conversations,
    c.contained,
    c.handle_time_seconds_mean,
    c.poly_score_1_5_mean,
    row_number() OVER (
      PARTITION BY d.agent_id
      ORDER BY coalesce(d.deployed_at, c.first_began_at) DESC NULLS LAST, d.deployment_id
    ) - 1 AS deployments_ago
  FROM polyai.dim_deployments AS d
  LEFT JOIN counted AS c ON c.agent_id = d.agent_id AND c.deployment_id = d.deployment_id
  WHERE d.environment = 'live' OR c.deployment_id IS NOT NULL
)
SELECT
  o.agent_id,
  ${agent_name(o)},
  o.deployments_ago,
  o.deployment_id,
  o.deployment_version,
  o.deployed_at,
  o.deployed_by,
  o.deployment_message,
  o.finished_conversations,
  o.contained / nullif(o.finished_conversations, 0) AS containment_rate,
  o.handle_time_seconds_mean,
  o.poly_score_1_5_mean
FROM ordered AS o
WHERE o.deployments_ago < 2
ORDER BY o.agent_id, o.deployments_ago
