"""Write-backs: annotations and notes sent to PolyAI, each exactly once."""

from .report import Result, WriteBackReport
from .run import annotate, note

__all__ = ["Result", "WriteBackReport", "annotate", "note"]
