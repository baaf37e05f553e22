"""Views and the published copy as functions, for the command, scripts and orchestrators."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ..config.settings import shared_setting
from ..config.validators import publish_target
from ..console.exit_codes import ExitCode
from ..warehouse.target import DEFAULT_TARGET, Target
from . import publication
from .creation import PIPELINE_NAME, ViewsReport, create_views
from .parquet import PublishedParquet
from .publishing import Published


@dataclass(frozen=True)
class Views:
    """Result of `views`.

    Attributes:
        report: Created and failed views.
        published: The published copy or files; None if there are none.
    """

    report: ViewsReport
    published: Published | PublishedParquet | None = None

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        return ExitCode.CONFIGURATION if self.report.failed else ExitCode.DONE


def views(
    *,
    time_zone: str | None = None,
    publish_to: Path | str | None = None,
    wait: timedelta | None = None,
    target: Target = DEFAULT_TARGET,
) -> Views:
    """Creates or replaces the SQL views, then publishes for readers if `publish_to` is set.

    Needs no API key. Can run beside `load`, which refreshes the views too.

    Args:
        time_zone: IANA name of the reporting time zone. Default: the setting
            `reporting_time_zone`.
        publish_to: Folder of the copy of a DuckDB warehouse; or URL, or folder that ends with `/`,
            of its tables and views as Parquet files. Default: the setting `publish_to`.
        wait: How long to wait for another run that creates the views. Default: the setting
            `lock_wait`.
        target: The warehouse.

    Raises:
        BusyError: Another run creates the views.
        ConfigurationError: The time zone is unknown, or the warehouse cannot be published.
        DestinationError: The destination cannot be used, or a user's own view prevents one of ours
            from being replaced.
        StoreError: The folder or bucket of Parquet files cannot be read or written.
    """
    wait = shared_setting("lock_wait") if wait is None else wait
    pipeline = target.open(PIPELINE_NAME)
    zone = time_zone or shared_setting("reporting_time_zone")
    place = publish_target(publish_to) or shared_setting("publish_to")
    if place is not None:
        publication.check_target(pipeline, place)
    report = create_views(pipeline, zone, lock_wait=wait)
    published = None if place is None else publication.publish_to(pipeline, place, wait=wait)
    return Views(report, published)
