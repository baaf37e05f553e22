"""Recordings: download into a folder or bucket, verification and pruning."""
