-- Is the data complete and fresh?
--
-- One row an agent, also for one that was never loaded to its end. Complete: nothing of what
-- PolyAI counted at the newest load is missing, and no conversation waits to be read again after a
-- failure. Fresh: the last load that read all ended within the last hour; put your own limit there.
-- What PolyAI has deleted stays here and is not missed; what began after the load is counted by
-- neither side.
--
-- Columns:
-- is_complete: Nothing is missing and nothing failed; NULL: never loaded to its end.
-- is_fresh: Loaded within the last 60 minutes.
SELECT
  agent_id,
  missing_conversations = 0 AND open_failures = 0 AS is_complete,
  coalesce(load_age_minutes <= 60, FALSE) AS is_fresh,
  last_complete_load_at,
  load_age_minutes,
  newest_conversation_at,
  conversations,
  api_conversations,
  missing_conversations,
  open_failures,
  withheld_conversations
FROM polyai.data_freshness
ORDER BY agent_id
