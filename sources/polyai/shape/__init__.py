"""Shaping of API payloads into Arrow tables; pure functions without I/O."""
