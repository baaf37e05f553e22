"""Claims and code blocks of `pipelines/bi.md`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import dlt
import psycopg2
import pytest
import yaml

from loaded import put_loaded
from polyai import open_pipeline
from polyai.sandbox import SandboxConfig
from polyai.tables import registry
from polyai.views import PIPELINE_NAME, create_views
from polyai.views.definitions import views
from polyai.views.publishing import INFO_TABLE
from postgres_server import binaries, postgres

pytestmark = pytest.mark.load

PAGE = Path(__file__).parent.parent / "pipelines" / "bi.md"
TEXT = PAGE.read_text(encoding="utf-8")
OTHERS = {
    INFO_TABLE, "as_of", "connect_args", "dbt_project", "metabase_duckdb_driver",
    "hive_partitioning", "polyai_database", "read_database_uri", "read_only", "read_parquet",
    "read_sql", "scan_parquet", "sync_partition_metadata", "written_at", "your_project",
}  # fmt: skip
"""Names with an underscore that are not tables, views or columns."""


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def test_named_tables_views_and_columns_exist() -> None:
    known = OTHERS | {table.name for table in registry.tables()} | set(views())
    known |= {column.name for table in registry.tables() for column in table.columns}
    known |= {field.name for view in views().values() for field in view.fields}
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    codes = re.findall(r"`([^`]+)`", prose)
    named = {name for code in codes for name in re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b", code)}
    assert len(named) > 30
    assert named <= known


def test_relative_links_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target


@pytest.mark.slow
def test_python_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    put_loaded(SandboxConfig(conversations=60))
    create_views(open_pipeline(name=PIPELINE_NAME))
    exec(block("python").replace("/srv/bi/", ""), {})  # noqa: S102
    assert "containment_rate" in capsys.readouterr().out


def test_dbt_profile_is_read_only() -> None:
    (attached,) = yaml.safe_load(block("yaml"))["polyai"]["outputs"]["dev"]["attach"]
    assert attached == {"path": "/srv/bi/polyai.duckdb", "alias": "polyai", "read_only": True}


@pytest.mark.slow
@pytest.mark.skipif(
    binaries() is None and not os.environ.get("CI"),
    reason="needs a PostgreSQL server: install the package postgresql",
)
def test_postgres_role_reads_and_cannot_write(tmp_path: Path) -> None:
    with postgres() as url:
        pipeline = open_pipeline(
            dlt.destinations.postgres(url), pipelines_dir=tmp_path, name=PIPELINE_NAME
        )
        create_views(pipeline)
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(block("sql"))
        # recreated views keep their grants
        create_views(pipeline, "Europe/London")
        as_analyst = url.replace("loader", "analyst")
        with psycopg2.connect(as_analyst) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM polyai.kpi_daily, polyai.turns")
            assert cursor.fetchone() == (0,)
            with pytest.raises(psycopg2.Error, match="read-only"):
                cursor.execute("DELETE FROM polyai.turns")
