"""DuckLake offline: DuckDB's extensions from Python packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import duckdb

_PACKAGES = {
    "ducklake": "duckdb_extension_ducklake",
    "httpfs": "duckdb_extension_httpfs",
    "postgres_scanner": "duckdb_extension_postgres_scanner",
    "sqlite_scanner": "duckdb_extension_sqlite_scanner",
}


def extensions() -> list[Path]:
    """Returns the files of the extensions for this version of DuckDB; none if one is missing."""
    found = []
    for name, package in _PACKAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            return []
        folder = Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}"
        path = folder / f"{name}.duckdb_extension"
        if not path.exists():
            return []
        found.append(path)
    return found


def home_with_extensions(home: Path) -> dict[str, str]:
    """Returns environment variables for a new home folder in which DuckDB finds the extensions."""
    with duckdb.connect() as connection:
        row = connection.execute("PRAGMA platform").fetchone()
    assert row is not None
    folder = home / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / str(row[0])
    folder.mkdir(parents=True)
    for path in extensions():
        (folder / path.name).symlink_to(path)
    return {"HOME": str(home)}
