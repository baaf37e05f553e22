-- Where did anybody say a certain phrase?
--
-- Turns of the last 30 days in which the caller, their translation, or the agent said it, in any
-- letter case; put your phrase in the place of `cancel` (`%` stands for anything, `_` for any one
-- character). Speech recognition mishears: try the likely mistakes too. Keep a bound on the date,
-- or every transcript is read.
--
-- Columns:
-- is_said_by_caller: The caller said it; otherwise the agent alone did.
SELECT
  l.agent_id,
  l.conversation_id,
  l.local_started_at,
  t.turn_index,
  COALESCE(t.user_input ILIKE '%cancel%' OR t.translated_user_input ILIKE '%cancel%', FALSE) AS is_said_by_caller,
  t.user_input,
  t.agent_response
FROM polyai.conversations_local AS l
JOIN polyai.turns AS t
  ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
WHERE
  l.environment = 'live'
  AND l.local_date > (
    SELECT
      MAX(last_local_date)
    FROM polyai.dim_agents
  ) - 30
  AND (
    t.user_input ILIKE '%cancel%'
    OR t.translated_user_input ILIKE '%cancel%'
    OR t.agent_response ILIKE '%cancel%'
  )
ORDER BY
  l.local_started_at DESC NULLS LAST,
  l.conversation_id,
  t.turn_index
LIMIT 100
