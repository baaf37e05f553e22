"""Numbers of the dashboard, compared with plain Python over the sandbox's own data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import pytest

import kpis
from polyai import open_pipeline, resolve
from polyai.dashboard import data_queries, queries
from polyai.dashboard.selection import Period, Selection
from polyai.dashboard.totals import total
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve, texts
from polyai.sandbox.model import Conversation
from polyai.views import PIPELINE_NAME, create_views
from polyai.views.query_reader import Reader, open_reader
from postgres_server import needs_postgres, postgres

pytestmark = pytest.mark.load

AGENTS = ("PROJECT-BOOKINGS", "PROJECT-SPA")
ZONE = "America/New_York"
PERIOD = Period(date(2026, 9, 20), date(2026, 11, 2))


SELECTIONS = {
    "all": Selection(PERIOD),
    "live": Selection(PERIOD, environment="live"),
    "agent": Selection(PERIOD, agent="PROJECT-SPA"),
    "channel": Selection(PERIOD, channel="VOICE-SIP", environment="live"),
    "variant": Selection(PERIOD, variant="none"),
    "both scales": Selection(Period(date(2026, 7, 20), date(2026, 8, 20))),
    "nothing": Selection(Period(date(2020, 1, 1), date(2020, 1, 7))),
}


@dataclass(frozen=True)
class Warehouse:
    """A warehouse that has loaded a sandbox."""

    reader: Reader
    calls: list[Conversation]

    def selected(self, selection: Selection, period: Period | None = None) -> list[Conversation]:
        """Returns the conversations of a selection."""
        days = period or selection.period
        wanted = (selection.agent, selection.channel, selection.environment, selection.variant)
        return [
            call
            for call in self.calls
            if days.since <= kpis.local_date(call, ZONE) <= days.until
            and all(want in (None, has) for want, has in zip(wanted, kpis.day_of(call, ZONE)[:4]))
        ]


@pytest.fixture(
    scope="module",
    params=["duckdb", pytest.param("postgres", marks=[needs_postgres, pytest.mark.slow])],
)
def warehouse(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Warehouse]:
    now = datetime(2026, 11, 3, 13, tzinfo=UTC)
    sandbox = Sandbox(
        SandboxConfig(
            conversations=200, inventions=True, agents=AGENTS, now=now, span=timedelta(days=110)
        )
    )
    folder = tmp_path_factory.mktemp("warehouse")
    if request.param == "duckdb":
        destination = dlt.destinations.duckdb(str(folder / "polyai.duckdb"))
        yield from _warehouse(sandbox, destination, folder)
    else:
        with postgres() as url:
            yield from _warehouse(sandbox, dlt.destinations.postgres(url), folder)


def _warehouse(sandbox: Sandbox, destination: Any, folder: Path) -> Iterator[Warehouse]:
    with serve(sandbox) as base_url:
        settings = resolve(agent_id=",".join(AGENTS), api_key="sandbox-key", base_url=base_url)
        load(settings, open_pipeline(destination, pipelines_dir=folder))
    pipeline = open_pipeline(destination, pipelines_dir=folder, name=PIPELINE_NAME)
    assert not create_views(pipeline, ZONE).failed
    with open_reader(pipeline, folder / "published") as reader:
        yield Warehouse(reader, kpis.all_calls(sandbox))


def is_close(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("name", SELECTIONS)
def test_totals_of_both_periods(warehouse: Warehouse, name: str) -> None:
    selection = SELECTIONS[name]
    rows = queries.daily(warehouse.reader, selection)
    for period in (selection.period, selection.period.previous):
        found = total(queries.of_period(rows, period))
        expected = kpis._day(warehouse.selected(selection, period))
        for measure in (
            "conversations",
            "containment_rate",
            "containment_rate_excl_abandoned",
            "handoff_rate",
            "handle_time_seconds_mean",
            "poly_score_1_5_mean",
            "poly_score_0_10_mean",
            "csat_mean",
            "csat_response_rate",
        ):
            assert is_close(getattr(found, measure), expected[measure]), (period, measure)
    handled = queries.handle_times(warehouse.reader, selection)
    expected = kpis._day(warehouse.selected(selection))
    for measure in ("p50", "p95"):
        assert is_close(handled[measure], expected[f"handle_time_seconds_{measure}"])


@pytest.mark.parametrize("name", SELECTIONS)
def test_latencies_are_exact_per_period_and_day(warehouse: Warehouse, name: str) -> None:
    selection = SELECTIONS[name]
    latencies = queries.latencies(warehouse.reader, selection)
    calls = warehouse.selected(selection)
    cases = [
        (latencies.now, calls),
        (latencies.before, warehouse.selected(selection, selection.period.previous)),
        *(
            (row, [call for call in calls if kpis.local_date(call, ZONE) == day])
            for day, row in latencies.by_day.items()
        ),
    ]
    for row, called in cases:
        known = kpis.latencies(called)
        assert row.get("turns", 0) == len(known)
        if known:
            assert row["over_3s"] == sum(wait > 3 for wait in known)
            for measure, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                assert is_close(row[measure], kpis.percentile(known, share))


@pytest.mark.parametrize("name", SELECTIONS)
def test_topics_and_reasons_are_counted_in_both_periods(warehouse: Warehouse, name: str) -> None:
    selection = SELECTIONS[name]
    for ask, view, counted in (
        (queries.topics, kpis.topics_daily, "conversations"),
        (queries.handoff_reasons, kpis.handoff_reasons_daily, "handed_off_conversations"),
    ):
        expected: dict[str, Counter[str]] = {"now": Counter(), "before": Counter()}
        for when, period in (("now", selection.period), ("before", selection.period.previous)):
            for key, row in view(warehouse.selected(selection, period), ZONE).items():
                expected[when][key[-1]] += row[counted]
        rows = ask(warehouse.reader, selection)
        names = expected["now"] | expected["before"]
        assert len(rows) == min(len(names), queries.SHOWN)
        for row in rows:
            assert row["now"] == expected["now"][row["name"]]
            assert row["before"] == expected["before"][row["name"]]
            assert row["names"] == len(names)
        assert [row["now"] for row in rows] == sorted((row["now"] for row in rows), reverse=True)
        if rows:
            days = queries.topic_days if ask is queries.topics else queries.reason_days
            first = rows[0]["name"]
            found = days(warehouse.reader, selection, [first])
            assert sum(row["number"] for row in found) == rows[0]["now"]


@pytest.mark.parametrize("name", SELECTIONS)
def test_functions_are_exact_per_period(warehouse: Warehouse, name: str) -> None:
    selection = SELECTIONS[name]
    events: dict[str, list[Any]] = {}
    for call in warehouse.selected(selection):
        for event in call.function_events or ():
            events.setdefault(event.name, []).append(event)
    rows = queries.functions(warehouse.reader, selection)
    assert {row["name"] for row in rows} == events.keys()
    for row in rows:
        found = events[row["name"]]
        assert (row["calls"], row["errors"]) == (len(found), sum(bool(e.error) for e in found))
        times = [event.duration_ms for event in found if event.duration_ms is not None]
        assert is_close(row["p95"], kpis.percentile(times, 0.95))
    days = queries.of_period(queries.function_days(warehouse.reader, selection), selection.period)
    assert sum(row["calls"] for row in days) == sum(map(len, events.values()))


def test_each_red_flag_is_listed_once_with_its_number_of_days(warehouse: Warehouse) -> None:
    selection = SELECTIONS["live"]
    rows = queries.red_flags(warehouse.reader, selection)
    expected: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], date] = {}
    for (agent, day, flag), _ in kpis.red_flags(warehouse.calls, ZONE, datetime.now(UTC)).items():
        if PERIOD.since <= day <= PERIOD.until:
            expected[agent, flag] += 1
            last[agent, flag] = max(day, last.get((agent, flag), day))
    assert rows
    assert rows[0]["flags"] == len(expected)
    for row in rows:
        key = row["agent_id"], row["flag"]
        assert (row["days"], row["local_date"]) == (expected[key], last[key])


def test_pages_of_a_list_have_each_conversation_once(warehouse: Warehouse) -> None:
    selection = SELECTIONS["all"]
    expected = {(call.agent_id, call.conversation_id) for call in warehouse.selected(selection)}
    found: list[tuple[str, str]] = []
    started: list[datetime] = []
    for page in range(len(expected) // queries.ROWS_OF_A_PAGE + 1):
        rows, number = queries.conversations(warehouse.reader, selection, "", None, page)
        assert number == len(expected)
        found += [(row["agent_id"], row["conversation_id"]) for row in rows]
        started += [row["local_started_at"] for row in rows]
    assert len(found) == len(expected)
    assert set(found) == expected
    assert started == sorted(started, reverse=True)


def test_search_covers_summaries_and_transcripts(warehouse: Warehouse) -> None:
    selection = SELECTIONS["all"]
    expected = 0
    for call in warehouse.selected(selection):
        texts = [call.note, call.from_number, call.conversation_id]
        texts += [kpis.words(call.handoff_reason), str(call.summary or "")]
        texts += [
            text for turn in call.turns or () for text in (turn.user_input, turn.agent_response)
        ]
        expected += any("breakfast" in (text or "").lower() for text in texts)
    _, number = queries.conversations(warehouse.reader, selection, "BREAKFAST", None, 0)
    assert number == expected > 0


@pytest.mark.parametrize("search", ["%", "'; DROP TABLE turns; --", "$since", "_"])
def test_search_text_is_matched_literally(warehouse: Warehouse, search: str) -> None:
    queries.conversations(warehouse.reader, SELECTIONS["all"], search, None, 0)
    assert queries.conversations(warehouse.reader, SELECTIONS["all"], "", None, 0)[1]


def test_the_outcome_filter_restricts_the_list(warehouse: Warehouse) -> None:
    selection = SELECTIONS["all"]
    calls = warehouse.selected(selection)
    expected = {
        "contained": sum(kpis.is_finished(c) and c.handoff is not True for c in calls),
        "handed_off": sum(kpis.is_handed_off(c) for c in calls),
        "in_progress": sum(not kpis.is_finished(c) for c in calls),
        "low_score": sum(
            c.created_at >= kpis.NEW_SCALE and c.poly_score is not None and c.poly_score < 3
            for c in calls
        ),
        "annotated": sum(any(turn.annotations for turn in c.turns or ()) for c in calls),
    }
    for outcome, number in expected.items():
        assert queries.conversations(warehouse.reader, selection, "", outcome, 0)[1] == number


def test_the_review_queue_starts_with_most_reasons(warehouse: Warehouse) -> None:
    selection = SELECTIONS["live"]
    expected = kpis.annotation_queue(warehouse.selected(selection), ZONE)
    rows, number = queries.queue(warehouse.reader, selection, 0)
    assert number == len(expected)
    reasons = sorted((row["num_reasons"] for row in expected.values()), reverse=True)
    assert [row["num_reasons"] for row in rows] == reasons[: queries.ROWS_OF_A_PAGE]


def test_a_conversation_has_all_turns_events_and_annotations(warehouse: Warehouse) -> None:
    call = max(
        warehouse.calls,
        key=lambda one: (
            sum(len(turn.annotations) for turn in one.turns or ()),
            len(one.function_events or ()),
        ),
    )
    one = queries.conversation(warehouse.reader, call.agent_id, call.conversation_id)
    assert one is not None
    assert [turn["user_input"] for turn in one.turns] == [
        kpis.words(turn.user_input) for turn in call.turns or ()
    ]
    assert len(one.events) == len(call.function_events or ())
    assert len(one.annotations) == sum(len(turn.annotations) for turn in call.turns or ()) > 0
    assert queries.recordings(warehouse.reader, call.agent_id, call.conversation_id) == []
    assert queries.conversation(warehouse.reader, call.agent_id, "no-such") is None


def test_filter_values_and_freshness_cover_all_agents(warehouse: Warehouse) -> None:
    choices = queries.choices(warehouse.reader)
    assert choices is not None
    assert {row[:4] for row in choices.rows} == {
        kpis.day_of(call, ZONE)[:4] for call in warehouse.calls
    }
    days = [kpis.local_date(call, ZONE) for call in warehouse.calls]
    assert (choices.first, choices.newest) == (min(days), max(days))
    names = dict(zip(AGENTS, texts.AGENT_NAMES))
    assert choices.agent_names == names
    rows, _ = queries.conversations(warehouse.reader, SELECTIONS["all"], "", None, 0)
    for row in (
        *rows,
        *data_queries.freshness(warehouse.reader),
        *data_queries.runs(warehouse.reader),
    ):
        assert row["agent_name"] == names[row["agent_id"]]
    assert [row["agent_id"] for row in data_queries.freshness(warehouse.reader)] == sorted(AGENTS)
    assert {row["command"] for row in data_queries.runs(warehouse.reader)} == {"load"}
    assert data_queries.failures(warehouse.reader) == []
    assert data_queries.verifications(warehouse.reader) == {}
    assert data_queries.time_zone(warehouse.reader) == ZONE
