"""What follows a load: views that are those of this version, and a copy for readers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dlt

from ..errors import BusyError, DestinationError, LeaseLostError
from ..warehouse.open import open_pipeline
from .creation import PIPELINE_NAME, ViewsReport, create_views, views_are_current
from .publishing import Published, is_published, publish

logger = logging.getLogger("polyai")


@dataclass(frozen=True)
class Refreshed:
    """What was done.

    Attributes:
        views: What was made; None where the views were current, or could not be made.
        published: The copy; None where it was current, or none is wished.
    """

    views: ViewsReport | None = None
    published: Published | None = None


def refresh(
    pipeline: dlt.Pipeline,
    zone: str,
    publish_to: Path | None = None,
    *,
    wait: timedelta = timedelta(),
) -> Refreshed:
    """Makes the views anew if they are not current, and publishes if the warehouse has changed.

    Costs a small query where there is nothing to do. Views that cannot be made are a warning in
    the log: the older ones go on working. What another run is doing already is left to it.

    Args:
        pipeline: Any whose destination and dataset are those of the warehouse; no run uses it now.
        zone: IANA name of the reporting time zone.
        publish_to: Folder of the copy for readers; None for none.
        wait: How long to wait for another run that does the same.

    Raises:
        ConfigurationError: There is no such zone, or the warehouse cannot be published.
        DestinationError: The copy cannot be written; readers still have the older one.
    """
    return Refreshed(
        _views_made(pipeline, zone, wait),
        None if publish_to is None else _published(pipeline, publish_to, wait),
    )


def _views_made(pipeline: dlt.Pipeline, zone: str, wait: timedelta) -> ViewsReport | None:
    try:
        if views_are_current(pipeline, zone):
            return None
        made = create_views(
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
    for name, said in made.failed.items():
        logger.warning("view %s was not made: %s", name, said)
    return made


def _published(pipeline: dlt.Pipeline, folder: Path, wait: timedelta) -> Published | None:
    try:
        return None if is_published(pipeline, folder) else publish(pipeline, folder, wait=wait)
    except BusyError as error:
        logger.info("%s", error)
        return None
