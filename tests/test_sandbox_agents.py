"""Agents API of the sandbox, and what each of its keys may read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import requests

from polyai.sandbox import DATA_LISTING, Key, Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.server

AGENTS = ("PROJECT-BOOKINGS", "PROJECT-SPA")
AGENT = AGENTS[0]
LISTING = f"/v1/agents/{AGENT}/conversations"
V3 = f"/v3/ws-sandbox/{AGENT}/conversations"
NAMES = "/v1/accounts/ws-sandbox/agents"
CHAT = f"/v1/agents/{AGENT}/debug-chat"
ENVIRONMENTS = ("sandbox", "pre-release", "live")
KEYS = {
    "names-only": Key(("agents",)),
    "elsewhere": Key(refused=404, message="Agent ID does not exist."),
    "both": Key(("data", "v3")),
}
CONFIG = SandboxConfig(
    conversations=200,
    agents=AGENTS,
    oddities=False,
    keys=KEYS,
    slugs={"harbour": "ws-sandbox", "harbour-spa": "PROJECT-SPA"},
)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(CONFIG)


@pytest.fixture(scope="module")
def url(sandbox: Sandbox) -> Iterator[str]:
    with serve(sandbox) as base_url:
        yield base_url


def get(url: str, path: str, key: str = "sandbox-key", **params: Any) -> requests.Response:
    return requests.get(url + path, headers={"X-API-KEY": key}, params=params, timeout=10)


def documents(url: str, path: str, **params: Any) -> Any:
    response = get(url, path, **params)
    assert response.status_code == 200, response.text
    return response.json()


def test_agents_have_names(url: str) -> None:
    found = documents(url, NAMES)
    assert [one["agentId"] for one in found] == list(AGENTS)
    assert len({one["agentName"] for one in found}) == 2
    assert all(one["createdAt"] < one["updatedAt"] < "2026-11-01" for one in found)
    assert documents(url, "/v1/accounts/harbour/agents") == found
    assert get(url, "/v1/accounts/ws-other/agents").status_code == 404


@pytest.mark.parametrize("agent", AGENTS)
def test_each_conversation_has_the_deployment_of_its_time(
    url: str, sandbox: Sandbox, agent: str
) -> None:
    deployments: dict[str, tuple[str, str, str]] = {}
    for environment in ENVIRONMENTS:
        path = f"/v1/agents/{agent}/deployments"
        listed = documents(url, path, environment=environment)["deployments"]
        times = [one["createdAt"] for one in listed]
        assert times == sorted(times, reverse=True)
        assert {one["environment"] for one in listed} == {environment}
        first = documents(url, path, environment=environment, limit=1)["deployments"]
        active = documents(url, f"{path}/active")["activeDeployments"][environment]
        assert first == [active] == listed[:1]
        following = ["9999", *times[:-1]]
        deployments |= {
            one["id"]: (environment, one["createdAt"], end) for one, end in zip(listed, following)
        }
    used = set()
    for rows in sandbox.truth(agent):
        (call,) = rows["conversations"]
        environment, start, end = deployments[call["deployment_id"]]
        assert environment == call["environment"]
        assert start < call["created_at"].isoformat() < end
        used.add(call["deployment_id"])
    assert len(used) > 6


def test_a_version_reaches_all_environments_in_order(url: str) -> None:
    path = f"/v1/agents/{AGENT}/deployments"
    by_version: dict[str, list[str]] = {}
    for environment in ENVIRONMENTS:
        for one in documents(url, path, environment=environment)["deployments"]:
            by_version.setdefault(one["version"], []).append(one["createdAt"])
            assert one["createdBy"].endswith("@example.com")
            assert isinstance(one["metadata"]["deployment_message"], str)
    assert {len(times) for times in by_version.values()} <= {1, 2, 3}
    assert sum(len(times) == 3 for times in by_version.values()) >= 3
    assert all(times == sorted(times) for times in by_version.values())


def test_deployments_follow_the_clock() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=20, span=timedelta(days=4)))
    with serve(sandbox) as base_url:
        path = f"/v1/agents/{AGENT}/deployments"
        before = documents(base_url, path, environment="live")["deployments"]
        sandbox.advance(timedelta(days=1))
        after = documents(base_url, path, environment="live")["deployments"]
    assert after[1:] == before
    assert datetime.fromisoformat(after[0]["createdAt"]) <= sandbox.now


@pytest.mark.parametrize("environment", [None, "draft"])
def test_deployments_need_an_environment(url: str, environment: str | None) -> None:
    given = {} if environment is None else {"environment": environment}
    response = get(url, f"/v1/agents/{AGENT}/deployments", **given)
    assert (response.status_code, response.json()["error_code"]) == (400, "VALIDATION_ERROR")


def test_variants_name_those_of_the_conversations(url: str, sandbox: Sandbox) -> None:
    branches = documents(url, f"/v1/agents/{AGENT}/branches")["branches"]
    assert branches[0] == {"branchId": "main", "name": "main"}
    path = f"/v1/agents/{AGENT}/branches/main/variants"
    variants = {one["id"]: one for one in documents(url, path)["variants"]}
    calls = [
        rows["conversations"][0] for rows in sandbox.truth(AGENT, ("data", "conversations_v3"))
    ]
    assert {one["variant_id"] for one in calls} == {None, *variants}
    assert all(
        call["variant_name"] == variants[call["variant_id"]]["name"]
        for call in calls
        if call["variant_id"]
    )
    assert [one["isDefault"] for one in variants.values()] == [True, False, False]
    assert get(url, f"/v1/agents/{AGENT}/branches/other/variants").status_code == 404


def test_numbers_are_those_of_the_conversations(url: str, sandbox: Sandbox) -> None:
    numbers: dict[str, set[str]] = {}
    for agent in AGENTS:
        path = f"/v1/agents/{agent}/telephony/phone-numbers"
        found = documents(url, path)["phoneNumbers"]
        assert {one["projectId"] for one in found} == {agent}
        numbers[agent] = {one["number"] for one in found}
        own = {(one["number"], one["clientEnv"]) for one in found}
        calls = [rows["conversations"][0] for rows in sandbox.truth(agent)]
        sides = {"inbound": "to_number", "outbound": "from_number"}
        assert {(call[sides[call["direction"]]], call["environment"]) for call in calls} == own
        one = documents(url, path, connectorId=found[0]["connectorId"])["phoneNumbers"]
        assert one == found[:1]
    assert not numbers[AGENTS[0]] & numbers[AGENTS[1]]


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        pytest.param("sandbox-key", "data v3 agents chat", id="all rights"),
        pytest.param("sandbox-data-key", "data", id="data"),
        pytest.param("sandbox-v3-key", "v3", id="v3"),
        pytest.param("sandbox-workspace-key", "agents chat", id="workspace"),
        pytest.param("names-only", "agents", id="names only"),
        pytest.param("both", "data v3", id="data and v3"),
    ],
)
def test_a_key_may_do_what_its_rights_say(url: str, key: str, allowed: str) -> None:
    statuses = {
        "data": get(url, LISTING, key, limit=1).status_code,
        "v3": get(url, V3, key, limit=1).status_code,
        "agents": get(url, NAMES, key).status_code,
        "chat": requests.post(
            url + CHAT, json={"clientEnv": "live"}, headers={"X-API-KEY": key}, timeout=10
        ).status_code,
    }
    expected = {
        name: (201 if name == "chat" else 200) if name in allowed.split() else 403
        for name in statuses
    }
    assert statuses == expected


@pytest.mark.parametrize(
    ("key", "path"),
    [
        pytest.param("sandbox-data-key", "/v1/agents/PROJECT-SPA/conversations", id="data"),
        pytest.param("sandbox-data-key", "/v1/agents/harbour-spa/conversations", id="slug"),
        pytest.param("sandbox-v3-key", "/v3/ws-sandbox/PROJECT-SPA/conversations", id="v3"),
    ],
)
def test_a_key_of_a_project_reads_no_other(url: str, key: str, path: str) -> None:
    response = get(url, path, key)
    assert (response.status_code, response.json()["error_code"]) == (403, "FORBIDDEN")


def test_slugs_stand_for_ids(url: str) -> None:
    listed = documents(url, "/v1/agents/PROJECT-SPA/conversations")
    assert documents(url, "/v1/agents/harbour-spa/conversations") == listed
    v3 = documents(url, "/v3/ws-sandbox/PROJECT-SPA/conversations")
    assert documents(url, "/v3/harbour/harbour-spa/conversations") == v3


@pytest.mark.parametrize(
    ("status", "path", "code"),
    [
        (401, LISTING, "UNAUTHORIZED"),
        (403, LISTING, "FORBIDDEN"),
        (404, LISTING, "AGENT_NOT_FOUND"),
        (404, V3, "PROJECT_NOT_FOUND"),
    ],
)
def test_a_key_of_another_region_is_refused_as_configured(
    status: Any, path: str, code: str
) -> None:
    with serve(Sandbox(SandboxConfig(conversations=10, foreign_status=status))) as base_url:
        response = get(base_url, path, "sandbox-key-eu")
    assert (response.status_code, response.json()["error_code"]) == (status, code)


def test_messages_of_refused_keys(url: str) -> None:
    assert "expired" in get(url, LISTING, "sandbox-key-expired").json()["error"]
    assert get(url, LISTING, "elsewhere").json()["error"] == "Agent ID does not exist."


def test_the_listing_can_be_removed() -> None:
    sandbox = Sandbox(CONFIG)
    one = next(sandbox.conversation_ids(AGENT))
    with serve(sandbox) as base_url:
        sandbox.faults.add("no_route", path=DATA_LISTING)
        for agent in AGENTS:
            gone = get(base_url, f"/v1/agents/{agent}/conversations", limit=1)
            assert gone.status_code == 404
            assert gone.json() == {"message": "no Route matched with those values"}
        assert get(base_url, f"{LISTING}/{one}").status_code == 200
        assert get(base_url, V3, limit=1).status_code == 200


@pytest.mark.parametrize(
    ("key", "hidden"),
    [
        pytest.param(Key(has_transcripts=False), "turns", id="transcripts"),
        pytest.param(Key(has_metrics=False), "metrics", id="metrics"),
    ],
)
def test_transcripts_and_metrics_are_switched_on_per_key(key: Key, hidden: str) -> None:
    config = SandboxConfig(conversations=40, oddities=False, keys={"poor-key": key})
    sandbox = Sandbox(config)
    empty: Any = [] if hidden == "turns" else {}
    with serve(sandbox) as base_url:
        for row in documents(base_url, V3, key="poor-key")["conversations"]:
            assert row[hidden] == empty
        assert any(row[hidden] for row in documents(base_url, V3)["conversations"])
        for one in list(sandbox.conversation_ids(AGENT))[30:]:
            full = documents(base_url, f"{LISTING}/{one}")
            assert documents(base_url, f"{LISTING}/{one}", key="poor-key") == full | {hidden: empty}
    rows = list(sandbox.truth(AGENT, key=key))
    assert not any(each[hidden] for each in rows)
    assert any(each["function_events"] for each in rows)
