"""Debug chats as a function, for the command, scripts and orchestrators."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import dlt

from ..config.settings import Settings, resolve
from ..console.exit_codes import ExitCode, error_exit_code
from ..errors import PolyAIError
from ..warehouse.open import destination_label
from ..warehouse.target import DEFAULT_TARGET, Target
from .junit import write_junit
from .result_store import PIPELINE_NAME, store_results
from .results import ChatsRun
from .runner import OnResult, run_suites
from .suite import load_suites


@dataclass(frozen=True)
class DebugChats:
    """Result of `debug_chat`.

    Attributes:
        run: Results of all scenarios.
        warehouse: Destination and dataset in which they are saved; None if they are not.
        errors: Errors that kept the results from being saved, or that stopped the run.
    """

    run: ChatsRun
    warehouse: str | None = None
    errors: tuple[PolyAIError, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """Exit code of the command."""
        return error_exit_code(self.errors[-1]) if self.errors else run_exit_code(self.run)


def debug_chat(
    *files: str | Path,
    scenarios: Sequence[str] = (),
    agent_id: str | None = None,
    environment: str | None = None,
    label: str | None = None,
    junit: str | Path | None = None,
    settings: Settings | None = None,
    target: Target | None = DEFAULT_TARGET,
    stop: threading.Event | None = None,
    on_result: OnResult = lambda result: None,
) -> DebugChats:
    """Runs scenarios against an agent: `POST …/debug-chat`.

    Each scenario is a debug chat of its own; they run in parallel. Nothing is sent before every
    file is valid.

    Args:
        files: Scenarios in YAML.
        scenarios: Only these, `NAME` or `SUITE/NAME`. Default: all.
        agent_id: Agent of all scenarios, instead of the one in the files.
        environment: Environment of all scenarios, instead of the one in the files: sandbox,
            pre-release or live.
        label: Name of the tested version, saved with the results.
        junit: File to which the results are also written as JUnit XML.
        settings: Agents. Default: `resolve()`.
        target: The warehouse in which results and transcripts are saved; None to save nothing.
        stop: When set, answers in flight are awaited, and the run ends as interrupted.
        on_result: Called with each finished scenario, in a thread of its own.

    Returns:
        The results. Errors that occur after the first chat, while they are saved too, are in its
        `errors`.

    Raises:
        ConfigurationError: A setting, a file or a name of a scenario is missing or wrong.
    """
    suites = load_suites([Path(file) for file in files])
    settings = settings or resolve()
    pipeline = None if target is None else target.open(PIPELINE_NAME)
    run = run_suites(
        suites,
        settings,
        scenarios=scenarios,
        environment=environment,
        agent_id=agent_id,
        label=label,
        stop=stop,
        on_result=on_result,
    )
    junit_file = None if junit is None else Path(junit)
    return save(run, junit=junit_file, pipeline=pipeline, lock_wait=settings.lock_wait)


def save(
    run: ChatsRun, *, junit: Path | None, pipeline: dlt.Pipeline | None, lock_wait: timedelta
) -> DebugChats:
    """Saves the results of a run in a file, in the warehouse, or both; see `debug_chat`."""
    errors: list[PolyAIError] = []
    warehouse = None
    # the file first, because it never has to wait for a lock
    if junit is not None:
        with _collected(errors):
            write_junit(run, junit)
    if pipeline is not None:
        with _collected(errors):
            store_results(run, pipeline, wait=lock_wait)
            warehouse = destination_label(pipeline)
    if run.stopped_by is not None:
        errors.append(run.stopped_by)
    return DebugChats(run, warehouse, tuple(errors))


def run_exit_code(run: ChatsRun) -> ExitCode:
    """Returns the exit code of the scenarios, regardless of whether the results were saved."""
    if run.is_interrupted:
        return ExitCode.INTERRUPTED
    if run.stopped_by is not None:
        return error_exit_code(run.stopped_by)
    return ExitCode.DONE if run.passed else ExitCode.SOME_FAILED


@contextmanager
def _collected(errors: list[PolyAIError]) -> Iterator[None]:
    """Collects an error, because one failure must not keep the results from the other place."""
    try:
        yield
    except PolyAIError as error:
        errors.append(error)
