"""Numbers of examples for property tests that need more or fewer than the default."""

from __future__ import annotations

from hypothesis import settings

_IN_CI = 100
"""Examples in the profile `ci`, as registered by tests/conftest.py."""


def examples(number: int) -> settings:
    """Returns settings with this number of examples in CI, and proportional ones elsewhere."""
    return settings(max_examples=max(number * settings().max_examples // _IN_CI, 5))
