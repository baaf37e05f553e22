-- One row: the inputs that the views were created from.
-- Answers: In which time zone are local dates, and are these the views of this version?
CREATE OR REPLACE VIEW polyai.views_info AS
SELECT
  'UTC' AS reporting_time_zone,
  '899c36bbd9b93517be6ffa536d202e54' AS fingerprint;
