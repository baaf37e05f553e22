-- One row: the inputs that the views were created from.
-- Answers: In which time zone are local dates, and are these the views of this version?
CREATE OR REPLACE VIEW polyai.views_info AS
SELECT
  'UTC' AS reporting_time_zone,
  '0d2939841f5a3308ac2c480d273b6e6d' AS fingerprint;
