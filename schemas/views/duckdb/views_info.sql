-- One row: what the views were made from.
-- Answers: In which time zone are the local dates, and are these the views of this version?
CREATE OR REPLACE VIEW polyai.views_info AS
SELECT
  'UTC' AS reporting_time_zone,
  '2399b21fe0356671ea275c2fb6647adc' AS fingerprint;
