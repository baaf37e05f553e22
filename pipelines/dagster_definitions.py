"""Dagster definitions: one partition per day and agent, the scheduled load, and asset checks.

Start it in a folder in which `polyai-warehouse check` succeeds; reload it after adding agents:

    dagster dev -f pipelines/dagster_definitions.py

Each partition is one slice of `polyai-warehouse backfill`. A slice needs only its arguments and the
destination, so slices can run concurrently and on several machines.

Settings are those of the command, plus `POLYAI_DAGSTER_START`, the first day with a partition, and
`POLYAI_DAGSTER_DATASET`. The destination is dlt's `DESTINATION_TYPE`. The default, a DuckDB file,
works on one machine, where slices write to it one after the other. Several machines need
PostgreSQL, DuckLake with its catalog in PostgreSQL, or a cloud warehouse.
"""

# no `from __future__ import annotations`: Dagster needs the types of context and config at run time

import os
from collections.abc import Iterator

import dagster as dg

from polyai import Span, Target, backfill, load, resolve, status
from polyai.config.validators import parse_duration
from polyai.errors import BusyError, DestinationError, LeaseLostError
from polyai.status.report import AgentStatus
from polyai.tables.audit import SYNC_RUNS
from polyai.tables.registry import loaded_tables

# as in the command: dlt would report each run to its vendor
os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")

TARGET = Target(dataset=os.environ.get("POLYAI_DAGSTER_DATASET") or None)
"""The warehouse; its destination is dlt's own setting."""

PARTITIONS = dg.MultiPartitionsDefinition(
    {
        "agent": dg.StaticPartitionsDefinition([agent.agent_id for agent in resolve().agents]),
        "day": dg.DailyPartitionsDefinition(
            start_date=os.environ.get("POLYAI_DAGSTER_START") or "2025-01-01", timezone="UTC"
        ),
    }
)
"""All past days of all agents; today belongs to the scheduled load."""

RETRIES = dg.RetryPolicy(
    max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL
)
"""Backoff of up to 30, 90 and 210 seconds."""

COUNTS = ("listed", "new", "changed", "unchanged", "failed", "requests", "rows")
"""Counts of a slice in its metadata."""


# not `@dlt_assets` of dagster-dlt: that calls `pipeline.run`, which has neither locks nor recovery
# of killed runs
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
    """Loads one day of one agent; conversations that are loaded and unchanged are skipped."""
    agent_id = PARTITIONS.get_partition_key_from_str(context.partition_key).keys_by_dimension[
        "agent"
    ]
    since, before = context.partition_time_window
    result = backfill(
        Span(since, before),
        settings=resolve().only([agent_id]),
        target=TARGET,
        slice_length=before - since,
        workers=1,
    )
    (report,) = result.slices
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
    """Loads new and changed conversations of all agents; skips agents that another run loads."""
    settings = resolve(lookback=config.lookback, lock_wait=config.wait)
    try:
        result = load(settings=settings, target=TARGET, full=config.full)
    except (BusyError, LeaseLostError) as error:
        context.log.info("skipped: %s", error)
        return
    for report in result.reports:
        log = context.log.info if report.status in ("complete", "busy") else context.log.warning
        counts = {name: getattr(report, name) for name in ("listed", "new", "changed", "failed")}
        log("%s: %s, %s", report.agent_id, report.status, report.error or counts)
    errors = [f"{one.agent_id}: {one.error}" for one in result.reports if one.status == "failed"]
    if result.publish_error:
        errors.append(f"nothing was published: {result.publish_error}")
    if errors:
        raise dg.Failure("; ".join(errors))


@dg.job
def polyai_load() -> None:
    """Scheduled load, `polyai-warehouse load`."""
    load_agents()


class WatchConfig(dg.Config):
    """Options of `polyai-warehouse status`."""

    max_age: str = "90m"
    quick: bool = False


sync_runs = dg.AssetSpec(
    ["polyai", SYNC_RUNS.name], description=SYNC_RUNS.description, group_name="polyai"
)
"""Every run adds rows to it. It has the check because a table's would run with every partition."""


@dg.asset_check(asset=sync_runs.key, retry_policy=RETRIES)
def fresh_and_consistent(config: WatchConfig) -> dg.AssetCheckResult:
    """Checks that each agent was loaded recently, and that there are no inconsistent rows."""
    max_age = parse_duration(config.max_age)
    try:
        found = status(max_age=max_age, quick=config.quick, target=TARGET)
    except (BusyError, DestinationError) as error:
        severity = "WARN" if isinstance(error, BusyError) else "ERROR"
        return dg.AssetCheckResult(
            passed=False, severity=dg.AssetCheckSeverity(severity), description=str(error)
        )
    problems = [f"{one.agent_id} {text}" for one in found.agents for text in _problems(one)]
    return dg.AssetCheckResult(
        passed=found.is_healthy,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(problems) or "all agents are fresh and consistent",
        metadata={agent.agent_id: agent.conversations.held for agent in found.agents},
    )


def _problems(agent: AgentStatus) -> Iterator[str]:
    if agent.is_stale:
        age = str(agent.age).partition(".")[0]
        yield "was never loaded" if agent.age is None else f"is stale: last loaded {age} ago"
    if not agent.is_consistent:
        yield "has duplicate, lost or orphan rows: see polyai-warehouse status"


polyai_backfill = dg.define_asset_job(
    "polyai_backfill",
    dg.AssetSelection.assets(day),
    description="One day of one agent, as `polyai-warehouse backfill`: launch a backfill of many.",
)

polyai_watch = dg.define_asset_job(
    "polyai_watch",
    dg.AssetSelection.checks(fresh_and_consistent),
    description="Freshness and consistency of the warehouse, as `polyai-warehouse status`.",
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
"""Same as in `schedules/crontab`; stopped until they are switched on."""

defs = dg.Definitions(
    assets=[day, sync_runs],
    asset_checks=[fresh_and_consistent],
    jobs=[polyai_backfill, polyai_load, polyai_watch],
    schedules=SCHEDULES,
    # Dagster's default executor, with a process per step: in a single process, a terminated run
    # would be retried
)
