"""Erasure of conversations and callers, and protection against loading them again."""
