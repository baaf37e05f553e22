-- One row per conversation of a caller who had contacted the agent before.
-- Answers: Who calls again, how soon, and after which conversation?
-- Key: agent_id, conversation_id
--
-- A repeat caller is recognised by PolyAI's metrics REPEAT_CALLER_*, and by the number of an
-- inbound conversation, unless PolyAI redacted it (REDACTED) or the load dropped it. Hashed numbers
-- identify callers as well.
WITH flagged AS (
  SELECT DISTINCT agent_id, conversation_id
  FROM metrics
  WHERE starts_with(name, 'REPEAT_CALLER_')
    AND coalesce(value_boolean, value_number <> 0, value IS NOT NULL)
), numbered AS (
  SELECT
    *,
    CASE WHEN ${caller_known()} THEN from_number END AS caller
  FROM conversations_local
), ordered AS (
  SELECT
    *,
    CASE WHEN caller IS NOT NULL THEN
      row_number() OVER (
        PARTITION BY agent_id, environment, caller ORDER BY began_at, conversation_id
      )
    END AS contact_number,
    CASE WHEN caller IS NOT NULL THEN
      lag(conversation_id) OVER (
        PARTITION BY agent_id, environment, caller ORDER BY began_at, conversation_id
      )
    END AS previous_conversation_id,
    CASE WHEN caller IS NOT NULL THEN
      lag(began_at) OVER (
        PARTITION BY agent_id, environment, caller ORDER BY began_at, conversation_id
      )
    END AS previous_began_at
  FROM numbered
)
SELECT
  o.agent_id,
  o.conversation_id,
  o.channel,
  o.environment,
  o.variant_id,
  o.local_date,
  o.caller,
  f.conversation_id IS NOT NULL AS is_repeat_caller,
  o.contact_number,
  o.previous_conversation_id,
  o.previous_began_at,
  CAST(
    extract(epoch FROM o.began_at - o.previous_began_at) AS DOUBLE
  ) / 3600 AS hours_since_previous,
  o.variant_name
FROM ordered AS o
LEFT JOIN flagged AS f ON f.agent_id = o.agent_id AND f.conversation_id = o.conversation_id
WHERE f.conversation_id IS NOT NULL OR o.contact_number > 1
