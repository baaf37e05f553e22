-- What do callers ask that the agent cannot answer?
--
-- Input of the caller in turns that the agent classified as out of domain, or that a reviewer
-- annotated with `missing_topic`, over the last 90 days. The translation is used if there is one,
-- so that one question in five languages is one row. Texts are compared as they are:
-- near-duplicates are separate rows. Nothing is found if transcripts are withheld or dropped.
--
-- Columns:
-- question: Input of the callers in lower case, the first 200 characters.
-- conversations: Conversations with the question.
-- out_of_domain_turns: Turns that the agent classified as out of domain.
-- missing_topic_turns: Turns with an annotation missing_topic.
-- example_conversation_id: One of the conversations, to listen to.
WITH reviewed AS (
  SELECT DISTINCT agent_id, conversation_id, turn_index
  FROM polyai.annotations
  WHERE annotation_type = 'missing_topic'
)
SELECT
  t.agent_id,
  (SELECT n.agent_name FROM polyai.agents AS n WHERE n.agent_id = t.agent_id) AS agent_name,
  left(lower(coalesce(t.translated_user_input, t.user_input)), 200) AS question,
  count(DISTINCT t.conversation_id) AS conversations,
  count(*) FILTER (WHERE t.is_ood) AS out_of_domain_turns,
  count(r.turn_index) AS missing_topic_turns,
  max(t.conversation_id) AS example_conversation_id
FROM polyai.conversations_local AS l
JOIN polyai.turns AS t ON t.agent_id = l.agent_id AND t.conversation_id = l.conversation_id
LEFT JOIN reviewed AS r
  ON r.agent_id = t.agent_id AND r.conversation_id = t.conversation_id
  AND r.turn_index = t.turn_index
WHERE l.environment = 'live'
  AND l.local_date > (SELECT max(last_local_date) FROM polyai.dim_agents) - 90
  AND (t.is_ood OR r.turn_index IS NOT NULL)
  AND coalesce(t.translated_user_input, t.user_input) IS NOT NULL
GROUP BY t.agent_id, left(lower(coalesce(t.translated_user_input, t.user_input)), 200)
ORDER BY conversations DESC, t.agent_id, question
