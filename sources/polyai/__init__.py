"""PolyAI conversations in your own warehouse: a dlt source, and the commands that run it."""

from .backfill import Target, backfill
from .config.settings import resolve
from .plan import Span
from .resources import polyai
from .sync import load
from .warehouse.open import open_pipeline

__all__ = ["Span", "Target", "backfill", "load", "open_pipeline", "polyai", "resolve"]
