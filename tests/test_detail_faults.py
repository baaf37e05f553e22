"""Faults of single conversations: each is recorded for its conversation, and all others are loaded.

A run of failures is told from an outage, and a refused conversation from a refused key, by asking
for another conversation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import duckdb
import pytest

from command import AGENT, KEY
from polyai import open_pipeline, resolve
from polyai.api.outage import OUTAGE_AFTER
from polyai.load.report import RunReport
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.load

DETAIL = r"/conversations/[^/?]+$"
LIST_PAGE = r"/conversations\?"


class Site:
    """Served sandbox whose calls have all ended, and loads from it at the time of its clock."""

    def __init__(self, sandbox: Sandbox, base_url: str) -> None:
        self.sandbox = sandbox
        self.base_url = base_url

    @property
    def oldest_first(self) -> list[str]:
        """Ids of all conversations."""
        return list(self.sandbox.conversation_ids(AGENT))[::-1]

    def break_details(self, conversation_ids: Iterable[str], status: int) -> None:
        """Adds a permanent fault of these conversations."""
        for conversation_id in conversation_ids:
            path = re.escape(quote(conversation_id, safe="")) + "$"
            self.sandbox.faults.add("status", path=path, status=status, error_code="BROKEN")

    def load(self, *, full: bool = False, **options: object) -> RunReport:
        """Runs a load, after clearing the recorded requests of earlier ones."""
        self.sandbox.requests.clear()
        settings = resolve(
            agent_id=AGENT,
            api_key=KEY,
            base_url=self.base_url,
            **({"max_attempts": 1} | options),
        )
        (report,) = load(settings, open_pipeline(), full=full, clock=lambda: self.sandbox.now)
        return report


@pytest.fixture
def site() -> Iterator[Site]:
    sandbox = Sandbox(SandboxConfig(conversations=100, seed=5))
    sandbox.advance(timedelta(days=60))
    with serve(sandbox) as base_url:
        yield Site(sandbox, base_url)


def query(sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql, parameters).fetchall()


def loaded() -> set[str]:
    return {row[0] for row in query("SELECT conversation_id FROM polyai.conversations")}


def open_failures() -> set[str]:
    return {
        row[0]
        for row in query(
            "SELECT conversation_id FROM polyai.fetch_failures WHERE resolved_at IS NULL"
        )
    }


def position(ids: Sequence[str], wanted: str) -> int:
    return next(place for place, path in enumerate(ids) if path.endswith(quote(wanted, safe="")))


class TestRunsOfFailures:
    @pytest.mark.parametrize(
        ("first", "bad"), [(0, 50), pytest.param(30, 25, marks=pytest.mark.slow)]
    )
    def test_failed_conversations_in_a_row_are_recorded_and_the_others_loaded(
        self, site: Site, first: int, bad: int
    ) -> None:
        ids = site.oldest_first
        broken = ids[first : first + bad]
        site.break_details(broken, 500)
        report = site.load()
        assert (report.status, report.failed, report.new) == ("partial", bad, 100 - bad)
        assert loaded() == set(ids) - set(broken)
        assert open_failures() == set(broken)
        # a probe after every OUTAGE_AFTER failures, and nothing more
        probes = site.sandbox.requests.count() - 100 - 2
        assert probes <= 2 * (bad // OUTAGE_AFTER)

    def test_known_failures_are_asked_last_and_keep_nothing_new_from_being_loaded(
        self, site: Site
    ) -> None:
        broken = site.oldest_first[-30:]
        site.break_details(broken, 500)
        site.load()
        site.sandbox.advance(arrivals=5)
        report = site.load(lookback="90d")
        assert (report.status, report.failed, report.new) == ("partial", 30, 5)
        asked = site.sandbox.requests.paths(DETAIL)
        new = set(site.oldest_first[-5:])
        assert max(position(asked, name) for name in new) < len(asked) - 30
        assert loaded() == set(site.oldest_first) - set(broken)
        assert query("SELECT DISTINCT attempts FROM polyai.fetch_failures") == [(2,)]
        site.sandbox.faults.clear()
        assert site.load().status == "complete"
        assert loaded() == set(site.oldest_first)

    def test_an_outage_stops_the_run_and_the_next_one_is_complete(self, site: Site) -> None:
        site.sandbox.faults.add("status", path=DETAIL, status=503)
        report = site.load()
        assert (report.status, report.failed) == ("failed", OUTAGE_AFTER)
        site.sandbox.faults.clear()
        assert site.load().status == "complete"
        assert loaded() == set(site.oldest_first)


class TestRefusals:
    def test_a_refused_conversation_is_recorded_and_the_others_loaded(self, site: Site) -> None:
        refused = site.oldest_first[:1] + site.oldest_first[40:65]
        site.break_details(refused, 403)
        report = site.load()
        assert (report.status, report.failed, report.new) == ("partial", 26, 74)
        assert open_failures() == set(refused)
        assert query("SELECT DISTINCT http_status, error_code FROM polyai.fetch_failures") == [
            (403, "BROKEN")
        ]
        report = site.load()
        assert (report.status, report.failed) == ("partial", 26)

    def test_the_key_is_refused_if_every_conversation_is(self, site: Site) -> None:
        site.sandbox.faults.add("status", path=DETAIL, status=403)
        report = site.load(workers=2)
        assert report.status == "failed"
        assert "permission" in str(report.error)
        assert "403" in str(report.error)

    def test_a_key_that_expires_meanwhile_stops_the_run_at_once(self, site: Site) -> None:
        site.break_details(site.oldest_first[50:], 401)
        report = site.load()
        assert report.status == "failed"
        assert "401" in str(report.error)
        assert open_failures() == set()
        site.sandbox.faults.clear()
        assert site.load().status == "complete"
        assert loaded() == set(site.oldest_first)
