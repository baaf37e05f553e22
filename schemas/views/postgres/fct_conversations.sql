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
    PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY
      t.latency_seconds) AS latency_seconds_p50,
    PERCENTILE_CONT(0.95) WITHIN GROUP (ORDER BY
      t.latency_seconds) AS latency_seconds_p95
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
    COUNT(f.error) AS function_errors
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
    COUNT(CASE WHEN a.annotation_type = 'wrong_info' THEN 1 END) AS num_wrong_info
  FROM polyai.conversations_local AS l
  JOIN polyai.annotations AS a
    ON a.agent_id = l.agent_id AND a.conversation_id = l.conversation_id
  GROUP BY
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date
), flags AS (
  SELECT
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date,
    BOOL_OR(m.name = 'CHAT_ABANDONED') AS is_chat_abandoned,
    BOOL_OR(m.name <> 'CHAT_ABANDONED') AS is_repeat_caller
  FROM polyai.conversations_local AS l
  JOIN polyai.metrics AS m
    ON m.agent_id = l.agent_id AND m.conversation_id = l.conversation_id
  WHERE
    (
      m.name = 'CHAT_ABANDONED' OR STARTS_WITH(m.name, 'REPEAT_CALLER_')
    )
    AND COALESCE(m.value_boolean, m.value_number <> 0, NOT m.value IS NULL)
  GROUP BY
    l.agent_id,
    l.conversation_id,
    l.local_date,
    l.next_local_date
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
    NOT c.conversation_id IS NULL AS is_csat_offered,
    c.csat_score,
    COALESCE(r.num_annotations, 0) AS num_annotations,
    COALESCE(r.num_missing_topic, 0) AS num_missing_topic,
    COALESCE(r.num_wrong_transcript, 0) AS num_wrong_transcript,
    COALESCE(r.num_wrong_info, 0) AS num_wrong_info,
    COALESCE(g.is_chat_abandoned, FALSE) AS is_chat_abandoned,
    COALESCE(g.is_repeat_caller, FALSE) AS is_repeat_caller
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
  is_repeat_caller,
  is_transcript_withheld,
  source_api,
  fetched_at
FROM ended;
