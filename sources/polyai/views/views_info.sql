-- One row: the inputs that the views were created from.
-- Answers: In which time zone are local dates, and are these the views of this version?
SELECT
  $reporting_time_zone AS reporting_time_zone,
  $fingerprint AS fingerprint
