-- One row per agent and variant with conversations; `none` for conversations without a variant.
-- Answers: Which variants answered, what are they called, and when were they in use?
-- Key: agent_id, variant_id
CREATE OR REPLACE VIEW polyai.dim_variants AS
WITH named AS (
  SELECT
    *,
    ROW_NUMBER() OVER (
      PARTITION BY agent_id, variant_id
      ORDER BY CASE WHEN variant_name IS NULL THEN 1 ELSE 0 END, began_at DESC NULLS LAST
    ) AS place
  FROM polyai.conversations_local
)
SELECT
  agent_id,
  variant_id,
  MAX(CASE WHEN place = 1 THEN variant_name END) AS variant_name,
  MIN(local_date) AS first_local_date,
  MAX(local_date) AS last_local_date,
  COUNT(*) AS conversations
FROM named
GROUP BY
  agent_id,
  variant_id;
