"""Access of an agent's keys: requests to both listings with each key, region and account."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from ..api.client import ConversationsV3, DataApi
from ..api.names import AgentsApi
from ..api.refusals import advice
from ..config import regions
from ..config.agent import DATA, V3, Agent
from ..config.settings import Settings
from ..errors import (
    AccessError,
    ApiError,
    ConfigurationError,
    ConversationError,
    RouteGoneError,
)
from ..shape.redaction import request_options

SAMPLE = 20
"""Newest conversations that are read to find out what the key may see."""

OTHER_KEY = {"api_key": "v3_api_key", "v3_api_key": "api_key"}


@dataclass(frozen=True)
class Attempt:
    """Requests to the listing of one API, up to the first that it answers.

    Attributes:
        agent: The agent as it was asked for; with another key, region or account than in the
            settings where these are refused.
        key: Setting that has the key.
        rows: Newest conversations, in the API's own names.
        count: Conversations of the agent, where the API counts them.
        error: Why the settings as they are do not work; None if they do.
        is_usable: Some settings work: those of `agent`.
        hint: Region that seems to know the key, and its refusal; only where nothing works.
    """

    agent: Agent
    key: str
    rows: Sequence[dict[str, Any]] = ()
    count: int | None = None
    error: ApiError | ConfigurationError | None = None
    is_usable: bool = False
    hint: tuple[str, ApiError] | None = None

    @property
    def status(self) -> int | None:
        """HTTP status of the refusal."""
        return self.error.status if isinstance(self.error, ApiError) else None

    @property
    def is_gone(self) -> bool:
        """True if PolyAI has shut the listing down."""
        return isinstance(self.error, RouteGoneError)

    @property
    def is_as_set(self) -> bool:
        """True if the settings work as they are."""
        return self.is_usable and self.error is None


@dataclass(frozen=True)
class Details:
    """Details of the newest conversations that could be read."""

    agent: Agent
    found: Sequence[dict[str, Any]] = ()
    error: ApiError | None = None
    asked: int = 0


@dataclass(frozen=True)
class Access:
    """Access of one agent's keys to the APIs.

    Attributes:
        data: Listing of the Data API.
        v3: Listing of the Conversations API v3.
        details: Details of the Data API; None where there was nothing to ask for.
        names_error: Why the names behind ids cannot be read; None if they can.
    """

    data: Attempt
    v3: Attempt
    details: Details | None
    names_error: ApiError | ConfigurationError | None

    @classmethod
    def of(cls, agent: Agent, settings: Settings) -> Self:
        """Requests what the keys of an agent can read. Nothing is loaded."""
        data = _first_answer(_data_variants(agent), _list_data, settings, DATA)
        found = data.agent if data.is_usable else agent
        known = account_of(data.rows)
        list_v3 = partial(_list_v3, settings.environments)
        v3 = _first_answer(_v3_variants(agent, found.region, known), list_v3, settings, V3)
        _rule_out_causes(data, v3, DATA)
        _rule_out_causes(v3, data, V3)
        of_details = (
            found
            if data.is_usable or not v3.is_usable
            else replace(agent, region=v3.agent.region, base_url=_data_url(agent, v3.agent.region))
        )
        ids = [row.get("conversationId") or row.get("id") for row in data.rows or v3.rows]
        details = None
        if ids and (data.is_usable or data.is_gone) and of_details.api_key:
            details = _details(of_details, settings, [str(one) for one in ids if one])
        return cls(data, v3, details, _names_error(of_details, settings))


def _first_answer(
    variants: Iterator[tuple[Agent, str]],
    ask: Callable[[Agent, dict[str, Any]], tuple[Sequence[dict[str, Any]], int | None]],
    settings: Settings,
    source_api: str,
) -> Attempt:
    """Asks with the settings as they are, then with others; stops at the first answer."""
    agent, own = next(variants)
    try:
        return Attempt(agent, own, *ask(agent, request_options(settings)), is_usable=True)
    except (ApiError, ConfigurationError) as error:
        refused = Attempt(agent, own, error=error)
    if not isinstance(refused.error, AccessError | ConfigurationError):
        return refused
    answers: dict[str, tuple[Agent, AccessError]] = {}
    for other, key in variants:
        try:
            answer = ask(other, _quick(settings))
        except AccessError as error:
            is_elsewhere = other.region != agent.region and other.account_id == agent.account_id
            if key == own and is_elsewhere:
                answers[other.region] = other, error
        except (ApiError, ConfigurationError):
            continue
        else:
            return Attempt(other, key, *answer, refused.error, is_usable=True)
    return _with_answers_of_regions(refused, answers, source_api)


def _with_answers_of_regions(
    refused: Attempt, answers: Mapping[str, tuple[Agent, AccessError]], source_api: str
) -> Attempt:
    """Returns a refused attempt with what the answers of the other regions to its key show.

    401 is the answer to an unknown key, so that a region with another one may know it.
    """
    agent, error = refused.agent, refused.error
    if not isinstance(error, AccessError) or refused.is_gone:
        return refused
    if error.status == 401:
        for region, (other, answer) in answers.items():
            if answer.status != 401:
                there = replace(
                    agent, region=region, base_url=other.base_url, v3_base_url=other.v3_base_url
                )
                answer.advice = _advice_in_region(there, refused.key, answer, source_api)
                return replace(refused, hint=(region, answer))
    url_of = regions.data_api_url if source_api == DATA else regions.conversations_v3_url
    was_asked = {agent.region, *answers} >= {name for name in regions.REGIONS if url_of(name)}
    if was_asked and {answer.status for _, answer in answers.values()} <= {401, error.status}:
        advice_here = _advice_in_region(agent, refused.key, error, source_api)
        error.advice = f"The other regions refuse it as well. {advice_here}"
    return refused


def _rule_out_causes(refused: Attempt, other: Attempt, source_api: str) -> None:
    """Leaves the region, and swapped keys, out of the causes if the other API accepts its key."""
    agent, error = refused.agent, refused.error
    is_same_region = other.is_as_set and other.agent.region == agent.region
    if is_same_region and isinstance(error, AccessError) and not refused.is_gone:
        error.advice = _advice_in_region(agent, refused.key, error, source_api, is_other_right=True)


def _advice_in_region(
    agent: Agent, key: str, error: AccessError, source_api: str, *, is_other_right: bool = False
) -> str:
    """Returns the likely causes of a refusal, without the region."""
    return advice(
        error.status or 0,
        agent,
        source_api,
        agent.base_url if source_api == DATA else agent.v3_base_url or "",
        getattr(agent, key),
        is_region_known=True,
        is_other_key_right=is_other_right,
    )


def account_of(rows: Sequence[dict[str, Any]]) -> str | None:
    """Returns the account that list rows of the Data API name; None for none."""
    return next((str(row["accountId"]) for row in rows if row.get("accountId")), None)


def _quick(settings: Settings) -> dict[str, Any]:
    """Returns limits for requests that are not needed: another region may not be reachable."""
    return {**request_options(settings), "max_attempts": 1, "request_timeout": 10}


def _data_variants(agent: Agent) -> Iterator[tuple[Agent, str]]:
    """Yields the agent with each key and region, as it is set first."""
    own = "api_key" if agent.api_key else "v3_api_key"
    yield agent, "api_key"
    for region in _regions(agent, agent.region):
        placed = replace(agent, region=region, base_url=_data_url(agent, region))
        for key in (own, OTHER_KEY[own]):
            is_first = (region, key) == (agent.region, "api_key")
            if not is_first and (value := getattr(agent, key)):
                yield replace(placed, api_key=value), key


def _v3_variants(
    agent: Agent, likely_region: str, known_account: str | None
) -> Iterator[tuple[Agent, str]]:
    """Yields the agent with each account, key and region, as it is set first."""
    own = "v3_api_key" if agent.v3_api_key else "api_key"
    yield agent, own
    accounts = dict.fromkeys(one for one in (agent.account_id, known_account) if one)
    for region in _regions(agent, likely_region):
        for account_id in accounts:
            for key in (own, OTHER_KEY[own]):
                url = _v3_url(agent, region)
                is_first = (region, account_id, key) == (agent.region, agent.account_id, own)
                if url and not is_first and (value := getattr(agent, key)):
                    yield (
                        replace(
                            agent,
                            region=region,
                            account_id=account_id,
                            v3_base_url=url,
                            v3_api_key=value,
                        ),
                        key,
                    )


def _regions(agent: Agent, first: str) -> list[str]:
    """Returns all regions; the own one alone where a URL is set, beyond which no key is sent."""
    if _has_own_url(agent):
        return [agent.region]
    return [first, *(region for region in regions.REGIONS if region != first)]


def _has_own_url(agent: Agent) -> bool:
    return agent.base_url != regions.data_api_url(agent.region)


def _data_url(agent: Agent, region: str) -> str:
    return agent.base_url if _has_own_url(agent) else regions.data_api_url(region)


def _v3_url(agent: Agent, region: str) -> str | None:
    is_own = agent.v3_base_url != regions.conversations_v3_url(agent.region)
    return agent.v3_base_url if is_own else regions.conversations_v3_url(region)


def _list_data(agent: Agent, limits: dict[str, Any]) -> tuple[list[dict[str, Any]], int | None]:
    with DataApi(agent, **limits) as api:
        page = api.conversations(limit=SAMPLE, offset=0)
    return page.conversations, page.count


def _list_v3(
    environments: Sequence[str], agent: Agent, limits: dict[str, Any]
) -> tuple[list[dict[str, Any]], None]:
    rows: list[dict[str, Any]] = []
    with ConversationsV3(agent, **limits) as api:
        for environment in environments:
            page = api.conversations(environment=environment, since=None, before=None, limit=SAMPLE)
            rows += [row.document.read() for row in page.rows]
    return rows, None


def _details(agent: Agent, settings: Settings, ids: Sequence[str]) -> Details:
    found: list[dict[str, Any]] = []
    with DataApi(agent, **request_options(settings)) as api:
        for conversation_id in ids[:SAMPLE]:
            try:
                found.append(api.conversation(conversation_id))
            except ConversationError:
                continue
            except ApiError as error:
                return Details(agent, found, error, len(ids[:SAMPLE]))
    return Details(agent, found, None, len(ids[:SAMPLE]))


def _names_error(agent: Agent, settings: Settings) -> ApiError | ConfigurationError | None:
    if problem := agent.problem_with(DATA):
        return ConfigurationError(problem)
    try:
        with AgentsApi(agent, **_quick(settings)) as api:
            api.check_access()
    except ApiError as error:
        return error
    return None
