"""dlt's working directory: its lock, and removal of partially written state."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from pathlib import Path

import orjson
import pyarrow as pa
from dlt.common.storages import PackageStorage
from dlt.common.storages.versioned_storage import VersionedStorage
from filelock import FileLock, Timeout
from semver import Version

logger = logging.getLogger("polyai")

_SCHEMA_ENDING = ".schema.json"


def lock_file(working_directory: Path) -> Path:
    """Path of the lock file of a working directory; its holder has the directory exclusively."""
    return working_directory.with_name(f"{working_directory.name}.lock")


def lock_on(path: Path) -> FileLock:
    """Lock on a file that is accessible to its owner only; reentrant within a thread."""
    return FileLock(path, mode=0o600, is_singleton=True)


def remove_partial_state(working_directory: Path) -> None:
    """Removes partially written files that prevent dlt from opening a working directory.

    A run that is killed while dlt writes a schema leaves a draft, which dlt mistakes for a schema.
    A power failure can leave any file partially written; then the whole directory is removed. What
    was pending there is not in the warehouse, so it is fetched again. No-op while another run has
    the directory locked: the drafts are that run's.
    """
    drafts = [path for path in working_directory.glob("schemas/*") if not _is_schema(path)]
    partial = _partial_state_file(working_directory)
    if not drafts and partial is None:
        return
    with suppress(Timeout), lock_on(lock_file(working_directory)).acquire(timeout=0):
        for path in drafts:
            path.unlink(missing_ok=True)
        if (partial := _partial_state_file(working_directory)) is not None:
            logger.warning(
                "%s is partially written: removing %s, which is created again",
                partial,
                working_directory,
            )
            shutil.rmtree(working_directory)


def remove_state(working_directory: Path) -> None:
    """Removes a working directory whose warehouse was deleted; it describes tables that are gone.

    No-op while another run has the directory locked.
    """
    if any(working_directory.glob("schemas/*")):
        with suppress(Timeout), lock_on(lock_file(working_directory)).acquire(timeout=0):
            shutil.rmtree(working_directory)


def _is_schema(path: Path) -> bool:
    return path.name.endswith(_SCHEMA_ENDING)


def _partial_state_file(working_directory: Path) -> Path | None:
    """Finds a state file of dlt that is partially written, or that names a missing schema."""
    state = working_directory / "state.json"
    schemas = [path for path in working_directory.glob("schemas/*") if _is_schema(path)]
    versions = working_directory.glob(f"*/{VersionedStorage.VERSION_FILE}")
    for path in (state, *schemas, *versions):
        if is_partially_written(path):
            return path
    names = {path.name.removesuffix(_SCHEMA_ENDING) for path in schemas}
    known = orjson.loads(state.read_bytes()).get("schema_names") if state.exists() else None
    return state if set(known or ()) - names else None


def is_partially_written(path: Path) -> bool:
    """Checks whether a file of dlt's working directory is partially written."""
    try:
        if path.suffix == ".json" and path.name != PackageStorage.PACKAGE_COMPLETED_FILE_NAME:
            orjson.loads(path.read_bytes())
        elif path.name == VersionedStorage.VERSION_FILE:
            Version.parse(path.read_text(encoding="utf-8"))
        elif path.suffix == ".parquet":
            # takes 40 CPU ms, and few runs find such a file
            import pyarrow.parquet as pq

            pq.read_metadata(path)
    except FileNotFoundError:
        return False
    except (ValueError, pa.ArrowException):
        return True
    return False
