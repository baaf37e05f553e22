-- Which functions fail, and are callers handed off to a person when they do?
--
-- Function calls in finished `live` conversations over the last 90 days. The two handoff rates
-- compare conversations in which the function failed at least once with those in which it was
-- called and never failed. That is an indication, not proof: difficult requests fail more often and
-- are handed off more often. `transfer_call` and similar functions are the handoff itself.
--
-- Columns:
-- conversations: Conversations in which it was called.
-- failed_conversations: Conversations in which it failed at least once.
-- handoff_rate_where_failed: Handed off ÷ conversations in which it failed; NULL without any.
-- handoff_rate_where_not: Handed off ÷ conversations in which it did not fail; NULL without any.
WITH called AS (
  SELECT
    agent_id,
    conversation_id,
    coalesce(name, 'unknown') AS function_name,
    count(*) AS calls,
    count(error) AS errors
  FROM polyai.function_events
  GROUP BY agent_id, conversation_id, coalesce(name, 'unknown')
)
SELECT
  c.agent_id,
  ${agent_name(c)},
  c.function_name,
  sum(c.calls) AS function_calls,
  sum(c.errors) AS function_errors,
  sum(c.errors) / sum(c.calls) AS function_error_rate,
  count(*) AS conversations,
  count(*) FILTER (WHERE c.errors > 0) AS failed_conversations,
  count(*) FILTER (WHERE c.errors > 0 AND l.is_handed_off)
    / nullif(count(*) FILTER (WHERE c.errors > 0), 0) AS handoff_rate_where_failed,
  count(*) FILTER (WHERE c.errors = 0 AND l.is_handed_off)
    / nullif(count(*) FILTER (WHERE c.errors = 0), 0) AS handoff_rate_where_not
FROM called AS c
JOIN polyai.conversations_local AS l
  ON l.agent_id = c.agent_id AND l.conversation_id = c.conversation_id
WHERE l.environment = 'live' AND l.is_finished
  AND l.local_date > (SELECT max(last_local_date) FROM polyai.dim_agents) - 90
GROUP BY c.agent_id, c.function_name
ORDER BY function_errors DESC, c.agent_id, c.function_name
