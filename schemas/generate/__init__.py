"""Generators of the documents in `schemas/`; run from the repository root, not packaged."""
