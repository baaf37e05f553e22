"""Support of dlt's destinations: levels, refusals, drivers, and the places of a DuckLake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import dlt
import dlt.destinations
import pytest
from sqlglot.errors import SqlglotError

from command import files_read_again
from optional import needs_sqlalchemy
from polyai.errors import ConfigurationError
from polyai.views.definitions import views
from polyai.views.statements import Statements
from polyai.warehouse.capabilities import (
    DATABASES,
    DESTINATIONS,
    SQLALCHEMY,
    advice_without_leases,
    label_of,
    missing_capabilities,
    support_of,
)
from polyai.warehouse.duckdb_file import locked_file
from polyai.warehouse.open import destination_label, open_pipeline

pytestmark = pytest.mark.unit

REFUSED = {name for name, support in DESTINATIONS.items() if support.level == "refused"}

LAKE = "DESTINATION__DUCKLAKE__CREDENTIALS"


@pytest.fixture(autouse=True)
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(destination: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        open_pipeline(destination)
    message = str(refused.value)
    assert message.startswith("destination: ")
    assert "\n" not in message
    return message


class TestTable:
    """Table of all destinations of the installed dlt."""

    def test_has_every_destination(self) -> None:
        assert DESTINATIONS.keys() == set(dlt.destinations.__all__)

    @pytest.mark.parametrize("name", sorted(DESTINATIONS.keys() - REFUSED))
    def test_dlt_declares_what_a_load_needs(self, name: str) -> None:
        capabilities = getattr(dlt.destinations, name)().capabilities()
        assert list(missing_capabilities(capabilities)) == []
        assert capabilities.supports_tz_aware_datetime

    def test_refusals_have_an_alternative(self) -> None:
        for support in (*DESTINATIONS.values(), *DATABASES.values()):
            assert bool(support.alternative) is (support.level == "refused")
            assert support.reason

    @pytest.mark.parametrize("name", sorted(REFUSED - {SQLALCHEMY, "destination"}))
    def test_refused_destination_is_refused_without_its_driver(self, name: str) -> None:
        support = DESTINATIONS[name]
        message = refusal(name)
        assert f"{name} is refused: {support.reason}" in message
        assert support.alternative in message

    @pytest.mark.parametrize("database", ["mysql", "sqlite"])
    def test_views_that_a_database_cannot_express_are_left_out(self, database: str) -> None:
        statements = Statements(database, "polyai.{}".format, "Europe/London")
        left_out = []
        for view in views().values():
            try:
                statements.create(view, replacing=True)
            except SqlglotError:
                left_out.append(view.name)
        assert sorted(left_out) == sorted(DATABASES[database].without_views)

    def test_capabilities_of_the_filesystem_are_the_reason(self) -> None:
        for caps in ("filesystem", "lance", "qdrant", "weaviate"):
            lacking = missing_capabilities(getattr(dlt.destinations, caps)().capabilities())
            assert "the merge strategy delete-insert" in lacking
        assert "ducklake" in refusal(dlt.destinations.filesystem("lake"))
        assert "publish_to" in refusal("filesystem")

    def test_destination_of_a_function(self) -> None:
        @dlt.destination
        def own(items: Any, table: Any) -> None:
            """Receives rows."""

        assert "function that receives rows" in refusal(own())

    def test_destination_with_other_capabilities(self) -> None:
        own = dlt.destinations.postgres(
            "postgresql://a:b@127.0.0.1:1/c", supported_merge_strategies=["upsert"]
        )
        assert "lacks the merge strategy delete-insert" in refusal(own)

    def test_named_destination(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DESTINATION__ARCHIVE__DESTINATION_TYPE", "filesystem")
        assert "archive is refused" in refusal("archive")


@needs_sqlalchemy
class TestDatabasesOfSqlalchemy:
    """dlt's destination `sqlalchemy`, whose databases differ."""

    @pytest.mark.parametrize("variable", ["DESTINATION", "POLYAI__DESTINATION"])
    @pytest.mark.parametrize(
        ("url", "database"),
        [
            ("mysql+pymysql://a:b@127.0.0.1:1/c", "mysql"),
            ("mariadb+pymysql://a:b@127.0.0.1:1/c", "mariadb"),
            ("sqlite:///warehouse.db", "sqlite"),
        ],
    )
    def test_each_has_its_support(
        self, variable: str, url: str, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"{variable}__SQLALCHEMY__CREDENTIALS", url)
        pipeline = open_pipeline("sqlalchemy")
        assert support_of(pipeline) is DATABASES[database]
        assert label_of(pipeline) == f"sqlalchemy ({database})"

    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("oracle+oracledb://a:b@127.0.0.1:1/c", "(oracle) is refused.*Use postgres"),
            ("postgresql://a:b@127.0.0.1:1/c", "(postgresql) is refused.*Use postgres"),
            ("trino://127.0.0.1:1/c", "(trino) is refused.*only MySQL, MariaDB and SQLite"),
        ],
    )
    def test_others_are_refused(
        self, url: str, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("DESTINATION__SQLALCHEMY__CREDENTIALS", url)
        kind, _, rest = message.partition(".*")
        refused = refusal("sqlalchemy")
        assert kind in refused
        assert rest in refused

    def test_without_a_database(self) -> None:
        assert "set DESTINATION__SQLALCHEMY__CREDENTIALS" in refusal("sqlalchemy")


class TestDrivers:
    """Missing drivers, and missing settings."""

    @pytest.mark.parametrize(
        ("name", "module", "credentials"),
        [
            ("postgres", "psycopg2", "postgresql://a:b@127.0.0.1:1/c"),
            ("redshift", "psycopg2", "redshift://a:b@127.0.0.1:1/c"),
            ("snowflake", "snowflake", "snowflake://a:b@account/c"),
            ("bigquery", "google", '{"project_id": "a", "private_key": "b", "client_email": "c"}'),
        ],
    )
    def test_missing_driver_names_the_extra(
        self, name: str, module: str, credentials: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"DESTINATION__{name.upper()}__CREDENTIALS", credentials)
        for known in [one for one in sys.modules if f".impl.{name}." in one]:
            monkeypatch.delitem(sys.modules, known)
        if name == "redshift":
            monkeypatch.delitem(sys.modules, "dlt.destinations.impl.postgres.sql_client", False)
        monkeypatch.setitem(sys.modules, module, None)
        message = refusal(name)
        assert f"{name} requires the module " in message
        assert message.endswith(f": pip install {DESTINATIONS[name].packages}")

    @needs_sqlalchemy
    def test_missing_driver_of_a_database(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "MySQLdb", None)
        monkeypatch.setenv("DESTINATION__SQLALCHEMY__CREDENTIALS", "mysql://a:b@127.0.0.1:1/c")
        message = refusal("sqlalchemy")
        assert (
            "(mysql) requires the module MySQLdb: pip install 'polyai-warehouse[mysql]'" in message
        )
        assert "mysql+pymysql://" in message

    @needs_sqlalchemy
    def test_missing_sqlalchemy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DESTINATION__SQLALCHEMY__CREDENTIALS", "sqlite:///warehouse.db")
        for known in [one for one in sys.modules if one.partition(".")[0] == "sqlalchemy"]:
            monkeypatch.delitem(sys.modules, known)
        monkeypatch.setitem(sys.modules, "sqlalchemy", None)
        message = refusal("sqlalchemy")
        assert "requires the module sqlalchemy" in message
        assert message.endswith(": pip install 'polyai-warehouse[mysql]'")

    def test_missing_settings_are_named(self) -> None:
        message = refusal("postgres")
        assert "postgres is not configured: it lacks database, password, username, host" in message
        assert "DESTINATION__POSTGRES__CREDENTIALS" in message

    @pytest.mark.parametrize(
        ("name", "advice"),
        [
            ("postgress", "did you mean postgres?"),
            ("mysql", "for mysql, use sqlalchemy"),
            ("postgresql", "use postgres"),
            ("oracle", "use postgres or duckdb"),
            ("delta", "use duckdb, postgres, ducklake"),
            (
                "iceberg",
                "use duckdb, postgres, ducklake, motherduck, snowflake, bigquery, databricks, "
                "redshift, sqlalchemy for MySQL, MariaDB and SQLite",
            ),
        ],
    )
    def test_unknown_destination(self, name: str, advice: str) -> None:
        assert f"{name} is not a destination of dlt: {advice}" in refusal(name)

    @needs_sqlalchemy
    def test_value_that_dlt_does_not_wrap(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DESTINATION__SQLALCHEMY__CREDENTIALS", "mysql+none://a:b@h/c")
        assert "(mysql) is not configured as dlt expects" in refusal("sqlalchemy")


class TestStaging:
    """Staging destinations, in which copies of the rows would stay."""

    @pytest.mark.parametrize(
        ("name", "message"),
        [("redshift", "Remove the setting staging_type"), ("duckdb", "does not support loading")],
    )
    def test_is_refused(self, name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("STAGING_TYPE", "filesystem")
        assert message in refusal(name)

    def test_is_in_no_proven_destination(self) -> None:
        proven = {name for name, support in DESTINATIONS.items() if support.level == "proven"}
        for name in proven:
            destination = getattr(dlt.destinations, name)()
            assert not destination.capabilities().supported_staging_file_formats

    def test_is_needed_by_no_usable_destination(self) -> None:
        for name in DESTINATIONS.keys() - REFUSED - {SQLALCHEMY}:
            destination = getattr(dlt.destinations, name)()
            assert destination.capabilities().supported_loader_file_formats


class TestLakes:
    """Places of a DuckLake's catalog and files."""

    @pytest.mark.parametrize("place", ["s3://bucket/lake", "files"])
    def test_setting_that_dlt_ignores(self, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(f"{LAKE}__STORAGE", place)
        assert f"Set {LAKE}__STORAGE__BUCKET_URL" in refusal("ducklake")

    def test_setting_that_dlt_ignores_in_a_file(self) -> None:
        folder = Path(".dlt")
        folder.mkdir(exist_ok=True)
        table = '[destination.ducklake.credentials]\nstorage = "s3://bucket/lake"\n'
        (folder / "secrets.toml").write_text(table, encoding="utf-8")
        with files_read_again():
            message = refusal("ducklake")
        assert "bucket_url in the table [destination.ducklake.credentials.storage]" in message

    @pytest.mark.parametrize("place", ["", "files"])
    @pytest.mark.parametrize("catalog", ["postgresql://a:b@127.0.0.1:1/c", "mysql://a:b@h/c"])
    def test_catalog_on_a_server_with_files_in_the_working_directory(
        self, place: str, catalog: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"{LAKE}__CATALOG", catalog)
        if place:
            monkeypatch.setenv(f"{LAKE}__STORAGE__BUCKET_URL", place)
        message = refusal("ducklake")
        assert str(tmp_path / (place or "ducklake.files")) in message
        assert f"Set {LAKE}__STORAGE__BUCKET_URL" in message

    @pytest.mark.parametrize("prefix", ["", "file://"])
    def test_catalog_on_a_server_with_files_in_a_shared_folder(
        self, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"{LAKE}__CATALOG", "postgresql://a:b@127.0.0.1:1/c")
        monkeypatch.setenv(f"{LAKE}__STORAGE__BUCKET_URL", f"{prefix}{tmp_path}/files")
        open_pipeline("ducklake")

    def test_a_catalog_in_a_duckdb_file_is_locked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert locked_file(open_pipeline("ducklake")) is None
        monkeypatch.setenv(f"{LAKE}__CATALOG", "duckdb:///lake.duckdb")
        assert locked_file(open_pipeline("ducklake")) == tmp_path / "lake.duckdb"

    def test_label_has_both_places_and_no_password(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        label = destination_label(open_pipeline("ducklake"))
        assert f"catalog in sqlite {tmp_path}/ducklake.sqlite" in label
        assert f"files in {tmp_path}/ducklake.files" in label
        monkeypatch.setenv(f"{LAKE}__CATALOG", "postgresql://user:secret@host.example/lake")
        monkeypatch.setenv(f"{LAKE}__STORAGE__BUCKET_URL", str(tmp_path))
        label = destination_label(open_pipeline("ducklake"))
        assert "catalog in postgresql host.example/lake" in label
        assert "secret" not in label

    def test_all_local(self) -> None:
        assert advice_without_leases(open_pipeline("ducklake")) == ""
