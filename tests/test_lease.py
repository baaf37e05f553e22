"""Leases on agents: one owner at a time, regardless of machines, clocks and races."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import cached_property
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dlt
import psycopg2
import pytest
from dlt.destinations.sql_client import SqlClientBase
from dlt.destinations.sql_jobs import SqlMergeFollowupJob
from dlt.pipeline.exceptions import PipelineStepFailed

from mariadb_server import mariadb, needs_mariadb
from optional import needs_sqlalchemy
from polyai.errors import DestinationError, LeaseLostError
from polyai.locking import lease_table
from polyai.locking.lease_table import sql_for
from polyai.locking.leases import Leases
from polyai.warehouse.capabilities import support_of
from postgres_server import needs_postgres, postgres

pytestmark = pytest.mark.server


AGENT = "PROJECT-BOOKINGS"

LONG = timedelta(minutes=5)

SHORT = timedelta(seconds=1)

FREE_ROW = (
    "INSERT INTO {}.load_leases VALUES (%s, '', '', '', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
)

_datasets = (f"polyai_{number}" for number in count())


class Warehouse:
    """One dataset, accessed by several machines.

    Args:
        destination: `postgres` or `duckdb`.
        credentials: The destination's.
        folder: Parent of the machines' working directories.
    """

    def __init__(self, destination: str, credentials: str, folder: Path) -> None:
        self.dataset = next(_datasets)
        self._destination = destination
        self._credentials = credentials
        self._folder = folder

    def pipeline(self, machine: str) -> dlt.Pipeline:
        make = getattr(dlt.destinations, self._destination)
        layout = f"%s_staging_{machine}"
        made = dlt.pipeline(
            "polyai",
            pipelines_dir=str(self._folder / machine),
            destination=make(self._credentials, staging_dataset_name_layout=layout),
            dataset_name=self.dataset,
        )
        if self._destination == "sqlalchemy":
            from polyai.warehouse.sqlalchemy_destination import in_packages

            config: Any = made.destination_client().config
            made.destination = in_packages(made.destination, config)
        return made

    def machine(self, name: str, term: timedelta = LONG) -> Leases:
        return Leases(self.pipeline(name), name, self.staging(name), term=term)

    def staging(self, machine: str) -> str:
        return f"{self.dataset}_staging_{machine}"

    @cached_property
    def _observer(self) -> SqlClientBase[Any]:
        return self.pipeline("observer").sql_client()

    def sql(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        with self._observer as client:
            rows = client.execute_sql(statement.format(self.dataset), *parameters)
            return [tuple(row) for row in rows or ()]

    def owners(self) -> dict[str, str]:
        return dict(self.sql("SELECT agent_id, owner FROM {}.load_leases"))

    def expire(self) -> None:
        earlier = {
            "sqlalchemy": "'2026-01-01 00:00:00.000000'",
        }.get(self._destination, "CURRENT_TIMESTAMP - INTERVAL '1 second'")
        self.sql(f"UPDATE {{}}.load_leases SET expires_at = {earlier}")

    def has_schema(self, name: str) -> bool:
        found = self.sql("SELECT 1 FROM information_schema.schemata WHERE schema_name = %s", name)
        return bool(found)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
def on_postgres(server: str, tmp_path: Path) -> Warehouse:
    return Warehouse("postgres", server, tmp_path)


@pytest.fixture(scope="module")
def mariadb_url() -> Iterator[str]:
    with mariadb() as url:
        yield url


@pytest.fixture(
    params=[
        "duckdb",
        pytest.param("postgres", marks=needs_postgres),
        pytest.param("mariadb", marks=[needs_sqlalchemy, needs_mariadb]),
        pytest.param("sqlite", marks=needs_sqlalchemy),
    ]
)
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    if request.param == "mariadb":
        return Warehouse("sqlalchemy", request.getfixturevalue("mariadb_url"), tmp_path)
    if request.param == "sqlite":
        return Warehouse("sqlalchemy", f"sqlite:///{tmp_path / 'warehouse.db'}", tmp_path)
    if request.param == "postgres":
        return cast("Warehouse", request.getfixturevalue("on_postgres"))
    return Warehouse("duckdb", str(tmp_path / "warehouse.duckdb"), tmp_path)


@pytest.fixture(params=["duckdb", pytest.param("postgres", marks=needs_postgres)])
def staged(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    """A dataset into which runs merge through staging datasets, or could."""
    if request.param == "postgres":
        return cast("Warehouse", request.getfixturevalue("on_postgres"))
    return Warehouse("duckdb", str(tmp_path / "warehouse.duckdb"), tmp_path)


def eventually(condition: Callable[[], bool], seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not (is_met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return is_met


def test_a_free_lease_is_acquired_and_a_held_one_is_not(warehouse: Warehouse) -> None:
    one, other = warehouse.machine("one"), warehouse.machine("other")

    assert one.acquire(["b", "a"]) == {}
    held = other.acquire(["a", "b", "c"])

    assert {agent_id: holder.owner for agent_id, holder in held.items()} == {"a": "one", "b": "one"}
    assert held["a"].expires_at - held["a"].acquired_at == LONG
    assert str(held["a"]) == f"one since {held['a'].acquired_at:%Y-%m-%d %H:%M:%S} UTC"
    assert warehouse.owners() == {"a": "one", "b": "one", "c": "other"}


def test_an_expired_lease_is_taken_over(warehouse: Warehouse) -> None:
    one, other = warehouse.machine("one"), warehouse.machine("other")
    one.acquire([AGENT])
    warehouse.expire()

    assert other.acquire([AGENT]) == {}
    assert one.acquire([AGENT])[AGENT].owner == "other"


def test_a_restarted_owner_reacquires_its_own_lease_immediately(warehouse: Warehouse) -> None:
    warehouse.machine("one").acquire([AGENT])

    assert warehouse.machine("one").acquire([AGENT]) == {}


def test_a_released_lease_is_free_immediately(warehouse: Warehouse) -> None:
    one, other = warehouse.machine("one"), warehouse.machine("other")
    with one:
        assert one.acquire([AGENT]) == {}
    one.release()

    with other:
        assert other.acquire([AGENT]) == {}
        one.release()
        other.renew()
    assert warehouse.owners() == {AGENT: ""}


def test_a_renewal_restarts_the_term(warehouse: Warehouse) -> None:
    one = warehouse.machine("one")
    one.acquire([AGENT, "other"])
    first = warehouse.sql("SELECT DISTINCT expires_at FROM {}.load_leases")

    one.renew()

    (second,) = warehouse.sql("SELECT DISTINCT expires_at FROM {}.load_leases")
    assert second > max(first)


def test_an_expired_lease_that_nobody_took_can_be_renewed(warehouse: Warehouse) -> None:
    one = warehouse.machine("one")
    one.acquire([AGENT])
    warehouse.expire()

    one.renew()

    assert list(warehouse.machine("other").acquire([AGENT])) == [AGENT]


@pytest.mark.slow
def test_the_next_renewal_detects_a_lost_lease(warehouse: Warehouse) -> None:
    one, other = warehouse.machine("one"), warehouse.machine("other")
    one.acquire(["a", "b"])
    warehouse.expire()
    other.acquire(["b"])

    with pytest.raises(LeaseLostError, match=r"\bb\b"):
        one.renew()
    one.release()
    assert warehouse.owners() == {"a": "", "b": "other"}


def test_a_dropped_table_is_a_lost_lease(warehouse: Warehouse) -> None:
    one = warehouse.machine("one")
    one.acquire([AGENT])
    warehouse.sql("DROP TABLE {}.load_leases")

    with pytest.raises(LeaseLostError):
        one.renew()


@pytest.mark.slow
def test_the_heartbeat_renews_a_lease_beyond_its_term(warehouse: Warehouse) -> None:
    one, other = warehouse.machine("one", SHORT), warehouse.machine("other")
    with one:
        one.acquire([AGENT])
        time.sleep(2 * SHORT.total_seconds())
        assert list(other.acquire([AGENT])) == [AGENT]
        assert not one.lost.is_set()
    assert other.acquire([AGENT]) == {}


def test_the_heartbeat_detects_a_lost_lease(warehouse: Warehouse) -> None:
    one = warehouse.machine("one", SHORT)
    with one:
        one.acquire([AGENT])
        warehouse.sql("UPDATE {}.load_leases SET owner = 'thief'")
        assert one.lost.wait(5)
    assert warehouse.owners() == {AGENT: "thief"}


def test_only_the_clock_of_the_destination_is_used(
    staged: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = staged.machine("one"), staged.machine("other")
    statements: list[str] = []
    bound: set[object] = set()
    for client in (one._client, other._client):
        execute = client.execute_sql

        def recorded(
            sql: str, *parameters: object, execute: Callable[..., Any] = execute
        ) -> object:
            statements.append(sql)
            bound.update(parameters)
            return execute(sql, *parameters)

        monkeypatch.setattr(client, "execute_sql", recorded)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    one.acquire([AGENT])
    one.renew()
    other.acquire([AGENT])
    staged.expire()
    other.acquire([AGENT])
    other.release()

    names = {staged.dataset, staged.staging("one"), staged.staging("other")}
    assert bound <= {"one", "other", AGENT, "staged"} | names
    assert len(statements) > 10
    assert not [sql for sql in statements if re.search(r"\d{4}-\d\d|\d{9}", sql)]


@pytest.mark.slow
def test_a_step_waits_for_the_one_that_holds_its_lease(warehouse: Warehouse) -> None:
    one, other = warehouse.machine("one"), warehouse.machine("other")
    order: list[str] = []
    began = threading.Event()

    def first() -> None:
        with one.holding(["A days 1/16", "A days 2/16"]):
            began.set()
            time.sleep(0.5)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    assert began.wait(10)
    with other.holding(["A days 2/16", "A days 3/16"]):
        order.append("second")
        assert warehouse.owners()["A days 2/16"] == "other"
    thread.join()
    assert order == ["first", "second"]
    assert set(warehouse.owners().values()) == {""}


def test_a_step_releases_only_its_own_leases(warehouse: Warehouse) -> None:
    one = warehouse.machine("one")
    assert one.acquire(["A"]) == {}
    with pytest.raises(RuntimeError), one.holding(["A days 1/16"]):
        raise RuntimeError
    assert warehouse.owners() == {"A": "one", "A days 1/16": ""}


def test_acquiring_a_released_lease_drops_no_staging_dataset(staged: Warehouse) -> None:
    one, other = staged.machine("one"), staged.machine("other")
    staged.sql(f"CREATE SCHEMA {staged.staging('one')}")
    with one.holding(["A days 1/16"]):
        pass
    with other.holding(["A days 1/16"]):
        # its owner is alive, and may be about to load through it
        assert staged.has_schema(staged.staging("one"))


def test_the_next_run_releases_all_leases_of_a_killed_one(warehouse: Warehouse) -> None:
    assert warehouse.machine("one").acquire(["A days 1/16", "A days 2/16"]) == {}
    warehouse.machine("one").release_leftovers()
    assert set(warehouse.owners().values()) == {""}
    assert warehouse.machine("other").acquire(["A days 1/16", "A days 2/16"]) == {}


def test_releasing_leftovers_without_a_table_is_a_no_op(warehouse: Warehouse) -> None:
    warehouse.machine("one").release_leftovers()


def test_a_takeover_drops_the_staging_dataset_of_the_last_owner(staged: Warehouse) -> None:
    one, other = staged.machine("one"), staged.machine("other")
    one.acquire([AGENT])
    staged.sql(f"CREATE SCHEMA {staged.staging('one')}")
    staged.sql(f"CREATE TABLE {staged.staging('one')}.conversations (id TEXT)")
    staged.expire()

    assert other.acquire([AGENT]) == {}

    assert not staged.has_schema(staged.staging("one"))
    assert staged.sql("SELECT staging_dataset, stale_dataset FROM {}.load_leases") == [
        (staged.staging("other"), "")
    ]


def test_a_staging_dataset_in_use_again_is_not_dropped(staged: Warehouse) -> None:
    staged.machine("one").acquire(["a", "b"])
    staged.expire()
    # the machine is back, and holds only one of the two leases
    assert staged.machine("one").acquire(["b"]) == {}
    staged.sql(f"CREATE SCHEMA {staged.staging('one')}")

    assert staged.machine("other").acquire(["a"]) == {}

    assert staged.has_schema(staged.staging("one"))


def test_only_staging_datasets_are_dropped(staged: Warehouse) -> None:
    staged.machine("one").acquire([AGENT])
    staged.sql("CREATE SCHEMA {}_finance")
    staged.sql("UPDATE {0}.load_leases SET staging_dataset = '{0}_finance'")
    staged.expire()

    assert staged.machine("other").acquire([AGENT]) == {}

    assert staged.has_schema(f"{staged.dataset}_finance")


@pytest.mark.slow
def test_a_run_whose_lease_was_taken_over_cannot_merge(
    staged: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is suspended between the load of its staging tables and the merge."""
    pipeline = staged.pipeline("one")
    suspended = Leases(pipeline, "one", staged.staging("one"))
    other = staged.machine("other")

    def run(value: str) -> None:
        rows = dlt.resource(
            [{"id": 1, "value": value}], name="rows", write_disposition="merge", primary_key="id"
        )
        pipeline.run(rows)

    suspended.acquire([AGENT])
    suspended.renew()
    run("before")
    merge = SqlMergeFollowupJob.from_table_chain

    def taken_over_before(*arguments: Any, **names: Any) -> Any:
        if staged.owners()[AGENT] != "other":
            assert staged.has_schema(staged.staging("one"))
            staged.expire()
            assert other.acquire([AGENT]) == {}
        return merge(*arguments, **names)

    monkeypatch.setattr(SqlMergeFollowupJob, "from_table_chain", taken_over_before)
    with pytest.raises(PipelineStepFailed):
        run("too late")

    assert staged.sql("SELECT value FROM {}.rows") == [("before",)]
    with pytest.raises(LeaseLostError):
        suspended.renew()


@pytest.mark.slow
@needs_postgres
def test_two_machines_can_drop_the_same_staging_dataset_concurrently(
    on_postgres: Warehouse,
) -> None:
    one, *others = (on_postgres.machine(name) for name in ("one", "other", "third"))
    for _ in range(5):
        one.acquire(["a", "b"])
        on_postgres.sql(f"CREATE SCHEMA {on_postgres.staging('one')}")
        on_postgres.sql(f"CREATE TABLE {on_postgres.staging('one')}.conversations (id TEXT)")
        on_postgres.expire()
        with ThreadPoolExecutor(2) as pool:
            held = list(pool.map(lambda other, agent: other.acquire([agent]), others, "ab"))
        assert held == [{}, {}]
        assert not on_postgres.has_schema(on_postgres.staging("one"))
        for other in others:
            other.release()


@needs_postgres
def test_the_wait_for_a_suspended_merge_is_bounded(
    on_postgres: Warehouse, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_table, "_LOCK_TIMEOUT", "200ms")
    one, other = on_postgres.machine("one"), on_postgres.machine("other")
    one.acquire([AGENT])
    on_postgres.sql(f"CREATE SCHEMA {on_postgres.staging('one')}")
    on_postgres.sql(f"CREATE TABLE {on_postgres.staging('one')}.conversations (id TEXT)")
    on_postgres.expire()
    with session(server) as merge:
        merge(f"BEGIN; SELECT * FROM {on_postgres.staging('one')}.conversations")

        with pytest.raises(DestinationError, match=r"staging_one cannot be dropped \(.*timeout"):
            other.acquire([AGENT])
        other.release()

    # the next owner still drops it
    third = on_postgres.machine("third")
    assert third.acquire([AGENT]) == {}
    assert not on_postgres.has_schema(on_postgres.staging("one"))


@needs_postgres
@pytest.mark.slow
def test_one_of_many_racing_machines_wins(on_postgres: Warehouse) -> None:
    assert winners_of_races(on_postgres, machines=8, rounds=50) == [1] * 50


@pytest.mark.slow
@needs_postgres
def test_duplicate_rows_of_an_agent_never_yield_two_owners(on_postgres: Warehouse) -> None:
    """Destinations that do not enforce keys can have duplicate rows."""
    on_postgres.machine("one").acquire(["another"])
    on_postgres.sql("ALTER TABLE {0}.load_leases DROP CONSTRAINT load_leases_pkey")
    for _ in range(2):
        on_postgres.sql(FREE_ROW, AGENT)

    winners = winners_of_races(on_postgres, machines=4, rounds=20)

    assert set(winners) <= {0, 1}
    assert sum(winners) > 10


@needs_postgres
def test_a_late_duplicate_row_does_not_change_the_owner(on_postgres: Warehouse) -> None:
    one, other = on_postgres.machine("one"), on_postgres.machine("other")
    one.acquire([AGENT])
    on_postgres.sql("ALTER TABLE {0}.load_leases DROP CONSTRAINT load_leases_pkey")
    on_postgres.sql(FREE_ROW, AGENT)

    assert other.acquire([AGENT])[AGENT].owner == "one"
    one.renew()
    one.release()
    assert other.acquire([AGENT]) == {}


@needs_postgres
@pytest.mark.slow
def test_processes_starting_on_an_empty_database_agree_on_one_owner(
    on_postgres: Warehouse, server: str, tmp_path: Path
) -> None:
    """All of them create the schema, the table and the row concurrently."""
    with ExitStack() as stack:
        machines = [stack.enter_context(machine(name, server, tmp_path)) for name in "abc"]
        for _ in range(5):
            dataset = next(_datasets)
            for process in machines:
                process("prepare", dataset)
            with ThreadPoolExecutor(len(machines)) as pool:
                held = list(pool.map(lambda process: process("acquire", AGENT), machines))
            assert held.count({}) == 1, held
            assert len({holder[AGENT] for holder in held if holder}) == 1, held


@pytest.mark.slow
@needs_postgres
def test_a_failing_renewal_is_retried_until_the_term_ends(
    on_postgres: Warehouse, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    term = timedelta(seconds=2)
    one = on_postgres.machine("one", term)
    base, _, database = server.rpartition("/")
    with session(f"{base}/postgres") as administrator, one:
        one.acquire([AGENT])
        administrator(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        try:
            assert eventually(lambda: "not renewed" in caplog.text)
            with pytest.raises(DestinationError, match="not currently accepting connections"):
                one.renew()
        finally:
            administrator(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
        time.sleep(term.total_seconds())
        assert not one.lost.is_set()

        administrator(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        try:
            assert one.lost.wait(5)
        finally:
            administrator(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")


@needs_postgres
def test_a_hanging_renewal_is_detected_at_the_end_of_the_term(
    on_postgres: Warehouse, server: str
) -> None:
    one = on_postgres.machine("one", SHORT)
    with one:
        one.acquire([AGENT])
        with session(server) as other:
            other(f"BEGIN; LOCK TABLE {on_postgres.dataset}.load_leases")
            assert one.lost.wait(5)


@pytest.mark.parametrize(
    ("destination", "is_supported"),
    [
        ("duckdb", True),
        pytest.param("postgres", True, marks=needs_postgres),
        ("filesystem", False),
    ],
)
def test_leases_require_atomic_statements(
    tmp_path: Path, destination: str, is_supported: bool
) -> None:
    make: dict[str, Any] = {
        "duckdb": lambda: dlt.destinations.duckdb(str(tmp_path / "warehouse.duckdb")),
        "postgres": lambda: dlt.destinations.postgres("postgresql://a:b@127.0.0.1:1/c"),
        "filesystem": lambda: dlt.destinations.filesystem(str(tmp_path / "lake")),
    }
    pipeline = dlt.pipeline(
        "polyai",
        pipelines_dir=str(tmp_path / "pipelines"),
        destination=make[destination](),
        dataset_name="polyai",
    )

    assert support_of(pipeline).has_leases is is_supported


_NAMES = [
    "_CREATE",
    "_ADD",
    "_TAKE",
    "_READ",
    "_IS_STAGING_IN_USE",
    "_CLEAR_STALE",
    "_RENEW",
    "_OWNED",
    "_RELEASE",
]

STATEMENTS = {
    name: getattr(lease_table, name).format(key="", ids="?, ?", seconds=300) for name in _NAMES
}


@pytest.mark.parametrize(
    ("dialect", "name", "end_of_term"),
    [
        ("postgres", '"polyai"."load_leases"', "CURRENT_TIMESTAMP + INTERVAL '300 SECOND'"),
        ("redshift", '"polyai"."load_leases"', "DATEADD(SECOND, 300, GETDATE())"),
        (
            "snowflake",
            '"DB"."POLYAI"."LOAD_LEASES"',
            "DATEADD(SECOND, 300, CURRENT_TIMESTAMP())",
        ),
        (
            "bigquery",
            "`our-project`.`polyai`.`load_leases`",
            "TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 300 SECOND)",
        ),
        (
            "databricks",
            "`main`.`polyai`.`load_leases`",
            "DATEADD(SECOND, 300, CURRENT_TIMESTAMP())",
        ),
        ("tsql", "[polyai].[load_leases]", "DATEADD(SECOND, 300, GETDATE())"),
        ("clickhouse", "`db`.`polyai___load_leases`", "DATE_ADD(SECOND, 300, CURRENT_TIMESTAMP())"),
    ],
)
def test_statements_are_rendered_for_each_dialect(
    dialect: str, name: str, end_of_term: str
) -> None:
    client = cast(
        "SqlClientBase[Any]",
        SimpleNamespace(
            capabilities=SimpleNamespace(sqlglot_dialect=dialect),
            make_qualified_table_name=lambda _: name,
        ),
    )
    written = {key: sql_for(client, text) for key, text in STATEMENTS.items()}

    if dialect == "clickhouse":
        # sqlglot quotes names differently
        name = name.replace("`", '"')
    assert all(name in sql for sql in written.values()), written
    assert end_of_term in written["_TAKE"]
    assert end_of_term in written["_RENEW"]
    assert written["_ADD"].count(name) == 2
    assert {key: sql.count("%s") for key, sql in written.items()} == {
        key: text.count("?") for key, text in STATEMENTS.items()
    }


def winners_of_races(warehouse: Warehouse, machines: int, rounds: int) -> list[int]:
    """Numbers of machines that acquired the lease, per round."""
    leases = [warehouse.machine(f"m{number}") for number in range(machines)]
    together = threading.Barrier(machines)

    def race(mine: Leases) -> list[bool]:
        won = []
        try:
            for _ in range(rounds):
                together.wait()
                won.append(mine.acquire([AGENT]) == {})
                together.wait()
                mine.release()
        except BaseException:
            together.abort()
            raise
        return won

    with ThreadPoolExecutor(machines) as pool:
        races = [pool.submit(race, mine) for mine in leases]
        errors = [error for race in races if (error := race.exception())]
        assert not [
            error for error in errors if not isinstance(error, threading.BrokenBarrierError)
        ]
        return [sum(won) for won in zip(*(race.result() for race in races))]


@contextmanager
def session(url: str) -> Iterator[Callable[[str], None]]:
    """Runs statements in one session, with autocommit unless they begin a transaction."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        yield connection.cursor().execute
    finally:
        connection.close()


_MACHINE = """
import json, sys
import dlt
from polyai.locking.leases import Leases

name, url, folder = sys.argv[1:]
for line in sys.stdin:
    what, value = json.loads(line)
    held = None
    if what == "prepare":
        pipeline = dlt.pipeline("polyai", pipelines_dir=folder, dataset_name=value,
                                destination=dlt.destinations.postgres(url))
        leases = Leases(pipeline, name, f"{value}_staging_{name}")
    else:
        held = {agent: holder.owner for agent, holder in leases.acquire([value]).items()}
    print(json.dumps(held), flush=True)
"""


@contextmanager
def machine(name: str, url: str, folder: Path) -> Iterator[Callable[[str, str], Any]]:
    """Separate process that acquires leases on command."""
    command = [sys.executable, "-c", _MACHINE, name, url, str(folder / name)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        stdin, stdout = process.stdin, process.stdout

        def send(what: str, value: str) -> Any:
            stdin.write(f"{json.dumps([what, value])}\n")
            stdin.flush()
            return json.loads(stdout.readline())

        try:
            yield send
        finally:
            stdin.close()
            process.wait(10)
