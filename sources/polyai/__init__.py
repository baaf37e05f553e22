"""PolyAI conversations in your own warehouse: a dlt source, and the commands that run it."""

from .resources import polyai
from .settings import resolve
from .sync import load
from .warehouse import open_pipeline

__all__ = ["load", "open_pipeline", "polyai", "resolve"]
