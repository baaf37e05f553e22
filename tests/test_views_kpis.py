"""Numbers of the views against an independent calculation from the sandbox's model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dlt
import pytest
from dlt.common.destination import Destination

import kpis
from polyai import open_pipeline, resolve
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.sandbox.model import Conversation
from polyai.views import PIPELINE_NAME, create_views, views_are_current
from polyai.views.definitions import views
from polyai.views.names import PER_CONVERSATION
from postgres_server import needs_postgres, postgres
from schemas.generate.sql_types import VIEW_TYPES
from warehouse_rows import Fetch, from_duckdb, from_postgres

pytestmark = pytest.mark.load

AGENTS = ("PROJECT-BOOKINGS", "PROJECT-SPA")
DAY = ("agent_id", "channel", "environment", "variant_id", "local_date")
ODD_DAYS = {
    "UTC": (date(2026, 11, 1), 24),
    "America/New_York": (date(2026, 11, 1), 25),
    "Europe/London": (date(2026, 10, 25), 25),
    "Asia/Kolkata": (date(2026, 11, 1), 24),  # offset of half an hour
    "Pacific/Chatham": (date(2026, 9, 27), 23),  # offset of three quarters of an hour
}
"""Time zones, each with a day and its length in hours; in most of them the clocks change."""
POSTGRES_TYPES = {
    "text": {"text", "character varying"},
    "bigint": {"bigint"},
    "double": {"double precision"},
    "bool": {"boolean"},
    "timestamp": {"timestamp with time zone"},
    "local timestamp": {"timestamp without time zone"},
    "date": {"date"},
}


@dataclass(frozen=True)
class Loaded:
    """Warehouse into which a sandbox was loaded."""

    pipeline: dlt.Pipeline
    fetch: Fetch
    calls: list[Conversation]


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """Two agents, over the change of the score's scale and that of New York's clocks."""
    now = datetime(2026, 11, 3, 13, tzinfo=UTC)
    shape = SandboxConfig(
        conversations=260, inventions=True, agents=AGENTS, now=now, span=timedelta(days=100)
    )
    return Sandbox(shape)


@pytest.fixture(
    scope="module",
    params=["duckdb", pytest.param("postgres", marks=[needs_postgres, pytest.mark.slow])],
)
def loaded(
    sandbox: Sandbox, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loaded]:
    folder = tmp_path_factory.mktemp("warehouse")
    if request.param == "duckdb":
        file = folder / "polyai.duckdb"
        yield _loaded(sandbox, dlt.destinations.duckdb(str(file)), folder, from_duckdb(file))
    else:
        with postgres() as url:
            # views do not depend on the time zone of the session
            fetch = from_postgres(url, "Asia/Tokyo")
            yield _loaded(sandbox, dlt.destinations.postgres(url), folder, fetch)


def _loaded(
    sandbox: Sandbox, destination: Destination[Any, Any], folder: Path, fetch: Fetch
) -> Loaded:
    with serve(sandbox) as base_url:
        settings = resolve(agent_id=",".join(AGENTS), api_key="sandbox-key", base_url=base_url)
        reports = load(settings, open_pipeline(destination, pipelines_dir=folder))
    assert [report.status for report in reports] == ["complete", "complete"]
    pipeline = open_pipeline(destination, pipelines_dir=folder, name=PIPELINE_NAME)
    return Loaded(pipeline, fetch, kpis.all_calls(sandbox))


@pytest.mark.parametrize(
    "zone",
    [
        pytest.param(zone, marks=[] if zone in ("UTC", "Pacific/Chatham") else pytest.mark.matrix)
        for zone in ODD_DAYS
    ],
)
def test_every_view_equals_the_independent_calculation(loaded: Loaded, zone: str) -> None:
    _create_views(loaded, zone)
    for name, (further, calculate) in kpis.DAILY.items():
        expected = calculate(loaded.calls, zone)
        _assert_equal(name, _by(loaded.fetch, name, (*DAY, *further)), expected)
    for name, of_calls in kpis.BY_CONVERSATION.items():
        expected = of_calls(loaded.calls, zone)
        _assert_equal(name, _by(loaded.fetch, name, ("agent_id", "conversation_id")), expected)
    flags = kpis.red_flags(loaded.calls, zone, datetime.now(UTC))
    found = _by(loaded.fetch, "red_flags", ("agent_id", "local_date", "flag"))
    _assert_equal("red_flags", found, flags)
    assert {flag for _, _, flag in flags} >= {
        "latency_p95",
        "function_errors",
        "handoff_rate",
        "handoff_above_baseline",
    }
    _assert_calendar(loaded, zone)


def _assert_calendar(loaded: Loaded, zone: str) -> None:
    found = _by(loaded.fetch, "dim_dates", ("local_date",))
    days = {kpis.local_date(call, zone) for call in loaded.calls}
    last = max(*days, datetime.now(ZoneInfo(zone)).date())
    count = (last - min(days)).days + 1
    assert found.keys() == {(min(days) + timedelta(number),) for number in range(count)}
    day, hours = ODD_DAYS[zone]
    assert found[day,]["hours"] == hours
    for (day,), row in found.items():
        assert row["hours"] == kpis.hours_of(day, zone)
        assert (row["iso_year"], row["iso_week"], row["iso_weekday"]) == tuple(day.isocalendar())
        assert (row["year"], row["month"], row["day_of_month"]) == day.timetuple()[:3]
        assert row["quarter"] == (day.month + 2) // 3
        assert row["is_weekend"] == (day.weekday() > 4)


def test_fct_conversations_has_one_correct_row_per_conversation(loaded: Loaded) -> None:
    _create_views(loaded, "America/New_York")
    found = _by(loaded.fetch, "fct_conversations", ("agent_id", "conversation_id"))
    assert len(found) == len(loaded.calls)
    for call in loaded.calls:
        row = found[call.agent_id, call.conversation_id]
        turns = call.turns or ()
        began = (call.started_at or call.created_at).astimezone(ZoneInfo("America/New_York"))
        finished = kpis.is_finished(call)
        abandoned = kpis.is_abandoned(call)
        waits = kpis.latencies([call])
        expected = {
            "local_started_at": began.replace(tzinfo=None),
            "local_hour": began.hour,
            "is_finished": finished,
            "is_contained": call.handoff is not True if finished else None,
            "is_abandoned": abandoned,
            "is_contained_excl_abandoned": (call.handoff is not True and not abandoned)
            if finished
            else None,
            "handle_time_seconds": call.total_duration_seconds if finished else None,
            "num_turns": len(turns),
            "num_turns_over_3s": sum(wait > 3 for wait in waits),
            "latency_seconds_p50": kpis.percentile(waits, 0.5),
            "latency_seconds_p95": kpis.percentile(waits, 0.95),
            "is_csat_offered": kpis.is_offered(call),
            "csat_score": kpis.csat_score(call),
            "hangup_category": kpis.hangup_category(call),
            "is_connected": kpis.is_connected(call),
            "answered_by": kpis.call_answered_by(call),
            "num_annotations": sum(len(turn.annotations) for turn in turns),
            "function_calls": len(call.function_events or ()),
            "function_errors": sum(bool(e.error) for e in call.function_events or ()),
            "first_agent_response": turns[0].agent_response if turns else None,
            "last_user_input": turns[-1].user_input if turns else None,
        }
        _assert_row(call.conversation_id, row, expected)


def test_dimensions_and_freshness_include_every_agent(loaded: Loaded) -> None:
    _create_views(loaded, "UTC")
    agents = _by(loaded.fetch, "dim_agents", ("agent_id",))
    freshness = _by(loaded.fetch, "data_freshness", ("agent_id",))
    variants = _by(loaded.fetch, "dim_variants", ("agent_id", "variant_id"))
    assert agents.keys() == freshness.keys() == {(agent,) for agent in AGENTS}
    for agent in AGENTS:
        calls = [call for call in loaded.calls if call.agent_id == agent]
        assert agents[agent,]["conversations"] == len(calls)
        fresh = freshness[agent,]
        assert fresh["conversations"] == fresh["api_conversations"] == len(calls)
        assert fresh["in_progress_conversations"] == sum(not kpis.is_finished(c) for c in calls) > 0
        assert (fresh["missing_conversations"], fresh["open_failures"]) == (0, 0)
        assert 0 <= fresh["load_age_minutes"] < 60
    assert variants.keys() == {
        (call.agent_id, kpis.words(call.variant_id) or "none") for call in loaded.calls
    }


def test_every_id_of_every_view_has_its_name(loaded: Loaded, sandbox: Sandbox) -> None:
    _create_views(loaded, "UTC")
    agents, variants = kpis.agent_names(sandbox), kpis.variant_names()
    for view in views().values():
        if view.name == PER_CONVERSATION:
            continue
        names = {field.name for field in view.fields}
        assert ("agent_id" in names) == ("agent_name" in names), view.name
        assert ("variant_id" in names) == ("variant_name" in names), view.name
        for row in loaded.fetch(f"SELECT * FROM polyai.{view.name}") if "agent_id" in names else ():
            assert row["agent_name"] == agents[row["agent_id"]], view.name
            if "variant_id" in names:
                assert row["variant_name"] == variants.get(row["variant_id"]), view.name
    known = kpis.deployments(sandbox)
    columns = ("deployment_version", "deployed_at", "deployed_by", "deployment_message")
    for view_name in ("fct_conversations", "dim_deployments"):
        rows = loaded.fetch(f"SELECT * FROM polyai.{view_name}")
        assert {row["deployment_id"] for row in rows} <= known.keys()
        for row in rows:
            assert tuple(row[name] for name in columns) == known[row["deployment_id"]], view_name


def test_declared_types_are_those_of_the_destination(loaded: Loaded) -> None:
    _create_views(loaded, "UTC")
    found: dict[str, list[tuple[str, str]]] = {}
    for row in loaded.fetch(
        "SELECT table_name, column_name, data_type FROM information_schema.columns "
        f"WHERE table_schema = '{loaded.pipeline.dataset_name}' "
        "ORDER BY table_name, ordinal_position"
    ):
        found.setdefault(row["table_name"], []).append((row["column_name"], row["data_type"]))
    is_postgres = loaded.pipeline.destination.destination_name == "postgres"
    types: Mapping[Any, Any] = POSTGRES_TYPES if is_postgres else VIEW_TYPES
    for view in views().values():
        declared = [field.name for field in view.fields]
        assert [name for name, _ in found[view.name]] == declared
        for field, (_, type_) in zip(view.fields, found[view.name]):
            assert type_ in types[field.type], (view.name, field.name)


def _create_views(loaded: Loaded, zone: str) -> None:
    """Creates the views for a zone, unless they are current."""
    if not views_are_current(loaded.pipeline, zone):
        assert not create_views(loaded.pipeline, zone).failed
    assert views_are_current(loaded.pipeline, zone)


def _by(fetch: Fetch, view: str, key: tuple[str, ...]) -> dict[kpis.Key, kpis.Row]:
    rows = fetch(f"SELECT * FROM polyai.{view}")
    found = {tuple(row[name] for name in key): row for row in rows}
    assert len(found) == len(rows), f"{view}: duplicate key"
    return found


def _assert_equal(
    view: str, found: Mapping[kpis.Key, kpis.Row], expected: Mapping[kpis.Key, kpis.Row]
) -> None:
    assert expected, view
    assert found.keys() == expected.keys(), view
    for key, row in expected.items():
        _assert_row((view, *key), found[key], row)


def _assert_row(what: Any, found: kpis.Row, expected: kpis.Row) -> None:
    for name, value in expected.items():
        is_right = (
            found[name] is not None and math.isclose(found[name], value, rel_tol=1e-9, abs_tol=1e-9)
            if isinstance(value, float)
            else found[name] == value
        )
        assert is_right, (what, name, found[name], value)
