"""Marks of tests that need packages of the extra `test-extras`.

Without them these tests are skipped, with the reason; where `TEST_EXTRAS` is set, as in the last
steps of CI, they fail instead.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

from ducklake import extensions

ARE_REQUIRED = bool(os.environ.get("TEST_EXTRAS"))
"""The packages have to be there: tests do not skip."""


def are_installed(*modules: str) -> bool:
    """Checks whether all of these modules can be imported, or have to be."""
    return ARE_REQUIRED or all(find_spec(module) for module in modules)


_REASONS: set[str] = set()


def _needs(what: str, is_there: bool) -> pytest.MarkDecorator:
    reason = f"needs {what}: pip install -e '.[test-extras]'"
    _REASONS.add(reason)
    return pytest.mark.skipif(not is_there, reason=reason)


def needs_extras(item: pytest.Item) -> bool:
    """Checks whether a test is skipped, or not even collected, without the packages."""
    return item.path.name in MODULES or any(
        mark.kwargs.get("reason") in _REASONS for mark in item.iter_markers("skipif")
    )


needs_s3 = _needs("an S3 server", are_installed("moto", "s3fs", "flask", "flask_cors"))
needs_ducklake = _needs("the extensions of DuckLake", ARE_REQUIRED or bool(extensions()))
needs_schemas = _needs("check-jsonschema", are_installed("check_jsonschema"))
needs_sqlalchemy = _needs("SQLAlchemy and PyMySQL", are_installed("sqlalchemy", "pymysql"))
needs_dashboard = _needs("marimo and altair", are_installed("marimo", "altair"))
needs_hatchling = _needs("hatchling", are_installed("hatchling"))
needs_certificates = _needs("trustme", are_installed("trustme"))

MODULES = {
    "test_dagster.py": ("dagster",),
    "test_dashboard.py": ("marimo", "playwright"),
    "test_dashboard_components.py": ("marimo",),
    "test_dashboard_queries.py": ("marimo",),
    "test_destinations.py": ("pymysql", "sqlalchemy"),
}
"""Modules of tests that import packages at the top."""
