-- One row per finished conversation that is worth a review and has no annotation yet.
-- Answers: Which conversations should be reviewed first, and why?
-- Key: agent_id, conversation_id
--
-- A low score is on the 1-5 scale. A long silence is two or more silent turns. High latency is a
-- 95th percentile above 3 seconds over the turns of the conversation.
CREATE OR REPLACE VIEW polyai.annotation_queue AS
WITH reasons AS (
  SELECT
    *,
    COALESCE(poly_score_band = 'low', FALSE) AS has_low_score,
    COALESCE(num_ood > 0, FALSE) AS has_ood,
    COALESCE(num_silences >= 2, FALSE) AS has_long_silence,
    COALESCE(latency_seconds_p95 > 3, FALSE) AS has_high_latency
  FROM polyai.fct_conversations
  WHERE
    is_finished AND num_annotations = 0
), counted AS (
  SELECT
    *,
    CASE WHEN has_low_score THEN 1 ELSE 0 END + CASE WHEN is_handed_off THEN 1 ELSE 0 END + CASE WHEN has_ood THEN 1 ELSE 0 END + CASE WHEN has_long_silence THEN 1 ELSE 0 END + CASE WHEN has_high_latency THEN 1 ELSE 0 END AS num_reasons
  FROM reasons
)
SELECT
  agent_id,
  conversation_id,
  channel,
  environment,
  variant_id,
  local_started_at,
  local_date,
  CAST(num_reasons AS BIGINT) AS num_reasons,
  has_low_score,
  is_handed_off,
  has_ood,
  has_long_silence,
  has_high_latency,
  poly_score,
  handoff_reason,
  num_turns,
  summary,
  agent_name,
  variant_name
FROM counted
WHERE
  num_reasons > 0;
