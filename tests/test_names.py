"""Names behind ids: when they are read, what is kept of them, and keys that may not read them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from command import KEY
from odd_server import Answer, OddServer, Request
from polyai import open_pipeline, resolve
from polyai.api.names import AgentsApi
from polyai.load.names import read_names
from polyai.load.report import RunReport
from polyai.load.run import load
from polyai.sandbox import Key, Sandbox, SandboxConfig, serve
from polyai.shape.names import changed_rows, name_rows
from polyai.tables.names import AGENTS, DEPLOYMENTS, PHONE_NUMBERS, VARIANTS
from polyai.tables.registry import name_tables

pytestmark = pytest.mark.load

AGENT = "PROJECT-BOOKINGS"
DAY = timedelta(days=1)
REQUESTS = 8
"""Deployments of three environments, branches, variants of two, numbers, agents of the account."""
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Site:
    """A sandbox, loaded into the warehouse of the working directory at the sandbox's time."""

    def __init__(self, sandbox: Sandbox, base_url: str) -> None:
        self.sandbox = sandbox
        self.base_url = base_url

    def load(self, key: str = KEY, **options: Any) -> RunReport:
        self.sandbox.requests.clear()
        settings = resolve(agent_id=AGENT, api_key=key, base_url=self.base_url, **options)
        (report,) = load(settings, open_pipeline(), clock=lambda: self.sandbox.now)
        return report

    @property
    def names_requests(self) -> int:
        return self.sandbox.requests.kinds.get("agents", 0)


@pytest.fixture
def site() -> Iterator[Site]:
    keys = {
        "no-key": Key(("data",)),
    }
    sandbox = Sandbox(SandboxConfig(conversations=20, span=timedelta(days=8), keys=keys))
    with serve(sandbox) as base_url:
        yield Site(sandbox, base_url)


def query(sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        return connection.execute(sql).fetchall()


def counts() -> dict[str, int]:
    return {
        table.name: query(f"SELECT count(*) FROM polyai.{table.name}")[0][0]
        for table in name_tables()
    }


def test_names_are_read_once_a_day_and_change_nothing_else(site: Site) -> None:
    first = site.load()
    assert (first.status, site.names_requests) == ("complete", REQUESTS)
    assert first.names_read_at == site.sandbox.now
    before = counts()
    assert before.pop("deployments") >= 12
    assert before == {"agents": 1, "variants": 3, "phone_numbers": 3}
    ((unnamed,),) = query(
        "SELECT count(*) FROM polyai.conversations c "
        "ANTI JOIN polyai.deployments d USING (agent_id, deployment_id) "
        "WHERE c.deployment_id IS NOT NULL"
    )
    assert unnamed == 0
    written = query("SELECT _dlt_load_id FROM polyai.deployments ORDER BY deployment_id")
    site.sandbox.advance(DAY - timedelta(minutes=1))
    assert (site.load().names_read_at, site.names_requests) == (None, 0)
    site.sandbox.advance(timedelta(minutes=1))
    assert (site.load().status, site.names_requests) == ("complete", REQUESTS)
    again = query("SELECT _dlt_load_id FROM polyai.deployments ORDER BY deployment_id")
    # deployments of a day, and no row that is loaded
    assert set(written) <= set(again)
    assert len(written) <= len(again) < len(written) + 4


@pytest.mark.slow
def test_a_key_without_access_loads_without_names(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "polyai")
    report = site.load("no-key")
    assert (report.status, report.failed, report.error) == ("complete", 0, None)
    assert counts() == dict.fromkeys(counts(), 0)
    (line,) = [it for it in caplog.records if "may not read the names" in it.getMessage()]
    assert line.levelno == logging.INFO
    assert "403" in line.getMessage()
    assert 0 < site.names_requests <= 3
    site.load("no-key")
    assert site.names_requests == 0


@pytest.mark.parametrize(
    ("fault", "is_tried_again"),
    [
        pytest.param({"kind": "status", "status": 401}, False, id="401", marks=pytest.mark.matrix),
        pytest.param({"kind": "no_route"}, False, id="no route", marks=pytest.mark.matrix),
        pytest.param({"kind": "status", "status": 500}, True, id="500", marks=pytest.mark.matrix),
        pytest.param({"kind": "status", "status": 429}, True, id="429", marks=pytest.mark.matrix),
        pytest.param(
            {"kind": "status", "status": 429, "retry_after": "60"},
            True,
            id="long pause",
            marks=pytest.mark.slow,
        ),
        pytest.param({"kind": "truncated_json"}, True, id="broken", marks=pytest.mark.matrix),
    ],
)
def test_errors_of_names_never_fail_a_load(
    site: Site, fault: dict[str, Any], is_tried_again: bool
) -> None:
    site.sandbox.faults.add(**fault, path="/(deployments|branches|telephony|agents$)")
    began = time.monotonic()
    report = site.load()
    assert time.monotonic() - began < 30, "the load waited for names"
    assert (report.status, report.error) == ("complete", None)
    assert counts() == dict.fromkeys(counts(), 0)
    site.sandbox.faults.clear()
    site.load()
    assert site.names_requests == (REQUESTS if is_tried_again else 0)


@pytest.mark.slow
def test_an_error_of_one_table_keeps_the_others(site: Site) -> None:
    site.sandbox.faults.add("status", status=500, path="/branches")
    report = site.load()
    assert (report.status, report.names_read_at) == ("complete", None)
    found = counts()
    assert found.pop("variants") == 0
    assert all(found.values())
    site.sandbox.faults.clear()
    assert site.load().names_read_at == site.sandbox.now
    assert counts()["variants"] == 3


@pytest.mark.matrix
def test_a_branch_that_is_gone_keeps_the_variants_of_the_others(site: Site) -> None:
    site.load()
    variants = counts()["variants"]
    Path("polyai.duckdb").unlink()
    site.sandbox.faults.add("status", status=404, path="/branches/[^/]+/variants", times=1)
    assert site.load().names_read_at == site.sandbox.now
    assert 0 < counts()["variants"] <= variants
    assert query("SELECT count(*) FROM polyai.sync_runs WHERE status <> 'complete'") == [(0,)]


class TestByHand:
    @pytest.mark.matrix
    def test_names_fill_what_the_key_may_not_read(self, site: Site) -> None:
        site.load("no-key")
        ((variant,),) = query("SELECT max(variant_id) FROM polyai.conversations")
        ((deployment,),) = query("SELECT max(deployment_id) FROM polyai.conversations")
        names = {
            "agents": {AGENT: "Front desk", "PROJECT-OTHER": "Other"},
            "variants": {variant: "Spring menu", "VARIANT-NEVER-USED": "None"},
            "deployments": {deployment: "New opening hours"},
        }
        site.load("no-key", names=names)
        assert counts() == {"agents": 1, "deployments": 1, "variants": 1, "phone_numbers": 0}
        assert query("SELECT agent_id, agent_name FROM polyai.agents") == [(AGENT, "Front desk")]
        assert query("SELECT variant_id, variant_name FROM polyai.variants") == [
            (variant, "Spring menu")
        ]
        assert query("SELECT deployment_id, message FROM polyai.deployments") == [
            (deployment, "New opening hours")
        ]
        written = query("SELECT _dlt_load_id FROM polyai.agents")
        site.load("no-key", names=names)
        assert query("SELECT _dlt_load_id FROM polyai.agents") == written
        site.load("no-key", names={"agents": {AGENT: "Reception"}})
        ((name, earlier),) = query(
            "SELECT agent_name, earlier_names->>'$[*].name' FROM polyai.agents"
        )
        assert (name, earlier) == ("Reception", ["Front desk"])

    @pytest.mark.matrix
    def test_names_take_the_place_of_those_that_were_read(self, site: Site) -> None:
        site.load()
        others = "SELECT * EXCLUDE (agent_name, earlier_names, _dlt_load_id) FROM polyai.agents"
        read = query(others)
        by_hand = {"agents": {AGENT: "Front desk"}}
        site.load(names=by_hand)
        assert query("SELECT agent_name FROM polyai.agents") == [("Front desk",)]
        assert query(others) == read
        written = query("SELECT _dlt_load_id FROM polyai.agents")
        site.sandbox.advance(DAY)
        site.load(names=by_hand)
        assert query("SELECT _dlt_load_id FROM polyai.agents") == written
        site.sandbox.advance(DAY)
        site.load()
        assert query("SELECT agent_name FROM polyai.agents") != [("Front desk",)]


def test_an_agent_without_a_usable_id_is_not_mistaken_for_another() -> None:
    deployment = {"id": "d1", "accountId": "ws-1", "agentId": AGENT}
    agents = [{"agentName": "Other"}, {"agentId": [AGENT]}, {"agentId": AGENT, "agentName": "Ours"}]
    none: dict[str, list[Any]] = {"branches": [], "phoneNumbers": []}

    def answer(request: Request) -> Answer:
        if "/accounts/" in request.target:
            return Answer(agents)
        return Answer({"deployments": [deployment], **none})

    with OddServer(answer, has_names=True) as server:
        settings = resolve(agent_id=AGENT, api_key=KEY, base_url=server.url)
        (agent,) = settings.agents
        with AgentsApi(agent) as api:
            found = read_names(api, agent, settings)
    assert [row["agent_name"] for row in found.rows[AGENTS]] == ["Ours"]


def test_numbers_and_addresses_are_redacted_as_in_conversations(site: Site) -> None:
    site.load(pii="hash", pii_secret="a secret of some length")
    ((joined,),) = query(
        "SELECT count(*) FROM polyai.conversations c JOIN polyai.phone_numbers p "
        "ON p.number IN (c.from_number, c.to_number)"
    )
    assert joined > 10
    everything = str([query(f"SELECT * FROM polyai.{table.name}") for table in name_tables()])
    assert "@" not in everything
    assert "'+" not in everything


@pytest.mark.matrix
def test_dropped_numbers_have_no_row(site: Site) -> None:
    site.load(pii="drop")
    assert counts()["phone_numbers"] == 0
    assert query("SELECT DISTINCT created_by FROM polyai.deployments") == [("[dropped]",)]


@pytest.mark.unit
class TestRows:
    def test_a_row_has_every_field_of_the_answer(self) -> None:
        sent = {
            "id": "d1",
            "accountId": "ws-1",
            "environment": "live",
            "artifactVersion": "7",
            "version": "abc",
            "createdBy": "dev@example.com",
            "createdAt": "2026-05-01T10:00:00Z",
            "metadata": {"deployment_message": "Fix the menu", "ticket": 7},
        }
        assert name_rows(DEPLOYMENTS, AGENT, [sent, sent]) == [
            {
                "agent_id": AGENT,
                "deployment_id": "d1",
                "environment": "live",
                "version": "abc",
                "created_by": "dev@example.com",
                "created_at": datetime(2026, 5, 1, 10, tzinfo=UTC),
                "message": "Fix the menu",
                "extra": {"accountId": "ws-1", "artifactVersion": "7", "metadata": {"ticket": 7}},
            }
        ]

    def test_what_does_not_fit_is_kept(self) -> None:
        sent: dict[str, Any] = {"agentId": "P", "agentName": 7, "createdAt": "long ago"}
        (row,) = name_rows(AGENTS, AGENT, [sent])
        assert (row["agent_name"], row["created_at"]) == ("7", None)
        assert row["extra"] == {"agentId": "P", "createdAt": "long ago"}

    def test_the_message_is_that_of_the_metadata(self) -> None:
        sent = {"id": "d1", "deployment_message": "mine", "metadata": {"deployment_message": 7.5}}
        (row,) = name_rows(DEPLOYMENTS, AGENT, [sent])
        assert (row["message"], row["extra"]) == ("7.5", {"deployment_message": "mine"})

    @pytest.mark.parametrize("sent", [{}, {"number": None}, {"number": ""}])
    def test_no_id_is_no_row(self, sent: dict[str, Any]) -> None:
        assert name_rows(PHONE_NUMBERS, AGENT, [sent]) == []

    def test_an_equal_row_is_not_written_again(self) -> None:
        rows = name_rows(VARIANTS, AGENT, [{"id": "v1", "name": "Spa", "isDefault": True}])
        (first,) = changed_rows(VARIANTS, rows, [], NOW)
        loaded = _as_loaded(first)
        assert changed_rows(VARIANTS, rows, [loaded], NOW + DAY) == []

    @pytest.mark.parametrize("metadata", [{}, {"metadata": {}}, {"metadata": "text"}])
    def test_an_equal_deployment_without_a_message_is_not_written_again(
        self, metadata: dict[str, Any]
    ) -> None:
        rows = name_rows(DEPLOYMENTS, AGENT, [{"id": "d1", **metadata}])
        (first,) = changed_rows(DEPLOYMENTS, rows, [], NOW)
        loaded = dict.fromkeys(column.name for column in DEPLOYMENTS.columns) | first
        assert changed_rows(DEPLOYMENTS, rows, [loaded], NOW + DAY) == []

    def test_a_new_name_keeps_the_earlier_one(self) -> None:
        loaded: list[dict[str, Any]] = []
        for day, name in enumerate(("Spa", "Wellness", "Spa")):
            rows = name_rows(VARIANTS, AGENT, [{"id": "v1", "name": name}])
            loaded = [
                _as_loaded(row) for row in changed_rows(VARIANTS, rows, loaded, NOW + day * DAY)
            ]
        (row,) = loaded
        assert (row["variant_name"], row["first_seen_at"]) == ("Spa", NOW)
        assert row["earlier_names"] == [
            {"name": "Spa", "until": (NOW + DAY).isoformat()},
            {"name": "Wellness", "until": (NOW + 2 * DAY).isoformat()},
        ]


def _as_loaded(row: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(column.name for column in VARIANTS.columns) | row
