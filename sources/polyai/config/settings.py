"""What a run is told: from options, the environment and dlt's own configuration, checked once.

Each setting is looked up in this order, the first one given wins, and an empty one counts as not
given:

1. options passed to `resolve`, None for those not given
2. `POLYAI_<NAME>` in the environment
3. dlt's configuration of `sources.polyai.<name>`: `SOURCES__POLYAI__<NAME>`, `.dlt/secrets.toml`,
   `.dlt/config.toml` and the vaults that dlt knows

Several agents are named in `agent_id`, separated by commas, or stand in `[[sources.polyai.agents]]`
tables of `.dlt/secrets.toml`. What a table says about its agent goes before the environment and
the shared settings, only options go before it; `agent_id` picks among the tables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import dlt

from ..errors import ConfigurationError
from . import regions
from .time_zones import DEFAULT_ZONE, time_zone
from .validators import boolean, choice, duration, durations, folder, number, several, text

Api = Literal["data", "conversations_v3"]
Pii = Literal["keep", "hash", "drop"]
Transcripts = Literal["keep", "drop"]

ENVIRONMENTS = ("live", "sandbox", "pre-release")
"""Where PolyAI's agents answer; the Conversations API v3 lists one of them at a time."""

DIRECTIONS = ("combined", "user", "agent")
"""Whose voices a recording can hold."""

SECTION = "sources.polyai"
"""Where dlt's configuration keeps the settings."""

SECRET_NAMES = frozenset({"api_key", "v3_api_key", "agents", "pii_secret"})
"""Settings that are read as secrets, so that dlt keeps them out of its traces; never shown."""

AGENT_NAMES = (
    "agent_id",
    "api_key",
    "region",
    "account_id",
    "base_url",
    "v3_base_url",
    "v3_api_key",
)
"""Settings that each agent can have of its own."""

_PAGE_SIZES: Mapping[Api, int] = {"data": 100, "conversations_v3": 1000}
"""What is asked for where nothing is set."""


@dataclass(frozen=True)
class Agent:
    """One PolyAI agent and the way to its APIs.

    Attributes:
        agent_id: `PROJECT-…` or the slug from a Studio URL.
        api_key: the key for this agent in its region; never in a repr or a message.
        region: one of `us`, `eu`, `uk`, `studio`.
        account_id: `ws-…` or the slug; only the Conversations API v3 needs it.
        base_url: of the Data API, without a slash at its end.
        v3_base_url: of the Conversations API v3; None where the region has none.
        v3_api_key: its own key, where it is another one; never in a repr or a message.

    Raises:
        ConfigurationError: for an id or a key that no request can carry.
    """

    agent_id: str
    api_key: str = field(repr=False)
    region: str
    account_id: str | None
    base_url: str
    v3_base_url: str | None
    v3_api_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not self.agent_id or not self.agent_id.isprintable() or set(self.agent_id) & set(" /?#"):
            raise ConfigurationError(f"{self.agent_id!r} is no agent id. {how_to_set('agent_id')}")
        # http headers are latin-1: a key with a typographic quote or a line break is a copying slip
        for name, key in (("api_key", self.api_key), ("v3_api_key", self.v3_api_key or "none")):
            if not key or not key.isprintable() or max(key) > "\xff":
                raise ConfigurationError(
                    f"the {name} of agent {self.agent_id} is empty or has characters that no key "
                    f"has; copy it again, without quotes and line breaks. {how_to_set(name)}"
                )


@dataclass(frozen=True)
class Settings:
    """All settings of a run, checked.

    Attributes:
        agents: at least one, each id once.
        api: which API lists the conversations.
        details: read each conversation's detail too, where the listing is that of v3.
        environments: those that are listed, where the listing is that of v3.
        workers: requests in flight at once.
        lookback: how far behind the newest held conversation a sweep goes on.
        settle_after: ages after its end at which a conversation is read again, ascending.
        give_up_after: age of a failure from which on it is not tried again, but by a full load.
        lock_wait: how long to wait for another run that loads the same.
        chunk_size: conversations in a load package.
        page_size: rows asked for in a page of the listing; v3 gives 1,000 at most.
        uncertain_wait: how long a request whose answer was lost can be under way still.
        recordings_url: fsspec URL or folder for audio.
        directions: whose voices a recording holds, each a file of its own.
        redacted: fetch recordings in which personal data is blanked out, or the raw ones.
        recordings_wait: how long after its end a conversation is asked for a recording.
        pii: what happens to phone numbers and e-mail addresses.
        pii_secret: key of the hash, empty where none is given; never in a repr or a message.
        transcripts: whether the words that were said are kept.
        reporting_time_zone: IANA name of the zone of local dates in the views.
        publish_to: folder into which a DuckDB warehouse is copied for readers; None for none.
        request_timeout: seconds to wait for the next bytes of an answer.
        max_attempts: how often a request is tried.
    """

    agents: tuple[Agent, ...]
    api: Api
    details: bool
    environments: tuple[str, ...]
    workers: int
    lookback: timedelta
    settle_after: tuple[timedelta, ...]
    give_up_after: timedelta
    lock_wait: timedelta
    chunk_size: int
    page_size: int
    uncertain_wait: timedelta
    recordings_url: str
    directions: tuple[str, ...]
    redacted: bool
    recordings_wait: timedelta
    pii: Pii
    pii_secret: str = field(repr=False)
    transcripts: Transcripts
    reporting_time_zone: str
    publish_to: Path | None
    request_timeout: float
    max_attempts: int

    def only(self, agent_ids: Sequence[str]) -> Settings:
        """The same settings for these agents alone; for all of them where none is named.

        Raises:
            ConfigurationError: for an agent that is not configured.
        """
        known = {agent.agent_id: agent for agent in self.agents}
        if unknown := [agent_id for agent_id in agent_ids if agent_id not in known]:
            raise ConfigurationError(
                f"agent {', '.join(unknown)} is not configured: known are {', '.join(known)}"
            )
        chosen = tuple(known[agent_id] for agent_id in dict.fromkeys(agent_ids))
        return replace(self, agents=chosen or self.agents)


def resolve(**options: object) -> Settings:
    """Looks up every setting and checks it; no request is made.

    Args:
        options: settings by name that go before all others, None for those not given: the
            fields of `Settings` and of `Agent`; `agent_id` can be several, `agents` tables.

    Raises:
        ConfigurationError: for a setting that is missing, unknown or wrong.
    """
    names = (*AGENT_NAMES, "agents", *_SHARED)
    if unknown := options.keys() - set(names):
        raise ConfigurationError(
            f"unknown setting {', '.join(sorted(unknown))}: there are {', '.join(names)}"
        )
    given = {name: found for name in names if (found := _look_up(name, options))}
    shared = {
        name: _check(name, given[name].value if name in given else default, check)
        for name, (default, check) in _SHARED.items()
    }
    if shared["pii"] == "hash" and not shared["pii_secret"]:
        raise ConfigurationError(
            f"pii = 'hash' needs a secret of your own to hash with. {how_to_set('pii_secret')}"
        )
    if shared["page_size"] is None:
        shared["page_size"] = _PAGE_SIZES[shared["api"]]
    return Settings(agents=_agents(given), **shared)


def shared_setting(name: str) -> Any:
    """Looks up one setting that all agents share, without the agents and keys `resolve` needs.

    Args:
        name: one of the fields of `Settings` but for `agents`.

    Raises:
        ConfigurationError: for a value that is wrong.
    """
    default, check = _SHARED[name]
    given = _look_up(name, {})
    return _check(name, given.value if given else default, check)


def how_to_set(name: str) -> str:
    """A sentence that says where the setting `name` can be given."""
    file = "secrets" if name in SECRET_NAMES else "config"
    where = f"{name} under [{SECTION}] in .dlt/{file}.toml"
    return f"Set the option {name}, the environment's POLYAI_{name.upper()}, or {where}"


class _Layer(IntEnum):
    """Where a value comes from; the lower goes first."""

    OPTION = 0
    ENVIRONMENT = 1
    DLT = 2


class _Given(NamedTuple):
    """A value that is not empty, and where it was found."""

    value: Any
    layer: _Layer


def _look_up(name: str, options: Mapping[str, object]) -> _Given | None:
    """The first layer's value that is not empty."""
    environment = os.environ.get(f"POLYAI_{name.upper()}")
    for layer, value in ((_Layer.OPTION, options.get(name)), (_Layer.ENVIRONMENT, environment)):
        if not _is_empty(value):
            return _Given(value, layer)
    key = f"{SECTION}.{name}"
    value = dlt.secrets.get(key) if name in SECRET_NAMES else dlt.config.get(key)
    if name == "agents" and _is_empty(value):
        value = dlt.config.get(key)
    return None if _is_empty(value) else _Given(value, _Layer.DLT)


def _is_empty(value: object) -> bool:
    """Variables that a CI system leaves unset are empty text, those that dlt prepares a note."""
    return value is None or (isinstance(value, str) and value.strip() in ("", "<configure me>"))


def _check(name: str, value: Any, check: Callable[[Any], Any]) -> Any:
    """`check(value)`, with errors that name the setting and where it can be set."""
    try:
        return check(value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}. {how_to_set(name)}") from None


_SHARED: Mapping[str, tuple[Any, Callable[[Any], Any]]] = {
    "api": ("data", choice(*get_args(Api))),
    "details": (False, boolean),
    "environments": ("live,sandbox,pre-release", several(*ENVIRONMENTS)),
    "workers": (8, number(int, 1, 64)),
    "lookback": ("24h", duration),
    "settle_after": ("1h,24h,7d", durations),
    "give_up_after": ("30d", duration),
    "lock_wait": ("0s", duration),
    "chunk_size": (5000, number(int, 1, 1_000_000)),
    "page_size": (None, lambda value: value if value is None else number(int, 1, 10_000)(value)),
    "uncertain_wait": ("10s", duration),
    "recordings_url": ("recordings/", text),
    "directions": ("combined", several(*DIRECTIONS)),
    "redacted": (True, boolean),
    "recordings_wait": ("7d", duration),
    "pii": ("keep", choice(*get_args(Pii))),
    "pii_secret": ("", text),
    "transcripts": ("keep", choice(*get_args(Transcripts))),
    "reporting_time_zone": (DEFAULT_ZONE, time_zone),
    "publish_to": (None, folder),
    "request_timeout": (60.0, number(float, 1, 3600)),
    "max_attempts": (5, number(int, 1, 100)),
}
"""Default and check of each setting that all agents share."""


def _agents(given: Mapping[str, _Given]) -> tuple[Agent, ...]:
    """The agents that are named, or that have a table; see the module's docstring."""
    named, tables = given.get("agent_id"), given.get("agents")
    if not (named or tables):
        raise ConfigurationError(f"agent_id is missing. {how_to_set('agent_id')}")
    if named and tables and named.layer == tables.layer:
        raise ConfigurationError(
            "agent_id and agents are both given, in the same place: which of them is meant? Move "
            "the one agent into a table [[sources.polyai.agents]] of its own, or take agents out"
        )
    entries = _check("agents", tables.value, _tables) if tables else []
    by_id = {_place(entry["agent_id"])[0]: entry for entry in entries}
    if len(by_id) < len(entries):
        raise ConfigurationError("agents: two tables have the same agent_id")
    if named and (not tables or named.layer < tables.layer):
        names = _check("agent_id", named.value, _names)
        entries = [by_id.get(_place(name)[0], {"agent_id": name}) for name in names]
    agents = (_agent(entry, given) for entry in entries)
    return tuple({agent.agent_id: agent for agent in agents}.values())


def _names(value: Any) -> list[str]:
    """Agent ids or Studio URLs, separated by commas or as a list."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence):
        raise ConfigurationError(f"{value!r} is no agent id")
    if names := list(dict.fromkeys(name for part in parts if (name := text(part)))):
        return names
    raise ConfigurationError(f"{value!r} names no agent")


def _tables(value: Any) -> list[dict[str, Any]]:
    """The agents' own tables, which the environment can give as JSON."""
    try:
        tables = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        tables = None
    if not isinstance(tables, Sequence) or not all(isinstance(t, Mapping) for t in tables):
        raise ConfigurationError("a list of tables [[sources.polyai.agents]] is needed")
    for place, table in enumerate(tables, 1):
        if unknown := table.keys() - set(AGENT_NAMES):
            raise ConfigurationError(
                f"table {place} has unknown settings {', '.join(sorted(unknown))}: "
                f"there are {', '.join(AGENT_NAMES)}"
            )
        if _is_empty(table.get("agent_id")):
            raise ConfigurationError(f"table {place} has no agent_id")
    return [{**table, "agent_id": text(table["agent_id"])} for table in tables]


def _place(name: str) -> tuple[str, regions.StudioLocation | None]:
    """The agent id in `name`, and where a Studio URL says that it is."""
    location = regions.parse_studio_url(name) if regions.is_studio_url(name) else None
    return (location.agent_id if location else name), location


def _agent(entry: Mapping[str, Any], given: Mapping[str, _Given]) -> Agent:
    """One agent from its own settings, the options before them and the shared ones behind them."""

    def setting(name: str, check: Callable[[Any], str]) -> str | None:
        shared, own = given.get(name), entry.get(name)
        is_own = not _is_empty(own) and not (shared and shared.layer == _Layer.OPTION)
        value = own if is_own else shared.value if shared else None
        return None if _is_empty(value) else str(_check(name, value, check))

    agent_id, location = _check("agent_id", entry["agent_id"], _place)
    region = setting("region", regions.region_named)
    account_id = setting("account_id", text)
    if location:
        for name, told, within in (
            ("region", region, location.region),
            ("account_id", account_id, location.account_id),
        ):
            if told and told != within:
                raise ConfigurationError(
                    f"{name} is {told}, but {within} in the Studio URL {entry['agent_id']}: "
                    f"take out one of them. {how_to_set(name)}"
                )
        region, account_id = location.region, location.account_id
    region = region or "us"
    api_key = setting("api_key", text)
    if not api_key:
        raise ConfigurationError(f"api_key of agent {agent_id} is missing. {how_to_set('api_key')}")
    base_url = setting("base_url", regions.parse_base_url)
    # behind a sandbox or a proxy, v3 must not go past it to the real service
    v3_base_url = setting("v3_base_url", regions.parse_base_url) or base_url
    return Agent(
        agent_id=agent_id,
        api_key=api_key,
        region=region,
        account_id=account_id,
        base_url=base_url or regions.data_api_url(region),
        v3_base_url=v3_base_url or regions.conversations_v3_url(region),
        v3_api_key=setting("v3_api_key", text) or "",
    )
