-- One row per loaded agent, even without conversations.
-- Answers: Which agents are in the warehouse, and since when?
-- Key: agent_id
CREATE OR REPLACE VIEW polyai.dim_agents AS
WITH known AS (
  SELECT DISTINCT
    agent_id
  FROM polyai.sync_runs
  UNION
  SELECT DISTINCT
    agent_id
  FROM polyai.conversations
)
SELECT
  k.agent_id,
  MAX(l.account_id) AS account_id,
  MAX(l.region) AS region,
  MIN(l.local_date) AS first_local_date,
  MAX(l.local_date) AS last_local_date,
  COUNT(l.conversation_id) AS conversations,
  MAX(n.agent_name) AS agent_name
FROM known AS k
LEFT JOIN polyai.conversations_local AS l
  ON l.agent_id = k.agent_id
LEFT JOIN polyai.agents AS n
  ON n.agent_id = k.agent_id
GROUP BY
  k.agent_id;
