"""Columns for every scalar that the API is known to send; the rest, in JSON columns."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from polyai.shape.answer import Answer, Json
from polyai.shape.redaction import Redaction
from polyai.shape.shaping import Shaped, shape
from polyai.shape.upgrade import upgraded, upgraded_llm_requests
from polyai.tables.turns import TURNS

pytestmark = pytest.mark.unit

AGENT = "harbour-clinic"
ID = "LOCAL-3f1c"

REQUEST = {
    "model_id": "raven-3",
    "prompt_tokens": 1820,
    "completion_tokens": 41,
    "cached_tokens": 1536,
    "total_tokens": 1861,
    "finish_reason": "stop",
    "request_timestamp": "2026-06-03T13:19:03.100000+00:00",
    "first_chunk_timestamp": "2026-06-03T13:19:03.650000+00:00",
    "response_timestamp": "2026-06-03T13:19:04.020000+00:00",
    "turn_number": "1",
    "cited_topics": ["opening_hours"],
    "flow_metadata": {"flow": "main"},
}

DETAIL: Json = {
    "accountId": "HARBOUR",
    "audioUrl": f"conversations/{ID}/audio",
    "channel": "VOICE-SIP",
    "clientEnv": "sandbox",
    "conversationId": ID,
    "createdAt": "2026-06-03T13:18:06.370000+00:00",
    "deploymentId": "019e8d9e-0000-7000-8000-000000000001",
    "direction": "inbound",
    "duration": 73,
    "finishedAt": "2026-06-03T13:19:19.750000+00:00",
    "fromNumber": "guest@example.com",
    "functionEvents": {
        "2": [
            {
                "arguments": {"day": "Monday"},
                "content": "booked",
                "conversation_id": ID,
                "duration": 2279,
                "error": "timeout",
                "function_id": "FUNCTION-book",
                "function_version": "4",
                "handoff": {"reason": "NO_SLOT", "type": "Front desk"},
                "hangup": True,
                "id": "00000000-0000-4000-8000-000000000006",
                "llm_request_id": "00000000-0000-4000-8000-000000000106",
                "logs": ["tried twice"],
                "name": "book",
                "start_time": "Wed, 03 Jun 2026 13:19:11 GMT",
                "state_changes": {"added": {}, "removed": [], "updated": {}},
                "transition": {"to": "end"},
                "turn_id": 2,
                "utterance": "One moment.",
                "variant_id_change": "evening",
            }
        ]
    },
    "handoff": True,
    "handoffDestination": "Front desk",
    "handoffReason": "NO_SLOT",
    "inProgress": False,
    "language": "en-GB",
    "metrics": {"CALL_DURATION": [{"timestamp": "2026-06-03T13:19:19.757917", "value": "73"}]},
    "note": "call back",
    "polyScore": 6.0,
    "polyaiDuration": 73,
    "projectId": AGENT,
    "shortSummary": {"content": "The caller asked for a slot.", "heading": "Book a slot"},
    "startedAt": "2026-06-03T13:18:06.370000+00:00",
    "tags": ["vip"],
    "toNumber": "polyai",
    "totalDuration": 74,
    "turns": [
        {},
        {
            "agent_response": "One moment.",
            "agent_response_datetime": "2026-06-03T13:19:14.608938+00:00",
            "asr_lang_code": "en-GB",
            "barge_in": True,
            "english_agent_response": "One moment, please.",
            "entities": [{"day": "Monday"}],
            "intents": ["BOOK"],
            "is_ood": False,
            "is_silence": False,
            "latency": {
                "label": None,
                "perceived_latency": 1.61215,
                "perceived_latency_percentile_1d": None,
            },
            "llm_requests": [REQUEST, REQUEST | {"turn_number": "2", "finish_reason": "length"}],
            "metadata": {
                "asr_corrected_user_input": "Monday, please",
                "current_node": "booking",
                "retrieved_topics": ["slots"],
            },
            "reviews": [
                {
                    "role": "agent",
                    "annotationType": "bad_response",
                    "reason": "Too long",
                    "comment": "shorter",
                    "createdBy": "qa@example.com",
                    "createdAt": "2026-06-04T08:00:00Z",
                }
            ],
            "translated_user_input": "monday please",
            "tts_lang_code": "en-GB",
            "turn_id": 743917872,
            "user_input": "monday pleas",
            "user_input_audio_url": f"conversations/{ID}/turns/1/audio",
            "user_input_datetime": "2026-06-03T13:19:02.861683+00:00",
            "user_input_dtmf": "12",
            "user_input_dtmf_finish_key": "#",
        },
    ],
    "variantId": "day",
}
"""Answer with the fields of a recorded one, all of them filled."""

NOT_SENT = {
    "conversations": {"variant_name", "state"},
    "metrics": {"value_boolean"},
    "notes": {"valid_to"},
}
"""Columns that the Data API does not send, or that this answer has no value for."""


def shaped(detail: Json) -> Shaped:
    read_at = datetime(2026, 8, 1, tzinfo=UTC)
    answer = Answer(ID, detail, "hash", read_at)
    return shape([answer], agent_id=AGENT, region="us", load_id="1790000000.1")


def last_row(result: Shaped, table: str) -> dict[str, Any]:
    row: dict[str, Any] = result.tables[table].to_pylist()[-1]
    return row


def test_every_scalar_of_the_recorded_shape_has_its_column() -> None:
    result = shaped(DETAIL)
    assert not result.unmapped
    for table in result.tables:
        row = last_row(result, table)
        empty = {name for name, value in row.items() if value is None}
        extra = set() if table == "llm_requests" else {"extra"} & row.keys()
        assert empty - {"_deleted"} == extra | NOT_SENT.get(table, set()), table


def test_llm_requests_of_a_turn() -> None:
    rows = shaped(DETAIL).tables["llm_requests"].to_pylist()
    assert [(row["turn_index"], row["position"], row["finish_reason"]) for row in rows] == [
        (1, 0, "stop"),
        (1, 1, "length"),
    ]
    (row, _) = rows
    assert row["model_id"] == "raven-3"
    tokens = ("prompt_tokens", "completion_tokens", "cached_tokens", "total_tokens")
    assert [row[name] for name in tokens] == [1820, 41, 1536, 1861]
    assert row["requested_at"] == datetime(2026, 6, 3, 13, 19, 3, 100_000, UTC)
    assert row["first_chunk_at"] == datetime(2026, 6, 3, 13, 19, 3, 650_000, UTC)
    assert row["responded_at"] == datetime(2026, 6, 3, 13, 19, 4, 20_000, UTC)
    assert json.loads(row["extra"]) == {
        "cited_topics": ["opening_hours"],
        "flow_metadata": {"flow": "main"},
    }


@pytest.mark.parametrize(
    ("sent", "extras"),
    [
        (None, []),
        ([], []),
        ({}, []),
        ("", []),
        ({"turn_number": "0"}, [None]),
        ([{"turn_number": 1}, None], [None, {"value": None}]),
        ([{"turn_number": "7", "id": "a"}], [{"id": "a", "turn_number": "7"}]),
        ("none", [{"value": "none"}]),
        ([{"prompt_tokens": "many"}], [{"prompt_tokens": "many"}]),
        ([{"request_timestamp": "soon"}], [{"request_timestamp": "soon"}]),
    ],
    ids=repr,
)
def test_other_shapes_of_llm_requests(sent: Any, extras: list[Json | None]) -> None:
    rows = shaped({"turns": [{"llm_requests": sent}]}).tables["llm_requests"].to_pylist()
    assert [row["extra"] and json.loads(row["extra"]) for row in rows] == extras


def test_unix_times_of_llm_requests() -> None:
    sent = {"request_timestamp": 1780492743.5, "response_timestamp": 1780492744500}
    row = last_row(shaped({"turns": [{"llm_requests": [sent]}]}), "llm_requests")
    assert row["requested_at"] == datetime(2026, 6, 3, 13, 19, 3, 500_000, UTC)
    assert row["responded_at"] == datetime(2026, 6, 3, 13, 19, 4, 500_000, UTC)


def test_dropped_transcripts_leave_no_llm_requests() -> None:
    result = shaped(Redaction("keep", "", "drop").apply(DETAIL))
    assert result.tables["llm_requests"].num_rows == 0
    row = last_row(result, "turns")
    assert (row["asr_corrected_user_input"], row["user_input_dtmf_finish_key"]) == (None, None)


def loaded_turn(**columns: Any) -> dict[str, Any]:
    """A row of `turns` as a destination returns it."""
    empty: dict[str, Any] = {column.name: None for column in TURNS.columns}
    key = {"agent_id": AGENT, "conversation_id": ID, "turn_index": 3, "_dlt_load_id": "17.5"}
    return empty | key | columns


class TestUpgrade:
    """Values of an earlier version's rows move into the columns of this one."""

    def test_from_extra_and_metadata(self) -> None:
        moment = datetime(2026, 6, 3, 13, 19, 2, 861_683, UTC)
        row = loaded_turn(
            user_input_at=moment,
            latency='{"label":"slow"}',
            metadata='{"asr_corrected_user_input":"Bath"}',
            extra='{"user_input_dtmf_finish_key":"#","tone":1.10}',
        )
        found = upgraded(TURNS, [row, loaded_turn(turn_index=4, extra={"tone": None})])
        assert found is not None
        assert found.schema == TURNS.arrow_schema
        new = {
            "user_input_dtmf_finish_key": "#",
            "asr_corrected_user_input": "Bath",
            "extra": '{"tone":1.10}',
        }
        first, second = found.to_pylist()
        assert first == row | new
        assert second == loaded_turn(turn_index=4, extra='{"tone":null}')

    def test_a_value_that_does_not_fit_stays_in_extra(self) -> None:
        found = upgraded(TURNS, [loaded_turn(extra='{"barge_in":"maybe","turn_id":"12"}')])
        assert found is not None
        (row,) = found.to_pylist()
        assert (row["turn_id"], row["barge_in"], row["extra"]) == (12, None, '{"barge_in":"maybe"}')

    def test_upgraded_rows_are_left_as_they_are(self) -> None:
        rows = [
            loaded_turn(
                user_input_dtmf_finish_key="#",
                asr_corrected_user_input="Bath",
                metadata='{"asr_corrected_user_input":"Bath"}',
                extra='{"tone":1}',
            ),
            loaded_turn(metadata='{"asr_corrected_user_input":""}'),
        ]
        assert upgraded(TURNS, rows) is None
        assert upgraded(TURNS, []) is None

    def test_llm_requests_have_the_package_of_their_turn(self) -> None:
        sent = [loaded_turn(llm_requests=json.dumps([REQUEST])), loaded_turn(llm_requests="[]")]
        found = upgraded_llm_requests(AGENT, sent)
        assert found is not None
        (row,) = found.to_pylist()
        assert (row["turn_index"], row["position"], row["_dlt_load_id"]) == (3, 0, "17.5")
        assert row["model_id"] == "raven-3"
        # the number of a turn that is not this one's
        assert json.loads(row["extra"])["turn_number"] == "1"
        assert upgraded_llm_requests(AGENT, sent[1:]) is None
