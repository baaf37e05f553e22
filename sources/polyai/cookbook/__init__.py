"""Recipes: common questions about the warehouse, one `.sql` file with the answer per question."""

from __future__ import annotations

from .recipes import Recipe, recipes

__all__ = ["Recipe", "recipes"]
