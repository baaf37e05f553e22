-- One row per agent, channel, environment, variant and local date with conversations.
-- Answers: How do the agents perform each day, and how does that compare with the day before?
-- Key: agent_id, channel, environment, variant_id, local_date
--
-- Rates are of finished conversations; `conversations` includes those in progress. Counts and sums
-- add up over any rows: a rate over several rows is the sum of its numerator divided by the sum of
-- its denominator. Medians and percentiles do not add up: compute them from `fct_conversations` for
-- other periods.
--
-- A change is this day minus the day before, for the same agent, channel, environment and variant.
-- A day before without conversations counts as 0 conversations; it has no rates or means, so their
-- change is NULL.
--
-- The day before is joined by a date column of its own, and each measure is counted without a join
-- of grouped rows, so that a filter on the date reaches every scan.
WITH judged AS NOT MATERIALIZED (
  SELECT
    *,
    ${caller_spoken()} AS has_caller_spoken
  FROM (
    SELECT
      l.agent_id,
      l.conversation_id,
      l.channel,
      l.environment,
      l.variant_id,
      l.local_date,
      l.next_local_date,
      l.is_voice,
      l.is_finished,
      l.is_handed_off,
      l.handle_time_seconds,
      l.num_turns,
      l.num_silences,
      count(coalesce(t.user_input, t.user_input_dtmf)) AS num_user_turns,
      count(coalesce(t.user_input, t.agent_response)) AS num_worded_turns,
      count(m.name) > 0 AS is_chat_abandoned
    FROM conversations_local AS l
    LEFT JOIN turns AS t ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
    LEFT JOIN metrics AS m
      ON m.agent_id = l.agent_id AND m.conversation_id = l.conversation_id
      AND m.name = 'CHAT_ABANDONED'
      AND coalesce(m.value_boolean, m.value_number <> 0, m.value IS NOT NULL)
    WHERE l.is_contained
    GROUP BY
      l.agent_id, l.conversation_id, l.channel, l.environment, l.variant_id, l.local_date,
      l.next_local_date, l.is_voice, l.is_finished, l.is_handed_off, l.handle_time_seconds,
      l.num_turns, l.num_silences
  ) AS contained
), facts AS NOT MATERIALIZED (
  SELECT
    agent_id,
    channel,
    environment,
    variant_id,
    local_date,
    next_local_date,
    TRUE AS is_conversation,
    is_finished,
    is_handed_off,
    is_contained,
    FALSE AS is_abandoned,
    handle_time_seconds,
    poly_score,
    poly_score_scale,
    poly_score_band,
    FALSE AS is_csat_offered,
    CAST(NULL AS DOUBLE) AS csat_score,
    CAST(NULL AS DOUBLE) AS latency_seconds
  FROM conversations_local
  UNION ALL
  SELECT
    agent_id,
    channel,
    environment,
    variant_id,
    local_date,
    next_local_date,
    FALSE AS is_conversation,
    FALSE AS is_finished,
    FALSE AS is_handed_off,
    FALSE AS is_contained,
    TRUE AS is_abandoned,
    CAST(NULL AS DOUBLE) AS handle_time_seconds,
    CAST(NULL AS DOUBLE) AS poly_score,
    CAST(NULL AS TEXT) AS poly_score_scale,
    CAST(NULL AS TEXT) AS poly_score_band,
    FALSE AS is_csat_offered,
    CAST(NULL AS DOUBLE) AS csat_score,
    CAST(NULL AS DOUBLE) AS latency_seconds
  FROM judged
  WHERE ${abandoned()}
  UNION ALL
  SELECT
    agent_id,
    channel,
    environment,
    variant_id,
    local_date,
    next_local_date,
    FALSE AS is_conversation,
    FALSE AS is_finished,
    FALSE AS is_handed_off,
    FALSE AS is_contained,
    FALSE AS is_abandoned,
    CAST(NULL AS DOUBLE) AS handle_time_seconds,
    CAST(NULL AS DOUBLE) AS poly_score,
    CAST(NULL AS TEXT) AS poly_score_scale,
    CAST(NULL AS TEXT) AS poly_score_band,
    TRUE AS is_csat_offered,
    csat_score,
    CAST(NULL AS DOUBLE) AS latency_seconds
  FROM csat_responses
  UNION ALL
  SELECT
    l.agent_id,
    l.channel,
    l.environment,
    l.variant_id,
    l.local_date,
    l.next_local_date,
    FALSE AS is_conversation,
    FALSE AS is_finished,
    FALSE AS is_handed_off,
    FALSE AS is_contained,
    FALSE AS is_abandoned,
    CAST(NULL AS DOUBLE) AS handle_time_seconds,
    CAST(NULL AS DOUBLE) AS poly_score,
    CAST(NULL AS TEXT) AS poly_score_scale,
    CAST(NULL AS TEXT) AS poly_score_band,
    FALSE AS is_csat_offered,
    CAST(NULL AS DOUBLE) AS csat_score,
    t.latency_seconds
  FROM conversations_local AS l
  JOIN turns AS t ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
), counted AS NOT MATERIALIZED (
  SELECT
    agent_id,
    channel,
    environment,
    variant_id,
    local_date,
    next_local_date,
    count(CASE WHEN is_conversation THEN 1 END) AS conversations,
    count(CASE WHEN is_finished THEN 1 END) AS finished_conversations,
    count(CASE WHEN is_finished AND is_handed_off THEN 1 END) AS handed_off_conversations,
    count(CASE WHEN is_contained THEN 1 END) AS contained_conversations,
    count(CASE WHEN is_abandoned THEN 1 END) AS abandoned_conversations,
    count(CASE WHEN is_contained THEN 1 END) - count(CASE WHEN is_abandoned THEN 1 END)
      AS contained_excl_abandoned_conversations,
    count(handle_time_seconds) AS timed_conversations,
    sum(handle_time_seconds) AS handle_time_seconds_sum,
    count(CASE WHEN poly_score_scale = '1-5' THEN poly_score END) AS scored_conversations_1_5,
    sum(CASE WHEN poly_score_scale = '1-5' THEN poly_score END) AS poly_score_1_5_sum,
    count(CASE WHEN poly_score_scale = '0-10' THEN poly_score END) AS scored_conversations_0_10,
    sum(CASE WHEN poly_score_scale = '0-10' THEN poly_score END) AS poly_score_0_10_sum,
    count(CASE WHEN poly_score_band = 'high' THEN 1 END) AS high_score_conversations,
    count(CASE WHEN poly_score_band = 'medium' THEN 1 END) AS medium_score_conversations,
    count(CASE WHEN poly_score_band = 'low' THEN 1 END) AS low_score_conversations,
    count(CASE WHEN is_csat_offered THEN 1 END) AS csat_offers,
    count(csat_score) AS csat_answers,
    sum(csat_score) AS csat_score_sum,
    count(CASE WHEN csat_score >= 4 THEN 1 END) AS csat_satisfied,
    count(CASE WHEN csat_score <= 2 THEN 1 END) AS csat_dissatisfied,
    count(latency_seconds) AS latency_turns,
    sum(latency_seconds) AS latency_seconds_sum,
    quantile_cont(handle_time_seconds, 0.5) AS handle_time_seconds_p50,
    quantile_cont(handle_time_seconds, 0.95) AS handle_time_seconds_p95,
    quantile_cont(latency_seconds, 0.5) AS latency_seconds_p50,
    quantile_cont(latency_seconds, 0.95) AS latency_seconds_p95
  FROM facts
  GROUP BY agent_id, channel, environment, variant_id, local_date, next_local_date
), days AS NOT MATERIALIZED (
  SELECT
    *,
    CAST(contained_conversations AS DOUBLE) / nullif(finished_conversations, 0) AS containment_rate,
    CAST(contained_excl_abandoned_conversations AS DOUBLE)
      / nullif(finished_conversations, 0) AS containment_rate_excl_abandoned,
    CAST(handed_off_conversations AS DOUBLE) / nullif(finished_conversations, 0) AS handoff_rate,
    handle_time_seconds_sum / nullif(timed_conversations, 0) AS handle_time_seconds_mean,
    poly_score_1_5_sum / nullif(scored_conversations_1_5, 0) AS poly_score_1_5_mean,
    poly_score_0_10_sum / nullif(scored_conversations_0_10, 0) AS poly_score_0_10_mean,
    csat_score_sum / nullif(csat_answers, 0) AS csat_mean,
    CAST(csat_answers AS DOUBLE) / nullif(csat_offers, 0) AS csat_response_rate,
    CAST(csat_satisfied - csat_dissatisfied AS DOUBLE) / nullif(csat_answers, 0) AS csat_net_share
  FROM counted
)
SELECT
  d.agent_id,
  d.channel,
  d.environment,
  d.variant_id,
  d.local_date,
  d.conversations,
  d.finished_conversations,
  d.handed_off_conversations,
  d.contained_conversations,
  d.abandoned_conversations,
  d.contained_excl_abandoned_conversations,
  d.timed_conversations,
  d.handle_time_seconds_sum,
  d.scored_conversations_1_5,
  d.poly_score_1_5_sum,
  d.scored_conversations_0_10,
  d.poly_score_0_10_sum,
  d.high_score_conversations,
  d.medium_score_conversations,
  d.low_score_conversations,
  d.csat_offers,
  d.csat_answers,
  d.csat_score_sum,
  d.csat_satisfied,
  d.csat_dissatisfied,
  d.latency_turns,
  d.latency_seconds_sum,
  d.containment_rate,
  d.containment_rate_excl_abandoned,
  d.handoff_rate,
  d.handle_time_seconds_mean,
  d.handle_time_seconds_p50,
  d.handle_time_seconds_p95,
  d.poly_score_1_5_mean,
  d.poly_score_0_10_mean,
  d.csat_mean,
  d.csat_response_rate,
  d.csat_net_share,
  d.latency_seconds_p50,
  d.latency_seconds_p95,
  d.conversations - coalesce(p.conversations, 0) AS conversations_change,
  d.containment_rate - p.containment_rate AS containment_rate_change,
  d.containment_rate_excl_abandoned - p.containment_rate_excl_abandoned
    AS containment_rate_excl_abandoned_change,
  d.handoff_rate - p.handoff_rate AS handoff_rate_change,
  d.handle_time_seconds_mean - p.handle_time_seconds_mean AS handle_time_seconds_mean_change,
  d.handle_time_seconds_p50 - p.handle_time_seconds_p50 AS handle_time_seconds_p50_change,
  d.handle_time_seconds_p95 - p.handle_time_seconds_p95 AS handle_time_seconds_p95_change,
  d.poly_score_1_5_mean - p.poly_score_1_5_mean AS poly_score_1_5_mean_change,
  d.poly_score_0_10_mean - p.poly_score_0_10_mean AS poly_score_0_10_mean_change,
  d.csat_mean - p.csat_mean AS csat_mean_change,
  d.csat_response_rate - p.csat_response_rate AS csat_response_rate_change,
  d.csat_net_share - p.csat_net_share AS csat_net_share_change,
  d.latency_seconds_p50 - p.latency_seconds_p50 AS latency_seconds_p50_change,
  d.latency_seconds_p95 - p.latency_seconds_p95 AS latency_seconds_p95_change
FROM days AS d
LEFT JOIN days AS p
  ON p.agent_id = d.agent_id AND p.channel = d.channel AND p.environment = d.environment
  AND p.variant_id = d.variant_id AND p.next_local_date = d.local_date
