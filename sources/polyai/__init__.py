"""PolyAI conversations in your own warehouse: a dlt source, and the commands that run it."""

from .destination import open_pipeline
from .resources import polyai
from .settings import resolve
from .sync import load

__all__ = ["load", "open_pipeline", "polyai", "resolve"]
