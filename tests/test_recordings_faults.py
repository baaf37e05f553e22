"""Recordings that arrive too short, with wrong lengths, or not as audio: whole runs over HTTP."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from command import AGENT, KEY, access, query, run
from loaded import put_made
from odd_server import Answer, OddServer, Request
from polyai import open_pipeline, resolve
from polyai.load.run import load
from polyai.recordings.report import RecordingsReport
from polyai.recordings.run import PIPELINE_NAME, fetch_recordings
from polyai.recordings.short import call_seconds_sql, is_retry_due, is_short, short_sql
from test_wav import RATE, chunk, encoding, riff

pytestmark = pytest.mark.load

SECONDS = 60
BEGAN = datetime.now(UTC).replace(microsecond=0)
"""Commands use the real time."""


def wav(seconds: float) -> bytes:
    return riff(encoding(), chunk(b"data", b"\1\2" * round(RATE * seconds)))


def audio(body: bytes, **options: Any) -> Answer:
    return Answer(body, headers={"Content-Type": "audio/wav"}, **options)


class Calls:
    """API with finished calls of 60 s, and an answer for the recording of each.

    Attributes:
        recordings: Answers by conversation id; the whole recording by default.
        ended_at: End of the calls.
    """

    def __init__(self, conversation_ids: tuple[str, ...], age: timedelta) -> None:
        self.ended_at = BEGAN - age
        self.recordings: dict[str, Answer] = {}
        self.server = OddServer(self._answer)
        self._rows = {name: self._row(name) for name in conversation_ids}

    def _row(self, conversation_id: str) -> dict[str, Any]:
        started_at = (self.ended_at - timedelta(seconds=SECONDS)).isoformat()
        return {
            "conversationId": conversation_id,
            "agentId": AGENT,
            "channel": "VOICE-SIP",
            "clientEnv": "live",
            "createdAt": started_at,
            "startedAt": started_at,
            "finishedAt": self.ended_at.isoformat(),
            "inProgress": False,
            "duration": SECONDS,
            "totalDuration": SECONDS,
            "polyaiDuration": SECONDS,
        }

    def _answer(self, request: Request) -> Answer:
        path, _, query_ = request.target.partition("?")
        rest = path.partition("/conversations")[2].strip("/").split("/")
        if rest == [""]:
            offset = next((int(x[7:]) for x in query_.split("&") if x.startswith("offset=")), 0)
            rows = list(self._rows.values())[offset:]
            return Answer(
                {"conversations": rows, "count": len(self._rows), "limit": 100, "offset": offset}
            )
        if rest[-1] == "audio":
            return self.recordings.get(rest[0], audio(wav(SECONDS)))
        return Answer(self._rows[rest[0]] | {"turns": [], "metrics": {}, "functionEvents": {}})

    def asked(self) -> int:
        """Returns the number of requests for recordings since the last call of it."""
        found = sum("/audio" in request.target for request in self.server.requests)
        self.server.requests.clear()
        return found

    def environment(self) -> dict[str, str]:
        return access(self.server.url) | {"POLYAI_MAX_ATTEMPTS": "3"}

    def run(self, *options: str) -> tuple[int, dict[str, Any]]:
        """Runs `recordings --json`; its exit code and the report of the agent."""
        result = run("recordings", "--json", *options, **self.environment())
        (agent,) = json.loads(result.stdout)["agents"]
        return result.returncode, agent

    def run_at(self, now: datetime) -> RecordingsReport:
        """Runs `recordings` at a time."""
        settings = resolve(
            agent_id=AGENT, api_key=KEY, base_url=self.server.url, max_attempts=3, workers=2
        )
        (report,) = fetch_recordings(settings, open_pipeline(name=PIPELINE_NAME), clock=lambda: now)
        return report

    def verify(self, *options: str) -> tuple[int, list[tuple[str, str, bool]]]:
        """Runs `recordings verify`; its exit code and findings."""
        result = run("recordings", "verify", "--json", *options, **self.environment())
        found = json.loads(result.stdout)["findings"]
        findings = [
            (one["trouble"], one.get("conversation_id", ""), one["is_mended"]) for one in found
        ]
        return result.returncode, findings


@contextmanager
def loaded_calls(*conversation_ids: str, age: timedelta = timedelta(hours=1)) -> Iterator[Calls]:
    served = Calls(conversation_ids, age)
    with served.server:
        settings = resolve(agent_id=AGENT, api_key=KEY, base_url=served.server.url)
        key = f"calls {conversation_ids} {served.ended_at}"
        put_made(key, lambda pipeline: load(settings, pipeline))
        served.asked()
        yield served


@pytest.fixture
def calls(request: pytest.FixtureRequest) -> Iterator[Calls]:
    """Three loaded calls that ended an hour ago, or as long ago as the parameter says."""
    age = getattr(request, "param", timedelta(hours=1))
    with loaded_calls("CA1", "CA2", "CA3", age=age) as served:
        yield served


def recording(conversation_id: str) -> tuple[Any, ...]:
    """Status, error code, duration and attempts of a recording."""
    ((*facts, uri, sha256),) = query(
        "SELECT status, error_code, duration_seconds, attempts, uri, sha256 "
        f"FROM polyai.recordings WHERE conversation_id = '{conversation_id}'"
    )
    if uri is not None:
        assert sha256 == hashlib.sha256(Path(str(uri)).read_bytes()).hexdigest()
    return tuple(facts)


class TestTheRule:
    @pytest.mark.parametrize(
        ("call", "recording", "expected"),
        [
            (60, 0, True),
            (60, 5, True),
            (60, 29.9, True),
            (60, 30, False),
            (6, 2, True),
            (5, 2, False),
            (3, 0, False),
            (None, 0, False),
            (60, None, False),
        ],
    )
    def test_is_the_same_in_python_and_sql(
        self, call: float | None, recording: float | None, expected: bool
    ) -> None:
        assert is_short(call, recording) is expected
        with duckdb.connect() as connection:
            sql = f"SELECT {short_sql('c', 'r')} FROM (SELECT ?::DOUBLE AS c, ?::DOUBLE AS r)"
            assert connection.execute(sql, [call, recording]).fetchall() == [(expected,)]

    @pytest.mark.parametrize(
        ("columns", "seconds"),
        [
            ((60, 70, 80, False), 60),
            ((None, 70, 80, False), 70),
            ((0, 70, 80, None), 70),
            ((None, None, 80, None), 80),
            ((None, None, 80, True), None),
            ((None, None, None, False), None),
        ],
    )
    def test_compares_with_the_recorded_part_of_the_call(
        self, columns: tuple[Any, ...], seconds: float | None
    ) -> None:
        with duckdb.connect() as connection:
            sql = (
                f"SELECT {call_seconds_sql()} FROM (SELECT ?::DOUBLE AS polyai_duration_seconds, "
                "?::DOUBLE AS duration_seconds, ?::DOUBLE AS total_duration_seconds, "
                "?::BOOLEAN AS handoff)"
            )
            assert connection.execute(sql, columns).fetchall() == [(seconds,)]

    def test_backs_off(self) -> None:
        row: dict[str, Any] = {"attempts": 1, "fetched_at": BEGAN + timedelta(minutes=5)}
        requests, now = [], BEGAN + timedelta(minutes=5)
        while now < BEGAN + timedelta(days=7):
            now += timedelta(minutes=15)
            if is_retry_due(row, BEGAN, now):
                row = {"attempts": row["attempts"] + 1, "fetched_at": now}
                requests.append(now)
        assert requests[1] - requests[0] == timedelta(minutes=15)
        assert 8 <= len(requests) <= 12


class TestARecordingThatIsMuchShorterThanItsCall:
    @pytest.mark.slow
    def test_is_requested_again_until_it_is_whole(self, calls: Calls) -> None:
        calls.recordings = {"CA1": audio(wav(0)), "CA2": audio(wav(5))}
        code, report = calls.run()
        assert (code, report["fetched"], report["short"]) == (0, 3, 2)
        assert recording("CA1") == ("stored", None, 0, 1)
        assert calls.verify() == (3, [("short", "CA1", False), ("short", "CA2", False)])
        assert calls.asked() == 3

        calls.recordings = {"CA1": audio(wav(5))}
        code, report = calls.run()
        assert (code, report["fetched"], report["short"]) == (0, 2, 1)
        assert recording("CA1") == ("stored", None, 5, 2)
        assert recording("CA2") == ("stored", None, 60, 2)
        assert calls.asked() == 2

        calls.recordings.clear()
        calls.run()
        assert recording("CA1") == ("stored", None, 60, 3)
        assert calls.asked() == 1
        calls.run()
        assert calls.asked() == 0
        assert calls.verify() == (0, [])

    @pytest.mark.slow
    def test_is_replaced_by_a_longer_one_only(self) -> None:
        answers = {
            "as-long": audio(wav(5)),
            "broken": Answer({"error_code": "BROKEN"}, status=500),
            "no-wav-file": audio(b"no audio"),
            "not-found": Answer({"error_code": "CONVERSATIONS_RECORDING_NOT_FOUND"}, status=404),
            "shorter": audio(wav(4)),
        }
        with loaded_calls(*answers) as calls:
            calls.recordings = dict.fromkeys(answers, audio(wav(5)))
            calls.run()
            calls.recordings = answers
            calls.run()
            for name in answers:
                assert recording(name) == ("stored", None, 5, 2), name
            code, findings = calls.verify()
        assert (code, sorted(findings)) == (3, [("short", name, False) for name in answers])

    @pytest.mark.matrix
    def test_is_requested_less_and_less_often_for_a_week(self, calls: Calls) -> None:
        calls.recordings = {"CA1": audio(wav(5))}
        for day in range(15):
            assert calls.run_at(calls.ended_at + timedelta(days=day, hours=6)).status == "complete"
        # after 6, 30, 54, 126 and 270 hours; the other two calls once
        assert calls.asked() == 5 + 2
        assert recording("CA1")[:3] == ("stored", None, 5)
        shown = run("recordings", "verify", **calls.environment())
        assert (shown.returncode, "no discrepancies but 1 short" in shown.stdout) == (0, True)
        assert "5.0 s of a call of 60 s" in shown.stdout

    @pytest.mark.slow
    @pytest.mark.parametrize("calls", [timedelta(days=8)], indirect=True)
    def test_of_an_old_call_is_reported_only(self, calls: Calls) -> None:
        calls.recordings = {"CA1": audio(wav(5))}
        calls.run()
        calls.asked()
        calls.run()
        assert calls.asked() == 0
        assert calls.verify() == (0, [("short", "CA1", False)])

    @pytest.mark.matrix
    def test_is_requested_again_by_verify(self, calls: Calls) -> None:
        calls.recordings = {"CA1": audio(wav(5)), "CA2": audio(wav(5))}
        calls.run()
        del calls.recordings["CA1"]
        code, findings = calls.verify("--refetch")
        assert (code, findings) == (3, [("short", "CA1", True), ("short", "CA2", False)])
        assert recording("CA1")[:3] == ("stored", None, 60)

    @pytest.mark.matrix
    def test_of_a_killed_run_is_adopted(self, calls: Calls) -> None:
        calls.recordings = {"CA1": audio(wav(5))}
        calls.run()
        ((uri,),) = query("SELECT uri FROM polyai.recordings WHERE conversation_id = 'CA1'")
        path = Path(str(uri))
        path.with_suffix(".v2.wav").write_bytes(wav(60))
        calls.recordings.clear()
        code, report = calls.run()
        assert (code, report["fetched"]) == (0, 1)
        assert recording("CA1") == ("stored", None, 60, 2)
        assert calls.verify() == (0, [])
        # the first one is kept
        assert path.read_bytes() == wav(5)


@pytest.mark.slow
def test_a_complete_file_with_wrong_lengths_is_stored_and_marked(calls: Calls) -> None:
    whole, odd = wav(60), chunk(b"LIST", b"odd")[:-1]
    calls.recordings = {
        "CA1": audio(riff(encoding(), chunk(b"data", whole[44:]), length=len(whole))),
        "CA2": audio(riff(encoding(), odd, chunk(b"data", whole[44:])), is_chunked=True),
    }
    code, report = calls.run()
    assert (code, report["fetched"], report["mismatched"], report["retries"]) == (0, 3, 2, 0)
    for name in ("CA1", "CA2"):
        assert recording(name) == ("stored", "LENGTH_MISMATCH", 60, 1)
    assert recording("CA3") == ("stored", None, 60, 1)
    calls.asked()
    assert calls.run()[0] == 0
    assert calls.asked() == 0
    assert calls.verify() == (0, [])


@pytest.mark.matrix
def test_a_body_that_breaks_off_is_requested_again(calls: Calls) -> None:
    calls.recordings = {
        name: audio(wav(60), is_chunked=is_chunked, cut=8, then="close")
        for name, is_chunked in (("CA1", False), ("CA2", True))
    }
    code, report = calls.run()
    assert (code, report["failed"], report["fetched"]) == (3, 2, 1)
    assert calls.asked() == 1 + 2 * 3
    for name in calls.recordings:
        assert recording(name)[0] == "failed"
    calls.recordings.clear()
    assert calls.run()[0] == 0
    for name in ("CA1", "CA2"):
        assert recording(name) == ("stored", None, 60, 2)


UNUSABLE = {
    "an HTML page": (b"<html>sign in</html>", "NOT_WAV"),
    "nothing": (b"", "NOT_WAV"),
    "4 GB in 44 bytes": (
        riff(encoding(), chunk(b"data", b"", 0xFFFF_FFFF), length=0xFFFF_FFFF),
        "NO_AUDIO",
    ),
    "half of it": (wav(60)[:400_000], "LENGTH_MISMATCH"),
    "a megabyte after it": (wav(60) + bytes(2**20), "LENGTH_MISMATCH"),
}


class TestAnAnswerThatCannotBeUsed:
    @pytest.mark.slow
    def test_is_recorded_after_one_attempt_and_requested_by_the_next_run(self) -> None:
        unusable = {name.replace(" ", "-"): answer for name, answer in UNUSABLE.items()}
        with loaded_calls(*unusable, "usable") as calls:
            calls.recordings = {name: audio(body) for name, (body, _) in unusable.items()}
            code, report = calls.run()
            assert (code, report["status"]) == (3, "partial")
            assert (report["failed"], report["fetched"]) == (len(unusable), 1)
            assert calls.asked() == len(unusable) + 1
            shown = run("status", **calls.environment()).stdout
            for name, (_, error_code) in unusable.items():
                assert recording(name) == ("failed", error_code, None, 1), name
                assert name in shown
            calls.recordings.clear()
            code, report = calls.run()
            assert (code, report["fetched"], calls.asked()) == (0, len(unusable), len(unusable))
        for name in unusable:
            assert recording(name) == ("stored", None, 60, 2), name

    @pytest.mark.matrix
    def test_is_requested_less_and_less_often_for_a_week(self, calls: Calls) -> None:
        calls.recordings = {"CA1": audio(b"no audio")}
        began = calls.ended_at + timedelta(days=400)
        reports = [calls.run_at(began + timedelta(days=day)) for day in range(11)]
        assert calls.asked() == 3 + 4
        # unproven while it may still appear; then given up, and still a named failure
        assert [report.status for report in reports] == ["partial"] * 9 + ["complete"] * 2
        assert reports[-1].given_up == 1
        assert recording("CA1")[:2] == ("failed", "NOT_WAV")
        assert "CA1" in run("status", **calls.environment()).stdout


@pytest.mark.slow
def test_failed_recordings_in_a_row_come_last_and_keep_no_other_from_being_stored() -> None:
    names = tuple(f"CA{number:03}" for number in range(100))
    stored = "SELECT count(*) FROM polyai.recordings WHERE status = 'stored'"
    with loaded_calls(*names) as calls:
        calls.recordings = {name: audio(wav(60)) for name in names[40:]} | {
            name: Answer({"error_code": "BROKEN"}, status=500) for name in names[:40]
        }
        once = calls.environment() | {"POLYAI_MAX_ATTEMPTS": "1", "POLYAI_WORKERS": "1"}
        assert run("recordings", **once).returncode == 3
        assert query(stored) == [(60,)]
        assert query("SELECT status FROM polyai.sync_runs WHERE command = 'recordings'") == [
            ("partial",)
        ]
        # a recording that is new again is requested before those that failed
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute("DELETE FROM polyai.recordings WHERE conversation_id = 'CA099'")
        next(Path("recordings").rglob("CA099*.wav")).unlink()
        calls.server.requests.clear()
        assert run("recordings", **once).returncode == 3
    asked = [request.target.split("/")[5] for request in calls.server.requests]
    assert asked[0] == "CA099"
    assert set(asked[1:]) >= set(names[:40])
