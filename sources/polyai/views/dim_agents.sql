-- One row per loaded agent, even without conversations.
-- Answers: Which agents are in the warehouse, and since when?
-- Key: agent_id
WITH known AS (
  SELECT DISTINCT agent_id
  FROM sync_runs
  UNION
  SELECT DISTINCT agent_id
  FROM conversations
)
SELECT
  k.agent_id,
  max(l.account_id) AS account_id,
  max(l.region) AS region,
  min(l.local_date) AS first_local_date,
  max(l.local_date) AS last_local_date,
  count(l.conversation_id) AS conversations,
  max(n.agent_name) AS agent_name
FROM known AS k
LEFT JOIN conversations_local AS l ON l.agent_id = k.agent_id
LEFT JOIN agents AS n ON n.agent_id = k.agent_id
GROUP BY k.agent_id
