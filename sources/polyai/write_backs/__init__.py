"""Annotations and notes, written back to PolyAI: each once, whatever happens meanwhile."""

from .report import Result, WriteBackReport
from .run import annotate, note

__all__ = ["Result", "WriteBackReport", "annotate", "note"]
