"""Write-backs: annotations and notes sent to PolyAI, each exactly once."""

from .report import Result, WriteBackReport

__all__ = ["Result", "WriteBackReport"]
