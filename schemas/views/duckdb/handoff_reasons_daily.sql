-- One row per handoff reason, agent, channel, environment, variant and local date.
-- Answers: Why are callers handed off to people, and which reasons grow?
-- Key: agent_id, channel, environment, variant_id, local_date, handoff_reason
CREATE OR REPLACE VIEW polyai.handoff_reasons_daily AS
SELECT
  ids.agent_id,
  ids.channel,
  ids.environment,
  ids.variant_id,
  ids.local_date,
  ids.handoff_reason,
  ids.handed_off_conversations,
  agents.agent_name,
  variants.variant_name
FROM (
  SELECT
    agent_id,
    channel,
    environment,
    variant_id,
    local_date,
    COALESCE(handoff_reason, 'unknown') AS handoff_reason,
    COUNT(*) AS handed_off_conversations
  FROM polyai.conversations_local
  WHERE
    is_finished AND is_handed_off
  GROUP BY
    agent_id,
    channel,
    environment,
    variant_id,
    local_date,
    COALESCE(handoff_reason, 'unknown')
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id
LEFT JOIN polyai.variants AS variants
  ON variants.agent_id = ids.agent_id AND variants.variant_id = ids.variant_id;
