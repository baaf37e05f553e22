-- One row per agent: freshness and completeness of its data.
-- Answers: Can I trust today's numbers?
-- Key: agent_id
--
-- A load is complete if it read everything it was to read, even if single conversations failed.
-- Missing conversations are counted against the number that PolyAI reported to the newest complete
-- load, without those that it counts but does not list. Erased conversations, those that are too old
-- for the setting retention, conversations with an open failure, and conversations that a full load no
-- longer found in the listing are not missing.
WITH loads AS (
  SELECT
    *,
    row_number() OVER (PARTITION BY agent_id ORDER BY finished_at DESC, run_id) AS place
  FROM sync_runs
  WHERE ${complete_load()} AND finished_at IS NOT NULL
), failures AS (
  SELECT
    f.agent_id,
    count(*) AS open_failures,
    count(
      CASE WHEN f.stage IN ('detail', 'listing') AND c.conversation_id IS NULL THEN 1 END
    ) AS not_held
  FROM fetch_failures AS f
  LEFT JOIN conversations AS c
    ON c.agent_id = f.agent_id AND c.conversation_id = f.conversation_id
  WHERE f.resolved_at IS NULL
  GROUP BY f.agent_id
), erased AS (
  SELECT agent_id, count(*) AS conversations
  FROM forgotten
  GROUP BY agent_id
), held AS (
  SELECT
    agent_id,
    count(*) AS conversations,
    count(CASE WHEN NOT is_finished THEN 1 END) AS in_progress_conversations,
    count(CASE WHEN is_transcript_withheld THEN 1 END) AS withheld_conversations,
    max(began_at) AS newest_conversation_at,
    max(fetched_at) AS newest_fetched_at
  FROM conversations_local
  GROUP BY agent_id
)
SELECT
  a.agent_id,
  h.newest_conversation_at,
  h.newest_fetched_at,
  l.finished_at AS last_complete_load_at,
  CAST(extract(epoch FROM CURRENT_TIMESTAMP - l.finished_at) AS DOUBLE) / 60 AS load_age_minutes,
  coalesce(h.conversations, 0) AS conversations,
  coalesce(h.in_progress_conversations, 0) AS in_progress_conversations,
  coalesce(h.withheld_conversations, 0) AS withheld_conversations,
  coalesce(f.open_failures, 0) AS open_failures,
  l.gaps_repaired,
  l.api_count AS api_conversations,
  ${missing(l.api_count, h.conversations, e.conversations, l.absent, f.not_held, l.count_excess,
    r.too_old)} AS missing_conversations,
  a.agent_name
FROM dim_agents AS a
LEFT JOIN held AS h ON h.agent_id = a.agent_id
LEFT JOIN erased AS e ON e.agent_id = a.agent_id
LEFT JOIN failures AS f ON f.agent_id = a.agent_id
LEFT JOIN retention AS r ON r.agent_id = a.agent_id
LEFT JOIN loads AS l ON l.agent_id = a.agent_id AND l.place = 1
