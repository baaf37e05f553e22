"""Options that several commands have, how they are read, and how a run ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated

import typer

from ..config.validators import parse_duration
from ..errors import ConfigurationError
from ..load.report import RunReport
from ..load.slices import parse_moment
from .terminal import Exit

AgentOption = Annotated[
    list[str] | None,
    typer.Option("--agent", help="Only this agent; repeat for several. Default: all configured."),
]
RegionOption = Annotated[
    str | None, typer.Option(help="us, eu, uk or studio, where the key was made.")
]
BaseUrlOption = Annotated[
    str | None, typer.Option(help="Another address of the Data API: a proxy, the sandbox.")
]
ApiOption = Annotated[
    str | None,
    typer.Option(help="The API that lists the conversations: data or conversations_v3."),
]
DestinationOption = Annotated[
    str | None, typer.Option(help="A dlt destination, such as duckdb or postgres. Default: duckdb.")
]
DatasetOption = Annotated[str | None, typer.Option(help="Its dataset. Default: polyai.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout; logs go to stderr.")
]

DirectionsOption = Annotated[
    str | None,
    typer.Option(help="Whose voices: combined, user, agent, or several separated by commas."),
]
RedactedOption = Annotated[
    bool | None,
    typer.Option(
        "--redacted/--raw", help="With personal data blanked out, or as it was. Default: redacted."
    ),
]
RecordingsUrlOption = Annotated[
    str | None, typer.Option(help="Folder or fsspec URL, such as s3://bucket/recordings.")
]
WaitOption = Annotated[
    str | None, typer.Option(help="How long to wait for another run over the same, such as 10m.")
]
WorkersOption = Annotated[int | None, typer.Option(help="Requests in flight at once.")]
ENDING = "ending with what was read so far; again: leaving at once"
"""What a run says that is told to end."""


def moment(text: str) -> datetime:
    """A date or a time that an option gives."""
    try:
        return parse_moment(text)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None


def duration(text: str) -> timedelta:
    """A duration that an option gives."""
    try:
        return parse_duration(text)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None


LockWaitOption = Annotated[
    timedelta | None,
    typer.Option(
        "--wait",
        help="How long to wait for another run over the same, such as 10m.",
        parser=duration,
        metavar="DURATION",
    ),
]
"""The same as `WaitOption`, for a command that looks up no other settings."""


def exit_code(reports: Sequence[RunReport], *, interrupted: bool = False) -> Exit:
    """How a run ends that has these reports."""
    if interrupted:
        return Exit.INTERRUPTED
    if any(report.status == "failed" and not report.loaded for report in reports):
        return Exit.CONFIGURATION
    if any(report.status in ("partial", "failed") for report in reports):
        return Exit.SOME_FAILED
    if any(report.status == "busy" for report in reports):
        return Exit.BUSY
    return Exit.DONE
