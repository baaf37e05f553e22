"""Settings of a run, resolved from options, the environment and dlt's configuration.

Each setting is looked up in this order. The first value wins; an empty one counts as not set:

1. options passed to `resolve`, None for those not given
2. `POLYAI_<NAME>` in the environment
3. dlt's configuration of `sources.polyai.<name>`: `SOURCES__POLYAI__<NAME>`, `.dlt/secrets.toml`,
   `.dlt/config.toml` and dlt's vaults

Several agents are listed in `agent_id`, separated by commas, or in `[[sources.polyai.agents]]`
tables of `.dlt/secrets.toml` and `.dlt/config.toml`, merged by `agent_id`. The settings of
an agent's table take precedence over the environment and the shared settings, but not over options.
An `agent_id` from a place with a higher precedence than the tables selects among them; an id
without a table uses the shared settings. Both in the same place are an error.

A name that is not a setting is an error too; see `unknown_names`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import ConfigurationError
from .agent import AUTO, DATA, V3, Agent
from .agent_settings import agents_of
from .agent_tables import AGENT_NAMES
from .lookup import how_to_set, look_up, validate, without_keys
from .retention import (
    RETENTION,
    RETENTION_RECORDINGS,
    RETENTION_TRANSCRIPTS,
    Ages,
    check_lookback,
    retention_age,
)
from .time_zones import DEFAULT_ZONE, time_zone
from .unknown_names import refuse_unknown_names, suggestion
from .validators import (
    boolean,
    byte_size,
    choice,
    duration,
    duration_from,
    durations,
    names_by_id,
    names_of_columns,
    number,
    phone_region,
    publish_target,
    several,
    text,
)

Api = Literal["auto", "data", "conversations_v3"]
Pii = Literal["keep", "hash", "drop"]
Transcripts = Literal["keep", "drop"]

ENVIRONMENTS = ("live", "sandbox", "pre-release")
"""Environments of PolyAI's agents; the Conversations API v3 lists one at a time."""

DIRECTIONS = ("combined", "user", "agent")
"""Voices that a recording can contain."""

NAMED_TABLES = ("agents", "deployments", "variants")
"""Tables whose rows can be named by hand; of deployments, it is the message."""

SHORTEST_SECRET = 16
"""Characters of the shortest key of hashes."""

_PAGE_SIZES: Mapping[str, int] = {DATA: 100, V3: 1000}
"""Default page size of each API's listing."""


@dataclass(frozen=True)
class Settings:
    """Validated settings of a run.

    Attributes:
        agents: Agents with distinct ids, at least one.
        api: API that lists the conversations; `auto` for what the warehouse was loaded with, else
            the Data API where it answers.
        details: With the v3 listing, whether to read each conversation's detail too.
        environments: With the v3 listing, the environments to list.
        workers: Concurrent requests.
        lookback: Look-back window: how far before the watermark a run lists.
        settle_after: Re-fetch ages: times after its end at which a conversation is read again,
            ascending.
        give_up_after: Age of a failure after which only a full load retries it.
        lock_wait: Time to wait for another run over the same agents.
        chunk_size: Conversations per load package.
        page_size: Rows to request per page of the listing; v3 returns at most 1,000. None for the
            default of the listing that `auto` finds.
        uncertain_wait: Time after which a request without an answer is no longer in progress.
        recordings_url: Folder or fsspec URL of the recordings.
        directions: Voices of the recordings to fetch, each a file of its own.
        redacted: Fetch recordings without personal data, rather than raw ones.
        recordings_wait: Time after its end during which a conversation's recording is requested.
        pii: Treatment of phone numbers and e-mail addresses.
        pii_secret: Key of the hash, empty for none; never in a repr or a message.
        phone_region: Country, in two letters, of phone numbers without country code; empty for that
            of the agent's own numbers.
        transcripts: Treatment of the spoken and written words.
        keep_columns: Columns, as `table.column`, that `pii` does not redact.
        drop_columns: Columns, as `table.column`, that are never loaded.
        retention: Age at which conversations are deleted; None for never.
        retention_recordings: Age at which recordings are deleted, if that is earlier.
        retention_transcripts: Age at which the words of conversations are deleted, likewise.
        accept_mixed: Whether a run may write rows beside those of another privacy mode.
        names: Names by id, by name of the table (`NAMED_TABLES`), in place of those that the Agents
            API has.
        forget_ledger: Path of a file, or fsspec URL of a folder, for the ledger of erasures; empty
            for none.
        reporting_time_zone: IANA time zone of local dates in the views.
        publish_to: Folder for a copy of a DuckDB warehouse for readers, or, as text, folder or URL
            for its tables and views as Parquet files; None for neither.
        request_timeout: Seconds to wait for the next bytes of an answer.
        request_deadline: Time until a whole answer has to have arrived, streams excepted.
        max_body: Limit of an answer in memory, in bytes after decompression.
        max_attempts: Attempts per request.
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
    page_size: int | None
    uncertain_wait: timedelta
    recordings_url: str
    directions: tuple[str, ...]
    redacted: bool
    recordings_wait: timedelta
    pii: Pii
    pii_secret: str = field(repr=False)
    phone_region: str
    transcripts: Transcripts
    keep_columns: tuple[str, ...]
    drop_columns: tuple[str, ...]
    retention: timedelta | None
    retention_recordings: timedelta | None
    retention_transcripts: timedelta | None
    accept_mixed: bool
    names: Mapping[str, Mapping[str, str]]
    forget_ledger: str
    reporting_time_zone: str
    publish_to: Path | str | None
    request_timeout: float
    request_deadline: timedelta
    max_body: int
    max_attempts: int

    @property
    def ages(self) -> Ages:
        """Ages at which conversations, recordings and words are deleted."""
        return Ages.of(vars(self))

    @property
    def request_limits(self) -> dict[str, Any]:
        """Limits of each request, as options of an API client."""
        return {
            "request_timeout": self.request_timeout,
            "request_deadline": self.request_deadline.total_seconds(),
            "max_body": self.max_body,
            "max_attempts": self.max_attempts,
        }

    def page_size_of(self, api: str) -> int:
        """Returns the rows to request per page of the listing of an API."""
        return self.page_size or _PAGE_SIZES[api]

    def only(self, agent_ids: Sequence[str]) -> Settings:
        """Returns the settings limited to these agents; unchanged for an empty list.

        Raises:
            ConfigurationError: An agent is not configured, or none of them has a valid key.
        """
        known = {agent.agent_id: agent for agent in self.agents}
        if unknown := [agent_id for agent_id in agent_ids if agent_id not in known]:
            names = without_keys(", ".join(unknown))
            raise ConfigurationError(
                f"agent {names} is not configured (configured: {', '.join(known)})"
            )
        chosen = tuple(known[agent_id] for agent_id in dict.fromkeys(agent_ids)) or self.agents
        if all(agent.problem for agent in chosen):
            chosen[0].check_usable()
        return replace(self, agents=chosen)


def resolve(**options: object) -> Settings:
    """Looks up and validates every setting. Sends no request.

    Args:
        options: Settings by name with the highest precedence, None for those not given: fields of
            `Settings` and of `Agent`. `agent_id` can list several agents, `agents` holds tables.

    Raises:
        ConfigurationError: A setting is missing, unknown or invalid.
    """
    check_names()
    known = setting_names()
    if unknown := sorted(options.keys() - set(known)):
        raise ConfigurationError(
            f"unknown setting {', '.join(unknown)}. {suggestion(unknown[0], known)}"
        )
    given = {name: found for name in known if (found := look_up(name, options))}
    shared: dict[str, Any] = {
        name: validate(name, given[name].value if name in given else default, validator, options)
        for name, (default, validator) in _SHARED.items()
    }
    _check_secret(shared["pii"], shared["pii_secret"], is_option="pii_secret" in options)
    check_lookback(shared)
    if shared["page_size"] is None:
        shared["page_size"] = _PAGE_SIZES.get(shared["api"])
    return Settings(agents=agents_of(given, options), **shared)


def shared_setting(name: str) -> Any:
    """Looks up one setting that all agents share; unlike `resolve`, requires no agent and no key.

    Args:
        name: A field of `Settings` other than `agents`.

    Raises:
        ConfigurationError: The value is invalid, or another setting is unknown.
    """
    check_names()
    default, validator = _SHARED[name]
    given = look_up(name, {})
    return validate(name, given.value if given else default, validator, {})


def privacy_settings() -> tuple[Pii, str, Transcripts, str]:
    """Looks up `pii`, `pii_secret`, `transcripts` and `phone_region`, as `shared_setting` does.

    Raises:
        ConfigurationError: One of them is invalid.
    """
    pii, secret = shared_setting("pii"), shared_setting("pii_secret")
    _check_secret(pii, secret, is_option=False)
    return pii, secret, shared_setting("transcripts"), shared_setting("phone_region")


def retention_ages() -> Ages:
    """Looks up the settings of retention, as `shared_setting` does.

    Raises:
        ConfigurationError: One of them is invalid.
    """
    names = (RETENTION, RETENTION_RECORDINGS, RETENTION_TRANSCRIPTS, "lookback")
    settings = {name: shared_setting(name) for name in names}
    check_lookback(settings)
    return Ages.of(settings)


def _check_secret(pii: Pii, secret: str, *, is_option: bool) -> None:
    if pii == "hash" and len(secret) < SHORTEST_SECRET:
        problem = "is too short" if secret else "is missing"
        raise ConfigurationError(
            f"pii_secret {problem}: pii = 'hash' requires a secret key of {SHORTEST_SECRET} "
            "characters or more, best random ones, because a shorter one can be guessed. "
            f"{how_to_set('pii_secret', is_option=is_option)}"
        )


def setting_names() -> tuple[str, ...]:
    """Returns the names of all settings."""
    return (*AGENT_NAMES, "agents", *_SHARED)


def check_names() -> None:
    """Checks that the environment and dlt's files contain no unknown setting.

    Raises:
        ConfigurationError: One is unknown, or a file is not valid TOML.
    """
    refuse_unknown_names(setting_names())


_SHARED: Mapping[str, tuple[object, Callable[[object], object]]] = {
    "api": (AUTO, choice(*get_args(Api))),
    "details": (False, boolean),
    "environments": ("live,sandbox,pre-release", several(*ENVIRONMENTS)),
    "workers": (8, number(int, 1, 64)),
    "lookback": ("24h", duration),
    "settle_after": ("1h,24h,7d,30d", durations),
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
    "phone_region": ("", phone_region),
    "transcripts": ("keep", choice(*get_args(Transcripts))),
    "keep_columns": ("", names_of_columns),
    "drop_columns": ("", names_of_columns),
    RETENTION: (None, retention_age),
    RETENTION_RECORDINGS: (None, retention_age),
    RETENTION_TRANSCRIPTS: (None, retention_age),
    "accept_mixed": (False, boolean),
    "names": ({}, names_by_id(*NAMED_TABLES)),
    "forget_ledger": ("", text),
    "reporting_time_zone": (DEFAULT_ZONE, time_zone),
    "publish_to": (None, publish_target),
    "request_timeout": (60.0, number(float, 1, 3600)),
    "request_deadline": ("5m", duration_from(timedelta(seconds=1))),
    "max_body": ("64MB", byte_size),
    "max_attempts": (5, number(int, 1, 100)),
}
"""Default and validator of each setting that all agents share."""
