-- One row per conversation, with local dates; reads no other table, so it is fast.
-- Answers: How many conversations were there, on which local day, over which channel?
-- Key: agent_id, conversation_id
--
-- If PolyAI did not report whether a conversation is in progress or was handed off, it counts as
-- no. Columns that rows are grouped by are never NULL: an unknown channel is `unknown`, no variant
-- is `none`.
WITH begun AS (
  SELECT
    *,
    ${placed_at()} AS began_at,
    ${placed_at()} AT TIME ZONE $reporting_time_zone AS local_started_at,
    NOT coalesce(in_progress, FALSE) AS is_finished,
    coalesce(handoff, FALSE) AS is_handed_off
  FROM conversations
)
SELECT
  agent_id,
  conversation_id,
  account_id,
  region,
  coalesce(channel, 'unknown') AS channel,
  coalesce(upper(channel) LIKE 'VOICE%', FALSE) AS is_voice,
  coalesce(direction, 'unknown') AS direction,
  coalesce(environment, 'unknown') AS environment,
  language,
  coalesce(variant_id, 'none') AS variant_id,
  variant_name,
  deployment_id,
  from_number,
  to_number,
  created_at,
  started_at,
  finished_at,
  began_at,
  local_started_at,
  CAST(local_started_at AS DATE) AS local_date,
  CAST(local_started_at AS DATE) + 1 AS next_local_date,
  CAST(extract(hour FROM local_started_at) AS BIGINT) AS local_hour,
  is_finished,
  duration_seconds,
  polyai_duration_seconds,
  CASE WHEN is_finished THEN total_duration_seconds END AS handle_time_seconds,
  is_handed_off,
  CASE WHEN is_finished THEN NOT is_handed_off END AS is_contained,
  handoff_destination,
  handoff_reason,
  poly_score,
  poly_score_scale,
  CASE
    WHEN poly_score IS NULL OR poly_score_scale <> '1-5' THEN NULL
    WHEN poly_score >= 5 THEN 'high'
    WHEN poly_score >= 3 THEN 'medium'
    ELSE 'low'
  END AS poly_score_band,
  summary_heading,
  summary,
  note,
  num_turns,
  num_silences,
  num_ood,
  is_transcript_withheld,
  source_api,
  fetched_at
FROM begun
