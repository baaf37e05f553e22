-- How many of the people we called were reached, and how did the calls end?
--
-- Outbound `live` conversations over the last 30 days. Reached means that somebody spoke or pressed
-- a key; a voice mailbox that talks counts as somebody. Add up the counts before dividing;
-- conversations in progress are in `conversations` only.
--
-- Columns:
-- reached_and_contained_rate: Ended without a handoff and not given up ÷ answered conversations.
SELECT
  agent_id,
  (SELECT n.agent_name FROM polyai.agents AS n WHERE n.agent_id = o.agent_id) AS agent_name,
  channel,
  sum(conversations) AS conversations,
  sum(finished_conversations) AS finished_conversations,
  sum(answered_conversations) AS answered_conversations,
  sum(answered_conversations) / nullif(sum(finished_conversations), 0) AS answer_rate,
  sum(handed_off_conversations) AS handed_off_conversations,
  sum(contained_excl_abandoned_conversations)
    / nullif(sum(answered_conversations), 0) AS reached_and_contained_rate
FROM polyai.outbound_daily AS o
WHERE environment = 'live'
  AND local_date > (SELECT max(last_local_date) FROM polyai.dim_agents) - 30
GROUP BY agent_id, channel
ORDER BY agent_id, conversations DESC, channel
