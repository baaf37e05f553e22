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
CREATE OR REPLACE VIEW polyai.kpi_daily AS
WITH judged AS NOT MATERIALIZED (
  SELECT
    *,
    CASE
      WHEN num_user_turns > 0
      THEN TRUE
      WHEN num_worded_turns > 0
      THEN FALSE
      WHEN num_turns > 0
      THEN num_turns - COALESCE(num_silences, 0) > 1
    END AS has_caller_spoken
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
      COUNT(COALESCE(t.user_input, t.user_input_dtmf)) AS num_user_turns,
      COUNT(COALESCE(t.user_input, t.agent_response)) AS num_worded_turns,
      COUNT(m.name) > 0 AS is_chat_abandoned
    FROM polyai.conversations_local AS l
    LEFT JOIN polyai.turns AS t
      ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
    LEFT JOIN polyai.metrics AS m
      ON m.agent_id = l.agent_id
      AND m.conversation_id = l.conversation_id
      AND m.name = 'CHAT_ABANDONED'
      AND COALESCE(m.value_boolean, m.value_number <> 0, NOT m.value IS NULL)
    WHERE
      l.is_contained
    GROUP BY
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
      l.num_silences
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
  FROM polyai.conversations_local
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
  WHERE
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
    )
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
  FROM polyai.csat_responses
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
  FROM polyai.conversations_local AS l
  JOIN polyai.turns AS t
    ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
), counted AS NOT MATERIALIZED (
  SELECT
    agent_id,
    channel,
    environment,
    variant_id,
    local_date,
    next_local_date,
    COUNT(CASE WHEN is_conversation THEN 1 END) AS conversations,
    COUNT(CASE WHEN is_finished THEN 1 END) AS finished_conversations,
    COUNT(CASE WHEN is_finished AND is_handed_off THEN 1 END) AS handed_off_conversations,
    COUNT(CASE WHEN is_contained THEN 1 END) AS contained_conversations,
    COUNT(CASE WHEN is_abandoned THEN 1 END) AS abandoned_conversations,
    COUNT(CASE WHEN is_contained THEN 1 END) - COUNT(CASE WHEN is_abandoned THEN 1 END) AS contained_excl_abandoned_conversations,
    COUNT(handle_time_seconds) AS timed_conversations,
    SUM(handle_time_seconds) AS handle_time_seconds_sum,
    COUNT(CASE WHEN poly_score_scale = '1-5' THEN poly_score END) AS scored_conversations_1_5,
    SUM(CASE WHEN poly_score_scale = '1-5' THEN poly_score END) AS poly_score_1_5_sum,
    COUNT(CASE WHEN poly_score_scale = '0-10' THEN poly_score END) AS scored_conversations_0_10,
    SUM(CASE WHEN poly_score_scale = '0-10' THEN poly_score END) AS poly_score_0_10_sum,
    COUNT(CASE WHEN poly_score_band = 'high' THEN 1 END) AS high_score_conversations,
    COUNT(CASE WHEN poly_score_band = 'medium' THEN 1 END) AS medium_score_conversations,
    COUNT(CASE WHEN poly_score_band = 'low' THEN 1 END) AS low_score_conversations,
    COUNT(CASE WHEN is_csat_offered THEN 1 END) AS csat_offers,
    COUNT(csat_score) AS csat_answers,
    SUM(csat_score) AS csat_score_sum,
    COUNT(CASE WHEN csat_score >= 4 THEN 1 END) AS csat_satisfied,
    COUNT(CASE WHEN csat_score <= 2 THEN 1 END) AS csat_dissatisfied,
    COUNT(latency_seconds) AS latency_turns,
    SUM(latency_seconds) AS latency_seconds_sum,
    QUANTILE_CONT(handle_time_seconds, 0.5) AS handle_time_seconds_p50,
    QUANTILE_CONT(handle_time_seconds, 0.95) AS handle_time_seconds_p95,
    QUANTILE_CONT(latency_seconds, 0.5) AS latency_seconds_p50,
    QUANTILE_CONT(latency_seconds, 0.95) AS latency_seconds_p95
  FROM facts
  GROUP BY
    agent_id,
    channel,
    environment,
    variant_id,
    local_date,
    next_local_date
), days AS NOT MATERIALIZED (
  SELECT
    *,
    CAST(contained_conversations AS DOUBLE) / NULLIF(finished_conversations, 0) AS containment_rate,
    CAST(contained_excl_abandoned_conversations AS DOUBLE) / NULLIF(finished_conversations, 0) AS containment_rate_excl_abandoned,
    CAST(handed_off_conversations AS DOUBLE) / NULLIF(finished_conversations, 0) AS handoff_rate,
    handle_time_seconds_sum / NULLIF(timed_conversations, 0) AS handle_time_seconds_mean,
    poly_score_1_5_sum / NULLIF(scored_conversations_1_5, 0) AS poly_score_1_5_mean,
    poly_score_0_10_sum / NULLIF(scored_conversations_0_10, 0) AS poly_score_0_10_mean,
    csat_score_sum / NULLIF(csat_answers, 0) AS csat_mean,
    CAST(csat_answers AS DOUBLE) / NULLIF(csat_offers, 0) AS csat_response_rate,
    CAST(csat_satisfied - csat_dissatisfied AS DOUBLE) / NULLIF(csat_answers, 0) AS csat_net_share
  FROM counted
)
SELECT
  ids.agent_id,
  ids.channel,
  ids.environment,
  ids.variant_id,
  ids.local_date,
  ids.conversations,
  ids.finished_conversations,
  ids.handed_off_conversations,
  ids.contained_conversations,
  ids.abandoned_conversations,
  ids.contained_excl_abandoned_conversations,
  ids.timed_conversations,
  ids.handle_time_seconds_sum,
  ids.scored_conversations_1_5,
  ids.poly_score_1_5_sum,
  ids.scored_conversations_0_10,
  ids.poly_score_0_10_sum,
  ids.high_score_conversations,
  ids.medium_score_conversations,
  ids.low_score_conversations,
  ids.csat_offers,
  ids.csat_answers,
  ids.csat_score_sum,
  ids.csat_satisfied,
  ids.csat_dissatisfied,
  ids.latency_turns,
  ids.latency_seconds_sum,
  ids.containment_rate,
  ids.containment_rate_excl_abandoned,
  ids.handoff_rate,
  ids.handle_time_seconds_mean,
  ids.handle_time_seconds_p50,
  ids.handle_time_seconds_p95,
  ids.poly_score_1_5_mean,
  ids.poly_score_0_10_mean,
  ids.csat_mean,
  ids.csat_response_rate,
  ids.csat_net_share,
  ids.latency_seconds_p50,
  ids.latency_seconds_p95,
  ids.conversations_change,
  ids.containment_rate_change,
  ids.containment_rate_excl_abandoned_change,
  ids.handoff_rate_change,
  ids.handle_time_seconds_mean_change,
  ids.handle_time_seconds_p50_change,
  ids.handle_time_seconds_p95_change,
  ids.poly_score_1_5_mean_change,
  ids.poly_score_0_10_mean_change,
  ids.csat_mean_change,
  ids.csat_response_rate_change,
  ids.csat_net_share_change,
  ids.latency_seconds_p50_change,
  ids.latency_seconds_p95_change,
  agents.agent_name,
  variants.variant_name
FROM (
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
    d.conversations - COALESCE(p.conversations, 0) AS conversations_change,
    d.containment_rate - p.containment_rate AS containment_rate_change,
    d.containment_rate_excl_abandoned - p.containment_rate_excl_abandoned AS containment_rate_excl_abandoned_change,
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
    ON p.agent_id = d.agent_id
    AND p.channel = d.channel
    AND p.environment = d.environment
    AND p.variant_id = d.variant_id
    AND p.next_local_date = d.local_date
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id
LEFT JOIN polyai.variants AS variants
  ON variants.agent_id = ids.agent_id AND variants.variant_id = ids.variant_id;
