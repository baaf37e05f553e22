"""The command `polyai-warehouse`.

Exit codes: 0 all done; 1 configuration, key or destination; 2 usage; 3 loaded, but some
conversations failed; 75 another run holds the lock; 130 interrupted, with everything committed so
far kept.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.markup import escape

from . import show
from .check import check as run_check
from .demo import run_demo
from .destination import open_pipeline
from .errors import BusyError, ConfigurationError, LeaseLostError, PolyAIError
from .progress import LoadProgress
from .report import RunReport
from .resources import LOADED_TABLES
from .settings import parse_duration, resolve
from .status import WAIT, open_to_read
from .status import status as run_status
from .sync import load as run_load

logger = logging.getLogger("polyai")
# a log keeps a line in one piece
stdout = Console(highlight=False, emoji=False, soft_wrap=not sys.stdout.isatty())
stderr = Console(stderr=True, highlight=False, emoji=False)

app = typer.Typer(
    name="polyai-warehouse",
    help="Every conversation of your PolyAI agents in your own warehouse.",
    epilog="Example: polyai-warehouse demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Exit(IntEnum):
    """What the process tells its caller."""

    DONE = 0
    CONFIGURATION = 1
    USAGE = 2
    SOME_FAILED = 3
    BUSY = 75
    INTERRUPTED = 130


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
DestinationOption = Annotated[
    str | None, typer.Option(help="A dlt destination, such as duckdb or postgres. Default: duckdb.")
]
DatasetOption = Annotated[str | None, typer.Option(help="Its dataset. Default: polyai.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout; logs go to stderr.")
]


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every retry.")] = False,
) -> None:
    """Every conversation of your PolyAI agents in your own warehouse."""
    # what is written holds what people said: files are for their owner alone
    os.umask(0o077)
    # dlt would tell its makers of each run; what is loaded here is nobody else's business
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    logger.handlers = logging.getLogger("dlt").handlers = [_ConsoleHandler()]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False


@app.command(
    epilog="Example: polyai-warehouse demo --conversations 1000",
)
def demo(
    conversations: Annotated[int, typer.Option(min=10, max=100_000, help="How many.")] = 300,
    database: Annotated[Path, typer.Option(help="The DuckDB file.")] = Path("polyai.duckdb"),
    as_json: JsonOption = False,
) -> None:
    """Start the sandbox, load it into DuckDB, and show what landed."""
    with _stop_on_signals("leaving the demo") as stop, LoadProgress(stderr) as progress:
        result = run_demo(database, conversations, stop, progress.watch)
    if result is None:
        raise typer.Exit(Exit.INTERRUPTED)
    if as_json:
        _print_json(show.demo_as_json(result))
    else:
        show.demo(stdout, result)
    raise typer.Exit(_exit_code([result.report]))


@app.command(epilog="Example: polyai-warehouse check --agent PROJECT-1234")
def check(
    agent: AgentOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test key, region, agent and permissions, and say what to do about each failure."""
    settings = resolve(region=region, base_url=base_url).only(agent or ())
    pipeline = open_pipeline(destination, dataset)
    findings = []
    for finding in run_check(settings, pipeline):
        findings.append(finding)
        if not as_json:
            show.finding(stdout, finding)
    failed = any(finding.outcome == "failed" for finding in findings)
    if as_json:
        _print_json({"ok": not failed, "findings": [vars(finding) for finding in findings]})
    elif not failed:
        stdout.print("ready: polyai-warehouse load")
    raise typer.Exit(Exit.CONFIGURATION if failed else Exit.DONE)


@app.command(
    epilog="Example: polyai-warehouse load --lookback 30d --destination postgres",
)
def load(
    agent: AgentOption = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read the whole listing, not only the look-back.")
    ] = False,
    select: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this table (and conversations); repeat, or separate by commas.",
            callback=_tables,
        ),
    ] = None,
    lookback: Annotated[
        str | None, typer.Option(help="How far behind the newest held one to look, such as 30d.")
    ] = None,
    wait: Annotated[
        str | None,
        typer.Option(help="How long to wait for another load, such as 10m."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Requests in flight at once.")] = None,
    chunk_size: Annotated[
        int | None, typer.Option(help="Conversations that are committed together.")
    ] = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load everything new or changed, all agents. The job for cron."""
    settings = resolve(
        region=region,
        base_url=base_url,
        lookback=lookback,
        lock_wait=wait,
        workers=workers,
        chunk_size=chunk_size,
    ).only(agent or ())
    pipeline = open_pipeline(destination, dataset)
    ending = "ending with what was read so far; again: leaving at once"
    with _stop_on_signals(ending) as stop, LoadProgress(stderr) as progress:
        try:
            reports = run_load(
                settings,
                pipeline,
                full=full,
                select=select or (),
                stop=stop,
                on_begin=progress.watch,
            )
        except BusyError:
            if not stop.is_set():
                raise
            reports = []  # interrupted while it waited for the other run
    code = _exit_code(reports, interrupted=stop.is_set())
    if as_json:
        _print_json(show.load_as_json(reports, pipeline, code))
    else:
        show.load(stdout, reports, pipeline)
    for report in reports:
        if report.error:
            _print_error(f"{report.agent_id}: {report.error}" if reports[1:] else report.error)
    if code == Exit.INTERRUPTED:
        stderr.print("interrupted: what was read is committed, the next run goes on there")
    raise typer.Exit(code)


@app.command(epilog="Example: polyai-warehouse status --max-age 30m --quick")
def status(
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", help="Only this agent; repeat for several. Default: all held."),
    ] = None,
    max_age: Annotated[
        timedelta | None,
        typer.Option(
            help="Exit with 1 where an agent's last complete load is older, such as 30m.",
            parser=_duration,
            metavar="DURATION",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Do not compare rows, which reads whole tables.")
    ] = False,
    wait: Annotated[
        timedelta | None,
        typer.Option(
            help="How long to wait for a DuckDB file that is being written. Default: 30s.",
            parser=_duration,
            metavar="DURATION",
        ),
    ] = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how fresh the warehouse is, the last runs, failures, and whether its rows agree.

    Reads the destination alone: no key is needed, no request is made.

    Exits with 1 where an agent is staler than --max-age, where rows are
    doubled, lost or without their conversation, or where there is no
    warehouse; with 75 where a load keeps the DuckDB file locked.
    """
    with open_to_read(destination, dataset, wait=WAIT if wait is None else wait) as warehouse:
        result = run_status(warehouse, agent_ids=agent or (), max_age=max_age, quick=quick)
        code = Exit.DONE if result.is_healthy else Exit.CONFIGURATION
        if as_json:
            _print_json(show.status_as_json(result, warehouse.pipeline, code))
        else:
            show.status(stdout, result, warehouse.pipeline)
    raise typer.Exit(code)


@app.command(epilog="Example: polyai-warehouse sandbox --port 8787 --conversations 10000")
def sandbox(
    port: Annotated[int, typer.Option(help="0 for a free one.")] = 8787,
    conversations: Annotated[int, typer.Option(min=10, max=1_000_000, help="How many.")] = 500,
    seed: Annotated[int, typer.Option(help="Another seed gives other conversations.")] = 1,
    agent: Annotated[str, typer.Option(help="The agent that they belong to.")] = "PROJECT-BOOKINGS",
    oddities: Annotated[bool, typer.Option(help="Answer as oddly as the real API does.")] = True,
) -> None:
    """Serve a stand-in PolyAI API on loopback, for demos and tests."""
    try:
        from .sandbox import Sandbox, SandboxConfig, serve
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the sandbox needs {error.name}: pip install 'polyai-warehouse[sandbox]'"
        ) from error
    config = SandboxConfig(
        conversations=conversations, seed=seed, agents=(agent,), oddities=oddities
    )
    with _stop_on_signals("the sandbox ends") as stop:
        try:
            with serve(Sandbox(config), port) as base_url:
                show.sandbox(stdout, base_url, config.api_key, agent)
                stop.wait()
        except OSError as error:
            raise ConfigurationError(f"port {port} cannot be served: {error}") from error


def main() -> None:
    """Runs the command; every error that is expected is one line and an exit code."""
    try:
        app()
    except (BusyError, LeaseLostError) as error:
        _print_error(str(error))
        sys.exit(Exit.BUSY)
    except PolyAIError as error:
        _print_error(str(error))
        sys.exit(Exit.CONFIGURATION)


class _ConsoleHandler(logging.Handler):
    """Writes log lines above the progress bar, not into it; dlt's in the same form as ours."""

    line = logging.Formatter("%(asctime)s %(levelname)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        # not self.formatter: dlt sets its own on whatever handler it finds
        stderr.print(self.line.format(record), markup=False, soft_wrap=True)


def _tables(given: list[str] | None) -> list[str]:
    """The tables that `--select` names."""
    names = [name.strip() for part in given or () for name in part.split(",") if name.strip()]
    known = [table.name for table in LOADED_TABLES]
    if unknown := sorted(set(names) - set(known)):
        raise typer.BadParameter(f"no table {', '.join(unknown)}: there are {', '.join(known)}")
    return names


def _duration(text: str) -> timedelta:
    """A duration that an option gives."""
    try:
        return parse_duration(text)
    except ConfigurationError as error:
        raise typer.BadParameter(str(error)) from None


def _exit_code(reports: list[RunReport], *, interrupted: bool = False) -> Exit:
    if interrupted:
        return Exit.INTERRUPTED
    if any(report.status == "failed" and not report.fetched for report in reports):
        return Exit.CONFIGURATION
    if any(report.status in ("partial", "failed") for report in reports):
        return Exit.SOME_FAILED
    if any(report.status == "busy" for report in reports):
        return Exit.BUSY
    return Exit.DONE


def _print_error(message: str) -> None:
    stderr.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)


def _print_json(value: object) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")


@contextmanager
def _stop_on_signals(ending: str) -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, with `ending` in the log; a second one kills."""
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            # threads may wait for minutes; what a killed run leaves, the next one makes good
            stderr.show_cursor()
            os._exit(Exit.INTERRUPTED)
        stop.set()
        logger.warning("%s: %s", signal.Signals(number).name, ending)

    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
