"""Peak of the resident memory of this process, on Linux."""

from __future__ import annotations

from pathlib import Path

import pytest

_PROCESS = Path("/proc/self")

needs_peak_memory = pytest.mark.skipif(
    not (_PROCESS / "clear_refs").exists(), reason="the peak of memory is read from Linux's /proc"
)


def reset_peak() -> None:
    """Lets the peak begin anew with what is in use now."""
    (_PROCESS / "clear_refs").write_text("5")


def peak_megabytes() -> int:
    """Returns the peak; not `ru_maxrss`, which begins with that of the parent process."""
    lines = (_PROCESS / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) // 1024
