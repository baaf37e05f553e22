"""Loads into PostgreSQL: the same tables and rows as in DuckDB."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest

from polyai import Target, annotate, open_pipeline, resolve
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from postgres_server import binaries, postgres
from warehouse_rows import assert_equals_truth, from_postgres

AGENT = "PROJECT-BOOKINGS"

pytestmark = [
    pytest.mark.load,
    pytest.mark.skipif(
        binaries() is None and not os.environ.get("CI"),
        reason="needs a PostgreSQL server: install the package postgresql",
    ),
]


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with postgres() as url:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
        yield url


def test_the_warehouse_equals_the_truth_after_first_and_later_loads(database: str) -> None:
    fetch = from_postgres(database)
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


@pytest.mark.slow
def test_write_backs_are_known_to_all_machines(database: str) -> None:
    sandbox = Sandbox(SandboxConfig(conversations=12, oddities=False))
    with serve(sandbox) as base_url:
        settings = resolve(agent_id=AGENT, api_key="sandbox-key", base_url=base_url)
        load(settings, open_pipeline("postgres"))
        rows = [
            {
                "conversation_id": sandbox.traits(AGENT, index).conversation_id,
                "turn_index": 0,
                "role": "agent",
                "annotation_type": "missing_topic",
            }
            for index in sandbox.listed(AGENT)
        ]

        def written(folder: str, count: int) -> Counter[str]:
            target = Target("postgres", pipelines_dir=Path(folder))
            done = annotate(rows[:count], settings=settings, target=target)
            return Counter(one.outcome for one in done.results)

        first = written("one", 8)
        assert first.keys() <= {"sent", "there"}
        sandbox.requests.clear()
        assert written("two", 12)["there"] >= 8
        posts = sandbox.requests.count("^POST")
        assert posts == sandbox.requests.count("^GET") == 4
        (later,) = load(settings, open_pipeline("postgres"))
        assert later.changed == first["sent"] + 4
    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT max(n) FROM (SELECT count(*) AS n FROM polyai.annotations "
            "WHERE annotation_type = 'missing_topic' AND role = 'agent' AND turn_index = 0 "
            "GROUP BY conversation_id) a"
        )
        assert cursor.fetchone() == (1,)
        cursor.execute("SELECT status, count(*) FROM polyai.write_backs GROUP BY 1")
        assert cursor.fetchall() == [("sent", first["sent"] + 4)]
