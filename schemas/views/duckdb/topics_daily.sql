-- One row per knowledge topic, agent, channel, environment, variant and local date.
-- Answers: What do callers ask about, and which topics grow?
-- Key: agent_id, channel, environment, variant_id, local_date, topic
CREATE OR REPLACE VIEW polyai.topics_daily AS
SELECT
  ids.agent_id,
  ids.channel,
  ids.environment,
  ids.variant_id,
  ids.local_date,
  ids.topic,
  ids.conversations,
  ids.retrievals,
  agents.agent_name,
  variants.variant_name
FROM (
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
    t.topic
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id
LEFT JOIN polyai.variants AS variants
  ON variants.agent_id = ids.agent_id AND variants.variant_id = ids.variant_id;
