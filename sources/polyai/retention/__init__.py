"""Retention: deletion of conversations, recordings and words at an age."""
