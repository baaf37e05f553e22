-- One row per conversation in which the satisfaction survey was offered, answered or not.
-- Answers: How satisfied are callers, who answered the survey, and what feedback did they give?
-- Key: agent_id, conversation_id
--
-- A metric is true unless its value is false, 0 or empty. A score is a number from 1 to 5; the last
-- one counts. A score without an offer counts as offered.
CREATE OR REPLACE VIEW polyai.csat_responses AS
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
    COALESCE(m.value_boolean, m.value_number <> 0, NOT m.value IS NULL) AS is_yes,
    CASE
      WHEN m.name = 'CSAT_SCORE' AND m.value_number BETWEEN 1 AND 5
      THEN m.value_number
    END AS score,
    ROW_NUMBER() OVER (
      PARTITION BY l.agent_id, l.conversation_id, l.local_date, l.next_local_date, m.name
      ORDER BY CASE WHEN m.name <> 'CSAT_SCORE' OR m.value_number BETWEEN 1 AND 5 THEN 0 ELSE 1 END, m.occurrence DESC NULLS LAST
    ) AS place
  FROM polyai.conversations_local AS l
  JOIN polyai.metrics AS m
    ON m.agent_id = l.agent_id AND m.conversation_id = l.conversation_id
  WHERE
    STARTS_WITH(m.name, 'CSAT_')
), answered AS (
  SELECT
    agent_id,
    conversation_id,
    channel,
    environment,
    variant_id,
    local_date,
    next_local_date,
    BOOL_OR((
      name = 'CSAT_OFFERED' AND is_yes
    ) OR NOT score IS NULL) AS is_offered,
    BOOL_OR(name = 'CSAT_ACCEPTED' AND is_yes) AS is_accepted,
    BOOL_OR(name = 'CSAT_DENIED' AND is_yes) AS is_denied,
    BOOL_OR(name = 'CSAT_COMPLETED' AND is_yes) AS is_completed,
    MAX(CASE WHEN place = 1 THEN score END) AS csat_score,
    MAX(CASE WHEN place = 1 AND NOT score IS NULL THEN recorded_at END) AS csat_scored_at,
    MAX(CASE WHEN place = 1 AND name = 'CSAT_FREE_FEEDBACK' THEN value END) AS csat_feedback,
    MAX(variant_name) AS variant_name
  FROM survey
  GROUP BY
    agent_id,
    conversation_id,
    channel,
    environment,
    variant_id,
    local_date,
    next_local_date
)
SELECT
  ids.agent_id,
  ids.conversation_id,
  ids.channel,
  ids.environment,
  ids.variant_id,
  ids.local_date,
  ids.next_local_date,
  ids.is_accepted,
  ids.is_denied,
  ids.is_completed,
  ids.csat_score,
  ids.csat_band,
  ids.csat_scored_at,
  ids.csat_feedback,
  COALESCE(variants.variant_name, ids.variant_name) AS variant_name,
  agents.agent_name
FROM (
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
      WHEN csat_score >= 4
      THEN 'satisfied'
      WHEN csat_score > 2
      THEN 'neutral'
      WHEN NOT csat_score IS NULL
      THEN 'dissatisfied'
    END AS csat_band,
    csat_scored_at,
    csat_feedback,
    variant_name
  FROM answered
  WHERE
    is_offered
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id
LEFT JOIN polyai.variants AS variants
  ON variants.agent_id = ids.agent_id AND variants.variant_id = ids.variant_id;
