"""Each shared rule gives the same in Python and as SQL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import AGENT, KEY, query
from polyai import open_pipeline, resolve
from polyai.forgetting.run import PIPELINE_NAME as FORGET_PIPELINE
from polyai.forgetting.run import Readers, forget
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.status.collect import collect_status
from polyai.tables import rules
from polyai.views import PIPELINE_NAME as VIEWS_PIPELINE
from polyai.views import create_views
from polyai.warehouse.read_only import open_to_read

pytestmark = pytest.mark.load

DATABASE = duckdb.connect()

some_count = st.none() | st.integers(0, 9)
some_time = st.none() | st.integers(0, 9).map(
    lambda hours: datetime(2024, 9, 2, tzinfo=UTC) + timedelta(hours=hours)
)


def evaluated(expression: str, row: Mapping[str, Any], type_: str) -> Any:
    """The value that DuckDB gives an expression over one row."""
    columns = ", ".join(f"${name}::{type_} AS {name}" for name in row)
    found = DATABASE.execute(f"SELECT {expression} FROM (SELECT {columns}) AS t", dict(row))
    (value,) = found.fetchall()[0]
    return value.astimezone(UTC) if isinstance(value, datetime) else value


COUNTS = ("api_count", "loaded", "erased", "absent", "pending", "excess", "too_old")


@given(st.fixed_dictionaries(dict.fromkeys(COUNTS, some_count)))
def test_missing(row: dict[str, int | None]) -> None:
    counts = {name: row[name] or 0 for name in row if name != "api_count"}
    expected = rules.missing(row["api_count"], **counts)
    assert evaluated(rules.missing_sql(*COUNTS), row, "BIGINT") == expected


@pytest.mark.parametrize("command", ["load", "backfill", "recordings"])
@pytest.mark.parametrize("outcome", ["running", "complete", "partial", "failed", "interrupted"])
def test_complete_load(command: str, outcome: str) -> None:
    row = {"command": command, "status": outcome}
    is_complete = rules.is_complete_load(command, outcome)
    assert evaluated(rules.complete_load_sql(), row, "TEXT") is is_complete
    assert is_complete == (command == "load" and outcome in ("complete", "partial"))


@pytest.mark.parametrize("rule", [rules.BEGAN_AT, rules.PLACED_AT, rules.ENDED_AT])
@pytest.mark.parametrize("alias", ["", "t"])
def test_start_and_end_of_a_conversation(rule: rules.FirstKnown, alias: str) -> None:
    @given(st.fixed_dictionaries(dict.fromkeys(rule.columns, some_time)))
    def check(row: dict[str, datetime | None]) -> None:
        assert evaluated(rule.sql(alias), row, "TIMESTAMPTZ") == rule.of(row)

    check()


@given(
    direction=st.sampled_from(["inbound", "outbound", "OUTBOUND", "unknown", None]),
    number=st.sampled_from(["+44", "REDACTED", "polyai", "[dropped]", "x[dropped]@y", "", None]),
)
def test_caller(direction: str | None, number: str | None) -> None:
    row = {"direction": direction, "from_number": number, "to_number": "+49"}
    assert evaluated(rules.caller_sql(), row, "TEXT") == row[rules.caller_column(direction)]
    for alias in ("", "t"):
        known = evaluated(rules.caller_known_sql(alias), row, "TEXT")
        assert bool(known) == rules.is_caller_known(direction, number)


def test_rules_are_rendered_into_sql_and_unknown_ones_refused() -> None:
    assert rules.render("SELECT ${placed_at(l)}") == (
        "SELECT coalesce(l.started_at, l.created_at, l.fetched_at)"
    )
    with pytest.raises(KeyError, match="no_such_rule"):
        rules.render("SELECT ${no_such_rule()}")


@pytest.mark.slow
def test_load_status_and_view_agree_that_erased_conversations_are_not_missing() -> None:
    with serve(Sandbox(SandboxConfig(conversations=10))) as base_url:
        settings = resolve(agent_id=AGENT, api_key=KEY, base_url=base_url)
        load(settings, open_pipeline())
        names = query("SELECT conversation_id FROM polyai.conversations ORDER BY 1 LIMIT 3")
        forget(
            open_pipeline(name=FORGET_PIPELINE),
            [str(name) for (name,) in names],
            recordings_url="recordings",
            readers=Readers("UTC", None),
        )
        (report,) = load(settings, open_pipeline())
    create_views(open_pipeline(name=VIEWS_PIPELINE))
    with open_to_read() as warehouse:
        (agent,) = collect_status(warehouse).agents
    view = query(
        "SELECT api_conversations, conversations, missing_conversations FROM polyai.data_freshness"
    )
    assert (report.missing, agent.missing, view) == (0, 0, [(10, 7, 0)])


@pytest.mark.slow
def test_view_does_not_know_what_is_missing_before_a_load_was_complete() -> None:
    create_views(open_pipeline(name=VIEWS_PIPELINE))
    with duckdb.connect("polyai.duckdb") as connection:
        connection.execute(
            "INSERT INTO polyai.sync_runs (agent_id, run_id, command, status, api_count) "
            "VALUES ('A', 'R', 'load', 'interrupted', 7)"
        )
    assert query("SELECT missing_conversations FROM polyai.data_freshness") == [(None,)]
