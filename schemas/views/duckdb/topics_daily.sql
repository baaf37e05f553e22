-- One row per knowledge topic, agent, channel, environment, variant and local date.
-- Answers: What do callers ask about, and which topics grow?
-- Key: agent_id, channel, environment, variant_id, local_date, topic
CREATE OR REPLACE VIEW polyai.topics_daily AS
SELECT
  l.agent_id,
  l.channel,
  l.environment,
  l.variant_id,
  l.local_date,
  t.topic,
  COUNT(DISTINCT l.conversation_id) AS conversations,
  COUNT(*) AS retrievals
FROM polyai.conversations_local AS l
JOIN polyai.turn_topics AS t
  ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
GROUP BY
  l.agent_id,
  l.channel,
  l.environment,
  l.variant_id,
  l.local_date,
  t.topic;
