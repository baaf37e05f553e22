"""Numbers of examples of properties that need more or fewer than others."""

from __future__ import annotations

from hypothesis import settings

_IN_CI = 100
"""Examples of the profile `ci`, as tests/conftest.py registers it."""


def examples(number: int) -> settings:
    """So many examples in CI, in proportion fewer in the default run and more in a slow one."""
    return settings(max_examples=max(number * settings().max_examples // _IN_CI, 5))
