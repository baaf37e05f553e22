"""Circuit breaker that tells an outage, or a refused key, from conversations that cannot be read.

Consecutive failures can mean either. Before it opens, the breaker therefore asks for something else
that is expected to work.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus

from ..errors import (
    AccessError,
    ApiError,
    ConversationError,
    RouteGoneError,
    StoppedError,
    UnavailableError,
    UncertainError,
)

OUTAGE_AFTER = 20
"""Consecutive unanswered requests after which the breaker probes: to retry every further one in an
outage would take hours."""

SAMPLE_SIZE = 5
"""Listed conversations that a probe asks for, spread over the first page of the list."""


class Probe:
    """Request for another conversation than those that fail. Safe to share between threads.

    Asks for the conversation that was answered last in this run, then for some of those that are
    listed. The first answer ends it.

    Args:
        ask: Requests one conversation by its id.
        listed: Requests ids of conversations from the first page of the list.
    """

    def __init__(
        self, ask: Callable[[str], object], listed: Callable[[], Sequence[str]] = tuple
    ) -> None:
        self._ask = ask
        self._listed = listed
        self._answered: str | None = None
        self._failed: set[str] = set()

    def note(self, conversation_id: str, *, is_answered: bool) -> None:
        """Registers a conversation as one to ask for, or as one not to ask for."""
        if is_answered:
            self._answered = conversation_id
        else:
            self._failed.add(conversation_id)

    def __call__(self) -> None:
        """Returns if the API answers, or if there is no other conversation to ask for.

        Raises:
            UnavailableError: Nothing is answered.
            AccessError: Every conversation is refused.
        """
        unavailable: UnavailableError | None = None
        refusal: ConversationError | None = None
        for conversation_id in self._candidates():
            try:
                self._ask(conversation_id)
            except StoppedError:
                raise
            except UnavailableError as error:
                unavailable = error
            except ConversationError as error:
                if error.status != HTTPStatus.FORBIDDEN:
                    return
                refusal = error
            else:
                self._answered = conversation_id
                return
        if unavailable is not None:
            raise unavailable
        if refusal is not None:
            raise AccessError(
                "the API key has no permission to read conversations",
                status=refusal.status,
                error_code=refusal.error_code,
                error_id=refusal.error_id,
                sent_id=refusal.sent_id,
                url=refusal.url,
                advice="Ask an administrator of the workspace for a key that can read them",
            ) from refusal

    def _candidates(self) -> Iterator[str]:
        answered = self._answered
        if answered is not None:
            yield answered
        try:
            listed = self._listed()
        except RouteGoneError:
            return  # details and recordings outlive the deprecated list
        others = [name for name in listed if name not in self._failed and name != answered]
        step = max((len(others) - 1) / (SAMPLE_SIZE - 1), 1)
        for number in range(min(SAMPLE_SIZE, len(others))):
            yield others[round(number * step)]


class OutageBreaker:
    """Circuit breaker that opens when the API has stopped answering, and stays open.

    Consecutive unanswered requests, or refused conversations (403), lead to a probe. If that is
    answered, the conversations are bad: the count begins again. Safe to share between threads.

    Args:
        opens_after: Consecutive unanswered requests that lead to a probe.
        probe: Asks for something else; without one, the breaker opens at once.

    Attributes:
        opened_by: The reason why it is open, for the caller to raise; None while it is closed.
        opened_at: The recorded error at which it opened.
    """

    def __init__(self, opens_after: int = OUTAGE_AFTER, probe: Probe | None = None) -> None:
        self.opened_by: ApiError | None = None
        self.opened_at: ApiError | None = None
        self._opens_after = opens_after
        self._probe = probe
        self._unanswered = 0
        self._refused = 0
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """True if no further request is worth sending."""
        return self.opened_by is not None

    def record(self, error: Exception | None, conversation_id: str | None = None) -> None:
        """Counts the outcome of one request; probes where the count requires it.

        An answer that concerns the conversation resets the count, as success does. An
        `UncertainError` proves neither, and a `StoppedError` comes from this side: both leave the
        count as it is.

        Args:
            error: The exception that ended the request; None if it was answered.
            conversation_id: The conversation that was requested.
        """
        if isinstance(error, UncertainError | StoppedError):
            return
        with self._lock:
            if self.is_open:
                return
            if self._probe is not None and conversation_id is not None:
                self._probe.note(conversation_id, is_answered=error is None)
            if isinstance(error, UnavailableError):
                self._unanswered += 1
                self._refused = 0
                if self._unanswered >= self._opens_after:
                    self._unanswered = 0
                    self._check(error)
            elif isinstance(error, ConversationError) and error.status == HTTPStatus.FORBIDDEN:
                self._refused += 1
                self._unanswered = 0
                # at once, because a refused key makes every further request pointless
                if self._refused % self._opens_after == 1 % self._opens_after:
                    self._check(error)
            else:
                self._unanswered = self._refused = 0

    def _check(self, error: UnavailableError | ConversationError) -> None:
        """Opens unless something else is answered: the single place that decides on an outage."""
        reason = self._reason(error)
        if reason is not None:
            self.opened_by, self.opened_at = reason, error

    def _reason(self, error: UnavailableError | ConversationError) -> ApiError | None:
        if self._probe is None:
            return error if isinstance(error, UnavailableError) else None
        try:
            self._probe()
        except StoppedError:
            return None
        except UnavailableError:
            return error
        except ApiError as refusal:
            return refusal
        return None
