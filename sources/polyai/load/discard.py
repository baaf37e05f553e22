"""Removal of what killed runs left: load packages in dlt's working directory, staging datasets.

A run that was killed or refused by the destination leaves packages behind. They are never resumed:
dlt resumes a package job by job, and where the run was killed between a commit in the destination
and dlt's note of it, the resumed job would fill the staging tables twice, or merge a table twice at
once, and duplicate rows. The next run begins like one on a new machine: it removes the working
directory, and reads what the destination does not know as complete.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import dlt
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from filelock import Timeout

from ..warehouse.clients import sql_client
from ..warehouse.duckdb_file import kept_open
from ..warehouse.errors import destination_errors
from ..warehouse.working_directory import lock_file, lock_on

logger = logging.getLogger("polyai")

KEPT_PACKAGES = 10
"""Records of loaded packages that are kept in the working directory for diagnosis."""

_EXTRACTED = "extracted"
"""Folder of `normalize` with whole packages; each other folder is a draft of one extraction."""

_STAGES_OF_LOAD = ("new", "normalized")
"""Folders of `load` with packages that are not loaded yet."""


def discard(pipeline: dlt.Pipeline) -> bool:
    """Removes all packages that are not loaded, including drafts.

    The rest of the working directory goes with them, because its schemas have the tables and
    columns of these packages, which dlt would then take to exist in the destination.

    Args:
        pipeline: The pipeline of the working directory, which nobody else may be using. It has to
            be connected afterwards, which restores state and schemas from the destination.

    Returns:
        Whether there were any.
    """
    working_directory = Path(pipeline.working_dir)
    if not _has_packages(working_directory):
        return False
    logger.warning("discarding what an earlier run did not load: it is read again")
    _remove_state(working_directory)
    pipeline.drop()
    return True


def discard_all(pipelines_dir: Path, prefix: str) -> list[str]:
    """Does the same in each working directory that nobody is using.

    Args:
        pipelines_dir: Parent folder of the working directories.
        prefix: Prefix of the names of their pipelines.

    Returns:
        The names of these pipelines.
    """
    names = []
    for working_directory in _folders(pipelines_dir):
        if not working_directory.name.startswith(prefix):
            continue
        with suppress(Timeout), lock_on(lock_file(working_directory)).acquire(timeout=0):
            if _has_packages(working_directory):
                _remove_state(working_directory)
                shutil.rmtree(working_directory)
            names.append(working_directory.name)
    return names


def remove_old_records(pipeline: dlt.Pipeline) -> None:
    """Removes older records of loaded packages, some 100 KB each, which dlt would keep forever."""
    loaded = sorted(_folders(Path(pipeline.working_dir, "load", "loaded")))
    for folder in loaded[:-KEPT_PACKAGES]:
        shutil.rmtree(folder, ignore_errors=True)


def _has_packages(working_directory: Path) -> bool:
    extractions = _folders(working_directory / "normalize")
    return (
        any(folder.name != _EXTRACTED for folder in extractions)
        or bool(_folders(working_directory / "normalize" / _EXTRACTED))
        or any(_folders(working_directory / "load" / stage) for stage in _STAGES_OF_LOAD)
    )


def _remove_state(working_directory: Path) -> None:
    """Makes dlt remove the directory when it opens it, should this process be killed meanwhile."""
    Path(working_directory, dlt.Pipeline.STATE_FILE).unlink(missing_ok=True)


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []


def drop_datasets(pipeline: dlt.Pipeline, names: Iterable[str]) -> None:
    """Drops those of these datasets that exist in the destination.

    Raises:
        DestinationError: The destination cannot drop one.
    """
    with destination_errors(), kept_open(pipeline), sql_client(pipeline) as client:
        for name in names:
            with (
                suppress(DatabaseUndefinedRelation),
                client.with_alternative_dataset_name(name),
            ):
                if client.has_dataset():
                    client.drop_dataset()
