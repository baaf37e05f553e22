-- One row per local date, from the first conversation to today, without gaps.
-- Answers: Which days are there, including those without conversations, and how long is each?
-- Key: local_date
WITH bounds AS (
  SELECT
    min(local_date) AS first_date,
    greatest(
      max(local_date), CAST(CURRENT_TIMESTAMP AT TIME ZONE $reporting_time_zone AS DATE)
    ) AS last_date
  FROM conversations_local
), digits AS (
  SELECT 0 AS digit
  UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 UNION ALL SELECT 5
  UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9
), dates AS (
  SELECT
    b.first_date + (1000 * k.digit + 100 * h.digit + 10 * t.digit + o.digit) AS local_date,
    b.last_date
  FROM bounds AS b
  CROSS JOIN digits AS k
  CROSS JOIN digits AS h
  CROSS JOIN digits AS t
  CROSS JOIN digits AS o
)
SELECT
  local_date,
  CAST(extract(year FROM local_date) AS BIGINT) AS year,
  CAST(extract(quarter FROM local_date) AS BIGINT) AS quarter,
  CAST(extract(month FROM local_date) AS BIGINT) AS month,
  CAST(extract(day FROM local_date) AS BIGINT) AS day_of_month,
  CAST(extract(isoyear FROM local_date) AS BIGINT) AS iso_year,
  CAST(extract(week FROM local_date) AS BIGINT) AS iso_week,
  CAST(extract(isodow FROM local_date) AS BIGINT) AS iso_weekday,
  extract(isodow FROM local_date) >= 6 AS is_weekend,
  CAST(
    extract(
      epoch FROM (CAST(local_date + 1 AS TIMESTAMP) AT TIME ZONE $reporting_time_zone)
        - (CAST(local_date AS TIMESTAMP) AT TIME ZONE $reporting_time_zone)
    ) AS DOUBLE
  ) / 3600 AS hours
FROM dates
WHERE local_date <= last_date
