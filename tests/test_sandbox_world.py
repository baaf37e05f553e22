"""Data of the sandbox: realistic, deterministic, with all observed deviations."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyai.sandbox import Annotation, Sandbox, SandboxConfig
from polyai.sandbox.timeline import Timeline
from polyai.tables.registry import conversation_tables
from warehouse_rows import columns_of_api

pytestmark = pytest.mark.unit

AGENT = "PROJECT-BOOKINGS"
NOW = datetime(2026, 11, 1, tzinfo=UTC)
SCALE_CHANGED = "2026-07-28"
Detail = dict[str, Any]


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(SandboxConfig(conversations=2000, inventions=True))


@pytest.fixture(scope="module")
def details(sandbox: Sandbox) -> list[Detail]:
    return [sandbox.detail(AGENT, one) for one in sandbox.conversation_ids(AGENT)]


@pytest.fixture(scope="module")
def truth(sandbox: Sandbox) -> list[dict[str, list[dict[str, Any]]]]:
    return list(sandbox.truth(AGENT))


def turns(detail: Detail) -> list[Any]:
    return detail.get("turns") or []


def events(detail: Detail) -> list[Any]:
    return [e for group in (detail.get("functionEvents") or {}).values() for e in group]


def metrics(detail: Detail) -> list[Any]:
    return list((detail.get("metrics") or {}).values())


def reviews(detail: Detail) -> list[Any]:
    return [review for turn in turns(detail) for review in turn.get("reviews") or []]


def within(part: Callable[[Detail], list[Any]], test: Callable[[Any], bool]) -> Any:
    return lambda detail: any(test(item) for item in part(detail))


def texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_in(item)


def has_text(pattern: str) -> Callable[[Detail], bool]:
    search = re.compile(pattern).search
    return lambda detail: any(search(text) for text in texts_in(detail))


def is_scored(detail: Detail, least: float, most: float, *, early: bool) -> bool:
    score = detail.get("polyScore")
    is_early = detail["createdAt"] < SCALE_CHANGED
    return score is not None and is_early is early and least <= score <= most


ODDITIES: dict[str, Callable[[Detail], bool]] = {
    "summary is an object": lambda d: isinstance(d.get("shortSummary"), dict),
    "summary is text": lambda d: isinstance(d.get("shortSummary"), str),
    "summary is null": lambda d: "shortSummary" in d and d["shortSummary"] is None,
    "summary has another key": lambda d: "confidence" in (d.get("shortSummary") or ()),
    "latency is an object": within(turns, lambda t: isinstance(t.get("latency"), dict)),
    "latency is a number": within(turns, lambda t: isinstance(t.get("latency"), float)),
    "latency is null": within(turns, lambda t: "latency" in t and t["latency"] is None),
    "latency is missing": within(turns, lambda t: "latency" not in t),
    "metric is a list with times": within(
        metrics, lambda m: isinstance(m, list) and bool(m) and "timestamp" in (m[0] or ())
    ),
    "metric is text": within(metrics, lambda m: isinstance(m, str)),
    "metric is a list of texts": within(
        metrics, lambda m: isinstance(m, list) and len(m) > 1 and isinstance(m[0], str)
    ),
    "metric is a number": within(metrics, lambda m: isinstance(m, int) and m is not True),
    "metric is a boolean": within(metrics, lambda m: m is True),
    "metric is null": within(metrics, lambda m: m is None),
    "metric is an object": within(metrics, lambda m: isinstance(m, dict)),
    "metric value is an object": within(
        metrics,
        lambda m: (
            isinstance(m, list) and any(isinstance((i or {}).get("value"), dict) for i in m)
            if isinstance(m, list) and all(isinstance(i, dict) for i in m)
            else False
        ),
    ),
    "metric list is empty": within(metrics, lambda m: m == []),
    "metric names differ in case": lambda d: (
        len({name.lower() for name in d.get("metrics") or ()}) < len(d.get("metrics") or ())
    ),
    "metric name has a space and a colon": lambda d: (
        "Booking value: EUR" in (d.get("metrics") or ())
    ),
    "metric times have no zone": lambda d: any(
        not re.search(r"Z$|\+00:00$", item["timestamp"])
        for series in metrics(d)
        if isinstance(series, list)
        for item in series
        if isinstance(item, dict) and "timestamp" in item
    ),
    "turns are empty": lambda d: d.get("turns") == [],
    "is_ood is null": within(turns, lambda t: "is_ood" in t and t["is_ood"] is None),
    "is_ood is missing": within(turns, lambda t: "is_ood" not in t),
    "is_ood is true": within(turns, lambda t: t.get("is_ood") is True),
    "is_silence is true": within(turns, lambda t: t.get("is_silence") is True),
    "intents are missing": within(turns, lambda t: "intents" not in t),
    "entities are missing": within(turns, lambda t: "entities" not in t),
    "entities are an object": within(turns, lambda t: isinstance(t.get("entities"), dict)),
    "entity has several values": within(
        turns,
        lambda t: (
            isinstance(t.get("entities"), list)
            and any(isinstance(value, list) for e in t["entities"] for value in e.values())
        ),
    ),
    "reviews are null": within(turns, lambda t: "reviews" in t and t["reviews"] is None),
    "metadata is missing": within(turns, lambda t: "metadata" not in t),
    "metadata is null": within(turns, lambda t: "metadata" in t and t["metadata"] is None),
    "topics are joined": within(
        turns,
        lambda t: any("," in i for i in (t.get("metadata") or {}).get("retrieved_topics", ())),
    ),
    "turn_id is large": within(turns, lambda t: t["turn_id"] > 2**53),
    "time has an offset": lambda d: bool(re.search(r"\.\d{6}\+00:00$", d["createdAt"])),
    "time has a Z": lambda d: d["createdAt"].endswith("Z"),
    "time has no zone": lambda d: bool(re.search(r"T[\d:.]+$", d["createdAt"])),
    "event time is RFC 1123": within(events, lambda e: e["start_time"].endswith(" GMT")),
    "event time is ISO 8601": within(events, lambda e: e["start_time"].endswith("+00:00")),
    "caller is an e-mail address": lambda d: "@example.com" in (d.get("fromNumber") or ""),
    "caller is a SIP name": lambda d: (d.get("fromNumber") or "").startswith("sip:"),
    "callee is polyai": lambda d: d["toNumber"] == "polyai",
    "U+0000 in a tag": lambda d: any("\0" in str(tag) for tag in d.get("tags") or ()),
    "U+0000 in a metric value": within(metrics, lambda m: any("\0" in t for t in texts_in(m))),
    "U+0000 in a transcript": within(turns, lambda t: "\0" in t["agent_response"]),
    "U+0000 in a key": within(turns, lambda t: any("\0" in k for k in t.get("metadata") or ())),
    "U+0000 alone": lambda d: "\0" in [d.get("note"), d.get("language")],
    "emoji": has_text("🙏🏽"),
    "right-to-left text": has_text(r"[\u0600-\u06ff]"),
    "transcript of 1 MB": within(turns, lambda t: len(t["user_input"] or "") >= 1_000_000),
    "unknown scalar in a conversation": lambda d: d.get("sentiment") == "positive",
    "unknown object in a conversation": lambda d: isinstance(d.get("routing"), dict),
    "unknown null in a conversation": lambda d: "experiment" in d,
    "unknown in a turn": within(
        turns, lambda t: {"asr_confidence", "emotion", "speaker"} <= set(t)
    ),
    "unknown in an event": within(events, lambda e: {"retries", "trace", "cost"} <= set(e)),
    "unknown in a review": within(reviews, lambda r: {"severity", "resolvedAt"} <= set(r)),
    "unknown in a handoff": within(events, lambda e: "sip" in (e.get("handoff") or ())),
    "empty text for null": lambda d: d.get("note") == "",
    "early score of 0-10": lambda d: is_scored(d, 5.5, 10, early=True),
    "early half score": lambda d: is_scored(d, 0, 10, early=True) and d["polyScore"] % 1 == 0.5,
    "late score of 1-5": lambda d: is_scored(d, 1, 5, early=False),
    "id with slash, space and percent": lambda d: d["conversationId"].startswith("acme/2026 100%/"),
    "id of a local call": lambda d: d["conversationId"].startswith("LOCAL-"),
    "id of an outbound call": lambda d: d["conversationId"].startswith("OUT-"),
    "id of a chat": lambda d: d["conversationId"].startswith("AS_CHAT_"),
    "duration as text": lambda d: isinstance(d.get("duration"), str),
    "event duration as text": within(events, lambda e: isinstance(e["duration"], str)),
    "event duration with a fraction": within(events, lambda e: isinstance(e["duration"], float)),
    "handoff reason is an object": lambda d: isinstance(d.get("handoffReason"), dict),
    "another project id": lambda d: d["projectId"] != AGENT,
    "in progress": lambda d: d.get("inProgress") is True and d.get("finishedAt") is None,
    "finished": lambda d: d.get("inProgress") is False,
}


@pytest.mark.slow
@pytest.mark.parametrize("key", ["turns", "tags", "metrics", "functionEvents", "language", "note"])
def test_optional_keys_are_null_or_missing(key: str, details: list[Detail]) -> None:
    assert any(key in detail and detail[key] is None for detail in details)
    assert any(key not in detail for detail in details)


@pytest.mark.parametrize("occurs", ODDITIES.values(), ids=ODDITIES.keys())
def test_every_oddity_occurs_in_2000(
    occurs: Callable[[Detail], bool], details: list[Detail]
) -> None:
    assert any(occurs(detail) for detail in details)


def test_without_oddities_payloads_are_as_documented() -> None:
    plain = Sandbox(SandboxConfig(conversations=400, oddities=False))
    for one in plain.conversation_ids(AGENT):
        detail = plain.detail(AGENT, one)
        assert re.fullmatch(r"(CA|KA|LOCAL-|OUT-|AS_CHAT_)[0-9a-f-]+", one)
        assert isinstance(detail["turns"], list)
        assert isinstance(detail["shortSummary"], dict | None)
        assert detail["createdAt"].endswith("+00:00")
        assert not any("\0" in text for text in texts_in(detail))
        assert all(isinstance(series, list) for series in metrics(detail))


CHANNELS = {"VOICE-SIP", "CHAT", "WEBCHAT", "SMS", "RCS"}
Check = Callable[[Detail], bool]
ACCEPTED: dict[str, Check] = {
    "durations are integers": lambda d: all(
        type(d[name]) is int for name in ("duration", "totalDuration", "polyaiDuration")
    ),
    "tags are a list of texts": lambda d: (
        isinstance(d["tags"], list) and all(isinstance(tag, str) for tag in d["tags"])
    ),
    "reason and variant are text or null": lambda d: (
        isinstance(d["handoffReason"], str | None) and isinstance(d["variantId"], str | None)
    ),
    "channel is known": lambda d: d["channel"] in CHANNELS,
    "metrics are lists of text with times": lambda d: all(
        isinstance(sample["value"], str) and sample["timestamp"]
        for series in d["metrics"].values()
        for sample in series
    ),
    "event durations are integers": lambda d: all(type(e["duration"]) is int for e in events(d)),
    "outbound calls have ids of their own": lambda d: (
        (d["direction"] == "outbound") is d["conversationId"].startswith("OUT-")
    ),
    "webchats have no summary": lambda d: d["channel"] != "WEBCHAT" or d["shortSummary"] is None,
}
"""Properties that PolyAI's own clients rely on, and how channels and ids go together."""


@pytest.fixture(scope="module")
def plain() -> list[Detail]:
    found = Sandbox(SandboxConfig(conversations=600, oddities=False))
    return [found.detail(AGENT, one) for one in found.conversation_ids(AGENT)]


@pytest.mark.parametrize("accepts", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_without_oddities_polyais_own_clients_accept_all(
    accepts: Check, plain: list[Detail]
) -> None:
    assert [d["conversationId"] for d in plain if not accepts(d)] == []


def test_channels_and_kinds_of_ids_all_occur(plain: list[Detail]) -> None:
    assert {detail["channel"] for detail in plain} == CHANNELS
    prefixes = ("CA", "KA", "LOCAL-", "OUT-", "AS_CHAT_")
    assert {p for p in prefixes for d in plain if d["conversationId"].startswith(p)} == {*prefixes}


def test_outbound_calls_have_the_metrics_of_the_platform() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=3000, oddities=False))
    seen: dict[str, set[tuple[str, ...]]] = {}
    for one in sandbox.conversation_ids(AGENT):
        if not one.startswith("OUT-"):
            continue
        detail = sandbox.detail(AGENT, one)
        for name, series in detail["metrics"].items():
            values = tuple(sample["value"] for sample in series)
            seen.setdefault(name, set()).add(values)
        is_connected = "CALL_CONNECTED" in detail["metrics"]
        assert is_connected or (detail["turns"], detail["audioUrl"]) == ([], None)
        if is_connected and not detail["inProgress"]:
            assert detail["turns"]
    assert seen["OUTBOUND_CALL_STATUS"] == {("Success",), ("Unavailable",), ("Busy",)}
    assert seen["OUTBOUND_CALL_SIP_CODE"] == {("200",), ("480",), ("486",)}
    assert seen["CALL_ANSWERED_BY"] >= {("HUMAN",), ("VOICEMAIL",), ("IVR", "HUMAN")}
    assert {"CALL_COMPLETED", "USER_HANGUP", "AI_ONLY_CALL_DURATION"} <= set(seen)


@pytest.mark.slow
def test_inventions_occur_only_where_they_are_asked_for() -> None:
    config = SandboxConfig(conversations=2000)
    found = Sandbox(config)
    details = [found.detail(AGENT, one) for one in found.conversation_ids(AGENT)]
    assert any(detail["conversationId"].startswith("acme/") for detail in details)
    for detail in details:
        assert isinstance(detail["tags"], list)
        assert not {"sentiment", "routing"} & set(detail)
        assert isinstance(detail.get("handoffReason"), str | None)
        assert type(detail["polyaiDuration"]) is int
        assert not any("\0" in text for text in texts_in(detail))


def test_a_detail_has_about_16_kb(details: list[Detail]) -> None:
    sizes = [len(orjson.dumps(detail)) for detail in details]
    assert 13_000 < sum(sizes) / len(sizes) < 19_000


def test_small_details_have_one_turn() -> None:
    small = Sandbox(SandboxConfig(conversations=200, detail="small", oddities=False))
    found = [small.detail(AGENT, one) for one in small.conversation_ids(AGENT)]
    done = [detail for detail in found if not detail["inProgress"]]
    assert {len(detail["turns"]) for detail in done} == {1}
    assert all(detail["turns"][0]["llm_requests"] == [] for detail in done)
    assert max(len(orjson.dumps(detail)) for detail in found) < 5_000


def test_truth_has_every_computed_column_and_no_unknown_one(
    truth: list[dict[str, list[dict[str, Any]]]],
) -> None:
    added_by_load = {"fetched_at", "summary_hash", "valid_from", "valid_to"}
    for table in conversation_tables():
        declared = {c.name for c in table.columns if not c.name.startswith("_")} - added_by_load
        rows = [row for rows in truth for row in rows[table.name]]
        assert rows
        computed = declared - columns_of_api(table)
        assert all(computed <= set(row) <= declared for row in rows)


def test_truth_keys_are_unique(truth: list[dict[str, list[dict[str, Any]]]]) -> None:
    for table in conversation_tables():
        names = ["agent_id", "conversation_id", *table.key]
        keys = [
            tuple(row[name] for name in names if name in row)
            for rows in truth
            for row in rows[table.name]
        ]
        assert len(keys) == len(set(keys)), table.name


def test_truth_contains_neither_nul_nor_empty_text(
    truth: list[dict[str, list[dict[str, Any]]]],
) -> None:
    for rows in truth:
        for row in (row for table in rows.values() for row in table):
            assert not any("\0" in text for text in texts_in(list(row.values())))
            assert "" not in row.values()


def test_agents_and_seeds_have_different_conversations() -> None:
    config = SandboxConfig(conversations=50, agents=("A", "B"), oddities=False)
    one, other = Sandbox(config), Sandbox(SandboxConfig(50, seed=2, agents=("A",), oddities=False))
    first, second = set(one.conversation_ids("A")), set(one.conversation_ids("B"))
    assert len(first) == len(second) == 50
    assert not first & second
    assert not first & set(other.conversation_ids("A"))


def test_the_same_seed_gives_the_same_data(sandbox: Sandbox, details: list[Detail]) -> None:
    again = Sandbox(sandbox.config)
    ids = list(again.conversation_ids(AGENT))
    assert ids == [detail["conversationId"] for detail in details]
    assert [again.detail(AGENT, one) for one in ids[:300]] == details[:300]


def test_ids_resolve_to_their_index(sandbox: Sandbox) -> None:
    ids = list(sandbox.conversation_ids(AGENT))
    assert len(set(ids)) == 2000
    assert [sandbox.find(AGENT, one) for one in ids] == list(range(1999, -1, -1))
    for unknown in ("", "CA", "nothing", "CA" + "0" * 32, "-0000001", ids[0][:-1] + "x"):
        assert sandbox.find(AGENT, unknown) is None


@given(
    conversations=st.integers(0, 300),
    days=st.integers(0, 50),
    steps=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 40)), max_size=4),
    jitter=st.integers(0, 255),
)
def test_creation_times_are_monotonic(
    conversations: int, days: int, steps: list[tuple[int, int]], jitter: int
) -> None:
    timeline = Timeline.spread(conversations, NOW, timedelta(days=days))
    clock = int(NOW.timestamp()) * 1_000_000
    for length, count in steps:
        timeline = timeline.extended(count, clock, length)
        clock += length
    assert timeline.count == conversations + sum(count for _, count in steps)
    times = [timeline.created(index, jitter) for index in range(timeline.count)]
    assert all(before <= after for before, after in pairwise(times))
    assert all(moment <= clock for moment in times)


def test_creation_times_cover_the_span_and_include_bursts(
    truth: list[dict[str, list[dict[str, Any]]]],
) -> None:
    created = [rows["conversations"][0]["created_at"] for rows in truth]
    assert created == sorted(created, reverse=True)
    assert NOW - timedelta(days=120) < created[-1] < NOW - timedelta(days=118)
    assert NOW - timedelta(minutes=3) < created[0] <= NOW
    assert len(set(created)) < len(created)


def test_arrivals_at_a_constant_rate_stay_one_stretch() -> None:
    timeline = Timeline()
    for step in range(1000):
        timeline = timeline.extended(3, step * 3000, 3000)
    assert len(timeline.stretches) == 1
    assert timeline.count == 3000


@pytest.mark.slow
def test_late_data_appears_as_time_advances() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=1, oddities=False))
    sandbox.advance(timedelta(seconds=1), arrivals=200)
    new = list(islice(sandbox.conversation_ids(AGENT), 200))

    def current() -> list[Detail]:
        return [sandbox.detail(AGENT, one) for one in new]

    def count(part: Callable[[Detail], Any]) -> int:
        return sum(bool(part(detail)) for detail in current())

    def csat(detail: Detail) -> bool:
        return "CSAT_SCORE" in detail["metrics"]

    assert count(lambda d: d["inProgress"] and d["finishedAt"] is None) == 200
    at_start = sum(len(turns(detail)) for detail in current())
    sandbox.advance(timedelta(seconds=30))
    assert sum(len(turns(detail)) for detail in current()) > at_start
    sandbox.advance(timedelta(minutes=8))
    assert count(lambda d: d["inProgress"]) == 0
    summaries, surveys = count(lambda d: d["shortSummary"]), count(csat)
    assert surveys > 0
    sandbox.advance(timedelta(minutes=30))
    assert count(csat) > surveys
    assert count(lambda d: d["shortSummary"]) >= summaries > 0
    assert count(lambda d: d["polyScore"]) > 0
    assert count(reviews) == count(lambda d: d["note"]) == 0
    sandbox.advance(timedelta(days=4))
    assert count(reviews) > 0
    assert count(lambda d: d["note"]) > 0


def test_edits_appear_in_payloads_and_truth() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=50, oddities=False))
    chosen = next(
        rows["conversations"][0]["conversation_id"]
        for rows in sandbox.truth(AGENT)
        if len(rows["turns"]) > 3
    )
    made = Annotation("user", "wrong_transcript", "no", "qa@example.com", NOW)
    sandbox.edit(
        AGENT,
        chosen,
        note="later",
        tags=["a", "b"],
        poly_score=2.0,
        summary="short",
        extra={"late": 1},
        metrics={"LATE": "7"},
        annotations=[(1, made)],
        keep_turns=2,
    )
    detail = sandbox.detail(AGENT, chosen)
    assert (detail["note"], detail["tags"], detail["polyScore"]) == ("later", ["a", "b"], 2.0)
    assert detail["late"] == 1
    assert detail["metrics"]["LATE"] == [{"timestamp": "2026-11-01T00:00:00", "value": "7"}]
    assert len(detail["turns"]) == 2
    assert detail["turns"][1]["reviews"][-1]["annotationType"] == "wrong_transcript"
    rows = next(r for r in sandbox.truth(AGENT) if r["notes"] and r["notes"][0]["note"] == "later")
    assert rows["annotations"][-1]["annotated_by"] == "qa@example.com"
    assert rows["conversations"][0]["num_turns"] == 2
    sandbox.edit(AGENT, chosen, withhold_turns=True, note=None)
    assert sandbox.detail(AGENT, chosen)["turns"] == []
    assert sandbox.detail(AGENT, chosen)["note"] is None
    with pytest.raises(KeyError):
        sandbox.edit(AGENT, "unknown", note="x")


def test_transcripts_can_be_withheld_for_all_conversations() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=20, oddities=False, withhold_transcripts=True))
    assert all(sandbox.detail(AGENT, one)["turns"] == [] for one in sandbox.conversation_ids(AGENT))
    assert not any(rows["turns"] for rows in sandbox.truth(AGENT))


def test_deletions_leave_no_gaps_in_listings() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=30))
    ids = list(sandbox.conversation_ids(AGENT))
    for position in (0, 7, 8, 29, 15):
        sandbox.delete(AGENT, ids[position])
    rest = [one for position, one in enumerate(ids) if position not in (0, 7, 8, 29, 15)]
    assert list(sandbox.conversation_ids(AGENT)) == rest
    for offset in range(len(rest) + 2):
        listed = [sandbox.traits(AGENT, i).conversation_id for i in sandbox.listed(AGENT, offset)]
        assert listed == rest[offset:]
    with pytest.raises(KeyError):
        sandbox.delete(AGENT, ids[0])


def test_a_million_conversations_take_little_memory() -> None:
    tracemalloc.start()
    sandbox = Sandbox(SandboxConfig(conversations=1_000_000, detail="small"))
    assert sandbox.count(AGENT) == 1_000_000
    for offset in (0, 500_000, 999_990):
        assert (
            len([sandbox.head(AGENT, i) for i in islice(sandbox.listed(AGENT, offset), 10)]) == 10
        )
    oldest = next(iter(sandbox.listed(AGENT, 999_999)))
    assert oldest == 0
    assert sandbox.detail(AGENT, sandbox.traits(AGENT, oldest).conversation_id)
    assert len(list(islice(sandbox.truth(AGENT), 100))) == 100
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000
