"""Removal of what is left of deleted rows: in files of the warehouse, and in killed packages."""

from __future__ import annotations

from ..load.committer import Committer
from ..load.discard import discard_all, drop_datasets
from ..locking.files import staging_datasets
from ..warehouse.open import PIPELINE_NAME as LOAD_PIPELINE_NAME
from ..warehouse.open import working_folder
from .duckdb_rewrite import rewrite_duckdb_file
from .lake_rewrite import rewrite_lake
from .sqlite_rewrite import rewrite_sqlite_warehouse


def rewrite_files(committer: Committer) -> bool:
    """Rewrites a warehouse that is files, without its deleted rows; returns whether it is files."""
    return (
        rewrite_duckdb_file(committer.pipeline)
        or rewrite_lake(committer)
        or rewrite_sqlite_warehouse(committer)
    )


def discard_pending(committer: Committer) -> None:
    """Discards packages that killed runs on this machine have not loaded."""
    pipeline = committer.pipeline
    names = discard_all(working_folder(pipeline.pipelines_dir), LOAD_PIPELINE_NAME)
    drop_datasets(pipeline, staging_datasets(pipeline, names))
