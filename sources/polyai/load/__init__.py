"""Incremental load: plan, fetch, commit, and the runs that combine them."""
