"""Truth of the sandbox for a warehouse that was loaded from both APIs, in any order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
import requests

from polyai.sandbox import Annotation, Sandbox, SandboxConfig, serve
from polyai.sandbox.model import Conversation, Metric, Sample, Summary
from polyai.sandbox.payloads import v3_row
from polyai.sandbox.truth import expected_rows
from polyai.tables.registry import conversation_tables
from warehouse_rows import assert_equals_truth, columns_of_api

pytestmark = pytest.mark.server

AGENT = "PROJECT-BOOKINGS"
DATA, V3 = "data", "conversations_v3"
ORDERS = ((DATA,), (V3,), (DATA, V3), (V3, DATA), (DATA, V3, DATA))
CREATED = datetime(2026, 10, 1, 8, tzinfo=UTC)
MOMENT = CREATED + timedelta(seconds=3, microseconds=5)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(SandboxConfig(conversations=400, inventions=True))


@pytest.fixture(scope="module")
def call(sandbox: Sandbox) -> Conversation:
    """Makes a conversation for which each API has fields that the other lacks."""
    made = next(
        one
        for one in (sandbox.conversation(AGENT, index) for index in sandbox.listed(AGENT))
        if one.finished_at and one.turns and len(one.turns) > 3 and one.function_events
    )
    assert made.turns
    first, second, *others = made.turns
    first = replace(
        first,
        is_ood=None,
        is_silence=True,
        intents=None,
        entities=None,
        topics=("opening_hours",),
        latency={"perceived_latency": 1.5},
        latency_seconds=1.5,
        current_node="greeting",
        annotations=(Annotation("user", "wrong_info", None, None, None),),
        extra={"emotion": "calm"},
    )
    second = replace(
        second,
        intents=("BOOK_TABLE",),
        entities=(("guests", 4), ("person_name", ["Ada", "Byron"])),
        entities_as_object=True,
    )
    return replace(
        made,
        project_id=AGENT,
        direction="inbound",
        language="en-US",
        variant_id=7,
        variant_name="Evening",
        created_at=CREATED,
        started_at=None,
        duration_seconds=61.25,
        total_duration_seconds=61.75,
        polyai_duration_seconds=None,
        in_progress=None,
        handoff=None,
        handoff_reason={"code": 3},
        poly_score=4.0,
        summary=Summary("Table", "Booked."),
        note="call back",
        tags=("vip",),
        state={"topic": "book_table"},
        turns=(first, second, *others),
        turn_count=len(made.turns),
        silence_count=2,
        ood_count=5,
        metrics=(
            Metric("ratio", (Sample(0.25, MOMENT), Sample(True, None), Sample("", MOMENT))),
            Metric("geo", (Sample({"lat": None}, None),), is_list=False),
            Metric("UNUSED", ()),
        ),
        extra={"hops": 2},
    )


def conversation(call: Conversation, *apis: str) -> dict[str, Any]:
    (row,) = expected_rows(call, apis)["conversations"]
    return row


def part(row: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def test_the_default_is_the_truth_of_the_data_api(sandbox: Sandbox, call: Conversation) -> None:
    assert expected_rows(call) == expected_rows(call, (DATA,))
    assert list(sandbox.truth(AGENT)) == list(sandbox.truth(AGENT, [DATA]))
    row = conversation(call, DATA)
    assert part(row, "source_api", "state", "variant_name") == ("data", None, None)
    assert part(row, "started_at", "in_progress", "handoff") == (None, None, None)
    assert part(row, "num_silences", "extra") == (1, {"hops": 2})


@pytest.mark.parametrize("apis", ORDERS)
def test_every_row_has_every_computed_column_and_no_unknown_one(
    sandbox: Sandbox, apis: tuple[str, ...]
) -> None:
    truth = list(sandbox.truth(AGENT, apis))
    added_by_load = {"fetched_at", "summary_hash", "valid_from", "valid_to"}
    for table in conversation_tables():
        declared = {c.name for c in table.columns if not c.name.startswith("_")} - added_by_load
        rows = [row for rows in truth for row in rows[table.name]]
        computed = declared - columns_of_api(table)
        assert all(computed <= set(row) <= declared for row in rows), table.name
        assert not any("" in row.values() for row in rows), table.name


def test_v3_alone_leaves_fields_of_the_data_api_empty(call: Conversation) -> None:
    rows = expected_rows(call, (V3,))
    filled = {"conversations", "turns", "turn_intents", "turn_entities", "metrics"}
    assert {table for table, found in rows.items() if found} == filled
    assert rows.keys() == {table.name for table in conversation_tables()}
    row = conversation(call, V3)
    assert part(row, "source_api", "state") == (V3, {"topic": "book_table"})
    assert part(row, "variant_id", "variant_name") == ("7", "Evening")
    assert part(row, "created_at", "started_at", "finished_at") == (CREATED, CREATED, None)
    assert part(row, "total_duration_seconds", "polyai_duration_seconds") == (61, 0)
    assert part(row, "in_progress", "handoff", "handoff_reason") == (False, False, '{"code":3}')
    assert row["direction"] == ("outbound" if call.is_outbound else None)
    only_data = "language deployment_id duration_seconds poly_score poly_score_scale"
    texts = "summary_heading summary note audio_url extra"
    assert set(part(row, *only_data.split(), *texts.split())) == {None}
    first = rows["turns"][0]
    assert part(first, "is_ood", "is_silence", "latency_seconds") == (False, True, 1.5)
    assert part(first, "intents", "entities") == ([], [])
    assert set(part(first, "turn_id", "latency", "current_node", "metadata", "extra")) == {None}


def test_v3_after_data_overwrites_common_fields_only(call: Conversation) -> None:
    row, before = conversation(call, DATA, V3), conversation(call, DATA)
    changed = {name for name in row if row[name] != before[name]}
    assert changed == {
        *("source_api", "state", "variant_name", "started_at", "in_progress", "handoff"),
        *("total_duration_seconds", "polyai_duration_seconds", "num_silences", "num_ood"),
    }
    assert part(row, "summary", "note", "poly_score_scale") == ("Booked.", "call back", "1-5")
    assert part(row, "num_turns", "num_silences", "num_ood") == (len(call.turns or ()), 2, 5)
    rows, loaded = expected_rows(call, (DATA, V3)), expected_rows(call, (DATA,))
    for table in ("turn_topics", "function_events", "annotations", "conversation_tags", "notes"):
        assert rows[table] == loaded[table] != []
    first, second, *_ = rows["turns"]
    assert part(first, "is_ood", "intents", "entities") == (False, [], [])
    assert part(first, "latency", "current_node") == ({"perceived_latency": 1.5}, "greeting")
    assert first["extra"] == {"emotion": "calm"}
    assert second["entities"] == [{"guests": 4}, {"person_name": ["Ada", "Byron"]}]


@pytest.mark.parametrize("apis", [(V3, DATA), (DATA, V3, DATA)])
def test_data_after_v3_keeps_what_only_v3_sent(call: Conversation, apis: tuple[str, ...]) -> None:
    rows, alone = expected_rows(call, apis), expected_rows(call)
    kept = {
        "state": {"topic": "book_table"},
        "variant_name": "Evening",
        # the Data API sends none of these for this call
        "started_at": call.created_at,
        "handoff": False,
        "num_ood": call.ood_count,
    }
    assert rows.pop("conversations") == [conversation(call, DATA) | kept]
    alone.pop("conversations")
    assert rows == alone


def test_metric_values_have_the_format_of_the_newest_api(call: Conversation) -> None:
    def metrics(*apis: str) -> list[tuple[Any, ...]]:
        names = ("occurrence", "value", "value_number", "value_boolean", "recorded_at")
        return [part(row, *names) for row in expected_rows(call, apis)["metrics"]]

    assert metrics(DATA, V3) == [
        (0, "0.25", 0.25, None, MOMENT),
        (1, "True", None, True, None),
        (2, None, None, None, MOMENT),
        (0, "{'lat': None}", None, None, None),
    ]
    assert metrics(V3, DATA) == metrics(DATA)
    assert metrics(DATA)[1][1:4] == ("true", None, True)
    assert metrics(DATA)[3][1] == '{"lat":null}'
    assert {row[-1] for row in metrics(V3)} == {None}


def test_entities_and_intents_have_a_row_per_value(call: Conversation) -> None:
    rows = expected_rows(call, (V3,))
    assert [
        part(row, "position", "name", "value")
        for row in rows["turn_entities"]
        if row["turn_index"] == 1
    ] == [(0, "guests", "4"), (1, "person_name", "Ada"), (2, "person_name", "Byron")]
    found = [row["intent"] for row in rows["turn_intents"] if row["turn_index"] == 1]
    assert found == ["BOOK_TABLE"]


def test_a_count_that_differs_from_the_turns_is_kept_in_extra(call: Conversation) -> None:
    more = replace(call, turn_count=99)
    assert conversation(more, V3)["extra"] == {"num_turns": 99}
    assert conversation(more, DATA, V3)["extra"] == {"hops": 2, "num_turns": 99}
    assert conversation(more, V3, DATA)["extra"] == {"hops": 2, "num_turns": 99}
    assert conversation(more, DATA)["extra"] == {"hops": 2}
    assert conversation(more, V3)["num_turns"] == len(call.turns or ())


def test_turns_that_v3_counts_but_does_not_send_are_withheld(call: Conversation) -> None:
    hidden = replace(call, turns=(), turn_count=6)
    names = ("is_transcript_withheld", "num_turns", "num_silences", "num_ood")
    assert part(conversation(hidden, DATA), *names) == (False, 0, None, None)
    for apis in ORDERS[1:]:
        assert part(conversation(hidden, *apis), *names) == (True, 6, 2, 5)
        assert "num_turns" not in (conversation(hidden, *apis)["extra"] or {})


def test_it_equals_what_v3_serves(sandbox: Sandbox) -> None:
    """Compares values with the same format in payload and warehouse, where empty is NULL."""
    plain = (
        *("account_id", "variant_id", "variant_name", "environment", "channel", "from_number"),
        *("to_number", "in_progress", "handoff", "handoff_destination", "num_silences", "num_ood"),
        "state",
    )
    of_turns = (
        *("user_input", "user_input_dtmf", "agent_response", "translated_user_input"),
        *("english_agent_response", "intents", "entities", "is_ood", "is_silence"),
    )
    for index, rows in zip(sandbox.listed(AGENT), sandbox.truth(AGENT, (V3,)), strict=True):
        served = v3_row(sandbox.conversation(AGENT, index), include_latency=True)
        (row,) = rows["conversations"]
        assert {name: served[name] if served[name] != "" else None for name in plain} == {
            name: row[name] for name in plain
        }
        assert (row["conversation_id"], row["num_turns"]) == (served["id"], served["num_turns"])
        assert row["total_duration_seconds"] == served["total_duration"]
        assert row["polyai_duration_seconds"] == served["polyai_duration"]
        assert row["started_at"] == datetime.fromisoformat(served["started_at"])
        assert [
            (*(row[name] for name in of_turns), row["latency_seconds"]) for row in rows["turns"]
        ] == [
            (*(turn[name] if turn[name] != "" else None for name in of_turns), turn["latency"])
            for turn in served["turns"]
        ]
        values = [
            (name, place, value or None)
            for name, written in served["metrics"].items()
            for place, value in enumerate(written if isinstance(written, list) else [written])
        ]
        assert [part(row, "name", "occurrence", "value") for row in rows["metrics"]] == values


def test_unknown_apis_are_refused(call: Conversation) -> None:
    with pytest.raises(KeyError, match="v3"):
        expected_rows(call, ("v3",))


@pytest.fixture(scope="module")
def truth_url() -> Iterator[str]:
    with serve(Sandbox(SandboxConfig(conversations=20))) as base_url:
        yield f"{base_url}/_sandbox/truth"


def test_the_control_route_takes_apis(truth_url: str) -> None:
    def sources(**params: str) -> set[tuple[str, bool]]:
        answer = requests.get(truth_url, params={"agent_id": AGENT, **params}, timeout=10)
        rows = [orjson.loads(line)["conversations"][0] for line in answer.iter_lines()]
        assert len(rows) == 20
        return {(row["source_api"], row["state"] is None) for row in rows}

    assert sources() == {(DATA, True)}
    assert sources(apis=V3) == {(V3, False)}
    assert sources(apis=f"{V3},{DATA}") == {(DATA, False)}
    for apis in ("", "v3", f"{DATA},", "data v3"):
        answer = requests.get(truth_url, params={"agent_id": AGENT, "apis": apis}, timeout=10)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "SANDBOX_CONTROL")


def loaded_rows(sandbox: Sandbox, *apis: str) -> dict[str, list[dict[str, Any]]]:
    """Makes the rows of a warehouse that equals the truth."""
    found: dict[str, list[dict[str, Any]]] = {t.name: [] for t in conversation_tables()}
    for rows in sandbox.truth(AGENT, apis):
        for table, some in rows.items():
            found[table] += [dict(row) for row in some]
    for row in found["notes"]:
        row |= {"valid_from": MOMENT, "valid_to": None}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("apis", ORDERS)
def test_warehouses_are_compared_by_apis(sandbox: Sandbox, apis: tuple[str, ...]) -> None:
    rows = loaded_rows(sandbox, *apis)
    assert_equals_truth(sandbox, AGENT, lambda sql: rows[sql.rpartition(".")[2]], apis)
    others = (V3,) if apis != (V3,) else (DATA,)
    with pytest.raises(AssertionError):
        assert_equals_truth(sandbox, AGENT, lambda sql: rows[sql.rpartition(".")[2]], others)


@pytest.mark.slow
def test_warehouses_are_compared_by_environment(sandbox: Sandbox) -> None:
    rows = loaded_rows(sandbox, V3)
    live = {r["conversation_id"] for r in rows["conversations"] if r["environment"] == "live"}
    rows = {
        table: [row for row in found if row["conversation_id"] in live]
        for table, found in rows.items()
    }

    def compare(environments: list[str] | None) -> None:
        assert_equals_truth(
            sandbox, AGENT, lambda sql: rows[sql.rpartition(".")[2]], (V3,), environments
        )

    compare(["live"])
    for environments in (None, ["sandbox"], ["live", "sandbox"], ["nowhere"]):
        with pytest.raises(AssertionError):
            compare(environments)
    rows["turns"].append(rows["turns"][0] | {"conversation_id": "without a parent"})
    with pytest.raises(AssertionError):
        compare(["live"])
