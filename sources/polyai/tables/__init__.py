"""Declarations of all tables: columns, types, units, keys, descriptions and sources."""
