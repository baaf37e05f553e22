-- Who annotates how much, and what do they find?
--
-- All annotations in the warehouse, by author, side of the turn and label. PolyAI's list of
-- conversations does not show annotations: those made within a week of the call are loaded by the
-- re-fetches that follow it, later ones only if the conversation is fetched again for another
-- reason. A review without findings leaves no trace, so this counts findings, not effort.
--
-- Columns:
-- annotated_by: Author of the annotation, or `unknown`.
-- annotations: Annotations.
-- conversations: Conversations with such annotations.
-- last_annotated_at: Time of the newest annotation, UTC.
SELECT
  agent_id,
  (
    SELECT
      n.agent_name
    FROM polyai.agents AS n
    WHERE
      n.agent_id = a.agent_id
  ) AS agent_name,
  COALESCE(annotated_by, 'unknown') AS annotated_by,
  role,
  annotation_type,
  COUNT(*) AS annotations,
  COUNT(DISTINCT conversation_id) AS conversations,
  MAX(annotated_at) AS last_annotated_at
FROM polyai.annotations AS a
GROUP BY
  agent_id,
  COALESCE(annotated_by, 'unknown'),
  role,
  annotation_type
ORDER BY
  annotations DESC NULLS LAST,
  agent_id,
  annotated_by,
  role,
  annotation_type
