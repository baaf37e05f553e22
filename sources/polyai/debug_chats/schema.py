"""JSON Schema of scenario files, for validation and for editors."""

from __future__ import annotations

from importlib.resources import files


def schema_text() -> str:
    """Returns the JSON Schema of scenario files (`scenarios.schema.json`) as text."""
    return files(__package__).joinpath("scenarios.schema.json").read_text(encoding="utf-8")
