-- One row per conversation, with its turns, functions, survey and annotations counted.
-- Answers: Which conversations were these, how did each go, and why?
-- Key: agent_id, conversation_id
--
-- A conversation is abandoned if it finished without a handoff and either the metric CHAT_ABANDONED
-- is true, or it is a call (its channel begins with VOICE) in which the caller said nothing or that
-- lasted less than 10 seconds. A caller has spoken if any turn has words or a pressed key. If the
-- words are not stored, turns other than the first one and silences count instead; without any
-- turns it is unknown, and only the duration counts.
--
-- hangup_category is a definition of this project: who ended the conversation, and at which point.
-- not_connected: an outbound call that was not connected. handoff: it ended with a handoff. Else the
-- first word is caller, agent (a function requested the hang-up) or unknown, and the rest is
-- before_input (the caller had not spoken), after_completion (the metric CALL_COMPLETED is true) or
-- in_dialogue. The caller ended it if the metric USER_HANGUP is true and not only a voicemail
-- answered. Without that metric and a hang-up of the agent, the caller of an abandoned conversation
-- counts as having ended it, unless it is outbound: nobody may have answered.
--
-- An outbound call is connected if the metric CALL_CONNECTED is true; without it, if
-- OUTBOUND_CALL_STATUS is Success. CALL_CONNECTED, CALL_COMPLETED and USER_HANGUP are true if they
-- are true, yes or 1. If the call was tried again, the last value of each of these metrics and of
-- OUTBOUND_CALL_SIP_CODE counts; CALL_ANSWERED_BY lists all that answered.
--
-- variant_name is the name in `variants`, or else the one that came with the conversation.
--
-- Each join includes both dates, so that a filter on either of them reaches the scan of the
-- children.
CREATE OR REPLACE VIEW polyai.fct_conversations AS
WITH spoken AS (
  SELECT
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date,
    MIN(COALESCE(t.user_input_at, t.agent_response_at)) AS first_turn_at,
    MAX(COALESCE(t.agent_response_at, t.user_input_at)) AS last_turn_at,
    MAX(CASE WHEN t.turn_index = 0 THEN t.agent_response END) AS first_agent_response,
    MAX(CASE WHEN t.turn_index = l.num_turns - 1 THEN t.user_input END) AS last_user_input,
    MAX(CASE WHEN t.turn_index = l.num_turns - 1 THEN t.agent_response END) AS last_agent_response,
    COUNT(COALESCE(t.user_input, t.user_input_dtmf)) AS num_user_turns,
    COUNT(COALESCE(t.user_input, t.agent_response)) AS num_worded_turns,
    COUNT(CASE WHEN t.barge_in THEN 1 END) AS num_barge_ins,
    COUNT(CASE WHEN t.latency_seconds > 3 THEN 1 END) AS num_turns_over_3s,
    QUANTILE_CONT(t.latency_seconds, 0.5) AS latency_seconds_p50,
    QUANTILE_CONT(t.latency_seconds, 0.95) AS latency_seconds_p95
  FROM polyai.conversations_local AS l
  JOIN polyai.turns AS t
    ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
  GROUP BY
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date
), functions AS (
  SELECT
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date,
    COUNT(*) AS function_calls,
    COUNT(f.error) AS function_errors,
    BOOL_OR(
      CAST(COALESCE(NOT LOWER(f.hangup) IN ('false', '0', 'null', '{}', '[]'), FALSE) AS BOOLEAN)
    ) AS has_agent_hung_up
  FROM polyai.conversations_local AS l
  JOIN polyai.function_events AS f
    ON f.agent_id = l.agent_id AND f.conversation_id = l.conversation_id
  GROUP BY
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date
), reviews AS (
  SELECT
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date,
    COUNT(*) AS num_annotations,
    COUNT(CASE WHEN a.annotation_type = 'missing_topic' THEN 1 END) AS num_missing_topic,
    COUNT(CASE WHEN a.annotation_type = 'wrong_transcript' THEN 1 END) AS num_wrong_transcript,
    COUNT(CASE WHEN a.annotation_type = 'wrong_info' THEN 1 END) AS num_wrong_info,
    COUNT(CASE WHEN a.annotation_type = 'good_response' THEN 1 END) AS num_good_responses,
    COUNT(CASE WHEN a.annotation_type = 'bad_response' THEN 1 END) AS num_bad_responses
  FROM polyai.conversations_local AS l
  JOIN polyai.annotations AS a
    ON a.agent_id = l.agent_id AND a.conversation_id = l.conversation_id
  GROUP BY
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date
), named AS (
  SELECT
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date,
    m.name,
    m.value,
    m.value_number,
    COALESCE(m.value_boolean, m.value_number <> 0, NOT m.value IS NULL) AS is_yes,
    COALESCE(m.value_boolean, m.value_number = 1, LOWER(m.value) = 'yes', FALSE) AS is_true,
    ROW_NUMBER() OVER (
      PARTITION BY l.agent_id, l.conversation_id, l.local_date, l.next_local_date, m.name
      ORDER BY CASE WHEN m.value IS NULL THEN 1 ELSE 0 END, m.occurrence DESC
    ) AS place
  FROM polyai.conversations_local AS l
  JOIN polyai.metrics AS m
    ON m.agent_id = l.agent_id AND m.conversation_id = l.conversation_id
  WHERE
    m.name IN (
      'CHAT_ABANDONED',
      'USER_HANGUP',
      'OUTBOUND_CALL_STATUS',
      'OUTBOUND_CALL_SIP_CODE',
      'CALL_ANSWERED_BY',
      'CALL_CONNECTED',
      'CALL_COMPLETED'
    )
    OR STARTS_WITH(m.name, 'REPEAT_CALLER_')
), flags AS (
  SELECT
    agent_id,
    conversation_id,
    local_date,
    next_local_date,
    BOOL_OR(CAST(name = 'CHAT_ABANDONED' AND is_yes AS BOOLEAN)) AS is_chat_abandoned,
    BOOL_OR(CAST(STARTS_WITH(name, 'REPEAT_CALLER_') AND is_yes AS BOOLEAN)) AS is_repeat_caller,
    BOOL_OR(CAST(name = 'USER_HANGUP' AND place = 1 AND is_true AS BOOLEAN)) AS has_user_hung_up,
    BOOL_OR(CAST(name = 'CALL_COMPLETED' AND place = 1 AND is_true AS BOOLEAN)) AS is_call_completed,
    BOOL_OR(
      CAST(CASE WHEN name = 'CALL_CONNECTED' AND place = 1 THEN is_true END AS BOOLEAN)
    ) AS is_reported_connected,
    BOOL_OR(
      CAST(CASE
        WHEN name = 'OUTBOUND_CALL_STATUS' AND place = 1
        THEN LOWER(value) = 'success'
      END AS BOOLEAN)
    ) AS is_success,
    MAX(CASE WHEN name = 'OUTBOUND_CALL_STATUS' AND place = 1 THEN value END) AS call_status,
    MAX(
      CASE
        WHEN name = 'OUTBOUND_CALL_SIP_CODE' AND place = 1 AND value_number BETWEEN 100 AND 699
        THEN value_number
      END
    ) AS sip_code,
    BOOL_OR(CAST(name = 'CALL_ANSWERED_BY' AND UPPER(value) LIKE '%HUMAN%' AS BOOLEAN)) AS is_human,
    BOOL_OR(CAST(name = 'CALL_ANSWERED_BY' AND UPPER(value) LIKE '%VOICEMAIL%' AS BOOLEAN)) AS is_voicemail,
    BOOL_OR(CAST(name = 'CALL_ANSWERED_BY' AND UPPER(value) LIKE '%IVR%' AS BOOLEAN)) AS is_ivr
  FROM named
  GROUP BY
    agent_id,
    conversation_id,
    local_date,
    next_local_date
), joined AS (
  SELECT
    l.*,
    s.first_turn_at,
    s.last_turn_at,
    s.first_agent_response,
    s.last_user_input,
    s.last_agent_response,
    s.num_user_turns,
    COALESCE(s.num_barge_ins, 0) AS num_barge_ins,
    COALESCE(s.num_turns_over_3s, 0) AS num_turns_over_3s,
    s.latency_seconds_p50,
    s.latency_seconds_p95,
    CASE
      WHEN num_user_turns > 0
      THEN TRUE
      WHEN num_worded_turns > 0
      THEN FALSE
      WHEN num_turns > 0
      THEN num_turns - COALESCE(num_silences, 0) > 1
    END AS has_caller_spoken,
    COALESCE(f.function_calls, 0) AS function_calls,
    COALESCE(f.function_errors, 0) AS function_errors,
    COALESCE(f.has_agent_hung_up, FALSE) AS has_agent_hung_up,
    NOT c.conversation_id IS NULL AS is_csat_offered,
    c.csat_score,
    COALESCE(r.num_annotations, 0) AS num_annotations,
    COALESCE(r.num_missing_topic, 0) AS num_missing_topic,
    COALESCE(r.num_wrong_transcript, 0) AS num_wrong_transcript,
    COALESCE(r.num_wrong_info, 0) AS num_wrong_info,
    COALESCE(r.num_good_responses, 0) AS num_good_responses,
    COALESCE(r.num_bad_responses, 0) AS num_bad_responses,
    COALESCE(g.is_chat_abandoned, FALSE) AS is_chat_abandoned,
    COALESCE(g.is_repeat_caller, FALSE) AS is_repeat_caller,
    COALESCE(g.has_user_hung_up, FALSE) AS has_user_hung_up,
    COALESCE(g.is_call_completed, FALSE) AS is_call_completed,
    CASE
      WHEN l.direction = 'outbound'
      THEN COALESCE(g.is_reported_connected, g.is_success)
    END AS is_connected,
    CASE WHEN g.is_success THEN 'Success' ELSE g.call_status END AS call_status,
    CAST(g.sip_code AS BIGINT) AS sip_code,
    COALESCE(g.is_human, FALSE) AS is_answered_by_human,
    COALESCE(g.is_voicemail, FALSE) AS is_answered_by_voicemail,
    COALESCE(g.is_ivr, FALSE) AS is_answered_by_ivr,
    CASE
      WHEN g.is_human
      THEN 'human'
      WHEN g.is_voicemail
      THEN 'voicemail'
      WHEN g.is_ivr
      THEN 'ivr'
    END AS answered_by
  FROM polyai.conversations_local AS l
  LEFT JOIN spoken AS s
    ON s.agent_id = l.agent_id
    AND s.conversation_id = l.conversation_id
    AND s.local_date = l.local_date
    AND s.next_local_date = l.next_local_date
  LEFT JOIN functions AS f
    ON f.agent_id = l.agent_id
    AND f.conversation_id = l.conversation_id
    AND f.local_date = l.local_date
    AND f.next_local_date = l.next_local_date
  LEFT JOIN polyai.csat_responses AS c
    ON c.agent_id = l.agent_id
    AND c.conversation_id = l.conversation_id
    AND c.local_date = l.local_date
    AND c.next_local_date = l.next_local_date
  LEFT JOIN reviews AS r
    ON r.agent_id = l.agent_id
    AND r.conversation_id = l.conversation_id
    AND r.local_date = l.local_date
    AND r.next_local_date = l.next_local_date
  LEFT JOIN flags AS g
    ON g.agent_id = l.agent_id
    AND g.conversation_id = l.conversation_id
    AND g.local_date = l.local_date
    AND g.next_local_date = l.next_local_date
), ended AS (
  SELECT
    *,
    is_finished
    AND NOT is_handed_off
    AND (
      is_chat_abandoned
      OR (
        is_voice AND NOT COALESCE(has_caller_spoken, TRUE)
      )
      OR (
        is_voice AND COALESCE(handle_time_seconds < 10, FALSE)
      )
    ) AS is_abandoned
  FROM joined
)
SELECT
  ids.agent_id,
  ids.conversation_id,
  ids.account_id,
  ids.region,
  ids.channel,
  ids.is_voice,
  ids.direction,
  ids.environment,
  ids.language,
  ids.variant_id,
  COALESCE(variants.variant_name, ids.variant_name) AS variant_name,
  ids.deployment_id,
  ids.from_number,
  ids.to_number,
  ids.created_at,
  ids.started_at,
  ids.finished_at,
  ids.began_at,
  ids.local_started_at,
  ids.local_date,
  ids.next_local_date,
  ids.local_hour,
  ids.is_finished,
  ids.duration_seconds,
  ids.polyai_duration_seconds,
  ids.handle_time_seconds,
  ids.is_handed_off,
  ids.is_contained,
  ids.is_abandoned,
  ids.is_contained_excl_abandoned,
  ids.hangup_category,
  ids.handoff_destination,
  ids.handoff_reason,
  ids.poly_score,
  ids.poly_score_scale,
  ids.poly_score_band,
  ids.is_csat_offered,
  ids.csat_score,
  ids.summary_heading,
  ids.summary,
  ids.note,
  ids.num_turns,
  ids.num_user_turns,
  ids.num_silences,
  ids.num_ood,
  ids.num_barge_ins,
  ids.has_caller_spoken,
  ids.first_turn_at,
  ids.last_turn_at,
  ids.first_agent_response,
  ids.last_user_input,
  ids.last_agent_response,
  ids.latency_seconds_p50,
  ids.latency_seconds_p95,
  ids.num_turns_over_3s,
  ids.function_calls,
  ids.function_errors,
  ids.num_annotations,
  ids.num_missing_topic,
  ids.num_wrong_transcript,
  ids.num_wrong_info,
  ids.num_good_responses,
  ids.num_bad_responses,
  ids.is_repeat_caller,
  ids.is_connected,
  ids.is_call_completed,
  ids.answered_by,
  ids.is_answered_by_human,
  ids.is_answered_by_voicemail,
  ids.is_answered_by_ivr,
  ids.call_status,
  ids.sip_code,
  ids.is_transcript_withheld,
  ids.source_api,
  ids.fetched_at,
  agents.agent_name,
  deployments.version AS deployment_version,
  deployments.created_at AS deployed_at,
  deployments.created_by AS deployed_by,
  deployments.message AS deployment_message
FROM (
  SELECT
    agent_id,
    conversation_id,
    account_id,
    region,
    channel,
    is_voice,
    direction,
    environment,
    language,
    variant_id,
    variant_name,
    deployment_id,
    from_number,
    to_number,
    created_at,
    started_at,
    finished_at,
    began_at,
    local_started_at,
    local_date,
    next_local_date,
    local_hour,
    is_finished,
    duration_seconds,
    polyai_duration_seconds,
    handle_time_seconds,
    is_handed_off,
    is_contained,
    is_abandoned,
    is_contained AND NOT is_abandoned AS is_contained_excl_abandoned,
    CASE
      WHEN NOT is_finished
      THEN NULL
      WHEN NOT is_connected
      THEN 'not_connected'
      WHEN is_handed_off
      THEN 'handoff'
      ELSE CONCAT(
        CASE
          WHEN has_user_hung_up AND COALESCE(answered_by <> 'voicemail', TRUE)
          THEN 'caller'
          WHEN has_agent_hung_up
          THEN 'agent'
          WHEN is_abandoned AND direction <> 'outbound'
          THEN 'caller'
          ELSE 'unknown'
        END,
        CASE
          WHEN NOT COALESCE(has_caller_spoken, TRUE)
          THEN '_before_input'
          WHEN is_call_completed
          THEN '_after_completion'
          ELSE '_in_dialogue'
        END
      )
    END AS hangup_category,
    handoff_destination,
    handoff_reason,
    poly_score,
    poly_score_scale,
    poly_score_band,
    is_csat_offered,
    csat_score,
    summary_heading,
    summary,
    note,
    num_turns,
    num_user_turns,
    num_silences,
    num_ood,
    num_barge_ins,
    has_caller_spoken,
    first_turn_at,
    last_turn_at,
    first_agent_response,
    last_user_input,
    last_agent_response,
    latency_seconds_p50,
    latency_seconds_p95,
    num_turns_over_3s,
    function_calls,
    function_errors,
    num_annotations,
    num_missing_topic,
    num_wrong_transcript,
    num_wrong_info,
    num_good_responses,
    num_bad_responses,
    is_repeat_caller,
    is_connected,
    is_call_completed,
    answered_by,
    is_answered_by_human,
    is_answered_by_voicemail,
    is_answered_by_ivr,
    call_status,
    sip_code,
    is_transcript_withheld,
    source_api,
    fetched_at
  FROM ended
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id
LEFT JOIN polyai.variants AS variants
  ON variants.agent_id = ids.agent_id AND variants.variant_id = ids.variant_id
LEFT JOIN polyai.deployments AS deployments
  ON deployments.agent_id = ids.agent_id
  AND deployments.deployment_id = ids.deployment_id;
