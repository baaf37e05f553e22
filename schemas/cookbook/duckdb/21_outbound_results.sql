-- What came of our outbound calls: status, SIP code, and who answered?
--
-- Outbound `live` calls over the last 30 days, from PolyAI's metrics of outbound calls, of the last
-- attempt where there were several. A call without them is in the row without status. 480 is nobody
-- available, 486 busy, 603 declined.
--
-- Columns:
-- completed_conversations: Calls with CALL_COMPLETED.
-- caller_hangups: Calls that the person called ended, as USER_HANGUP says.
SELECT
  agent_id,
  (SELECT n.agent_name FROM polyai.agents AS n WHERE n.agent_id = f.agent_id) AS agent_name,
  call_status,
  sip_code,
  answered_by,
  count(*) AS conversations,
  count(CASE WHEN is_call_completed THEN 1 END) AS completed_conversations,
  count(CASE WHEN starts_with(hangup_category, 'caller_') THEN 1 END) AS caller_hangups,
  avg(handle_time_seconds) AS handle_time_seconds_mean
FROM polyai.fct_conversations AS f
WHERE environment = 'live' AND direction = 'outbound'
  AND local_date > (SELECT max(last_local_date) FROM polyai.dim_agents) - 30
GROUP BY agent_id, call_status, sip_code, answered_by
ORDER BY agent_id, conversations DESC, call_status, sip_code, answered_by
