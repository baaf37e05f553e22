"""Conversations of one agent: pure functions of the seed, the agent, the index and the time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from random import Random
from typing import Any

from . import texts
from .activity import function_events, metrics
from .config import SandboxConfig
from .deployments import Deployments
from .dialogue import dialogue
from .model import Conversation, Summary
from .numbers import own_number
from .oddities import Odd, Oddities
from .timeline import Timeline, to_datetime
from .traits import Outcome, Traits, generator, slots

SCORE_SCALE_CHANGED_AT = datetime(2026, 7, 28, tzinfo=UTC)
"""Conversations created earlier have a PolyScore of 0-10, later ones of 1-5."""
_ENVIRONMENTS = ("live",) * 17 + ("sandbox", "sandbox", "pre-release")
_ALL_ENVIRONMENTS = (*_ENVIRONMENTS, "draft", "test", "scenarios")
_CHANNELS = ("VOICE-SIP",) * 15 + ("WEBCHAT", "WEBCHAT", "CHAT", "SMS", "RCS")
_OUTCOMES: tuple[Outcome, ...] = (
    *("human",) * 7,
    *("menu", "menu", "hangup", "voicemail", "voicemail", "voicemail"),
    *("unavailable", "unavailable", "busy"),
)
_NO_TAGS = {"tags null", "tags missing"}
_NO_TURNS_KEY = {"turns null", "turns missing"}
_NO_METRICS = {"metrics null", "metrics missing"}
_NO_EVENTS = {"events null", "events missing"}
_UNKNOWN_KEYS: dict[str, Any] = {
    "sentiment": "positive",
    "routing": {"queue": "bookings", "skills": ["es", None], "hint": ""},
    "experiment": None,
    "transcriptState": "",
    "hops": 2,
}


class World:
    """Generator of an agent's conversations; stores none of them."""

    def __init__(self, config: SandboxConfig, agent_id: str) -> None:
        self.agent_id = agent_id
        self._config = config
        self._oddities = Oddities(config)
        self._environments = _ALL_ENVIRONMENTS if config.all_environments else _ENVIRONMENTS
        self._deployments = Deployments(config, agent_id)
        self._hash = blake2b(f"{config.seed}/{agent_id}".encode(), digest_size=32)

    def traits(self, index: int) -> Traits:
        """Returns the traits of conversation `index`."""
        hashed = self._hash.copy()
        hashed.update(index.to_bytes(8, "big"))
        draw = hashed.digest()
        channel = _CHANNELS[draw[14] % len(_CHANNELS)]
        conversation_id = self._conversation_id(index, draw, channel)
        outcome = _OUTCOMES[draw[17] % 16] if conversation_id.startswith("OUT-") else None
        is_abandoned = draw[17] % 12 == 0 if outcome is None else outcome not in ("human", "menu")
        topic = draw[16] % len(texts.TOPICS)
        wants_human = texts.TOPICS[topic].name == "complaint" or draw[18] % 12 == 0
        length = draw[19] * draw[20] // 256
        return Traits(
            conversation_id=conversation_id,
            environment=self._environments[draw[13] % len(self._environments)],
            channel=channel,
            language=texts.LANGUAGES[draw[15] % len(texts.LANGUAGES)],
            topic=topic,
            variant=draw[21] % 4,
            outcome=outcome,
            is_abandoned=is_abandoned,
            is_handed_off=wants_human and not is_abandoned,
            total_seconds=4 + length // 16 if is_abandoned else 35 + length * 3 // 2,
            jitter=draw[22],
            entropy=int.from_bytes(draw[23:32], "big"),
        )

    def _conversation_id(self, index: int, draw: bytes, channel: str) -> str:
        kind, mark = draw[12], draw[:12].hex()
        if kind >= 250 and self._config.oddities:
            return f"acme/2026 100%/{index:08x}"
        if channel != "VOICE-SIP":
            return f"AS_CHAT_{mark}{index:08x}"
        if kind < 35:
            parts = mark[:8], mark[8:12], mark[12:16], mark[16:20], f"{mark[20:]}{index:08x}"
            return f"LOCAL-{'-'.join(parts)}"
        if kind < 65:
            return f"OUT-{mark}{index:08x}"
        return f"{'KA' if kind < 80 else 'CA'}{mark}{index:08x}"

    def index(self, conversation_id: str) -> int | None:
        """Index of a conversation id; None if it is not one of this agent's."""
        try:
            index = int(conversation_id[-8:], 16)
        except ValueError:
            return None
        if index < 0 or self.traits(index).conversation_id != conversation_id:
            return None
        return index

    def created_at(self, index: int, timeline: Timeline) -> datetime:
        """Creation time of conversation `index`."""
        return to_datetime(timeline.created(index, self.traits(index).jitter))

    def finished_at(self, index: int, timeline: Timeline) -> datetime:
        """Past or future end of conversation `index`."""
        traits = self.traits(index)
        return to_datetime(timeline.created(index, traits.jitter)) + traits.duration

    def head(self, index: int, timeline: Timeline, now: datetime) -> Conversation:
        """Generates the listed fields of conversation `index`: no turns, metrics or events."""
        traits, odd, config = self.traits(index), self._oddities.of(index), self._config
        rng = generator(traits.entropy)
        created_at = to_datetime(timeline.created(index, traits.jitter))
        end = created_at + traits.duration
        done = end <= now
        variant_id: Any = 7 if "variant not text" in odd else traits.variant_id
        language: Any = traits.language
        if "language unknown" in odd:
            language = None
        elif "language not text" in odd:
            language = ["en-US", "cy"]
        outbound = traits.outcome is not None
        own = own_number(config, self.agent_id, traits.environment)
        sides = _numbers(odd, rng, own)
        from_number, to_number = sides[::-1] if outbound else sides
        handed_off = traits.is_handed_off and done
        reason: Any = rng.choice(texts.HANDOFF_REASONS)
        if "handoff reason not text" in odd:
            reason = {"code": reason, "attempt": 2}
        destination = rng.choice(texts.DESTINATIONS)
        total = traits.total_seconds if done else int((now - created_at).total_seconds())
        polyai = float(max(1, round(total * 0.8)) if traits.is_handed_off else total)
        if "durations with fractions" in odd:
            polyai -= 0.5
        has_recording = not traits.is_chat and rng.random() < 0.92 and traits.is_reached
        tagged = rng.sample(texts.TAGS, k=rng.choice((0, 0, 0, 0, 1, 1, 2, 3)))
        note = _note(rng, end, now)
        return Conversation(
            index=index,
            conversation_id=traits.conversation_id,
            agent_id=self.agent_id,
            account_id=config.account_id,
            region=config.region,
            project_id="harbour-bookings" if "other project id" in odd else self.agent_id,
            channel=None if "channel unknown" in odd else traits.channel,
            direction=None
            if "direction unknown" in odd
            else ("outbound" if outbound else "inbound"),
            environment=traits.environment,
            language=language,
            variant_id=variant_id,
            variant_name=traits.variant_name,
            deployment_id=None
            if "deployment unknown" in odd
            else self._deployments.id_at(traits.environment, created_at),
            from_number=from_number,
            to_number=to_number,
            created_at=created_at,
            started_at=None if "start unknown" in odd else created_at,
            finished_at=end if done else None,
            duration_seconds=None if "duration unknown" in odd else float(total),
            total_duration_seconds=float(total),
            polyai_duration_seconds=polyai,
            in_progress=None if "progress unknown" in odd and done else not done,
            handoff=None if "handoff unknown" in odd and not handed_off else handed_off,
            handoff_destination=destination if handed_off else None,
            handoff_reason=reason if handed_off else None,
            poly_score=_poly_score(rng, traits, created_at, end, now),
            summary=_summary(rng, traits, odd, created_at, end, now),
            note=note,
            audio_url=_audio_url(traits, odd) if has_recording and done else None,
            tags=None if odd & _NO_TAGS else tuple(tagged if done else ()),
            state={"topic": texts.TOPICS[traits.topic].name, "attempts": 1 + traits.jitter % 3},
            turns=(),
            turn_count=0,
            silence_count=0,
            ood_count=0,
            metrics=(),
            function_events=(),
            extra=_UNKNOWN_KEYS if "unknown in conversation" in odd else {},
        )

    def conversation(self, index: int, timeline: Timeline, now: datetime) -> Conversation:
        """Generates conversation `index` at the time `now`."""
        traits, odd = self.traits(index), self._oddities.of(index)
        head = self.head(index, timeline, now)
        rng = generator(traits.entropy ^ 1)
        small = self._config.detail == "small"
        turns = dialogue(head, traits, rng, odd, now, small=small)
        events = function_events(head, traits, turns, rng, odd, now)
        return replace(
            head,
            turns=None
            if odd & _NO_TURNS_KEY
            else (() if self._config.withhold_transcripts or "no turns" in odd else turns),
            turn_count=len(turns),
            silence_count=sum(turn.is_silence is True for turn in turns),
            ood_count=sum(turn.is_ood is True for turn in turns),
            metrics=None
            if odd & _NO_METRICS
            else metrics(head, traits, len(turns), rng, odd, now, small=small),
            function_events=None if odd & _NO_EVENTS else events,
        )

    def has_recording(self, index: int, timeline: Timeline, now: datetime) -> bool:
        """Checks whether conversation `index` has a recording."""
        return self.head(index, timeline, now).audio_url is not None


def _numbers(odd: Odd, rng: Random, own: str) -> tuple[str | None, str | None]:
    """Numbers of the caller and of the agent."""
    caller: str | None = f"+1{202 + rng.randrange(60)}55501{rng.randrange(100):02}"
    if "caller by e-mail" in odd:
        caller = f"guest{rng.randrange(500)}@example.com"
    elif "caller by SIP" in odd:
        caller = "sip:frontdesk@pbx.example.com"
    elif "caller unknown" in odd:
        caller = None
    return caller, "polyai" if "callee polyai" in odd else own


def _poly_score(
    rng: Random, traits: Traits, created_at: datetime, end: datetime, now: datetime
) -> float | None:
    share, delay = rng.random(), timedelta(seconds=60 + rng.randrange(540))
    if traits.is_abandoned or share < 0.15 or end + delay > now:
        return None
    if created_at < SCORE_SCALE_CHANGED_AT:
        return round(share * 20) / 2
    return float(1 + int(share**0.6 * 4.999))


def _summary(
    rng: Random, traits: Traits, odd: Odd, created_at: datetime, end: datetime, now: datetime
) -> Summary | None:
    delay = timedelta(seconds=30 + rng.randrange(270))
    # webchat has no summaries
    if traits.is_abandoned or traits.channel == "WEBCHAT" or end + delay > now:
        return None
    topic = texts.TOPICS[traits.topic]
    words = slots(traits, created_at)
    content = topic.summary.format(**words)
    if "summary as text" in odd:
        return Summary(None, content)
    extra = {"confidence": 0.93, "model": None}
    has_extra = "summary with extra" in odd
    return Summary(topic.heading, content, extra if has_extra else {})


def _note(rng: Random, end: datetime, now: datetime) -> str | None:
    share, delay = rng.random(), timedelta(minutes=30 + rng.randrange(2880))
    return rng.choice(texts.NOTES) if share < 0.08 and end + delay <= now else None


def _audio_url(traits: Traits, odd: Odd) -> str:
    path = f"conversations/{traits.conversation_id}/audio"
    absolute = "audio URL absolute" in odd
    return f"https://recordings.example.com/{path}" if absolute else path
