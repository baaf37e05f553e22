"""Write-backs to the sandbox over HTTP: each annotation and note once, whatever fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow as pa
import pytest

import polyai
from command import AGENT, KEY, access, error_of, query, run, start, wait_until
from loaded import put_loaded
from polyai import open_pipeline, resolve
from polyai.load.run import load
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.write_backs import Result, WriteBackReport
from polyai.write_backs.report import WriteBacks
from polyai.write_backs.rows import from_rows
from polyai.write_backs.run import PIPELINE_NAME, write_back

pytestmark = pytest.mark.load

OTHER_AGENT = "PROJECT-ORDERS"
POSTS = r"^POST .*/(annotation|note)"

Row = dict[str, Any]


class Desk:
    """A sandbox and a client that writes back to it from the working directory."""

    def __init__(self, sandbox: Sandbox, base_url: str) -> None:
        self.sandbox = sandbox
        self.base_url = base_url
        self.options: dict[str, Any] = {
            "agent_id": AGENT,
            "api_key": KEY,
            "base_url": base_url,
            "max_attempts": 3,
            "uncertain_wait": "0s",
        }

    def annotate(
        self,
        rows: Any,
        *,
        dry_run: bool = False,
        stop: threading.Event | None = None,
        **options: Any,
    ) -> WriteBacks:
        return polyai.annotate(
            rows, settings=resolve(**self.options | options), dry_run=dry_run, stop=stop
        )

    def note(self, rows: Any, *, overwrite: bool = False, **options: Any) -> WriteBacks:
        settings = resolve(**self.options | options)
        return polyai.note(rows, settings=settings, overwrite=overwrite)

    def load(self, **options: Any) -> Any:
        (report,) = load(resolve(**self.options | options), open_pipeline())
        return report

    def ids(self, agent_id: str = AGENT) -> list[str]:
        """Conversation ids, those with the most turns first."""
        found = [
            (-self.sandbox.conversation(agent_id, index).turn_count, index)
            for index in self.sandbox.listed(agent_id)
        ]
        return [self.sandbox.traits(agent_id, index).conversation_id for _, index in sorted(found)]

    def turns(self, conversation_id: str) -> int:
        return len(self.sandbox.detail(AGENT, conversation_id)["turns"])

    def there(self, conversation_id: str, agent_id: str = AGENT) -> Counter[tuple[Any, ...]]:
        """Annotations of a conversation, with the number of occurrences."""
        index = self.sandbox.find(agent_id, conversation_id)
        assert index is not None
        return Counter(
            (number, one.role, one.annotation_type)
            for number, turn in enumerate(self.sandbox.conversation(agent_id, index).turns or ())
            for one in turn.annotations
        )

    def note_of(self, conversation_id: str) -> str | None:
        found = self.sandbox.detail(AGENT, conversation_id).get("note")
        return str(found) if found else None

    def posts(self) -> list[str]:
        return self.sandbox.requests.paths(POSTS)

    def flags(self, count: int) -> list[Row]:
        """Returns that many annotations that do not exist yet."""
        rows = []
        for conversation_id in self.ids():
            there = self.there(conversation_id)
            for turn in range(self.turns(conversation_id)):
                for role, label in (("user", "wrong_transcript"), ("agent", "wrong_info")):
                    if not there[turn, role, label]:
                        rows.append(flag(conversation_id, turn, role, label))
        assert len(rows) >= count
        return rows[:count]

    def assert_each_once(self, rows: list[Row]) -> None:
        for row in rows:
            found = self.there(row["conversation_id"])
            assert found[row["turn_index"], row["role"], row["annotation_type"]] == 1, row


def flag(
    conversation_id: str, turn: Any, role: str = "agent", label: str = "wrong_info", **more: Any
) -> Row:
    return {
        "conversation_id": conversation_id,
        "turn_index": turn,
        "role": role,
        "annotation_type": label,
        **more,
    }


def outcomes(done: WriteBacks) -> list[tuple[int, str, str | None]]:
    return [(one.place, one.outcome, one.reason) for one in done.results]


def assert_outcomes(done: WriteBacks, expected: list[tuple[int, str, list[str]]]) -> None:
    """Compares places and outcomes, and looks for the facts in the reasons."""
    assert [(one.place, one.outcome) for one in done.results] == [one[:2] for one in expected]
    for result, (_, _, facts) in zip(done.results, expected):
        assert all(fact in str(result.reason) for fact in facts), result
        assert (result.reason is None) == (not facts)


def recorded(columns: str = "status", where: str = "TRUE") -> list[tuple[Any, ...]]:
    return query(f"SELECT {columns} FROM polyai.write_backs WHERE {where} ORDER BY ALL")


@pytest.fixture
def desk() -> Iterator[Desk]:
    sandbox = Sandbox(SandboxConfig(conversations=12, oddities=False))
    with serve(sandbox) as base_url:
        yield Desk(sandbox, base_url)


def test_each_annotation_is_sent_once_and_recorded(desk: Desk) -> None:
    rows = desk.flags(30)
    done = desk.annotate(rows)
    assert Counter(one.outcome for one in done.results) == {"sent": 30}
    desk.assert_each_once(rows)
    conversations = {row["conversation_id"] for row in rows}
    assert len(desk.posts()) == 30
    assert desk.sandbox.requests.kinds == {"detail": len(conversations), "annotation": 30}

    names = "conversation_id, turn_index, role, annotation_type"
    expected = sorted(tuple(row[name] for name in names.split(", ")) for row in rows)
    assert sorted(recorded(names)) == expected
    assert recorded(
        "DISTINCT kind, status, note, error_code, message, sent_at >= requested_at, agent_id"
    ) == [("annotation", "sent", None, None, None, True, AGENT)]
    assert query("SELECT command, status, failed FROM polyai.sync_runs") == [
        ("annotate", "complete", 0)
    ]


def test_rows_that_were_sent_before_cost_no_request(desk: Desk) -> None:
    rows = desk.flags(10)
    desk.annotate(rows)
    desk.sandbox.requests.clear()
    again = desk.annotate([*rows[5:], *rows[:5]])
    assert Counter(one.outcome for one in again.results) == {"there": 10}
    assert desk.sandbox.requests.count() == 0
    desk.assert_each_once(rows)
    assert recorded("count(*)") == [(10,)]


@pytest.mark.slow
def test_an_annotation_of_somebody_else_is_not_duplicated(desk: Desk) -> None:
    (row,) = desk.flags(1)
    mine = (row["turn_index"], row["role"], row["annotation_type"])
    desk.sandbox.annotate(AGENT, row["conversation_id"], [mine])
    done = desk.annotate([row])
    assert outcomes(done) == [(1, "there", None)]
    assert desk.posts() == []


@pytest.mark.slow
def test_an_annotation_that_was_removed_at_polyai_is_not_sent_again(desk: Desk) -> None:
    (row,) = desk.flags(1)
    desk.annotate([row])
    with serve(Sandbox(desk.sandbox.config)) as fresh:  # the same calls, and no annotation
        desk.options["base_url"] = fresh
        assert outcomes(desk.annotate([row])) == [(1, "there", None)]


def test_invalid_rows_are_reported_and_do_not_stop_valid_ones(desk: Desk) -> None:
    first, second = desk.ids()[:2]
    turns = desk.turns(first)
    good = [row for row in desk.flags(60) if row["conversation_id"] == second][:1]
    rows = [
        good[0],
        flag("nobody", 0),
        flag(first, turns),
        flag(first, -1),
        flag(first, "1.5"),
        flag(first, "two"),
        flag(first, True),
        flag(first, 0, "caller"),
        flag(first, 0, label="wrong-info"),
        flag(first, 0, label="rude"),
        good[0],
        flag(first, 0, agent_id=OTHER_AGENT),
        flag("", 0),
        {"conversation_id": first, "turn_index": 0},
        flag(["a"], 0),  # type: ignore[arg-type]
    ]
    done = desk.annotate(rows)
    labels = "missing_topic, wrong_transcript, wrong_info"
    assert_outcomes(
        done,
        [
            (1, "sent", []),
            (2, "rejected", ["PolyAI", "conversation"]),
            (3, "rejected", [f"turn {turns} ", f"0 to {turns - 1}"]),
            (4, "rejected", ["turn_index", "-1"]),
            (5, "rejected", ["turn_index", "'1.5'"]),
            (6, "rejected", ["turn_index", "'two'"]),
            (7, "rejected", ["turn_index", "True"]),
            (8, "rejected", ["role", "'caller'", "user, agent"]),
            (9, "rejected", ["annotation_type", "'wrong-info'", labels, "wrong_info?"]),
            (10, "rejected", ["annotation_type", "'rude'", labels]),
            (11, "rejected", ["duplicate", "1"]),
            (12, "rejected", [OTHER_AGENT, AGENT]),
            (13, "rejected", ["conversation_id", "empty"]),
            (14, "rejected", ["role, annotation_type", "empty"]),
            (15, "rejected", ["conversation_id", "['a']"]),
        ],
    )
    assert len(desk.posts()) == 1
    assert recorded("status") == [("sent",)]
    (report,) = done.reports
    assert (report.status, report.failed) == ("partial", 2)


def test_values_are_accepted_as_people_write_them(desk: Desk) -> None:
    (row,) = desk.flags(1)
    written = {
        " Conversation_ID ": f"  {row['conversation_id']} ",
        "TURN_INDEX": float(row["turn_index"]),  # as in pandas where a value is missing
        "role": row["role"].upper(),
        "annotation_type": f" {row['annotation_type'].title()} ",
        "reviewer": "Ana",
        "comment": float("nan"),
    }
    done = desk.annotate([written])
    assert outcomes(done) == [(1, "sent", None)]
    assert done.unused == ["reviewer"]
    desk.assert_each_once([row])


@pytest.mark.parametrize("kind", ["arrow", "relation"])
@pytest.mark.slow
def test_arrow_compatible_tables_are_accepted(desk: Desk, kind: str) -> None:
    rows = desk.flags(3)
    table: Any = pa.Table.from_pylist(rows)
    if kind == "relation":
        table = duckdb.from_arrow(table)
    assert Counter(one.outcome for one in desk.annotate(table).results) == {"sent": 3}
    desk.assert_each_once(rows)


def test_a_missing_column_stops_before_any_request(desk: Desk) -> None:
    with pytest.raises(Exception, match="column role is missing") as error:
        desk.annotate([{"conversation_id": "a", "turn_index": 1, "annotation_type": "x"}])
    assert "annotation_type, conversation_id, turn_index" in str(error.value)
    assert desk.sandbox.requests.count() == 0


def test_a_dry_run_sends_and_writes_nothing(desk: Desk, own_folder: Path) -> None:
    rows = [*desk.flags(3), flag("nobody", 0)]
    done = desk.annotate(rows, dry_run=True)
    assert [one.outcome for one in done.results] == ["to send"] * 3 + ["rejected"]
    assert desk.posts() == []
    assert not Path("polyai.duckdb").exists()
    desk.annotate(rows[:1])
    assert [one.outcome for one in desk.annotate(rows, dry_run=True).results] == [
        "there",
        "to send",
        "to send",
        "rejected",
    ]
    assert recorded("count(*)") == [(1,)]


CARRIED_OUT: tuple[Mapping[str, Any], ...] = (
    {"kind": "truncated"},
    {"kind": "truncated_json"},
)
NOT_CARRIED_OUT: tuple[Mapping[str, Any], ...] = (
    {"kind": "status", "status": 429},  # retried at once
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 504},
    {"kind": "reset"},
    {"kind": "empty"},
    {"kind": "envelope"},
    {"kind": "html", "status": 502},
)


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(CARRIED_OUT[:1], id="truncated"),
        pytest.param(CARRIED_OUT, id="carried out", marks=pytest.mark.slow),
        pytest.param(NOT_CARRIED_OUT, id="not carried out", marks=pytest.mark.slow),
        *(
            pytest.param(
                (fault,),
                id="-".join(str(value) for value in fault.values()) + " only",
                marks=pytest.mark.matrix,
            )
            for fault in (*CARRIED_OUT[1:], *NOT_CARRIED_OUT)
        ),
    ],
)
def test_a_lost_response_never_creates_a_duplicate(
    desk: Desk, faults: Sequence[Mapping[str, Any]]
) -> None:
    rows = desk.flags(40)
    for fault in faults:
        desk.sandbox.faults.add(**fault, path="/annotation", rate=0.4 / len(faults))
    done = desk.annotate(rows, max_attempts=20)
    assert desk.sandbox.faults.hits > 5
    desk.assert_each_once(rows)
    assert recorded("status, count(*)", "TRUE GROUP BY status") == [("sent", 40)]
    assert {one.outcome for one in done.results} == {"sent"}


@pytest.mark.slow
def test_a_refusal_is_recorded_with_its_code_and_retried_by_the_next_run(desk: Desk) -> None:
    rows = desk.flags(3)
    refused = rows[1]["conversation_id"]
    desk.sandbox.faults.add(
        "status", status=422, error_code="ANNOTATION_LIMIT", path=f"{refused}/an"
    )
    done = desk.annotate(rows[:2])
    (report,) = done.reports
    assert (report.status, report.failed, report.outcomes["rejected"]) == ("partial", 2, 2)
    columns = "DISTINCT status, error_code, error_id IS NOT NULL, message LIKE '%ANNOTATION_LIMIT%'"
    assert recorded(columns) == [("rejected", "ANNOTATION_LIMIT", True, True)]
    desk.sandbox.faults.clear()
    assert Counter(one.outcome for one in desk.annotate(rows).results) == {"sent": 3}
    assert recorded("status, error_code, message") == [("sent", None, None)] * 3


def test_a_refused_key_stops_at_once(desk: Desk) -> None:
    done = desk.annotate(desk.flags(40), api_key="sandbox-key-forbidden")
    (report,) = done.reports
    assert report.status == "failed"
    assert report.error is not None
    assert "no permission" in report.error
    assert desk.posts() == []
    assert desk.sandbox.requests.count() <= 8  # those in flight
    assert {one.outcome for one in done.results} <= {"not sent", "rejected"}


@pytest.mark.slow
def test_an_outage_stops_the_run(desk: Desk) -> None:
    desk.sandbox.faults.add("status", status=503, path="conversations/")
    rows = [flag(f"id-{number}", 0) for number in range(200)]
    done = desk.annotate(rows, max_attempts=1)
    assert done.reports[0].status == "failed"
    assert desk.sandbox.requests.count() < 60
    assert {one.outcome for one in done.results} == {"not sent"}


@pytest.mark.matrix
def test_an_interrupted_run_is_recorded_and_continued_later(desk: Desk) -> None:
    rows, stop = desk.flags(60), threading.Event()
    desk.sandbox.faults.add("delay", seconds=0.05, path="/annotation")
    done: list[WriteBacks] = []
    thread = threading.Thread(target=lambda: done.append(desk.annotate(rows, stop=stop, workers=2)))
    thread.start()
    wait_until(lambda: len(desk.posts()) >= 5)
    stop.set()
    thread.join()
    (report,) = done[0].reports
    assert report.status == "interrupted"
    counts = report.outcomes
    assert counts["sent"] == len(desk.posts())
    assert counts["sent"] + counts["not sent"] == 60
    assert recorded("DISTINCT status") == [("rejected",), ("sent",)]
    desk.sandbox.faults.clear()
    desk.annotate(rows)
    desk.assert_each_once(rows)


def _left_by_a_killed_run(rows: list[Row], status: str = "sending") -> None:
    """Makes rows of the first run look as if it had been killed."""
    with duckdb.connect("polyai.duckdb") as connection:
        for row in rows:
            connection.execute(
                "UPDATE polyai.write_backs SET status = ?, sent_at = NULL "
                "WHERE conversation_id = ? AND turn_index = ? AND role = ?",
                [status, row["conversation_id"], row["turn_index"], row["role"]],
            )


@pytest.mark.slow
def test_rows_of_a_killed_run_are_looked_up_first(desk: Desk) -> None:
    rows = desk.flags(4)
    desk.annotate(rows[:2])
    desk.sandbox.faults.add("status", status=422, path="/annotation")
    desk.annotate(rows[2:])  # in write_backs, and not at PolyAI
    desk.sandbox.faults.clear()
    _left_by_a_killed_run(rows)
    desk.sandbox.requests.clear()
    done = desk.annotate([rows[0], rows[2]])
    assert [one.outcome for one in done.results] == ["there", "sent"]
    assert len(desk.posts()) == 1
    # rows that are not in this file are resolved too
    by_row = {
        (conversation_id, turn, role): status
        for conversation_id, turn, role, status in recorded(
            "conversation_id, turn_index, role, status"
        )
    }
    assert [by_row[row["conversation_id"], row["turn_index"], row["role"]] for row in rows] == [
        "sent",
        "sent",
        "sent",
        "rejected",
    ]
    desk.annotate(rows)
    desk.assert_each_once(rows)


@pytest.mark.slow
def test_a_row_that_polyai_does_not_show_is_not_sent_again(desk: Desk) -> None:
    (row,) = desk.flags(1)
    desk.annotate([row])
    _left_by_a_killed_run([row])
    hidden = Sandbox(SandboxConfig(conversations=12, oddities=False, withhold_transcripts=True))
    with serve(hidden) as base_url:
        shown, desk.options["base_url"] = desk.options["base_url"], base_url
        (result,) = desk.annotate([row]).results
        assert result.outcome == "unknown"
        assert "Agent Studio" in str(result.reason)
        assert recorded("status") == [("unknown",)]
        assert desk.annotate([row]).results[0].outcome == "unknown"
        assert hidden.requests.count(POSTS) == 0
    desk.options["base_url"] = shown
    assert desk.annotate([row]).results[0].outcome == "there"
    assert recorded("status, sent_at IS NOT NULL") == [("sent", True)]
    desk.assert_each_once([row])


@pytest.mark.matrix
def test_rows_of_a_killed_run_stay_pending_during_an_outage(desk: Desk) -> None:
    (row,) = desk.flags(1)
    desk.annotate([row])
    _left_by_a_killed_run([row])
    desk.sandbox.faults.add("status", status=503, path=row["conversation_id"])
    assert desk.annotate([row], max_attempts=1).results[0].outcome == "not sent"
    assert recorded("status") == [("sending",)]
    desk.sandbox.faults.clear()
    assert desk.annotate([row]).results[0].outcome == "there"
    assert recorded("status") == [("sent",)]


def test_a_note_is_set_and_changed(desk: Desk) -> None:
    first, second = desk.ids()[:2]
    before = desk.note_of(second)
    done = desk.note(
        [
            {"conversation_id": first, "note": "Callback\r\npromised, see ticket 12."},
            {"conversation_id": second, "note": "Refund agreed."},
        ],
        overwrite=True,
    )
    assert [one.outcome for one in done.results] == ["sent", "sent"]
    assert desk.note_of(second) == "Refund agreed." != before
    sent_before = len(desk.posts())
    again = desk.note([{"conversation_id": second, "note": "Refund agreed."}])
    assert [one.outcome for one in again.results] == ["there"]
    assert len(desk.posts()) == sent_before
    # a note that was written back from here is known, so it can be changed, and changed back
    for text in ("Refund paid.", "Refund agreed."):
        assert desk.note([{"conversation_id": second, "note": text}]).results[0].outcome == "sent"
        assert desk.note_of(second) == text
    assert recorded(
        "conversation_id, note, status, turn_index", f"conversation_id = '{second}'"
    ) == [
        (second, "Refund agreed.", "sent", None),
        (second, "Refund paid.", "sent", None),
    ]


@pytest.mark.matrix
def test_a_newer_note_is_kept(desk: Desk) -> None:
    one, two, three = desk.ids()[:3]
    for conversation_id in (one, two, three):
        desk.sandbox.edit(AGENT, conversation_id, note="As loaded")
    desk.load()
    desk.sandbox.edit(AGENT, two, note="From Agent Studio, since")
    desk.sandbox.edit(AGENT, three, note=None)
    rows = [{"conversation_id": name, "note": f"Reviewed {name}"} for name in (one, two, three)]
    done = desk.note(rows)
    assert [result.outcome for result in done.results] == ["sent", "rejected", "sent"]
    assert "newer note" in str(done.results[1].reason)
    assert desk.note_of(two) == "From Agent Studio, since"
    desk.load()  # loads the newer one, so that it is known
    assert desk.note(rows[1:2]).results[0].outcome == "sent"
    desk.sandbox.edit(AGENT, one, note="Newer again")
    assert desk.note(rows[:1], overwrite=True).results[0].outcome == "sent"
    assert desk.note_of(one) == f"Reviewed {one}"


@pytest.mark.slow
def test_two_notes_for_one_conversation_are_both_rejected(desk: Desk) -> None:
    one, two = desk.ids()[:2]
    rows = [
        {"conversation_id": one, "note": "A"},
        {"conversation_id": two, "note": "B"},
        {"conversation_id": one, "note": "C"},
        {"conversation_id": two, "note": " B "},
        {"conversation_id": two, "note": "  "},
    ]
    assert_outcomes(
        desk.note(rows, overwrite=True),
        [
            (1, "rejected", ["another note in 3"]),
            (2, "sent", []),
            (3, "rejected", ["another note in 1"]),
            (4, "rejected", ["duplicate", "2"]),
            (5, "rejected", ["note", "empty"]),
        ],
    )


@pytest.mark.matrix
def test_notes_survive_lost_responses(desk: Desk) -> None:
    desk.sandbox.faults.add("truncated", path="/note", rate=0.3)
    desk.sandbox.faults.add("status", status=503, path="/note", rate=0.2)
    rows = [{"conversation_id": name, "note": f"Seen {name}"} for name in desk.ids()]
    done = desk.note(rows, overwrite=True, max_attempts=1)
    for result, row in zip(done.results, rows):
        is_there = desk.note_of(row["conversation_id"]) == row["note"]
        assert is_there == (result.outcome == "sent"), result
    desk.sandbox.faults.clear()
    desk.note(rows, overwrite=True)
    assert all(desk.note_of(row["conversation_id"]) == row["note"] for row in rows)
    assert recorded("DISTINCT status") == [("sent",)]


@pytest.mark.slow
def test_recorded_notes_are_redacted_as_the_settings_require(desk: Desk) -> None:
    one = desk.ids()[0]
    row = {"conversation_id": one, "note": "Call back at +44 20 7946 0000"}
    hiding: dict[str, Any] = {"pii": "hash", "pii_secret": "a secret of our own"}
    assert desk.note([row], overwrite=True, **hiding).results[0].outcome == "sent"
    assert desk.note_of(one) == row["note"]
    ((stored,),) = recorded("note")
    assert stored.startswith("Call back at ")
    assert "7946" not in stored
    # the note of a killed run is recognized too
    with duckdb.connect("polyai.duckdb") as connection:
        connection.execute("UPDATE polyai.write_backs SET status = 'sending', sent_at = NULL")
    assert desk.note([row], **hiding).results[0].outcome == "there"
    assert recorded("status") == [("sent",)]
    later = {"conversation_id": one, "note": "Done"}
    assert desk.note([later], **hiding).results[0].outcome == "sent"


@pytest.mark.slow
def test_the_next_load_loads_what_was_written_back_once(desk: Desk) -> None:
    put_loaded(desk.sandbox.config)
    rows = desk.flags(6)
    written = {row["conversation_id"] for row in rows}
    noted = next(name for name in desk.ids() if name not in written)
    # too old for the look-back window and the re-fetch ages
    desk.sandbox.advance(timedelta(days=40))
    load(resolve(**desk.options), open_pipeline(), clock=lambda: desk.sandbox.now)
    desk.annotate(rows)
    desk.note([{"conversation_id": noted, "note": "Seen"}], overwrite=True)
    desk.sandbox.requests.clear()
    report = desk.load()
    assert desk.sandbox.requests.kinds["detail"] == len(written) + 1 == report.changed
    found = query(
        "SELECT conversation_id, turn_index, role, annotation_type, count(*) "
        "FROM polyai.annotations GROUP BY ALL"
    )
    landed = {tuple(row[:4]): row[4] for row in found}
    for row in rows:
        assert landed[tuple(row.values())] == 1
    current = query("SELECT conversation_id, note FROM polyai.notes WHERE valid_to IS NULL")
    assert (noted, "Seen") in current
    desk.sandbox.requests.clear()
    assert desk.load().fetched == 0


@pytest.mark.matrix
def test_several_agents_each_with_its_rows() -> None:
    config = SandboxConfig(conversations=5, oddities=False, agents=(AGENT, OTHER_AGENT))
    sandbox = Sandbox(config)
    with serve(sandbox) as base_url:
        desk = Desk(sandbox, base_url)
        desk.options["agent_id"] = f"{AGENT},{OTHER_AGENT}"
        one, other = desk.ids()[0], desk.ids(OTHER_AGENT)[0]
        rows = [
            flag(one, 0, label="missing_topic", agent_id=AGENT),
            flag(other, 0, label="missing_topic", agent_id=OTHER_AGENT),
            flag(one, 0, label="missing_topic"),
        ]
        done = desk.annotate(rows)
        unnamed = ["agent_id", "empty", f"{AGENT}, {OTHER_AGENT}"]
        assert_outcomes(done, [(1, "sent", []), (2, "sent", []), (3, "rejected", unnamed)])
        assert desk.there(other, OTHER_AGENT)[0, "agent", "missing_topic"] == 1
        assert recorded("agent_id, conversation_id") == sorted([(AGENT, one), (OTHER_AGENT, other)])
        assert [report.agent_id for report in done.reports] == [AGENT, OTHER_AGENT]


def test_the_command_reads_a_file_and_prints_the_results(desk: Desk) -> None:
    one = desk.ids()[0]
    good = next(row for row in desk.flags(1))
    Path("flags.csv").write_text(
        "\ufeffconversation_id;turn_index;role;annotation_type;reviewer\n"
        f"{good['conversation_id']};{good['turn_index']};{good['role']};"
        f'{good["annotation_type"]};"Ana;\nBo"\n'
        f"{one};99;agent;wrong_info;\n"
        f"{one};0;agent\n",
        encoding="utf-8",
    )
    done = run("annotate", "flags.csv", **access(desk.base_url))
    assert done.returncode == 3, done.stderr
    last = desk.turns(one) - 1
    unused, fourth, fifth, summary = done.stdout.splitlines()
    assert "reviewer" in unused
    assert fourth.startswith(f"line 4: rejected {one} turn 99, agent: wrong_info: ")
    assert fourth.endswith(f"0 to {last}")
    assert fifth.startswith("line 5: rejected ")
    assert "3 fields" in fifth
    assert "';'" in fifth
    assert summary == "flags.csv: 3 rows: 1 sent, 2 rejected"
    assert done.stderr == ""
    desk.assert_each_once([good])


@pytest.mark.matrix
def test_the_command_reads_rows_from_the_warehouse(desk: Desk) -> None:
    put_loaded(desk.sandbox.config)
    sql = (
        "select conversation_id, turn_index, 'user' as role, 'wrong_transcript' as annotation_type "
        "from turns where is_silence is not true and user_input like '%e%' "
        "and {'a': 1}.a = 1 and not exists (select 1 from annotations a where "
        "a.conversation_id = turns.conversation_id and a.turn_index = turns.turn_index)"
    )
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        expected = connection.execute(f"USE polyai; {sql}").fetchall()
    assert expected
    done = run("annotate", "--query", sql, "--json", **access(desk.base_url))
    assert done.returncode == 0, done.stderr
    assert f'"sent": {len(expected)}' in done.stdout
    for conversation_id, turn, role, label in expected:
        assert desk.there(str(conversation_id))[turn, role, label] == 1
    broken = run("annotate", "--query", "select nothing from nowhere", **access(desk.base_url))
    assert broken.returncode == 1
    assert "nowhere" in error_of(broken)


@pytest.mark.matrix
def test_the_command_reads_standard_input(desk: Desk) -> None:
    one, sources = desk.ids()[0], str(Path(polyai.__file__).parents[1])
    desk.sandbox.edit(AGENT, one, note=None)
    done = subprocess.run(
        [sys.executable, "-m", "polyai", "note", "-"],
        input=f'{{"conversation_id": "{one}", "note": "Müller"}}\n\n[1]\n',
        env=os.environ | access(desk.base_url) | {"PYTHONPATH": sources},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    third, summary = done.stdout.splitlines()
    assert third.startswith("line 3: rejected ")
    assert summary == "-: 2 rows: 1 sent, 1 rejected"
    assert desk.note_of(one) == "Müller"


@pytest.mark.slow
def test_errors_of_the_command_name_the_problem(desk: Desk) -> None:
    environment = access(desk.base_url)
    assert run("annotate", "a.csv", "--query", "select 1", **environment).returncode == 2
    gone = error_of(run("note", "gone.csv", **environment))
    assert "gone.csv cannot be read: No such file" in gone
    assert "warehouse" in error_of(run("note", "--query", "select 1", **environment))
    Path("flags.csv").write_text("conversation_id,turn_index,role,annotation_type\na,0,user,rude\n")
    none = run("annotate", "flags.csv", "--json", **environment)
    assert none.returncode == 3
    assert '"exit_code": 3' in none.stdout
    assert desk.sandbox.requests.count() == 0


@pytest.mark.matrix
def test_two_runs_at_once_exclude_each_other(desk: Desk) -> None:
    rows = desk.flags(40)
    Path("flags.csv").write_text(
        "\n".join(
            ["conversation_id,turn_index,role,annotation_type"]
            + [",".join(map(str, row.values())) for row in rows]
        )
    )
    desk.sandbox.faults.add("delay", seconds=0.05, path="/annotation")
    first = start("annotate", "flags.csv", "--workers", "1", **access(desk.base_url))
    wait_until(lambda: len(desk.posts()) >= 1)
    second = run("annotate", "flags.csv", **access(desk.base_url))
    assert second.returncode == 75, second.stderr
    third = run("annotate", "flags.csv", "--wait", "1m", **access(desk.base_url))
    assert third.returncode == 0, third.stderr
    assert third.stdout.splitlines()[-1] == "flags.csv: 40 rows: 40 there already"
    first.communicate()
    assert first.returncode == 0
    desk.assert_each_once(rows)


def test_results_are_in_the_order_of_the_rows() -> None:
    report = WriteBackReport(AGENT, "annotate", None)  # type: ignore[arg-type]
    report.add(Result(3, "a", "turn 1, user: wrong_info", "unknown", "why"))
    report.add(Result(1, "a", "turn 0, user: wrong_info", "sent"))
    done = WriteBacks([report], [Result(2, None, "", "rejected", "empty")], [], dry_run=False)
    assert [one.place for one in done.results] == [1, 2, 3]
    assert done.outcomes == {"sent": 1, "unknown": 1, "rejected": 1}
    assert (report.failed, report.loaded) == (1, 1)


def test_times_are_those_of_the_injected_clock(desk: Desk) -> None:
    now = datetime(2026, 11, 2, 8, tzinfo=UTC)
    pipeline = open_pipeline(name=PIPELINE_NAME)
    rows = from_rows(desk.flags(1))
    write_back("annotation", rows, resolve(**desk.options), pipeline, clock=lambda: now)
    assert recorded("requested_at, sent_at") == [(now, now)]


@pytest.mark.slow
def test_unreadable_conversations_in_a_row_keep_no_other_row_from_being_sent(desk: Desk) -> None:
    rows = desk.flags(60)
    broken = list(dict.fromkeys(row["conversation_id"] for row in rows))[:25]
    for conversation_id in broken:
        desk.sandbox.faults.add("status", status=500, path=quote(conversation_id, safe=""))
    done = desk.annotate(rows, max_attempts=1)
    outcomes = {"not sent": 0, "sent": 0}
    for one in done.results:
        outcomes[one.outcome] += 1
    good = [row for row in rows if row["conversation_id"] not in broken]
    assert outcomes == {"not sent": len(rows) - len(good), "sent": len(good)}
