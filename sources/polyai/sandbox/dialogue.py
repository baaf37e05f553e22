"""Turns of a conversation."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random
from typing import Any

from . import texts
from .model import Annotation, Conversation, Turn
from .oddities import Odd
from .traits import Traits, slots

HUGE_TRANSCRIPT_CHARACTERS = 1_000_000
_UNKNOWN_KEYS: dict[str, Any] = {
    "asr_confidence": 0.87,
    "emotion": {"label": "calm"},
    "speaker": None,
}
_ANNOTATION_TYPES = (
    "missing_topic",
    "wrong_transcript",
    "wrong_info",
    "good_response",
    "bad_response",
)
"""Kinds of reviews in Agent Studio; the API adds the first three only."""
_PROMPT = (
    "You are the assistant of the Harbour Hotel. Answer briefly and politely, in the language of "
    "the caller. Never invent availability: call a function. Hand over to a person when asked to. "
    "The restaurant opens from 18:00 to 22:30, the kitchen closes at 21:45. Rooms from 128 euros, "
    "breakfast included; the garage costs 15 euros a night. Bookings can be changed or cancelled "
    "without a fee until noon of the day before. Confirm names and dates before you book."
)
_FUNCTIONS = [
    {"name": name, "strict": True}
    for name in ("create_booking", "update_booking", "cancel_booking", "save_number")
]


class Line:
    """Exchange without times."""

    __slots__ = ("agent", "english", "is_misheard", "is_silence", "node", "topic", "user")

    def __init__(
        self,
        exchange: texts.Exchange,
        english: texts.Exchange,
        node: str,
        topic: texts.Topic | None = None,
        *,
        is_silence: bool = False,
        is_misheard: bool = False,
    ) -> None:
        self.user, self.agent = exchange
        self.english = english
        self.node = node
        self.topic = topic
        self.is_silence = is_silence
        self.is_misheard = is_misheard


def script(traits: Traits, rng: Random, *, small: bool) -> list[Line]:
    """Generates the exchanges of a conversation, in order."""
    book, english = texts.PHRASEBOOKS[traits.language[:2]], texts.ENGLISH
    topic = texts.TOPICS[traits.topic]
    lines = [Line(("", book.greeting), ("", english.greeting), "")]
    wants_more, silent, misheard = rng.random() < 0.3, rng.random() < 0.2, rng.random() < 0.25
    disturbed = rng.randrange(3)
    if small:
        exchange = book.topics[topic.name][0]
        return [Line(exchange, english.topics[topic.name][0], topic.name, topic)]
    if traits.is_abandoned:
        return lines
    subjects = [topic]
    if wants_more and not traits.is_handed_off:
        subjects.append(texts.TOPICS[(traits.topic + 1) % 5])
    for subject in subjects:
        pairs = zip(book.topics[subject.name], english.topics[subject.name], strict=True)
        for number, (exchange, translation) in enumerate(pairs):
            if subject is topic and number == disturbed:
                if silent:
                    quiet = ("", book.silence), ("", english.silence)
                    lines.append(Line(*quiet, subject.name, is_silence=True))
                if misheard:
                    pair = book.misheard, english.misheard
                    lines.append(Line(*pair, subject.name, is_misheard=True))
            lines.append(Line(exchange, translation, subject.name, subject))
    if traits.is_handed_off:
        lines[-1].agent = book.transfer
        lines[-1].english = (lines[-1].english[0], english.transfer)
    else:
        lines.append(Line(book.goodbye, english.goodbye, "goodbye"))
    return lines


def dialogue(
    head: Conversation, traits: Traits, rng: Random, odd: Odd, now: datetime, *, small: bool
) -> tuple[Turn, ...]:
    """Generates the turns up to `now`, with the annotations made by then."""
    if not traits.is_reached and not small:
        return ()
    index = head.index
    words = slots(traits, head.created_at)
    lines = script(traits, rng, small=small)
    pace = traits.total_seconds / (len(lines) + 0.5)
    first_id = (9_007_199_254_740_993 if "huge turn id" in odd else 743_000_000) + index * 64
    has_flags = not ("flags null" in odd or "flags missing" in odd)
    has_metadata = not ("metadata null" in odd or "metadata missing" in odd)
    is_english = traits.language.startswith("en")
    audio = None if traits.is_chat else f"conversations/{head.conversation_id}/turns"
    reviews = _reviews(head, traits, rng, len(lines), odd, now)
    turns: list[Turn] = []
    for number, line in enumerate(lines):
        seconds, barges, delay = rng.random(), rng.random(), rng.random()
        user_at = head.created_at + timedelta(seconds=round(pace * (number + 0.3 * seconds), 6))
        latency = round(0.5 + 4.5 * delay**3, 6)
        if user_at > now:
            break
        user = line.user.format(**words) or None
        if line is lines[-1] and not small:
            user = _last_input(user, odd)
        agent = line.agent.format(**words)
        latency_seconds, latency_object = _latency(latency, odd)
        has_entities = line.topic is not None and bool(user) and "entities missing" not in odd
        entities = _entities(line, words, odd) if has_entities else None
        topics = _topics(line, "topics joined" in odd)
        intents = (line.topic.intent, "PROVIDE_DETAILS")[: 1 + number % 2] if line.topic else None
        translated = user if is_english or not user else line.english[0].format(**words)
        turns.append(
            Turn(
                turn_id=first_id + number,
                user_input=user,
                user_input_at=user_at,
                agent_response=agent,
                agent_response_at=user_at + timedelta(seconds=latency),
                latency_seconds=latency_seconds,
                latency=latency_object,
                barge_in=barges < 0.1,
                is_ood=line.is_misheard if has_flags else None,
                is_silence=line.is_silence if has_flags else None,
                user_input_dtmf="5" if barges > 0.96 else None,
                asr_lang_code=traits.language if user else None,
                tts_lang_code=traits.language if number else None,
                translated_user_input=None if is_english else translated,
                english_agent_response=None if is_english else line.english[1].format(**words),
                user_input_audio_url=f"{audio}/{number}/audio" if audio and user else None,
                current_node=line.node or None if has_metadata else None,
                topics=topics if has_metadata else (),
                intents=None if "intents missing" in odd else intents,
                entities=entities,
                entities_as_object="entities as object" in odd,
                llm_requests=[]
                if small
                else _llm_requests(number, user, user_at, agent, latency, line.node, topics),
                metadata=_metadata(line, user, topics, small=small) if has_metadata else None,
                annotations=tuple(reviews.get(number, ())),
                extra=_extra(number, odd),
            )
        )
    return tuple(turns)


def _last_input(user: str | None, odd: Odd) -> str | None:
    if "huge transcript" in odd:
        return "la la la " * (HUGE_TRANSCRIPT_CHARACTERS // 9 + 1)
    return f"{user} 🙏🏽👍" if user and "emoji" in odd else user


def _latency(seconds: float, odd: Odd) -> tuple[float | None, dict[str, Any] | None]:
    if "latency number" in odd:
        return seconds, None
    if "latency null" in odd or "latency missing" in odd:
        return None, None
    perceived = None if "latency incomplete" in odd else seconds
    label = "slow" if seconds > 3 else None
    return perceived, {
        "label": label,
        "perceived_latency": perceived,
        "perceived_latency_percentile_1d": None,
    }


def _topics(line: Line, is_joined: bool) -> tuple[str, ...]:
    if line.topic is None:
        return ()
    retrieved = line.topic.retrieved
    return (", ".join(retrieved) + ",",) if is_joined else retrieved


def _entities(line: Line, words: dict[str, str], odd: Odd) -> tuple[tuple[str, Any], ...]:
    """Entities that the phrase mentions: names with a value or a list of values."""
    found: list[tuple[str, Any]] = []
    if "{name}" in line.user:
        found.append(("person_name", words["name"].split(" ", 1)))
    found.extend((name, words[name]) for name in ("date", "time") if f"{{{name}}}" in line.user)
    if "{guests}" in line.user:
        guests = words["guests"]
        found.append(("guests", int(guests) if "entity as number" in odd else guests))
    return tuple(found)


def _metadata(
    line: Line, user: str | None, topics: tuple[str, ...], *, small: bool
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "asr_corrected_user_input": "" if small else (user or "")[:200],
        "current_node": line.node,
        "entities": [],
        "function_events": [],
        "retrieved_topics": list(topics),
        "safety": {"filters_triggered": {"provider": "azure"}},
        "top_transcripts": [],
    }
    if small:
        return document
    heard = (user or "")[:200]
    document["top_transcripts"] = [
        {"intents": [], "text": text} for text in (heard, heard.lower(), heard[::2]) if text
    ]
    return document


def _llm_requests(
    number: int,
    user: str | None,
    user_at: datetime,
    agent: str,
    latency: float,
    node: str,
    topics: tuple[str, ...],
) -> list[dict[str, Any]]:
    asked_at = user_at + timedelta(milliseconds=40)
    prompt_tokens, completion_tokens = 380 + 40 * number, len(agent) // 4
    return [
        {
            "cited_topics": list(topics[:1]),
            "completion_tokens": completion_tokens,
            "cached_tokens": 256 * bool(number),
            "finish_reason": "stop",
            "first_chunk_timestamp": _stamp(asked_at, latency * 0.4),
            "flow_metadata": {
                "step": node,
                "prompt": _PROMPT,
                "input": (user or "")[:400],
                "output": agent,
                "functions": _FUNCTIONS,
            },
            "model_id": "raven-2",
            "prompt_tokens": prompt_tokens,
            "request_timestamp": _stamp(asked_at, 0),
            "response_timestamp": _stamp(asked_at, latency * 0.7),
            "total_tokens": prompt_tokens + completion_tokens,
            "turn_number": str(number + 1),
        }
    ]


def _stamp(moment: datetime, seconds: float) -> str:
    return (moment + timedelta(seconds=seconds)).isoformat(timespec="microseconds")


def llm_request_id(index: int, turn_index: int) -> str:
    """Returns the id of a turn's only LLM request."""
    return f"{index:08x}-0000-4000-8000-{turn_index:012x}"


def _reviews(
    head: Conversation, traits: Traits, rng: Random, turns: int, odd: Odd, now: datetime
) -> dict[int, list[Annotation]]:
    """Generates annotations by turn index, made hours after the call."""
    share, where = rng.random(), rng.randrange(turns)
    moments = [rng.randrange(1, 72), rng.randrange(1, 72)]
    reviews: dict[int, list[Annotation]] = {}
    if share > 0.08 or head.finished_at is None:
        return reviews
    for number, hours in enumerate(sorted(moments)[: 1 + traits.jitter % 2]):
        annotated_at = head.finished_at + timedelta(hours=hours)
        if annotated_at > now:
            continue
        kind = _ANNOTATION_TYPES[(traits.topic + number) % len(_ANNOTATION_TYPES)]
        reason = texts.BAD_RESPONSE_REASONS[traits.jitter % len(texts.BAD_RESPONSE_REASONS)]
        reviews.setdefault(where, []).append(
            Annotation(
                role="user" if kind == "wrong_transcript" else "agent",
                annotation_type=kind,
                comment="The date is wrong" if number else None,
                annotated_by=f"qa{traits.variant}@example.com",
                annotated_at=annotated_at,
                reason=reason if kind == "bad_response" else None,
                extra={"severity": {"level": 2}, "reviewId": 17 + number, "resolvedAt": None}
                if "unknown in review" in odd
                else {},
            )
        )
    return reviews


def _extra(number: int, odd: Odd) -> dict[str, Any]:
    known = {"user_input_dtmf_finish_key": "#" if number == 3 else ""}
    return known | _UNKNOWN_KEYS if "unknown in turn" in odd else known
