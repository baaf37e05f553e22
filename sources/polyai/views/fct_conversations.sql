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
WITH spoken AS (
  SELECT
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date,
    min(coalesce(t.user_input_at, t.agent_response_at)) AS first_turn_at,
    max(coalesce(t.agent_response_at, t.user_input_at)) AS last_turn_at,
    max(CASE WHEN t.turn_index = 0 THEN t.agent_response END) AS first_agent_response,
    max(CASE WHEN t.turn_index = l.num_turns - 1 THEN t.user_input END) AS last_user_input,
    max(CASE WHEN t.turn_index = l.num_turns - 1 THEN t.agent_response END) AS last_agent_response,
    count(coalesce(t.user_input, t.user_input_dtmf)) AS num_user_turns,
    count(coalesce(t.user_input, t.agent_response)) AS num_worded_turns,
    count(CASE WHEN t.barge_in THEN 1 END) AS num_barge_ins,
    count(CASE WHEN t.latency_seconds > 3 THEN 1 END) AS num_turns_over_3s,
    quantile_cont(t.latency_seconds, 0.5) AS latency_seconds_p50,
    quantile_cont(t.latency_seconds, 0.95) AS latency_seconds_p95
  FROM conversations_local AS l
  JOIN turns AS t ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
  GROUP BY l.agent_id, l.conversation_id, l.local_date, l.next_local_date
), functions AS (
  SELECT
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date,
    count(*) AS function_calls,
    count(f.error) AS function_errors,
    bool_or(coalesce(lower(f.hangup) NOT IN ('false', '0', 'null', '{}', '[]'), FALSE))
      AS has_agent_hung_up
  FROM conversations_local AS l
  JOIN function_events AS f ON f.agent_id = l.agent_id AND f.conversation_id = l.conversation_id
  GROUP BY l.agent_id, l.conversation_id, l.local_date, l.next_local_date
), reviews AS (
  SELECT
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date,
    count(*) AS num_annotations,
    count(CASE WHEN a.annotation_type = 'missing_topic' THEN 1 END) AS num_missing_topic,
    count(CASE WHEN a.annotation_type = 'wrong_transcript' THEN 1 END) AS num_wrong_transcript,
    count(CASE WHEN a.annotation_type = 'wrong_info' THEN 1 END) AS num_wrong_info,
    count(CASE WHEN a.annotation_type = 'good_response' THEN 1 END) AS num_good_responses,
    count(CASE WHEN a.annotation_type = 'bad_response' THEN 1 END) AS num_bad_responses
  FROM conversations_local AS l
  JOIN annotations AS a ON a.agent_id = l.agent_id AND a.conversation_id = l.conversation_id
  GROUP BY l.agent_id, l.conversation_id, l.local_date, l.next_local_date
), named AS (
  SELECT
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date,
    m.name,
    m.value,
    m.value_number,
    coalesce(m.value_boolean, m.value_number <> 0, m.value IS NOT NULL) AS is_yes,
    coalesce(m.value_boolean, m.value_number = 1, lower(m.value) = 'yes', FALSE) AS is_true,
    row_number() OVER (
      PARTITION BY l.agent_id, l.conversation_id, l.local_date, l.next_local_date, m.name
      ORDER BY CASE WHEN m.value IS NULL THEN 1 ELSE 0 END, m.occurrence DESC
    ) AS place
  FROM conversations_local AS l
  JOIN metrics AS m ON m.agent_id = l.agent_id AND m.conversation_id = l.conversation_id
  WHERE m.name IN (
      'CHAT_ABANDONED', 'USER_HANGUP', 'OUTBOUND_CALL_STATUS', 'OUTBOUND_CALL_SIP_CODE',
      'CALL_ANSWERED_BY', 'CALL_CONNECTED', 'CALL_COMPLETED'
    )
    OR starts_with(m.name, 'REPEAT_CALLER_')
), flags AS (
  SELECT
    agent_id,
    conversation_id,
    local_date,
    next_local_date,
    bool_or(name = 'CHAT_ABANDONED' AND is_yes) AS is_chat_abandoned,
    bool_or(starts_with(name, 'REPEAT_CALLER_') AND is_yes) AS is_repeat_caller,
    bool_or(name = 'USER_HANGUP' AND place = 1 AND is_true) AS has_user_hung_up,
    bool_or(name = 'CALL_COMPLETED' AND place = 1 AND is_true) AS is_call_completed,
    bool_or(CASE WHEN name = 'CALL_CONNECTED' AND place = 1 THEN is_true END)
      AS is_reported_connected,
    bool_or(CASE WHEN name = 'OUTBOUND_CALL_STATUS' AND place = 1 THEN lower(value) = 'success' END)
      AS is_success,
    max(CASE WHEN name = 'OUTBOUND_CALL_STATUS' AND place = 1 THEN value END) AS call_status,
    max(
      CASE
        WHEN name = 'OUTBOUND_CALL_SIP_CODE' AND place = 1 AND value_number BETWEEN 100 AND 699
          THEN value_number
      END
    ) AS sip_code,
    bool_or(name = 'CALL_ANSWERED_BY' AND upper(value) LIKE '%HUMAN%') AS is_human,
    bool_or(name = 'CALL_ANSWERED_BY' AND upper(value) LIKE '%VOICEMAIL%') AS is_voicemail,
    bool_or(name = 'CALL_ANSWERED_BY' AND upper(value) LIKE '%IVR%') AS is_ivr
  FROM named
  GROUP BY agent_id, conversation_id, local_date, next_local_date
), joined AS (
  SELECT
    l.*,
    s.first_turn_at,
    s.last_turn_at,
    s.first_agent_response,
    s.last_user_input,
    s.last_agent_response,
    s.num_user_turns,
    coalesce(s.num_barge_ins, 0) AS num_barge_ins,
    coalesce(s.num_turns_over_3s, 0) AS num_turns_over_3s,
    s.latency_seconds_p50,
    s.latency_seconds_p95,
    ${caller_spoken()} AS has_caller_spoken,
    coalesce(f.function_calls, 0) AS function_calls,
    coalesce(f.function_errors, 0) AS function_errors,
    coalesce(f.has_agent_hung_up, FALSE) AS has_agent_hung_up,
    c.conversation_id IS NOT NULL AS is_csat_offered,
    c.csat_score,
    coalesce(r.num_annotations, 0) AS num_annotations,
    coalesce(r.num_missing_topic, 0) AS num_missing_topic,
    coalesce(r.num_wrong_transcript, 0) AS num_wrong_transcript,
    coalesce(r.num_wrong_info, 0) AS num_wrong_info,
    coalesce(r.num_good_responses, 0) AS num_good_responses,
    coalesce(r.num_bad_responses, 0) AS num_bad_responses,
    coalesce(g.is_chat_abandoned, FALSE) AS is_chat_abandoned,
    coalesce(g.is_repeat_caller, FALSE) AS is_repeat_caller,
    coalesce(g.has_user_hung_up, FALSE) AS has_user_hung_up,
    coalesce(g.is_call_completed, FALSE) AS is_call_completed,
    CASE WHEN l.direction = 'outbound' THEN coalesce(g.is_reported_connected, g.is_success) END
      AS is_connected,
    CASE WHEN g.is_success THEN 'Success' ELSE g.call_status END AS call_status,
    CAST(g.sip_code AS BIGINT) AS sip_code,
    coalesce(g.is_human, FALSE) AS is_answered_by_human,
    coalesce(g.is_voicemail, FALSE) AS is_answered_by_voicemail,
    coalesce(g.is_ivr, FALSE) AS is_answered_by_ivr,
    CASE
      WHEN g.is_human THEN 'human'
      WHEN g.is_voicemail THEN 'voicemail'
      WHEN g.is_ivr THEN 'ivr'
    END AS answered_by
  FROM conversations_local AS l
  LEFT JOIN spoken AS s
    ON s.agent_id = l.agent_id AND s.conversation_id = l.conversation_id
    AND s.local_date = l.local_date AND s.next_local_date = l.next_local_date
  LEFT JOIN functions AS f
    ON f.agent_id = l.agent_id AND f.conversation_id = l.conversation_id
    AND f.local_date = l.local_date AND f.next_local_date = l.next_local_date
  LEFT JOIN csat_responses AS c
    ON c.agent_id = l.agent_id AND c.conversation_id = l.conversation_id
    AND c.local_date = l.local_date AND c.next_local_date = l.next_local_date
  LEFT JOIN reviews AS r
    ON r.agent_id = l.agent_id AND r.conversation_id = l.conversation_id
    AND r.local_date = l.local_date AND r.next_local_date = l.next_local_date
  LEFT JOIN flags AS g
    ON g.agent_id = l.agent_id AND g.conversation_id = l.conversation_id
    AND g.local_date = l.local_date AND g.next_local_date = l.next_local_date
), ended AS (
  SELECT
    *,
    ${abandoned()} AS is_abandoned
  FROM joined
)
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
    WHEN NOT is_finished THEN NULL
    WHEN NOT is_connected THEN 'not_connected'
    WHEN is_handed_off THEN 'handoff'
    ELSE concat(
      CASE
        WHEN has_user_hung_up AND coalesce(answered_by <> 'voicemail', TRUE) THEN 'caller'
        WHEN has_agent_hung_up THEN 'agent'
        WHEN is_abandoned AND direction <> 'outbound' THEN 'caller'
        ELSE 'unknown'
      END,
      CASE
        WHEN NOT coalesce(has_caller_spoken, TRUE) THEN '_before_input'
        WHEN is_call_completed THEN '_after_completion'
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
