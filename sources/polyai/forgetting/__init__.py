"""Erases conversations and callers, and keeps them from coming back."""
