"""What a killed run leaves in dlt's working directory, made fit to be loaded or thrown away.

dlt resumes a load package job by job. A run that is killed between what the destination has
committed and dlt's note of it makes a resumed job fill the staging tables twice, or merge one table
twice at once, and rows are doubled. So a package that was begun starts over as a whole, from files
that are all still there: merging it again only replaces rows by themselves.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import dlt
from dlt.common.storages import FileStorage, PackageStorage, ParsedLoadJobFileName
from dlt.common.storages.load_package import commit_load_package_state, load_package_state
from filelock import Timeout

from ..warehouse.working_directory import is_partially_written, lock_file, lock_on

logger = logging.getLogger("polyai")

KEPT_PACKAGES = 10
"""Records of loaded packages that stay in the working directory, for a look at what went wrong."""

_MERGE = "sql"
"""Format of the jobs that dlt adds to a package while it loads: the merge of each table."""

_DLT_TABLES = "_dlt_"


_AGENT = "polyai_agent_id"
"""Key of a load package's state."""


def load_id_of(agent_id: str) -> str:
    """The load package that is being extracted, marked as one that carries this agent's rows."""
    package = load_package_state()
    state = cast("dict[str, str]", package["state"])
    if state.get(_AGENT) != agent_id:
        state[_AGENT] = agent_id
        commit_load_package_state()
    return str(package["load_id"])


def pending_agents(pipeline: dlt.Pipeline) -> set[str]:
    """The agents whose rows wait in packages of the working directory."""
    found: set[str] = set()
    for folder in (_extracted(pipeline), _normalized(pipeline)):
        if folder.is_dir():
            packages = PackageStorage(FileStorage(str(folder)), "normalized")
            for load_id in packages.list_packages():
                state = cast("dict[str, str]", packages.get_load_package_state(load_id))
                found |= {state[_AGENT]} if _AGENT in state else set()
    return found


def discard_torn_packages(pipeline: dlt.Pipeline) -> None:
    """Throws packages away of which a file is not whole.

    Args:
        pipeline: The pipeline of the working directory, which nobody else may be using.
    """
    for folder in (*_folders(_extracted(pipeline)), *_folders(_normalized(pipeline))):
        if torn := [path for path in folder.rglob("*") if is_partially_written(path)]:
            logger.warning("%s is not whole: its conversations are read again", torn[0])
            shutil.rmtree(folder)


def start_over(pipeline: dlt.Pipeline, complete: frozenset[str]) -> None:
    """Removes what no run will finish, and takes the packages that were begun back to their start.

    Afterwards `pipeline.normalize` and `pipeline.load` bring all of them into the destination,
    once the staging dataset is empty.

    Args:
        pipeline: The pipeline of the working directory, which nobody else may be using.
        complete: Load packages that the destination knows as complete.
    """
    normalized = PackageStorage(FileStorage(str(_normalized(pipeline))), "normalized")
    for folder in _unfinished(pipeline, complete):
        shutil.rmtree(folder, ignore_errors=True)
    if not _normalized(pipeline).is_dir():
        return
    for load_id in normalized.list_packages():
        if _is_begun(normalized, load_id):
            logger.warning("load package %s was begun by a run that was killed", load_id)
            _start_package_over(normalized, load_id)


def discard(pipeline: dlt.Pipeline) -> None:
    """Throws all waiting packages away; their conversations are not held and so read again."""
    for packages in (_extracted(pipeline), _normalized(pipeline)):
        for folder in _folders(packages):
            shutil.rmtree(folder)


def discard_all(pipelines_dir: Path, prefix: str) -> list[str]:
    """The same for each working directory that nobody is using, also for drafts of packages.

    Args:
        pipelines_dir: Where they are.
        prefix: Of their pipelines' names.

    Returns:
        The names of these pipelines.
    """
    names = []
    for working_directory in _folders(pipelines_dir):
        if not working_directory.name.startswith(prefix):
            continue
        with suppress(Timeout), lock_on(lock_file(working_directory)).acquire(timeout=0):
            stages = _folders(working_directory / "normalize")
            stages += [working_directory / "load" / stage for stage in ("new", "normalized")]
            for stage in stages:
                for folder in _folders(stage):
                    shutil.rmtree(folder)
            names.append(working_directory.name)
    return names


def forget_loaded_packages(pipeline: dlt.Pipeline) -> None:
    """Removes older records of loaded packages, which dlt keeps for ever: some 100 KB each."""
    loaded = sorted(_folders(Path(pipeline.working_dir, "load", "loaded")))
    for folder in loaded[:-KEPT_PACKAGES]:
        shutil.rmtree(folder, ignore_errors=True)


def _extracted(pipeline: dlt.Pipeline) -> Path:
    return Path(pipeline.working_dir, "normalize", "extracted")


def _normalized(pipeline: dlt.Pipeline) -> Path:
    return Path(pipeline.working_dir, "load", "normalized")


def _folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []


def _unfinished(pipeline: dlt.Pipeline, complete: frozenset[str]) -> Iterator[Path]:
    """Folders that dlt will not look at again, or must not."""
    # an extraction that was killed, in a folder of its own
    extracted = _extracted(pipeline)
    yield from (folder for folder in _folders(extracted.parent) if folder != extracted)
    # a normalization that was killed; its extracted package is still there
    yield from _folders(Path(pipeline.working_dir, "load", "new"))
    normalized = {folder.name for folder in _folders(_normalized(pipeline))}
    # normalized as a whole, and killed before what it was made from was deleted
    yield from (folder for folder in _folders(extracted) if folder.name in normalized | complete)
    # loaded as a whole, and killed before it was filed as loaded
    yield from (folder for folder in _folders(_normalized(pipeline)) if folder.name in complete)


def _is_begun(packages: PackageStorage, load_id: str) -> bool:
    applied = Path(packages.get_package_path(load_id), PackageStorage.SCHEMA_UPDATES_FILE_NAME)
    jobs = packages.get_load_package_jobs(load_id)
    return not packages.storage.has_file(str(applied)) or any(
        found for state, found in jobs.items() if state != PackageStorage.NEW_JOBS_FOLDER
    )


def _start_package_over(packages: PackageStorage, load_id: str) -> None:
    """Makes all jobs of the package new ones, but for the merges, which dlt will add again."""
    package = Path(packages.storage.storage_path, packages.get_package_path(load_id))
    new = package / PackageStorage.NEW_JOBS_FOLDER
    # these first: killed in between, this starts over as well
    for job in package.glob("*_jobs/*"):
        name = ParsedLoadJobFileName.parse(job.name)
        # dlt's own tables are only added to: the row may be there, and nothing here needs it
        if name.file_format == _MERGE or name.table_name.startswith(_DLT_TABLES):
            job.unlink()
    for marker in (package / PackageStorage.PENDING_TRANSITIONS_FOLDER).glob("*"):
        marker.unlink()
    # with an update to apply, even an empty one, dlt sets up the staging tables anew
    packages.save_schema_updates(load_id, {})
    for job in package.glob("*_jobs/*"):
        job.replace(new / job.name)
