"""Retention: what is too old is deleted everywhere, and nothing brings it back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from command import AGENT, KEY, query, run
from erasing import (
    IDS_IN,
    Company,
    assert_no_trace,
    first_column,
    open_company,
    row_counts,
    without,
)
from polyai import Span, Target, resolve
from polyai.config.retention import Ages, limit
from polyai.errors import ConfigurationError
from polyai.holding.command import hold
from polyai.jobs.backfill import backfill
from polyai.retention.result import AgentRetention
from polyai.retention.run import Rules, apply
from polyai.views import refresh
from polyai.warehouse.holds import HoldKeys

ENDED_AT = "coalesce(finished_at, started_at, created_at)"


@pytest.fixture
def company() -> Iterator[Company]:
    with open_company() as company:
        yield company


def retain(company: Company, ages: Ages) -> AgentRetention:
    """Runs retention once, with the sandbox's clock."""
    rules = Rules(ages, HoldKeys(), "recordings")
    done = apply(Target(), rules, clock=lambda: company.sandbox.now)
    (result,) = done.agents
    assert result.error is None
    return result


def ended_before(moment: datetime) -> list[str]:
    """Returns the ids of loaded conversations that ended before, oldest first."""
    return first_column(
        f"{IDS_IN}conversations WHERE {ENDED_AT} < TIMESTAMPTZ '{moment}' ORDER BY {ENDED_AT}"
    )


def details(company: Company, *ids: str) -> list[str]:
    """Returns the requests for details or recordings of these conversations."""
    return [path for path in company.sandbox.requests.paths() if any(id_ in path for id_ in ids)]


@pytest.mark.slow
@pytest.mark.load
def test_old_conversations_are_deleted_and_do_not_come_back(company: Company) -> None:
    company.fetch_recordings()
    age = timedelta(days=4)
    before = limit(age, company.sandbox.now)
    assert before is not None
    old, loaded = ended_before(before), row_counts()
    kept_id = old.pop(0)
    assert len(old) > 20
    hold(kept_id, reason="CASE-12")
    publish_path = Path("published", "polyai.duckdb")
    refresh(Target().open(), "UTC", publish_path.parent)
    assert old[0].encode() in publish_path.read_bytes()

    result = retain(company, Ages(conversations=age, recordings=age, transcripts=age))
    assert (result.conversations, result.on_hold) == (len(old), {kept_id: "CASE-12"})
    after = row_counts()
    assert after | {"holds": loaded["holds"]} == without(loaded, *old)
    assert_no_trace(*old)
    for name in old:
        assert name.encode() not in Path("polyai.duckdb").read_bytes()
        assert name.encode() not in publish_path.read_bytes()
    assert query("SELECT count(*) FROM polyai.forgotten") == [(0,)]
    assert query(
        "SELECT conversations_before, too_old, applied_at = ? FROM polyai.retention".replace(
            "?", f"TIMESTAMPTZ '{company.sandbox.now}'"
        )
    ) == [(before, len(old), True)]

    # also without the setting, because the limit is kept in the warehouse
    company.sandbox.requests.clear()
    assert (company.load().missing, company.load(full=True).missing) == (0, 0)
    span = Span(before - timedelta(days=30), before)
    backfill(
        span,
        settings=resolve(agent_id=AGENT, api_key=KEY, base_url=company.base_url),
        workers=1,
        resume=False,
    )
    company.fetch_recordings()
    assert details(company, *old) == []
    assert row_counts()["conversations"] == after["conversations"]
    assert ended_before(before) == [kept_id]
    status = json.loads(run("status", "--json", **company.environment).stdout)["agents"][0]
    counts = status["conversations"]
    assert status["is_consistent"]
    assert (counts["too_old"], counts["missing"]) == (len(old), 0)
    verified = run("recordings", "verify", **company.environment)
    assert verified.returncode == 0, verified.stdout

    # a new warehouse does not request what is too old
    Path("polyai.duckdb").unlink()
    company.sandbox.requests.clear()
    report = company.load(retention=age)
    assert (report.status, report.missing) == ("complete", 0)
    assert details(company, *old, kept_id) == []


@pytest.mark.matrix
@pytest.mark.slow
@pytest.mark.load
def test_old_words_and_recordings_are_deleted_before_the_rest(company: Company) -> None:
    company.fetch_recordings()
    age = timedelta(days=3)
    before = limit(age, company.sandbox.now)
    assert before is not None
    old, recorded = ended_before(before), company.recorded()
    turns = query("SELECT count(*) FROM polyai.turns")
    of_old = "conversation_id IN (SELECT conversation_id FROM polyai.conversations WHERE " + (
        f"{ENDED_AT} < TIMESTAMPTZ '{before}')"
    )
    of_words = (
        "SELECT count(*) FILTER (user_input IS NOT NULL OR agent_response IS NOT NULL) "
        f"FROM polyai.turns WHERE {{}} {of_old}"
    )
    ((words,),) = query(of_words.format("NOT"))
    ages = Ages(recordings=age, transcripts=age)
    result = retain(company, ages)
    assert (result.conversations, result.transcripts) == (0, len(old))
    assert 0 < result.recordings < len(recorded)
    assert query("SELECT count(*) FROM polyai.turns") == turns
    assert query(of_words.format("")) == [(0,)]
    assert query(of_words.format("NOT")) == [(words,)]
    assert query(f"SELECT count(*) FROM polyai.notes WHERE {of_old}") == [(0,)]
    assert query(
        f"SELECT count(*) FROM polyai.conversations WHERE summary IS NOT NULL AND {of_old}"
    ) == [(0,)]
    assert query(
        f"SELECT count(*) FROM polyai.recordings WHERE started_at < TIMESTAMPTZ '{before}'"
    ) == [(0,)]

    # nothing is left to do: no lock, no run, no rewriting
    inode = Path("polyai.duckdb").stat().st_ino
    runs = query("SELECT count(*) FROM polyai.sync_runs")
    again = retain(company, ages)
    assert (again.transcripts, again.recordings, again.rows) == (0, 0, {})
    assert query("SELECT count(*) FROM polyai.sync_runs") == runs
    assert Path("polyai.duckdb").stat().st_ino == inode

    # a conversation that is read again comes without its words
    settings = resolve(
        agent_id=AGENT, api_key=KEY, base_url=company.base_url, retention_transcripts=age
    )
    backfill(Span(before - timedelta(days=30), before), settings=settings, workers=1, resume=False)
    assert query(of_words.format("")) == [(0,)]
    company.fetch_recordings()
    assert query(
        f"SELECT count(*) FROM polyai.recordings WHERE started_at < TIMESTAMPTZ '{before}'"
    ) == [(0,)]


@pytest.mark.matrix
@pytest.mark.load
def test_the_command_and_each_load_apply_the_settings(company: Company) -> None:
    # by the computer's clock, all of the sandbox's conversations may be old or new
    unset = run("prune", "--dry-run", **company.environment)
    assert unset.returncode == 1
    assert "POLYAI_RETENTION" in unset.stderr
    environment = company.environment | {
        "POLYAI_RETENTION": f"{_days_since(company) + 2}d",
        "POLYAI_RETENTION_TRANSCRIPTS": f"{_days_since(company) + 1}d",
    }
    before = row_counts()
    planned = json.loads(run("prune", "--dry-run", "--json", **environment).stdout)["agents"][0]
    assert row_counts() == before
    assert 0 < planned["conversations"] < planned["transcripts"]
    unconfirmed = run("prune", **environment)
    assert unconfirmed.returncode == 2
    assert row_counts() == before
    done = run("prune", "--yes", "--json", **environment)
    assert done.returncode == 0, done.stderr
    (deleted,) = json.loads(done.stdout)["agents"]
    assert deleted["conversations"] == planned["conversations"]
    after = row_counts()
    assert len(before["conversations"]) - len(after["conversations"]) == planned["conversations"]
    # a longer age brings nothing back, a shorter one is applied by the next load
    environment["POLYAI_RETENTION"] = f"{_days_since(company) + 1}d"
    loaded = run("load", "--json", **environment)
    assert loaded.returncode == 0, loaded.stderr
    shown = json.loads(loaded.stdout)["retention"]["agents"][0]
    assert shown["conversations"] > 0
    assert (
        len(row_counts()["conversations"]) == len(after["conversations"]) - shown["conversations"]
    )


def _days_since(company: Company) -> int:
    return (datetime.now(UTC) - company.sandbox.now).days


@pytest.mark.unit
class TestAges:
    """Ages are validated, and the shorter one wins."""

    def test_limits_are_whole_days(self) -> None:
        now = datetime(2026, 11, 30, 21, 5, tzinfo=UTC)
        assert limit(timedelta(days=2), now) == datetime(2026, 11, 28, tzinfo=UTC)

    def test_what_is_shorter_wins(self) -> None:
        days = timedelta(days=30)
        ages = Ages.of(
            {"retention": days, "retention_recordings": 2 * days, "retention_transcripts": None}
        )
        assert ages == Ages(days, days, days)

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            ({"retention": "12h"}, "shorter than a day"),
            ({"retention_transcripts": "6d", "lookback": "7d"}, "lookback"),
            ({"retention_recordings": "forever"}, "duration"),
        ],
    )
    def test_mistakes_are_named(self, options: dict[str, str], problem: str) -> None:
        with pytest.raises(ConfigurationError, match=problem):
            resolve(agent_id=AGENT, api_key=KEY, **options)
