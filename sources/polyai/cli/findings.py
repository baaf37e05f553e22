"""Findings about one agent: what its keys can read, and what to change where they cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..config.agent import AUTO, DATA, FIND_ACCOUNT, V3, Agent
from ..config.settings import Settings
from ..errors import AccessError, ApiError
from ..shape.redaction import has_redacted_numbers
from ..shape.v3_rows import to_data_api_names
from .access import OTHER_KEY, Access, Attempt
from .recommendation import LoadedThrough, recommended_api

_SUBJECTS = {401: "key", 403: "permission", 404: "agent"}
"""Subject of the finding when the listing is refused, by HTTP status; otherwise the API."""

_ONLY_DATA = "notes, tags, scores and function events"

Outcome = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True)
class Finding:
    """Outcome of one test, with advice if it failed."""

    agent_id: str
    subject: str
    outcome: Outcome
    message: str


class AgentFindings:
    """Findings about one agent.

    Args:
        agent: The agent as it is set.
        settings: The settings.
        access: What its keys can read.
        loaded: API through which it was loaded last; None if it was not.
    """

    def __init__(
        self, agent: Agent, settings: Settings, access: Access, loaded: LoadedThrough | None
    ) -> None:
        self._agent = agent
        self._api = settings.api
        self._settings = settings
        self._access = access
        self._loaded = loaded

    def __iter__(self) -> Iterator[Finding]:
        access = self._access
        only_v3 = not access.data.is_usable and (access.v3.is_usable or not self._agent.api_key)
        # what is needed comes first
        first, last = (self._v3, self._data) if only_v3 else (self._data, self._v3)
        yield first()
        yield from self._details()
        yield from self._contents()
        yield last()
        yield self._names()
        yield self._listing(access.data, access.v3)

    def _finding(self, subject: str, outcome: Outcome, message: str) -> Finding:
        return Finding(self._agent.agent_id, subject, outcome, message)

    def _refusal(self, source_api: str) -> Outcome:
        """Returns how bad it is that a listing cannot be used as it is set."""
        access = self._access
        own, other = (access.data, access.v3) if source_api == DATA else (access.v3, access.data)
        if self._api == AUTO:
            takes_over = other.is_as_set and (own.is_gone or not self._goes_on_with(source_api))
            return "warning" if takes_over else "failed"
        if self._api == source_api or (source_api == DATA and self._settings.details):
            return "failed"
        return "warning"

    def _goes_on_with(self, source_api: str) -> bool:
        """Returns whether `auto` keeps to an API, because the agent was loaded through it."""
        if self._loaded is None:
            return False
        loaded, with_details = self._loaded
        if source_api == DATA and with_details:
            return True
        return loaded == source_api and not self._agent.problem_with(source_api)

    def _data(self) -> Finding:
        data, agent = self._access.data, self._agent
        if data.is_as_set:
            message = f"lists {data.count or 0:,} conversations in region {agent.region}"
            return self._finding("key", "ok", message)
        outcome = self._refusal(DATA)
        if agent.api_key or data.is_usable:
            subject = _SUBJECTS.get(data.status or 0, "api" if agent.api_key else "key")
            message = self._refused(data)
            v3 = self._access.v3
            is_refused = isinstance(data.error, AccessError) and not data.is_gone
            is_of_v3 = v3.is_usable and v3.key == "api_key" and not data.is_usable
            if is_refused and isinstance(data.error, ApiError) and self._access.names_error is None:
                message = (
                    "the key of api_key is a workspace key, which reads names (Agents API) but no "
                    f"conversations: {data.error.summary}"
                )
                if not v3.is_usable:
                    message += (
                        ". Set api_key (POLYAI_API_KEY) to a key of the Data API, or v3_api_key "
                        "(POLYAI_V3_API_KEY) to one of the Conversations API v3"
                    )
            elif is_of_v3 and is_refused and isinstance(data.error, ApiError):
                message = (
                    "the key of api_key is one of the Conversations API v3, and the Data API "
                    f"refuses it: {data.error.summary}"
                )
            return self._finding(subject, outcome, message)
        if self._api == DATA or self._settings.details or self._goes_on_with(DATA):
            return self._finding("key", outcome, f"{data.error}")
        message = (
            "no key of the Data API is set (api_key), and none is needed: v3_api_key is enough "
            f"for the Conversations API v3. {_ONLY_DATA.capitalize()} need one"
        )
        return self._finding("key", "skipped", message)

    def _v3(self) -> Finding:
        v3, agent = self._access.v3, self._agent
        if v3.is_as_set:
            environments = ", ".join(self._settings.environments)
            return self._finding(V3, "ok", f"lists conversations of {environments}")
        outcome = self._refusal(V3)
        if agent.account_id and agent.v3_base_url:
            return self._finding(V3, outcome, self._refused(v3))
        # it was not asked as it is set
        if v3.is_usable:
            missing = self._changes(v3)
        elif not agent.v3_base_url:
            missing = f"use another region, because {agent.region} does not have it"
        else:
            missing = f"set account_id (POLYAI_ACCOUNT_ID) to {FIND_ACCOUNT}"
            if agent.v3_api_key and not agent.api_key:
                missing += "; nothing else is missing, v3_api_key is enough"
        is_untried = not (agent.v3_api_key or v3.is_usable or self._access.data.is_usable)
        purpose = "try the key of api_key on" if is_untried and agent.v3_base_url else "use"
        is_meant = self._api == V3 or bool(agent.v3_api_key) or not agent.api_key
        return self._finding(
            V3,
            "failed" if outcome == "failed" and is_meant else "skipped",
            f"to {purpose} the Conversations API v3, {missing}",
        )

    def _refused(self, attempt: Attempt) -> str:
        """Returns with which settings a refused listing works, else the likely causes."""
        error = attempt.error
        if attempt.is_usable:
            summary = error.summary if isinstance(error, ApiError) else f"{error}"
            return f"{self._changes(attempt)}. As it is set: {summary}"
        if attempt.hint is None or not isinstance(error, ApiError):
            return f"{error}"
        region, other = attempt.hint
        return (
            f"region {region} seems to know the key: set region to '{region}' (POLYAI_REGION). "
            f"There {other}. As it is set: {error.summary}"
        )

    def _changes(self, attempt: Attempt) -> str:
        """Returns the settings to change, with which a listing works."""
        agent, found = self._agent, attempt.agent
        changes = []
        if found.region != agent.region:
            changes.append(f"region to '{found.region}' (POLYAI_REGION)")
        if found.account_id != agent.account_id:
            changes.append(f"account_id to '{found.account_id}' (POLYAI_ACCOUNT_ID)")
        name = "api_key" if attempt is self._access.data else "v3_api_key"
        is_moved = attempt.key != name and bool(getattr(agent, name) or name == "api_key")
        if is_moved:
            changes.append(
                f"{name} (POLYAI_{name.upper()}) to the key that is now in {OTHER_KEY[name]}"
            )
        text = f"set {' and '.join(changes)}"
        is_swapped = self._access.data.key == "v3_api_key" and self._access.v3.key == "api_key"
        return f"{text}: the two keys are swapped" if is_moved and is_swapped else text

    def _details(self) -> Iterator[Finding]:
        data, details = self._access.data, self._access.details
        if details is None:
            if data.is_usable:
                yield self._finding("detail", "skipped", "the agent has no conversation to read")
        elif details.error is not None:
            yield self._finding("detail", "failed", str(details.error))
        elif not details.found:
            yield self._finding(
                "detail", "failed", f"none of {details.asked} conversations can be read by id"
            )
        else:
            yield self._finding(
                "detail",
                "ok",
                f"read {len(details.found)} of the {details.asked} newest conversations",
            )

    def _contents(self) -> Iterator[Finding]:
        """Yields what the key may see of the newest conversations."""
        details = self._access.details
        rows: Sequence[Mapping[str, Any]] = details.found if details else ()
        rows = rows or [to_data_api_names(row) for row in self._access.v3.rows]
        if not rows:
            return
        for subject, name in (("transcripts", "turns"), ("metrics", "metrics")):
            if any(row.get(name) for row in rows):
                yield self._finding(subject, "ok", f"{name} are available")
                continue
            yield self._finding(
                subject,
                "warning",
                f"none of {len(rows)} conversations has {name}: if that is unexpected, switch on "
                f"{subject} in the key's Configuration, on the page API Keys in Agent Studio",
            )
        if has_redacted_numbers(rows):
            yield self._finding(
                "pii",
                "warning",
                "phone numbers arrive as REDACTED, and recordings are redacted: to distinguish "
                "callers, use a key with PII access",
            )
        else:
            yield self._finding("pii", "ok", "phone numbers are available")

    def _names(self) -> Finding:
        error = self._access.names_error
        if error is None:
            return self._finding("names", "ok", "deployments can be read (Agents API)")
        why = (
            f"cannot be read with this key (Agents API: HTTP {error.status})"
            if isinstance(error, ApiError) and error.status
            else "need api_key, with access to the Agents API"
            if not self._agent.api_key
            else f"cannot be read (Agents API: {error})"
        )
        message = (
            f"the names behind ids {why}; nothing else depends on it. A workspace key as api_key "
            "reads them, or give them by hand in [sources.polyai.names]"
        )
        return self._finding("names", "skipped", message)

    def _listing(self, data: Attempt, v3: Attempt) -> Finding:
        """Recommends one of the two listings, and reports why it is read."""
        if not (data.is_usable or v3.is_usable):
            return self._finding("listing", "skipped", "neither listing can be used")
        api = recommended_api(self._api, self._access, self._loaded)
        chosen = f"api = '{api}' (POLYAI_API) is set. " if api == self._api != AUTO else ""
        if api == AUTO and self._loaded and self._loaded[0] == V3 and v3.is_usable:
            message = (
                "api = 'auto' goes on through the Conversations API v3, through which the last "
                "load read the agent"
            )
            if data.is_usable:
                message += (
                    ". To switch to the Data API's listing, load with api = 'data' (POLYAI_API): "
                    f"it adds {_ONLY_DATA}, and every conversation stays one row"
                )
        elif data.is_usable and v3.is_usable:
            message = (
                "both listings can be used: api = 'auto' reads the Data API's, with notes, tags, "
                "scores and function events, at one request per conversation. PolyAI has "
                "deprecated it: when it is gone, a load goes on through the Conversations API v3. "
                "For years of calls start with `backfill --api conversations_v3`, up to 1,000 "
                "conversations per request"
            )
        elif v3.is_usable:
            details = self._access.details
            if details is not None and details.found:
                others = f"details = true adds {_ONLY_DATA}, at one request per conversation"
            elif data.is_gone and self._agent.api_key:
                others = f"{_ONLY_DATA} cannot be read, because the Data API offers no details"
            else:
                others = f"{_ONLY_DATA} need a key of the Data API as well"
            message = (
                "use api = 'conversations_v3', the only listing that these settings can use; "
                f"{others}"
            )
        else:
            missing = "" if self._agent.account_id else "account_id and, if it is another one, "
            message = (
                f"use api = '{api}', which reads the Data API's listing. PolyAI has deprecated it: "
                f"set {missing}v3_api_key (POLYAI_V3_API_KEY), so that loads go on through the "
                "Conversations API v3 when it is gone"
            )
        return self._finding("listing", "ok", f"{chosen}{message}")
