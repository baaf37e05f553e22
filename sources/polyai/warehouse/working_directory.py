"""dlt's working directory: its lock, and removal of partially written state."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from dlt.common.storages import PackageStorage
from dlt.common.storages.versioned_storage import VersionedStorage
from filelock import FileLock, Timeout
from semver import Version

logger = logging.getLogger("polyai")


def lock_file(working_directory: Path) -> Path:
    """Who holds this lock has the working directory for itself."""
    return working_directory.with_name(f"{working_directory.name}.lock")


def lock_on(path: Path) -> FileLock:
    """A lock on a file, for its owner alone; a thread that holds it can take it again."""
    return FileLock(path, mode=0o600, is_singleton=True)


def begin_anew_if_torn(working_directory: Path) -> None:
    """Removes from the working directory what keeps dlt from opening it.

    A run that was killed while dlt wrote a schema leaves a draft that dlt takes for one; a power
    failure can leave any file half written, and then the whole directory goes. What waited there
    is not held by the warehouse, and so is read again. Nothing is done while another run is at
    work, whose drafts these are.
    """
    drafts = [path for path in working_directory.glob("schemas/*") if not _is_schema(path)]
    torn = _torn_state(working_directory)
    if not drafts and torn is None:
        return
    with suppress(Timeout), lock_on(lock_file(working_directory)).acquire(timeout=0):
        for path in drafts:
            path.unlink(missing_ok=True)
        if (torn := _torn_state(working_directory)) is not None:
            logger.warning("%s is not whole: %s is begun anew", torn, working_directory)
            shutil.rmtree(working_directory)


def _is_schema(path: Path) -> bool:
    return path.name.endswith(_SCHEMA_ENDING)


def _torn_state(working_directory: Path) -> Path | None:
    """A file of dlt's own state that is not whole, or that names what is not there."""
    state = working_directory / "state.json"
    schemas = [path for path in working_directory.glob("schemas/*") if _is_schema(path)]
    versions = working_directory.glob(f"*/{VersionedStorage.VERSION_FILE}")
    for path in (state, *schemas, *versions):
        if is_torn(path):
            return path
    names = {path.name.removesuffix(_SCHEMA_ENDING) for path in schemas}
    known = orjson.loads(state.read_bytes()).get("schema_names") if state.exists() else None
    return state if set(known or ()) - names else None


def is_torn(path: Path) -> bool:
    """Checks whether a file of dlt's working directory is partially written."""
    try:
        if path.suffix == ".json" and path.name != PackageStorage.PACKAGE_COMPLETED_FILE_NAME:
            orjson.loads(path.read_bytes())
        elif path.name == VersionedStorage.VERSION_FILE:
            Version.parse(path.read_text(encoding="utf-8"))
        elif path.suffix == ".parquet":
            pq.read_metadata(path)
    except FileNotFoundError:
        return False
    except (ValueError, pa.ArrowException):
        return True
    return False


_SCHEMA_ENDING = ".schema.json"
