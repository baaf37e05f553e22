-- How many callers got what they wanted at the first attempt?
--
-- An approximation, because not every caller is asked: an inbound `live` conversation counts as
-- resolved if it ended without a handoff, was not given up, and was not followed by another one of
-- the same caller within 7 days. Only callers with a number or an address are counted, and only
-- conversations older than 7 days. Callers who gave up for good, or called another line, count as
-- resolved.
--
-- Columns:
-- month: First day of the month, in the reporting time zone.
-- finished_conversations: Finished conversations with a known caller.
-- called_again: Of these, followed by another one of the same caller within 7 days.
-- resolved_conversations: Contained, not given up, and not followed by another one.
-- first_contact_resolution_rate: resolved ÷ finished conversations.
WITH outcomes AS (
  SELECT
    f.agent_id,
    CAST(DATE_TRUNC('MONTH', f.local_date) AS DATE) AS month,
    f.is_contained_excl_abandoned,
    NOT r.conversation_id IS NULL AS is_called_again
  FROM polyai.fct_conversations AS f
  LEFT JOIN polyai.repeat_callers AS r
    ON r.agent_id = f.agent_id
    AND r.previous_conversation_id = f.conversation_id
    AND r.hours_since_previous <= 7 * 24
  WHERE
    f.environment = 'live'
    AND f.is_finished
    AND f.direction <> 'outbound'
    AND NOT f.from_number IN ('REDACTED', 'polyai')
    AND f.from_number NOT LIKE '%[dropped]%'
    AND f.local_date <= (
      SELECT
        MAX(last_local_date)
      FROM polyai.dim_agents
    ) - 7
)
SELECT
  agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = o.agent_id
  ) AS agent_name,
  month,
  COUNT(*) AS finished_conversations,
  COUNT(*) FILTER(WHERE
    is_called_again) AS called_again,
  COUNT(*) FILTER(WHERE
    is_contained_excl_abandoned AND NOT is_called_again) AS resolved_conversations,
  CAST(COUNT(*) FILTER(WHERE
    is_contained_excl_abandoned AND NOT is_called_again) AS DOUBLE PRECISION) / COUNT(*) AS first_contact_resolution_rate
FROM outcomes AS o
GROUP BY
  agent_id,
  month
ORDER BY
  agent_id,
  month DESC NULLS LAST
