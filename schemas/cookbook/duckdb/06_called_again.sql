-- Who calls again within a week, and what was the first call about?
--
-- Inbound `live` conversations by topic, and how many of them were followed by another one of the
-- same caller within 7 days. They began 7 to 97 days before the newest conversation, so that a full
-- week has passed since each. Only callers with a number or an address can be recognised; a
-- switchboard looks like one person who calls all day. A conversation counts for each of its
-- topics.
--
-- Columns:
-- conversations: Conversations about the topic with a known caller.
-- called_again: Of these, followed by another one of the same caller within 7 days.
-- called_again_rate: called_again ÷ conversations.
-- callers: Distinct callers who called again.
WITH asked AS (
  SELECT DISTINCT agent_id, conversation_id, topic
  FROM polyai.turn_topics
), newest AS (
  SELECT max(last_local_date) AS local_date
  FROM polyai.dim_agents
)
SELECT
  a.agent_id,
  (SELECT n.agent_name FROM polyai.agents AS n WHERE n.agent_id = a.agent_id) AS agent_name,
  a.topic,
  count(*) AS conversations,
  count(r.conversation_id) AS called_again,
  count(r.conversation_id) / count(*) AS called_again_rate,
  count(DISTINCT r.caller) AS callers
FROM polyai.conversations_local AS l
CROSS JOIN newest AS n
JOIN asked AS a ON a.agent_id = l.agent_id AND a.conversation_id = l.conversation_id
LEFT JOIN polyai.repeat_callers AS r
  ON r.agent_id = l.agent_id AND r.previous_conversation_id = l.conversation_id
  AND r.hours_since_previous <= 7 * 24
WHERE l.environment = 'live'
  AND l.direction <> 'outbound'
  AND l.from_number NOT IN ('REDACTED', 'polyai')
  AND l.from_number NOT LIKE '%[dropped]%'
  AND l.local_date > n.local_date - 97 AND l.local_date <= n.local_date - 7
GROUP BY a.agent_id, a.topic
ORDER BY called_again DESC, a.agent_id, a.topic
