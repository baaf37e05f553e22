-- One row per agent and deployment that PolyAI has named or that has conversations.
-- Answers: Which version was deployed when, by whom and why, and how long did it answer?
-- Key: agent_id, deployment_id
--
-- Version, time, user and message are NULL where the key may not read the names behind ids.
WITH used AS (
  SELECT
    agent_id,
    deployment_id,
    max(environment) AS environment,
    min(local_date) AS first_local_date,
    max(local_date) AS last_local_date,
    count(*) AS conversations
  FROM conversations_local
  WHERE deployment_id IS NOT NULL
  GROUP BY agent_id, deployment_id
), known AS (
  SELECT agent_id, deployment_id
  FROM used
  UNION
  SELECT agent_id, deployment_id
  FROM deployments
)
SELECT
  k.agent_id,
  k.deployment_id,
  coalesce(d.environment, u.environment, 'unknown') AS environment,
  d.version AS deployment_version,
  d.created_at AS deployed_at,
  d.created_by AS deployed_by,
  d.message AS deployment_message,
  u.first_local_date,
  u.last_local_date,
  coalesce(u.conversations, 0) AS conversations
FROM known AS k
LEFT JOIN used AS u ON u.agent_id = k.agent_id AND u.deployment_id = k.deployment_id
LEFT JOIN deployments AS d ON d.agent_id = k.agent_id AND d.deployment_id = k.deployment_id
