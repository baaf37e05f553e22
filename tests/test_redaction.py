"""Redaction of personal data with `pii`, and of transcripts with `transcripts=drop`."""

from __future__ import annotations

import copy
import hashlib
import hmac
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyai.shape.answer import Answer
from polyai.shape.redaction import Redaction
from polyai.shape.shaping import Shaped, shape
from polyai.tables.rules import DROPPED

pytestmark = pytest.mark.unit

SECRET = "pepper of some length"

Json = dict[str, Any]

PHONE_NUMBERS = [
    "+44 20 7946 0000",
    "(020) 7946-0000",
    "0049-30-901820",
    "0049-30-90-1820",
    "555.010.0000",
    "+1 (415) 555-0100",
    "+44 (0)20 7946 0000",
    "+44.2079460000",
    "+442079460000",
    "07700\u00a0900\u2011123",
    "5550100000",
    "555-0100",
]

ADDRESSES = [
    "guest@example.com",
    "Ann.Lee+hotel@mail.example.co.uk",
    "o'brien@example.com",
    "josé@exämple.com",
    "4155550100@pbx.example.com",
]

NOT_PERSONAL = [
    "2026-06-03",
    "2026-06-03 13:18:09",
    "2026-06-03T13:18:06.370000+00:00",
    "20260603T131806Z",
    "03.06.2026",
    "3-6-2026",
    "06/03/2026",
    "Wed, 03 Jun 2026 13:18:09 GMT",
    "13:18",
    "13:18:06.370000",
    "1,234.56",
    "1234567.89",
    "3.882713",
    "51.507351, -0.127758",
    "AB-1234",
    "AB-1234567",
    "order 12345",
    "73 s",
    "1h 20m",
    "room 12, 2 adults, 3 nights",
    "CA681f3ad0d037c1884614548178a5bc1b",
    "LOCAL-0725f700-6fa7-437a-8fe6-3de9828a95c0",
    "12345678-1234-4123-8123-123456789012",
    "conversations/4155550/turns/5/audio",
    "https://example.com/bookings/20260603/1234567",
    "polyai",
    "REDACTED",
    "anonymous",
]

SENTENCES = ["{}", "my number is {} thanks", "call {}, please.", "tel:{}", "{}: no answer", "<{}>"]


def redacted(value: Any, pii: Any = "hash", secret: str = SECRET, name: str = "note") -> Any:
    return Redaction(pii, secret, "keep").apply({name: value})[name]


def digest(plain: str, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), plain.encode(), hashlib.sha256).hexdigest()


def shaped(detail: Json) -> Shaped:
    answer = Answer("CA1", detail, "hash", datetime(2026, 8, 1, tzinfo=UTC))
    return shape([answer], agent_id="PROJECT-HOTEL", region="eu", load_id="1")


def in_rows(result: Shaped) -> str:
    return json.dumps([t.to_pylist() for t in result.tables.values()], default=str)


class TestKeep:
    def test_the_answer_is_returned_unchanged(self) -> None:
        detail = {"fromNumber": "+442079460000", "turns": [{"user_input": "hi"}]}
        assert Redaction("keep", "", "keep").apply(detail) is detail


class TestPatterns:
    @pytest.mark.parametrize("sentence", SENTENCES)
    @pytest.mark.parametrize("personal", PHONE_NUMBERS + ADDRESSES)
    def test_numbers_and_addresses_are_redacted(self, personal: str, sentence: str) -> None:
        assert redacted(sentence.format(personal), "drop") == sentence.format(DROPPED)

    @pytest.mark.parametrize("sentence", ["{}", "it is {} then", "({})"])
    @pytest.mark.parametrize("text", NOT_PERSONAL)
    def test_other_digits_are_unchanged(self, text: str, sentence: str) -> None:
        assert redacted(sentence.format(text)) == sentence.format(text)

    def test_several_in_one_text(self) -> None:
        text = "5550100000 5550100001\n07700 900123, ann@example.com; order 12345 of 2026-06-03"
        assert redacted(text, "drop") == (
            "[dropped] [dropped]\n[dropped], [dropped]; order 12345 of 2026-06-03"
        )

    def test_a_number_with_an_extension_is_redacted(self) -> None:
        assert redacted("415-555-0100x12", "drop") == "[dropped]x12"

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param("a" * 2**20, id="letters"),
            pytest.param("1" * 2**20, id="digits"),
            pytest.param("1 " * 2**19, id="spaced digits", marks=pytest.mark.slow),
            pytest.param("a@" * 2**19, id="ats"),
            pytest.param("((" * 2**19, id="brackets"),
            pytest.param("x@" + "a-" * 2**19, id="domain"),
        ],
    )
    def test_a_megabyte_takes_linear_time(self, text: str) -> None:
        began = time.process_time()
        redacted(text)
        # linear is at most a few seconds, quadratic is minutes
        assert time.process_time() - began < 20


class TestHash:
    def test_is_hmac_sha256_in_hex(self) -> None:
        assert redacted("+44 20 7946 0000") == digest("442079460000")
        assert redacted("Guest@Example.com") == digest("guest@example.com")

    @pytest.mark.parametrize(
        "written",
        [
            "+44 20 7946 0000",
            "+44-20-7946-0000",
            "+44 (20) 7946 0000",
            "+44 (0)20 7946 0000",
            "0044 20 7946 0000",
            "442079460000",
            442079460000,
        ],
        ids=str,
    )
    def test_the_same_caller_has_the_same_hash(self, written: Any) -> None:
        assert redacted(written) == digest("442079460000")

    def test_another_secret_changes_the_hash(self) -> None:
        assert redacted("+442079460000", secret="salt") == digest("442079460000", "salt")
        assert redacted("+442079460000", secret="salt") != redacted("+442079460000")

    def test_another_caller_has_another_hash(self) -> None:
        assert redacted("+442079460000") != redacted("+442079460001")

    def test_everywhere_in_an_answer(self) -> None:
        number, plain = "+44 20 7946 0000", "442079460000"
        detail = {
            "conversationId": "CA1",
            "fromNumber": number,
            "toNumber": "polyai",
            "note": f"call {number}",
            "shortSummary": {"content": f"asked for {number}"},
            "turns": [
                {
                    "user_input": f"it is {number}",
                    "entities": [{"phone": [number]}],
                    "llm_requests": [{"prompt": number}],
                    "metadata": {"state": {"caller_id": number, number: True}},
                    "reviews": [{"comment": number}],
                }
            ],
            "metrics": {"CALLBACK": [{"value": number}], "other": number, "more": [int(plain)]},
            "functionEvents": {
                "1": [
                    {
                        "arguments": {"caller_id": number, "id": plain, "n": int(plain)},
                        "state_changes": {"added": {"customer_id": plain}},
                        "logs": [number],
                        "content": number,
                        "error": f"no caller {number}",
                    }
                ]
            },
            "callerId": number,
            "new": {"deep": [[number]]},
        }
        before = copy.deepcopy(detail)
        for pii, mark in (("hash", digest(plain)), ("drop", DROPPED)):
            redaction = Redaction(pii, SECRET, "keep")  # type: ignore[arg-type]
            found = redaction.apply(detail)
            assert detail == before
            assert json.dumps(found).count(mark) == json.dumps(detail).count("7946")
            assert "7946" not in in_rows(shaped(found))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        )
    )
    def test_the_structure_of_an_answer_is_unchanged(self, value: Any) -> None:
        assert outline(redacted(value, name="new")) == outline(value)


def outline(value: Any) -> Any:
    """Containers of a document, without values."""
    if isinstance(value, dict):
        return {key: outline(item) for key, item in value.items()}
    return [outline(item) for item in value] if isinstance(value, list) else None


MARKER = "xylophone"


def spoken(words: Any) -> Json:
    """A conversation with `words` in every field of the transcript."""
    return {
        "conversationId": "CA1",
        "createdAt": "2026-06-03T13:18:06.370000+00:00",
        "fromNumber": "+442079460000",
        "duration": 73,
        "shortSummary": words,
        "state": {"said": words},
        "turns": [
            {
                "turn_id": 7,
                "user_input_datetime": "2026-06-03T13:18:07+00:00",
                "latency": {"perceived_latency": 1.5},
                "is_silence": True,
                "user_input": words,
                "agent_response": words,
                "translated_user_input": words,
                "english_agent_response": words,
                "user_input_dtmf": words,
                "user_input_dtmf_finish_key": words,
                "entities": words,
                "llm_requests": [words],
                "metadata": {"retrieved_topics": words, "top_transcripts": [{"text": words}]},
            },
            {"is_silence": False, "metadata": words, "entities": [{"said": words}]},
        ],
        "metrics": {
            "CALL_DURATION": [{"timestamp": "2026-06-03T13:19:19", "value": "73"}],
            "CSAT_FREE_FEEDBACK": [{"value": words}],
        },
        "functionEvents": {
            "2": [
                {
                    "name": "book",
                    "duration": 4108,
                    "utterance": words,
                    "content": words,
                    "arguments": {"said": words},
                    "logs": [words],
                    "state_changes": {"added": {"said": words}},
                }
            ]
        },
    }


def with_new_fields(words: Any) -> Json:
    """A conversation with `words` in fields that the API may add, and in texts of people."""
    return {
        "conversationId": "CA1",
        "createdAt": "2026-06-03T13:18:06.370000+00:00",
        "handoffReason": "desk",
        "variantId": 7,
        "tags": ["vip", {"said": words}],
        "note": words,
        "inProgress": [words],
        "channel": {"said": words},
        "newSummary": words,
        "turns": [
            {
                "turn_id": [words],
                "latency": {"perceived_latency": 1.5, "said": words},
                "barge_in": {"said": words},
                "asr_lang_code": "en-US",
                "intents": [{"name": "book", "said": words}],
                "new_field": words,
                "reviews": [
                    {
                        "annotationType": "wrong_info",
                        "createdBy": "Jo Lee",
                        "comment": words,
                        "reason": words,
                        "new_field": words,
                    },
                    words,
                ],
            },
            words,
        ],
        "metrics": {
            "SCORE": [{"timestamp": "2026-06-03T13:19:19", "value": "4.5", "said": words}],
            "OPTED_IN": "true",
            "AT": "2026-06-03T13:19:19",
            "ANSWER": [{"value": f"{MARKER} {words}"}],
            "DEEP": {"said": words},
        },
        "functionEvents": {
            "2": [
                {
                    "id": "f1",
                    "name": "book",
                    "error": f"{MARKER} {words}",
                    "hangup": {"said": words},
                    "handoff": {"type": "transfer", "reason": f"{MARKER} x", "said": words},
                    "transition": {"said": words},
                    "new_field": words,
                },
                {"said": words},
            ],
            f"{MARKER} {words}": [words],
        },
    }


words = st.recursive(
    st.text().map(lambda text: f"{text} {MARKER}"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)


class TestTranscriptsDropped:
    @given(words)
    def test_no_word_of_the_transcript_is_left(self, said: Any) -> None:
        for pii in ("keep", "hash", "drop"):
            redaction = Redaction(pii, SECRET, "drop")
            detail = redaction.apply(spoken(said))
            assert MARKER not in json.dumps(detail)
            assert MARKER not in in_rows(shaped(detail))

    def test_metrics_and_durations_are_kept(self) -> None:
        result = shaped(Redaction("keep", "", "drop").apply(spoken("said")))
        (conversation,) = result.tables["conversations"].to_pylist()
        assert conversation["num_turns"] == 2
        assert conversation["num_silences"] == 1
        assert conversation["duration_seconds"] == 73.0
        assert conversation["from_number"] == "+442079460000"
        assert conversation["is_transcript_withheld"] is False
        assert result.withheld == 0
        first, second = result.tables["turns"].to_pylist()
        assert (first["turn_id"], first["latency_seconds"]) == (7, 1.5)
        assert first["user_input_at"] == datetime(2026, 6, 3, 13, 18, 7, tzinfo=UTC)
        assert (first["is_silence"], second["is_silence"]) == (True, False)
        metric, feedback = result.tables["metrics"].to_pylist()
        assert (metric["name"], metric["value_number"]) == ("CALL_DURATION", 73.0)
        assert (feedback["name"], feedback["value"]) == ("CSAT_FREE_FEEDBACK", DROPPED)
        (event,) = result.tables["function_events"].to_pylist()
        assert (event["turn_index"], event["name"], event["duration_ms"]) == (1, "book", 4108.0)

    @given(words)
    def test_no_field_that_the_api_may_add_leaks(self, said: Any) -> None:
        detail = Redaction("keep", "", "drop").apply(with_new_fields(said))
        result = shaped(detail)
        assert MARKER not in json.dumps(detail)
        assert MARKER not in in_rows(result)
        assert MARKER not in str(result.unmapped)

    def test_labels_ids_and_counts_are_kept(self) -> None:
        result = shaped(Redaction("keep", "", "drop").apply(with_new_fields("said")))
        (conversation,) = result.tables["conversations"].to_pylist()
        assert (conversation["handoff_reason"], conversation["variant_id"]) == ("desk", "7")
        assert (conversation["note"], conversation["num_turns"]) == (None, 2)
        (tag,) = result.tables["conversation_tags"].to_pylist()
        assert tag["tag"] == "vip"
        turn, _ = result.tables["turns"].to_pylist()
        assert (turn["asr_lang_code"], turn["latency_seconds"]) == ("en-US", 1.5)
        (intent,) = result.tables["turn_intents"].to_pylist()
        assert intent["intent"] == "book"
        review, _ = result.tables["annotations"].to_pylist()
        assert (review["annotation_type"], review["annotated_by"]) == ("wrong_info", "Jo Lee")
        assert (review["comment"], review["reason"]) == (None, None)
        event, *others = result.tables["function_events"].to_pylist()
        assert (event["name"], event["error"], event["event_id"]) == ("book", DROPPED, "f1")
        assert (event["handoff_type"], event["handoff_reason"]) == ("transfer", DROPPED)
        assert len(others) == 2
        values = {row["name"]: row["value"] for row in result.tables["metrics"].to_pylist()}
        assert values == {
            "SCORE": "4.5",
            "OPTED_IN": "true",
            "AT": "2026-06-03T13:19:19",
            "ANSWER": DROPPED,
            "DEEP": DROPPED,
        }

    def test_the_original_answer_is_not_changed(self) -> None:
        detail = spoken("said")
        before = copy.deepcopy(detail)
        Redaction("drop", "", "drop").apply(detail)
        assert detail == before
