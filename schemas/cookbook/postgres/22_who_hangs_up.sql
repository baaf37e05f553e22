-- Who ends the conversations, and at which point?
--
-- Finished `live` conversations over the last 30 days by `hangup_category`, which is a definition of
-- this project (see `views.md`). PolyAI reports who hung up in the metric USER_HANGUP and in function
-- calls only; without either, an abandoned call counts as ended by its caller unless it is outbound,
-- and any other end is unknown.
--
-- Columns:
-- finished_conversations: Conversations that ended in this way.
-- share: Share of the finished conversations of the agent and channel.
SELECT
  agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = f.agent_id
  ) AS agent_name,
  channel,
  hangup_category,
  COUNT(*) AS finished_conversations,
  CAST(COUNT(*) AS DOUBLE PRECISION) / SUM(COUNT(*)) OVER (PARTITION BY agent_id, channel) AS share,
  AVG(handle_time_seconds) AS handle_time_seconds_mean
FROM polyai.fct_conversations AS f
WHERE
  environment = 'live'
  AND is_finished
  AND local_date > (
    SELECT
      MAX(last_local_date)
    FROM polyai.dim_agents
  ) - 30
GROUP BY
  agent_id,
  channel,
  hangup_category
ORDER BY
  agent_id,
  channel,
  finished_conversations DESC NULLS LAST,
  hangup_category
