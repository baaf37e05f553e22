-- Which calls had the longest silences?
--
-- Consecutive turns without input, in `live` calls of the last 90 days. The time is measured from
-- the agent's last response before the silence to the caller's next words. It includes the agent's
-- speech, because no API reports when the agent stopped speaking. Nothing is found if the agent's
-- settings send no `is_silence`.
--
-- Columns:
-- before_turn_index: Turn before the silence.
-- silent_turns: Turns without input that followed.
-- quiet_seconds: Seconds until the caller's next words; NULL if there were none.
WITH marked AS (
  SELECT
    t.agent_id,
    t.conversation_id,
    l.local_started_at,
    t.turn_index,
    t.is_silence,
    t.user_input_at,
    t.agent_response_at,
    COUNT(*) FILTER(WHERE
      NOT t.is_silence IS TRUE) OVER (PARTITION BY t.agent_id, t.conversation_id ORDER BY t.turn_index) AS stretch
  FROM polyai.conversations_local AS l
  JOIN polyai.turns AS t
    ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
  WHERE
    l.environment = 'live'
    AND l.is_voice
    AND l.local_date > (
      SELECT
        MAX(last_local_date)
      FROM polyai.dim_agents
    ) - 90
), stretches AS (
  SELECT
    agent_id,
    conversation_id,
    local_started_at,
    MIN(turn_index) AS before_turn_index,
    COUNT(*) FILTER(WHERE
      is_silence) AS silent_turns,
    MIN(agent_response_at) AS answered_at,
    LEAD(MIN(user_input_at)) OVER (PARTITION BY agent_id, conversation_id ORDER BY stretch) AS spoke_again_at
  FROM marked
  GROUP BY
    agent_id,
    conversation_id,
    local_started_at,
    stretch
)
SELECT
  agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = s.agent_id
  ) AS agent_name,
  conversation_id,
  local_started_at,
  before_turn_index,
  silent_turns,
  CAST(EXTRACT(EPOCH FROM spoke_again_at - answered_at) AS DOUBLE PRECISION) AS quiet_seconds
FROM stretches AS s
WHERE
  silent_turns > 0
ORDER BY
  quiet_seconds DESC NULLS LAST,
  conversation_id,
  before_turn_index
LIMIT 20
