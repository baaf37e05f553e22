"""Numbers of examples for property tests that need more or fewer than the default."""

from __future__ import annotations

from hypothesis import settings

_WHOLE = 100
"""Examples of a profile that runs the whole number; tests/conftest.py registers the profiles."""


def examples(number: int) -> settings:
    """Returns settings with this number of examples, in proportion to those of the profile."""
    return settings(max_examples=max(number * settings().max_examples // _WHOLE, 5))
