"""`polyai-warehouse status`: counts, output and exit codes, after whole loads over HTTP."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import psycopg2
import pytest

from command import KEY, error_of, query, run, run_in_terminal
from polyai import open_pipeline, resolve
from polyai.config.settings import Settings
from polyai.errors import BusyError, ConfigurationError, DestinationError
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.sandbox.texts import AGENT_NAMES as NAMES
from polyai.status.collect import collect_status
from polyai.status.report import AgentStatus, Status
from polyai.tables.declaration import Table
from polyai.tables.registry import conversation_tables, name_tables, reconciled_tables
from polyai.warehouse import counts, suspects
from polyai.warehouse.counts import TableCounts, TurnCounts, unequal_turns
from polyai.warehouse.queries import Warehouse
from polyai.warehouse.read_only import open_to_read
from postgres_server import binaries, postgres

pytestmark = pytest.mark.load

A, B = "PROJECT-A", "PROJECT-B"
EACH = 30
"""Conversations of each agent."""

FAILED = 2
"""Conversations of agent A that cannot be read."""

HELD = EACH - FAILED

TABLES = {table.name for table in reconciled_tables()}
CHILDREN = {table.name for table in conversation_tables()} - {"conversations"}


@dataclass(frozen=True)
class Loaded:
    """A sandbox, and the warehouse that it was loaded into."""

    sandbox: Sandbox
    database: Path


def settings_for(base_url: str, *agents: str) -> Settings:
    return resolve(agent_id=",".join(agents), api_key=KEY, base_url=base_url, max_attempts=1)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Agent A with two conversations that could not be read, agent B with all of them."""
    folder = tmp_path_factory.mktemp("status")
    sandbox = Sandbox(SandboxConfig(conversations=EACH, agents=(A, B)))
    for conversation_id in sorted(sandbox.conversation_ids(A))[:FAILED]:
        path = re.escape(quote(conversation_id, safe="")) + "$"
        sandbox.faults.add("status", path=f"{A}.*{path}", status=500, error_code="BROKEN")
    with pytest.MonkeyPatch.context() as patch, serve(sandbox) as base_url:
        patch.chdir(folder)
        patch.setenv("DLT_DATA_DIR", str(folder / "dlt"))
        reports = load(settings_for(base_url, A, B), open_pipeline())
    assert [report.status for report in reports] == ["partial", "complete"]
    sandbox.faults.clear()
    return Loaded(sandbox, folder / "polyai.duckdb")


@pytest.fixture
def warehouse(loaded: Loaded, own_folder: Path) -> Path:
    """A copy that a test may damage, alone in the working directory."""
    return Path(shutil.copy(loaded.database, own_folder))


def change(*statements: str) -> None:
    with duckdb.connect("polyai.duckdb") as connection:
        for statement in statements:
            connection.execute(statement)


def number(sql: str) -> int:
    ((found,),) = query(sql)
    assert isinstance(found, int)
    return found


def look(**options: Any) -> Status:
    with open_to_read() as reader:
        return collect_status(reader, **options)


def agent(agent_id: str, **options: Any) -> AgentStatus:
    (found,) = look(agent_ids=[agent_id], **options).agents
    return found


def a_conversation(agent_id: str = A) -> str:
    """Returns a conversation with turns and metrics, always the same one."""
    ((found,),) = query(
        "SELECT min(conversation_id) FROM polyai.metrics JOIN polyai.conversations "
        f"USING (agent_id, conversation_id) WHERE agent_id = '{agent_id}' AND num_turns > 2"
    )
    assert found
    return str(found)


def problems_of(found: AgentStatus) -> dict[str, tuple[int, int]]:
    """Returns orphans and duplicate keys of the tables that have any."""
    return {
        name: (of_table.orphans, of_table.doubled)
        for name, of_table in found.tables.items()
        if of_table.orphans or of_table.doubled
    }


class TestHealthy:
    def test_every_number_of_two_agents(self, warehouse: Path) -> None:
        found = look()
        first, second = found.agents
        assert found.is_healthy
        assert (first.agent_id, second.agent_id) == (A, B)
        assert (first.agent_name, second.agent_name) == NAMES[:2]
        assert (first.api_count, first.conversations.held, first.missing) == (EACH, HELD, 0)
        assert (second.api_count, second.conversations.held, second.missing) == (EACH, EACH, 0)
        assert (first.absent, second.absent) == (0, 0)
        assert (first.failures.open, second.failures.open) == (FAILED, 0)
        for each in (first, second):
            of_agent = f"FROM polyai.conversations WHERE agent_id = '{each.agent_id}'"
            assert each.conversations.incomplete == 0
            assert each.conversations.in_progress == number(
                f"SELECT count(*) {of_agent} AND in_progress"
            )
            assert each.conversations.withheld == number(
                f"SELECT count(*) {of_agent} AND is_transcript_withheld"
            )
            assert query(f"SELECT max(created_at) {of_agent}") == [
                (each.conversations.newest_created_at,)
            ]
            turns = number(f"SELECT sum(num_turns)::int {of_agent} AND NOT is_transcript_withheld")
            assert turns > EACH
            assert each.turns == TurnCounts(expected=turns, rows=turns)
            assert each.tables.keys() <= TABLES
            assert each.tables.keys() >= {"conversations", "turns", "metrics", "sync_runs"}
            for name, of_table in each.tables.items():
                rows = number(
                    f"SELECT count(*) FROM polyai.{name} WHERE agent_id = '{each.agent_id}'"
                )
                assert of_table == TableCounts(rows=rows)

    def test_five_runs_newest_first(self, warehouse: Path) -> None:
        ((newest,),) = query(f"SELECT run_id FROM polyai.sync_runs WHERE agent_id = '{A}'")
        change(
            "INSERT INTO polyai.sync_runs SELECT * EXCLUDE (n) REPLACE (run_id || n AS run_id, "
            "started_at - to_days(n::int) AS started_at, 'failed' AS status) "
            f"FROM polyai.sync_runs CROSS JOIN range(1, 8) days(n) WHERE agent_id = '{A}'"
        )
        found = agent(A, quick=True)
        assert [run.run_id for run in found.runs] == [
            newest,
            *(f"{newest}{n}" for n in range(1, 5)),
        ]
        assert [run.status for run in found.runs] == ["partial", *["failed"] * 4]
        assert found.last_success == found.runs[0]

    def test_a_success_before_many_failures_is_found(self, warehouse: Path) -> None:
        change(
            "INSERT INTO polyai.sync_runs SELECT * EXCLUDE (n) REPLACE (run_id || n AS run_id, "
            "started_at + to_days(n::int) AS started_at, 'failed' AS status, "
            "NULL AS api_count, NULL AS absent) "
            f"FROM polyai.sync_runs CROSS JOIN range(1, 8) days(n) WHERE agent_id = '{A}'"
        )
        found = agent(A, quick=True)
        assert {run.status for run in found.runs} == {"failed"}
        assert found.last_success
        assert found.last_success.status == "partial"
        assert (found.api_count, found.absent) == (EACH, 0)

    def test_quick_compares_no_rows(self, warehouse: Path) -> None:
        found = agent(A, quick=True)
        assert (found.conversations.held, found.failures.open) == (HELD, FAILED)
        assert found.turns is None
        assert found.tables == {}
        assert found.is_consistent

    @pytest.mark.slow
    def test_tables_that_were_not_selected_are_not_compared(self, own_folder: Path) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=12, agents=(A,)))
        with serve(sandbox) as base_url:
            load(settings_for(base_url, A), open_pipeline(), select=["metrics"])
        found = agent(A)
        assert found.turns is None
        names = {table.name for table in name_tables()}
        assert found.tables.keys() - names <= {"conversations", "metrics", "sync_runs"}
        assert found.is_consistent

    def test_a_warehouse_of_an_earlier_version(self, warehouse: Path) -> None:
        change(
            "ALTER TABLE polyai.sync_runs DROP COLUMN absent",
            "ALTER TABLE polyai.sync_runs DROP COLUMN given_up",
        )
        found = agent(A, quick=True)
        assert (found.api_count, found.absent, found.missing) == (EACH, None, 0)
        assert found.runs[0].given_up is None

    def test_no_files_remain(self, warehouse: Path) -> None:
        before = warehouse.read_bytes()
        look()
        assert [path.name for path in Path().iterdir() if path.name != "dlt"] == ["polyai.duckdb"]
        assert warehouse.read_bytes() == before


class TestFreshness:
    def finished_at(self, agent_id: str) -> datetime:
        ((moment,),) = query(
            f"SELECT finished_at FROM polyai.sync_runs WHERE agent_id = '{agent_id}'"
        )
        assert isinstance(moment, datetime)
        return moment.astimezone(UTC)

    @pytest.mark.parametrize(
        ("age", "is_stale"),
        [
            pytest.param(timedelta(minutes=30), False, id="as old as allowed"),
            pytest.param(timedelta(minutes=30, seconds=1), True, id="older"),
        ],
    )
    def test_age_of_the_last_success(self, warehouse: Path, age: timedelta, is_stale: bool) -> None:
        now = self.finished_at(A) + age
        found = look(quick=True, agent_ids=[A], max_age=timedelta(minutes=30), clock=lambda: now)
        assert found.agents[0].age == age
        assert found.agents[0].is_stale is is_stale
        assert found.is_healthy is not is_stale

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "later",
        [
            pytest.param("'failed' AS status, 'no key' AS error", id="failed"),
            pytest.param("'interrupted' AS status", id="interrupted"),
            pytest.param("'backfill' AS command", id="not a load"),
            pytest.param("'running' AS status, NULL AS finished_at", id="running"),
        ],
    )
    def test_an_incomplete_run_does_not_make_an_agent_fresh(
        self, warehouse: Path, later: str
    ) -> None:
        before = agent(A, quick=True).last_success
        replaced = f"'later' AS run_id, started_at + INTERVAL 1 HOUR AS started_at, {later}"
        change(
            f"INSERT INTO polyai.sync_runs SELECT * REPLACE ({replaced}) FROM polyai.sync_runs "
            f"WHERE agent_id = '{A}'"
        )
        found = agent(A, quick=True)
        assert found.last_success == before
        assert found.runs[0].run_id == "later"
        assert [run.run_id for run in found.unfinished] == (["later"] if "running" in later else [])

    def test_age_is_never_negative(self, warehouse: Path) -> None:
        now = self.finished_at(A) - timedelta(hours=1)
        assert agent(A, clock=lambda: now, quick=True).age == timedelta(0)

    @pytest.mark.slow
    def test_an_agent_that_was_never_loaded_is_stale(
        self, warehouse: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("POLYAI_AGENT_ID", f"{B},PROJECT-NEW")
        assert [each.agent_id for each in look(quick=True).agents] == [A, B]
        # without a key the settings cannot be resolved
        monkeypatch.setenv("POLYAI_API_KEY", KEY)
        found = look(quick=True, max_age=timedelta(days=1))
        *_, new = found.agents
        assert [each.agent_id for each in found.agents] == [A, B, "PROJECT-NEW"]
        assert [each.is_stale for each in found.agents] == [False, False, True]
        assert (new.runs, new.age, new.missing, new.conversations.held) == ((), None, None, 0)
        assert not found.is_healthy
        assert look(quick=True, max_age=timedelta(days=1), agent_ids=[B]).is_healthy

    def test_an_unknown_agent_is_named(self, warehouse: Path) -> None:
        with pytest.raises(ConfigurationError, match=f"agent X is neither .*{A}, {B}"):
            look(quick=True, agent_ids=[A, "X"])


class TestFailures:
    @pytest.mark.slow
    def test_retried_and_given_up(self, warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = agent(A, quick=True).failures
        assert (found.open, found.retried, found.given_up, found.not_held) == (2, 2, 0, 2)
        first, second = found.named
        assert first.first_failed_at <= second.first_failed_at
        for failure in (first, second):
            assert (failure.stage, failure.attempts, failure.http_status) == ("detail", 1, 500)
            assert failure.error_code == "BROKEN"
            assert "the API has a problem" in (failure.message or "")

        change(
            "UPDATE polyai.fetch_failures SET first_failed_at = first_failed_at - INTERVAL 31 DAY "
            f"WHERE conversation_id = '{second.conversation_id}'"
        )
        found = agent(A, quick=True).failures
        assert (found.open, found.retried, found.given_up) == (2, 1, 1)
        # oldest first
        assert [failure.conversation_id for failure in found.named] == [
            second.conversation_id,
            first.conversation_id,
        ]
        monkeypatch.setenv("POLYAI_GIVE_UP_AFTER", "60d")
        assert agent(A, quick=True).failures.given_up == 0

        change("UPDATE polyai.fetch_failures SET resolved_at = now()")
        found = agent(A, quick=True).failures
        assert (found.open, found.named) == (0, ())
        # a resolved failure would be loaded
        assert agent(A, quick=True).missing == FAILED

    def test_a_loaded_conversation_that_failed_again_is_not_missing(self, warehouse: Path) -> None:
        change(
            f"UPDATE polyai.fetch_failures SET conversation_id = '{a_conversation()}' "
            "WHERE conversation_id = (SELECT min(conversation_id) FROM polyai.fetch_failures)"
        )
        found = agent(A, quick=True)
        assert (found.failures.open, found.failures.not_held) == (2, 1)
        assert found.missing == 1

    def test_ten_are_named(self, warehouse: Path) -> None:
        change(
            "INSERT INTO polyai.fetch_failures SELECT * EXCLUDE (n) REPLACE "
            "(conversation_id || n AS conversation_id) "
            "FROM polyai.fetch_failures CROSS JOIN range(10) copies(n)"
        )
        found = agent(A, quick=True).failures
        assert (found.open, len(found.named)) == (22, 10)


class TestReconciliation:
    def test_absent_conversations_do_not_hide_missing_ones(self, warehouse: Path) -> None:
        change(f"UPDATE polyai.sync_runs SET absent = 3 WHERE agent_id = '{A}'")
        found = agent(A, quick=True)
        assert (found.absent, found.missing) == (3, 3)

    @pytest.mark.slow
    def test_incomplete_package(self, warehouse: Path) -> None:
        ((load_id,),) = query(
            f"SELECT DISTINCT _dlt_load_id FROM polyai.conversations WHERE agent_id = '{B}'"
        )
        change(f"DELETE FROM polyai._dlt_loads WHERE load_id = '{load_id}'")
        found = agent(B)
        assert (found.conversations.held, found.conversations.incomplete) == (0, EACH)
        assert found.conversations.newest_created_at is None
        assert found.missing == 0
        assert found.is_consistent
        assert found.turns is None
        turns = number(f"SELECT count(*) FROM polyai.turns WHERE agent_id = '{B}'")
        assert found.tables["turns"] == TableCounts(rows=0, incomplete=turns)
        assert agent(A).conversations.held == HELD

    @pytest.mark.slow
    def test_turns_that_are_being_replaced_are_not_compared(self, warehouse: Path) -> None:
        # as during a load that merges one table after the other
        chosen = f"conversation_id = '{a_conversation()}'"
        turns = number(f"SELECT count(*) FROM polyai.turns WHERE {chosen}")
        before = agent(A).turns
        change(
            f"DELETE FROM polyai.turns WHERE {chosen} AND turn_index > 0",
            f"UPDATE polyai.turns SET _dlt_load_id = 'under way' WHERE {chosen}",
        )
        found = agent(A)
        assert found.is_consistent
        assert before
        assert found.turns == TurnCounts(expected=before.expected - turns, rows=before.rows - turns)
        assert found.tables["turns"].incomplete == 1

    def test_lost_turns(self, warehouse: Path) -> None:
        chosen = a_conversation()
        turns = number(f"SELECT count(*) FROM polyai.turns WHERE conversation_id = '{chosen}'")
        change(
            f"DELETE FROM polyai.turns WHERE conversation_id = '{chosen}' AND turn_index IN (0, 1)"
        )
        found = agent(A)
        assert not found.is_consistent
        assert found.turns
        assert found.turns.unequal == 1
        assert found.turns.expected == found.turns.rows + 2
        assert found.unequal_turns == {chosen: (turns, turns - 2)}
        assert problems_of(found) == {}
        assert agent(B).is_consistent

    def test_only_the_packages_of_a_run(self, warehouse: Path) -> None:
        chosen = a_conversation()
        turns = number(f"SELECT count(*) FROM polyai.turns WHERE conversation_id = '{chosen}'")
        change(f"DELETE FROM polyai.turns WHERE conversation_id = '{chosen}'")
        loads = {
            agent_id: str(load_id)
            for agent_id, load_id in query(
                "SELECT DISTINCT agent_id, _dlt_load_id FROM polyai.conversations"
            )
        }
        with open_to_read() as reader:
            assert unequal_turns(reader, A, [loads[A]]) == {chosen: (turns, 0)}
            assert unequal_turns(reader, A, [loads[B], "other"]) == {}
            assert unequal_turns(reader, B, [loads[A], loads[B]]) == {}
            assert unequal_turns(reader, A, []) == {}

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "held", [pytest.param(True, id="some are loaded"), pytest.param(False, id="none is loaded")]
    )
    def test_withheld_turns_are_consistent(self, warehouse: Path, held: bool) -> None:
        chosen = f"conversation_id = '{a_conversation()}'"
        turns = number(f"SELECT count(*) FROM polyai.turns WHERE {chosen}")
        before = agent(A)
        change(
            f"UPDATE polyai.conversations SET is_transcript_withheld = true WHERE {chosen}",
            f"DELETE FROM polyai.turns WHERE {chosen} AND NOT {held}",
        )
        found = agent(A)
        assert found.is_consistent
        assert found.conversations.withheld == before.conversations.withheld + 1
        assert before.turns
        assert found.turns == TurnCounts(
            expected=before.turns.expected - turns,
            rows=before.turns.rows - turns,
            withheld_rows=turns if held else 0,
        )

    @pytest.mark.slow
    def test_orphans(self, warehouse: Path) -> None:
        chosen = f"conversation_id = '{a_conversation()}'"
        rows = {
            name: number(f"SELECT count(*) FROM polyai.{name} WHERE {chosen}") for name in CHILDREN
        }
        change(f"DELETE FROM polyai.conversations WHERE {chosen}")
        found = agent(A)
        assert not found.is_consistent
        assert rows["turns"] > 2
        assert problems_of(found) == {name: (n, 0) for name, n in rows.items() if n}
        assert (found.conversations.held, found.missing) == (HELD - 1, 1)
        assert agent(B).is_consistent

    @pytest.mark.slow
    def test_duplicate_rows_of_every_table(self, warehouse: Path) -> None:
        of_agent = f"WHERE agent_id = '{A}'"
        keys = {name: number(f"SELECT count(*) FROM polyai.{name} {of_agent}") for name in TABLES}
        with_turns = number(
            f"SELECT count(*) FROM polyai.conversations {of_agent} AND num_turns > 0 "
            "AND NOT is_transcript_withheld"
        )
        change(
            *(
                f"INSERT INTO polyai.{name} SELECT * FROM polyai.{name} {of_agent}"
                for name in TABLES
            )
        )
        found = agent(A)
        assert not found.is_consistent
        assert min(keys.values()) > 0
        assert problems_of(found) == {name: (0, n) for name, n in keys.items()}
        # a duplicate conversation counts once
        assert (found.conversations.held, found.missing) == (HELD, 0)
        assert found.turns
        assert found.turns.unequal == with_turns
        assert agent(B).is_consistent

    @pytest.mark.parametrize(
        "keys_per_part",
        [
            400,
            pytest.param(40, marks=pytest.mark.slow),
            pytest.param(1_000_000, marks=pytest.mark.matrix),
        ],
    )
    def test_duplicates_of_large_tables(
        self, warehouse: Path, monkeypatch: pytest.MonkeyPatch, keys_per_part: int
    ) -> None:
        monkeypatch.setattr(counts, "_SMALL", 0)
        monkeypatch.setattr(suspects, "KEYS_PER_PART", keys_per_part)
        assert agent(A).is_consistent
        chosen = f"conversation_id = '{a_conversation()}'"
        rows = number(f"SELECT count(*) FROM polyai.metrics WHERE {chosen}")
        change(f"INSERT INTO polyai.metrics SELECT * FROM polyai.metrics WHERE {chosen}")
        assert problems_of(agent(A)) == {"metrics": (0, rows)}
        change(f"UPDATE polyai.metrics SET conversation_id = 'x' WHERE {chosen}")
        orphans, doubled = problems_of(agent(A))["metrics"]
        assert (orphans, doubled) == (2 * rows, rows)

    @pytest.mark.slow
    def test_large_tables_in_the_order_of_loading_are_compared_cheaply(
        self, warehouse: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(counts, "_SMALL", 0)
        monkeypatch.setattr(suspects, "ROWS_PER_QUERY", 500)
        grouped: list[str] = []
        checked = suspects.may_have_duplicates

        def noted(reader: Warehouse, table: Table, size: int) -> bool:
            grouped.append(table.name)
            return checked(reader, table, size)

        monkeypatch.setattr(suspects, "may_have_duplicates", noted)
        before = look()
        assert grouped == []
        # another order costs time and changes no number
        for name in ("turns", "metrics"):
            change(
                f"CREATE TABLE polyai.shuffled AS FROM polyai.{name} ORDER BY hash({name})",
                f"DELETE FROM polyai.{name}",
                f"INSERT INTO polyai.{name} SELECT * FROM polyai.shuffled",
                "DROP TABLE polyai.shuffled",
            )
        after = look()
        assert grouped == ["turns", "metrics"]
        assert [(each.tables, each.turns) for each in after.agents] == [
            (each.tables, each.turns) for each in before.agents
        ]

    @pytest.mark.matrix
    @pytest.mark.slow
    @pytest.mark.parametrize("is_apart", [pytest.param(False, marks=pytest.mark.matrix), True])
    def test_one_duplicate_row_of_a_large_table(
        self, warehouse: Path, monkeypatch: pytest.MonkeyPatch, is_apart: bool
    ) -> None:
        monkeypatch.setattr(counts, "_SMALL", 0)
        for name in sorted(CHILDREN):
            place = "rowid = 0" if is_apart else f"rowid = (SELECT max(rowid) FROM polyai.{name})"
            change(f"INSERT INTO polyai.{name} SELECT * FROM polyai.{name} WHERE {place}")
            found = [problems_of(each) for each in look().agents]
            assert [of for of in found if of] == [{name: (0, 1)}], name
            change(
                f"DELETE FROM polyai.{name} WHERE rowid = (SELECT max(rowid) FROM polyai.{name})"
            )

    def test_a_duplicate_turn_instead_of_a_lost_one(self, warehouse: Path) -> None:
        # the number of rows is right, only the keys differ
        chosen = f"conversation_id = '{a_conversation()}'"
        change(f"UPDATE polyai.turns SET turn_index = 0 WHERE {chosen} AND turn_index = 2")
        found = agent(A)
        assert found.turns
        assert found.turns.unequal == 0
        assert problems_of(found) == {"turns": (0, 1)}

    @pytest.mark.matrix
    def test_its_advice_repairs_the_warehouse(self, loaded: Loaded, warehouse: Path) -> None:
        chosen = f"conversation_id = '{a_conversation()}'"
        change(
            f"DELETE FROM polyai.turns WHERE {chosen} AND turn_index = 1",
            f"INSERT INTO polyai.metrics SELECT * FROM polyai.metrics WHERE {chosen}",
            f"UPDATE polyai.conversations SET summary_hash = NULL WHERE {chosen}",
        )
        assert not agent(A).is_consistent
        with serve(loaded.sandbox) as base_url:
            load(settings_for(base_url, A), open_pipeline(), full=True)
        found = agent(A)
        assert found.is_consistent
        assert (found.conversations.held, found.failures.open) == (EACH, 0)
        after, before = found.runs
        assert (after.new, before.new) == (FAILED, HELD)
        assert (after.status, before.status) == ("complete", "partial")
        assert found.last_success == after


class TestNoWarehouse:
    def test_no_file(self, own_folder: Path) -> None:
        with pytest.raises(DestinationError, match=r"no warehouse at .*polyai\.duckdb\. Load one"):
            look()
        assert not Path("polyai.duckdb").exists()

    def test_a_file_without_a_load(self, own_folder: Path) -> None:
        change("CREATE TABLE other AS SELECT 1 AS one")
        with pytest.raises(DestinationError, match="nothing has been loaded into duckdb /"):
            look()

    def test_another_file(self, own_folder: Path) -> None:
        Path("polyai.duckdb").write_text("no database\n" * 1000)
        with pytest.raises(DestinationError, match="not a valid DuckDB database file"):
            look()

    def test_another_dataset(self, warehouse: Path) -> None:
        with (
            open_to_read(dataset="calls") as reader,
            pytest.raises(DestinationError, match=r"nothing has been loaded into .* dataset calls"),
        ):
            collect_status(reader)


@pytest.fixture
def writer(warehouse: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the file open for writing until its input is closed."""
    hold = "import duckdb, sys; c = duckdb.connect('polyai.duckdb'); print(1, flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{hold}; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.communicate()


class TestLocked:
    def test_waiting_ends(
        self, writer: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("polyai.warehouse.duckdb_file.READERS_SECONDS", 0.1)
        with (
            open_to_read(wait=timedelta(seconds=0.5)) as reader,
            pytest.raises(BusyError, match=rf"process {writer.pid}\b.*--wait"),
        ):
            collect_status(reader)

    def test_waiting(self, writer: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("polyai.warehouse.duckdb_file.READERS_SECONDS", 0.1)
        paused = []

        def sleep(seconds: float) -> None:
            paused.append(seconds)
            if len(paused) == 3:
                writer.communicate()

        monkeypatch.setattr(time, "sleep", sleep)
        assert agent(A, quick=True).conversations.held == HELD
        assert len(paused) >= 3

    def test_readers_do_not_block_it(self, warehouse: Path) -> None:
        read = "import duckdb, sys; c = duckdb.connect('polyai.duckdb', read_only=True)"
        with subprocess.Popen(
            [sys.executable, "-c", f"{read}; print(1, flush=True); sys.stdin.read()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout
            process.stdout.readline()
            assert agent(A, quick=True).conversations.held == HELD
            process.communicate()


class TestCommand:
    def test_json_from_an_empty_folder(
        self, warehouse: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        result = run(
            "status",
            "--json",
            "--max-age",
            "30m",
            "--agent",
            A,
            DESTINATION__DUCKDB__CREDENTIALS=str(warehouse),
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        assert list(elsewhere.iterdir()) == []
        report = json.loads(result.stdout)
        (found,) = report.pop("agents")
        assert datetime.fromisoformat(report.pop("checked_at")).tzinfo
        assert report == {
            "exit_code": 0,
            "destination": "duckdb",
            "dataset": "main",
            "max_age_seconds": 1800,
        }
        assert found["agent_id"] == A
        assert (found["is_stale"], found["is_consistent"]) == (False, True)
        assert 0 < found["age_seconds"] < 1800
        assert found["runs"] == [found["last_run"]] == [found["last_success"]]
        assert found["last_run"]["status"] == "partial"
        assert found["running"] == []
        conversations = found["conversations"]
        assert {
            name: conversations[name]
            for name in ("listed", "held", "absent", "missing", "failed", "incomplete")
        } == {
            "listed": EACH,
            "held": HELD,
            "absent": 0,
            "missing": 0,
            "failed": FAILED,
            "incomplete": 0,
        }
        assert {"withheld", "in_progress", "newest_created_at"} <= conversations.keys()
        assert len(found["failures"]["named"]) == FAILED
        assert found["failures"]["named"][0]["error_code"] == "BROKEN"
        assert found["turns"]["expected"] == found["turns"]["rows"] > 0
        assert found["turns"]["unequal_conversations"] == []
        assert found["tables"]["turns"]["rows"] == found["turns"]["rows"]

    def test_names_are_unknown_without_their_table(self, warehouse: Path) -> None:
        change("DROP TABLE polyai.agents")
        assert [each.agent_name for each in look(quick=True).agents] == [None, None]

    def test_output_in_a_log(self, warehouse: Path) -> None:
        change(f"UPDATE polyai.sync_runs SET status = 'running' WHERE agent_id = '{B}'")
        result = run("status")
        assert result.returncode == 0
        assert result.stderr == ""
        assert "\x1b" not in result.stdout
        first, second, place = result.stdout.split("\n\n")
        assert re.match(
            rf"{A} \({NAMES[0]}\): loaded \d+ (s|min) ago\n"
            rf"  listed by the API +{EACH} *\n"
            rf"  loaded +{HELD} +.*\d+ days.*\n"
            rf"  missing +0 *\n"
            rf"  failed +{FAILED} +2 retried .*, 0 given up *\n"
            rf"  transcript withheld +\d+ *\n"
            rf"  in progress +\d+ *\n"
            rf"  turns +\d+ +.*\n"
            rf"  rows in total +[\d,]+ +no duplicates, no orphans *\n"
            rf"  run \(UTC\) +status +took +listed +new +changed +failed\n"
            rf"  \d{{4}}-\d\d-\d\d \d\d:\d\d load +partial +\d+ s +{EACH} +{HELD} +0 +{FAILED}\n"
            rf"(  failed \S+: 1 attempt since .*, the API has a problem.*HTTP 500.*\n?){{2}}$",
            first,
        ), first
        assert second.startswith(f"{B} ({NAMES[1]}): never loaded\n  running since 2026-")
        assert re.fullmatch(r"warehouse: duckdb /.*polyai\.duckdb, dataset polyai\n", place)

    @pytest.mark.slow
    def test_problems_are_red_on_a_terminal(
        self, warehouse: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen = f"conversation_id = '{a_conversation()}'"
        change(
            "UPDATE polyai.sync_runs SET finished_at = finished_at - INTERVAL 3 HOUR",
            f"DELETE FROM polyai.turns WHERE {chosen} AND turn_index = 1",
            f"DELETE FROM polyai.conversations WHERE agent_id = '{B}'",
            f"INSERT INTO polyai.metrics SELECT * FROM polyai.metrics WHERE {chosen}",
        )
        monkeypatch.setattr("command._ESCAPE", re.compile("(?!)"))
        code, shown = run_in_terminal(80, "status", "--max-age", "1h")
        assert code == 1
        stale = "\x1b[31mstale\x1b[0m, loaded 3 h ago (--max-age 60 min)"
        assert f"{A}\x1b[0m ({NAMES[0]}): {stale}" in shown
        plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
        *lines, place = plain.splitlines()
        assert [line for line in lines if len(line) > 80] == []
        assert place.startswith("warehouse: duckdb /")
        assert "inconsistent" in plain
        assert re.search(r"\n  turns +[\d,]+ +.*\b1 conversation\b", plain)
        assert re.search(r"\n  metrics +\d+ +duplicate keys", plain)
        assert re.search(r"\n  turns +\d+ +orphans", plain)
        assert "set its summary_hash to NULL" in plain

    @pytest.mark.matrix
    def test_locked(self, writer: subprocess.Popen[str]) -> None:
        result = run("status", "--wait", "0s")
        assert result.returncode == 75
        assert str(writer.pid) in error_of(result)

    def test_no_file(self, own_folder: Path) -> None:
        result = run("status", "--json")
        assert result.returncode == 1
        assert result.stdout == ""
        assert "polyai-warehouse load" in error_of(result)

    def test_invalid_duration(self) -> None:
        result = run("status", "--max-age", "soon")
        assert result.returncode == 2
        assert "'soon' is not a duration" in " ".join(result.stderr.split())


@pytest.mark.slow
@pytest.mark.skipif(binaries() is None, reason="needs a PostgreSQL server: install postgresql")
def test_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    with postgres() as url:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)

        def look_at(**options: Any) -> AgentStatus:
            with open_to_read("postgres") as reader:
                (found,) = collect_status(reader, **options).agents
            return found

        with pytest.raises(DestinationError, match="nothing has been loaded into postgres polyai"):
            look_at()
        sandbox = Sandbox(SandboxConfig(conversations=EACH, agents=(A,)))
        chosen = next(iter(sandbox.conversation_ids(A)))
        sandbox.faults.add("status", path=re.escape(quote(chosen, safe="")) + "$", status=500)
        with serve(sandbox) as base_url:
            load(settings_for(base_url, A), open_pipeline("postgres"))
        found = look_at(max_age=timedelta(minutes=30))
        assert found.is_consistent
        assert not found.is_stale
        assert (found.api_count, found.conversations.held, found.missing) == (EACH, EACH - 1, 0)
        assert (found.failures.open, found.failures.retried) == (1, 1)
        assert found.turns
        assert found.turns.expected == found.turns.rows > EACH

        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT conversation_id, num_turns FROM polyai.conversations "
                "WHERE num_turns > 2 AND NOT is_transcript_withheld ORDER BY 1 LIMIT 2"
            )
            (lost, turns), (orphaned, orphans) = cursor.fetchall()
            cursor.execute(
                "DELETE FROM polyai.turns WHERE conversation_id = %s AND turn_index = 1", [lost]
            )
            cursor.execute(
                "INSERT INTO polyai.turns SELECT * FROM polyai.turns "
                "WHERE conversation_id = %s AND turn_index = 0",
                [lost],
            )
            cursor.execute(
                "DELETE FROM polyai.turns WHERE conversation_id = %s AND turn_index = 2", [lost]
            )
            cursor.execute(
                "DELETE FROM polyai.conversations WHERE conversation_id = %s", [orphaned]
            )
        found = look_at()
        assert found.unequal_turns == {lost: (turns, turns - 1)}
        assert found.tables["turns"].doubled == 1
        assert found.tables["turns"].orphans == orphans
        assert found.missing == 1
        with open_to_read("postgres") as reader:
            packages = [row[0] for row in reader.rows("SELECT load_id FROM {_dlt_loads}")]
            assert unequal_turns(reader, A, packages) == {lost: (turns, turns - 1)}
