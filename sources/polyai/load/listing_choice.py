"""Choice of the API that lists an agent's conversations, and of the other one if it is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..config.agent import AUTO, DATA, V3, Agent
from ..config.settings import Settings
from ..errors import AccessError, ConfigurationError, RouteGoneError
from ..warehouse.held import LoadState
from ..warehouse.loaded_through import loaded_through

logger = logging.getLogger("polyai")

_NAMES = {DATA: "Data API", V3: "Conversations API v3"}


@dataclass(frozen=True)
class ListingChoice:
    """API that lists an agent's conversations.

    Attributes:
        source_api: `data` or `conversations_v3`.
        details: Whether the Data API's detail of each conversation is read.
        replaced_api: API whose listing is gone, in whose place this one is read.
        is_known: Conversations of the agent were loaded through this API before.
    """

    source_api: str
    details: bool = True
    replaced_api: str | None = None
    is_known: bool = False


def first_choice(agent: Agent, settings: Settings, warehouse: LoadState) -> ListingChoice:
    """Returns the API to try first; sends no request.

    With `api = "auto"` that is the one that the last load of the agent read, or the one in whose
    place it did so, because the listing was gone; else the Data API. It is the other one where the
    settings lack what it needs.

    Raises:
        ConfigurationError: The settings lack what both need, or the key for the details that the
            agent was loaded with.
    """
    if settings.api != AUTO:
        return _choice(settings.api, agent, settings)
    loaded = loaded_through(warehouse, agent.agent_id)
    if loaded is None:
        source_api = DATA if not agent.problem_with(DATA) else V3
        return _choice(source_api, agent, settings)
    source_api, with_details = loaded
    if with_details and (problem := agent.problem_with(DATA)):
        raise ConfigurationError(
            f"{problem}. The agent was loaded with its details until now; api = '{V3}' "
            "(POLYAI_API) goes on without them"
        )
    if agent.problem_with(source_api):
        source_api = _other(source_api)
    choice = _choice(source_api, agent, settings, details=with_details)
    return replace(choice, is_known=True)


def log_choice(choice: ListingChoice, agent: Agent, settings: Settings) -> None:
    """Logs that v3 is read because it was before, where the Data API could be as well."""
    is_chosen = settings.api == AUTO and choice.is_known and choice.source_api == V3
    if is_chosen and not agent.problem_with(DATA):
        logger.info(
            "%s: going on through the %s, through which the last load read the agent; "
            "api = '%s' (POLYAI_API) switches to the %s",
            agent.agent_id,
            _NAMES[V3],
            DATA,
            _NAMES[DATA],
        )


def next_choice(
    refused: ListingChoice,
    error: AccessError,
    agent: Agent,
    settings: Settings,
    offers_details: Callable[[], bool],
) -> ListingChoice:
    """Returns the other API, after the listing of one was refused; logs a warning.

    A listing that was loaded from before is only replaced if its route is gone: its key may be
    wrong for a while. Details go on where they can be read, so that rows are the same as before.

    Args:
        refused: The choice that was refused.
        error: The refusal.
        agent: The agent.
        settings: The settings.
        offers_details: Asks whether the Data API still offers details.

    Raises:
        AccessError: The same error, because the other API cannot take over.
    """
    is_gone = isinstance(error, RouteGoneError)
    if settings.api != AUTO or (refused.is_known and not is_gone):
        raise error
    other = _other(refused.source_api)
    if problem := agent.problem_with(other):
        raise error.with_advice(f"The {_NAMES[other]} cannot take over: {problem}")
    if not is_gone:
        choice = _choice(other, agent, settings)
        what, until, selected = "does not accept the key for", "", f"api = '{other}' (POLYAI_API)"
    else:
        what, until, selected = "does not offer", " until it does", f"api = '{other}' (POLYAI_API)"
        details = other == DATA or offers_details()
        choice = ListingChoice(other, details, replaced_api=refused.source_api)
        if not details:
            until += ", without details, which it does not offer either"
            selected += " with details = false (POLYAI_DETAILS)"
        if other == V3:
            until += f". It lists only conversations of {', '.join(settings.environments)}"
    logger.warning(
        "%s: PolyAI %s the listing of the %s: going on through the %s%s. %s selects that from "
        "the start",
        agent.agent_id,
        what,
        _NAMES[refused.source_api],
        _NAMES[other],
        until,
        selected,
    )
    return choice


def both_refused(first: AccessError, second: AccessError) -> AccessError:
    """Returns the error of the API that was tried first, with that of the other one."""
    return first.with_advice(f"The other listing is refused too: {second}")


def _choice(
    source_api: str, agent: Agent, settings: Settings, *, details: bool = False
) -> ListingChoice:
    if problem := agent.problem_with(source_api):
        raise ConfigurationError(problem)
    details = details or settings.details or source_api == DATA
    if details and (problem := agent.problem_with(DATA)):
        raise ConfigurationError(problem)
    return ListingChoice(source_api, details)


def _other(source_api: str) -> str:
    return V3 if source_api == DATA else DATA
