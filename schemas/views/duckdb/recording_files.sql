-- One row per stored recording: its file, where its archive is now.
-- Answers: Where is the audio of a conversation, and what are its bytes?
-- Key: agent_id, conversation_id, recorded_voices, is_redacted
--
-- The place is that of the archive, so that it stays true when the archive was moved.
CREATE OR REPLACE VIEW polyai.recording_files AS
SELECT
  ids.agent_id,
  ids.conversation_id,
  ids.recorded_voices,
  ids.is_redacted,
  ids.archive_id,
  ids.path,
  ids.uri,
  ids.sha256,
  ids.bytes,
  ids.recording_seconds,
  agents.agent_name
FROM (
  SELECT
    r.agent_id,
    r.conversation_id,
    r.direction AS recorded_voices,
    r.redacted AS is_redacted,
    r.archive_id,
    r.path,
    a.url || '/' || r.path AS uri,
    r.sha256,
    r.bytes,
    r.duration_seconds AS recording_seconds
  FROM polyai.recordings AS r
  JOIN polyai.archives AS a
    ON a.agent_id = r.agent_id AND a.archive_id = r.archive_id
  WHERE
    r.status = 'stored'
) AS ids
LEFT JOIN polyai.agents AS agents
  ON agents.agent_id = ids.agent_id;
