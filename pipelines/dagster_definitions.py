"""The warehouse in Dagster: a day of an agent is a partition, the steady load a schedule.

Try it where `polyai-warehouse check` says `ready`, and reload it when agents are added:

    dagster dev -f pipelines/dagster_definitions.py

Each partition is one slice of `polyai-warehouse backfill`. It needs nothing but its arguments and
the destination, so its runs can go anywhere: beside each other, or each on another machine.

Settings are those of the command, and `POLYAI_DAGSTER_START`, the first day that has a partition,
and `POLYAI_DAGSTER_DATASET`. The destination is dlt's `DESTINATION_TYPE`. A DuckDB file, the
default, is fine for one machine, where slices take turns at it. Several machines need PostgreSQL,
DuckLake with its catalog in PostgreSQL, or a warehouse in a cloud.
"""

# no `from __future__ import annotations`: Dagster takes no text for the types of context and config

import os
from collections.abc import Iterator

import dagster as dg

from polyai import Span, Target, backfill, load, open_pipeline, resolve
from polyai.config.validators import parse_duration
from polyai.errors import BusyError, DestinationError, LeaseLostError
from polyai.status.report import AgentStatus, status
from polyai.tables.audit import SYNC_RUNS
from polyai.tables.registry import loaded_tables
from polyai.views import refresh
from polyai.warehouse.read_only import open_to_read

# as in the command: dlt would tell its makers of each run
os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")

TARGET = Target(dataset=os.environ.get("POLYAI_DAGSTER_DATASET") or None)
"""Where to load; its destination is dlt's own setting."""

PARTITIONS = dg.MultiPartitionsDefinition(
    {
        "agent": dg.StaticPartitionsDefinition([agent.agent_id for agent in resolve().agents]),
        "day": dg.DailyPartitionsDefinition(
            start_date=os.environ.get("POLYAI_DAGSTER_START") or "2025-01-01", timezone="UTC"
        ),
    }
)
"""All days of all agents that are over; today's belongs to the steady load."""

RETRIES = dg.RetryPolicy(
    max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL
)
"""Up to half a minute, then one and a half, then three and a half."""

COUNTS = ("listed", "new", "changed", "unchanged", "failed", "requests", "rows")
"""What a run tells of each slice."""


# not `@dlt_assets` of dagster-dlt: that calls `pipeline.run`, which knows nothing of taking turns,
# nor of what a killed run has left
@dg.multi_asset(
    specs=[
        dg.AssetSpec(["polyai", table.name], description=table.description)
        for table in loaded_tables()
    ],
    name="polyai_day",
    group_name="polyai",
    partitions_def=PARTITIONS,
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=1),
    retry_policy=RETRIES,
)
def day(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
    """Loads what one agent had on one day; what is held and has not changed is skipped."""
    agent_id = PARTITIONS.get_partition_key_from_str(context.partition_key).keys_by_dimension[
        "agent"
    ]
    since, before = context.partition_time_window
    (report,) = backfill(
        resolve().only([agent_id]),
        TARGET,
        Span(since, before),
        slice_length=before - since,
        workers=1,
    )
    counts = {name: report.counts[name] for name in COUNTS}
    context.log.info("%s: %s, %s", report.slice, report.status, counts)
    if report.status == "partial":
        named = "; ".join(f"{name}: {error}" for name, error in list(report.failures.items())[:5])
        context.log.warning(
            "%s conversations failed, see fetch_failures: %s", counts["failed"], named
        )
    elif report.status != "complete":
        raise dg.Failure(f"{report.slice}: {report.error or report.status}", metadata=counts)
    for key in context.selected_asset_keys:
        yield dg.MaterializeResult(asset_key=key, metadata=counts)


class LoadConfig(dg.Config):
    """Options of `polyai-warehouse load`."""

    full: bool = False
    lookback: str | None = None
    wait: str | None = None


@dg.op(retry_policy=RETRIES)
def load_agents(context: dg.OpExecutionContext, config: LoadConfig) -> None:
    """Loads what is new or changed, all agents; leaves out those that another run is loading."""
    settings = resolve(lookback=config.lookback, lock_wait=config.wait)
    pipeline = open_pipeline(TARGET.destination, TARGET.dataset)
    try:
        reports = load(settings, pipeline, full=config.full)
    except (BusyError, LeaseLostError) as error:
        context.log.info("skipped: %s", error)
        return
    for report in reports:
        tell = context.log.info if report.status in ("complete", "busy") else context.log.warning
        counts = {name: getattr(report, name) for name in ("listed", "new", "changed", "failed")}
        tell("%s: %s, %s", report.agent_id, report.status, report.error or counts)
    if any(report.has_read_all for report in reports):
        refresh(
            pipeline, settings.reporting_time_zone, settings.publish_to, wait=settings.lock_wait
        )
    if failed := [report for report in reports if report.status == "failed"]:
        raise dg.Failure("; ".join(f"{report.agent_id}: {report.error}" for report in failed))


@dg.job
def polyai_load() -> None:
    """The steady load, `polyai-warehouse load`."""
    load_agents()


class WatchConfig(dg.Config):
    """Options of `polyai-warehouse status`."""

    max_age: str = "90m"
    quick: bool = False


sync_runs = dg.AssetSpec(
    ["polyai", SYNC_RUNS.name], description=SYNC_RUNS.description, group_name="polyai"
)
"""Every run adds to it. The check is its, not that of a table: each day's run would check too."""


@dg.asset_check(asset=sync_runs.key, retry_policy=RETRIES)
def fresh_and_consistent(config: WatchConfig) -> dg.AssetCheckResult:
    """Whether each agent was loaded lately, and no row is doubled, lost or an orphan."""
    max_age = parse_duration(config.max_age)
    try:
        with open_to_read(TARGET.destination, TARGET.dataset) as warehouse:
            found = status(warehouse, max_age=max_age, quick=config.quick)
    except (BusyError, DestinationError) as error:
        severity = "WARN" if isinstance(error, BusyError) else "ERROR"
        return dg.AssetCheckResult(
            passed=False, severity=dg.AssetCheckSeverity(severity), description=str(error)
        )
    said = [f"{agent.agent_id} {wrong}" for agent in found.agents for wrong in _wrongs(agent)]
    return dg.AssetCheckResult(
        passed=found.is_healthy,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(said) or "all agents are fresh, and their rows agree",
        metadata={agent.agent_id: agent.conversations.held for agent in found.agents},
    )


def _wrongs(agent: AgentStatus) -> Iterator[str]:
    if agent.is_stale:
        age = str(agent.age).partition(".")[0]
        yield "was never loaded" if agent.age is None else f"is stale: last loaded {age} ago"
    if not agent.is_consistent:
        yield "has rows that are doubled, lost or orphans: see polyai-warehouse status"


polyai_backfill = dg.define_asset_job(
    "polyai_backfill",
    dg.AssetSelection.assets(day),
    description="A day of an agent, as `polyai-warehouse backfill`: launch a backfill of many.",
)

polyai_watch = dg.define_asset_job(
    "polyai_watch",
    dg.AssetSelection.checks(fresh_and_consistent),
    description="How the warehouse stands, as `polyai-warehouse status`.",
)


def _scheduled(name: str, cron: str, config: LoadConfig | WatchConfig) -> dg.ScheduleDefinition:
    is_load = isinstance(config, LoadConfig)
    op = load_agents if is_load else fresh_and_consistent.op
    return dg.ScheduleDefinition(
        f"polyai_{name}",
        cron_schedule=cron,
        execution_timezone="UTC",
        job=polyai_load if is_load else polyai_watch,
        run_config=dg.RunConfig({op.name: config}),
    )


SCHEDULES = [
    _scheduled("every_15_minutes", "*/15 * * * *", LoadConfig()),
    _scheduled("nightly", "40 2 * * *", LoadConfig(lookback="30d", wait="30m")),
    _scheduled("weekly", "10 4 * * 0", LoadConfig(full=True, wait="2h")),
    _scheduled("hourly_watch", "20 * * * *", WatchConfig(quick=True)),
    _scheduled("daily_watch", "50 5 * * *", WatchConfig()),
]
"""As in `schedules/crontab`; stopped until they are switched on."""

defs = dg.Definitions(
    assets=[day, sync_runs],
    asset_checks=[fresh_and_consistent],
    jobs=[polyai_backfill, polyai_load, polyai_watch],
    schedules=SCHEDULES,
    # Dagster's own executor, a process for the step beside the run's: within one process, a run
    # that is terminated would only be tried again
)
