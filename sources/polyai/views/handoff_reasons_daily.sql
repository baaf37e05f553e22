-- One row per handoff reason, agent, channel, environment, variant and local date.
-- Answers: Why are callers handed off to people, and which reasons grow?
-- Key: agent_id, channel, environment, variant_id, local_date, handoff_reason
SELECT
  agent_id,
  channel,
  environment,
  variant_id,
  local_date,
  coalesce(handoff_reason, 'unknown') AS handoff_reason,
  count(*) AS handed_off_conversations
FROM conversations_local
WHERE is_finished AND is_handed_off
GROUP BY
  agent_id, channel, environment, variant_id, local_date, coalesce(handoff_reason, 'unknown')
