-- One row per agent, channel, environment, variant and local date with outbound conversations.
-- Answers: How many people were called, how many answered, and how did the calls end?
-- Key: agent_id, channel, environment, variant_id, local_date
CREATE OR REPLACE VIEW polyai.outbound_daily AS
SELECT
  agent_id,
  channel,
  environment,
  variant_id,
  local_date,
  COUNT(*) AS conversations,
  COUNT(CASE WHEN is_finished THEN 1 END) AS finished_conversations,
  COUNT(CASE WHEN is_finished AND has_caller_spoken THEN 1 END) AS answered_conversations,
  COUNT(CASE WHEN is_finished AND is_handed_off THEN 1 END) AS handed_off_conversations,
  COUNT(CASE WHEN is_contained_excl_abandoned THEN 1 END) AS contained_excl_abandoned_conversations,
  CAST(COUNT(CASE WHEN is_finished AND has_caller_spoken THEN 1 END) AS DOUBLE PRECISION) / NULLIF(COUNT(CASE WHEN is_finished THEN 1 END), 0) AS answer_rate,
  AVG(handle_time_seconds) AS handle_time_seconds_mean
FROM polyai.fct_conversations
WHERE
  direction = 'outbound'
GROUP BY
  agent_id,
  channel,
  environment,
  variant_id,
  local_date;
