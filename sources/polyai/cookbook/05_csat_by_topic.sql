-- Which topics leave callers satisfied, and which do not?
--
-- Satisfaction survey of `live` conversations over the last 90 days, by knowledge topic. A
-- conversation counts for each of its topics, so rows do not add up to the total. Check the number
-- of answers before the mean: few callers answer, and dissatisfied ones do so more often.
--
-- Columns:
-- csat_mean: Mean satisfaction score; NULL without an answer.
WITH asked AS (
  SELECT DISTINCT agent_id, conversation_id, topic
  FROM polyai.turn_topics
)
SELECT
  a.agent_id,
  ${agent_name(a)},
  a.topic,
  count(*) AS csat_offers,
  count(c.csat_score) AS csat_answers,
  count(c.csat_score) / count(*) AS csat_response_rate,
  avg(c.csat_score) AS csat_mean,
  (count(*) FILTER (WHERE c.csat_score >= 4) - count(*) FILTER (WHERE c.csat_score <= 2))
    / nullif(count(c.csat_score), 0) AS csat_net_share
FROM polyai.csat_responses AS c
JOIN asked AS a ON a.agent_id = c.agent_id AND a.conversation_id = c.conversation_id
WHERE c.environment = 'live'
  AND c.local_date > (SELECT max(last_local_date) FROM polyai.dim_agents) - 90
GROUP BY a.agent_id, a.topic
ORDER BY a.agent_id, csat_mean NULLS LAST, a.topic
