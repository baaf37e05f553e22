-- What was said in a call of two years ago, and where is its recording?
--
-- The newest call that is at least two years older than the newest conversation, turn by turn. For
-- a certain call, put `WHERE conversation_id = '…'`, or a number and a date, into `call`. Loaded
-- conversations stay in the warehouse after PolyAI's retention period has removed them. Recordings
-- are included once `polyai-warehouse recordings` has fetched them.
--
-- Columns:
-- recording_uris: Paths or URLs of the files of the whole call; NULL if none is stored.
WITH call AS (
  SELECT
    agent_id,
    conversation_id,
    local_started_at,
    from_number,
    summary
  FROM polyai.conversations_local
  WHERE
    is_voice
    AND num_turns > 0
    AND local_date <= (
      SELECT
        MAX(last_local_date)
      FROM polyai.dim_agents
    ) - 730
  ORDER BY
    began_at DESC NULLS LAST,
    conversation_id
  LIMIT 1
), files AS (
  SELECT
    agent_id,
    conversation_id,
    STRING_AGG(uri, ' ') AS recording_uris
  FROM polyai.recordings
  WHERE
    status = 'stored' AND direction = 'combined'
  GROUP BY
    agent_id,
    conversation_id
)
SELECT
  c.agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = c.agent_id
  ) AS agent_name,
  c.conversation_id,
  c.local_started_at,
  c.from_number,
  c.summary,
  t.turn_index,
  t.user_input,
  t.agent_response,
  f.recording_uris
FROM call AS c
LEFT JOIN polyai.turns AS t
  ON t.agent_id = c.agent_id AND t.conversation_id = c.conversation_id
LEFT JOIN files AS f
  ON f.agent_id = c.agent_id AND f.conversation_id = c.conversation_id
ORDER BY
  t.turn_index
