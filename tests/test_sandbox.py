"""Sandbox over HTTP: responses, rejections and faults like those of the real API."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import requests

import polyai
from peak_memory import needs_peak_memory, peak_megabytes, reset_peak
from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.server

AGENT = "PROJECT-BOOKINGS"
CONVERSATIONS = f"/v1/agents/{AGENT}/conversations"
V3 = f"/v3/ws-sandbox/{AGENT}/conversations"
NAMES = "/v1/accounts/ws-sandbox/agents"
NOW = datetime(2026, 11, 1, tzinfo=UTC)


class Client:
    """HTTP session with a base URL and an API key."""

    def __init__(self, base_url: str, key: str | None = "sandbox-key") -> None:
        self.base_url = base_url
        self.session = requests.Session()
        if key is not None:
            self.session.headers["x-Api-Key"] = key

    def get(self, path: str, **params: Any) -> requests.Response:
        return self.session.get(self.base_url + path, params=params, timeout=10)

    def post(self, path: str, body: Any = None) -> requests.Response:
        return self.session.post(self.base_url + path, json=body, timeout=10)

    def delete(self, path: str) -> requests.Response:
        return self.session.delete(self.base_url + path, timeout=10)


class Served:
    """Sandbox, its base URL and a client with full access."""

    def __init__(self, sandbox: Sandbox, base_url: str) -> None:
        self.sandbox = sandbox
        self.base_url = base_url
        self.client = Client(base_url)
        self.get, self.post = self.client.get, self.client.post

    def path(self, conversation_id: str, ending: str = "") -> str:
        return f"{CONVERSATIONS}/{quote(conversation_id, safe='')}{ending}"


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    """Sandbox for tests that do not change its state."""
    sandbox = Sandbox(SandboxConfig(conversations=450, agents=(AGENT, "other/agent")))
    with serve(sandbox) as base_url:
        served = Served(sandbox, base_url)
        yield served
        served.client.session.close()


@pytest.fixture
def served() -> Iterator[Served]:
    sandbox = Sandbox(SandboxConfig(conversations=120, oddities=False))
    with serve(sandbox) as base_url:
        served = Served(sandbox, base_url)
        yield served
        served.client.session.close()


def assert_rejected(response: requests.Response, status: int, code: str) -> None:
    assert response.status_code == status
    envelope = response.json()
    assert envelope == {
        "success": False,
        "error": envelope["error"],
        "error_id": response.headers["X-PolyAI-Correlation-Id"],
        "error_code": code,
        "error_message": envelope["error"],
        "data": None,
    }
    assert envelope["error"]


def assert_no_route(response: requests.Response) -> None:
    assert response.status_code == 404
    assert response.json() == {"message": "no Route matched with those values"}


def test_pages_are_capped_and_join(shared: Served) -> None:
    found: list[str] = []
    while True:
        page = shared.get(CONVERSATIONS, limit=1000, offset=len(found)).json()
        assert page["limit"] == 100
        assert page["offset"] == len(found)
        assert page["count"] == 450
        if not page["conversations"]:
            break
        found += [row["conversationId"] for row in page["conversations"]]
    assert found == list(shared.sandbox.conversation_ids(AGENT))


def test_default_limit_is_50(shared: Served) -> None:
    page = shared.get(CONVERSATIONS).json()
    assert (page["limit"], page["offset"], len(page["conversations"])) == (50, 0, 50)


def test_list_rows_are_details_without_nested_keys(shared: Served) -> None:
    for row in shared.get(CONVERSATIONS, limit=100).json()["conversations"]:
        detail = shared.get(shared.path(row["conversationId"])).json()
        nested = {"turns", "metrics", "functionEvents"}
        assert row == {key: value for key, value in detail.items() if key not in nested}


def test_details_are_found_by_ids_with_special_characters(shared: Served) -> None:
    ids = list(shared.sandbox.conversation_ids(AGENT))
    odd = [one for one in ids if "/" in one]
    assert odd
    for one in odd + ids[:5]:
        response = shared.get(shared.path(one))
        assert response.json() == shared.sandbox.detail(AGENT, one)
    unencoded = shared.client.get(f"{CONVERSATIONS}/acme/x/y")
    assert_no_route(unencoded)


def test_other_agents_are_addressed_by_their_encoded_id(shared: Served) -> None:
    page = shared.get("/v1/agents/other%2Fagent/conversations").json()
    assert page["conversations"][0]["conversationId"] == next(
        shared.sandbox.conversation_ids("other/agent")
    )


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        pytest.param("/v1/agents/UNKNOWN/conversations", 404, "AGENT_NOT_FOUND", id="agent"),
        pytest.param("/v1/agents/UNKNOWN/conversations/CA1", 404, "AGENT_NOT_FOUND", id="agent's"),
        pytest.param(f"{CONVERSATIONS}/CA1", 404, "CONVERSATIONS_NOT_FOUND", id="conversation"),
        pytest.param(f"{CONVERSATIONS}?limit=0", 400, "VALIDATION_ERROR", id="limit 0"),
        pytest.param(f"{CONVERSATIONS}?limit=ten", 400, "VALIDATION_ERROR", id="limit text"),
        pytest.param(f"{CONVERSATIONS}?offset=-1", 400, "VALIDATION_ERROR", id="offset"),
        pytest.param(f"/v1/agents/{AGENT}/debug-chat", 405, "METHOD_NOT_ALLOWED", id="method"),
        pytest.param(f"/v3/ws/{AGENT}/conversations", 404, "PROJECT_NOT_FOUND", id="v3 account"),
        pytest.param("/v3/ws-sandbox/X/conversations", 404, "PROJECT_NOT_FOUND", id="v3 project"),
        pytest.param(f"{V3}?limit=1001", 400, "VALIDATION_ERROR", id="v3 limit"),
        pytest.param(f"{V3}?cursor=x", 400, "INVALID_CURSOR", id="v3 cursor"),
        pytest.param(f"{V3}?cursor=%C3%BC", 400, "INVALID_CURSOR", id="v3 cursor not ASCII"),
        pytest.param(f"{V3}?cursor=", 400, "INVALID_CURSOR", id="v3 cursor empty"),
        pytest.param(f"{V3}?start_time=monday", 400, "VALIDATION_ERROR", id="v3 time"),
        pytest.param(f"{V3}?client_env=draft", 400, "VALIDATION_ERROR", id="v3 environment"),
        pytest.param(f"{V3}?in_progress=maybe", 400, "VALIDATION_ERROR", id="v3 boolean"),
    ],
)
def test_rejections_are_error_envelopes(shared: Served, path: str, status: int, code: str) -> None:
    assert_rejected(shared.get(path), status, code)


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        pytest.param(None, 401, "UNAUTHORIZED", id="none"),
        pytest.param("wrong", 401, "UNAUTHORIZED", id="unknown"),
        pytest.param("sandbox-key-eu", 401, "UNAUTHORIZED", id="another region"),
        pytest.param("sandbox-key-expired", 401, "UNAUTHORIZED", id="expired"),
        pytest.param("sandbox-key-forbidden", 403, "FORBIDDEN", id="without permission"),
    ],
)
@pytest.mark.parametrize("path", [CONVERSATIONS, V3, NAMES])
def test_keys_are_checked(
    shared: Served, path: str, key: str | None, status: int, code: str
) -> None:
    client = Client(shared.base_url, key)
    assert_rejected(client.get(path), status, code)
    client.session.close()


@pytest.mark.parametrize("key", [None, "wrong", "sandbox-key"])
@pytest.mark.parametrize("path", ["/v1/nothing", f"{CONVERSATIONS}/..", "/v2/agents", "/"])
def test_unknown_routes_are_answered_by_the_gateway(
    shared: Served, path: str, key: str | None
) -> None:
    client = Client(shared.base_url, key)
    assert_no_route(client.get(path))
    client.session.close()


def test_a_limited_key_sees_no_numbers_of_callers(shared: Served) -> None:
    client = Client(shared.base_url, "sandbox-key-no-pii")
    rows = client.get(CONVERSATIONS, limit=100).json()["conversations"]
    full = shared.get(CONVERSATIONS, limit=100).json()["conversations"]
    assert {row["direction"] for row in rows} == {"inbound", "outbound"}
    for row, seen in zip(rows, full):
        caller, own = "fromNumber", "toNumber"
        if row["direction"] == "outbound":
            caller, own = own, caller
        assert (row[caller], row[own]) == ("REDACTED", seen[own])
        assert seen[caller] != "REDACTED"
    detail = client.get(shared.path(rows[0]["conversationId"])).json()
    assert "REDACTED" in (detail["fromNumber"], detail["toNumber"])
    for row in client.get(V3).json()["conversations"]:
        hidden = "to_number" if row["id"].startswith("OUT-") else "from_number"
        assert [name for name, value in row.items() if value == "REDACTED"] == [hidden]
    client.session.close()


def test_deleted_and_new_conversations_shift_rows(served: Served) -> None:
    ids = list(served.sandbox.conversation_ids(AGENT))
    served.sandbox.delete(AGENT, ids[3])
    assert_rejected(served.get(served.path(ids[3])), 404, "CONVERSATIONS_NOT_FOUND")
    served.sandbox.advance(timedelta(hours=1), arrivals=2)
    page = served.get(CONVERSATIONS, limit=6).json()
    listed = [row["conversationId"] for row in page["conversations"]]
    assert listed[2:] == [ids[0], ids[1], ids[2], ids[4]]
    assert page["count"] == 121


def test_conversations_arrive_with_each_listing_request() -> None:
    config = SandboxConfig(conversations=50, arrivals_per_request=1.5, oddities=False)
    with serve(Sandbox(config)) as base_url:
        client = Client(base_url)
        counts = [client.get(CONVERSATIONS, limit=1).json()["count"] for _ in range(5)]
        client.session.close()
    assert counts == [50, 51, 53, 54, 56]


def test_annotations_are_added_and_not_idempotent(served: Served) -> None:
    one = next(
        r["conversations"][0]["conversation_id"]
        for r in served.sandbox.truth(AGENT)
        if len(r["turns"]) > 2 and not r["annotations"]
    )
    body = {"annotations": [{"turnId": 1, "role": "agent", "annotationType": "missing_topic"}]}
    for _ in range(2):
        response = served.post(served.path(one, "/annotation"), body)
        assert (response.status_code, response.json()) == (201, {"success": True})
    made = served.get(served.path(one)).json()["turns"][1]["reviews"]
    assert [review["annotationType"] for review in made] == ["missing_topic"] * 2
    assert made[0]["role"] == "agent"
    rows = next(r for r in served.sandbox.truth(AGENT) if len(r["annotations"]) == 2)
    assert [row["turn_index"] for row in rows["annotations"]] == [1, 1]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(None, id="none"),
        pytest.param([], id="a list"),
        pytest.param({}, id="empty"),
        pytest.param({"annotations": []}, id="no annotation"),
        pytest.param({"annotations": ["x"]}, id="not an object"),
        *(
            pytest.param(
                {
                    "annotations": [
                        {"turnId": 0, "role": "user", "annotationType": "wrong_info"} | change
                    ]
                },
                id=str(change),
            )
            for change in (
                {"turnId": 9999},
                {"turnId": -1},
                {"turnId": True},
                {"turnId": "0"},
                {"role": "bot"},
                {"role": ["user"]},
                {"annotationType": "bad"},
            )
        ),
    ],
)
def test_malformed_annotations_are_rejected(shared: Served, body: Any) -> None:
    one = next(shared.sandbox.conversation_ids(AGENT))
    assert_rejected(shared.post(shared.path(one, "/annotation"), body), 400, "VALIDATION_ERROR")


def test_notes_replace_each_other(served: Served) -> None:
    one = next(served.sandbox.conversation_ids(AGENT))
    for note in ("first", "second 📧"):
        assert served.post(served.path(one, "/note"), {"note": note}).status_code == 201
        row = served.get(CONVERSATIONS, limit=1).json()["conversations"][0]
        assert row["note"] == served.get(served.path(one)).json()["note"] == note
    assert_rejected(served.post(served.path(one, "/note"), {"note": 5}), 400, "VALIDATION_ERROR")
    assert_rejected(
        served.post(f"{CONVERSATIONS}/CA1/note", {"note": "x"}), 404, "CONVERSATIONS_NOT_FOUND"
    )


def test_recordings_are_wav_files(shared: Served) -> None:
    formats, odd = set(), 0
    for one in islice(shared.sandbox.conversation_ids(AGENT), 20, 90):
        response = shared.get(shared.path(one, "/audio"), redacted="true")
        if response.status_code == 404:
            assert_rejected(response, 404, "CONVERSATIONS_RECORDING_NOT_FOUND")
            assert shared.sandbox.recording(AGENT, one) is None
            continue
        assert response.headers["content-type"] == "audio/wav"
        content = response.content
        assert content == shared.sandbox.recording(AGENT, one, redacted=True)
        assert content[:4] == b"RIFF"
        assert int.from_bytes(content[4:8], "little") == len(content) - 8
        layout = content.index(b"fmt ")
        kind = int.from_bytes(content[layout + 8 : layout + 10], "little")
        formats.add(kind)
        odd += content[12:16] == b"JUNK"
        if kind == 1:
            with wave.open(io.BytesIO(content)) as recording:
                assert recording.getframerate() == 8000
                assert recording.getsampwidth() == 2
                assert recording.getnchannels() == 1
                assert recording.getnframes() > 8000
                assert any(recording.readframes(8000))
    assert formats == {1, 7}
    assert odd


def test_recordings_differ_by_direction_and_redaction(shared: Served) -> None:
    one = next(
        one
        for one in shared.sandbox.conversation_ids(AGENT)
        if shared.sandbox.recording(AGENT, one)
    )
    path = shared.path(one, "/audio")
    answers = {
        shared.get(path, direction=direction, redacted=redacted).content
        for direction in ("combined", "user", "agent")
        for redacted in ("true", "false")
    }
    assert len(answers) == 6
    limited = Client(shared.base_url, "sandbox-key-no-pii")
    assert limited.get(path, redacted="false").content == shared.get(path, redacted="true").content
    limited.session.close()
    assert_rejected(shared.get(path, direction="both"), 400, "VALIDATION_ERROR")
    assert_rejected(shared.get(path, redacted="perhaps"), 400, "VALIDATION_ERROR")


def test_calls_in_progress_have_no_recording_yet(served: Served) -> None:
    served.sandbox.advance(timedelta(seconds=1), arrivals=60)
    new = list(islice(served.sandbox.conversation_ids(AGENT), 60))
    assert all(served.sandbox.recording(AGENT, one) is None for one in new)
    served.sandbox.advance(timedelta(hours=1))
    found = [served.get(served.path(one, "/audio")).status_code for one in new]
    assert set(found) == {200, 404}


def test_debug_chat_replies_and_ends(shared: Served) -> None:
    start = f"/v1/agents/{AGENT}/debug-chat"
    opened = shared.post(start, {"clientEnv": "sandbox"})
    assert opened.status_code == 201
    greeting = opened.json()
    assert greeting["userInput"] == ""
    assert greeting["response"].startswith("Thank you for calling")
    assert greeting["conversationEnded"] is False
    chat = f"{start}/{quote(greeting['conversationId'], safe='')}"

    def say(message: str) -> dict[str, Any]:
        response = shared.post(chat, {"clientEnv": "sandbox", "message": message})
        assert response.status_code == 200
        answer: dict[str, Any] = response.json()
        assert answer["userInput"] == message
        return answer

    booking = say("I want to book a table")
    assert booking["metadata"]["currentNode"] == "book_table"
    assert booking["metadata"]["nodeTrace"] == ["start", "book_table"]
    assert booking["metadata"]["retrievedTopics"] == ["restaurant_booking", "opening_hours"]
    assert booking["metadata"]["functionEvents"][0]["name"] == "create_booking"
    assert booking["delayedResponse"] is False
    assert say("slow, please")["delayedResponse"] is True
    assert say("bye")["conversationEnded"] is True
    again = shared.post(chat, {"clientEnv": "sandbox", "message": "hello"})
    assert_rejected(again, 410, "CHAT_CONVERSATION_ENDED")


def test_debug_chat_accepts_an_id_and_a_language(shared: Served) -> None:
    start = f"/v1/agents/{AGENT}/debug-chat"
    options = {"clientEnv": "live", "conversationId": "my chat/1", "asrLangCode": "de-DE"}
    opened = shared.post(start, options).json()
    assert opened["conversationId"] == "my chat/1"
    assert "Hafenhotel" in opened["response"]
    replied = shared.post(f"{start}/my%20chat%2F1", {"clientEnv": "live", "message": "a person!"})
    assert replied.json()["metadata"]["handoffDestination"] == "Front desk"


def test_chats_of_polyais_command_line_are_in_snake_case(shared: Served) -> None:
    start = f"/adk/v1/accounts/ws-sandbox/projects/{AGENT}/chat"
    options = {"client_env": "sandbox", "channel": "chat.polyai", "asr_lang_code": "de-DE"}
    opened = shared.post(start, options).json()
    assert "Hafenhotel" in opened["response"]
    assert opened["metadata"]["asr_lang_code"] == "de-DE"
    chat = f"{start}/{opened['conversation_id']}"
    booked = shared.post(chat, {"client_env": "sandbox", "message": "book a table"}).json()
    assert booked["metadata"]["function_events"][0]["name"] == "create_booking"
    assert booked["conversation_ended"] is False
    assert shared.post(f"{chat}/end", {"client_env": "sandbox"}).status_code == 200
    again = shared.post(chat, {"client_env": "sandbox", "message": "still there?"})
    assert_rejected(again, 410, "CHAT_CONVERSATION_ENDED")
    client = Client(shared.base_url, "sandbox-data-key")
    assert_rejected(client.post(start, options), 403, "FORBIDDEN")
    client.session.close()


def test_debug_chat_rejects_invalid_requests(shared: Served) -> None:
    start = f"/v1/agents/{AGENT}/debug-chat"
    assert_rejected(shared.post(start, {}), 400, "VALIDATION_ERROR")
    assert_rejected(shared.post(start, {"clientEnv": "draft"}), 400, "CHAT_DRAFT_NOT_EXIST")
    unknown = shared.post(f"{start}/none", {"clientEnv": "live", "message": "x"})
    assert_rejected(unknown, 404, "CONVERSATIONS_NOT_FOUND")
    chat = f"{start}/{shared.post(start, {'clientEnv': 'live'}).json()['conversationId']}"
    for message in ("timeout", "still there?"):
        answer = shared.post(chat, {"clientEnv": "live", "message": message})
        assert_rejected(answer, 400, "CHAT_TIMEOUT")


def v3_ids(served: Served, **params: Any) -> list[str]:
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = served.get(V3, **params, **cursor).json()
        found += [row["id"] for row in page["conversations"]]
        if page["cursor"] is None:
            assert "next_offset" not in page
            return found
        cursor = {"cursor": page["cursor"]}


def test_v3_cursors_list_all_conversations(shared: Served) -> None:
    everything = list(shared.sandbox.conversation_ids(AGENT))
    parts = [
        v3_ids(shared, client_env=environment, limit=37)
        for environment in ("live", "sandbox", "pre-release")
    ]
    assert sorted(one for part in parts for one in part) == sorted(everything)
    assert v3_ids(shared) == parts[0]
    positions = [everything.index(one) for one in parts[0]]
    assert positions == sorted(positions)


def test_v3_windows_add_up(shared: Served) -> None:
    edges = [NOW - timedelta(days=days) for days in (121, 60, 20, 3, 0)] + [NOW + timedelta(days=1)]
    slices = [
        v3_ids(shared, start_time=start.isoformat(), end_time=end.isoformat())
        for start, end in pairwise(edges)
    ]
    assert [one for part in reversed(slices) for one in part] == v3_ids(shared)
    assert v3_ids(shared, start_time="2027-01-01") == []


def test_v3_filters(shared: Served) -> None:
    rows = shared.get(V3).json()["conversations"]
    running = [row["id"] for row in rows if row["in_progress"]]
    assert running
    assert v3_ids(shared, in_progress="true") == running
    assert len(v3_ids(shared, in_progress="false")) == len(rows) - len(running)
    texting = v3_ids(shared, channel=["WEBCHAT", "SMS"])
    assert 0 < len(texting) < len(rows)
    variants = [row["id"] for row in rows if row["variant_id"] in ("VARIANT-1", "7")]
    assert set(v3_ids(shared, variant_id="VARIANT-1")) <= {*variants}


def test_v3_cursors_stay_valid_while_conversations_arrive(served: Served) -> None:
    expected = v3_ids(served)
    page = served.get(V3, limit=20).json()
    served.sandbox.advance(timedelta(minutes=5), arrivals=12)
    rest: list[str] = []
    cursor = page["cursor"]
    while cursor is not None:
        following = served.get(V3, limit=20, cursor=cursor).json()
        rest += [row["id"] for row in following["conversations"]]
        cursor = following["cursor"]
    assert [row["id"] for row in page["conversations"]] + rest == expected
    shifted = served.get(V3, limit=20, offset=page["next_offset"]).json()["conversations"]
    assert shifted[0]["id"] in expected[:20]


def test_v3_rows_have_text_instead_of_null(shared: Served) -> None:
    rows = shared.get(V3, include_latency="true").json()["conversations"]
    for row in rows:
        assert set(row) >= {"num_turns", "num_silences", "num_ood", "state", "metrics", "turns"}
        assert isinstance(row["handoff_destination"], str)
        assert isinstance(row["variant_id"], str)
        for turn in row["turns"]:
            assert isinstance(turn["user_input"], str)
            assert isinstance(turn["latency"], float | None)
        for value in row["metrics"].values():
            assert isinstance(value, str) or len(value) != 1
    assert any(row["num_turns"] > 0 and not row["turns"] for row in rows)
    plain = shared.get(V3, limit=1).json()["conversations"][0]
    assert all("latency" not in turn for turn in plain["turns"])


def test_v3_limits_can_be_those_of_the_guide() -> None:
    config = SandboxConfig(conversations=60, v3_default_limit=5, v3_max_limit=5000)
    with serve(Sandbox(config)) as base_url:
        client = Client(base_url)
        assert len(client.get(V3).json()["conversations"]) == 5
        assert client.get(V3, limit=5000).status_code == 200
        assert_rejected(client.get(V3, limit=5001), 400, "VALIDATION_ERROR")
        client.session.close()


def test_v3_can_time_out_on_large_pages_and_have_no_cursors() -> None:
    config = SandboxConfig(conversations=120, v3_stable_limit=20, v3_cursors=False)
    sandbox = Sandbox(config)
    found: list[str] = []
    with serve(sandbox) as base_url:
        client = Client(base_url)
        large = client.get(V3, limit=21)
        assert (large.status_code, large.json()) == (
            504,
            {"message": "The upstream server is timing out"},
        )
        offset: int | None = 0
        while offset is not None:
            page = client.get(V3, limit=20, offset=offset).json()
            assert "cursor" not in page
            found += [row["id"] for row in page["conversations"]]
            offset = page.get("next_offset")
        client.session.close()
    live = [
        rows["conversations"][0]["conversation_id"]
        for rows in sandbox.truth(AGENT)
        if rows["conversations"][0]["environment"] == "live"
    ]
    assert found == live


def test_a_correlation_id_is_echoed(shared: Served) -> None:
    headers = {"X-API-KEY": "sandbox-key", "X-PolyAI-Correlation-Id": "mine-1"}
    for path in (CONVERSATIONS, f"{CONVERSATIONS}/CA1", "/v1/nothing"):
        response = requests.get(shared.base_url + path, headers=headers, timeout=10)
        assert response.headers["X-PolyAI-Correlation-Id"] == "mine-1"
    assert_rejected(
        requests.get(shared.base_url + f"{CONVERSATIONS}/CA1", headers=headers, timeout=10),
        404,
        "CONVERSATIONS_NOT_FOUND",
    )


def test_faults_by_status(served: Served) -> None:
    faults = served.sandbox.faults
    faults.add("status", path=r"/conversations$", status=429, retry_after="7", times=2)
    for _ in range(2):
        response = served.get(CONVERSATIONS, limit=1)
        assert_rejected(response, 429, "SANDBOX_FAULT")
        assert response.headers["Retry-After"] == "7"
    assert served.get(CONVERSATIONS).status_code == 200
    assert faults.hits == 2


def test_faults_html_envelope_and_empty(served: Served) -> None:
    faults = served.sandbox.faults
    for kind, options in (("html", {"status": 502}), ("html", {"status": 200})):
        faults.add(kind, times=1, **options)  # type: ignore[arg-type]
        response = served.get(CONVERSATIONS)
        assert response.status_code == options["status"]
        assert response.headers["content-type"].startswith("text/html")
        assert response.text.startswith("<html>")
    faults.add("envelope", times=1)
    assert_rejected(served.get(CONVERSATIONS), 200, "SANDBOX_FAULT")
    faults.add("empty", times=1)
    response = served.get(CONVERSATIONS)
    assert (response.status_code, response.content) == (200, b"")


def test_fault_reset(served: Served) -> None:
    served.sandbox.faults.add("reset", times=1)
    with pytest.raises(requests.ConnectionError):
        served.get(CONVERSATIONS)
    assert served.get(CONVERSATIONS).status_code == 200
    assert [request.status for request in served.sandbox.requests.matching()] == [0, 200]


def test_fault_truncated_sends_half_of_the_body(served: Served) -> None:
    whole = served.get(CONVERSATIONS).content
    served.sandbox.faults.add("truncated", times=1)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        served.get(CONVERSATIONS)
    served.sandbox.faults.add("truncated_json", times=1)
    response = served.get(CONVERSATIONS)
    assert response.status_code == 200
    assert response.content == whole[: len(whole) // 2]
    with pytest.raises(requests.exceptions.JSONDecodeError):
        response.json()


def test_fault_delay(served: Served) -> None:
    served.sandbox.faults.add("delay", seconds=0.3, times=1, path="limit=1")
    start = time.monotonic()
    assert served.get(CONVERSATIONS, limit=1).status_code == 200
    assert time.monotonic() - start >= 0.3


def test_faults_by_rate_are_determined_by_the_seed() -> None:
    def statuses() -> list[int]:
        sandbox = Sandbox(SandboxConfig(conversations=10))
        sandbox.faults.add("status", rate=0.3, status=500, path="conversations", method="GET")
        with serve(sandbox) as base_url:
            client = Client(base_url)
            found = [client.get(CONVERSATIONS).status_code for _ in range(60)]
            client.session.close()
        return found

    first = statuses()
    assert 5 < first.count(500) < 35
    assert first == statuses()


def test_unknown_faults_are_errors(served: Served) -> None:
    with pytest.raises(ValueError, match="unknown kind"):
        served.sandbox.faults.add("melt")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        served.sandbox.faults.add("status", colour="red")
    served.sandbox.faults.add("status")
    served.sandbox.faults.clear()
    assert served.get(CONVERSATIONS).status_code == 200


def test_rate_limit() -> None:
    with serve(Sandbox(SandboxConfig(conversations=10, rate_limit=5))) as base_url:
        client = Client(base_url)
        answers = [client.get(CONVERSATIONS) for _ in range(12)]
        client.session.close()
    rejected = [answer for answer in answers if answer.status_code == 429]
    assert 4 <= len(rejected) <= 7
    assert {answer.headers["Retry-After"] for answer in rejected} == {"1"}


def test_every_response_is_delayed() -> None:
    with serve(Sandbox(SandboxConfig(conversations=10, delay_seconds=0.1))) as base_url:
        client = Client(base_url)
        start = time.monotonic()
        threads = [threading.Thread(target=client.get, args=(CONVERSATIONS,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.monotonic() - start
        client.session.close()
    assert 0.1 <= elapsed < 0.8


def test_requests_are_logged(served: Served) -> None:
    one = next(served.sandbox.conversation_ids(AGENT))
    served.get(CONVERSATIONS, limit=3)
    served.get(served.path(one))
    served.get(served.path(one, "/audio"))
    served.get(V3)
    served.get("/elsewhere")
    served.post(served.path(one, "/note"), {"note": "x"})
    log = served.sandbox.requests
    assert log.kinds == {"list": 1, "detail": 1, "audio": 1, "v3": 1, "other": 1, "note": 1}
    assert log.count() == 6
    assert log.paths(r"limit=") == [f"{CONVERSATIONS}?limit=3"]
    assert log.count(r"^POST ") == 1
    assert log.matching("elsewhere")[0].status == 404
    log.clear()
    assert (log.count(), log.kinds) == (0, {})


def test_cached_responses_are_current() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=20, kept_answers=100, oddities=False))
    with serve(sandbox) as base_url:
        served = Served(sandbox, base_url)
        one = next(sandbox.conversation_ids(AGENT))
        assert served.get(served.path(one)).content == served.get(served.path(one)).content
        sandbox.edit(AGENT, one, note="new")
        assert served.get(served.path(one)).json()["note"] == "new"
        served.client.session.close()


def test_a_server_stops_immediately_and_can_be_restarted() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=10))
    sandbox.faults.add("delay", seconds=30, path="never")
    for _ in range(2):
        with serve(sandbox) as base_url:
            client = Client(base_url)
            assert client.get(CONVERSATIONS).status_code == 200
            waiting = threading.Thread(target=_get_quietly, args=(f"{base_url}/never",))
            waiting.start()
            time.sleep(0.1)
            start = time.monotonic()
        assert time.monotonic() - start < 2
        waiting.join()
        client.session.close()
        with pytest.raises(requests.ConnectionError):
            requests.get(base_url, timeout=1)


def _get_quietly(url: str) -> None:
    with contextlib.suppress(requests.RequestException):
        requests.get(url, timeout=5)


@needs_peak_memory
def test_a_million_conversations_are_served() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=1_000_000, detail="small"))
    with serve(sandbox) as base_url:
        client = Client(base_url)
        client.get(CONVERSATIONS)
        reset_peak()
        before = peak_megabytes()
        for offset in (0, 999_950, 500_000):
            page = client.get(CONVERSATIONS, limit=100, offset=offset)
            assert page.json()["count"] == 1_000_000
            assert page.elapsed < timedelta(seconds=2)
            assert len(page.json()["conversations"]) == min(100, 1_000_000 - offset)
        window = {"start_time": "2026-08-01T00:00:00Z", "end_time": "2026-08-01T00:10:00Z"}
        assert client.get(V3, **window).json()["conversations"]
        after = peak_megabytes()
        client.session.close()
    assert after - before < 50


@pytest.fixture(scope="module")
def other_process() -> Iterator[Client]:
    """Client of a sandbox in another process."""
    keys = '{"my-key": {"rights": ["v3"], "agents": null}}'
    command = [sys.executable, "-m", "polyai.sandbox", "--conversations", "60", "--keys", keys]
    root = str(Path(polyai.__file__).parent.parent)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        client = Client(process.stdout.readline().strip())
        yield client
        client.session.close()
        process.terminate()
        assert process.wait(10) == 0


def test_another_process_serves_the_same_bytes(other_process: Client) -> None:
    here = Sandbox(SandboxConfig(conversations=60))
    with serve(here) as base_url:
        served = Served(here, base_url)
        page = served.get(CONVERSATIONS, limit=100)
        assert other_process.get(CONVERSATIONS, limit=100).content == page.content
        for one in here.conversation_ids(AGENT):
            assert (
                other_process.get(served.path(one)).content == served.get(served.path(one)).content
            )
        served.client.session.close()


def test_another_process_takes_keys(other_process: Client) -> None:
    client = Client(other_process.base_url, "my-key")
    assert client.get(V3, limit=1).status_code == 200
    assert_rejected(client.get(CONVERSATIONS), 403, "FORBIDDEN")
    client.session.close()


def test_another_process_is_controlled_over_http(other_process: Client) -> None:
    other_process.delete("/_sandbox/requests")
    other_process.get(CONVERSATIONS)
    assert other_process.get("/_sandbox/requests").json() == {"list": 1}
    assert other_process.get("/_sandbox/requests", paths="conv").json() == [CONVERSATIONS]
    fault = {"kind": "status", "status": 500, "times": 9}
    assert other_process.post("/_sandbox/faults", fault).status_code == 201
    assert other_process.get(CONVERSATIONS).status_code == 500
    other_process.delete("/_sandbox/faults")
    page = other_process.get(CONVERSATIONS).json()
    one = page["conversations"][0]["conversationId"]

    clock = other_process.post("/_sandbox/advance", {"seconds": 3600, "arrivals": 4}).json()
    assert clock == {"now": "2026-11-01T01:00:00+00:00"}
    assert other_process.get(CONVERSATIONS).json()["count"] == page["count"] + 4

    target = {"agent_id": AGENT, "conversation_id": one}
    late = {"turn_index": 0, "role": "user", "annotation_type": "wrong_info"}
    edit = target | {"note": "far", "annotations": [late], "metrics": {"X": "1"}}
    assert other_process.post("/_sandbox/edit", edit).status_code == 200
    truth = [
        orjson.loads(line)
        for line in other_process.get("/_sandbox/truth", agent_id=AGENT).iter_lines()
    ]
    assert len(truth) == page["count"] + 4
    edited = next(r for r in truth if r["conversations"][0]["conversation_id"] == one)
    assert edited["notes"][0]["note"] == "far"
    assert edited["conversations"][0]["created_at"].endswith("+00:00")
    assert edited["metrics"][-1]["name"] == "X"

    assert other_process.post("/_sandbox/delete", target).status_code == 200
    assert other_process.get(CONVERSATIONS).json()["count"] == page["count"] + 3
    assert_rejected(other_process.post("/_sandbox/delete", target), 400, "SANDBOX_CONTROL")
    assert_rejected(other_process.post("/_sandbox/faults", {"kind": "x"}), 400, "SANDBOX_CONTROL")
    assert_rejected(other_process.get("/_sandbox/truth", agent_id="X"), 400, "SANDBOX_CONTROL")


def test_details_can_be_older_than_their_rows() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=20, oddities=False, stale_details=2))
    one = next(sandbox.conversation_ids(AGENT))
    with serve(sandbox) as base_url:
        served = Served(sandbox, base_url)
        for note in ("first", "second"):
            before = served.get(served.path(one)).json()["note"]
            sandbox.edit(AGENT, one, note=note)
            assert served.get(CONVERSATIONS, limit=1).json()["conversations"][0]["note"] == note
            read = [served.get(served.path(one)).json()["note"] for _ in range(3)]
            assert read == [before, before, note]
        served.client.session.close()


def test_other_environments_are_in_the_data_api_only() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=300, all_environments=True))
    with serve(sandbox) as base_url:
        client = Client(base_url)
        pages = [client.get(CONVERSATIONS, limit=100, offset=n).json() for n in (0, 100, 200)]
        found = {row["clientEnv"] for page in pages for row in page["conversations"]}
        assert found == {"live", "sandbox", "pre-release", "draft", "test", "scenarios"}
        assert_rejected(client.get(V3, client_env="test"), 400, "VALIDATION_ERROR")
        client.session.close()
    only_v3 = [rows["conversations"][0] for rows in sandbox.truth(AGENT, ("conversations_v3",))]
    assert {row["environment"] for row in only_v3} == {"live", "sandbox", "pre-release"}
    both = [rows["conversations"][0] for rows in sandbox.truth(AGENT, ("data", "conversations_v3"))]
    assert len(both) == 300
    assert {r["source_api"] for r in both if r["environment"] == "draft"} == {"data"}
    drafts = [row["deployment_id"] for row in both if row["environment"] == "draft"]
    assert set(drafts) == {None}
