-- One row: what the views were made from.
-- Answers: In which time zone are the local dates, and are these the views of this version?
CREATE OR REPLACE VIEW polyai.views_info AS
SELECT
  'UTC' AS reporting_time_zone,
  'a239adb06b38d3ee8550703b01077ccb' AS fingerprint;
