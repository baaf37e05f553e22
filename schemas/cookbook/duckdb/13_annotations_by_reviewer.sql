-- Who annotates how much, and what do they find?
--
-- All annotations that the warehouse holds, by author, side of the turn and type. They do not show
-- in PolyAI's list of conversations: those made within a week of the call come with the reads that
-- follow it, later ones only where the conversation is read again for another reason. What was
-- looked at and found right leaves no trace, so this counts findings and not effort.
--
-- Columns:
-- annotated_by: Author; `unknown`: not told.
-- annotations: How many.
-- conversations: In how many conversations.
-- last_annotated_at: When the newest one was made, in UTC.
SELECT
  agent_id,
  coalesce(annotated_by, 'unknown') AS annotated_by,
  role,
  annotation_type,
  count(*) AS annotations,
  count(DISTINCT conversation_id) AS conversations,
  max(annotated_at) AS last_annotated_at
FROM polyai.annotations
GROUP BY agent_id, coalesce(annotated_by, 'unknown'), role, annotation_type
ORDER BY annotations DESC, agent_id, annotated_by, role, annotation_type
