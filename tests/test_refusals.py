"""Likely causes of 401, 403 and 404, from what was sent."""

from __future__ import annotations

import re
from typing import Any

import pytest

from polyai.api.refusals import advice
from polyai.config.agent import DATA, V3, Agent

pytestmark = pytest.mark.unit

HOSTS = {DATA: "https://api.us.poly.ai", V3: "https://api.us-1.platform.polyai.app"}
KEY = "secret-0123456789"


def agent(**changes: Any) -> Agent:
    facts = {
        "agent_id": "PROJECT-1",
        "api_key": KEY,
        "region": "us",
        "account_id": "ws-1",
        "base_url": HOSTS[DATA],
        "v3_base_url": HOSTS[V3],
    }
    return Agent(**{**facts, **changes})


def causes(status: int, source_api: str = DATA, key: str = KEY, **changes: Any) -> list[str]:
    found = agent(**{"api_key": key, **changes})
    base_url = found.base_url if source_api == DATA else str(found.v3_base_url)
    text = advice(status, found, source_api, base_url, key)
    assert KEY not in text
    return re.split(r"\(\d\) ", text)[1:]


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("source_api", [DATA, V3])
def test_the_region_is_the_first_cause(status: int, source_api: str) -> None:
    first = causes(status, source_api)[0]
    assert "POLYAI_REGION to one of eu, uk" in first
    # v3 has no host for it
    assert ("studio" in first) == (source_api == DATA)


def test_of_another_url_the_cause_names_its_host() -> None:
    first = causes(401, base_url="https://proxy.example", v3_base_url="https://proxy.example")[0]
    assert "proxy.example" in first
    assert "POLYAI_BASE_URL" in first


@pytest.mark.parametrize("key", ["Bearer:abc", "X-API-KEY=abc", "«abc»", "abc,"])
def test_text_around_the_key_is_a_cause_where_it_looks_like_it(key: str) -> None:
    assert "copy it alone" in causes(401, key=key)[1]
    assert not [cause for cause in causes(401) if "copy it alone" in cause]


def test_a_key_of_v3_is_a_cause_where_none_is_set() -> None:
    assert [cause for cause in causes(401) if "api = 'conversations_v3'" in cause]
    without_account = causes(403, account_id=None)
    assert [cause for cause in without_account if "POLYAI_ACCOUNT_ID" in cause]
    assert not [cause for cause in causes(401, v3_api_key="other") if "api = '" in cause]


def test_a_key_of_the_data_api_is_a_cause_where_v3_has_none() -> None:
    assert [cause for cause in causes(401, V3) if "POLYAI_V3_API_KEY" in cause]
    alone = causes(401, V3, key="", v3_api_key=KEY)
    assert [cause for cause in alone if "set it as api_key (POLYAI_API_KEY)" in cause]


@pytest.mark.parametrize("source_api", [DATA, V3])
def test_two_different_keys_may_be_swapped(source_api: str) -> None:
    assert [cause for cause in causes(401, source_api, v3_api_key="other") if "swapped" in cause]
    assert not [cause for cause in causes(401, source_api, v3_api_key=KEY) if "swapped" in cause]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_causes_are_in_order(status: int) -> None:
    found = causes(status, key="Bearer:abc", agent_id="ws-1")
    assert "POLYAI_REGION" in found[0]
    assert "copy it alone" in found[1]
    assert "ws-1 is the id of an account" in found[2]
    assert ("permission" in found[-1]) == (status == 403)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_region_that_is_known_is_no_cause(status: int) -> None:
    text = advice(status, agent(), DATA, HOSTS[DATA], KEY, is_region_known=True)
    assert "POLYAI_REGION" not in text


@pytest.mark.parametrize(
    ("ids", "source_api", "expected"),
    [
        ({}, DATA, "there is no agent PROJECT-1"),
        ({"agent_id": "acme-team-4"}, DATA, "acme-team-4 is not spelt as the API knows it"),
        ({"agent_id": "ws-1"}, DATA, "ws-1 is the id of an account"),
        ({}, V3, "not in account ws-1"),
        ({"account_id": "PROJECT-1"}, V3, "account_id PROJECT-1 is the id of an agent"),
    ],
)
def test_a_404_names_ids_in_the_wrong_form(
    ids: dict[str, str], source_api: str, expected: str
) -> None:
    assert [cause for cause in causes(404, source_api, **ids) if expected in cause]
    assert not [cause for cause in causes(404, source_api, **ids) if "permission" in cause]


def test_permission_is_the_last_cause_of_a_403() -> None:
    assert "permission" in causes(403)[-1]
