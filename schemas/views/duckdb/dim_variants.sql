-- One row per agent and variant with conversations; `none` for conversations without a variant.
-- Answers: Which variants answered, what are they called, and when were they in use?
-- Key: agent_id, variant_id
--
-- The name is the one in `variants`, or else that of the newest conversation which has one.
CREATE OR REPLACE VIEW polyai.dim_variants AS
WITH named AS (
  SELECT
    *,
    ROW_NUMBER() OVER (
      PARTITION BY agent_id, variant_id
      ORDER BY CASE WHEN variant_name IS NULL THEN 1 ELSE 0 END, began_at DESC
    ) AS place
  FROM polyai.conversations_local
)
SELECT
  ids.agent_id,
  ids.variant_id,
  ids.variant_name,
  ids.first_local_date,
  ids.last_local_date,
  ids.conversations,
  agents.agent_name
FROM (
  SELECT
    c.agent_id,
    c.variant_id,
    COALESCE(MAX(v.variant_name), MAX(CASE WHEN c.place = 1 THEN c.variant_name END)) AS variant_name,
    MIN(c.local_date) AS first_local_date,
    MAX(c.local_date) AS last_local_date,
    COUNT(*) AS conversations
  FROM named AS c
  LEFT JOIN polyai.variants AS v
    ON v.agent_id = c.agent_id AND v.variant_id = c.variant_id
  GROUP BY
    c.agent_id,
    c.variant_id
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id;
