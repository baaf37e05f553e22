"""Questions that people ask of the warehouse, each with a query that answers it: a file each."""

from __future__ import annotations

from .recipes import Recipe, recipes

__all__ = ["Recipe", "recipes"]
