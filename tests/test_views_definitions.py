"""Definitions behind the numbers of the views, on hand-written rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb
import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from polyai.cookbook.recipes import recipes
from polyai.errors import ConfigurationError
from polyai.tables import registry
from polyai.views import time_zone
from polyai.views.definitions import views
from polyai.views.names import NAMES
from polyai.views.statements import Statements
from schemas.generate.sql_types import DUCKDB_TYPES

pytestmark = pytest.mark.unit

Rows = Sequence[Mapping[str, Any]]

NOON = datetime(2024, 9, 2, 12, tzinfo=UTC)
"""A Monday."""


class Warehouse:
    """Tables and views in memory. Rows take the values of a plain call by default."""

    def __init__(self) -> None:
        self._connection = duckdb.connect()
        self._connection.execute("CREATE SCHEMA polyai; SET TimeZone = 'UTC'")
        for table in registry.tables():
            columns = ", ".join(f'"{c.name}" {DUCKDB_TYPES[c.type]}' for c in table.columns)
            self._connection.execute(f"CREATE TABLE polyai.{table.name} ({columns})")
        statements = Statements("duckdb", lambda name: f"polyai.{name}", "UTC")
        for view in views().values():
            self._connection.execute(statements.create(view, replacing=False))

    def add(self, table: str, **values: Any) -> None:
        row = {"agent_id": "A", "conversation_id": "c"} | values
        marks = ", ".join("?" * len(row))
        names = ", ".join(row)
        self._connection.execute(
            f"INSERT INTO polyai.{table} ({names}) VALUES ({marks})", list(row.values())
        )

    def name(self, table: str, **values: Any) -> None:
        row = {"agent_id": "A"} | values
        self._connection.execute(
            f"INSERT INTO polyai.{table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
            list(row.values()),
        )

    def call(self, conversation_id: str = "c", **values: Any) -> None:
        plain = {
            "conversation_id": conversation_id,
            "channel": "VOICE-SIP",
            "environment": "live",
            "started_at": NOON,
            "in_progress": False,
            "handoff": False,
            "total_duration_seconds": 60.0,
            "num_turns": 0,
        }
        self.add("conversations", **plain | values)

    def turns(self, *turns: Mapping[str, Any], conversation_id: str = "c") -> None:
        for number, turn in enumerate(turns):
            self.add("turns", conversation_id=conversation_id, turn_index=number, **turn)

    def metric(
        self, name: str, value: str | None, occurrence: int = 0, conversation_id: str = "c"
    ) -> None:
        number = None
        if value is not None and value.replace(".", "").isdigit():
            number = float(value)
        boolean = {"true": True, "false": False}.get((value or "").lower())
        self.add(
            "metrics",
            conversation_id=conversation_id,
            name=name,
            occurrence=occurrence,
            value=value,
            value_number=number,
            value_boolean=boolean,
        )

    def run(self, run_id: str, status: str, finished_at: datetime) -> None:
        self._connection.execute(
            "INSERT INTO polyai.sync_runs (agent_id, run_id, command, status, finished_at, "
            "api_count) VALUES ('A', ?, 'load', ?, ?, 7)",
            [run_id, status, finished_at],
        )

    def recipe(self, name: str) -> list[dict[str, Any]]:
        """Returns the rows of a recipe of the cookbook."""
        (recipe,) = (each for each in recipes() if each.name == name)
        found = self._connection.execute(recipe.file("duckdb"))
        rows: list[dict[str, Any]] = found.to_arrow_table().to_pylist()
        return rows

    def clear(self) -> None:
        for table in registry.tables():
            self._connection.execute(f"DELETE FROM polyai.{table.name}")

    def unname(self) -> None:
        for names in NAMES:
            self._connection.execute(f"DELETE FROM polyai.{names.table.name}")

    def rows(self, view: str, order: str = "1") -> list[dict[str, Any]]:
        found = self._connection.execute(f"SELECT * FROM polyai.{view} ORDER BY {order}")
        rows: list[dict[str, Any]] = found.to_arrow_table().to_pylist()
        return rows

    def row(self, view: str) -> dict[str, Any]:
        (row,) = self.rows(view)
        return row


@pytest.fixture(scope="module")
def tables_and_views() -> Warehouse:
    return Warehouse()


@pytest.fixture
def warehouse(tables_and_views: Warehouse) -> Warehouse:
    tables_and_views.clear()
    return tables_and_views


GREETING = {"agent_response": "Hello"}
ANSWER = {"user_input": "A table", "agent_response": "Done"}
KEYS = {"user_input_dtmf": "5", "agent_response": "Done"}
WORDLESS: dict[str, Any] = {}
OUTBOUND = {"direction": "outbound"}


@pytest.mark.parametrize(
    ("call", "turns", "metric", "is_abandoned"),
    [
        pytest.param({}, [GREETING, ANSWER], None, False, id="conversation"),
        pytest.param({}, [GREETING], None, True, id="no input"),
        pytest.param({}, [GREETING, GREETING], None, True, id="silence only"),
        pytest.param({}, [GREETING, KEYS], None, False, id="keys are an answer"),
        pytest.param(
            {"total_duration_seconds": 9.9}, [GREETING, ANSWER], None, True, id="below 10 s"
        ),
        pytest.param({"total_duration_seconds": 10}, [GREETING, ANSWER], None, False, id="10 s"),
        pytest.param({"handoff": True}, [GREETING], None, False, id="handed off"),
        pytest.param({"in_progress": True}, [GREETING], None, False, id="in progress"),
        pytest.param({"channel": "WEBCHAT"}, [GREETING], None, False, id="chat without the metric"),
        pytest.param({"channel": "WEBCHAT"}, [GREETING], "true", True, id="chat with the metric"),
        pytest.param({"channel": "WEBCHAT"}, [GREETING], "False", False, id="metric false"),
        pytest.param({"channel": "WEBCHAT"}, [GREETING], "0", False, id="metric zero"),
        pytest.param({"channel": "WEBCHAT"}, [GREETING], "at 12:05", True, id="metric text"),
        pytest.param({"channel": None}, [GREETING], None, False, id="unknown channel"),
        pytest.param({"num_turns": 1}, [WORDLESS], None, True, id="no words, one turn"),
        pytest.param({"num_turns": 3}, [WORDLESS] * 3, None, False, id="no words, three turns"),
        pytest.param(
            {"num_turns": 3, "num_silences": 2}, [WORDLESS] * 3, None, True, id="no words, silent"
        ),
        pytest.param({"num_turns": 6}, [], None, False, id="turns withheld, counted by v3"),
        pytest.param({}, [], None, False, id="turns unknown"),
    ],
)
def test_abandoned_conversations(
    warehouse: Warehouse,
    call: dict[str, Any],
    turns: list[dict[str, Any]],
    metric: str | None,
    is_abandoned: bool,
) -> None:
    warehouse.call(**{"num_turns": len(turns)} | call)
    warehouse.turns(*turns)
    if metric is not None:
        warehouse.metric("CHAT_ABANDONED", metric)
    row = warehouse.row("fct_conversations")
    assert row["is_abandoned"] == is_abandoned
    if row["is_finished"]:
        assert row["is_contained_excl_abandoned"] == (row["is_contained"] and not is_abandoned)
    else:
        assert (row["is_contained"], row["is_contained_excl_abandoned"]) == (None, None)


@pytest.mark.parametrize(
    ("metrics", "offers", "answers", "mean"),
    [
        pytest.param([], 0, 0, None, id="not offered"),
        pytest.param([("CSAT_OFFERED", "true")], 1, 0, None, id="offered, not answered"),
        pytest.param([("CSAT_OFFERED", "False")], 0, 0, None, id="offered is false"),
        pytest.param([("CSAT_OFFERED", "true"), ("CSAT_SCORE", "4")], 1, 1, 4, id="answered"),
        pytest.param([("CSAT_SCORE", "2")], 1, 1, 2, id="score without an offer"),
        pytest.param([("CSAT_SCORE", "2"), ("CSAT_SCORE", "5")], 1, 1, 5, id="last score"),
        pytest.param([("CSAT_SCORE", "5"), ("CSAT_SCORE", "9")], 1, 1, 5, id="last valid score"),
        pytest.param([("CSAT_SCORE", "great")], 0, 0, None, id="score as text"),
        pytest.param([("csat_score", "5")], 0, 0, None, id="other metric"),
    ],
)
def test_satisfaction_survey(
    warehouse: Warehouse,
    metrics: list[tuple[str, str]],
    offers: int,
    answers: int,
    mean: float | None,
) -> None:
    warehouse.call()
    for place, (name, value) in enumerate(metrics):
        warehouse.metric(name, value, place)
    row = warehouse.row("kpi_daily")
    assert (row["csat_offers"], row["csat_answers"], row["csat_mean"]) == (offers, answers, mean)
    assert len(warehouse.rows("csat_responses")) == offers


def test_changes_are_against_the_day_before(
    warehouse: Warehouse,
) -> None:
    for number, day in enumerate((0, 0, 0, 1, 3)):
        warehouse.call(f"c{number}", started_at=NOON + timedelta(days=day), handoff=number == 0)
    rows = warehouse.rows("kpi_daily", "local_date")
    assert [row["conversations_change"] for row in rows] == [3, -2, 1]
    assert [row["handoff_rate_change"] for row in rows] == [None, pytest.approx(-1 / 3), None]


def test_unknown_values_and_conversations_in_progress(
    warehouse: Warehouse,
) -> None:
    warehouse.call("c1", channel=None, in_progress=None, handoff=None)
    warehouse.call("c2", channel=None, in_progress=True, total_duration_seconds=5.0)
    warehouse.call("c3", channel=None, started_at=None, created_at=NOON, handoff=True)
    row = warehouse.row("kpi_daily")
    assert (row["channel"], row["environment"], row["variant_id"]) == ("unknown", "live", "none")
    assert (row["conversations"], row["finished_conversations"]) == (3, 2)
    assert (row["containment_rate"], row["handoff_rate"]) == (0.5, 0.5)
    assert (row["handle_time_seconds_mean"], row["timed_conversations"]) == (60, 2)
    (variant,) = warehouse.rows("dim_variants")
    assert (variant["variant_id"], variant["conversations"]) == ("none", 3)


@pytest.fixture
def named(warehouse: Warehouse) -> Warehouse:
    """Conversations with and without names: of agents A and B, variants and deployments."""
    warehouse.call("c1", variant_id="v1", variant_name="Old", deployment_id="d1")
    warehouse.call("c2", variant_id="v2", variant_name="Own", deployment_id="d2")
    warehouse.call("c3", direction="outbound", handoff=True)
    warehouse.name("agents", agent_name="Bookings")
    warehouse.name("variants", variant_id="v1", variant_name="New")
    for number in (1, 3):
        warehouse.name(
            "deployments",
            deployment_id=f"d{number}",
            environment="live",
            version=f"hash{number}",
            created_at=NOON,
            created_by="dev@example.com",
            message="Fix",
        )
    return warehouse


def test_dimensions_have_the_names_behind_ids(named: Warehouse) -> None:
    agent = named.row("dim_agents")
    assert (agent["agent_name"], agent["conversations"]) == ("Bookings", 3)
    variants = {row["variant_id"]: row for row in named.rows("dim_variants")}
    assert {key: row["variant_name"] for key, row in variants.items()} == {
        "none": None,
        "v1": "New",
        "v2": "Own",
    }
    assert {row["conversations"] for row in variants.values()} == {1}
    found = [
        (row["deployment_id"], row["environment"], row["deployment_version"], row["conversations"])
        for row in named.rows("dim_deployments", "deployment_id")
    ]
    assert found == [
        ("d1", "live", "hash1", 1),
        ("d2", "live", None, 1),
        ("d3", "live", "hash3", 0),
    ]


def test_conversations_have_the_names_behind_their_ids(named: Warehouse) -> None:
    named.call("c4", variant_id="v1", deployment_id="d3")
    named.call("c5", agent_id="B", variant_id="v1", deployment_id="d1")
    found = {row["conversation_id"]: row for row in named.rows("fct_conversations")}
    assert {key: (row["agent_name"], row["variant_name"]) for key, row in found.items()} == {
        "c1": ("Bookings", "New"),
        "c2": ("Bookings", "Own"),
        "c3": ("Bookings", None),
        "c4": ("Bookings", "New"),
        "c5": (None, None),
    }
    deployment = ("deployment_version", "deployed_by", "deployment_message")
    assert {key: tuple(row[name] for name in deployment) for key, row in found.items()} == {
        "c1": ("hash1", "dev@example.com", "Fix"),
        "c2": (None, None, None),
        "c3": (None, None, None),
        "c4": ("hash3", "dev@example.com", "Fix"),
        "c5": (None, None, None),
    }
    assert found["c1"]["deployed_at"].astimezone(UTC) == NOON


def test_a_variant_has_one_name_in_all_views(warehouse: Warehouse) -> None:
    warehouse.call("c1", variant_id="v1", variant_name="Own", num_silences=2, from_number="+1")
    warehouse.call("c2", variant_id="v1", direction="inbound", from_number="+1")
    warehouse.name("variants", variant_id="v1", variant_name="By hand")
    warehouse.turns({"latency_seconds": 3.5}, conversation_id="c1")
    warehouse.metric("CSAT_SCORE", "4", conversation_id="c1")
    warehouse.metric("REPEAT_CALLER_7D", "true", conversation_id="c1")
    found = {
        view.name: {row["variant_name"] for row in warehouse.rows(view.name)}
        for view in views().values()
        if view.name != "conversations_local"
        and "variant_name" in {field.name for field in view.fields}
    }
    filled = {name: names for name, names in found.items() if names}
    assert filled.keys() >= {"annotation_queue", "csat_responses", "dim_variants", "kpi_daily"}
    assert filled.keys() >= {"fct_conversations", "repeat_callers", "turn_latency_daily"}
    assert all(names == {"By hand"} for names in filled.values()), filled


@pytest.mark.slow
def test_names_add_no_row_and_change_no_other_column(named: Warehouse) -> None:
    for number in (1, 2, 3):
        named.metric("CSAT_SCORE", "4", conversation_id=f"c{number}")
        named.metric("REPEAT_CALLER_7D", "true", conversation_id=f"c{number}")
        named.add("turn_topics", conversation_id=f"c{number}", topic="hours")
        named.add("function_events", conversation_id=f"c{number}", name="book", error="no")
        named.turns({"latency_seconds": 3.5}, conversation_id=f"c{number}")
        named.add(
            "recordings",
            conversation_id=f"c{number}",
            direction="combined",
            redacted=True,
            status="stored",
            archive_id="archive",
            path=f"c{number}.wav",
        )
    named.name("archives", archive_id="archive", url="file:///calls")
    columns = {column for names in NAMES for column in names.columns}

    def rows() -> dict[str, list[dict[str, Any]]]:
        """Returns the other columns of all views but those whose rows are of names."""
        return {
            name: [
                {key: value for key, value in row.items() if key not in columns}
                for row in named.rows(name, "ALL")
            ]
            for name in views().keys() - {"dim_deployments"}
        }

    with_names = rows()
    named.unname()
    assert with_names == rows()
    assert not [name for name, found in with_names.items() if not found]


def test_score_scales_are_separate(warehouse: Warehouse) -> None:
    for number, (score, scale) in enumerate([(10, "0-10"), (5, "1-5"), (4.5, "1-5"), (2, "1-5")]):
        warehouse.call(f"c{number}", poly_score=score, poly_score_scale=scale)
    warehouse.call("unscored")
    row = warehouse.row("kpi_daily")
    assert (row["poly_score_0_10_mean"], row["scored_conversations_0_10"]) == (10, 1)
    assert row["poly_score_1_5_mean"] == pytest.approx(11.5 / 3)
    bands = [row[f"{band}_score_conversations"] for band in ("high", "medium", "low")]
    assert bands == [1, 1, 1]


def test_agent_without_conversations_is_a_red_flag_each_day(warehouse: Warehouse) -> None:
    for number in range(8):
        warehouse.call(f"c{number}", started_at=NOON + timedelta(days=number))
    flags = {row["local_date"]: row for row in warehouse.rows("red_flags", "local_date")}
    quiet = flags[NOON.date() + timedelta(days=8)]
    assert (quiet["flag"], quiet["value"], quiet["baseline"]) == ("volume_down", 0, 1)
    # after four weeks, no conversations is the baseline
    assert max(flags) == NOON.date() + timedelta(days=7 + 28)


def test_red_flags_of_latency_are_for_live_only(warehouse: Warehouse) -> None:
    for environment in ("live", "sandbox"):
        warehouse.call(environment, environment=environment)
        slow = [{"latency_seconds": 3.5}] * 3
        warehouse.turns(*slow, conversation_id=environment)
    found = [row for row in warehouse.rows("red_flags") if row["flag"].startswith("latency")]
    assert {row["flag"] for row in found} == {"latency_p50", "latency_p95"}
    assert len(found) == 2


def test_annotation_queue_has_reasons_and_no_reviewed_conversations(warehouse: Warehouse) -> None:
    warehouse.call("c1", num_silences=2, num_ood=1, handoff=True)
    warehouse.call("c2", num_silences=2)
    warehouse.call("c3", num_silences=1)
    warehouse.add("annotations", conversation_id="c2", turn_index=0, position=0)
    row = warehouse.row("annotation_queue")
    assert (row["conversation_id"], row["num_reasons"]) == ("c1", 3)
    assert row["has_long_silence"]
    assert row["has_ood"]
    assert not row["has_low_score"]


def test_annotations_are_counted_by_type(warehouse: Warehouse) -> None:
    warehouse.call()
    types = ("good_response", "bad_response", "bad_response", "wrong_info", None)
    for position, kind in enumerate(types):
        warehouse.add("annotations", turn_index=0, position=position, annotation_type=kind)
    row = warehouse.row("fct_conversations")
    counts = ("num_annotations", "num_good_responses", "num_bad_responses", "num_wrong_info")
    assert [row[name] for name in counts] == [5, 1, 2, 1]


@pytest.mark.parametrize(
    ("call", "turn", "metrics", "hangup", "category"),
    [
        ({}, ANSWER, {}, None, "unknown_in_dialogue"),
        ({}, ANSWER, {"USER_HANGUP": "true"}, None, "caller_in_dialogue"),
        ({}, ANSWER, {"USER_HANGUP": "true"}, "true", "caller_in_dialogue"),
        ({}, GREETING, {"USER_HANGUP": "true"}, None, "caller_before_input"),
        ({}, GREETING, {}, None, "caller_before_input"),
        ({}, ANSWER, {"USER_HANGUP": "false"}, "true", "agent_in_dialogue"),
        ({}, ANSWER, {"CALL_COMPLETED": "true"}, '{"reason":"done"}', "agent_after_completion"),
        ({}, ANSWER, {"CALL_COMPLETED": "true"}, "false", "unknown_after_completion"),
        ({}, ANSWER, {}, "{}", "unknown_in_dialogue"),
        ({}, ANSWER, {}, "null", "unknown_in_dialogue"),
        ({"handoff": True}, ANSWER, {"USER_HANGUP": "true"}, None, "handoff"),
        (OUTBOUND, GREETING, {"CALL_CONNECTED": "false"}, None, "not_connected"),
        (OUTBOUND, ANSWER, {"OUTBOUND_CALL_STATUS": "Busy"}, None, "not_connected"),
        (OUTBOUND, ANSWER, {"OUTBOUND_CALL_STATUS": "Success"}, "true", "agent_in_dialogue"),
        (OUTBOUND, GREETING, {}, None, "unknown_before_input"),
        (OUTBOUND, ANSWER, {"USER_HANGUP": "true"}, None, "caller_in_dialogue"),
        (OUTBOUND, ANSWER, {"USER_HANGUP": "no"}, None, "unknown_in_dialogue"),
        (
            OUTBOUND,
            ANSWER,
            {"USER_HANGUP": "true", "CALL_ANSWERED_BY": "VOICEMAIL"},
            None,
            "unknown_in_dialogue",
        ),
        (
            {"direction": "inbound"},
            ANSWER,
            {"CALL_CONNECTED": "false"},
            None,
            "unknown_in_dialogue",
        ),
        ({"in_progress": True}, ANSWER, {"USER_HANGUP": "true"}, None, None),
    ],
)
def test_hangup_category(
    warehouse: Warehouse,
    call: dict[str, Any],
    turn: dict[str, Any],
    metrics: dict[str, str],
    hangup: str | None,
    category: str | None,
) -> None:
    warehouse.call(num_turns=1, **call)
    warehouse.turns(turn)
    for name, value in metrics.items():
        warehouse.metric(name, value)
    warehouse.add("function_events", turn_index=0, event_index=0, hangup=hangup)
    assert warehouse.row("fct_conversations")["hangup_category"] == category


@pytest.mark.parametrize(
    ("answered", "who", "counted"),
    [
        (["HUMAN"], "human", ["human"]),
        (["VOICEMAIL", "HUMAN"], "human", ["human", "voicemail"]),
        (['["VOICEMAIL","HUMAN"]'], "human", ["human", "voicemail"]),
        (["voicemail"], "voicemail", ["voicemail"]),
        (["IVR", "VOICEMAIL"], "voicemail", ["ivr", "voicemail"]),
        (["IVR"], "ivr", ["ivr"]),
        (["ROBOT"], None, []),
        ([], None, []),
    ],
    ids=repr,
)
def test_who_answered_an_outbound_call(
    warehouse: Warehouse, answered: list[str], who: str | None, counted: list[str]
) -> None:
    warehouse.call(direction="outbound")
    for occurrence, value in enumerate(answered):
        warehouse.metric("CALL_ANSWERED_BY", value, occurrence)
    assert warehouse.row("fct_conversations")["answered_by"] == who
    row = warehouse.row("outbound_daily")
    counts = {name: row[f"{name}_conversations"] for name in ("human", "voicemail", "ivr")}
    assert counts == {name: int(name in counted) for name in counts}


def test_outbound_calls_by_status_and_sip_code(warehouse: Warehouse) -> None:
    results = (("Success", "200"), ("Busy", "486"), ("Unavailable", "503"), ("Busy", "603"))
    for number, (status, code) in enumerate((*results, (None, "99999999999999999999"))):
        warehouse.call(f"c{number}", direction="outbound", in_progress=number == 3)
        warehouse.metric("OUTBOUND_CALL_STATUS", status, conversation_id=f"c{number}")
        warehouse.metric("OUTBOUND_CALL_SIP_CODE", code, conversation_id=f"c{number}")
    row = warehouse.row("outbound_daily")
    assert (row["conversations"], row["attempted_conversations"]) == (5, 5)
    assert (row["connected_conversations"], row["connection_rate"]) == (1, 0.2)
    assert (row["busy_conversations"], row["unavailable_conversations"]) == (2, 1)
    assert [row[f"sip_{n}xx_conversations"] for n in (2, 4, 5, 6)] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("attempts", "status", "code", "is_connected"),
    [
        ([("Busy", "486", "false"), ("Success", "200", "true")], "Success", 200, True),
        ([("Success", "200", "true"), ("Busy", "486", "false")], "Busy", 486, False),
        ([("Busy", "603", None), ("Unavailable", "480", None)], "Unavailable", 480, False),
        ([("Success", "200", "true"), (None, None, None)], "Success", 200, True),
    ],
    ids=repr,
)
def test_the_last_attempt_is_the_result_of_a_call(
    warehouse: Warehouse,
    attempts: list[tuple[str | None, str | None, str | None]],
    status: str,
    code: int,
    is_connected: bool,
) -> None:
    warehouse.call(**OUTBOUND)
    names = ("OUTBOUND_CALL_STATUS", "OUTBOUND_CALL_SIP_CODE", "CALL_CONNECTED")
    for occurrence, values in enumerate(attempts):
        for name, value in zip(names, values):
            if name != "CALL_CONNECTED" or any(each[2] for each in attempts):
                warehouse.metric(name, value, occurrence)
    row = warehouse.row("fct_conversations")
    assert (row["call_status"], row["sip_code"], row["is_connected"]) == (
        status,
        code,
        is_connected,
    )
    day = warehouse.row("outbound_daily")
    assert day[f"sip_{code // 100}xx_conversations"] == 1
    assert sum(day[f"sip_{n}xx_conversations"] for n in (2, 4, 5, 6)) == 1


@pytest.mark.parametrize(
    ("value", "is_connected"),
    [("true", True), ("True", True), ("yes", True), ("1", True), ("1.0", True), ("no", False),
     ("false", False), ("0", False), ("No answer", False), (None, False)],
)  # fmt: skip
def test_a_call_is_connected_by_words_that_mean_yes(
    warehouse: Warehouse, value: str | None, is_connected: bool
) -> None:
    warehouse.call(**OUTBOUND)
    warehouse.metric("CALL_CONNECTED", value)
    assert warehouse.row("fct_conversations")["is_connected"] is is_connected


def test_people_who_were_called_hang_up_only_by_the_metric(warehouse: Warehouse) -> None:
    # a mailbox that was connected for 2 s, a call without metrics, and a person who hung up
    short = {"total_duration_seconds": 2.0}
    metrics: dict[str, dict[str, str]] = {
        "voicemail": {"CALL_CONNECTED": "true", "CALL_ANSWERED_BY": "VOICEMAIL"},
        "unknown": {},
        "person": {"CALL_CONNECTED": "true", "USER_HANGUP": "true", "CALL_ANSWERED_BY": "HUMAN"},
    }
    for name, values in metrics.items():
        warehouse.call(name, **OUTBOUND, **short)
        for metric, value in values.items():
            warehouse.metric(metric, value, conversation_id=name)
    found = {row["conversation_id"]: row for row in warehouse.rows("fct_conversations")}
    assert {name: row["hangup_category"] for name, row in found.items()} == {
        "voicemail": "unknown_in_dialogue",
        "unknown": "unknown_in_dialogue",
        "person": "caller_in_dialogue",
    }
    row = warehouse.row("outbound_daily")
    assert (row["caller_hangups"], row["attempted_conversations"]) == (1, 3)


def test_the_last_deployment_need_not_have_a_finished_conversation(warehouse: Warehouse) -> None:
    # the older one is used for longer, so that its first conversation can also be the newer
    for number, environment in enumerate(("live", "live", "live", "sandbox")):
        warehouse.name(
            "deployments",
            deployment_id=f"d{number}",
            environment=environment,
            created_at=NOON + timedelta(days=number),
        )
    warehouse.call("c0", deployment_id="d0", started_at=NOON + timedelta(days=5))
    warehouse.call("c1", deployment_id="d1", started_at=NOON + timedelta(days=4))
    found = warehouse.recipe("23_since_last_deployment")
    columns = ("deployment_id", "finished_conversations", "containment_rate")
    assert [tuple(row[name] for name in columns) for row in found] == [
        ("d2", 0, None),
        ("d1", 1, 1.0),
    ]


def test_deployments_without_a_known_time_are_ordered_by_conversations(
    warehouse: Warehouse,
) -> None:
    warehouse.call("c0", deployment_id="d0")
    warehouse.call("c1", deployment_id="d1", started_at=NOON + timedelta(days=1))
    warehouse.call("c2", deployment_id="d2", started_at=NOON + timedelta(days=2), in_progress=True)
    found = warehouse.recipe("23_since_last_deployment")
    assert [(row["deployment_id"], row["finished_conversations"]) for row in found] == [
        ("d2", 0),
        ("d1", 1),
    ]


def test_hidden_numbers_are_not_callers(warehouse: Warehouse) -> None:
    numbers = ["+1", "+1", "REDACTED", "REDACTED", "[dropped]", "[dropped]", None, None]
    for number, caller in enumerate(numbers):
        warehouse.call(f"c{number}", from_number=caller, started_at=NOON + timedelta(hours=number))
    warehouse.call("out1", direction="outbound", from_number="+1")
    row = warehouse.row("repeat_callers")
    assert (row["conversation_id"], row["previous_conversation_id"]) == ("c1", "c0")
    assert (row["contact_number"], row["hours_since_previous"]) == (2, 1)


def test_incomplete_load_does_not_make_an_agent_fresh(warehouse: Warehouse) -> None:
    for run, status, minutes in (("r1", "complete", 0), ("r2", "failed", 5), ("r3", "running", 9)):
        warehouse.run(run, status, NOON + timedelta(minutes=minutes))
    warehouse.call("c1")
    warehouse.add("fetch_failures", conversation_id="c2", stage="detail")
    warehouse.add("fetch_failures", conversation_id="c3", stage="detail", resolved_at=NOON)
    row = warehouse.row("data_freshness")
    assert row["last_complete_load_at"].astimezone(UTC) == NOON
    assert (row["open_failures"], row["missing_conversations"]) == (1, 5)


calls = st.lists(
    st.fixed_dictionaries(
        {
            "channel": st.sampled_from(["VOICE", "WEBCHAT", None]),
            "variant_id": st.sampled_from(["v", None]),
            "started_at": st.integers(0, 72).map(lambda hours: NOON + timedelta(hours=hours)),
            "in_progress": st.sampled_from([True, False, None]),
            "handoff": st.sampled_from([True, False, None]),
            "total_duration_seconds": st.sampled_from([None, 0.0, 9.5, 30.0, 600.0]),
            "num_turns": st.integers(0, 2),
        }
    ),
    min_size=1,
    max_size=8,
)


@given(calls)
@examples(40)
def test_every_conversation_is_counted_once(tables_and_views: Warehouse, calls: Rows) -> None:
    tables_and_views.clear()
    for number, call in enumerate(calls):
        tables_and_views.call(f"c{number}", **call)
    rows = tables_and_views.rows("kpi_daily", "local_date")
    assert sum(row["conversations"] for row in rows) == len(calls)
    for row in rows:
        contained, handed_off = row["contained_conversations"], row["handed_off_conversations"]
        assert contained + handed_off == row["finished_conversations"] <= row["conversations"]
        strictly = row["contained_excl_abandoned_conversations"]
        assert strictly + row["abandoned_conversations"] == contained
        if row["finished_conversations"]:
            assert row["containment_rate"] + row["handoff_rate"] == pytest.approx(1)
        else:
            assert row["containment_rate"] is None
    # each change is the difference to the day before
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["channel"], row["variant_id"]), []).append(row)
    for group in groups.values():
        by_day = {row["local_date"]: row["conversations"] for row in group}
        for row in group:
            before = by_day.get(row["local_date"] - timedelta(days=1), 0)
            assert row["conversations_change"] == row["conversations"] - before


@pytest.mark.parametrize(
    ("given_name", "zone"),
    [("UTC", "UTC"), ("europe/london", "Europe/London"), (" Asia/Kolkata ", "Asia/Kolkata")],
)
def test_zone_by_its_iana_name(given_name: str, zone: str) -> None:
    assert time_zone(given_name) == zone


@pytest.mark.parametrize("name", ["", "EST5EDT", "+02:00", "Etc/GMT+5", "London", "x' OR 1=1", 5])
def test_other_names_are_refused(name: object) -> None:
    with pytest.raises(ConfigurationError):
        time_zone(name)


_OTHER_DIALECTS = (
    "athena",
    "bigquery",
    "clickhouse",
    "databricks",
    "dremio",
    "fabric",
    "redshift",
    "snowflake",
    "sqlite",
)


@pytest.mark.unit
@pytest.mark.parametrize(
    "dialect",
    [
        "mysql",
        "tsql",
        *(pytest.param(name, marks=pytest.mark.slow) for name in _OTHER_DIALECTS),
    ],
)
def test_dialects_of_other_destinations_have_an_equal_query(dialect: str) -> None:
    statements = Statements(dialect, "polyai.{}".format, "Europe/London")
    for view in views().values():
        sqlglot.parse_one(statements.create(view, replacing=True), read=dialect)
