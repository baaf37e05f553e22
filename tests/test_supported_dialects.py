"""Our queries in the dialects of destinations that are supported, but not loaded by tests.

Commands run on DuckDB, with every query translated as for another dialect. Each is rendered in the
dialects of all supported destinations, and has to be one that their parsers accept.
"""

from __future__ import annotations

from typing import Any

import dlt.destinations
import pytest
import sqlglot
from sqlglot import Dialect, exp

from command import access, run
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.warehouse.capabilities import DESTINATIONS
from polyai.warehouse.dialects import parse, portable, qualify_tables, to_sql
from polyai.warehouse.queries import Warehouse
from polyai.warehouse.values import NATIVE

pytestmark = [pytest.mark.load, pytest.mark.slow]

COMMANDS = (
    ("load",),
    ("load", "--full"),
    ("status",),
    ("recordings",),
    ("backfill", "--from", "2020-01-01", "--slice", "5000d", "--workers", "1"),
)


def supported_dialects() -> set[str]:
    """Returns the dialects of supported destinations that tests do not load."""
    found = {
        str(getattr(dlt.destinations, name)().capabilities().sqlglot_dialect)
        for name, support in DESTINATIONS.items()
        if support.level == "supported"
    }
    return found - NATIVE


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Queries of the commands, in our dialect."""
    found: set[str] = set()

    def translated(self: Warehouse, query: str) -> str:
        found.add(query)
        tree = parse(query.replace("%s", "?"))
        qualify_tables(tree, "duckdb", self._client.make_qualified_table_name)
        return to_sql(tree, "duckdb").replace("?", "%s")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("queries"))
        patch.setattr(Warehouse, "dialect", "snowflake")
        patch.setattr(Warehouse, "_translated", translated)
        with serve(Sandbox(SandboxConfig(conversations=15))) as url:
            for command in COMMANDS:
                result = run(*command, **access(url))
                assert result.returncode == 0, (command, result.stderr)
    return found


def test_commands_were_recorded(queries: set[str]) -> None:
    assert len(queries) > 50
    assert supported_dialects() == {"snowflake", "bigquery", "databricks", "redshift"}


@pytest.mark.parametrize("dialect", sorted(supported_dialects()))
def test_queries_are_rendered(dialect: str, queries: set[str]) -> None:
    def qualified(name: str) -> str:
        return exp.table_(name, db="polyai", quoted=True).sql(dialect)

    generator: Any = Dialect.get_or_raise(dialect).generator_class
    reserved = {name.lower() for name in generator.RESERVED_KEYWORDS}
    for query in queries:
        tree = parse(query.replace("%s", "?"))
        qualify_tables(tree, dialect, qualified)
        portable(tree, dialect)
        rendered = to_sql(tree, dialect)
        parsed = sqlglot.parse_one(rendered, read=dialect)
        assert not isinstance(parsed, exp.Command), rendered
        assert rendered.replace("?", "%s").count("%s") == query.count("%s")
        for name in parsed.find_all(exp.Identifier):
            assert name.quoted or name.name.lower() not in reserved, rendered
