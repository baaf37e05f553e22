-- One row per stored recording: its file, where its archive is now.
-- Answers: Where is the audio of a conversation, and what are its bytes?
-- Key: agent_id, conversation_id, recorded_voices, is_redacted
--
-- The place is that of the archive, so that it stays true when the archive was moved.
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
FROM recordings AS r
JOIN archives AS a ON a.agent_id = r.agent_id AND a.archive_id = r.archive_id
WHERE r.status = 'stored'
