-- One row: what the views were made from.
-- Answers: In which time zone are the local dates, and are these the views of this version?
SELECT
  $reporting_time_zone AS reporting_time_zone,
  $fingerprint AS fingerprint
