"""Refresh after a load: current views, and a current published copy."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dlt

from ..errors import BusyError, DestinationError, LeaseLostError
from ..warehouse.open import open_pipeline
from . import publication
from .creation import PIPELINE_NAME, ViewsReport, create_views, views_are_current
from .parquet import PublishedParquet
from .publishing import Published

logger = logging.getLogger("polyai")


@dataclass(frozen=True)
class Refreshed:
    """Result of `refresh`.

    Attributes:
        views: Created views; None if they were current or could not be created.
        published: Published copy or files; None if they were current or not requested.
    """

    views: ViewsReport | None = None
    published: Published | PublishedParquet | None = None


def refresh(
    pipeline: dlt.Pipeline,
    zone: str,
    publish_to: Path | str | None = None,
    *,
    wait: timedelta = timedelta(),
) -> Refreshed:
    """Creates the views if they are not current, and publishes if the warehouse has changed.

    Costs one small query if nothing has changed. Views that cannot be created are logged as a
    warning, and the older ones stay. Skips what another run is already doing.

    Args:
        pipeline: Pipeline with the destination and dataset of the warehouse, not used by a run.
        zone: IANA name of the reporting time zone.
        publish_to: Folder of the published copy, or folder or URL of Parquet files; see
            `publication`. None for neither.
        wait: Maximum wait for another run that does the same.

    Raises:
        ConfigurationError: The time zone does not exist, or the warehouse cannot be published.
        DestinationError: The copy cannot be written; the older one is unchanged.
        StoreError: The folder or bucket of Parquet files cannot be read or written.
    """
    return Refreshed(
        _refreshed_views(pipeline, zone, wait),
        None if publish_to is None else _published(pipeline, publish_to, wait),
    )


def _refreshed_views(pipeline: dlt.Pipeline, zone: str, wait: timedelta) -> ViewsReport | None:
    try:
        if views_are_current(pipeline, zone):
            return None
        created = create_views(
            open_pipeline(
                pipeline.destination, pipeline.dataset_name, pipeline.pipelines_dir, PIPELINE_NAME
            ),
            zone,
            lock_wait=wait,
        )
    except (BusyError, LeaseLostError) as error:
        logger.info("views: %s", error)
        return None
    except DestinationError as error:
        logger.warning("the views were not refreshed: %s", error)
        return None
    for name, message in created.failed.items():
        logger.warning("view %s was not created: %s", name, message)
    return created


def _published(
    pipeline: dlt.Pipeline, target: Path | str, wait: timedelta
) -> Published | PublishedParquet | None:
    try:
        if publication.is_current(pipeline, target):
            return None
        return publication.publish_to(pipeline, target, wait=wait)
    except BusyError as error:
        logger.info("%s", error)
        return None
