"""Results of every recipe against an independent calculation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import dlt
import pytest
from dlt.common.destination import Destination

import kpis
from cookbook_answers import ANSWERS, ZONE, Book, Rows
from polyai import open_pipeline, resolve
from polyai.cookbook import Recipe, recipes
from polyai.load.run import load
from polyai.recordings.run import PIPELINE_NAME as RECORDINGS_PIPELINE
from polyai.recordings.run import fetch_recordings
from polyai.sandbox import Sandbox, SandboxConfig, serve, texts
from polyai.sandbox.deployments import Deployment, Deployments
from polyai.views import PIPELINE_NAME, create_views
from polyai.warehouse.open import PIPELINE_NAME as LOAD_PIPELINE
from postgres_server import needs_postgres, postgres
from schemas.generate.cookbook import documents, write
from warehouse_rows import Fetch, from_duckdb, from_postgres

pytestmark = [pytest.mark.load, pytest.mark.slow]

SCHEMAS = Path(__file__).parent.parent / "schemas"
NOW = datetime(2026, 11, 3, 13, tzinfo=UTC)
OF_YEARS = SandboxConfig(
    conversations=120, inventions=True, now=NOW, span=timedelta(days=900), recording_rate_hz=20
)
"""Few conversations over years, to include an old call."""
OF_WEEKS = SandboxConfig(
    conversations=300, inventions=True, agents=("PROJECT-SPA",), now=NOW, span=timedelta(days=45)
)
"""Many conversations within weeks, so that callers call again within a week."""

NOT_SHOWN = {"missing_conversations", "open_failures"}
"""Columns that are 0 in a healthy warehouse."""


@dataclass(frozen=True)
class Loaded:
    """Warehouse into which both sandboxes were loaded.

    Attributes:
        dialect: SQL dialect, as named by sqlglot.
        fetch: Runs a query.
        book: Conversations as they were when they were last fetched.
    """

    dialect: str
    fetch: Fetch
    book: Book


@pytest.fixture(
    scope="module",
    params=["duckdb", pytest.param("postgres", marks=[needs_postgres, pytest.mark.slow])],
)
def loaded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Loaded]:
    folder = tmp_path_factory.mktemp("warehouse")
    if request.param == "duckdb":
        file = folder / "polyai.duckdb"
        fetch = from_duckdb(file)
        yield _loaded("duckdb", dlt.destinations.duckdb(str(file)), folder, fetch)
    else:
        with postgres() as url:
            # results do not depend on the time zone of the session
            fetch = from_postgres(url, "Asia/Tokyo")
            yield _loaded("postgres", dlt.destinations.postgres(url), folder, fetch)


def _loaded(dialect: str, destination: Destination[Any, Any], folder: Path, fetch: Fetch) -> Loaded:
    def pipeline(name: str = LOAD_PIPELINE) -> dlt.Pipeline:
        return open_pipeline(destination, pipelines_dir=folder, name=name)

    quiet, busy = Sandbox(OF_YEARS), Sandbox(OF_WEEKS)
    with serve(quiet) as base_url:
        settings = resolve(
            agent_id=OF_YEARS.agents[0],
            api_key="sandbox-key",
            base_url=base_url,
            recordings_url=str(folder / "recordings"),
        )
        load(settings, pipeline(), clock=lambda: quiet.now)
        fetch_recordings(settings, pipeline(name=RECORDINGS_PIPELINE), clock=lambda: quiet.now)
    with serve(busy) as base_url:
        settings = resolve(agent_id=OF_WEEKS.agents[0], api_key="sandbox-key", base_url=base_url)
        load(settings, pipeline(), clock=lambda: busy.now)
        calls = {call.conversation_id: call for call in kpis.all_calls(busy)}
        # conversations with a new note, and those that reach a re-fetch age of a day or a week
        edited = next(iter(busy.listed(OF_WEEKS.agents[0], offset=7)))
        name = busy.conversation(OF_WEEKS.agents[0], edited).conversation_id
        busy.edit(OF_WEEKS.agents[0], name, note="Called back")
        busy.requests.clear()
        busy.advance(timedelta(hours=30), arrivals=6)
        load(settings, pipeline(), clock=lambda: busy.now)
        paths = busy.requests.paths(r"GET .*/conversations/[^/?]+$")
    read_again = {unquote(path.rpartition("/")[2]) for path in paths}
    for conversation_id in read_again:
        # the warehouse has the state of the last fetch
        index = busy.find(OF_WEEKS.agents[0], conversation_id)
        assert index is not None
        calls[conversation_id] = busy.conversation(OF_WEEKS.agents[0], index)
    assert not create_views(pipeline(name=PIPELINE_NAME), ZONE).failed
    deployments: dict[kpis.Key, Deployment] = {
        (agent_id, deployment.deployment_id): deployment
        for config, now in ((OF_YEARS, quiet.now), (OF_WEEKS, busy.now))
        for agent_id in config.agents[:1]
        for deployment in Deployments(config, agent_id).listed("live", now)
    }
    book = Book([*kpis.all_calls(quiet), *calls.values()], read_again, busy.now, deployments)
    return Loaded(dialect, fetch, book)


def test_results_equal_the_independent_calculation(loaded: Loaded) -> None:
    for recipe in recipes():
        rows = _run(recipe, loaded)
        assert rows, recipe.name
        assert list(rows[0]) == list(recipe.columns), recipe.name
        if "agent_id" in rows[0]:
            # each agent is the first one of a sandbox
            assert {row["agent_name"] for row in rows} == {texts.AGENT_NAMES[0]}, recipe.name
        if "variant_id" in rows[0]:
            names = kpis.variant_names()
            assert all(row["variant_name"] == names.get(row["variant_id"]) for row in rows)
        key, calculate = ANSWERS[recipe.name]
        _assert_equal(recipe.name, _by(rows, key), calculate(loaded.book))


def test_the_old_call_has_its_recording(loaded: Loaded) -> None:
    (recipe,) = (recipe for recipe in recipes() if recipe.name == "07_one_old_call")
    (uris,) = {row["recording_uris"] for row in _run(recipe, loaded)}
    assert Path(uris).is_file()


def test_generated_files_are_current(tmp_path: Path) -> None:
    write(tmp_path)
    generated = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")}
    kept = {path.relative_to(SCHEMAS) for path in SCHEMAS.glob("cookbook/**/*.sql")}
    assert generated == kept | {Path("cookbook.md")}
    for name, text in documents():
        assert (SCHEMAS / name).read_text(encoding="utf-8") == text, (
            f"{name} has changed: run `python -m schemas.generate` and look at the diff"
        )


def test_every_recipe_is_numbered_and_documented() -> None:
    assert [recipe.number for recipe in recipes()] == list(range(1, len(recipes()) + 1))
    for recipe in recipes():
        assert recipe.question.endswith("?"), recipe.name
        assert recipe.remarks, recipe.name
        assert recipe.own.keys() <= recipe.columns.keys(), recipe.name
        for name, meaning in recipe.columns.items():
            assert meaning.endswith("."), (recipe.name, name)


def _run(recipe: Recipe, loaded: Loaded) -> list[dict[str, Any]]:
    return loaded.fetch(recipe.file(loaded.dialect))


def _by(rows: list[dict[str, Any]], key: tuple[str, ...]) -> Rows:
    found = {tuple(row[name] for name in key): row for row in rows}
    assert len(found) == len(rows), "duplicate key"
    return found


def _assert_equal(recipe: str, found: Rows, expected: Rows) -> None:
    assert expected, recipe
    assert found.keys() == expected.keys(), recipe
    for name in next(iter(expected.values())):
        # the data exercises every column
        is_shown = any(row[name] for row in expected.values())
        assert is_shown or name in NOT_SHOWN, (recipe, name)
    for key, row in expected.items():
        for name, value in row.items():
            value_found = found[key][name]
            assert _is_same(value_found, value), (recipe, key, name, value_found, value)


def _is_same(value_found: Any, value: Any) -> bool:
    if isinstance(value, float):
        return value_found is not None and math.isclose(
            value_found, value, rel_tol=1e-9, abs_tol=1e-9
        )
    # a list has all correct values
    return value_found in value if isinstance(value, list) else bool(value_found == value)
