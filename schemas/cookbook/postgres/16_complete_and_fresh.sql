-- Is the data complete and fresh?
--
-- One row per agent, including agents without a complete load. Complete: none of the conversations
-- that PolyAI counted at the newest complete load is missing, and no failed conversation waits for
-- a retry. Fresh: the last complete load ended within the last hour; adjust the limit as needed.
-- Conversations that PolyAI or you have deleted are not missing; conversations that began after the
-- load are counted on neither side.
--
-- Columns:
-- is_complete: No conversation is missing or failed; NULL before a complete load.
-- is_fresh: The last complete load ended within the last 60 minutes.
SELECT
  agent_id,
  agent_name,
  missing_conversations = 0 AND open_failures = 0 AS is_complete,
  COALESCE(load_age_minutes <= 60, FALSE) AS is_fresh,
  last_complete_load_at,
  load_age_minutes,
  newest_conversation_at,
  conversations,
  api_conversations,
  missing_conversations,
  open_failures,
  withheld_conversations
FROM polyai.data_freshness
ORDER BY
  agent_id
