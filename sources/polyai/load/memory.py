"""Memory of a long run: when garbage is collected, and what is returned to the system."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count

import pyarrow as pa

_M_MMAP_THRESHOLD = -3
"""glibc's name for the size from which on an allocation gets a mapping of its own. Unless it is
set, glibc raises it by itself, and then DuckDB's blocks of 256 KB leave holes behind."""

_MMAP_THRESHOLD_BYTES = 128 * 1024
"""The threshold at the start of a process."""


_CHUNKS_PER_COLLECTION = 4
"""Chunks after which garbage is collected. Each leaves 5 MB of it; a collection takes 40 CPU ms,
because it visits the answers that wait to be shaped."""


@contextmanager
def cycles_collected_rarely() -> Iterator[Callable[[], None]]:
    """Turns automatic garbage collection off; yields the function to call after each chunk.

    Parsed JSON contains no reference cycles, but triggers the collector, which would cost more
    than the parsing. What exists at the start, such as all imported modules, is left out.
    """
    was_enabled, had_frozen = gc.isenabled(), gc.get_freeze_count() > 0
    chunks = count(1)

    def collect() -> None:
        if next(chunks) % _CHUNKS_PER_COLLECTION == 0:
            gc.collect()

    gc.disable()
    gc.freeze()
    try:
        yield collect
    finally:
        if not had_frozen:  # otherwise the process has frozen its modules until it ends
            gc.unfreeze()
        if was_enabled:
            gc.enable()


def fix_mmap_threshold() -> None:
    """Makes glibc return what DuckDB frees; otherwise a long run grows with each chunk."""
    with suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def release_unused() -> None:
    """Returns memory freed after reading to the system, because loading needs as much again."""
    pa.default_memory_pool().release_unused()
    with suppress(AttributeError, OSError, TypeError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)
