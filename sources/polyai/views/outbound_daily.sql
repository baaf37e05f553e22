-- One row per agent, channel, environment, variant and local date with outbound conversations.
-- Answers: How many people were called, how many answered, and how did the calls end?
-- Key: agent_id, channel, environment, variant_id, local_date
SELECT
  agent_id,
  channel,
  environment,
  variant_id,
  local_date,
  count(*) AS conversations,
  count(CASE WHEN is_finished THEN 1 END) AS finished_conversations,
  count(CASE WHEN is_finished AND has_caller_spoken THEN 1 END) AS answered_conversations,
  count(CASE WHEN is_finished AND is_handed_off THEN 1 END) AS handed_off_conversations,
  count(CASE WHEN is_contained_excl_abandoned THEN 1 END) AS contained_excl_abandoned_conversations,
  CAST(count(CASE WHEN is_finished AND has_caller_spoken THEN 1 END) AS DOUBLE)
    / nullif(count(CASE WHEN is_finished THEN 1 END), 0) AS answer_rate,
  avg(handle_time_seconds) AS handle_time_seconds_mean
FROM fct_conversations
WHERE direction = 'outbound'
GROUP BY agent_id, channel, environment, variant_id, local_date
