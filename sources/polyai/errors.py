"""Errors of the package, filed by what the caller can do: stop, try again, skip and record.

```
PolyAIError
├── ConfigurationError      stop: a setting is missing or wrong
├── ListingError            stop: pages of the listing contradict each other, or never end
├── DestinationError        stop: the warehouse cannot be read or written
├── StoreError              stop: a folder or bucket of files cannot be read or written
├── LeaseLostError          stop: another run may be writing, this one must not any more
├── BusyError               try again: another run is loading the same agent
└── ApiError                stop: the API rejects the request
    ├── AccessError         stop: the API rejects the key, its permission, region or agent id
    │   └── RouteGoneError  stop: the API no longer offers the route
    ├── UnavailableError    try again: all attempts failed, or the API asks for too long a pause
    │   └── StoppedError    ignore: the client was closed while a request was waiting
    ├── ConversationError   skip and record: this one conversation cannot be read
    └── UncertainError      skip and record: it may have taken effect, so check before a retry
```
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self, TypedDict

_IN_URL = re.compile(r"(?<=://)(?!user:…@)(?:[^\s/?#@'\"]+@|[^\s/?#@:'\"]*:(?!\d+/)[^\s'\"]*@)")
"""User name and password of a URL; a password may contain characters that it should not."""

_NAMED = re.compile(
    r"\b([\w-]*(?:password|passwd|pwd|secret|token|signature|api_?key|access_?key)[\w-]*=|sig=)"
    r"('[^']*'|[^\s&;,'\"]+)",
    re.IGNORECASE,
)
"""Secret parameter of a URL or of a connection string."""


def without_credentials(text: str) -> str:
    """Returns a text with the credentials in URLs and connection strings masked."""
    return _NAMED.sub(r"\1***", _IN_URL.sub("***@", text))


_VISIBLE = {
    **{code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"},
    0x7F: "\u2421",
    **dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)], "\ufffd"),
}
"""Visible characters for those that a terminal would execute: control characters, such as the
beginning of an escape sequence, and those that change the direction of what follows."""


def printable(text: str) -> str:
    """Returns a text in which control characters are visible, except tabs and line ends."""
    return text.translate(_VISIBLE)


class PolyAIError(Exception):
    """Base class of all errors of this package.

    No message contains the credentials of a URL, or characters that a terminal would execute.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*(_message(one) if isinstance(one, str) else one for one in args))


def _message(text: str) -> str:
    return printable(without_credentials(text))


class ConfigurationError(PolyAIError):
    """A setting is missing or wrong; the message names it and the accepted values."""


class ListingError(PolyAIError):
    """The pages of the listing contradict each other, repeat, or never end."""


class DestinationError(PolyAIError):
    """The destination cannot be reached, read or written."""


class StoreError(PolyAIError):
    """The folder or bucket of recordings or published files cannot be reached, read or written."""


class BusyError(PolyAIError):
    """Another run is loading the same agent into the same dataset."""


class LeaseLostError(PolyAIError):
    """This run has lost its lease on an agent: another run may be writing."""


class ErrorDetails(TypedDict, total=False):
    """Keyword arguments of `ApiError`."""

    status: int | None
    error_code: str | None
    error_id: str | None
    sent_id: str | None
    url: str | None
    advice: str | None


class ApiError(PolyAIError):
    """A request to the PolyAI API that failed for good.

    Attributes:
        status: HTTP status; None without a complete answer.
        error_code: `error_code` of the API's error envelope, such as `CONVERSATIONS_NOT_FOUND`.
        error_id: Correlation id, which PolyAI's support asks for: the envelope's `error_id`, else
            the `X-PolyAI-Correlation-Id` header, else the id that was sent with the request.
        sent_id: The id that was sent with the request, where the API answered with another one.
        url: URL of the request, without query string and credentials.
        advice: What the reader can do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error_code: str | None = None,
        error_id: str | None = None,
        sent_id: str | None = None,
        url: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.error_id = error_id
        self.sent_id = sent_id
        self.url = url
        self.advice = advice

    def with_advice(self, advice: str) -> Self:
        """Adds a sentence to the advice; returns the error."""
        self.advice = f"{self.advice}. {advice}" if self.advice else advice
        return self

    @property
    def summary(self) -> str:
        """The message and its facts, without the advice."""
        facts = {
            "HTTP": self.status,
            "error_code": self.error_code,
            "error_id": self.error_id,
            "sent as": self.sent_id,
            "at": self.url,
        }
        known = ", ".join(f"{name} {fact}" for name, fact in facts.items() if fact)
        text = f"{self.args[0]} ({known})" if known else f"{self.args[0]}"
        return " ".join(text.split())

    def __str__(self) -> str:
        return " ".join(f"{self.summary}. {self.advice}".split()) if self.advice else self.summary


class AccessError(ApiError):
    """The API rejects the key, its permission or the agent id: every request would fail."""


class RouteGoneError(AccessError):
    """The API no longer offers the route: neither the key nor the agent id is wrong."""


class ConversationError(ApiError):
    """This conversation cannot be read, but others may be.

    Also where the API forbids it (403): only if it forbids every conversation is it the key.
    """


class UncertainError(ApiError):
    """A request that is not idempotent may have taken effect: a retry could repeat it."""


class UnavailableError(ApiError):
    """No valid answer after all attempts: the same request may succeed later.

    Attributes:
        is_overload: The API failed or did not answer in time, so that a smaller request may succeed
            at once.
    """

    is_overload = False


class StoppedError(UnavailableError):
    """The client was closed while a request was waiting: the run is ending, without a failure."""


def unexpected_error(message: str, error: Exception) -> ConversationError:
    """Builds the error of a conversation whose answer made this package fail.

    Contains the class of the error and its place, and none of its text, which can quote the answer.
    """
    place, traceback = "", error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if "polyai" in code.co_filename:
            place = f" in {code.co_filename.rpartition('polyai')[2][1:]}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    name = type(error).__name__
    return ConversationError(f"{message}: {name}{place}", error_code=name)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message that is not empty; its `repr` if there is none.

    For messages that quote an error: database drivers and dlt raise errors of many lines.
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


@contextmanager
def extra_required(feature: str, extra: str) -> Iterator[None]:
    """Converts a failed import in the block to an error that names the missing extra.

    Args:
        feature: Subject of the message, such as "the sandbox".
        extra: Name of the extra that installs the module.

    Raises:
        ConfigurationError: A module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{feature} requires {error.name}: pip install 'polyai-warehouse[{extra}]'"
        ) from error
