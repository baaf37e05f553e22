"""Command-line options that several commands share, parsers of their values, confirmation."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import Annotated

import typer

from ..config.validators import parse_duration
from ..errors import ConfigurationError
from ..load.slices import parse_moment


def moment(text: str) -> datetime:
    """Parses the date or time of an option."""
    try:
        return parse_moment(text)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None


def duration(text: str) -> timedelta:
    """Parses the duration of an option."""
    try:
        return parse_duration(text)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None


_WAIT_HELP = "How long to wait for another run that holds the lock, such as 10m."

AgentOption = Annotated[
    list[str] | None,
    typer.Option("--agent", help="Only this agent. Repeatable. Default: all configured agents."),
]
LoadedAgentOption = Annotated[
    list[str] | None,
    typer.Option(
        "--agent", help="Only this agent. Repeatable. Default: all agents in the warehouse."
    ),
]
"""Like `AgentOption`, for commands that need no API key."""

RegionOption = Annotated[
    str | None, typer.Option(help="Region in which the API key was created: us, eu, uk or studio.")
]
BaseUrlOption = Annotated[
    str | None, typer.Option(help="Base URL of the APIs, for a proxy or the sandbox.")
]
ApiOption = Annotated[
    str | None,
    typer.Option(help="API that lists the conversations: auto, data or conversations_v3."),
]
DestinationOption = Annotated[
    str | None, typer.Option(help="dlt destination, such as duckdb or postgres. Default: duckdb.")
]
DatasetOption = Annotated[
    str | None, typer.Option(help="Dataset in the destination. Default: polyai.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to stdout; logs go to stderr.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Report what would be done; change nothing.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
DirectionsOption = Annotated[
    str | None,
    typer.Option(help="Voices to fetch: combined, user, agent, or several separated by commas."),
]
RedactedOption = Annotated[
    bool | None,
    typer.Option(
        "--redacted/--raw",
        help="Fetch audio with personal data removed, or the original. Default: redacted.",
    ),
]
RecordingsUrlOption = Annotated[
    str | None, typer.Option(help="Folder or fsspec URL, such as s3://bucket/recordings.")
]
AcceptMixedOption = Annotated[
    bool,
    typer.Option(
        "--accept-mixed",
        help="Write beside rows that were loaded under another pii or transcripts.",
    ),
]
WorkersOption = Annotated[int | None, typer.Option(help="Concurrent requests.")]
ChunkSizeOption = Annotated[
    int | None, typer.Option(help="Conversations that are committed together.")
]
WaitOption = Annotated[str | None, typer.Option(help=_WAIT_HELP)]
LockWaitOption = Annotated[
    timedelta | None,
    typer.Option("--wait", help=_WAIT_HELP, parser=duration, metavar="DURATION"),
]
"""Like `WaitOption`, for commands that resolve no other settings."""


def confirm(refusal: str, question: str) -> None:
    """Asks for confirmation of what cannot be undone.

    Args:
        refusal: Message where nobody can be asked.
        question: The question, on stderr.

    Raises:
        typer.BadParameter: The input is not a terminal.
        typer.Abort: The answer is no.
    """
    if not sys.stdin.isatty():
        raise typer.BadParameter(refusal)
    typer.confirm(question, abort=True, err=True)
