-- Where was a certain phrase said?
--
-- Turns of the last 30 days in which the input of the caller, its translation, or the response of
-- the agent contains the phrase, regardless of case; replace `cancel` by your phrase (`%` matches
-- any text, `_` any one character). Speech recognition makes mistakes: try likely misspellings too.
-- Keep a bound on the date, otherwise all transcripts are read.
--
-- Columns:
-- is_said_by_caller: The caller said it; otherwise only the agent did.
SELECT
  l.agent_id,
  (SELECT n.agent_name FROM polyai.agents AS n WHERE n.agent_id = l.agent_id) AS agent_name,
  l.conversation_id,
  l.local_started_at,
  t.turn_index,
  coalesce(
    t.user_input ILIKE '%cancel%' OR t.translated_user_input ILIKE '%cancel%', FALSE
  ) AS is_said_by_caller,
  t.user_input,
  t.agent_response
FROM polyai.conversations_local AS l
JOIN polyai.turns AS t ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
WHERE l.environment = 'live'
  AND l.local_date > (SELECT max(last_local_date) FROM polyai.dim_agents) - 30
  AND (
    t.user_input ILIKE '%cancel%'
    OR t.translated_user_input ILIKE '%cancel%'
    OR t.agent_response ILIKE '%cancel%'
  )
ORDER BY l.local_started_at DESC, l.conversation_id, t.turn_index
LIMIT 100
