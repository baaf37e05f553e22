-- One row per conversation in which the satisfaction survey was offered, answered or not.
-- Answers: How satisfied are callers, who answered the survey, and what feedback did they give?
-- Key: agent_id, conversation_id
--
-- A metric is true unless its value is false, 0 or empty. A score is a number from 1 to 5; the last
-- one counts. A score without an offer counts as offered.
WITH survey AS (
  SELECT
    l.agent_id,
    l.conversation_id,
    l.channel,
    l.environment,
    l.variant_id,
    l.variant_name,
    l.local_date,
    l.next_local_date,
    m.name,
    m.value,
    m.recorded_at,
    coalesce(m.value_boolean, m.value_number <> 0, m.value IS NOT NULL) AS is_yes,
    CASE
      WHEN m.name = 'CSAT_SCORE' AND m.value_number BETWEEN 1 AND 5 THEN m.value_number
    END AS score,
    row_number() OVER (
      PARTITION BY l.agent_id, l.conversation_id, l.local_date, l.next_local_date, m.name
      ORDER BY
        CASE WHEN m.name <> 'CSAT_SCORE' OR m.value_number BETWEEN 1 AND 5 THEN 0 ELSE 1 END,
        m.occurrence DESC
    ) AS place
  FROM conversations_local AS l
  JOIN metrics AS m ON m.agent_id = l.agent_id AND m.conversation_id = l.conversation_id
  WHERE starts_with(m.name, 'CSAT_')
), answered AS (
  SELECT
    agent_id,
    conversation_id,
    channel,
    environment,
    variant_id,
    local_date,
    next_local_date,
    bool_or((name = 'CSAT_OFFERED' AND is_yes) OR score IS NOT NULL) AS is_offered,
    bool_or(name = 'CSAT_ACCEPTED' AND is_yes) AS is_accepted,
    bool_or(name = 'CSAT_DENIED' AND is_yes) AS is_denied,
    bool_or(name = 'CSAT_COMPLETED' AND is_yes) AS is_completed,
    max(CASE WHEN place = 1 THEN score END) AS csat_score,
    max(CASE WHEN place = 1 AND score IS NOT NULL THEN recorded_at END) AS csat_scored_at,
    max(CASE WHEN place = 1 AND name = 'CSAT_FREE_FEEDBACK' THEN value END) AS csat_feedback,
    max(variant_name) AS variant_name
  FROM survey
  GROUP BY
    agent_id, conversation_id, channel, environment, variant_id, local_date, next_local_date
)
SELECT
  agent_id,
  conversation_id,
  channel,
  environment,
  variant_id,
  local_date,
  next_local_date,
  is_accepted,
  is_denied,
  is_completed,
  csat_score,
  CASE
    WHEN csat_score >= 4 THEN 'satisfied'
    WHEN csat_score > 2 THEN 'neutral'
    WHEN csat_score IS NOT NULL THEN 'dissatisfied'
  END AS csat_band,
  csat_scored_at,
  csat_feedback,
  variant_name
FROM answered
WHERE is_offered
