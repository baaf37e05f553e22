"""Jobs that combine several parts of the package: the scheduled load and the backfill."""
