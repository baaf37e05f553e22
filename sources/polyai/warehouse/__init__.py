"""Reads from and connections to the destination."""
