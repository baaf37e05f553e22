"""Whole loads over lists that are out of order, list ids twice, or count wrong.

Nothing that is listed is lost while the run reports that it is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest

from command import AGENT, access, run, start, wait_until
from polyai import open_pipeline, resolve
from polyai.console.exit_codes import ExitCode, reports_exit_code
from polyai.load.backfill import backfill
from polyai.load.refetch import Span
from polyai.load.report import RunReport
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.warehouse.target import Target

pytestmark = pytest.mark.load

LIST_PAGE = rf"/v1/agents/{AGENT}/conversations\?"
DETAIL = rf"/v1/agents/{AGENT}/conversations/[^?/]+$"


def query(sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        return connection.execute(sql).fetchall()


@dataclass
class Site:
    """A served sandbox, loaded at the time of its clock."""

    sandbox: Sandbox
    base_url: str

    def load(self, *, full: bool = False, **options: Any) -> RunReport:
        """Runs a load; the log of requests then has only those of it."""
        self.sandbox.requests.clear()
        key = {"agent_id": AGENT, "api_key": "sandbox-key", "base_url": self.base_url}
        settings = resolve(**key, **options)
        (report,) = load(settings, open_pipeline(), full=full, clock=lambda: self.sandbox.now)
        return report

    @property
    def pages(self) -> int:
        """List requests of the last run."""
        return self.sandbox.requests.count(LIST_PAGE)

    @property
    def details(self) -> int:
        """Detail requests of the last run."""
        return self.sandbox.requests.count(DETAIL)

    def lost(self) -> set[str]:
        """Listed conversations that are not loaded."""
        loaded = {row[0] for row in query("SELECT conversation_id FROM polyai.conversations")}
        return set(self.sandbox.conversation_ids(AGENT)) - loaded


@contextmanager
def site(conversations: int, **options: Any) -> Iterator[Site]:
    config = SandboxConfig(
        conversations=conversations,
        detail="small",
        oddities=False,
        **{"span": timedelta(minutes=conversations), **options},
    )
    sandbox = Sandbox(config)
    with serve(sandbox) as base_url:
        yield Site(sandbox, base_url)


def runs() -> list[tuple[Any, ...]]:
    return query(
        "SELECT status, listed, api_count, count_excess, unaccounted, walks, absent "
        "FROM polyai.sync_runs ORDER BY started_at, finished_at"
    )


@pytest.mark.matrix
def test_times_up_to_half_an_hour_out_of_order() -> None:
    with site(450, disorder_seconds=1800) as listing:
        report = listing.load()
        assert (report.status, report.new, listing.lost()) == ("complete", 450, set())
        listing.sandbox.advance(timedelta(hours=2))
        listing.load()
        report = listing.load(full=True)
        assert (report.status, report.missing, report.absent) == ("complete", 0, 0)
        assert listing.details == 0


@pytest.mark.slow
def test_a_date_of_2030_in_the_middle_of_the_list() -> None:
    with site(300, absurd_created_at=datetime(2030, 1, 1, tzinfo=UTC)) as listing:
        report = listing.load()
        assert (report.status, report.new, listing.lost()) == ("complete", 300, set())


@pytest.mark.matrix
def test_a_date_of_2056_does_not_hide_what_arrives_later() -> None:
    with site(100, absurd_created_at=datetime(2056, 1, 1, tzinfo=UTC)) as listing:
        listing.load()
        listing.sandbox.advance(timedelta(hours=5), arrivals=300)
        report = listing.load()
        assert (report.status, report.new, listing.lost()) == ("complete", 300, set())
        # the look-back window alone, without a walk over the whole list
        assert report.walks == 0


@pytest.mark.slow
def test_ties_in_another_order_in_each_answer() -> None:
    with site(300, ties=40) as listing:
        report = listing.load()
        assert (report.status, report.new, listing.lost()) == ("complete", 300, set())
        assert report.count_excess == 0


@pytest.mark.slow
def test_an_id_that_is_listed_twice_is_reported_and_is_no_failure() -> None:
    with site(300, listed_twice=1) as listing:
        report = listing.load()
        assert (report.status, report.new, listing.lost()) == ("complete", 300, set())
        assert (report.api_count, report.count_excess, report.missing) == (301, 1, 0)
        first = listing.pages
        # known by now: the next load does not look for it again
        report = listing.load()
        assert (report.status, report.unaccounted, report.walks) == ("complete", 0, 0)
        assert listing.pages < first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "excess"),
    [
        pytest.param({"max_count": 160}, -100, id="capped"),
        pytest.param({"count_error": -70}, -70, id="too low", marks=pytest.mark.matrix),
        pytest.param({"count_error": 70}, 70, id="too high", marks=pytest.mark.matrix),
    ],
)
def test_a_wrong_count(options: dict[str, Any], excess: int) -> None:
    with site(260, **options) as listing:
        report = listing.load()
        assert (report.status, report.new, listing.lost()) == ("complete", 260, set())
        assert (report.count_excess, report.missing) == (excess, 0)
        listing.sandbox.advance(timedelta(hours=1), arrivals=20)
        report = listing.load()
        assert (report.status, report.new, listing.lost()) == ("complete", 20, set())
        assert report.walks == 0


@pytest.mark.slow
def test_rows_without_an_id_are_recorded_and_resolved() -> None:
    with site(120, rows_without_id=2) as listing:
        report = listing.load()
        assert (report.status, report.new, report.failed) == ("partial", 118, 2)
        assert len(listing.lost()) == 2
        found = query(
            "SELECT conversation_id, stage, message, resolved_at FROM polyai.fetch_failures"
        )
        assert {(stage, resolved_at) for _, stage, _, resolved_at in found} == {("listing", None)}
        assert all("offset" in message and "createdAt" in message for *_, message, _ in found)
        assert {name for name, *_ in found} == report.failures.keys()
        # the same rows have the same keys
        assert listing.load(full=True).failures.keys() == report.failures.keys()
        assert query("SELECT max(attempts) FROM polyai.fetch_failures") == [(2,)]
    with site(120) as listing:
        report = listing.load(full=True)
        assert (report.status, report.new, listing.lost()) == ("complete", 2, set())
        assert query("SELECT count(*) FROM polyai.fetch_failures WHERE resolved_at IS NULL") == [
            (0,)
        ]


@pytest.mark.slow
def test_what_is_missing_behind_the_look_back_is_found_in_the_same_run() -> None:
    with site(300, span=timedelta(days=30)) as listing:
        listing.load()
        listing.sandbox.advance(timedelta(hours=2))
        listing.load()
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute(
                "DELETE FROM polyai.conversations WHERE conversation_id IN (SELECT conversation_id "
                "FROM polyai.conversations ORDER BY created_at LIMIT 7)"
            )
        report = listing.load()
        assert (report.status, report.new, report.walks) == ("complete", 7, 1)
        assert (report.missing, listing.lost(), listing.details) == (0, set(), 7)
        # two pages of the look-back window; then those of the whole list, and two for its end
        assert listing.pages <= 9


@pytest.mark.slow
def test_a_count_that_was_wrong_is_corrected_by_one_walk() -> None:
    with site(150, span=timedelta(days=30)) as listing:
        listing.load()
        listing.sandbox.advance(timedelta(hours=1))
        with duckdb.connect("polyai.duckdb") as connection:
            # a walk that no list agrees with
            connection.execute("UPDATE polyai.sync_runs SET count_excess = -5")
        first = listing.load()
        # the walk shows that nothing is missing
        assert (first.status, first.walks, first.count_excess) == ("complete", 1, 0)
        listing.sandbox.advance(timedelta(hours=1))
        assert listing.load().walks == 0


@pytest.mark.matrix
def test_a_backfill_reads_around_its_range_in_a_list_out_of_order() -> None:
    with site(600, disorder_seconds=1800) as listing:
        end = listing.sandbox.now
        settings = resolve(agent_id=AGENT, api_key="sandbox-key", base_url=listing.base_url)
        reports = backfill(
            settings,
            Target(),
            Span(end - timedelta(hours=8), end - timedelta(hours=2)),
            slice_length=timedelta(hours=2),
            workers=1,
        )
        assert {report.status for report in reports} == {"complete"}
        expected = {
            row["conversation_id"]
            for rows in listing.sandbox.truth(AGENT)
            for row in rows["conversations"]
            if end - timedelta(hours=8) <= row["created_at"] < end - timedelta(hours=2)
        }
        assert {row[0] for row in query("SELECT conversation_id FROM polyai.conversations")} == (
            expected
        )


@pytest.mark.matrix
def test_a_list_without_any_order_is_not_proven() -> None:
    with site(400, ties=400, span=timedelta(days=10)) as listing:
        # small pages: with large ones, nearly every row is in one of the answers
        report = listing.load(page_size=20)
        assert (report.status, report.is_proven, report.walks) == ("partial", False, 4)
        assert (report.absent, report.count_excess) == (None, None)
        assert reports_exit_code([report]) == ExitCode.SOME_FAILED
        lost = len(listing.lost())
        assert (report.missing, report.unaccounted) == (lost, lost)
        assert runs() == [("partial", report.listed, 400, None, lost, 4, None)]
        # searched once a day; what is missing is reported in each run
        listing.sandbox.advance(timedelta(hours=1))
        later = listing.load()
        assert (later.status, later.walks) == (("partial", 0) if lost else ("complete", 0))
        listing.sandbox.advance(timedelta(days=1))
        assert bool(listing.load().walks) == bool(lost)


@pytest.mark.matrix
@pytest.mark.process
def test_a_first_load_that_is_killed_goes_on_where_times_are_out_of_order() -> None:
    options = {"disorder_seconds": 3 * 86_400.0, "delay_seconds": 0.05}
    with site(600, span=timedelta(days=20), **options) as listing:
        environment = access(listing.base_url)
        environment |= {"POLYAI_CHUNK_SIZE": "100", "POLYAI_WORKERS": "4"}
        process = start("load", **environment)
        wait_until(lambda: listing.details > 500)
        process.kill()
        process.communicate()
        loaded = query("SELECT count(*) FROM polyai.conversations")[0][0]
        assert 0 < loaded < 600
        listing.sandbox.requests.clear()
        assert run("load", **environment).returncode == 0
        assert listing.lost() == set()
        # what is loaded and unchanged is not read again, except what was in progress
        assert listing.details <= 600 - loaded + 20
        assert runs()[-1][0] == "complete"
