"""Faults of single conversations: each is recorded for its conversation, and all others are loaded.

A run of failures is told from an outage, and a refused conversation from a refused key, by asking
for another conversation.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import duckdb
import pytest

from command import AGENT, KEY
from loaded import put_loaded
from odd_server import Answer, OddServer, Request
from peak_memory import needs_peak_memory
from polyai import open_pipeline, resolve
from polyai.api.client import DataApi
from polyai.api.outage import OUTAGE_AFTER
from polyai.load import batch_shaper
from polyai.load.report import RunReport
from polyai.load.run import load
from polyai.load.stale_details import DISTANCES
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.shape import answer as answers_
from polyai.shape.shaping import shape
from warehouse_rows import assert_equals_truth, from_duckdb

pytestmark = pytest.mark.load

Json = dict[str, Any]

DETAIL = r"/conversations/[^/?]+$"
LIST_PAGE = r"/conversations\?"


class Site:
    """Served sandbox whose calls have all ended, and loads from it at the time of its clock."""

    def __init__(self, sandbox: Sandbox, base_url: str) -> None:
        self.sandbox = sandbox
        self.base_url = base_url

    @property
    def oldest_first(self) -> list[str]:
        """Ids of all conversations."""
        return list(self.sandbox.conversation_ids(AGENT))[::-1]

    def break_details(
        self, conversation_ids: Iterable[str], status: int, error_code: str = "BROKEN"
    ) -> None:
        """Adds a permanent fault of these conversations."""
        for conversation_id in conversation_ids:
            path = re.escape(quote(conversation_id, safe="")) + "$"
            self.sandbox.faults.add("status", path=path, status=status, error_code=error_code)

    def load(
        self, *, full: bool = False, pipelines_dir: str | None = None, **options: object
    ) -> RunReport:
        """Runs a load, after clearing the recorded requests of earlier ones."""
        self.sandbox.requests.clear()
        settings = resolve(
            agent_id=AGENT,
            api_key=KEY,
            base_url=self.base_url,
            **({"max_attempts": 1} | options),
        )
        (report,) = load(
            settings,
            open_pipeline(pipelines_dir=pipelines_dir),
            full=full,
            clock=lambda: self.sandbox.now,
        )
        return report


LATER = timedelta(days=60)


@pytest.fixture
def site() -> Iterator[Site]:
    sandbox = Sandbox(SandboxConfig(conversations=100, inventions=True, seed=5))
    sandbox.advance(LATER)
    with serve(sandbox) as base_url:
        yield Site(sandbox, base_url)


def query(sql: str, *parameters: object) -> list[tuple[Any, ...]]:
    with duckdb.connect("polyai.duckdb", read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(sql, parameters).fetchall()


def loaded() -> set[str]:
    return {row[0] for row in query("SELECT conversation_id FROM polyai.conversations")}


def open_failures() -> set[str]:
    return {
        row[0]
        for row in query(
            "SELECT conversation_id FROM polyai.fetch_failures WHERE resolved_at IS NULL"
        )
    }


def position(ids: Sequence[str], wanted: str) -> int:
    return next(place for place, path in enumerate(ids) if path.endswith(quote(wanted, safe="")))


class TestRunsOfFailures:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("first", "bad"), [(0, 50), pytest.param(30, 25, marks=pytest.mark.matrix)]
    )
    def test_failed_conversations_in_a_row_are_recorded_and_the_others_loaded(
        self, site: Site, first: int, bad: int
    ) -> None:
        ids = site.oldest_first
        broken = ids[first : first + bad]
        site.break_details(broken, 500)
        report = site.load()
        assert (report.status, report.failed, report.new) == ("partial", bad, 100 - bad)
        assert loaded() == set(ids) - set(broken)
        assert open_failures() == set(broken)
        # a probe after every OUTAGE_AFTER failures, and nothing more
        probes = site.sandbox.requests.count("/conversations") - 100 - 3
        assert probes <= 2 * (bad // OUTAGE_AFTER)

    @pytest.mark.matrix
    def test_known_failures_are_asked_last_and_keep_nothing_new_from_being_loaded(
        self, site: Site
    ) -> None:
        broken = site.oldest_first[-30:]
        site.break_details(broken, 500)
        site.load()
        site.sandbox.advance(arrivals=5)
        report = site.load(lookback="90d")
        assert (report.status, report.failed, report.new) == ("partial", 30, 5)
        asked = site.sandbox.requests.paths(DETAIL)
        new = set(site.oldest_first[-5:])
        assert max(position(asked, name) for name in new) < len(asked) - 30
        assert loaded() == set(site.oldest_first) - set(broken)
        assert query("SELECT DISTINCT attempts FROM polyai.fetch_failures") == [(2,)]
        site.sandbox.faults.clear()
        assert site.load().status == "complete"
        assert loaded() == set(site.oldest_first)

    @pytest.mark.slow
    def test_an_outage_stops_the_run_and_the_next_one_is_complete(self, site: Site) -> None:
        site.sandbox.faults.add("status", path=DETAIL, status=503)
        report = site.load()
        assert (report.status, report.failed) == ("failed", OUTAGE_AFTER)
        site.sandbox.faults.clear()
        assert site.load().status == "complete"
        assert loaded() == set(site.oldest_first)


class TestRefusals:
    def test_a_refused_conversation_is_recorded_and_the_others_loaded(self, site: Site) -> None:
        refused = site.oldest_first[:1] + site.oldest_first[40:65]
        site.break_details(refused, 403)
        report = site.load()
        assert (report.status, report.failed, report.new) == ("partial", 26, 74)
        assert open_failures() == set(refused)
        assert query("SELECT DISTINCT http_status, error_code FROM polyai.fetch_failures") == [
            (403, "BROKEN")
        ]
        report = site.load()
        assert (report.status, report.failed) == ("partial", 26)

    def test_the_key_is_refused_if_every_conversation_is(self, site: Site) -> None:
        site.sandbox.faults.add("status", path=DETAIL, status=403)
        report = site.load(workers=2)
        assert report.status == "failed"
        assert "permission" in str(report.error)
        assert "403" in str(report.error)

    @pytest.mark.slow
    def test_a_key_that_expires_meanwhile_stops_the_run_at_once(self, site: Site) -> None:
        site.break_details(site.oldest_first[50:], 401)
        report = site.load()
        assert report.status == "failed"
        assert "401" in str(report.error)
        assert open_failures() == set()
        site.sandbox.faults.clear()
        assert site.load().status == "complete"
        assert loaded() == set(site.oldest_first)


class Gateway:
    """Proxy for a sandbox that edits documents on their way.

    Args:
        base_url: URL of the sandbox.
        edit: Returns the document to answer, for the path and the decoded document.
    """

    def __init__(self, base_url: str, edit: Callable[[str, Json], Json]) -> None:
        self._base_url = base_url
        self._edit = edit
        self.details: Counter[str] = Counter()

    def __call__(self, request: Request) -> Answer:
        headers = {"X-API-KEY": request.headers["x-api-key"]}
        onward = urllib.request.Request(self._base_url + request.target, headers=headers)  # noqa: S310
        with urllib.request.urlopen(onward) as response:  # noqa: S310
            document = json.loads(response.read())
        if "/conversations" not in request.target:  # the names behind ids
            return Answer(document)
        if "conversationId" in document:
            self.details[document["conversationId"]] += 1
        edited = self._edit(request.target, document)
        return Answer(edited if isinstance(edited, bytes) else json.dumps(edited).encode())


@contextmanager
def edited(site: Site, edit: Callable[[str, Json], Json]) -> Iterator[Gateway]:
    """Puts a gateway before the sandbox."""
    gateway, behind = Gateway(site.base_url, edit), site.base_url
    with OddServer(gateway) as server:
        site.base_url = server.url
        yield gateway
    site.base_url = behind


class TestOddAnswers:
    @pytest.mark.slow
    def test_whatever_shaping_raises_is_recorded_and_the_others_are_loaded(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        errors = dict(
            zip(
                site.oldest_first[10:90:20],
                (RecursionError(), OverflowError(), UnicodeError(), KeyError("+441234567890")),
            )
        )

        def odd_shape(answers: Sequence[answers_.Answer], **options: Any) -> Any:
            for answer in answers:
                if answer.conversation_id in errors:
                    raise errors[answer.conversation_id]
            return shape(answers, **options)

        monkeypatch.setattr(batch_shaper, "shape", odd_shape)
        for attempts in (1, 2):
            report = site.load()
            assert (report.status, report.failed) == ("partial", 4)
            assert loaded() == set(site.oldest_first) - set(errors)
            recorded = query(
                "SELECT conversation_id, error_code, attempts, message FROM polyai.fetch_failures"
            )
            assert {row[:3] for row in recorded} == {
                (name, type(error).__name__, attempts) for name, error in errors.items()
            }
            # an error can quote the answer
            assert not [row for row in recorded if "1234567890" in row[3]]
        monkeypatch.setattr(batch_shaper, "shape", shape)
        assert site.load().status == "complete"
        assert loaded() == set(site.oldest_first)
        assert_equals_truth(site.sandbox, AGENT, from_duckdb())

    @pytest.mark.slow
    @pytest.mark.parametrize("pii", ["keep", pytest.param("hash", marks=pytest.mark.matrix)])
    def test_values_that_are_nested_deeply_concern_their_conversation(
        self, site: Site, pii: str
    ) -> None:
        ids = site.oldest_first
        odd = dict(zip(ids, (60, 200, 400, 600, 800, 990, 1_100, 20_000)))
        in_lists = dict(zip(ids[20:], (1, 500, 990, 20_000)))

        def edit(target: str, document: Json) -> Any:
            name = document.get("conversationId", "")
            if around := in_lists.get(name):
                return b"[" * around + json.dumps(document).encode() + b"]" * around
            levels = odd.get(name)
            if levels is None or not document.get("turns"):
                return document
            marked = json.dumps(document | {"deep": "HERE"})
            return marked.replace('"HERE"', "[" * levels + "]" * levels).encode()

        with edited(site, edit):
            report = site.load(pii=pii, pii_secret="a secret of some length")
            assert report.status == "partial"
            assert loaded() | open_failures() == set(ids)
            assert set(in_lists) <= set(ids) - loaded() <= set(odd) | set(in_lists)
            again = site.load(pii=pii, pii_secret="a secret of some length")
            assert again.new == 0

    @pytest.mark.matrix
    def test_details_with_another_form_of_their_id_are_recorded(self, site: Site) -> None:
        odd = site.oldest_first[:30]

        def edit(target: str, document: Json) -> Json:
            name = document.get("conversationId")
            return document | {"conversationId": name.swapcase()} if name in odd else document

        with edited(site, edit):
            for attempts in (1, 2):
                report = site.load()
                assert (report.status, report.failed) == ("partial", 30)
                assert loaded() == set(site.oldest_first) - set(odd)
                assert open_failures() == set(odd)
                assert query("SELECT DISTINCT attempts FROM polyai.fetch_failures") == [(attempts,)]
        assert site.load().status == "complete"
        assert loaded() == set(site.oldest_first)

    @pytest.mark.slow
    def test_a_failure_carries_what_support_asks_for(self, site: Site) -> None:
        site.break_details(site.oldest_first[:1], 500)
        site.load()
        ((message, status, code, error_id),) = query(
            "SELECT message, http_status, error_code, error_id FROM polyai.fetch_failures"
        )
        assert (status, code) == (500, "BROKEN")
        assert all(fact in message for fact in ("HTTP 500", "error_code BROKEN", error_id))

    @pytest.mark.slow
    def test_a_failure_has_no_personal_data_where_pii_is_dropped(self, site: Site) -> None:
        site.break_details(site.oldest_first[:1], 400, "no caller +442079460018")
        report = site.load(pii="drop")
        ((code, message),) = query("SELECT error_code, message FROM polyai.fetch_failures")
        assert code == "no caller [dropped]"
        assert code in message
        assert "7946" not in f"{message} {report.failures}"


class TestStaleDetails:
    @pytest.mark.slow
    def test_one_is_read_again_until_it_agrees_with_its_list_row(self, site: Site) -> None:
        put_loaded(site.sandbox.config, LATER)
        chosen = site.oldest_first[-1]
        old = self.detail(site, chosen)
        site.sandbox.edit(AGENT, chosen, note="call back", poly_score=5.0, tags=["late"])

        def lag(target: str, document: Json) -> Json:
            is_old = document.get("conversationId") == chosen and gateway.details[chosen] == 1
            return old if is_old else document

        with edited(site, lag) as gateway:
            report = site.load()
            assert (report.status, report.failed) == ("partial", 1)
            assert list(report.failures) == [chosen]
            assert self.values(chosen) == (old["note"], old["polyScore"])
            # the state is in the warehouse alone
            report = site.load(pipelines_dir="another machine")
            assert (report.status, report.failed, report.changed) == ("complete", 0, 1)
            assert self.values(chosen) == ("call back", 5.0)
            assert site.load().fetched == 0
        assert gateway.details[chosen] == 2
        assert open_failures() == set()
        assert_equals_truth(site.sandbox, AGENT, from_duckdb())

    @pytest.mark.matrix
    def test_it_is_found_also_outside_of_the_look_back_window(self, site: Site) -> None:
        put_loaded(site.sandbox.config, LATER)
        chosen = site.oldest_first[0]
        old = self.detail(site, chosen)
        site.sandbox.edit(AGENT, chosen, note="call back", tags=["late"])
        with edited(
            site,
            lambda target, document: (
                old
                if document.get("conversationId") == chosen and gateway.details[chosen] < 3
                else document
            ),
        ) as gateway:
            statuses = [site.load(lookback="90d").status]
            statuses += [site.load().status for _ in range(3)]
        assert statuses == ["partial", "partial", "complete", "complete"]
        assert gateway.details[chosen] == 3
        assert self.values(chosen) == ("call back", old["polyScore"])

    @pytest.mark.matrix
    def test_one_that_never_agrees_is_read_a_bounded_number_of_times(self, site: Site) -> None:
        put_loaded(site.sandbox.config, LATER)
        chosen = site.oldest_first[-1]
        old = self.detail(site, chosen)
        site.sandbox.edit(AGENT, chosen, note="call back")
        statuses = []
        with edited(
            site,
            lambda target, document: old if document.get("conversationId") == chosen else document,
        ) as gateway:
            for distance in (timedelta(0), *DISTANCES, timedelta(days=9)):
                if distance == DISTANCES[-1]:
                    # not before its time
                    statuses.append(site.load(settle_after="0s").status)
                site.sandbox.advance(distance)
                statuses.append(site.load(settle_after="0s").status)
        assert statuses == ["partial"] * 6 + ["complete", "partial", "complete"]
        assert gateway.details[chosen] == len(DISTANCES) + 1
        assert open_failures() == set()
        recorded = query("SELECT error_code, attempts, message FROM polyai.fetch_failures")
        assert [row[:2] for row in recorded] == [("STALE_DETAIL", len(DISTANCES) + 1)]
        assert "note" in recorded[0][2]

    @pytest.mark.matrix
    def test_a_removed_note_that_the_detail_still_has_is_stale(self, site: Site) -> None:
        chosen = site.oldest_first[-1]
        site.sandbox.edit(AGENT, chosen, note="old", tags=["old"])
        site.load()
        old = self.detail(site, chosen)
        site.sandbox.edit(AGENT, chosen, note=None, tags=[])
        with edited(
            site,
            lambda target, document: (
                old
                if document.get("conversationId") == chosen and gateway.details[chosen] == 1
                else document
            ),
        ) as gateway:
            assert [site.load().status for _ in range(2)] == ["partial", "complete"]
        assert self.values(chosen)[0] is None

    def detail(self, site: Site, conversation_id: str) -> Json:
        """Requests a detail, as the API answers now."""
        (agent,) = resolve(agent_id=AGENT, api_key=KEY, base_url=site.base_url).agents
        with DataApi(agent) as api:
            return api.conversation(conversation_id)

    def values(self, conversation_id: str) -> tuple[Any, ...]:
        (row,) = query(
            "SELECT note, poly_score FROM polyai.conversations WHERE conversation_id = ?",
            conversation_id,
        )
        return row


class TestSummaryHash:
    @pytest.mark.slow
    def test_signed_urls_and_the_order_of_tags_are_no_change(self, site: Site) -> None:
        for conversation_id in site.oldest_first:
            site.sandbox.edit(AGENT, conversation_id, tags=["a", "b", "c"])

        def shuffle(target: str, document: Json) -> Json:
            for row in document.get("conversations", [document]):
                signature = random.random()
                row["audioUrl"] = f"https://cdn.example/{row['conversationId']}?sig={signature}"
                row["tags"] = random.sample(row["tags"], len(row["tags"]))
            return document

        with edited(site, shuffle):
            site.load()
            report = site.load(full=True)
            assert (report.status, report.changed, report.fetched) == ("complete", 0, 0)
            site.sandbox.edit(AGENT, site.oldest_first[0], tags=["a", "b"])
            assert site.load(full=True).changed == 1


_LARGE = """
import sys
sys.path[:0] = {path!r}
from peak_memory import peak_megabytes
from polyai import open_pipeline, resolve
from polyai.load.run import load
settings = resolve(agent_id="{agent}", api_key="key", base_url=sys.argv[1])
(report,) = load(settings, open_pipeline())
assert report.status == "complete", report.error
print(report.new, peak_megabytes())
"""


class TestMemory:
    @needs_peak_memory
    @pytest.mark.matrix
    def test_conversations_of_a_megabyte_take_no_more_memory_than_usual_ones(self) -> None:
        count, words = 500, random.Random(1)
        rows = [
            {
                "conversationId": f"CA{number:04}",
                "createdAt": f"2026-08-{1 + number // 24:02}T{number % 24:02}:00:00Z",
            }
            for number in range(count)
        ]
        turns = [
            {"user_input": "".join(words.choices("abcdefgh ", k=10_000)), "agent_response": "yes"}
            for _ in range(100)
        ]

        def script(request: Request) -> Answer:
            path, _, parameters = request.target.partition("?")
            if parameters:
                limit, offset = (int(one.partition("=")[2]) for one in parameters.split("&")[:2])
                page = rows[::-1][offset : offset + limit]
                return Answer(
                    {"conversations": page, "count": count, "limit": limit, "offset": offset}
                )
            (row,) = (row for row in rows if path.endswith(row["conversationId"]))
            return Answer({**row, "turns": turns})

        with OddServer(script) as server:
            ended = subprocess.run(
                [sys.executable, "-c", _LARGE.format(agent=AGENT, path=sys.path), server.url],
                capture_output=True,
                text=True,
                check=True,
            )
        new, megabytes = map(int, ended.stdout.split())
        assert new == count
        assert megabytes < 400
        assert query("SELECT count(*) FROM polyai.turns") == [(count * 100,)]


class TestInProgress:
    @pytest.mark.slow
    def test_conversations_that_stay_in_progress_are_read_less_and_less_often(
        self, site: Site
    ) -> None:
        stuck = set(site.oldest_first[::5])

        def unended(target: str, document: Json) -> Json:
            for one in document.get("conversations", [document]):
                if one.get("conversationId") in stuck:
                    one |= {"inProgress": True, "finishedAt": None}
            return document

        with edited(site, unended) as gateway:
            site.load()
            fetched = []
            for distance in (6, 2, 1):
                site.sandbox.advance(timedelta(days=distance))
                fetched.append(site.load(settle_after="0s").fetched)
        # a week after the last read
        assert fetched == [0, len(stuck), 0]
        assert {gateway.details[name] for name in stuck} == {2}


class TestReFetchAgesAfterAnUpgrade:
    @pytest.mark.matrix
    def test_what_had_passed_a_new_age_before_is_not_read_again(self, site: Site) -> None:
        site.load(settle_after="1h,24h,7d")
        # everything ended more than 30 days ago, and was read before it was 30 days old
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute(
                "UPDATE polyai.conversations SET fetched_at = finished_at + INTERVAL 8 DAY"
            )
        report = site.load()
        assert (report.status, report.fetched) == ("complete", 0)
        # the same without recorded runs, as in a pipeline of the user
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute("DELETE FROM polyai.sync_runs")
            connection.execute(
                "UPDATE polyai.conversations SET fetched_at = ? WHERE conversation_id = ?",
                [site.sandbox.now, site.oldest_first[0]],
            )
        assert site.load().fetched == 0

    @pytest.mark.matrix
    def test_what_crosses_it_from_then_on_is_read_once(self, site: Site) -> None:
        site.sandbox.advance(arrivals=10)
        site.load(settle_after="1h,24h,7d")
        site.sandbox.advance(timedelta(days=8))
        site.load(settle_after="1h,24h,7d")
        site.sandbox.advance(timedelta(days=23))
        assert [site.load().fetched for _ in range(2)] == [10, 0]


class TestLateReviews:
    @pytest.mark.matrix
    @pytest.mark.parametrize("count", [46])
    def test_all_of_a_year_arrive(self, count: int) -> None:
        """Default settings and a nightly load; the list does not show reviews.

        Most nights are skipped, which only makes fewer reads: each conversation is read at its
        arrival, and after the ages of 24 hours, 7 and 30 days.
        """
        sandbox = Sandbox(SandboxConfig(conversations=1, inventions=True, seed=5))
        sandbox.advance(timedelta(days=60))
        draw = random.Random(1)
        calls = [368 // count * number for number in range(count)]
        nights = sorted({call + age for call in calls for age in (0, 2, 8, 32)})
        due: dict[int, str] = {}
        reviewed = night = 0
        with serve(sandbox) as base_url:
            site = Site(sandbox, base_url)
            for tonight in nights:
                while night < tonight:
                    night += 1
                    sandbox.advance(timedelta(days=1))
                    if conversation_id := due.pop(night, None):
                        sandbox.annotate(AGENT, conversation_id, [(0, "user", "wrong_info")])
                        reviewed += 1
                if night in calls:
                    sandbox.advance(arrivals=1)
                    later = night + draw.randint(10, 25)
                    while later in due:
                        later -= 1
                    due[later] = site.oldest_first[-1]
                assert site.load().status == "complete"
        assert (reviewed, due) == (count, {})
        assert_equals_truth(sandbox, AGENT, from_duckdb())
