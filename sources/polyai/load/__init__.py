"""Incremental load: plan, fetch, shape, commit, and the runs that combine them."""
