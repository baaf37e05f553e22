-- One row per agent, channel, environment, variant and local date with outbound conversations.
-- Answers: How many people were called, how many answered, and how did the calls end?
-- Key: agent_id, channel, environment, variant_id, local_date
--
-- Attempted are all calls that have finished, with or without metrics, or that have a status.
-- Connected, answered by, SIP codes, completed and caller hang-ups are from PolyAI's metrics of
-- outbound calls: OUTBOUND_CALL_STATUS, CALL_CONNECTED, CALL_ANSWERED_BY, OUTBOUND_CALL_SIP_CODE,
-- CALL_COMPLETED and USER_HANGUP. Without them, the counts that depend on them are 0. A call that
-- was tried again has the result of its last attempt. A call that was answered by several, as when a
-- menu leads to a person, counts for each of them.
CREATE OR REPLACE VIEW polyai.outbound_daily AS
SELECT
  ids.agent_id,
  ids.channel,
  ids.environment,
  ids.variant_id,
  ids.local_date,
  ids.conversations,
  ids.finished_conversations,
  ids.answered_conversations,
  ids.handed_off_conversations,
  ids.contained_excl_abandoned_conversations,
  ids.answer_rate,
  ids.handle_time_seconds_mean,
  ids.attempted_conversations,
  ids.connected_conversations,
  ids.human_conversations,
  ids.voicemail_conversations,
  ids.ivr_conversations,
  ids.completed_conversations,
  ids.caller_hangups,
  ids.busy_conversations,
  ids.unavailable_conversations,
  ids.sip_2xx_conversations,
  ids.sip_4xx_conversations,
  ids.sip_5xx_conversations,
  ids.sip_6xx_conversations,
  ids.connection_rate,
  ids.human_rate,
  ids.completion_rate,
  agents.agent_name,
  variants.variant_name
FROM (
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
    AVG(handle_time_seconds) AS handle_time_seconds_mean,
    COUNT(CASE WHEN is_finished OR NOT call_status IS NULL THEN 1 END) AS attempted_conversations,
    COUNT(CASE WHEN is_connected THEN 1 END) AS connected_conversations,
    COUNT(CASE WHEN is_answered_by_human THEN 1 END) AS human_conversations,
    COUNT(CASE WHEN is_answered_by_voicemail THEN 1 END) AS voicemail_conversations,
    COUNT(CASE WHEN is_answered_by_ivr THEN 1 END) AS ivr_conversations,
    COUNT(CASE WHEN is_call_completed THEN 1 END) AS completed_conversations,
    COUNT(CASE WHEN STARTS_WITH(hangup_category, 'caller_') THEN 1 END) AS caller_hangups,
    COUNT(CASE WHEN LOWER(call_status) = 'busy' THEN 1 END) AS busy_conversations,
    COUNT(CASE WHEN LOWER(call_status) = 'unavailable' THEN 1 END) AS unavailable_conversations,
    COUNT(CASE WHEN sip_code BETWEEN 200 AND 299 THEN 1 END) AS sip_2xx_conversations,
    COUNT(CASE WHEN sip_code BETWEEN 400 AND 499 THEN 1 END) AS sip_4xx_conversations,
    COUNT(CASE WHEN sip_code BETWEEN 500 AND 599 THEN 1 END) AS sip_5xx_conversations,
    COUNT(CASE WHEN sip_code BETWEEN 600 AND 699 THEN 1 END) AS sip_6xx_conversations,
    CAST(COUNT(CASE WHEN is_connected THEN 1 END) AS DOUBLE PRECISION) / NULLIF(COUNT(CASE WHEN is_finished OR NOT call_status IS NULL THEN 1 END), 0) AS connection_rate,
    CAST(COUNT(CASE WHEN is_answered_by_human THEN 1 END) AS DOUBLE PRECISION) / NULLIF(COUNT(CASE WHEN is_connected THEN 1 END), 0) AS human_rate,
    CAST(COUNT(CASE WHEN is_call_completed THEN 1 END) AS DOUBLE PRECISION) / NULLIF(COUNT(CASE WHEN is_connected THEN 1 END), 0) AS completion_rate
  FROM polyai.fct_conversations
  WHERE
    direction = 'outbound'
  GROUP BY
    agent_id,
    channel,
    environment,
    variant_id,
    local_date
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id
LEFT JOIN polyai.variants AS variants
  ON variants.agent_id = ids.agent_id AND variants.variant_id = ids.variant_id;
