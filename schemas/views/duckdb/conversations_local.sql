-- One row per conversation, with local dates; reads no other table, so it is fast.
-- Answers: How many conversations were there, on which local day, over which channel?
-- Key: agent_id, conversation_id
--
-- If PolyAI did not report whether a conversation is in progress or was handed off, it counts as
-- no. Columns that rows are grouped by are never NULL: an unknown channel is `unknown`, no variant
-- is `none`.
CREATE OR REPLACE VIEW polyai.conversations_local AS
WITH begun AS (
  SELECT
    *,
    COALESCE(started_at, created_at, fetched_at) AS began_at,
    CASE
      WHEN utc_days.offset_us = utc_days.next_offset_us
      THEN MAKE_TIMESTAMP(EPOCH_US(COALESCE(started_at, created_at, fetched_at)) + utc_days.offset_us)
      ELSE COALESCE(started_at, created_at, fetched_at) AT TIME ZONE 'UTC'
    END AS local_started_at,
    NOT COALESCE(in_progress, FALSE) AS is_finished,
    COALESCE(handoff, FALSE) AS is_handed_off
  FROM polyai.conversations
  LEFT JOIN (
    SELECT
      utc_day,
      EPOCH_US(TO_TIMESTAMP(utc_day * 86400) AT TIME ZONE 'UTC') - utc_day * 86400000000 AS offset_us,
      EPOCH_US(TO_TIMESTAMP((
        utc_day + 1
      ) * 86400) AT TIME ZONE 'UTC') - (
        utc_day + 1
      ) * 86400000000 AS next_offset_us
    FROM RANGE(16436, 24108) AS days(utc_day)
  ) AS utc_days
    ON utc_days.utc_day = EPOCH_US(COALESCE(started_at, created_at, fetched_at)) // 86400000000
)
SELECT
  agent_id,
  conversation_id,
  account_id,
  region,
  COALESCE(channel, 'unknown') AS channel,
  COALESCE(UPPER(channel) LIKE 'VOICE%', FALSE) AS is_voice,
  COALESCE(direction, 'unknown') AS direction,
  COALESCE(environment, 'unknown') AS environment,
  language,
  COALESCE(variant_id, 'none') AS variant_id,
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
  CAST(EXTRACT(HOUR FROM local_started_at) AS BIGINT) AS local_hour,
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
    WHEN poly_score IS NULL OR poly_score_scale <> '1-5'
    THEN NULL
    WHEN poly_score >= 5
    THEN 'high'
    WHEN poly_score >= 3
    THEN 'medium'
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
FROM begun;
