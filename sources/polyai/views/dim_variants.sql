-- One row per agent and variant with conversations; `none` for conversations without a variant.
-- Answers: Which variants answered, what are they called, and when were they in use?
-- Key: agent_id, variant_id
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
  agent_id,
  variant_id,
  max(CASE WHEN place = 1 THEN variant_name END) AS variant_name,
  min(local_date) AS first_local_date,
  max(local_date) AS last_local_date,
  count(*) AS conversations
FROM named
GROUP BY agent_id, variant_id
