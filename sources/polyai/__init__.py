"""PolyAI conversations in your own warehouse: a dlt source, and the commands that run it."""

from .config.settings import resolve
from .load.backfill import Target, backfill
from .load.plan import Span
from .load.run import load
from .load.source import polyai
from .warehouse.open import open_pipeline

__all__ = ["Span", "Target", "backfill", "load", "open_pipeline", "polyai", "resolve"]
