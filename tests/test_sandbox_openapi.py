"""The sandbox's answers against PolyAI's OpenAPI documents and recorded answers.

Neither is part of this repository. The folder with them is `POLYAI_OPENAPI_DIR`, by default
`../shared/api` beside the repository; without it the tests are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import requests
from jsonschema import Draft202012Validator, FormatChecker

from polyai.sandbox import Sandbox, SandboxConfig, serve

ROOT = Path(__file__).parent.parent
GIVEN = os.environ.get("POLYAI_OPENAPI_DIR")
FOLDER = Path(GIVEN) if GIVEN else ROOT.parent / "shared" / "api"
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        not GIVEN and not FOLDER.is_dir(),
        reason="needs the OpenAPI documents of PolyAI's APIs: set POLYAI_OPENAPI_DIR",
    ),
]

AGENT = "PROJECT-BOOKINGS"
OF_AGENT = f"/v1/agents/{AGENT}"
LISTING = f"{OF_AGENT}/conversations"
V3 = f"/v3/ws-sandbox/{AGENT}/conversations"
ENVIRONMENTS = ("live", "sandbox", "pre-release")
DATA, CONVERSATIONS_V3, AGENTS = "data-api", "conversations-api", "agents-api"
CONVERSATIONS = 300

Deviation = tuple[str, str]
"""Path of a value, with [] for the items of a list, and the value's type; or `format`."""

NULL = "null where there is none, as in the recorded answers"
KNOWN: dict[Deviation, str] = {
    ("audioUrl", "NoneType"): NULL,
    ("deploymentId", "NoneType"): NULL,
    ("handoffDestination", "NoneType"): NULL,
    ("handoffReason", "NoneType"): NULL,
    ("language", "NoneType"): NULL,
    ("note", "NoneType"): NULL,
    ("polyScore", "NoneType"): NULL,
    ("shortSummary", "NoneType"): NULL,
    ("variantId", "NoneType"): NULL,
    ("finishedAt", "NoneType"): "null while the conversation is in progress",
    ("shortSummary", "dict"): "an object with heading and content, as in the recorded detail",
    ("turns.[].entities", "NoneType"): NULL,
    ("turns.[].intents", "NoneType"): NULL,
    ("turns.[].latency", "dict"): "an object in the Data API, as in the recorded detail",
}
"""Differences between recorded answers and the documents, in which the recordings are right."""
RARE = {("deploymentId", "NoneType"), ("language", "NoneType")}
"""Those of them that only the oddities reproduce."""
ODD: dict[Deviation, str] = {
    ("turns.[].is_ood", "NoneType"): NULL,
    ("turns.[].is_silence", "NoneType"): NULL,
    ("turns", "NoneType"): "null where the transcript is withheld",
    **{
        (path, "format"): "a time without its zone, which is UTC"
        for path in (
            "createdAt",
            "startedAt",
            "finishedAt",
            "turns.[].user_input_datetime",
            "turns.[].agent_response_datetime",
        )
    },
}
"""Further deviations of some conversations of the real API, which the oddities reproduce."""

_formats = FormatChecker(formats=())


@_formats.checks("date-time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


class Documents:
    """The OpenAPI documents, by the beginning of their names."""

    def __init__(self) -> None:
        self._validators: dict[tuple[str, str], Draft202012Validator] = {}

    def deviations(self, document: str, schema: str, answer: Any) -> set[Deviation]:
        """Returns the deviations of an answer from a schema of a document."""
        found = set()
        for error in self._validator(document, schema).iter_errors(answer):
            assert error.validator in ("type", "format"), (error.json_path, error.message)
            parts = ("[]" if isinstance(part, int) else part for part in error.absolute_path)
            path = ".".join(parts).removeprefix("conversations.[].")
            is_format = error.validator == "format"
            found.add((path, "format" if is_format else type(error.instance).__name__))
        return found

    def _validator(self, document: str, schema: str) -> Draft202012Validator:
        key = document, schema
        if key not in self._validators:
            (file,) = FOLDER.glob(f"{document}-*.openapi.json")
            components = _with_null(orjson.loads(file.read_bytes())["components"])
            assert schema in components["schemas"]
            self._validators[key] = Draft202012Validator(
                {"$ref": f"#/components/schemas/{schema}", "components": components},
                format_checker=_formats,
            )
        return self._validators[key]


def _with_null(node: Any) -> Any:
    """Rewrites `nullable` of OpenAPI 3.0, which JSON Schema does not have."""
    if isinstance(node, list):
        return [_with_null(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: _with_null(item) for key, item in node.items()}
    if found.get("nullable") is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    return found


class Client:
    """HTTP session with the key of all rights."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.session = requests.Session()
        self.session.headers["X-API-KEY"] = "sandbox-key"

    def get(self, path: str, status: int = 200, **params: Any) -> Any:
        response = self.session.get(self.base_url + path, params=params, timeout=10)
        assert response.status_code == status
        return response.json()

    def post(self, path: str, body: Any, status: int) -> Any:
        response = self.session.post(self.base_url + path, json=body, timeout=10)
        assert response.status_code == status
        return response.json()


@pytest.fixture(scope="module")
def documents() -> Documents:
    return Documents()


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "oddities"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    sandbox = Sandbox(SandboxConfig(conversations=CONVERSATIONS, oddities=request.param))
    with serve(sandbox) as base_url:
        found = Client(base_url)
        yield found
        found.session.close()


@pytest.fixture(scope="module")
def ids(client: Client) -> list[str]:
    pages = [client.get(LISTING, limit=100, offset=offset) for offset in range(0, 300, 100)]
    return [row["conversationId"] for page in pages for row in page["conversations"]]


@pytest.fixture(scope="module")
def details(client: Client, ids: list[str]) -> list[dict[str, Any]]:
    return [client.get(f"{LISTING}/{quote(one, safe='')}") for one in ids]


@pytest.fixture
def known(request: pytest.FixtureRequest) -> set[Deviation]:
    """Deviations of the client's sandbox."""
    return {*KNOWN, *ODD} if "oddities" in request.node.name else {*KNOWN} - RARE


def test_the_listing(client: Client, documents: Documents, known: set[Deviation]) -> None:
    found = set()
    for offset in range(0, CONVERSATIONS + 100, 100):
        page = client.get(LISTING, limit=100, offset=offset)
        found |= documents.deviations(DATA, "GetConversationsResponse", page)
    assert found <= known


@pytest.mark.parametrize("document", [DATA, CONVERSATIONS_V3])
def test_details(
    documents: Documents, details: list[dict[str, Any]], known: set[Deviation], document: str
) -> None:
    assert len({detail["conversationId"] for detail in details}) == CONVERSATIONS
    found = set()
    for detail in details:
        found |= documents.deviations(document, "ConversationDetailResponse", detail)
    if document == CONVERSATIONS_V3:
        # the more exact of the two: each known deviation occurs
        assert found == known
    assert found <= known


def test_the_v3_listing(client: Client, documents: Documents) -> None:
    rows = 0
    for environment in ENVIRONMENTS:
        cursor: str | None = ""
        while cursor is not None:
            more: dict[str, Any] = {"cursor": cursor} if cursor else {}
            page = client.get(V3, client_env=environment, limit=90, include_latency="true", **more)
            assert not documents.deviations(CONVERSATIONS_V3, "GetConversationsResponse", page)
            rows, cursor = rows + len(page["conversations"]), page["cursor"]
    assert rows == CONVERSATIONS


def test_debug_chats(client: Client, documents: Documents) -> None:
    opened = client.post(f"{OF_AGENT}/debug-chat", {"clientEnv": "live"}, 201)
    chat = f"{OF_AGENT}/debug-chat/{opened['conversationId']}"
    answers = [opened]
    for message in ("I want to book a table", "slow, please", "", "a person!"):
        answers.append(client.post(chat, {"clientEnv": "live", "message": message}, 200))
    for answer in answers:
        for document in (DATA, CONVERSATIONS_V3):
            assert not documents.deviations(document, "DebugChatResponse", answer)


def test_write_backs(client: Client, documents: Documents, ids: list[str]) -> None:
    one = f"{LISTING}/{quote(ids[-1], safe='')}"
    annotation = {"turnId": 0, "role": "agent", "annotationType": "wrong_info"}
    for path, body in (("annotation", {"annotations": [annotation]}), ("note", {"note": "x"})):
        answer = client.post(f"{one}/{path}", body, 201)
        assert not documents.deviations(DATA, "OperationSuccessResponse", answer)
    detail = client.get(one)
    assert documents.deviations(DATA, "ConversationDetailResponse", detail) <= {*KNOWN, *ODD}


@pytest.mark.parametrize(
    ("schema", "path", "params"),
    [
        ("GetAgentsResponse", "/v1/accounts/ws-sandbox/agents", {}),
        *(
            ("GetDeploymentsResponse", f"{OF_AGENT}/deployments", {"environment": environment})
            for environment in ENVIRONMENTS
        ),
        ("ActiveDeploymentsResponse", f"{OF_AGENT}/deployments/active", {}),
        ("GetBranchesResponse", f"{OF_AGENT}/branches", {}),
        ("GetVariantsResponse", f"{OF_AGENT}/branches/main/variants", {}),
        ("GetPhoneNumbersResponse", f"{OF_AGENT}/telephony/phone-numbers", {}),
    ],
)
def test_the_agents_api(
    client: Client, documents: Documents, schema: str, path: str, params: dict[str, Any]
) -> None:
    answer = client.get(path, **params)
    assert answer
    assert not documents.deviations(AGENTS, schema, answer)


@pytest.mark.parametrize("document", [DATA, CONVERSATIONS_V3, AGENTS])
def test_error_envelopes(client: Client, documents: Documents, document: str) -> None:
    answers = [
        client.get(f"{LISTING}?limit=0", 400),
        client.get(f"{LISTING}/CA1", 404),
        client.get(f"{LISTING}/CA1/audio", 404),
        client.get(f"{V3}?cursor=x", 400),
        client.get("/v3/ws-sandbox/X/conversations", 404),
        client.get(f"{OF_AGENT}/deployments", 400),
        client.post(f"{OF_AGENT}/debug-chat", {"clientEnv": "draft"}, 400),
    ]
    refused = Client(client.base_url)
    for key, status in (("wrong", 401), ("sandbox-key-forbidden", 403)):
        refused.session.headers["X-API-KEY"] = key
        answers.append(refused.get(LISTING, status))
    refused.session.close()
    for answer in answers:
        assert not documents.deviations(document, "Error", answer)


def test_recorded_answers_deviate_as_the_sandbox_does(documents: Documents) -> None:
    def read(name: str) -> Any:
        return orjson.loads((FOLDER / f"recorded-conversation-{name}.json").read_bytes())

    known = {*KNOWN, *ODD}
    found = documents.deviations(DATA, "GetConversationsResponse", read("list"))
    for document in (DATA, CONVERSATIONS_V3):
        found |= documents.deviations(document, "ConversationDetailResponse", read("detail"))
    assert found
    assert found <= known


def test_the_sandbox_sends_what_recorded_answers_have(details: list[dict[str, Any]]) -> None:
    """Compares the keys of conversations, turns, function events and of their objects."""
    recorded = orjson.loads((FOLDER / "recorded-conversation-detail.json").read_bytes())
    wanted = _keys(recorded)
    sent: dict[str, set[str]] = {}
    for detail in details:
        for path, keys in _keys(detail).items():
            sent.setdefault(path, set()).update(keys)
    for path, keys in wanted.items():
        assert keys <= sent[path], path
    # and no others, but for reviews and the objects that a recording has none of
    for path in ("", "turns.[]", "turns.[].latency", "turns.[].metadata", "shortSummary", "event"):
        assert sent[path] == wanted[path], path


def _keys(detail: dict[str, Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"": set(detail)}
    objects = [("shortSummary", detail.get("shortSummary"))]
    for turn in detail.get("turns") or ():
        objects.append(("turns.[]", turn))
        objects.extend((f"turns.[].{name}", turn.get(name)) for name in ("latency", "metadata"))
    for events in (detail.get("functionEvents") or {}).values():
        for event in events:
            objects.extend([("event", event), ("handoff", event.get("handoff"))])
    for path, value in objects:
        if isinstance(value, dict):
            found.setdefault(path, set()).update(value)
    return found
