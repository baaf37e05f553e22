-- Which variant performs better, and is the difference more than chance?
--
-- `live` conversations over the last 30 days by variant, with the counts beside each rate. If the
-- ranges of two variants do not overlap, the difference is unlikely to be chance; if they do, wait
-- for more conversations. They are 95 % confidence intervals by the normal approximation, which is
-- poor below about 30 conversations. Compare variants that ran at the same time on the same
-- channels. PolyScores are on the 1-5 scale: a mean over both scales is meaningless.
--
-- Columns:
-- containment_rate_low: Lower end of the 95 % confidence interval.
-- containment_rate_high: Upper end of the 95 % confidence interval.
WITH counted AS (
  SELECT
    agent_id,
    variant_id,
    sum(finished_conversations) AS finished,
    sum(contained_conversations) AS contained,
    sum(contained_excl_abandoned_conversations) AS contained_excl_abandoned,
    sum(csat_answers) AS csat_answers,
    sum(csat_score_sum) AS csat_score_sum,
    sum(scored_conversations_1_5) AS scored,
    sum(poly_score_1_5_sum) AS score_sum
  FROM polyai.kpi_daily
  WHERE environment = 'live'
    AND local_date > (SELECT max(last_local_date) FROM polyai.dim_agents) - 30
  GROUP BY agent_id, variant_id
), rated AS (
  SELECT
    *,
    contained / nullif(finished, 0) AS rate
  FROM counted
)
SELECT
  r.agent_id,
  (SELECT n.agent_name FROM polyai.agents AS n WHERE n.agent_id = r.agent_id) AS agent_name,
  r.variant_id,
  v.variant_name,
  r.finished AS finished_conversations,
  r.rate AS containment_rate,
  r.rate - 1.96 * sqrt(r.rate * (1 - r.rate) / r.finished) AS containment_rate_low,
  r.rate + 1.96 * sqrt(r.rate * (1 - r.rate) / r.finished) AS containment_rate_high,
  r.contained_excl_abandoned / nullif(r.finished, 0) AS containment_rate_excl_abandoned,
  r.csat_answers,
  r.csat_score_sum / nullif(r.csat_answers, 0) AS csat_mean,
  r.scored AS scored_conversations_1_5,
  r.score_sum / nullif(r.scored, 0) AS poly_score_1_5_mean
FROM rated AS r
JOIN polyai.dim_variants AS v ON v.agent_id = r.agent_id AND v.variant_id = r.variant_id
ORDER BY r.agent_id, containment_rate DESC NULLS LAST, r.variant_id
