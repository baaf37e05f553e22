"""The command `polyai-warehouse`.

Exit codes: 0 all done; 1 configuration, key or destination; 2 usage; 3 done, but some conversations
failed, a row was not sent, or a scenario was not met; 75 another run holds the lock; 130
interrupted, with everything committed so far kept.
"""

from __future__ import annotations

import logging
import os
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from ..clock import utc_now
from ..config.settings import resolve
from ..console.options import (
    ENDING,
    AgentOption,
    ApiOption,
    BaseUrlOption,
    DatasetOption,
    DestinationOption,
    JsonOption,
    RegionOption,
    WaitOption,
    WorkersOption,
    duration,
    exit_code,
    moment,
)
from ..console.progress import BackfillProgress, LoadProgress
from ..console.terminal import (
    ConsoleHandler,
    Exit,
    print_error,
    print_failed,
    print_json,
    stderr,
    stdout,
    stop_on_signals,
)
from ..dashboard.cli import dashboard
from ..debug_chats.cli import chat, debug_chat
from ..errors import (
    BusyError,
    ConfigurationError,
    DestinationError,
    LeaseLostError,
    PolyAIError,
)
from ..forgetting.cli import forget
from ..load.backfill import SLICE_LENGTH, WORKERS, Target
from ..load.backfill import backfill as run_backfill
from ..load.plan import Span
from ..load.run import load as run_load
from ..load.slices import SliceReport, cut
from ..recordings import show as show_recordings
from ..recordings.cli import app as recordings_app
from ..recordings.cli import fetch
from ..status.report import status as run_status
from ..tables.registry import loaded_tables
from ..views import Refreshed, refresh
from ..views import show as show_views
from ..views.cli import views
from ..warehouse.open import destination_label, open_pipeline
from ..warehouse.read_only import WAIT, open_to_read
from ..write_backs.cli import annotate, note
from . import render as show
from .demo import run_demo
from .preflight import check as run_check

logger = logging.getLogger("polyai")
app = typer.Typer(
    name="polyai-warehouse",
    help="Every conversation of your PolyAI agents in your own warehouse.",
    epilog="Example: polyai-warehouse demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.add_typer(recordings_app)
app.command(epilog="Example: polyai-warehouse views --time-zone Europe/London")(views)
app.command(epilog="Example: polyai-warehouse dashboard --port 8080 --no-browser")(dashboard)
app.command(epilog="Example: polyai-warehouse forget --caller +442079460018 --reason DSR-4711")(
    forget
)
app.command(epilog="Example: polyai-warehouse annotate flags.csv --dry-run")(annotate)
app.command(epilog="Example: polyai-warehouse note notes.jsonl")(note)
app.command(
    "debug-chat",
    epilog="Example: polyai-warehouse debug-chat booking.yaml --label v12 --junit results.xml",
)(debug_chat)
app.command(epilog="Example: polyai-warehouse chat --environment pre-release")(chat)


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every retry.")] = False,
) -> None:
    """Every conversation of your PolyAI agents in your own warehouse."""
    # what is written holds what people said: files are for their owner alone
    os.umask(0o077)
    # dlt would tell its makers of each run; what is loaded here is nobody else's business
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    logger.handlers = logging.getLogger("dlt").handlers = [ConsoleHandler()]
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
    with stop_on_signals("leaving the demo") as stop, LoadProgress(stderr) as progress:
        result = run_demo(database, conversations, stop, progress.watch)
    if result is None:
        raise typer.Exit(Exit.INTERRUPTED)
    if as_json:
        print_json(show.demo_as_json(result))
    else:
        show.demo(stdout, result)
    raise typer.Exit(exit_code([result.report]))


@app.command(epilog="Example: polyai-warehouse check --agent PROJECT-1234")
def check(
    agent: AgentOption = None,
    api: ApiOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test key, region, agent and permissions, and say what to do about each failure."""
    settings = resolve(api=api, region=region, base_url=base_url).only(agent or ())
    pipeline = open_pipeline(destination, dataset)
    findings = []
    for finding in run_check(settings, pipeline):
        findings.append(finding)
        if not as_json:
            show.finding(stdout, finding)
    failed = any(finding.outcome == "failed" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": [vars(finding) for finding in findings]})
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
    recordings: Annotated[
        bool, typer.Option("--recordings", help="Then fetch the recordings that are missing.")
    ] = False,
    wait: WaitOption = None,
    workers: WorkersOption = None,
    chunk_size: Annotated[
        int | None, typer.Option(help="Conversations that are committed together.")
    ] = None,
    api: ApiOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load everything new or changed, all agents. The job for cron."""
    settings = resolve(
        api=api,
        region=region,
        base_url=base_url,
        lookback=lookback,
        lock_wait=wait,
        workers=workers,
        chunk_size=chunk_size,
    ).only(agent or ())
    pipeline = open_pipeline(destination, dataset)
    with stop_on_signals(ENDING) as stop, LoadProgress(stderr) as progress:
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
        fetched = []
        if recordings and not stop.is_set():
            fetched = fetch(settings, destination, dataset, stop, progress.watch)
        refreshed, unpublished = Refreshed(), ""
        if not stop.is_set() and any(report.has_read_all for report in reports):
            try:
                refreshed = refresh(
                    pipeline,
                    settings.reporting_time_zone,
                    settings.publish_to,
                    wait=settings.lock_wait,
                )
            except DestinationError as error:
                unpublished = str(error)
    code = exit_code([*reports, *fetched], interrupted=stop.is_set())
    if unpublished and code in (Exit.DONE, Exit.SOME_FAILED):
        # readers have the older copy, which nobody would notice
        code = Exit.CONFIGURATION
    if as_json:
        result = show.load_as_json(reports, pipeline, code)
        result["published"] = show_views.published_as_json(refreshed.published)
        if recordings:
            result["recordings"] = show_recordings.recordings_as_json(fetched)
        print_json(result)
    else:
        show.load(stdout, reports, pipeline)
        show_recordings.recordings(stdout, fetched, settings.recordings_url)
        show_views.published(stdout, refreshed.published)
    print_failed([*reports, *fetched])
    if unpublished:
        print_error(f"nothing was published: {unpublished}")
    if code == Exit.INTERRUPTED:
        stderr.print("interrupted: what was read is committed, the next run goes on there")
    raise typer.Exit(code)


@app.command(epilog="Example: polyai-warehouse backfill --from 2024-01-01 --to 2024-07-01")
def backfill(
    since: Annotated[
        datetime,
        typer.Option(
            "--from",
            help="Begin of the range, such as 2024-01-01 or 2024-01-01T12:00:00Z.",
            parser=moment,
            metavar="DATE",
        ),
    ],
    before: Annotated[
        datetime | None,
        typer.Option(
            "--to",
            help="Its end, which does not belong to it. Default: now.",
            parser=moment,
            metavar="DATE",
        ),
    ] = None,
    slice_length: Annotated[
        timedelta | None,
        typer.Option(
            "--slice",
            help="Length of the slices that are committed on their own. Default: 1d.",
            parser=duration,
            metavar="DURATION",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=64, help="Slices at a time, each a process.")
    ] = WORKERS,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Skip what the warehouse holds and has not changed, or read all of it again.",
        ),
    ] = True,
    agent: AgentOption = None,
    chunk_size: Annotated[
        int | None, typer.Option(help="Conversations that are committed together.")
    ] = None,
    api: ApiOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load one explicit range, in slices, several at a time.

    Can be run again at any time: what is held is skipped. A slice that fails
    does not stop the others; it is named at the end. Where `load` has come to
    does not change, and it can run meanwhile.
    """
    settings = resolve(api=api, region=region, base_url=base_url, chunk_size=chunk_size).only(
        agent or ()
    )
    pipeline = open_pipeline(destination, dataset)
    span = Span(since, before or utc_now())
    length = slice_length or SLICE_LENGTH
    slices = len(cut([one.agent_id for one in settings.agents], span, length))
    with stop_on_signals(ENDING) as stop, BackfillProgress(stderr, slices) as progress:
        reports = run_backfill(
            settings,
            Target(destination, dataset),
            span,
            slice_length=length,
            workers=workers,
            again=not resume,
            stop=stop,
            on_change=progress.watch,
        )
        code = _backfill_exit_code(reports, interrupted=stop.is_set())
    if as_json:
        print_json(show.backfill_as_json(reports, code))
    else:
        show.backfill(stdout, reports, destination_label(pipeline))
    failed = [report for report in reports if report.error]
    if failed:
        names = ", ".join(str(report.slice) for report in failed[:5])
        more = f" and {len(failed) - 5} more" if failed[5:] else ""
        print_error(f"{len(failed)} of {slices} slices failed: {names}{more}. Run it again")
    if code == Exit.INTERRUPTED:
        stderr.print("interrupted: what was read is committed; run it again to go on there")
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
            parser=duration,
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
            parser=duration,
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
            print_json(show.status_as_json(result, warehouse.pipeline, code))
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
        from ..sandbox import Sandbox, SandboxConfig, serve
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the sandbox needs {error.name}: pip install 'polyai-warehouse[sandbox]'"
        ) from error
    config = SandboxConfig(
        conversations=conversations, seed=seed, agents=(agent,), oddities=oddities
    )
    with stop_on_signals("the sandbox ends") as stop:
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
        print_error(str(error))
        sys.exit(Exit.BUSY)
    except PolyAIError as error:
        print_error(str(error))
        sys.exit(Exit.CONFIGURATION)


def _tables(given: list[str] | None) -> list[str]:
    """The tables that `--select` names."""
    names = [name.strip() for part in given or () for name in part.split(",") if name.strip()]
    known = [table.name for table in loaded_tables()]
    if unknown := sorted(set(names) - set(known)):
        raise typer.BadParameter(f"no table {', '.join(unknown)}: there are {', '.join(known)}")
    return names


def _backfill_exit_code(reports: list[SliceReport], *, interrupted: bool) -> Exit:
    if interrupted:
        return Exit.INTERRUPTED
    bad = [report for report in reports if report.status in ("failed", "busy")]
    if bad and len(bad) == len(reports) and not any(report.counts["rows"] for report in bad):
        is_busy = all(report.status == "busy" for report in bad)
        return Exit.BUSY if is_busy else Exit.CONFIGURATION
    partial = any(report.status == "partial" for report in reports)
    return Exit.SOME_FAILED if bad or partial else Exit.DONE
