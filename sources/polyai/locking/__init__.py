"""Mutual exclusion of runs: locks on files, leases in the destination."""
