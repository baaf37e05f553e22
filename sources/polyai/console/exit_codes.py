"""Exit codes: the one place that maps results and errors to them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

from ..errors import BusyError, LeaseLostError, PolyAIError

if TYPE_CHECKING:  # these import dlt, which the help does not need
    from ..load.report import RunReport
    from ..load.slices import SliceReport


class ExitCode(IntEnum):
    """Exit codes of the command and of scripts.

    Attributes:
        DONE: Everything is done and proven.
        CONFIGURATION: Nothing useful was done: a setting, the key or the destination is wrong.
        USAGE: The command line is wrong.
        SOME_FAILED: Done, but something is missing or failed; the report names it.
        BUSY: Another run holds the lock; try again later.
        INTERRUPTED: Interrupted by a signal; what was committed is kept.
    """

    DONE = 0
    CONFIGURATION = 1
    USAGE = 2
    SOME_FAILED = 3
    BUSY = 75
    INTERRUPTED = 130


def reports_exit_code(reports: Sequence[RunReport], *, interrupted: bool = False) -> ExitCode:
    """Returns the exit code of a run with one report per agent."""
    if interrupted:
        return ExitCode.INTERRUPTED
    if any(report.status == "failed" and not report.loaded for report in reports):
        return ExitCode.CONFIGURATION
    if any(report.status in ("partial", "failed") for report in reports):
        return ExitCode.SOME_FAILED
    if any(report.status == "busy" for report in reports):
        return ExitCode.BUSY
    return ExitCode.DONE


def slices_exit_code(reports: Sequence[SliceReport], *, interrupted: bool = False) -> ExitCode:
    """Returns the exit code of a backfill with one report per slice."""
    if interrupted:
        return ExitCode.INTERRUPTED
    bad = [report for report in reports if report.status in ("failed", "busy")]
    if bad and len(bad) == len(reports) and not any(report.counts["rows"] for report in bad):
        is_busy = all(report.status == "busy" for report in bad)
        return ExitCode.BUSY if is_busy else ExitCode.CONFIGURATION
    partial = any(report.status == "partial" for report in reports)
    return ExitCode.SOME_FAILED if bad or partial else ExitCode.DONE


def error_exit_code(error: PolyAIError) -> ExitCode:
    """Returns the exit code of a run that an error stopped."""
    if isinstance(error, (BusyError, LeaseLostError)):
        return ExitCode.BUSY
    return ExitCode.CONFIGURATION
