-- One row per conversation of a caller who had contacted the agent before.
-- Answers: Who calls again, how soon, and after which conversation?
-- Key: agent_id, conversation_id
--
-- A repeat caller is recognised by PolyAI's metrics REPEAT_CALLER_*, and by the number of an
-- inbound conversation, unless PolyAI redacted it (REDACTED) or the load dropped it. Hashed numbers
-- identify callers as well.
CREATE OR REPLACE VIEW polyai.repeat_callers AS
WITH flagged AS (
  SELECT DISTINCT
    agent_id,
    conversation_id
  FROM polyai.metrics
  WHERE
    STARTS_WITH(name, 'REPEAT_CALLER_')
    AND COALESCE(value_boolean, value_number <> 0, NOT value IS NULL)
), numbered AS (
  SELECT
    *,
    CASE
      WHEN direction <> 'outbound'
      AND NOT from_number IN ('REDACTED', 'polyai')
      AND from_number NOT LIKE '%[dropped]%'
      THEN from_number
    END AS caller
  FROM polyai.conversations_local
), ordered AS (
  SELECT
    *,
    CASE
      WHEN NOT caller IS NULL
      THEN ROW_NUMBER() OVER (PARTITION BY agent_id, environment, caller ORDER BY began_at, conversation_id)
    END AS contact_number,
    CASE
      WHEN NOT caller IS NULL
      THEN LAG(conversation_id) OVER (PARTITION BY agent_id, environment, caller ORDER BY began_at, conversation_id)
    END AS previous_conversation_id,
    CASE
      WHEN NOT caller IS NULL
      THEN LAG(began_at) OVER (PARTITION BY agent_id, environment, caller ORDER BY began_at, conversation_id)
    END AS previous_began_at
  FROM numbered
)
SELECT
  ids.agent_id,
  ids.conversation_id,
  ids.channel,
  ids.environment,
  ids.variant_id,
  ids.local_date,
  ids.caller,
  ids.is_repeat_caller,
  ids.contact_number,
  ids.previous_conversation_id,
  ids.previous_began_at,
  ids.hours_since_previous,
  COALESCE(variants.variant_name, ids.variant_name) AS variant_name,
  agents.agent_name
FROM (
  SELECT
    o.agent_id,
    o.conversation_id,
    o.channel,
    o.environment,
    o.variant_id,
    o.local_date,
    o.caller,
    NOT f.conversation_id IS NULL AS is_repeat_caller,
    o.contact_number,
    o.previous_conversation_id,
    o.previous_began_at,
    CAST(EXTRACT(EPOCH FROM o.began_at - o.previous_began_at) AS DOUBLE) / 3600 AS hours_since_previous,
    o.variant_name
  FROM ordered AS o
  LEFT JOIN flagged AS f
    ON f.agent_id = o.agent_id AND f.conversation_id = o.conversation_id
  WHERE
    NOT f.conversation_id IS NULL OR o.contact_number > 1
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id
LEFT JOIN polyai.variants AS variants
  ON variants.agent_id = ids.agent_id AND variants.variant_id = ids.variant_id;
