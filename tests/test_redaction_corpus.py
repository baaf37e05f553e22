"""Corpus of redaction: each spelling of a number or an address, in each place of an answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import phonenumbers
import pytest

from odd_server import Answer as OddAnswer
from odd_server import OddServer, Request
from polyai import resolve
from polyai.api.client import DataApi
from polyai.api.throttle import Traffic
from polyai.errors import ApiError, DestinationError
from polyai.load.report import RunReport
from polyai.shape.answer import Answer
from polyai.shape.redaction import Redaction, request_options
from polyai.shape.shaping import Shaped, shape
from polyai.shape.v3_rows import to_data_api_names

pytestmark = pytest.mark.unit

Json = dict[str, Any]

SPELLINGS: list[Any] = [
    "+442079460018",
    "+44 20 7946 0018",
    "+44 (0)20 7946 0018",
    "0044 20 7946 0018",
    "442079460018",
    "020 7946 0018",
    "(020) 7946-0018",
    "020-7946-0018",
    "020.7946.0018",
    "0 2 0 7 9 4 6 0 0 1 8",
    "tel:+442079460018",
    "whatsapp:+442079460018",
    "sip:+442079460018@pbx.example.com",
    "sip:442079460018@10.0.0.1",
    "+442079460018;ext=1",
    "Desk <+442079460018>",
    "https://wa.me/442079460018",
    "/call?n=%2B442079460018&x=1",
    "/call?n=%2B44%2020%207946%200018",
    "/call?n=%252B442079460018",
    "+44/20/7946/0018",
    "+44_20_7946_0018",
    "020 - 7946 - 0018",
    "call442079460018now",
    "x+442079460018x",
    "call 020 7946\n0018",
    "call +44 20 7946\r\n0018 now",
    "+44\u00a020\u20117946\u20110018",
    "+44 20 7946\u200b0018",
    "conversations/442079460018/turns/0/audio",
    '{"phone": "+442079460018", "n": 442079460018}',
    "-442079460018",
    "442079460018.0",
    442079460018,
    -442079460018,
    442079460018.0,
    79460018,
    -79460018,
    "jo.doe@example.com",
    "Jo <jo.doe@example.com>",
    "mailto:jo.doe@example.com?x=1",
    "jo.doe%40example.com",
    "jo.doe%2540example.com",
    '"jo doe"@example.com',
    "jo.doe@example",
    "jo.doe@[10.0.0.1]",
    "josé.doe@exämple-example.com",
    "jo.doe@example.com/+442079460018",
]
"""Numbers and addresses, as text and as JSON numbers."""

NOT_PROMISED = [
    "zero two zero, seven nine four six, double oh one eight",
    "jo dot doe at example dot com",
    "020,7946,0018",
    "020 and then 7946 and 0018",
    "946001",
    "4420794600181234567",
    "room7946001",
    "calls/79460018/audio",
    "rec20260318442079",
]
"""Spellings that the documentation names as not promised."""

_LEFT = re.compile(r"7\W{0,6}9\W{0,6}4\W{0,6}6\W{0,8}0\W{0,6}0\W{0,6}1\W{0,6}8|example|\bjo\b|doe")

TURN_FIELDS = (
    "user_input", "agent_response", "translated_user_input", "english_agent_response",
    "user_input_dtmf", "user_input_dtmf_finish_key", "user_input_audio_url", "asr_lang_code",
    "tts_lang_code", "user_input_datetime", "latency", "is_silence", "intents", "entities",
    "llm_requests", "metadata", "reviews", "new_field",
)  # fmt: skip

EVENT_FIELDS = (
    "id", "function_id", "function_version", "name", "start_time", "duration", "error",
    "utterance", "content", "hangup", "handoff", "variant_id_change", "llm_request_id",
    "arguments", "state_changes", "logs", "transition", "conversation_id", "new_field",
)  # fmt: skip

FIELDS = (
    "accountId", "projectId", "audioUrl", "channel", "clientEnv", "deploymentId", "direction",
    "duration", "fromNumber", "toNumber", "handoffDestination", "handoffReason", "language",
    "note", "polyScore", "shortSummary", "variantId", "startedAt", "finishedAt", "totalDuration",
    "inProgress", "state", "variant_name", "num_turns", "sip_url", "route_id", "newAt", "new",
)  # fmt: skip


def field(name: str) -> Callable[[Any], Json]:
    return lambda value: {name: value}


def in_turn(name: str) -> Callable[[Any], Json]:
    return lambda value: {"turns": [{name: value}]}


def in_event(name: str) -> Callable[[Any], Json]:
    return lambda value: {"functionEvents": {"1": [{name: value}]}}


def in_review(name: str) -> Callable[[Any], Json]:
    return lambda value: {"turns": [{"reviews": [{name: value}]}]}


PLACES: dict[str, Callable[[Any], Json]] = {
    **{name: field(name) for name in FIELDS},
    **{f"turns[].{name}": in_turn(name) for name in TURN_FIELDS},
    **{f"functionEvents[].{name}": in_event(name) for name in EVENT_FIELDS},
    **{
        f"reviews[].{name}": in_review(name)
        for name in ("role", "annotationType", "reason", "comment", "createdBy", "reviewer")
    },
    "tags": lambda value: {"tags": [value]},
    "extra": lambda value: {"new": {"deep": [[value]]}},
    "a summary": lambda value: {"shortSummary": {"heading": value, "content": value}},
    "a key": lambda value: {"new": {str(value): 1}},
    "a field's name": lambda value: {str(value): 1},
    "a key of metadata": lambda value: {"turns": [{"metadata": {str(value): {"x": 1}}}]},
    "a key of arguments": lambda value: {
        "functionEvents": {"1": [{"arguments": {str(value): True}}]}
    },
    "a key of function events": lambda value: {"functionEvents": {str(value): [{"name": "f"}]}},
    "integration attributes": lambda value: {
        "integrationAttributes": {"sip_url": value, str(value): value}
    },
    "a handoff": lambda value: {
        "functionEvents": {"1": [{"handoff": {"type": value, "reason": value, "to": value}}]}
    },
    "an entity": lambda value: {"turns": [{"entities": [{"name": "phone", "value": value}]}]},
    "a topic": lambda value: {"turns": [{"metadata": {"retrieved_topics": [value]}}]},
    "an LLM request": lambda value: {
        "turns": [{"llm_requests": [{"prompt_tokens": value, "model_id": value, "url": value}]}]
    },
    "a metric": lambda value: {"metrics": {"CALLBACK": [{"value": value}]}},
    "a metric's timestamp": lambda value: {
        "metrics": {"CALLBACK": [{"value": 1, "timestamp": value}]}
    },
    "a metric of v3": lambda value: {"metrics": {"CALLBACK": str(value)}},
    "a metric named as an id": lambda value: {"metrics": {"customer_id": value}},
    "a metric named as a URL": lambda value: {"metrics": {"callback_url": [value]}},
    "a metric named as a time": lambda value: {"metrics": {"calledAt": [{"value": value}]}},
    "a metric's name": lambda value: {"metrics": {str(value): 1}},
    "a metric's other field": lambda value: {"metrics": {"M": [{"value": 1, "by": value}]}},
}


NUMERIC = {
    "duration", "totalDuration", "polyScore", "turns[].latency", "functionEvents[].duration",
    "an LLM request",
}  # fmt: skip
"""Places of measures, in which a whole number of 8 or 9 digits is no phone number."""


def spellings_in(place: str) -> list[Any]:
    return [one for one in SPELLINGS if place not in NUMERIC or one not in (79460018, -79460018)]


def shaped(details: list[Json]) -> Shaped:
    answers = [
        Answer(f"CA{index}", detail, "hash", datetime(2026, 8, 1, tzinfo=UTC))
        for index, detail in enumerate(details)
    ]
    return shape(answers, agent_id="PROJECT-HOTEL", region="eu", load_id="1")


def rows_of(result: Shaped) -> list[str]:
    rows = [row for table in result.tables.values() for row in table.to_pylist()]
    texts = [json.dumps(row, default=str, ensure_ascii=False) for row in rows]
    # JSON within JSON
    return [
        *(text.replace("\\", "") for text in texts),
        json.dumps(dict(result.unmapped), ensure_ascii=False),
    ]


def test_the_corpus_has_its_size() -> None:
    assert sum(len(spellings_in(place)) for place in PLACES) >= 250


@pytest.mark.parametrize("region", ["", "GB"])
@pytest.mark.parametrize("place", PLACES)
def test_every_spelling_is_found_everywhere(place: str, region: str) -> None:
    redaction = Redaction("drop", "", "keep", region)
    details = [
        redaction.apply({"conversationId": f"CA{index}"} | PLACES[place](spelling))
        for index, spelling in enumerate(spellings_in(place))
    ]
    left = [row for row in rows_of(shaped(details)) if _LEFT.search(row)]
    assert left == []


@pytest.mark.parametrize("place", ["from_number", "metrics", "state"])
def test_rows_of_v3_are_redacted(place: str) -> None:
    redaction = Redaction("drop", "", "keep")
    rows: list[Json] = [
        {"id": f"CA{index}", place: {"k": spelling} if place != "from_number" else spelling}
        for index, spelling in enumerate(SPELLINGS)
    ]
    details = [redaction.apply(to_data_api_names(row)) for row in rows]
    assert [row for row in rows_of(shaped(details)) if _LEFT.search(row)] == []


@pytest.mark.parametrize("spelling", [one for one in SPELLINGS if isinstance(one, str)])
def test_messages_are_redacted(spelling: str) -> None:
    message = f"no caller {spelling} (HTTP 404, at https://host/conversations/{spelling})"
    assert not _LEFT.search(Redaction("drop", "", "keep").text(message))


@pytest.mark.parametrize("text", NOT_PROMISED)
def test_spellings_that_are_not_promised_are_kept(text: str) -> None:
    assert Redaction("drop", "", "keep", "GB").text(text) == text


@pytest.mark.parametrize("spelling", [s for s in SPELLINGS[:22] if "@" not in str(s)])
def test_all_spellings_of_a_caller_have_one_hash(spelling: str) -> None:
    redaction = Redaction("hash", "a secret of some length", "keep", "GB")
    (expected,) = re.findall(r"[0-9a-f]{64}", redaction.text("+442079460018"))
    assert re.findall(r"[0-9a-f]{64}", redaction.text(spelling)) == [expected]


def test_what_is_neither_number_nor_address_is_kept() -> None:
    detail = {
        "conversationId": "whatsapp:+442079460018",
        "accountId": "ws-3f9c2e7a",
        "projectId": "PROJECT-HOTEL",
        "deploymentId": "12345678-1234-4123-8123-123456789012",
        "variantId": "1234",
        "createdAt": 1780492686370,
        "startedAt": "2026-06-03T13:18:06.370000+00:00",
        "finishedAt": "2026-06-03T13:18:06Z",
        "duration": 73,
        "totalDuration": 555010000,
        "polyScore": 4.25,
        "num_turns": 12,
        "tags": ["vip", "2026-06-03"],
        "turns": [
            {
                "turn_id": 7439163180,
                "user_input": "two rooms on 2026-06-03 at 13:18 for 1,234.56, order 12345",
                "latency": {"perceived_latency": 1.234567891, "total_ms": 12345678},
                "user_input_datetime": 1780492686,
                "llm_requests": [{"prompt_tokens": 12345678, "request_timestamp": 1780492686.5}],
                "metadata": {"llm_request_id": "CA681f3ad0d037c1884614548178a5bc1b"},
            }
        ],
        "metrics": {
            "CALL_DURATION": [{"timestamp": "2026-06-03T13:19:19", "value": "73"}],
            "TOTAL_AMOUNT": [{"value": "12345678"}, {"value": 1234567890}],
            "SCORE": "-3.882713",
            "LATENCY_MS": 12345678,
            "contactedAt": "1780492686",
            "OPTED_IN": "true",
            "COUNT": 1234567,
            "FEE": 1234567.89,
        },
        "functionEvents": {
            "1": [
                {
                    "id": "5f0c1c1e-9d1b-4b8e-8a51-0123456789ab",
                    "function_id": "fn_0123456789abcdef01234567",
                    "start_time": "Wed, 03 Jun 2026 13:18:09 GMT",
                    "duration": 4108.25,
                    "conversation_id": "whatsapp:+442079460018",
                    "turn_id": 7,
                    "arguments": {"nights": 3, "price": 12345678, "date": "20260603"},
                }
            ]
        },
        "large": 2**63,
        "double": 5550100000.5,
    }
    for region in ("", "GB", "US"):
        assert Redaction("hash", "a secret of some length", "keep", region).apply(detail) == detail


def test_no_value_is_lost_where_keys_become_equal() -> None:
    given = {"new": {"+442079460018": 1, "+442079460019": 2, "[dropped]": 3}}
    redacted = Redaction("drop", "", "keep").apply(given)
    assert sorted(redacted["new"].values()) == [1, 2, 3]


@pytest.mark.parametrize("spelling", ["+442079460018", "/call?n=%2B442079460018", "jo@example.com"])
@pytest.mark.parametrize("name", ["error_code", "error_message", "error_id", "message"])
def test_errors_of_a_server_have_no_personal_data(name: str, spelling: str) -> None:
    def answer(request: Request) -> OddAnswer:
        return OddAnswer({name: f"no caller {spelling}"}, 400)

    with OddServer(answer) as server:
        settings = resolve(
            agent_id="PROJECT-1", api_key="a-key-of-tests", base_url=server.url, pii="drop"
        )
        with (
            DataApi(settings.agents[0], **request_options(settings)) as api,
            pytest.raises(ApiError) as caught,
        ):
            api.detail("whatsapp:+442079460018")
    error = caught.value
    assert not _LEFT.search(f"{error} {error.error_code} {error.error_id} {error.url}")


def test_the_error_of_a_run_has_no_personal_data() -> None:
    report = RunReport("PROJECT-1", "load", Traffic(), redact=Redaction("drop", "", "keep").text)
    report.finish(DestinationError("duplicate key: whatsapp:+442079460018"))
    assert report.as_row()["error"] == "duplicate key: whatsapp:[dropped]"


FORMATS = [
    phonenumbers.PhoneNumberFormat.E164,
    phonenumbers.PhoneNumberFormat.INTERNATIONAL,
    phonenumbers.PhoneNumberFormat.RFC3966,
    phonenumbers.PhoneNumberFormat.NATIONAL,
]

FEWEST_DIGITS = 7


@pytest.mark.parametrize("sentence", ["{}", "call {} now", "({})", "{}, 2 adults on 2026-06-03"])
def test_numbers_of_all_countries_are_found_whole(sentence: str) -> None:
    redaction = Redaction("drop", "", "keep")
    numbers = {
        phonenumbers.format_number(example, written)
        for region in phonenumbers.SUPPORTED_REGIONS
        if (example := phonenumbers.example_number(region))
        for written in FORMATS
    }
    for number in sorted(numbers):
        if sum(map(str.isdigit, number)) >= FEWEST_DIGITS:
            kept = number[: number.index(":") + 1] if ":" in number else ""
            expected = sentence.format(f"{kept}[dropped]")
            assert redaction.text(sentence.format(number)) == expected
