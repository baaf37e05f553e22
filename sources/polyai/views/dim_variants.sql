-- One row per agent and variant with conversations; `none` for conversations without a variant.
-- Answers: Which variants answered, what are they called, and when were they in use?
-- Key: agent_id, variant_id
--
-- The name is the one in `variants`, or else that of the newest conversation which has one.
WITH named AS (
  SELECT
    *,
    row_number() OVER (
      PARTITION BY agent_id, variant_id
      ORDER BY CASE WHEN variant_name IS NULL THEN 1 ELSE 0 END, began_at DESC
    ) AS place
  FROM conversations_local
)
SELECT
  c.agent_id,
  c.variant_id,
  coalesce(max(v.variant_name), max(CASE WHEN c.place = 1 THEN c.variant_name END)) AS variant_name,
  min(c.local_date) AS first_local_date,
  max(c.local_date) AS last_local_date,
  count(*) AS conversations
FROM named AS c
LEFT JOIN variants AS v ON v.agent_id = c.agent_id AND v.variant_id = c.variant_id
GROUP BY c.agent_id, c.variant_id
