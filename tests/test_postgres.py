"""The same load into PostgreSQL: same tables, same rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

from polyai import load, open_pipeline, resolve
from polyai.sandbox import Sandbox, SandboxConfig, serve
from postgres_server import binaries, postgres
from warehouse_rows import assert_equals_truth

AGENT = "PROJECT-BOOKINGS"

pytestmark = pytest.mark.skipif(
    binaries() is None and not os.environ.get("CI"),
    reason="needs a PostgreSQL server: install the package postgresql",
)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with postgres() as url:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
        yield url


def test_the_warehouse_equals_what_the_sandbox_serves_also_later(database: str) -> None:
    def fetch(sql: str) -> list[dict[str, Any]]:
        with (
            psycopg2.connect(database) as connection,
            connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor,
        ):
            cursor.execute(sql)
            return [dict(row) for row in cursor.fetchall()]

    sandbox = Sandbox(SandboxConfig(conversations=400))
    with serve(sandbox) as base_url:
        settings = resolve(agent_id=AGENT, api_key="sandbox-key", base_url=base_url)
        (first,) = load(settings, open_pipeline("postgres"))
        assert (first.status, first.fetched) == ("complete", 400)
        assert_equals_truth(sandbox, AGENT, fetch)

        sandbox.advance(timedelta(hours=12), arrivals=5)
        (later,) = load(settings, open_pipeline("postgres"))
        assert later.new == 5
        assert fetch("SELECT count(*) AS n FROM polyai.conversations") == [{"n": 405}]
