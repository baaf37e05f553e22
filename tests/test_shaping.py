"""Shaping of payloads into rows: each irregularity of the API alone, then random drift."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from examples import examples
from polyai.api.decoding import decode
from polyai.clock import parse_timestamp
from polyai.config.agent import V3
from polyai.shape.answer import Answer, LoadedConversation, NoteVersion
from polyai.shape.shaping import Shaped, shape
from polyai.shape.values import number
from polyai.tables.conversations import CONVERSATIONS
from polyai.tables.registry import conversation_tables

pytestmark = pytest.mark.unit

AGENT = "PROJECT-HOTEL"
ID = "OUT-hotel/7%2F"
READ_AT = datetime(2026, 8, 1, 9, tzinfo=UTC)

Json = dict[str, Any]
Row = dict[str, Any]

EMPTY_ROW = LoadedConversation(
    num_turns=None,
    num_silences=None,
    num_ood=None,
    note=None,
)


EMPTY_COLUMNS: Row = {column.name: None for column in CONVERSATIONS.columns}


def loaded_with(**columns: Any) -> LoadedConversation:
    """Returns a loaded conversation with these columns, and NULL in the others."""
    return replace(EMPTY_ROW, columns=EMPTY_COLUMNS | columns)


def answer(detail: Json, loaded: LoadedConversation | None = None, **rest: Any) -> Answer:
    own_id = str(detail.get("conversationId") or ID)
    return Answer(own_id, detail, "hash", READ_AT, loaded, **rest)


def shaped(*answers: Answer | Json) -> Shaped:
    return shape(
        [one if isinstance(one, Answer) else answer(one) for one in answers],
        agent_id=AGENT,
        region="eu",
        load_id="1790000000.1",
    )


def rows(result: Shaped, table: str) -> list[Row]:
    """Rows with decoded JSON columns, including tombstones."""
    json_columns = {
        column.name
        for declared in conversation_tables()
        if declared.name == table
        for column in declared.columns
        if column.type == "json"
    }
    return [
        {
            name: json.loads(value) if name in json_columns and value is not None else value
            for name, value in row.items()
        }
        for row in result.tables[table].to_pylist()
    ]


def one(
    detail: Json, table: str = "conversations", loaded: LoadedConversation | None = None
) -> Row:
    (row,) = rows(shaped(answer(detail, loaded)), table)
    return row


def first_turn(**fields: Any) -> Row:
    return one({"turns": [fields]}, "turns")


def picked(found: Sequence[Row], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in found]


class TestConversation:
    def test_plain_fields_have_their_columns(self) -> None:
        row = one(
            {
                "conversationId": "CA1",
                "accountId": "ws-1",
                "projectId": AGENT,
                "channel": "VOICE-SIP",
                "clientEnv": "live",
                "fromNumber": "+442079460000",
                "duration": 73,
                "totalDuration": 80.5,
                "polyaiDuration": "73",
                "inProgress": False,
                "handoff": True,
                "tags": [],
            }
        )
        assert row["agent_id"] == AGENT
        assert row["conversation_id"] == "CA1"
        assert row["account_id"] == "ws-1"
        assert (row["channel"], row["environment"]) == ("VOICE-SIP", "live")
        assert row["from_number"] == "+442079460000"
        assert row["duration_seconds"] == 73.0
        assert row["total_duration_seconds"] == 80.5
        assert row["polyai_duration_seconds"] == 73.0
        assert (row["in_progress"], row["handoff"]) == (False, True)
        assert (row["region"], row["source_api"]) == ("eu", "data")
        assert (row["summary_hash"], row["fetched_at"]) == ("hash", READ_AT)
        assert row["_dlt_load_id"] == "1790000000.1"
        assert row["extra"] is None

    @pytest.mark.parametrize(
        ("sent", "heading", "summary", "extra"),
        [
            pytest.param({"heading": "H", "content": "C"}, "H", "C", None, id="object"),
            pytest.param({"heading": "", "content": None}, None, None, None, id="object, empty"),
            pytest.param(
                {"content": "C", "model": "m-1", "score": None},
                None,
                "C",
                {"shortSummary": {"model": "m-1", "score": None}},
                id="object, unknown keys",
            ),
            pytest.param({"heading": {"en": "H"}}, '{"en":"H"}', None, None, id="nested"),
            pytest.param("C", None, "C", None, id="string"),
            pytest.param("", None, None, None, id="empty string"),
            pytest.param(None, None, None, None, id="null"),
            pytest.param(["C", 1], None, '["C",1]', None, id="list"),
            pytest.param(7, None, "7", None, id="number"),
        ],
    )
    def test_summary(
        self, sent: Any, heading: str | None, summary: str | None, extra: Json | None
    ) -> None:
        row = one({"shortSummary": sent})
        assert (row["summary_heading"], row["summary"], row["extra"]) == (heading, summary, extra)

    @pytest.mark.parametrize(
        "party",
        [
            "+44 20 7946 0000",
            "guest@example.com",
            "sip:front-desk@pbx.example.com:5060",
            "polyai",
            "REDACTED",
            "anonymous",
        ],
    )
    def test_numbers_are_unchanged(self, party: str) -> None:
        row = one({"fromNumber": party, "toNumber": party})
        assert (row["from_number"], row["to_number"]) == (party, party)

    @pytest.mark.parametrize(
        "conversation_id", ["CA12", "a/b", "50%", "../..", "?id=1#x", "عربي", "AS_CHAT_1 2"]
    )
    def test_ids_are_unchanged(self, conversation_id: str) -> None:
        detail = {
            "conversationId": conversation_id,
            "turns": [{}],
            "functionEvents": {"1": [{"conversation_id": conversation_id}]},
        }
        result = shaped(detail)
        for table in ("conversations", "turns", "function_events"):
            (row,) = rows(result, table)
            assert row["conversation_id"] == conversation_id
            assert row["extra"] is None

    def test_another_project_id_is_kept(self) -> None:
        assert one({"projectId": "hotel-uk"})["extra"] == {"projectId": "hotel-uk"}
        assert one({"projectId": AGENT})["extra"] is None

    def test_unknown_keys_are_kept_unchanged(self) -> None:
        unknown = {"sentiment": {"v": [1, None]}, "queue": "", "cost": None, "pi": 3.10}
        result = shaped({"channel": "WEBCHAT", **unknown}, {"conversationId": "2", "queue": "q"})
        first, second = rows(result, "conversations")
        assert first["extra"] == unknown
        assert second["extra"] == {"queue": "q"}
        assert result.unmapped["conversations.queue"] == 2

    @pytest.mark.parametrize(
        ("field", "column", "garbage"),
        [
            ("createdAt", "created_at", "yesterday"),
            ("duration", "duration_seconds", "a minute"),
            ("inProgress", "in_progress", "maybe"),
            ("handoff", "handoff", {"to": "desk"}),
            ("polyScore", "poly_score", "good"),
            ("num_turns", "num_turns", "some"),
            ("num_ood", "num_ood", 1.5),
        ],
    )
    def test_values_that_do_not_fit_their_column_are_kept(
        self, field: str, column: str, garbage: Any
    ) -> None:
        row = one({field: garbage})
        assert row[column] in (None, 0)
        assert row["extra"] == {field: garbage}

    @pytest.mark.parametrize("text", ["👩🏽‍🍳 köstlich", "שלום עולם", "مرحبا\u200f", "x" * 2**20])
    def test_any_text(self, text: str) -> None:
        result = shaped({"note": text, "turns": [{"user_input": text}]})
        assert rows(result, "conversations")[0]["note"] == text
        assert rows(result, "notes")[0]["note"] == text
        assert rows(result, "turns")[0]["user_input"] == text

    def test_decoded_values_can_be_shaped(self) -> None:
        body = rb'{"note": "a\u0000b\ud800", "k\u0000": 123456789012345678901234567890}'
        row = one(decode(body))
        assert (row["note"], row["extra"]) == ("ab\ufffd", {"k": 123456789012345678901234567890})


@pytest.mark.parametrize(
    ("conversation_id", "sent", "direction"),
    [
        ("OUT-1", {}, "outbound"),
        ("OUT-1", {"direction": None}, "outbound"),
        ("OUT-1", {"direction": ""}, "outbound"),
        ("OUT-1", {"direction": "inbound"}, "inbound"),
        ("CA-OUT-1", {}, None),
        ("out-1", {}, None),
    ],
    ids=repr,
)
def test_direction_of_outbound_ids(conversation_id: str, sent: Json, direction: str | None) -> None:
    assert one({"conversationId": conversation_id} | sent)["direction"] == direction


class TestTimes:
    MOMENT = datetime(2026, 6, 3, 13, 18, 6, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("sent", "moment"),
        [
            pytest.param("2026-06-03T13:18:06.370000+00:00", MOMENT, id="microseconds"),
            pytest.param("2026-06-03T13:18:06Z", MOMENT, id="Z"),
            pytest.param("2026-06-03T13:18:06.757917", MOMENT, id="no zone"),
            pytest.param("Wed, 03 Jun 2026 13:18:06 GMT", MOMENT, id="RFC 1123"),
            pytest.param("2026-06-03T15:18:06+02:00", MOMENT, id="offset"),
            pytest.param("2026-06-03T13:18:06.123456789Z", MOMENT, id="nanoseconds"),
            pytest.param(1780492686, MOMENT, id="Unix seconds"),
            pytest.param(1780492686000, MOMENT, id="Unix milliseconds"),
            pytest.param("", None, id="empty"),
        ],
    )
    def test_in_every_column(self, sent: Any, moment: datetime | None) -> None:
        result = shaped(
            {
                "createdAt": sent,
                "turns": [{"user_input_datetime": sent, "reviews": [{"createdAt": sent}]}],
                "metrics": {"M": [{"timestamp": sent, "value": "1"}]},
                "functionEvents": {"1": [{"start_time": sent}]},
            }
        )
        for table, column in (
            ("conversations", "created_at"),
            ("turns", "user_input_at"),
            ("annotations", "annotated_at"),
            ("metrics", "recorded_at"),
            ("function_events", "started_at"),
        ):
            (row,) = rows(result, table)
            found = row[column]
            assert (found.replace(microsecond=0) if found else None) == moment, table
            assert row.get("extra") is None, table

    def test_invalid_times_are_kept_beside_null(self) -> None:
        garbage = "20 past 1"
        result = shaped(
            {
                "createdAt": garbage,
                "turns": [{"user_input_datetime": garbage, "reviews": [{"createdAt": garbage}]}],
                "metrics": {"M": [{"timestamp": garbage, "value": "1"}]},
                "functionEvents": {"1": [{"start_time": garbage}]},
            }
        )
        assert rows(result, "conversations")[0]["extra"] == {
            "metrics": {"M": [{"timestamp": garbage, "value": "1"}]},
            "createdAt": garbage,
        }
        assert rows(result, "turns")[0]["extra"] == {"user_input_datetime": garbage}
        assert rows(result, "annotations")[0]["extra"] == {"createdAt": garbage}
        assert rows(result, "function_events")[0]["extra"] == {"start_time": garbage}
        assert rows(result, "metrics")[0]["recorded_at"] is None


class TestTurns:
    @pytest.mark.parametrize(
        ("sent", "seconds", "latency", "extra"),
        [
            pytest.param(
                {"label": "slow", "perceived_latency": 3.88, "perceived_latency_percentile_1d": 9},
                3.88,
                {"label": "slow", "perceived_latency": 3.88, "perceived_latency_percentile_1d": 9},
                None,
                id="object",
            ),
            pytest.param({"label": None}, None, {"label": None}, None, id="object without number"),
            pytest.param(
                {"perceived_latency": "fast"}, None, {"perceived_latency": "fast"}, None, id="odd"
            ),
            pytest.param(1.25, 1.25, None, None, id="number"),
            pytest.param(2, 2.0, None, None, id="whole number"),
            pytest.param("1.25", 1.25, None, None, id="number as text"),
            pytest.param(None, None, None, None, id="null"),
            pytest.param("", None, None, None, id="empty"),
            pytest.param("fast", None, None, {"latency": "fast"}, id="invalid"),
            pytest.param([1.2], None, None, {"latency": [1.2]}, id="list"),
            pytest.param(True, None, None, {"latency": True}, id="boolean"),
        ],
    )
    def test_latency(
        self, sent: Any, seconds: float | None, latency: Json | None, extra: Json | None
    ) -> None:
        row = first_turn(latency=sent)
        assert (row["latency_seconds"], row["latency"], row["extra"]) == (seconds, latency, extra)

    def test_latency_missing(self) -> None:
        row = first_turn(user_input="hi")
        assert (row["latency_seconds"], row["latency"], row["extra"]) == (None, None, None)

    @pytest.mark.parametrize(
        ("sent", "turn_id", "extra"),
        [
            (743916318, 743916318, None),
            (2**63 - 1, 2**63 - 1, None),
            ("743916318", 743916318, None),
            (2**63, None, {"turn_id": 2**63}),
            (2**80, None, {"turn_id": 2**80}),
            ("turn-7", None, {"turn_id": "turn-7"}),
            (None, None, None),
        ],
        ids=str,
    )
    def test_turn_id(self, sent: Any, turn_id: int | None, extra: Json | None) -> None:
        row = first_turn(turn_id=sent)
        assert (row["turn_index"], row["turn_id"], row["extra"]) == (0, turn_id, extra)

    def test_items_that_are_not_objects_keep_their_index(self) -> None:
        found = rows(shaped({"turns": [None, {"user_input": "a"}, "b", 4, ["c"]]}), "turns")
        assert picked(found, "turn_index", "user_input", "extra") == [
            (0, None, None),
            (1, "a", None),
            (2, None, {"value": "b"}),
            (3, None, {"value": 4}),
            (4, None, {"value": ["c"]}),
        ]

    def test_empty_texts_are_null_and_unknown_keys_are_kept(self) -> None:
        row = first_turn(user_input="", asr_lang_code="", user_input_dtmf_finish_key="", tone=None)
        assert (row["user_input"], row["asr_lang_code"]) == (None, None)
        assert row["user_input_dtmf_finish_key"] is None
        assert row["extra"] == {"tone": None}

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            pytest.param([{"city": "Bath"}], [("city", "Bath")], id="one value"),
            pytest.param(
                [{"city": ["Bath", "York"], "n": 2}],
                [("city", "Bath"), ("city", "York"), ("n", "2")],
                id="several values",
            ),
            pytest.param({"city": "Bath", "n": [1]}, [("city", "Bath"), ("n", "1")], id="mapping"),
            pytest.param(
                [{"name": "city", "value": "Bath"}, {"name": "n", "value": [1, None]}],
                [("city", "Bath"), ("n", "1"), ("n", None)],
                id="name and value",
            ),
            pytest.param([{"a": {"b": 1}}], [("a", '{"b":1}')], id="nested value"),
            pytest.param(["Bath", None], [("", "Bath"), ("", None)], id="no names"),
            pytest.param([], [], id="none"),
            pytest.param(None, [], id="null"),
        ],
    )
    def test_entities(self, sent: Any, expected: list[tuple[Any, ...]]) -> None:
        result = shaped({"turns": [{}, {"entities": sent}]})
        found = rows(result, "turn_entities")
        assert [(row["name"] or "", row["value"]) for row in found] == expected
        assert picked(found, "turn_index", "position") == [(1, n) for n in range(len(expected))]
        assert rows(result, "turns")[1]["entities"] == sent

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            (["book", "pay"], ["book", "pay"]),
            ([{"name": "book", "score": 0.5}], ["book"]),
            ([{"label": "book"}], ['{"label":"book"}']),
            ("book", ["book"]),
            (None, []),
        ],
        ids=str,
    )
    def test_intents(self, sent: Any, expected: list[str]) -> None:
        result = shaped({"turns": [{"intents": sent}]})
        assert picked(rows(result, "turn_intents"), "intent") == [(name,) for name in expected]
        assert rows(result, "turns")[0]["intents"] == sent

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            (["zip_code"], ["zip_code"]),
            (["pool, spa", "parking,"], ["pool", "spa", "parking"]),
            ("pool,spa", ["pool", "spa"]),
            ([None, "", ","], []),
            (None, []),
        ],
        ids=str,
    )
    def test_topics_are_split_at_commas(self, sent: Any, expected: list[str]) -> None:
        result = shaped({"turns": [{"metadata": {"retrieved_topics": sent}}]})
        found = rows(result, "turn_topics")
        assert picked(found, "position", "topic") == list(enumerate(expected))
        assert rows(result, "turns")[0]["metadata"] == {"retrieved_topics": sent}

    @pytest.mark.parametrize("metadata", [None, "", "none", 0, ["a"]], ids=repr)
    def test_metadata_that_is_not_an_object(self, metadata: Any) -> None:
        row = first_turn(metadata=metadata)
        assert row["current_node"] is None
        assert row["metadata"] == (metadata if metadata != "" else None)


class TestAnnotations:
    def test_as_sent(self) -> None:
        review = {
            "role": "user",
            "annotationType": "wrong_transcript",
            "comment": "said Bath",
            "reason": "misheard",
            "createdBy": "qa@example.com",
            "createdAt": "2026-06-04T08:00:00Z",
            "severity": None,
        }
        result = shaped({"turns": [{}, {"reviews": [review]}]})
        (row,) = rows(result, "annotations")
        assert (row["turn_index"], row["position"]) == (1, 0)
        assert (row["role"], row["annotation_type"]) == ("user", "wrong_transcript")
        assert (row["comment"], row["annotated_by"]) == ("said Bath", "qa@example.com")
        assert row["reason"] == "misheard"
        assert row["annotated_at"] == datetime(2026, 6, 4, 8, tzinfo=UTC)
        assert row["extra"] == {"severity": None}
        assert rows(result, "turns")[1]["extra"] is None

    @pytest.mark.parametrize("own", [None, ""], ids=["null", "empty"])
    def test_an_alias_beside_an_empty_field(self, own: Any) -> None:
        review = {
            "annotationType": own,
            "label": "wrong_info",
            "createdAt": own,
            "timestamp": "2026-06-04T08:00:00Z",
        }
        row = one({"turns": [{"reviews": [review]}]}, "annotations")
        assert row["annotation_type"] == "wrong_info"
        assert row["annotated_at"] == datetime(2026, 6, 4, 8, tzinfo=UTC)
        assert row["extra"] is None

    def test_a_second_alias_is_kept(self) -> None:
        row = one({"turns": [{"reviews": [{"type": "a", "label": "b"}]}]}, "annotations")
        assert (row["annotation_type"], row["extra"]) == ("a", {"label": "b"})

    @pytest.mark.parametrize(
        ("sent", "extras"),
        [
            ("fine", [{"value": "fine"}]),
            (0, [{"value": 0}]),
            (["fine", None], [{"value": "fine"}, {"value": None}]),
            ({"verdict": 1}, [{"verdict": 1}]),
            ([], []),
            (None, []),
            ({}, []),
        ],
        ids=repr,
    )
    def test_other_shapes(self, sent: Any, extras: list[Json]) -> None:
        found = rows(shaped({"turns": [{"reviews": sent}]}), "annotations")
        assert picked(found, "extra") == [(extra,) for extra in extras]


class TestMetrics:
    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            pytest.param([{"timestamp": None, "value": "73"}], [("73", 73.0, None)], id="stamped"),
            pytest.param({"value": "x"}, [("x", None, None)], id="one stamped value"),
            pytest.param("Bath", [("Bath", None, None)], id="string"),
            pytest.param(["1", "2"], [("1", 1.0, None), ("2", 2.0, None)], id="list of strings"),
            pytest.param(-1.5, [("-1.5", -1.5, None)], id="number"),
            pytest.param(True, [("true", None, True)], id="boolean"),
            pytest.param("False", [("False", None, False)], id="boolean as text"),
            pytest.param(None, [(None, None, None)], id="null"),
            pytest.param("", [(None, None, None)], id="empty"),
            pytest.param([], [], id="empty list"),
            pytest.param([None, "a"], [(None, None, None), ("a", None, None)], id="null in list"),
            pytest.param("1e999", [("1e999", None, None)], id="beyond a double"),
            pytest.param("nan", [("nan", None, None)], id="nan"),
            pytest.param({"a": 1}, [('{"a":1}', None, None)], id="object"),
            pytest.param([{"value": {"a": 1}}], [('{"a":1}', None, None)], id="object value"),
            pytest.param([["a"]], [('["a"]', None, None)], id="list in list"),
        ],
    )
    def test_value(self, sent: Any, expected: list[tuple[Any, ...]]) -> None:
        result = shaped({"metrics": {"M": sent}})
        found = rows(result, "metrics")
        assert picked(found, "value", "value_number", "value_boolean") == expected
        assert picked(found, "name", "occurrence") == [("M", n) for n in range(len(expected))]
        assert rows(result, "conversations")[0]["extra"] is None

    def test_names_are_customer_defined(self) -> None:
        names = ["Booked", "BOOKED", "booked room", "a:b", " ", "", "日本"]
        found = rows(shaped({"metrics": dict.fromkeys(names, "1")}), "metrics")
        assert picked(found, "name", "occurrence") == [(name, 0) for name in names]

    def test_extra_keys_of_an_item_are_kept_in_the_conversation(self) -> None:
        odd = {"value": "1", "timestamp": "2026-06-03T13:18:06", "unit": None}
        result = shaped({"metrics": {"M": [{"value": "0"}, odd], "N": [odd]}})
        assert picked(rows(result, "metrics"), "name", "occurrence", "value") == [
            ("M", 0, "0"),
            ("M", 1, "1"),
            ("N", 0, "1"),
        ]
        extra = rows(result, "conversations")[0]["extra"]
        assert extra == {"metrics": {"M": [odd], "N": [odd]}}
        assert result.unmapped == {"conversations.metrics": 1}


class TestFunctionEvents:
    def test_as_sent(self) -> None:
        event = {
            "arguments": {"room": "12"},
            "conversation_id": ID,
            "duration": 4108,
            "error": {"code": 7},
            "function_id": "FUNCTION-1",
            "handoff": {"type": "desk", "reason": "ASKED", "queue": None},
            "hangup": None,
            "id": "e-1",
            "logs": [],
            "name": "book",
            "start_time": "Wed, 03 Jun 2026 13:18:09 GMT",
            "turn_id": 6,
        }
        row = one({"functionEvents": {"6": [event]}}, "function_events")
        assert (row["turn_index"], row["event_index"], row["event_id"]) == (5, 0, "e-1")
        assert (row["function_id"], row["name"]) == ("FUNCTION-1", "book")
        assert row["duration_ms"] == 4108.0
        assert row["started_at"] == datetime(2026, 6, 3, 13, 18, 9, tzinfo=UTC)
        assert (row["arguments"], row["logs"]) == ({"room": "12"}, [])
        assert row["error"] == '{"code":7}'
        assert (row["handoff_type"], row["handoff_reason"]) == ("desk", "ASKED")
        assert (row["hangup"], row["extra"]) == (None, {"handoff": {"queue": None}})

    @pytest.mark.parametrize(
        ("sent", "stored"),
        [
            (None, None),
            ("", None),
            (True, "true"),
            (False, "false"),
            ("caller asked", "caller asked"),
            (7, "7"),
            ({"reason": "done"}, '{"reason":"done"}'),
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("name", ["hangup", "variant_id_change"])
    def test_any_value_of_a_hangup_or_variant_change_is_text(
        self, name: str, sent: Any, stored: str | None
    ) -> None:
        row = one({"functionEvents": {"1": [{name: sent}]}}, "function_events")
        assert (row[name], row["extra"]) == (stored, None)

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            pytest.param({"1": [{}], "3": [{}, {}]}, [(0, 0), (2, 0), (2, 1)], id="from 1"),
            pytest.param({"0": [{}], "2": [{}]}, [(0, 0), (2, 0)], id="from 0"),
            pytest.param({"2": {"name": "f"}}, [(1, 0)], id="one object for a list"),
            pytest.param({"2": None, "3": [None, {}]}, [(2, 0)], id="nulls"),
            pytest.param([{"turn_id": 2}, {"turn_id": 2}], [(1, 0), (1, 1)], id="list"),
            pytest.param({"two": [{"turn_id": 2}]}, [(1, 0)], id="own turn number"),
            pytest.param({"two": [{}], "1": [{}]}, [(-1, 0), (0, 0)], id="no turn number"),
            pytest.param({"two": [{}], "0": [{}]}, [(-1, 0), (0, 0)], id="no number, from 0"),
            pytest.param({"9" * 30: [{}]}, [(-1, 0)], id="number beyond 64 bits"),
            pytest.param({"9" * 5000: [{"turn_id": 10**20}]}, [(-1, 0)], id="thousands of digits"),
            pytest.param({}, [], id="empty"),
            pytest.param(None, [], id="null"),
        ],
    )
    def test_turn_and_event_index(self, sent: Any, expected: list[tuple[int, int]]) -> None:
        found = rows(shaped({"functionEvents": sent}), "function_events")
        assert picked(found, "turn_index", "event_index") == expected

    def test_a_key_that_is_not_a_number_is_kept(self) -> None:
        event = {"turn": 4, "turn_id": "x"}
        row = one({"functionEvents": {"greeting": [event]}}, "function_events")
        assert row["extra"] == {"turn": 4, "turn_id": "x", "functionEvents": "greeting"}

    @pytest.mark.parametrize("event", ["said", 7, False, ["a"]], ids=repr)
    def test_an_event_that_is_not_an_object(self, event: Any) -> None:
        row = one({"functionEvents": {"1": [event]}}, "function_events")
        assert (row["turn_index"], row["extra"]) == (0, {"value": event})

    @pytest.mark.parametrize("handoff", ["desk", True, False, ["desk"], 1], ids=repr)
    def test_a_handoff_that_is_not_an_object(self, handoff: Any) -> None:
        row = one({"functionEvents": {"1": [{"handoff": handoff}]}}, "function_events")
        assert (row["handoff_type"], row["extra"]) == (None, {"handoff": handoff})

    def test_ids_of_another_conversation_or_turn_are_kept(self) -> None:
        event = {"conversation_id": "other", "turn_id": 9}
        row = one({"functionEvents": {"1": [event]}}, "function_events")
        assert row["extra"] == event


class TestTagsAndWrongTypes:
    def test_tags(self) -> None:
        found = rows(shaped({"tags": ["vip", "", None, 7, {"n": 1}]}), "conversation_tags")
        assert picked(found, "position", "tag") == [(0, "vip"), (3, "7"), (4, '{"n":1}')]

    @pytest.mark.parametrize("field", ["turns", "tags", "metrics", "functionEvents"])
    @pytest.mark.parametrize("value", ["text", 7, True, False, 0], ids=repr)
    def test_neither_list_nor_object(self, field: str, value: Any) -> None:
        result = shaped({field: value})
        assert rows(result, "conversations")[0]["extra"] == {field: value}
        assert all(result.tables[table.name].num_rows == 0 for table in conversation_tables()[1:])

    @pytest.mark.parametrize(
        ("field", "value"),
        [("turns", {"0": {"user_input": "a"}}), ("tags", {"a": 1}), ("metrics", ["a"])],
    )
    def test_list_for_object_and_object_for_list(self, field: str, value: Any) -> None:
        assert one({field: value})["extra"] == {field: value}


class TestScore:
    @pytest.mark.parametrize(
        ("created_at", "scale"),
        [
            ("2026-07-27T23:59:59.999999Z", "0-10"),
            ("2026-07-28T01:59:59+02:00", "0-10"),
            ("2026-07-28T00:00:00", "1-5"),
            ("2026-08-01T00:00:00Z", "1-5"),
            (None, "1-5"),
            ("unknown", "1-5"),
        ],
        ids=str,
    )
    def test_scale_by_day_of_creation(self, created_at: str | None, scale: str) -> None:
        row = one({"polyScore": 4, "createdAt": created_at})
        assert (row["poly_score"], row["poly_score_scale"]) == (4.0, scale)

    def test_the_start_replaces_a_missing_creation_time(self) -> None:
        assert one({"polyScore": 6, "startedAt": "2026-06-03T00:00:00Z"})["poly_score_scale"] == (
            "0-10"
        )

    @pytest.mark.parametrize("sent", [None, "", "n/a"], ids=repr)
    def test_no_score(self, sent: Any) -> None:
        row = one({"polyScore": sent})
        assert (row["poly_score"], row["poly_score_scale"]) == (None, None)
        loaded = loaded_with(poly_score=6.0, poly_score_scale="0-10")
        row = one({"polyScore": sent}, loaded=loaded)
        assert (row["poly_score"], row["poly_score_scale"]) == (6.0, "0-10")

    def test_a_new_score_replaces_the_loaded_one(self) -> None:
        loaded = loaded_with(poly_score=2.0, poly_score_scale="1-5")
        row = one({"polyScore": "4.5", "createdAt": "2026-08-01T00:00:00Z"}, loaded=loaded)
        assert (row["poly_score"], row["poly_score_scale"]) == (4.5, "1-5")


LOADED_TURNS = replace(EMPTY_ROW, num_turns=4, num_silences=1, num_ood=2)


def tombstoned(result: Shaped) -> set[str]:
    return {name for name, table in result.tables.items() if "_deleted" in table.column_names
            and any(table["_deleted"].to_pylist())}  # fmt: skip


class TestWithheldTranscripts:
    @pytest.mark.parametrize("turns", [[], None, "", "gone"], ids=repr)
    def test_loaded_turns_are_kept(self, turns: Any) -> None:
        result = shaped(answer({"turns": turns}, LOADED_TURNS))
        (row,) = rows(result, "conversations")
        assert (row["num_turns"], row["num_silences"], row["num_ood"]) == (4, 1, 2)
        assert row["is_transcript_withheld"] is True
        assert result.withheld == 1
        assert tombstoned(result) == {"conversation_tags"}

    def test_counts_of_the_answer_are_used(self) -> None:
        (row,) = rows(shaped({"num_turns": 7, "num_silences": 0, "num_ood": "3"}), "conversations")
        assert (row["num_turns"], row["num_silences"], row["num_ood"]) == (7, 0, 3)
        assert row["is_transcript_withheld"] is True
        assert row["extra"] is None

    def test_a_count_that_disagrees_is_kept(self) -> None:
        assert one({"num_turns": 7, "turns": [{}]})["extra"] == {"num_turns": 7}
        row = one({"num_turns": 7}, loaded=LOADED_TURNS)
        assert (row["num_turns"], row["extra"]) == (4, {"num_turns": 7})

    @pytest.mark.parametrize(
        ("children", "expected"), [({}, 7), ({"turns": {(0,): {}}}, 4)], ids=["none", "some"]
    )
    def test_a_newer_count_of_v3_replaces_one_without_loaded_turns(
        self, children: dict[str, Any], expected: int
    ) -> None:
        loaded = replace(LOADED_TURNS, children=children)
        result = shaped(answer({"num_turns": 7}, loaded, apis=frozenset({V3})))
        (row,) = rows(result, "conversations")
        assert (row["num_turns"], row["is_transcript_withheld"]) == (expected, True)

    def test_a_conversation_without_turns(self) -> None:
        result = shaped({"turns": []})
        (row,) = rows(result, "conversations")
        assert (row["num_turns"], row["num_silences"], row["num_ood"]) == (0, None, None)
        assert row["is_transcript_withheld"] is False
        assert result.withheld == 0

    def test_turns_are_counted(self) -> None:
        turns = [{"is_silence": True, "is_ood": None}, {"is_silence": False}, None]
        row = one({"turns": turns}, loaded=LOADED_TURNS)
        assert (row["num_turns"], row["num_silences"], row["num_ood"]) == (3, 1, None)
        assert row["is_transcript_withheld"] is False


class TestTombstones:
    CHILDREN = frozenset(table.name for table in conversation_tables() if table.is_child)

    def test_all_children_are_gone(self) -> None:
        result = shaped(answer({"turns": [{}]}, LOADED_TURNS))
        assert tombstoned(result) == self.CHILDREN - {"turns"}
        for name in self.CHILDREN - {"turns"}:
            (row,) = rows(result, name)
            assert (row["agent_id"], row["conversation_id"]) == (AGENT, ID)

    def test_only_in_tables_without_rows(self) -> None:
        result = shaped(
            answer({"conversationId": "a", "turns": [{}], "tags": ["x"]}, LOADED_TURNS),
            answer({"conversationId": "b", "turns": [{}]}, LOADED_TURNS),
            answer({"conversationId": "c", "turns": [{}]}),
        )
        assert picked(rows(result, "conversation_tags"), "conversation_id", "_deleted") == [
            ("a", None),
            ("b", True),
        ]

    def test_none_for_a_new_conversation(self) -> None:
        assert tombstoned(shaped({})) == set()

    def test_all_turn_tables_are_children(self) -> None:
        kept = {table.name for table in conversation_tables() if table.is_kept_when_withheld}
        assert kept
        assert kept <= self.CHILDREN


class TestNotes:
    FIRST, SECOND = READ_AT - timedelta(days=2), READ_AT - timedelta(days=1)

    def versions(self, note: Any, loaded: str | None, *history: NoteVersion) -> list[Any]:
        known = replace(EMPTY_ROW, note=loaded)
        result = shaped(answer({"note": note}, known, note_history=history))
        assert rows(result, "conversations")[0]["note"] == (note or None)
        return picked(rows(result, "notes"), "note", "valid_from", "valid_to")

    def test_of_a_new_conversation(self) -> None:
        found = rows(shaped({"note": "call back"}), "notes")
        assert picked(found, "note", "valid_from", "valid_to") == [("call back", READ_AT, None)]
        assert rows(shaped({"note": ""}), "notes") == []

    def test_first(self) -> None:
        assert self.versions("a", None) == [("a", READ_AT, None)]

    @pytest.mark.parametrize("note", ["a", None], ids=repr)
    def test_unchanged(self, note: str | None) -> None:
        assert self.versions(note, note) == []

    def test_changed(self) -> None:
        history = (
            NoteVersion("a", self.FIRST, self.SECOND),
            NoteVersion("b", self.SECOND),
        )
        assert self.versions("c", "b", *history) == [
            ("a", self.FIRST, self.SECOND),
            ("b", self.SECOND, READ_AT),
            ("c", READ_AT, None),
        ]

    @pytest.mark.parametrize("removed", [None, ""], ids=repr)
    def test_removed(self, removed: str | None) -> None:
        history = NoteVersion("a", self.FIRST)
        assert self.versions(removed, "a", history) == [("a", self.FIRST, READ_AT)]

    def test_written_again_after_it_was_removed(self) -> None:
        history = NoteVersion("a", self.FIRST, self.SECOND)
        assert self.versions("a", None, history) == [
            ("a", self.FIRST, self.SECOND),
            ("a", READ_AT, None),
        ]

    def test_changed_with_a_loaded_history(self) -> None:
        history = (NoteVersion("a", self.FIRST, self.SECOND), NoteVersion("b", self.SECOND))
        assert self.versions("b", "a", *history) == [
            ("a", self.FIRST, self.SECOND),
            ("b", self.SECOND, None),
        ]

    def test_removed_with_a_loaded_history(self) -> None:
        history = NoteVersion("a", self.FIRST, self.SECOND)
        assert self.versions(None, "a", history) == [("a", self.FIRST, self.SECOND)]


def full_detail() -> Json:
    """A detail with all fields, each leaf with a distinct value."""
    return {
        "conversationId": ID,
        "accountId": "ws-hotel",
        "projectId": "hotel-uk",
        "channel": "VOICE-SIP",
        "createdAt": "2026-06-03T13:18:06.370000+00:00",
        "finishedAt": "2026-06-03T13:19:19.750000+00:00",
        "fromNumber": "+442079460000",
        "toNumber": "polyai",
        "duration": 73,
        "polyScore": 6.5,
        "num_turns": 12,
        "handoffReason": "ASKED",
        "shortSummary": {"heading": "Heading", "content": "Content", "model": "m-9"},
        "note": "a note",
        "tags": ["vip", "repeat"],
        "turns": [
            {
                "turn_id": 743916318,
                "user_input": "hello",
                "user_input_datetime": "2026-06-03T13:18:07.000001+00:00",
                "agent_response": "good day",
                "latency": {"label": "slow", "perceived_latency": 3.882713},
                "intents": ["greet", {"name": "ask", "score": 0.75}],
                "entities": [{"city": ["Bath", "York"]}, {"name": "nights", "value": "16"}],
                "metadata": {"current_node": "start", "retrieved_topics": ["pool", "spa"]},
                "reviews": [
                    {
                        "role": "user",
                        "label": "wrong_info",
                        "timestamp": "2026-06-04T08:00:00Z",
                        "severity": 17,
                    }
                ],
                "user_input_dtmf_finish_key": "#",
            },
            {"turn_id": 743917872, "latency": "1.61215", "user_input": "goodbye"},
        ],
        "metrics": {
            "CALL_DURATION": [{"timestamp": "2026-06-03T13:19:19.757917", "value": "74"}],
            "Room type": ["double", "twin"],
            "room type": "single",
        },
        "functionEvents": {
            "1": [
                {
                    "id": "e-1",
                    "arguments": {"room": "12b"},
                    "duration": 4108,
                    "error": "none free",
                    "handoff": {"type": "desk", "reason": "FULL", "queue": "q-3"},
                    "start_time": "Wed, 03 Jun 2026 13:18:09 GMT",
                    "turn_id": 1,
                    "hangup": "late",
                }
            ],
            "2": [{"id": "e-2", "name": "bye", "logs": ["log line"]}],
        },
        "sentiment": {"score": 0.25, "words": ["calm"]},
    }


# fmt: off
KNOWN_KEYS = [
    "name", "value", "timestamp", "label", "type", "role", "heading", "content", "turn_id",
    "latency", "metadata", "reviews", "turns", "metrics", "entities", "handoff", "duration",
    "num_silences", "state", "extra", "1", "turn",
]
# fmt: on
"""Keys with a meaning in some objects, used in others."""


def leaf(kind: int, unique: int) -> Any:
    """A distinct value, of alternating types."""
    moment = datetime(2026, 9, 1, tzinfo=UTC) + timedelta(seconds=unique)
    kinds = [
        f"word{unique}",
        50_000 + unique,
        2**63 + unique,
        unique + 0.123,
        f"{unique}.456",
        f"{90_000 + unique}",
        moment.isoformat(),
        moment.replace(year=2027, tzinfo=None).isoformat(),
        moment.replace(year=2028).strftime("%a, %d %b %Y %H:%M:%S GMT"),
        moment.replace(year=2029).timestamp(),
        f"pre{unique},post{unique}",
        f"20 to {unique}",
        True,
        False,
        0,
        None,
        "",
    ]
    return kinds[kind % len(kinds)]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container and key (or index) inside a document."""
    found = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in list(found):
        if key == "conversationId":
            continue
        yield value, key
        if isinstance(item, dict | list):
            yield from places(item)


@st.composite
def drifted(draw: st.DrawFn) -> Json:
    """A full detail with random JSON in random places, of known and unknown keys."""
    numbers = itertools.count(100)
    keys = st.sampled_from(KNOWN_KEYS) | st.integers(0, 99).map(lambda n: f"key{n}")
    leaves = st.integers(0, 16).map(lambda kind: leaf(kind, next(numbers)))
    values = st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=5,
    )
    detail = full_detail()
    for _ in range(draw(st.integers(1, 6))):
        container, key = draw(st.sampled_from(list(places(detail))))
        change = draw(st.sampled_from(["replace", "add", "remove", "wrap"]))
        if change == "replace":
            container[key] = draw(values)
        elif change == "wrap":
            container[key] = [container[key]]
        elif change == "remove":
            del container[key]
        elif isinstance(container, dict):
            container.setdefault(draw(keys), draw(values))
        else:
            container.append(draw(values))
    return detail


def leaves_of(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each scalar of a document that is not empty, with its path."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves_of(item, f"{path}.{key}")
    elif value not in (None, ""):
        yield path, value


OURS = frozenset(
    {"agent_id", "region", "source_api", "is_transcript_withheld"}
    | {"fetched_at", "summary_hash", "_dlt_load_id"}
)
"""Columns that the API does not send."""


class Values:
    """All values in the rows of a conversation, in any column."""

    def __init__(self, result: Shaped, conversation_id: str) -> None:
        self.texts: set[str] = set()
        self.numbers: set[float] = set()
        self.moments: set[datetime] = set()
        self.booleans: set[bool] = set()
        self.keys: set[str] = set()
        for table in conversation_tables():
            for row in rows(result, table.name):
                if row["conversation_id"] == conversation_id:
                    for name, value in row.items():
                        if name not in OURS.union(table.key) - {"name"}:
                            self.take(value)
                if table.name == "function_events":
                    # an event repeats the number of its turn, counted from 1 or from 0
                    self.numbers |= {row["turn_index"], row["turn_index"] + 1}

    def take(self, value: Any) -> None:
        if isinstance(value, bool):
            self.booleans.add(value)
        elif isinstance(value, int | float):
            self.numbers.add(value)
        elif isinstance(value, datetime):
            self.moments.add(value)
        elif isinstance(value, dict | list):
            for key in value if isinstance(value, dict) else ():
                self.keys.add(key)
            for item in value.values() if isinstance(value, dict) else value:
                self.take(item)
        elif value is not None:
            self.texts.add(value)
            if value.startswith(("[", "{")):
                self.take(json.loads(value))

    def __contains__(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value in self.booleans or str(value).lower() in self.texts
        if isinstance(value, str) and value in self.texts:
            return True
        if not isinstance(value, str) and (value in self.numbers or str(value) in self.texts):
            return True
        # a flag sent as 0
        if value == 0 and False in self.booleans:
            return True
        for known, read in ((self.numbers, number), (self.moments, parse_timestamp)):
            try:
                if read(value) in known:
                    return True
            except ValueError:
                pass
        return False


def keys_of(value: Any) -> Iterator[str]:
    """Each unknown key of a document, except names of metrics without a value."""
    if isinstance(value, dict):
        yield from (key for key in value if key.startswith("key") and value[key] not in ([], None))
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield from keys_of(item)


def assert_declared(result: Shaped) -> None:
    assert set(result.tables) == {t.name for t in conversation_tables()}
    for table in conversation_tables():
        built = result.tables[table.name]
        assert built.schema.equals(table.arrow_schema, check_metadata=True), table.name
        built.validate(full=True)
        for column in table.columns:
            assert not (column.required and built[column.name].null_count), column.name
        identities = built.select(["conversation_id", *table.key]).to_pylist()
        assert len({tuple(row.values()) for row in identities}) == len(identities), table.name


class TestDrift:
    @pytest.mark.slow
    @given(drifted())
    @examples(300)
    @example(full_detail())
    @example({"functionEvents": "none"})
    @example({"num_turns": {"all": 3}, "num_ood": "few"})
    @example({"turns": [{"reviews": 0}]})
    def test_no_value_is_lost(self, detail: Json) -> None:
        other = full_detail() | {"conversationId": "other"}
        sent = copy.deepcopy(detail)
        result = shaped(other, detail)
        assert detail == sent
        assert_declared(result)
        kept = Values(result, ID)
        missing = [(path, value) for path, value in leaves_of(sent) if value not in kept]
        assert missing == []
        assert set(keys_of(sent)) <= kept.keys | kept.texts
        assert plain(shaped(other)) == plain(result, "other")

    @pytest.mark.slow
    @given(st.data())
    @examples(200)
    def test_missing_or_null_fields_do_not_change_keys_of_other_rows(
        self, data: st.DataObject
    ) -> None:
        detail = full_detail()
        before = identities(shaped(detail))
        for container, key in list(places(detail)):
            if isinstance(container, dict) and key in container and data.draw(st.booleans()):
                if data.draw(st.booleans()):
                    del container[key]
                else:
                    container[key] = None
        result = shaped(detail)
        assert_declared(result)
        for table, found in identities(result).items():
            assert found <= before[table], table

    def test_only_unknown_keys_of_the_recorded_shape_are_in_extra(self) -> None:
        result = shaped(full_detail())
        assert set(result.unmapped) == {
            "conversations.projectId",
            "conversations.num_turns",
            "conversations.shortSummary",
            "conversations.sentiment",
            "annotations.severity",
            "function_events.handoff",
        }


def identities(result: Shaped) -> dict[str, set[tuple[Any, ...]]]:
    return {
        table.name: set(picked(rows(result, table.name), "conversation_id", *table.key))
        for table in conversation_tables()
    }


def plain(result: Shaped, conversation_id: str | None = None) -> dict[str, list[Row]]:
    return {
        table.name: [
            row
            for row in rows(result, table.name)
            if conversation_id in (None, row["conversation_id"])
        ]
        for table in conversation_tables()
    }


_VALUES: dict[str, Any] = {
    "text": "loaded",
    "double": 4.0,
    "bool": True,
    "timestamp": READ_AT,
    "json": {"loaded": 1},
}

_SET_BY_LOADS = {
    *("agent_id", "conversation_id", "region", "source_api", "summary_hash", "fetched_at"),
    *("_dlt_load_id", "extra", "is_transcript_withheld", "num_turns", "num_silences", "num_ood"),
}
_CHANGED_BY_PEOPLE = {"note", "in_progress"}

_TAKEN_AWAY = {
    column.name: column.type
    for column in CONVERSATIONS.columns
    if column.name not in _SET_BY_LOADS | _CHANGED_BY_PEOPLE
}


class TestWhatRetentionTakesAway:
    @pytest.mark.parametrize("name", _TAKEN_AWAY)
    @pytest.mark.parametrize("gone", [None, "", "REDACTED"], ids=repr)
    def test_it_does_not_erase_the_loaded_value(self, name: str, gone: str | None) -> None:
        value = _VALUES[_TAKEN_AWAY[name]]
        columns = {name: json.dumps(value) if isinstance(value, dict) else value}
        column = next(one for one in CONVERSATIONS.columns if one.name == name)
        is_redacted = gone == "REDACTED" and column.source in ("fromNumber", "toNumber")
        detail = {column.source: gone if gone != "REDACTED" or is_redacted else None}
        (row,) = rows(shaped(answer(detail, loaded_with(**columns))), "conversations")
        assert row[name] == value

    def test_a_new_value_replaces_the_loaded_one(self) -> None:
        loaded = loaded_with(from_number="REDACTED", summary="old", handoff_reason="old")
        detail = {"fromNumber": "+441234567890", "shortSummary": "new", "handoffReason": "new"}
        row = one(detail, loaded=loaded)
        assert (row["from_number"], row["summary"], row["handoff_reason"]) == (
            "+441234567890",
            "new",
            "new",
        )

    def test_no_part_of_an_older_summary_stands_beside_a_new_one(self) -> None:
        loaded = loaded_with(summary_heading="Old", summary="old")
        row = one({"shortSummary": {"content": "new"}}, loaded=loaded)
        assert (row["summary_heading"], row["summary"]) == (None, "new")
        row = one({"shortSummary": None}, loaded=loaded)
        assert (row["summary_heading"], row["summary"]) == ("Old", "old")

    @pytest.mark.parametrize("note", [None, ""], ids=repr)
    def test_a_note_that_somebody_removed_is_removed(self, note: str | None) -> None:
        loaded = replace(loaded_with(note="old"), note="old")
        assert one({"note": note}, loaded=loaded)["note"] is None

    def test_fields_without_a_column_are_kept_with_the_turns(self) -> None:
        columns = loaded_with(extra='{"sentiment": "good", "hops": 1}')
        loaded = replace(columns, num_turns=4)
        assert one({"turns": [], "hops": 2}, loaded=loaded)["extra"] == {
            "sentiment": "good",
            "hops": 2,
        }
        assert one({"turns": [{}], "hops": 2}, loaded=loaded)["extra"] == {"hops": 2}
