"""Queries of users (`--query`): each attack is refused, by the check and by the database itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest

from command import access, error_of, run
from destinations import in_ducklake, in_mariadb, in_postgres, in_sqlite
from mariadb_server import needs_mariadb
from optional import needs_ducklake, needs_sqlalchemy
from polyai.errors import ConfigurationError, DestinationError
from polyai.warehouse.clients import sql_client
from polyai.warehouse.errors import destination_errors
from polyai.warehouse.open import open_pipeline
from polyai.warehouse.queries import Warehouse
from polyai.warehouse.read_only import open_to_read
from polyai.warehouse.user_query import check_query, restricted
from postgres_server import needs_postgres

pytestmark = pytest.mark.server

Place = Callable[[Path], AbstractContextManager[dict[str, str]]]

NOT_ONE_SELECT = (
    "",
    "SELECT 1; SELECT 2",
    "SELECT 1; DELETE FROM turns",
    "DELETE FROM turns",
    "WITH gone AS (SELECT 1) DELETE FROM turns",
    "CREATE TABLE other AS SELECT 1 AS a",
    "DROP TABLE turns",
)

DUCKDB = (
    *NOT_ONE_SELECT,
    "COPY turns TO 'stolen.csv'",
    "COPY (SELECT 1) TO 'stolen.csv'",
    "COPY turns FROM '/etc/passwd'",
    "EXPORT DATABASE 'stolen'",
    "ATTACH 'stolen.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "PRAGMA database_list",
    "CALL pragma_database_list()",
    "SELECT content AS note FROM read_text('/etc/passwd')",
    "SELECT content AS note FROM main.READ_BLOB('/etc/passwd')",
    "FROM read_csv('/etc/passwd')",
    "SELECT 1 WHERE EXISTS (FROM read_json('http://127.0.0.1:1/x'))",
    "WITH a AS (FROM parquet_scan('s3://bucket/x')) FROM a",
    "FROM glob('/etc/*')",
    "FROM query('COPY turns TO ''stolen.csv''')",
    "FROM postgres_execute('lake', 'DROP TABLE t')",
    "FROM ducklake_expire_snapshots('lake', older_than => now())",
    "FROM duckdb_secrets()",
    "FROM duckdb_databases",
    "SELECT current_setting('s3_secret_access_key')",
    "SELECT getenv('POLYAI_API_KEY')",
)

POSTGRES = (
    *NOT_ONE_SELECT,
    "COPY turns TO '/tmp/stolen.csv'",
    "COPY turns TO PROGRAM 'cat'",
    "SELECT * INTO other FROM turns",
    "WITH gone AS (DELETE FROM turns RETURNING a) SELECT a FROM gone",
    "SELECT 1; COMMIT; BEGIN READ WRITE; DELETE FROM turns",
    "DO $$ BEGIN DELETE FROM turns; END $$",
    "CALL some_procedure()",
    "SET ROLE postgres",
)

MYSQL = (
    *NOT_ONE_SELECT,
    "SELECT a FROM turns INTO OUTFILE '/tmp/stolen.csv'",
    "SELECT a FROM turns /*! INTO OUTFILE '/tmp/stolen.csv' */",
    "SELECT a FROM turns /*M! INTO OUTFILE '/tmp/stolen.csv' */",
    "LOAD DATA INFILE '/etc/passwd' INTO TABLE turns",
)

SQLITE = (
    *NOT_ONE_SELECT,
    "ATTACH 'stolen.db' AS x",
    "VACUUM INTO 'stolen.db'",
    "PRAGMA user_version=1",
)


class TestCheck:
    @pytest.mark.unit
    @pytest.mark.parametrize(
        ("dialect", "sql"),
        [
            (dialect, sql)
            for dialect, attacks in (
                ("duckdb", DUCKDB),
                ("postgres", POSTGRES),
                ("mysql", MYSQL),
                ("sqlite", SQLITE),
            )
            for sql in attacks
        ],
    )
    def test_an_attack_is_refused(self, dialect: str, sql: str) -> None:
        with pytest.raises(ConfigurationError, match="was not run"):
            check_query(sql, dialect)

    @pytest.mark.unit
    @pytest.mark.parametrize("dialect", ["duckdb", "postgres", "mysql", "sqlite", "snowflake"])
    def test_a_select_is_accepted(self, dialect: str) -> None:
        check_query(
            "WITH a AS (SELECT agent_id, count(*) AS n FROM turns GROUP BY agent_id) "
            "SELECT a.agent_id, 'delete; copy' AS note FROM a JOIN polyai.conversations c "
            "ON c.agent_id = a.agent_id WHERE a.n > 1 UNION ALL SELECT 'x', 'y' -- all\n;",
            dialect,
        )

    @pytest.mark.unit
    def test_duckdb_keeps_its_own_syntax(self) -> None:
        check_query("FROM turns", "duckdb")
        check_query("SELECT unnest([1, 2]), {'a': 1}.a FROM range(3), json_each('[1]')", "duckdb")


def fill(destination: str | None) -> None:
    """Creates the table `turns` with one row, as a load would."""
    pipeline = open_pipeline(destination)
    with pipeline.sql_client() as client:
        if not client.has_dataset():
            client.create_dataset()
        table = client.make_qualified_table_name("turns")
        client.execute_sql(f"CREATE TABLE {table} (a INT)")
        client.execute_sql(f"INSERT INTO {table} VALUES (1)")


def assert_whole(destination: str | None) -> None:
    """Asserts that nothing was changed, and that the next connection may write again."""
    pipeline = open_pipeline(destination)
    assert Warehouse(pipeline).rows("SELECT count(*) FROM {turns}") == [(1,)]
    with pipeline.sql_client() as client:
        client.execute_sql(f"INSERT INTO {client.make_qualified_table_name('turns')} VALUES (2)")
    assert Warehouse(pipeline).rows("SELECT count(*) FROM {turns}") == [(2,)]


def assert_refused(warehouse: Warehouse, *statements: str) -> None:
    """Asserts that the database itself refuses statements that the check would let through."""
    for sql in statements:
        client = sql_client(warehouse.pipeline)
        table = client.make_qualified_table_name("turns")
        with (
            pytest.raises(DestinationError),
            destination_errors(),
            client,
            restricted(warehouse.pipeline, client),
        ):
            client.execute_sql(sql.replace("{turns}", table))


class TestDuckDb:
    @pytest.fixture(autouse=True)
    def warehouse(self) -> Iterator[Warehouse]:
        fill(None)
        with open_to_read() as warehouse:
            yield warehouse
        assert not list(Path().glob("stolen*"))
        assert_whole(None)

    def test_a_query_reads_tables(self, warehouse: Warehouse) -> None:
        for sql in ("SELECT a FROM turns", "FROM main.turns", "SELECT a FROM polyai.turns"):
            assert warehouse.records(sql) == [{"a": 1}]

    def test_duckdb_itself_refuses_the_rest(self, warehouse: Warehouse) -> None:
        assert_refused(
            warehouse,
            "FROM read_text('/etc/passwd')",
            "FROM '/etc/passwd.csv'",
            "FROM read_csv('http://127.0.0.1:1/x.csv')",
            "COPY {turns} TO 'stolen.csv'",
            "EXPORT DATABASE 'stolen'",
            "ATTACH 'stolen.duckdb'",
            "LOAD httpfs",
            "SET enable_external_access = true",
            "SET lock_configuration = false",
            "DELETE FROM {turns}",
        )

    @pytest.mark.load
    def test_the_commands_refuse_before_anything_is_sent(self) -> None:
        for command in ("annotate", "note"):
            result = run(
                command,
                "--query",
                "SELECT 'c' AS conversation_id, content AS note FROM read_text('/etc/passwd')",
                **access("http://127.0.0.1:1"),
            )
            assert result.returncode == 1
            assert "read_text is not a table or view" in error_of(result)


@contextmanager
def settings(monkeypatch: pytest.MonkeyPatch, place: Place, folder: Path) -> Iterator[str]:
    """Sets the environment of a destination; yields its name."""
    with ExitStack() as stack:
        found = stack.enter_context(place(folder))
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        fill(None)
        yield found["DESTINATION_TYPE"]
        assert_whole(None)


@needs_postgres
def test_postgres_refuses_to_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with settings(monkeypatch, in_postgres, tmp_path), open_to_read() as warehouse:
        assert warehouse.records("SELECT a FROM turns") == [{"a": 1}]
        assert_refused(
            warehouse,
            "DELETE FROM {turns}",
            "SELECT set_config('transaction_read_only', 'off', false)",
            "CREATE TABLE other AS SELECT 1 AS a",
        )


@needs_mariadb
@needs_sqlalchemy
def test_mariadb_refuses_to_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with settings(monkeypatch, in_mariadb, tmp_path), open_to_read() as warehouse:
        assert warehouse.records("SELECT a FROM turns") == [{"a": 1}]
        assert_refused(warehouse, "DELETE FROM {turns}", "SELECT 1; DELETE FROM {turns}")


@needs_sqlalchemy
def test_sqlite_refuses_to_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with settings(monkeypatch, in_sqlite, tmp_path), open_to_read() as warehouse:
        assert warehouse.records("SELECT a FROM turns") == [{"a": 1}]
        assert_refused(
            warehouse,
            "DELETE FROM {turns}",
            "CREATE TABLE other AS SELECT 1 AS a",
            "SELECT load_extension('x')",
            "SELECT 1; DELETE FROM {turns}",
        )


@pytest.mark.slow
@needs_postgres
@needs_ducklake
def test_a_lake_is_read_without_other_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with settings(monkeypatch, in_ducklake, tmp_path), open_to_read() as warehouse:
        assert warehouse.records("SELECT a FROM turns") == [{"a": 1}]
        assert_refused(warehouse, "FROM read_text('/etc/passwd')", "COPY {turns} TO 'stolen.csv'")
        with pytest.raises(ConfigurationError, match="postgres_execute"):
            warehouse.records("FROM postgres_execute('x', 'DROP TABLE t')")
