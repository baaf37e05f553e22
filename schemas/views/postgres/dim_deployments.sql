-- One row per agent and deployment that PolyAI has named or that has conversations.
-- Answers: Which version was deployed when, by whom and why, and how long did it answer?
-- Key: agent_id, deployment_id
--
-- Version, time, user and message are NULL where the key may not read the names behind ids.
CREATE OR REPLACE VIEW polyai.dim_deployments AS
WITH used AS (
  SELECT
    agent_id,
    deployment_id,
    MAX(environment) AS environment,
    MIN(local_date) AS first_local_date,
    MAX(local_date) AS last_local_date,
    COUNT(*) AS conversations
  FROM polyai.conversations_local
  WHERE
    NOT deployment_id IS NULL
  GROUP BY
    agent_id,
    deployment_id
), known AS (
  SELECT
    agent_id,
    deployment_id
  FROM used
  UNION
  SELECT
    agent_id,
    deployment_id
  FROM polyai.deployments
)
SELECT
  ids.agent_id,
  ids.deployment_id,
  ids.environment,
  ids.deployment_version,
  ids.deployed_at,
  ids.deployed_by,
  ids.deployment_message,
  ids.first_local_date,
  ids.last_local_date,
  ids.conversations,
  agents.agent_name
FROM (
  SELECT
    k.agent_id,
    k.deployment_id,
    COALESCE(d.environment, u.environment, 'unknown') AS environment,
    d.version AS deployment_version,
    d.created_at AS deployed_at,
    d.created_by AS deployed_by,
    d.message AS deployment_message,
    u.first_local_date,
    u.last_local_date,
    COALESCE(u.conversations, 0) AS conversations
  FROM known AS k
  LEFT JOIN used AS u
    ON u.agent_id = k.agent_id AND u.deployment_id = k.deployment_id
  LEFT JOIN polyai.deployments AS d
    ON d.agent_id = k.agent_id AND d.deployment_id = k.deployment_id
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id;
