"""Files of a load package, for destinations that merge a whole package in one transaction."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence

import dlt
from dlt.common.configuration.container import Container
from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.common.destination.client import FollowupJobRequest, LoadJob, RunnableLoadJob
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.storages.load_package import LoadJobInfo, LoadPackageStateInjectableContext
from dlt.destinations.job_client_impl import SqlJobClientBase

SQLALCHEMY = "dlt.destinations.sqlalchemy"
"""dlt's type of the destination for databases that SQLAlchemy connects to."""


class FileToMerge(RunnableLoadJob):
    """Load job of one file of a package, which `complete_load` merges with the others."""

    def run(self) -> None:
        """Does nothing yet."""


class MergingClient(SqlJobClientBase):
    """Client that merges all files of a package when the package is complete.

    To be mixed into dlt's client of a destination. Idempotent: what a package brings is deleted by
    merge key before it is inserted.
    """

    def should_load_data_to_staging_dataset(self, table_name: str) -> bool:
        return False

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        return FileToMerge(file_path)

    def create_table_chain_completed_followup_jobs(
        self,
        table_chain: Sequence[PreparedTableSchema],
        completed_table_chain_jobs: Sequence[LoadJobInfo] | None = None,
    ) -> list[FollowupJobRequest]:
        return []

    def complete_load(self, load_id: str) -> None:
        """Writes all rows of a package, and its row of `_dlt_loads`, in one transaction."""
        files = _files_by_table(load_id)
        with self.sql_client.begin_transaction():
            # all runs in the same order, so that of two that merge at once one waits
            for table_name in sorted(files):
                self._merge(table_name, files[table_name])
            super().complete_load(load_id)

    @abstractmethod
    def _merge(self, table_name: str, paths: Sequence[str]) -> None:
        """Replaces the rows that have the merge keys of the new ones; leaves tombstones out."""


def in_parquet(capabilities: DestinationCapabilitiesContext) -> DestinationCapabilitiesContext:
    """Makes dlt write files in Parquet, also its rows about the pipeline, which are not Arrow."""
    capabilities.preferred_loader_file_format = "parquet"
    capabilities.supported_loader_file_formats = ["parquet"]
    return capabilities


def _files_by_table(load_id: str) -> dict[str, list[str]]:
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
