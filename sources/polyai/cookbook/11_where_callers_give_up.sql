-- At which point of the dialogue do callers give up?
--
-- Finished `live` conversations of the last 90 days by the flow node of their last turn. PolyAI has
-- no official measure of abandoned calls: this uses `is_abandoned` of the views (see `views.md`),
-- which leaves out conversations with a handoff. If transcripts are withheld, the node is unknown.
--
-- Columns:
-- last_node: Flow node of the last turn; `none` before any node, or if unknown.
-- finished_conversations: Finished conversations that ended at the node.
-- abandoned_rate: abandoned ÷ finished conversations.
-- example_agent_response: Last response of the agent in one of the abandoned conversations.
SELECT
  f.agent_id,
  ${agent_name(f)},
  coalesce(t.current_node, 'none') AS last_node,
  count(*) AS finished_conversations,
  count(*) FILTER (WHERE f.is_abandoned) AS abandoned_conversations,
  count(*) FILTER (WHERE f.is_abandoned) / count(*) AS abandoned_rate,
  max(CASE WHEN f.is_abandoned THEN f.last_agent_response END) AS example_agent_response
FROM polyai.fct_conversations AS f
LEFT JOIN polyai.turns AS t
  ON t.agent_id = f.agent_id AND t.conversation_id = f.conversation_id
  AND t.turn_index = f.num_turns - 1
WHERE f.environment = 'live' AND f.is_finished
  AND f.local_date > (SELECT max(last_local_date) FROM polyai.dim_agents) - 90
GROUP BY f.agent_id, coalesce(t.current_node, 'none')
ORDER BY abandoned_conversations DESC, f.agent_id, last_node
