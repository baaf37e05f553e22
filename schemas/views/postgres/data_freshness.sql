-- One row per agent: freshness and completeness of its data.
-- Answers: Can I trust today's numbers?
-- Key: agent_id
--
-- A load is complete if it read everything it was to read, even if single conversations failed.
-- Missing conversations are counted against the number that PolyAI reported to the newest complete
-- load, without those that it counts but does not list. Erased conversations, those that are too old
-- for the setting retention, conversations with an open failure, and conversations that a full load no
-- longer found in the listing are not missing.
CREATE OR REPLACE VIEW polyai.data_freshness AS
WITH loads AS (
  SELECT
    *,
    ROW_NUMBER() OVER (PARTITION BY agent_id ORDER BY finished_at DESC NULLS LAST, run_id) AS place
  FROM polyai.sync_runs
  WHERE
    command = 'load' AND status IN ('complete', 'partial') AND NOT finished_at IS NULL
), failures AS (
  SELECT
    f.agent_id,
    COUNT(*) AS open_failures,
    COUNT(
      CASE WHEN f.stage IN ('detail', 'listing') AND c.conversation_id IS NULL THEN 1 END
    ) AS not_held
  FROM polyai.fetch_failures AS f
  LEFT JOIN polyai.conversations AS c
    ON c.agent_id = f.agent_id AND c.conversation_id = f.conversation_id
  WHERE
    f.resolved_at IS NULL
  GROUP BY
    f.agent_id
), erased AS (
  SELECT
    agent_id,
    COUNT(*) AS conversations
  FROM polyai.forgotten
  GROUP BY
    agent_id
), held AS (
  SELECT
    agent_id,
    COUNT(*) AS conversations,
    COUNT(CASE WHEN NOT is_finished THEN 1 END) AS in_progress_conversations,
    COUNT(CASE WHEN is_transcript_withheld THEN 1 END) AS withheld_conversations,
    MAX(began_at) AS newest_conversation_at,
    MAX(fetched_at) AS newest_fetched_at
  FROM polyai.conversations_local
  GROUP BY
    agent_id
)
SELECT
  ids.agent_id,
  ids.newest_conversation_at,
  ids.newest_fetched_at,
  ids.last_complete_load_at,
  ids.load_age_minutes,
  ids.conversations,
  ids.in_progress_conversations,
  ids.withheld_conversations,
  ids.open_failures,
  ids.gaps_repaired,
  ids.api_conversations,
  ids.missing_conversations,
  COALESCE(agents.agent_name, ids.agent_name) AS agent_name
FROM (
  SELECT
    a.agent_id,
    h.newest_conversation_at,
    h.newest_fetched_at,
    l.finished_at AS last_complete_load_at,
    CAST(EXTRACT(EPOCH FROM CURRENT_TIMESTAMP - l.finished_at) AS DOUBLE PRECISION) / 60 AS load_age_minutes,
    COALESCE(h.conversations, 0) AS conversations,
    COALESCE(h.in_progress_conversations, 0) AS in_progress_conversations,
    COALESCE(h.withheld_conversations, 0) AS withheld_conversations,
    COALESCE(f.open_failures, 0) AS open_failures,
    l.gaps_repaired,
    l.api_count AS api_conversations,
    CASE
      WHEN NOT l.api_count IS NULL
      THEN GREATEST(
        l.api_count + COALESCE(l.absent, 0) - COALESCE(e.conversations, 0) - COALESCE(h.conversations, 0) - COALESCE(f.not_held, 0) - COALESCE(l.count_excess, 0) - COALESCE(r.too_old, 0),
        0
      )
    END AS missing_conversations,
    a.agent_name
  FROM polyai.dim_agents AS a
  LEFT JOIN held AS h
    ON h.agent_id = a.agent_id
  LEFT JOIN erased AS e
    ON e.agent_id = a.agent_id
  LEFT JOIN failures AS f
    ON f.agent_id = a.agent_id
  LEFT JOIN polyai.retention AS r
    ON r.agent_id = a.agent_id
  LEFT JOIN loads AS l
    ON l.agent_id = a.agent_id AND l.place = 1
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id;
