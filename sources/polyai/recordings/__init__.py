"""Recordings: fetched, kept as files in a folder or bucket, verified and pruned."""
