"""Peak of the resident memory of this process, on Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.sides import peak_rss_bytes

_PROCESS = Path("/proc/self")

needs_peak_memory = pytest.mark.skipif(
    not (_PROCESS / "clear_refs").exists(), reason="the peak of memory is read from Linux's /proc"
)


def reset_peak() -> None:
    """Resets the peak to what is in use now."""
    (_PROCESS / "clear_refs").write_text("5")


def peak_megabytes() -> int:
    """Returns the peak."""
    return peak_rss_bytes() // 2**20
