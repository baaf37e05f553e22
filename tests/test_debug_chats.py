"""Debug chats: scenarios run against the sandbox, and their results in all formats."""

from __future__ import annotations

import ast
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psycopg2
import pytest
from filelock import FileLock
from junitparser import JUnitXml, TestCase, TestSuite

import polyai
from command import (
    AGENT,
    KEY,
    TIME_LIMIT_SECONDS,
    access,
    error_of,
    query,
    run,
    run_in_terminal,
    start,
    wait_until,
)
from polyai import open_pipeline, resolve
from polyai.debug_chats import (
    ChatsRun,
    ScenarioResult,
    load_suites,
    result_store,
    run_suites,
    store_results,
    write_junit,
)
from polyai.debug_chats.chat import ENVIRONMENTS
from polyai.debug_chats.result_store import PIPELINE_NAME
from polyai.debug_chats.schema import schema_text
from polyai.errors import BusyError, ConfigurationError
from polyai.sandbox import Sandbox, SandboxConfig, serve
from postgres_server import binaries, postgres

pytestmark = pytest.mark.load

SCENARIOS = Path(__file__).parent / "scenarios"
BOOKINGS, UNMET = SCENARIOS / "bookings.yaml", SCENARIOS / "unmet.yaml"
GREETING = "Thank you for calling the Harbour Hotel. This call may be recorded. How may I help you?"
MISHEARD = "I'm sorry, I didn't quite get that. Could you say it again?"


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(SandboxConfig(conversations=10, agents=(AGENT, "PROJECT-OTHER")))


@pytest.fixture
def base_url(sandbox: Sandbox) -> Iterator[str]:
    with serve(sandbox) as url:
        yield url


def run_files(base_url: str, *files: str | Path, **options: Any) -> ChatsRun:
    """Runs scenario files in this process."""
    names = ("scenarios", "environment", "label", "stop", "on_result")
    given = {name: options.pop(name) for name in names if name in options}
    settings = resolve(**{"agent_id": AGENT, "api_key": KEY, "base_url": base_url} | options)
    return run_suites(load_suites(files), settings, **given)


def store(done: ChatsRun) -> None:
    store_results(done, open_pipeline(name=PIPELINE_NAME))


def written(content: str, name: str = "suite.yaml") -> str:
    Path(name).write_text(content, encoding="utf-8")
    return name


def a_chat(*messages: str, name: str = "a", **settings: str) -> str:
    """A scenario with these messages and no expectations."""
    given = "".join(f"    {key}: {value}\n" for key, value in settings.items())
    turns = "".join(f"      - say: {text}\n" for text in messages)
    return f"  - name: {name}\n{given}    turns:\n{turns}"


def suite_of(*scenarios: str) -> str:
    return "scenarios:\n" + "".join(scenarios)


def only(done: ChatsRun) -> ScenarioResult:
    (result,) = done.scenarios
    return result


def started(sandbox: Sandbox) -> int:
    return sandbox.requests.count("/debug-chat$")


def test_every_kind_of_expectation_can_be_met(base_url: str) -> None:
    done = run_files(base_url, BOOKINGS)
    assert [(one.scenario, one.outcome, one.reasons) for one in done.scenarios] == [
        ("greets", "passed", []),
        ("books a table", "passed", []),
        ("hands off", "passed", []),
        ("announces a delayed answer", "passed", []),
        ("says yes", "passed", []),
        ("speaks German", "passed", []),
    ]
    assert done.passed
    assert [turn.user_input for turn in done.scenarios[4].turns] == [
        None, "yes", "007", "1.0", "true",
    ]  # fmt: skip


def test_every_unmet_expectation_is_reported_with_the_actual_value(base_url: str) -> None:
    done = run_files(base_url, UNMET)
    first, second = done.scenarios
    what_time = 'the answer was "With pleasure. What time would suit you?"'
    (latency,) = (reason for reason in first.reasons if "within" in reason)
    assert latency.startswith("turn 1: is there within 0.0001 s: it took 0.")
    assert [reason for reason in first.reasons if reason != latency] == [
        f'turn 0: contains "good evening": the answer was "{GREETING}"',
        f'turn 1: contains "breakfast": {what_time}',
        f'turn 1: does not contain "WHAT TIME": {what_time}',
        f"turn 1: matches /^nothing$/: {what_time}",
        "turn 1: the answer is delayed: it is not",
        "turn 1: calls cancel_booking: functions: create_booking",
        "turn 1: retrieves topic parking: topics: restaurant_booking, opening_hours",
        'turn 1: state booking.guests is "4": it is 4',
        "turn 1: state booking.children is 2: it is null",
        "turn 1: hands over: destination: none",
        'turn 1: not: contains "time" and calls create_booking: '
        f"{what_time}; functions: create_booking",
        'turn 2: hands over to "Bar": destination: Front desk',
        "turn 2: the agent does not end the chat: it ended",
    ]
    assert second.reasons == ["turn 1: the agent ends the chat: it goes on"]
    assert [one.outcome for one in done.scenarios] == ["failed", "failed"]


def echo(answer: dict[str, Any], expected: str = "{ended: false}") -> str:
    """A file with one scenario, in which the agent answers with these fields."""
    turn = (
        f"      - say: echo\n        metadata: {json.dumps(answer)}\n        expect: {expected}\n"
    )
    return written(f"scenarios:\n  - name: a\n    turns:\n{turn}")


def test_function_events_and_topics_are_read_in_every_known_form(base_url: str) -> None:
    metadata = {
        "functionEvents": [
            {"name": "one"},
            {"function_name": "two"},
            {"name": None, "function_name": "three"},
            "four",
            {"id": 5},
            6,
            None,
        ],
        "retrievedTopics": ["rooms, parking", "spa", None, ","],
        "state": {"a.b": 1, "a": {"b": 2, "c.d": [{"e": 1.0}]}, "yes": True, "none": None},
    }
    expected = (
        "{function_called: [one, two, three, four], topic_retrieved: [rooms, parking, spa],"
        " state: {a.b: 1, a.c.d.0.e: 1, a.c.d.1.e: null, yes: true, none: null, x.y: null},"
        " not: {function_called: '6'}}"
    )
    assert only(run_files(base_url, echo({"metadata": metadata}, expected))).reasons == []


@pytest.mark.parametrize(
    ("actual", "expected"),
    [(1, "true"), (True, "1"), ("1", "1"), (1, '"1"'), ([], "null"), ({"b": 1}, "{b: 2}")],
)
def test_values_of_the_state_are_compared_with_their_types(
    base_url: str, actual: Any, expected: str
) -> None:
    answer = {"metadata": {"state": {"a": actual}}}
    done = run_files(base_url, echo(answer, f"{{state: {{a: {expected}}}}}"))
    assert only(done).outcome == "failed"


def test_unknown_fields_of_an_answer_are_stored_in_extra(base_url: str) -> None:
    answer = {"confidence": 0.5, "userInput": "hallo", "response": None, "metadata": ["odd"]}
    store(run_files(base_url, echo(answer)))
    assert query(
        "SELECT user_input, response, metadata, extra FROM polyai.debug_chat_turns "
        "WHERE turn_index = 1"
    ) == [("echo", None, "{}", '{"confidence":0.5,"userInput":"hallo","metadata":["odd"]}')]


def test_a_scenario_fails_if_the_agent_ends_the_chat_early(base_url: str) -> None:
    done = run_files(
        base_url, written(suite_of(a_chat("bye", "a table", "a room"), a_chat("bye", name="b")))
    )
    early, in_time = done.scenarios
    assert (early.outcome, early.has_ended, len(early.turns)) == ("failed", True, 2)
    (reason,) = early.reasons
    assert "ended the chat after turn 1" in reason
    assert "turns 2 to 3" in reason
    assert in_time.outcome == "passed"


def test_an_expired_session_and_a_missing_draft_are_errors(base_url: str) -> None:
    file = written(
        suite_of(a_chat("a table", "timeout"), a_chat("hi", name="b", environment="draft"))
    )
    late, draft = run_files(base_url, file).scenarios
    assert (late.outcome, late.error_kind, len(late.turns)) == ("error", "ConversationError", 2)
    assert late.error is not None
    assert late.error.startswith("turn 2: ")
    assert "error_code CHAT_TIMEOUT, error_id " in late.error
    assert (draft.outcome, draft.chat_id, draft.turns) == ("error", None, ())
    assert draft.error is not None
    assert draft.error.startswith("turn 0: ")
    assert "environment draft" in draft.error
    assert "CHAT_DRAFT_NOT_EXIST" in draft.error
    assert "sandbox, pre-release or live" in draft.error


def test_a_lost_answer_restarts_the_scenario_in_a_new_chat(sandbox: Sandbox, base_url: str) -> None:
    sandbox.faults.add("truncated", path="/debug-chat/", times=2)
    done = run_files(base_url, written(suite_of(a_chat("a table", "a room"))))
    assert (only(done).outcome, only(done).attempts) == ("passed", 3)
    assert [turn.user_input for turn in only(done).turns] == [None, "a table", "a room"]
    messages = Counter(sandbox.requests.paths("/debug-chat/"))
    # each of the first two chats received its message once
    assert sorted(messages.values()) == [1, 1, 2]
    assert started(sandbox) == 3


@pytest.mark.parametrize("path", ["/debug-chat$", "/debug-chat/"])
def test_answers_lost_in_every_attempt_are_an_error(
    sandbox: Sandbox, base_url: str, path: str
) -> None:
    sandbox.faults.add("reset", path=path)
    result = only(run_files(base_url, written(suite_of(a_chat("a table")))))
    assert (result.outcome, result.error_kind, result.attempts) == ("error", "UncertainError", 3)
    assert started(sandbox) == 3


def test_an_unavailable_api_is_an_error_not_a_failure(sandbox: Sandbox, base_url: str) -> None:
    sandbox.faults.add("status", status=429, retry_after="9999", path="/debug-chat/", times=1)
    file = written(suite_of(a_chat("a table"), a_chat("a table", name="b")))
    first, second = run_files(base_url, file, workers=1).scenarios
    assert (first.outcome, first.error_kind) == ("error", "UnavailableError")
    assert "9999 s" in str(first.error)
    assert second.outcome == "passed"


def test_latency_excludes_rate_limiting(sandbox: Sandbox, base_url: str) -> None:
    sandbox.faults.add("status", status=429, retry_after="1", path="/debug-chat/", times=1)
    sandbox.faults.add("delay", seconds=0.3, path="/debug-chat/", times=1)
    result = only(run_files(base_url, written(suite_of(a_chat("a table")))))
    assert result.seconds > 1.3
    assert 0.3 < result.turns[1].latency_seconds < 1


def test_a_refused_key_stops_the_run(sandbox: Sandbox, base_url: str) -> None:
    file = written(suite_of(*(a_chat("hi", name=f"s{number}") for number in range(9))))
    done = run_files(base_url, file, workers=1, api_key="wrong")
    assert [one.outcome for one in done.scenarios] == ["error"] + ["skipped"] * 8
    assert done.stopped_by is not None
    assert len(sandbox.requests.matching()) == 1


def test_the_agent_of_a_scenario_must_be_configured_and_unambiguous(base_url: str) -> None:
    two = f"{AGENT},PROJECT-OTHER"
    file = written(
        "agent: PROJECT-OTHER\n" + suite_of(a_chat("hi"), a_chat("hi", name="b", agent=AGENT))
    )
    done = run_files(base_url, file, agent_id=two)
    assert [one.agent_id for one in done.scenarios] == ["PROJECT-OTHER", AGENT]
    with pytest.raises(ConfigurationError) as caught:
        run_files(base_url, written(suite_of(a_chat("hi"))), agent_id=two)
    assert str(caught.value).startswith("suite.yaml:2:5: scenario 'a'")
    assert f"{AGENT}, PROJECT-OTHER" in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"suite.yaml:2:5: agent nobody of scenario 'a'"):
        run_files(base_url, written(suite_of(a_chat("hi", agent="nobody"))))


def test_an_unknown_environment_is_found_before_anything_is_sent(
    sandbox: Sandbox, base_url: str
) -> None:
    file = written(suite_of(a_chat("hi")))
    sandbox.requests.clear()
    with pytest.raises(ConfigurationError, match=r"'prod'.* sandbox, pre-release, live or draft"):
        run_files(base_url, file, environment="prod")
    for command in (("debug-chat", file, "--no-warehouse"), ("chat",)):
        result = run(*command, "--environment", "prod", **access(base_url))
        assert result.returncode == 1
        assert "'prod'" in error_of(result)
    assert not sandbox.requests.matching()
    schema = json.loads(schema_text())["$defs"]["environment"]
    assert tuple(schema["enum"]) == ENVIRONMENTS


def test_an_answer_cannot_control_the_terminal(base_url: str) -> None:
    answer = r"\e]0;owned\a\e[2J\x9b2J\u202Ereversed"
    file = written(
        "scenarios:\n  - name: a\n    turns:\n"
        f'      - {{say: echo, metadata: {{response: "{answer}"}}, expect: {{contains: x}}}}\n'
    )
    result = run("debug-chat", file, "--no-warehouse", **access(base_url))
    assert result.returncode == 3
    assert "␛]0;owned␛[2J\ufffd2J\ufffdreversed" in result.stdout
    assert not set("\x1b\x07\x9b\u202e") & set(result.stdout + result.stderr)
    # scripts print the reasons themselves
    (reason,) = only(run_files(base_url, file)).reasons
    assert not set("\x1b\x07\x9b\u202e") & set(reason)


def test_scenarios_are_selected_by_name(base_url: str) -> None:
    other = written("name: other\n" + suite_of(a_chat("hi", name="greets")))

    def selected(*names: str) -> list[str]:
        done = run_files(base_url, BOOKINGS, other, scenarios=names, environment="live")
        assert all(one.setup.environment == "live" for one in done.scenarios)
        return [f"{one.suite}/{one.scenario}" for one in done.scenarios]

    assert selected("greets") == ["bookings/greets", "other/greets"]
    assert selected("other/greets", "says yes") == ["bookings/says yes", "other/greets"]
    with pytest.raises(ConfigurationError, match=r"'x': .*'greets', "):
        selected("x", "greets")


def test_results_are_stored_in_one_load_package(base_url: str) -> None:
    before = datetime.now(UTC)
    done = run_files(
        base_url, BOOKINGS, UNMET, written(suite_of(a_chat("hi", environment="draft"))), label="v1"
    )
    store(done)
    landed = query(
        "SELECT agent_id, chat_id, conversation_id, run_id, label, suite, scenario, environment, "
        "variant_id, asr_lang_code, tts_lang_code, started_at, finished_at, ended, passed, error "
        "FROM polyai.debug_chats WHERE conversation_id IS NOT NULL ORDER BY chat_id"
    )
    started_chats = [one for one in done.scenarios if one.chat_id]
    assert landed == [
        (
            AGENT, one.chat_id, one.chat_id, done.run_id, "v1", one.suite, one.scenario,
            one.setup.environment, one.setup.variant_id, one.setup.asr_lang_code,
            one.setup.tts_lang_code, one.started_at, one.finished_at, one.has_ended,
            one.outcome == "passed", one.error,
        )
        for one in sorted(started_chats, key=lambda one: str(one.chat_id))
    ]  # fmt: skip
    assert all(before <= row[11] <= row[12] for row in landed)  # type: ignore[operator]
    ((chat_id, passed, error),) = query(
        "SELECT chat_id, passed, error FROM polyai.debug_chats WHERE conversation_id IS NULL"
    )
    assert (str(chat_id)[:5], passed, error) == ("none-", False, done.scenarios[-1].error)
    turns = query(
        "SELECT agent_id, chat_id, conversation_id, turn_index, user_input, response, latency_ms, "
        'delayed_response, metadata, "check", passed, failure, extra '
        "FROM polyai.debug_chat_turns ORDER BY chat_id, turn_index"
    )
    assert [(*row[:8], json.loads(str(row[8])), *row[9:]) for row in turns] == [
        (
            AGENT, one.chat_id, one.chat_id, turn.turn_index, turn.user_input or None,
            turn.response, round(turn.latency_seconds * 1000), turn.is_delayed, turn.metadata,
            "; ".join(check.expected for check in turn.checks) or None, turn.passed,
            "; ".join(map(str, turn.unmet)) or None, None,
        )
        for one in sorted(started_chats, key=lambda one: str(one.chat_id))
        for turn in one.turns
    ]  # fmt: skip
    assert ('contains "are you still there"', True, None) in [row[9:12] for row in turns]
    assert query(
        "SELECT count(DISTINCT _dlt_load_id) FROM (SELECT _dlt_load_id FROM polyai.debug_chats "
        "UNION ALL SELECT _dlt_load_id FROM polyai.debug_chat_turns)"
    ) == [(1,)]


REGRESSIONS = """
select new.suite, new.scenario, t.turn_index, t.user_input, t.response, t.failure
from polyai.debug_chats old
join polyai.debug_chats new using (agent_id, suite, scenario)
left join polyai.debug_chat_turns t on t.chat_id = new.chat_id and not t.passed
where old.label = 'v1' and new.label = 'v2' and old.passed and not new.passed
"""


def test_one_query_finds_regressions_between_labels(base_url: str) -> None:
    table = suite_of(a_chat("a table").rstrip() + "\n        expect: {contains: what time}\n")
    both = a_chat("hello", name="b"), a_chat("bye", "x", name="c")
    store(run_files(base_url, written(table + "".join(both)), label="v1"))
    store(run_files(base_url, written("variant: clumsy\n" + table + "".join(both)), label="v2"))
    assert query(REGRESSIONS) == [
        ("suite", "a", 1, "a table", MISHEARD, f'contains "what time": the answer was "{MISHEARD}"')
    ]


def test_redacted_data_is_in_no_result(base_url: str) -> None:
    scenario = a_chat("the table of +44 20 7946 0000", "bye", "x")
    expect = "\n        expect: {contains: nothing}\n      - say: bye"
    file = written(suite_of(scenario.replace("\n      - say: bye", expect)))

    def all_results(**options: str) -> str:
        done = run_files(base_url, file, label="v", **options)
        store(done)
        write_junit(done, "results.xml")
        rows = query(
            "SELECT * FROM polyai.debug_chats JOIN polyai.debug_chat_turns USING (chat_id)"
        )
        return f"{only(done)} {rows[-3:]} {Path('results.xml').read_text(encoding='utf-8')}"

    assert all_results().count("7946 0000") >= 3
    hidden = all_results(pii="drop")
    assert "7946" not in hidden
    assert hidden.count("[dropped]") >= 3
    dropped = all_results(transcripts="drop")
    assert not any(part in dropped for part in ("7946", "With pleasure", "book_table", "Harbour"))
    assert "contains [dropped]" in dropped
    assert "nothing" not in dropped
    assert "after turn 2: turn 3 " in dropped


def test_junit_xml_can_be_read_by_a_junit_parser(base_url: str) -> None:
    done = run_files(base_url, BOOKINGS, UNMET, written(
        suite_of(a_chat("bell & <b>", "bye", "x", name="early"), a_chat("timeout", name="b"))
    ), label="v1 <&>\x00")  # fmt: skip
    write_junit(done, "out/results.xml")
    assert [path.name for path in Path("out").iterdir()] == ["results.xml"]
    xml = JUnitXml.fromfile("out/results.xml")
    assert (xml.tests, xml.failures, xml.errors, xml.skipped) == (10, 3, 1, 0)
    suites = {str(suite.name): suite for suite in xml}
    assert suites.keys() == {"bookings", "unmet", "suite"}
    counts = [(suite.tests, suite.failures, suite.errors) for suite in suites.values()]
    assert counts == [(6, 0, 0), (2, 2, 0), (2, 1, 1)]
    properties = {one.name: one.value for one in suites["suite"].properties()}  # type: ignore[no-untyped-call]
    assert properties == {"run_id": done.run_id, "label": "v1 <&>"}
    failed, error = cases(suites["suite"])
    assert (failed.classname, failed.is_failure, error.is_error) == ("suite", True, True)
    assert float(failed.time) == pytest.approx(done.scenarios[-2].seconds, abs=0.001)
    (early,) = failed.result
    assert (early.type, early.message) == ("ExpectationNotMet", done.scenarios[-2].failure)
    # without the control character, which XML does not allow
    assert f"[1] user:  bell & <b>\n[1] agent: {MISHEARD}" in str(failed.system_out)
    assert error.result[0].type == "ConversationError"
    assert "CHAT_TIMEOUT" in error.result[0].message
    unmet = cases(suites["unmet"])[0]
    assert (
        unmet.result[0].message == f'turn 0: contains "good evening": the answer was "{GREETING}"'
    )
    assert len(unmet.result[0].text.splitlines()) == 14
    assert 'NOT MET: contains "breakfast": the answer was' in str(unmet.system_out)


def cases(suite: TestSuite) -> list[TestCase]:
    return list(suite)


def test_a_failed_write_of_junit_xml_leaves_no_file(base_url: str) -> None:
    done = run_files(base_url, written(suite_of(a_chat("hi"))))
    Path("taken").mkdir()
    with pytest.raises(ConfigurationError, match="taken"):
        write_junit(done, "taken")
    assert not list(Path().glob(".taken*"))


def test_an_interrupted_run_stores_its_results_so_far(sandbox: Sandbox, base_url: str) -> None:
    stop = threading.Event()
    sandbox.faults.add("delay", seconds=0.1)
    file = written(
        suite_of(a_chat("hi"), a_chat("hi", "hi", "hi", name="b"), a_chat("hi", name="c"))
    )

    def interrupt(result: ScenarioResult) -> None:
        stop.set()

    done = run_files(base_url, file, workers=1, stop=stop, on_result=interrupt)
    _, second, third = done.scenarios
    assert done.is_interrupted
    assert [one.outcome for one in done.scenarios] == ["passed", "skipped", "skipped"]
    assert len(second.turns) < 4
    assert third.turns == ()
    store(done)
    stored = [("a", True), ("b", None)] if second.turns else [("a", True)]
    assert query("SELECT scenario, passed FROM polyai.debug_chats ORDER BY 1") == stored
    write_junit(done, "results.xml")
    assert JUnitXml.fromfile("results.xml").skipped == 2


def twenty_scenarios() -> str:
    scenarios = []
    for number in range(20):
        message = "breakfast" if number % 5 else "parking"
        expected = "\n        expect: {contains: [128 euros]}\n"
        scenarios.append(a_chat(message, name=f"scenario {number}").rstrip() + expected)
    return written(suite_of(*scenarios), "twenty.yaml")


def test_the_command_runs_scenarios_in_parallel(sandbox: Sandbox, base_url: str) -> None:
    sandbox.faults.add("delay", seconds=0.2)
    result = run(
        "debug-chat", twenty_scenarios(), "--workers", "10", "--label", "v1", "--json",
        "--junit", "results.xml", **access(base_url),
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    report = json.loads(result.stdout)
    assert report["exit_code"] == 3
    started_at, finished_at = (
        datetime.fromisoformat(report[name]) for name in ("started_at", "finished_at")
    )
    # sequentially it would take 8 s
    assert finished_at - started_at < timedelta(seconds=4)
    outcomes = Counter(one["outcome"] for one in report["scenarios"])
    assert outcomes == {"passed": 16, "failed": 4}
    xml = JUnitXml.fromfile("results.xml")
    assert (xml.tests, xml.failures, xml.errors) == (20, 4, 0)
    assert query("SELECT passed, count(*) FROM polyai.debug_chats GROUP BY 1 ORDER BY 1") == [
        (False, 4),
        (True, 16),
    ]
    assert query("SELECT count(*) FROM polyai.debug_chat_turns") == [(40,)]
    for path in ("results.xml", "polyai.duckdb"):
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    assert KEY not in result.stdout + result.stderr


@pytest.mark.slow
def test_concurrent_jobs_both_store_their_results(base_url: str) -> None:
    file = written(suite_of(a_chat("hi"), a_chat("hi", name="b")))
    jobs = [
        start("debug-chat", file, "--label", label, **access(base_url)) for label in ("one", "two")
    ]
    outputs = [job.communicate(timeout=60) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    assert query("SELECT label, count(*) FROM polyai.debug_chats GROUP BY 1 ORDER BY 1") == [
        ("one", 2),
        ("two", 2),
    ]


def test_a_warehouse_that_stays_locked_is_reported_as_busy(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_files(base_url, written(suite_of(a_chat("hi"))))
    monkeypatch.setattr(result_store, "MIN_WAIT", timedelta(0))
    with (
        FileLock("polyai.duckdb.debug-chats.lock"),
        pytest.raises(BusyError, match="debug-chats"),
    ):
        store(done)
    store(done)
    assert query("SELECT count(*) FROM polyai.debug_chats") == [(1,)]


@pytest.mark.matrix
@pytest.mark.skipif(
    binaries() is None and not os.environ.get("CI"),
    reason="needs a PostgreSQL server: install the package postgresql",
)
def test_results_from_several_machines_are_stored_in_postgres(
    base_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(
        suite_of(a_chat("hi", agent="PROJECT-OTHER"), a_chat("hi", name="b", agent=AGENT))
    )
    with postgres() as url:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
        for machine in ("one", "two"):
            done = run_files(base_url, file, agent_id=f"{AGENT},PROJECT-OTHER", label=machine)
            store_results(
                done, open_pipeline("postgres", pipelines_dir=machine, name=PIPELINE_NAME)
            )
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT label, agent_id, count(*) FROM polyai.debug_chats "
                "JOIN polyai.debug_chat_turns USING (agent_id, chat_id) GROUP BY 1, 2 ORDER BY 1, 2"
            )
            rows = cursor.fetchall()
    expected = [(label, agent, 2) for label in ("one", "two") for agent in (AGENT, "PROJECT-OTHER")]
    assert rows == expected


def test_logs_have_plain_lines_and_no_warehouse_is_needed(base_url: str) -> None:
    result = run("debug-chat", str(UNMET), str(BOOKINGS), "--no-warehouse", **access(base_url))
    assert result.returncode == 3
    lines = result.stdout.splitlines()
    assert lines[0].startswith("failed unmet / nothing is as expected: 3 turns, ")
    assert lines[7].startswith("passed bookings / speaks German: 1 turn, ")
    assert f"failed nothing is as expected {UNMET}:4:5" in lines
    assert '    expected  contains "breakfast"' in lines
    assert "    actual    destination: Front desk" in lines
    assert lines[-1].startswith("8 scenarios: 6 passed, 2 failed in ")
    assert not Path("polyai.duckdb").exists()
    assert not Path(".dlt").exists()


def test_a_terminal_shows_a_table(base_url: str) -> None:
    code, shown = run_in_terminal(
        100, "debug-chat", str(UNMET), str(BOOKINGS), "--no-warehouse", **access(base_url)
    )
    lines = [line.rstrip() for line in shown.replace("\r\n", "\n").splitlines()]
    assert code == 3
    header = next(line for line in lines if line.split()[:3] == ["result", "suite", "scenario"])
    row = next(line for line in lines if line.startswith("passed") and "speaks German" in line)
    assert row.index("bookings") == header.index("suite")
    assert '    expected  state booking.guests is "4"' in lines
    assert all(len(line) <= 100 for line in lines if "━" not in line)


def test_each_error_is_one_line(sandbox: Sandbox, base_url: str) -> None:
    file = written(suite_of(a_chat("hi")))
    refused = run("debug-chat", file, "--no-warehouse", "--junit", "results.xml",
                  **access(base_url, api_key="wrong"))  # fmt: skip
    assert refused.returncode == 1
    assert "HTTP 401" in error_of(refused)
    assert JUnitXml.fromfile("results.xml").errors == 1
    sandbox.requests.clear()
    broken = run("debug-chat", file, written("scenarios: 1", "broken.yaml"), **access(base_url))
    assert broken.returncode == 1
    assert error_of(broken).startswith("error: broken.yaml:1:12: scenarios: ")
    assert not sandbox.requests.matching()


@pytest.mark.slow
def test_a_signal_interrupts_the_command_which_stores_its_results_so_far(
    sandbox: Sandbox, base_url: str
) -> None:
    sandbox.faults.add("delay", seconds=0.3)
    file = written(suite_of(a_chat("hi"), *(a_chat(*["hi"] * 9, name=f"s{n}") for n in range(9))))
    process = start("debug-chat", file, "--workers", "1", "--junit", "results.xml",
                    **access(base_url))  # fmt: skip
    wait_until(lambda: started(sandbox) == 2)
    process.send_signal(signal.SIGTERM)
    output, log = process.communicate(timeout=60)
    assert process.returncode == 130, log
    assert "interrupted" in log
    assert "1 passed, 9 skipped" in output
    assert ("a", True) in query("SELECT scenario, passed FROM polyai.debug_chats")
    assert JUnitXml.fromfile("results.xml").skipped == 9


WITHOUT_EXTRA = """
import builtins, sys
original = builtins.__import__
def blocked(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if name.partition(".")[0] in ("yaml", "jsonschema") and importer.startswith("polyai"):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return original(name, globals, locals, fromlist, level)
builtins.__import__ = blocked
from polyai.cli.app import main
main()
"""
"""Runs the command as if the extra were not installed; dlt may import pyyaml."""


def run_without_extra(*arguments: str, **environment: str) -> CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRA, *arguments],
        input="",
        env=os.environ | {"PYTHONPATH": str(Path(polyai.__file__).parents[1])} | environment,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_SECONDS,
        check=False,
    )


@pytest.mark.process
@pytest.mark.matrix
def test_without_the_extra_only_scenario_files_cannot_be_read(base_url: str) -> None:
    refused = run_without_extra("debug-chat", str(BOOKINGS), **access(base_url))
    assert refused.returncode == 1
    assert "pip install 'polyai-warehouse[debug-chats]'" in error_of(refused)
    for arguments in (["--help"], ["debug-chat", "--schema"], ["chat"], ["load"]):
        result = run_without_extra(*arguments, **access(base_url))
        assert result.returncode == 0, (arguments, result.stderr)


def test_only_scenario_files_need_the_packages_of_the_extra() -> None:
    package = Path(polyai.__file__).parent
    importers = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(alias.name for alias in node.names)]
        if name in ("yaml", "jsonschema")
    }
    assert importers == {"debug_chats/document.py", "debug_chats/validation.py"}
