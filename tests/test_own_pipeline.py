"""The dlt source in a pipeline of the user: refresh, limits, contracts, repeated runs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dlt
import pytest

from command import AGENT, KEY, access, query, run
from loaded import put_loaded
from polyai import polyai
from polyai.load.source import PolyaiSource
from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.load

CONFIG = SandboxConfig(conversations=230, inventions=True)
SMALL = SandboxConfig(conversations=40, inventions=True)
FILE = "own.duckdb"
TABLES = ("conversations", "turns", "metrics", "conversation_tags", "function_events", "notes")


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    sandbox = Sandbox(CONFIG)
    sandbox.advance(timedelta(days=30))
    with serve(sandbox) as url:
        yield url


@pytest.fixture(scope="module")
def small_url() -> Iterator[str]:
    sandbox = Sandbox(SMALL)
    sandbox.advance(timedelta(days=30))
    with serve(sandbox) as url:
        yield url


def source(base_url: str, **options: Any) -> PolyaiSource:
    made = polyai(AGENT, KEY, base_url=base_url, **options)
    assert isinstance(made, PolyaiSource)
    return made


def pipeline() -> dlt.Pipeline:
    destination = dlt.destinations.duckdb(FILE)
    return dlt.pipeline(
        "own", pipelines_dir="pipelines", destination=destination, dataset_name="calls"
    )


def rows(*tables: str) -> dict[str, int]:
    counts = {}
    for table in tables or TABLES:
        (row,) = query(f"SELECT count(*), count(DISTINCT conversation_id) FROM calls.{table}", FILE)
        assert isinstance(row[0], int)
        counts[table] = row[0]
    return counts


def loaded_ids() -> list[object]:
    return [row[0] for row in query("SELECT conversation_id FROM calls.conversations", FILE)]


class TestRefresh:
    @pytest.mark.matrix
    @pytest.mark.slow
    def test_everything_that_is_dropped_is_loaded_again(self, small_url: str) -> None:
        pipeline().run(source(small_url))
        before = rows()
        assert before["conversations"] == 40
        for mode in ("drop_data", "drop_resources", "drop_sources"):
            pipeline().run(source(small_url), refresh=mode)
            assert rows() == before, mode
        subset = source(small_url).with_resources("conversations", "turns", "fetch_failures")
        pipeline().run(subset, refresh="drop_resources")
        assert rows() == before
        pipeline().run(source(small_url, full=True), schema_contract="freeze")
        assert rows() == before

    @pytest.mark.matrix
    def test_erased_conversations_do_not_come_back(self) -> None:
        small = SandboxConfig(conversations=20, inventions=True)
        put_loaded(small)
        with serve(Sandbox(small)) as url:
            environment = access(url)
            assert run("load", **environment).returncode == 0
            first = str(query("SELECT min(conversation_id) FROM polyai.conversations")[0][0])
            assert run("forget", first, "--yes", **environment).returncode == 0
            own = dlt.pipeline(
                "polyai",
                pipelines_dir=str(Path(".dlt/pipelines").resolve()),
                destination=dlt.destinations.duckdb("polyai.duckdb"),
                dataset_name="main",
            )
            for mode in ("drop_sources", "drop_data"):
                own.run(source(url), refresh=mode)
                ids = [row[0] for row in query("SELECT conversation_id FROM polyai.conversations")]
                assert len(ids) == 19
                assert first not in ids
                assert query("SELECT conversation_id FROM polyai.forgotten") == [(first,)]


class TestLimits:
    @pytest.mark.matrix
    def test_a_limit_reads_a_sample_and_the_next_run_goes_on(self, base_url: str) -> None:
        pipeline().run(source(base_url).add_limit(1))
        assert rows()["conversations"] == 100
        limited = source(base_url)
        limited.listing.add_limit(1)
        pipeline().run(limited)
        assert rows()["conversations"] == 200
        pipeline().run(source(base_url))
        ids = loaded_ids()
        assert len(ids) == len(set(ids)) == 230

    @pytest.mark.slow
    def test_a_limit_of_rows_and_of_a_selection(self, base_url: str) -> None:
        selected = source(base_url).with_resources("conversations", "turns")
        pipeline().run(selected.add_limit(150, count_rows=True))
        assert rows("conversations", "turns")["conversations"] == 200
        assert query("SELECT 1 FROM duckdb_tables() WHERE table_name = 'metrics'", FILE) == []

    @pytest.mark.matrix
    def test_a_limit_of_time_ends(self, base_url: str) -> None:
        pipeline().run(source(base_url).add_limit(max_time=0.001))
        assert rows()["conversations"] == 100


class TestSelections:
    @pytest.mark.slow
    def test_what_failed_is_read_again_whatever_tables_are_selected(self) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=20, inventions=True))
        sandbox.advance(timedelta(days=30))
        bad = next(reversed(list(sandbox.conversation_ids(AGENT))))
        with serve(sandbox) as url:
            sandbox.faults.add("status", path=quote(bad, safe="") + "$", status=403)
            for _ in range(2):
                pipeline().run(source(url).with_resources("conversations", "turns"))
                assert rows("conversations")["conversations"] == 19
            failures = "SELECT conversation_id, attempts FROM calls.fetch_failures"
            assert query(failures, FILE) == [(bad, 2)]
            sandbox.faults.clear()
            sandbox.requests.clear()
            pipeline().run(source(url).with_resources("conversations", "turns"))
            assert sandbox.requests.count(r"/conversations/[^/?]+$") == 1
        assert bad in loaded_ids()
        assert query("SELECT 1 FROM duckdb_tables() WHERE table_name = 'metrics'", FILE) == []


class TestRepeatedRuns:
    @pytest.mark.matrix
    def test_the_same_source_twice(self, base_url: str) -> None:
        same = source(base_url)
        pipeline().run(same)
        before = rows()
        pipeline().run(same)
        assert rows() == before
        pipeline().run(same, refresh="drop_sources")
        assert rows() == before

    @pytest.mark.matrix
    def test_two_extractions_before_one_load(self, small_url: str) -> None:
        own = pipeline()
        own.extract(source(small_url))
        own.extract(source(small_url))
        own.normalize()
        own.load()
        found = rows()
        assert found["conversations"] == 40
        (duplicates,) = query(
            "SELECT count(*) - count(DISTINCT (conversation_id, turn_index)) FROM calls.turns", FILE
        )
        assert duplicates == (0,)
