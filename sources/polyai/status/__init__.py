"""Status of a warehouse: freshness, last runs, failures, reconciliation."""
