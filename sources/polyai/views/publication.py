"""Publication for readers in either form: a copy of a DuckDB file, or Parquet files.

The setting `publish_to` decides: a path is the folder of the copy, a text the folder or URL of
Parquet files (see `publish_target` in `config/validators.py`).
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import dlt

from .parquet import PublishedParquet, is_parquet_published, open_parquet_store, publish_parquet
from .publishing import Published, is_published, publish, published_file


def check_target(pipeline: dlt.Pipeline, target: Path | str) -> None:
    """Checks a target before anything is changed.

    Raises:
        ConfigurationError: The warehouse cannot be published there.
    """
    if isinstance(target, Path):
        published_file(pipeline, target)
    else:
        open_parquet_store(pipeline, target)


def is_current(pipeline: dlt.Pipeline, target: Path | str) -> bool:
    """Returns whether what is published has the present state of the warehouse."""
    if isinstance(target, Path):
        return is_published(pipeline, target)
    return is_parquet_published(pipeline, target)


def publish_to(
    pipeline: dlt.Pipeline, target: Path | str, *, wait: timedelta = timedelta()
) -> Published | PublishedParquet:
    """Publishes the warehouse as `publish` or `publish_parquet` does."""
    if isinstance(target, Path):
        return publish(pipeline, target, wait=wait)
    return publish_parquet(pipeline, target, wait=wait)
