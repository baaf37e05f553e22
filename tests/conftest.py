"""What every test starts from: an empty folder of its own, and nothing of the user's settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test in an empty folder, without settings from the outside."""
    for name in list(os.environ):
        if name.startswith(("POLYAI_", "SOURCES__", "DESTINATION__", "DLT_")):
            monkeypatch.delenv(name)
    # each command that a test starts would compile the package anew
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.chdir(tmp_path)
    return tmp_path
