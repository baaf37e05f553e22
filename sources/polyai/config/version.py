"""Version of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "polyai-warehouse"


def installed_version() -> str:
    """Returns the version, or `source` for a package that `dlt init` copied."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "source"
