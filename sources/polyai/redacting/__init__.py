"""Conversion of what is loaded to a stricter privacy mode."""
