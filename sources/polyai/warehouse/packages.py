"""Files of a load package, for destinations that merge a whole package in one transaction."""

from __future__ import annotations

from collections import defaultdict

import dlt
from dlt.common.configuration.container import Container
from dlt.common.destination.client import RunnableLoadJob
from dlt.common.storages.load_package import LoadPackageStateInjectableContext

SQLALCHEMY = "dlt.destinations.sqlalchemy"
"""dlt's type of the destination for databases that SQLAlchemy connects to."""


class FileToMerge(RunnableLoadJob):
    """Load job of one file of a package, which `complete_load` merges with the others."""

    def run(self) -> None:
        """Does nothing yet."""


def files_by_table(load_id: str) -> dict[str, list[str]]:
    """Returns the paths of a package's files by table."""
    packages = Container()[LoadPackageStateInjectableContext].storage
    files: defaultdict[str, list[str]] = defaultdict(list)
    for state, job in packages.list_all_jobs_with_states(load_id):
        if state == "completed_jobs":
            path = packages.get_job_file_path(load_id, state, job.file_name())
            files[job.table_name].append(packages.storage.make_full_path(path))
    return files


def merges_without_staging(pipeline: dlt.Pipeline) -> bool:
    """Returns whether the loads of a pipeline need no staging dataset."""
    return getattr(pipeline.destination, "merges_packages", False)
