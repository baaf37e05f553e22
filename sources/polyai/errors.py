"""What can go wrong, filed by what the caller can do about it.

```
PolyAIError
├── ConfigurationError      stop: a setting is missing or wrong, the message says what to set
├── ListingError            stop: consecutive pages do not join, or the listing never ends
├── DestinationError        stop: the warehouse cannot be read or written
├── StoreError              stop: the folder or bucket of recordings cannot be read or written
├── BusyError               try again later: another run loads the same
├── LeaseLostError          stop: another run has taken over, this one must not write any more
└── ApiError                this request is lost; stop unless one of these says otherwise
    ├── AccessError         stop: key, region, permission or agent id is refused
    ├── ConversationError   skip and record: this one conversation cannot be read
    ├── UncertainError      look first: what was asked may have been carried out, or not
    └── UnavailableError    try again later: retries are spent, or the API asks for a long pause
        └── StoppedError    the client was closed meanwhile: neither a failure nor worth recording
```
"""

from __future__ import annotations

from typing import Literal

Subject = Literal["agent", "conversation"]
"""What a path addresses: a refused agent stops the run, a refused conversation does not."""


class PolyAIError(Exception):
    """Root of all errors that this package raises on purpose."""


class ConfigurationError(PolyAIError):
    """A setting is missing or wrong; the message names it and says what is allowed."""


class ListingError(PolyAIError):
    """The listing of conversations does not join, repeats itself or never ends."""


class DestinationError(PolyAIError):
    """The destination cannot be reached, read or written."""


class StoreError(PolyAIError):
    """The folder or bucket that keeps recordings cannot be reached, read or written."""


class BusyError(PolyAIError):
    """Another run is loading the same agent into the same dataset."""


class LeaseLostError(PolyAIError):
    """This run held an agent's lease and does not any more: another run may be writing."""


class ApiError(PolyAIError):
    """A request to the PolyAI API that is lost.

    Attributes:
        status: HTTP status, None where no complete answer came.
        error_code: `error_code` of the API's error envelope, such as `CONVERSATIONS_NOT_FOUND`.
        error_id: correlation id that PolyAI's support asks for: the envelope's `error_id`, else
            the `X-PolyAI-Correlation-Id` header.
        url: what was asked, without query string and credentials.
        advice: what the reader can do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        error_code: str | None = None,
        error_id: str | None = None,
        url: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code
        self.error_id = error_id
        self.url = url
        self.advice = advice

    def __str__(self) -> str:
        facts = {
            "HTTP": self.status,
            "error_code": self.error_code,
            "error_id": self.error_id,
            "at": self.url,
        }
        known = ", ".join(f"{name} {fact}" for name, fact in facts.items() if fact)
        text = f"{self.args[0]} ({known})" if known else f"{self.args[0]}"
        return " ".join((f"{text}. {self.advice}" if self.advice else text).split())


class AccessError(ApiError):
    """The API refuses the key, its permission or the agent id: every further request would fail."""


class ConversationError(ApiError):
    """This one conversation cannot be read: others can."""


class UncertainError(ApiError):
    """What was to be done once may have been done: to ask again could do it twice."""


class UnavailableError(ApiError):
    """No usable answer after all attempts: the same request may work later."""


class StoppedError(UnavailableError):
    """The client was closed while a request was waiting: the run is ending, nothing has failed."""


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message that is not empty; its `repr` if there is none.

    For messages that quote an error: database drivers and dlt raise errors of many lines.
    """
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def refusal(
    subject: Subject,
    agent_id: str,
    region: str,
    said: str,
    *,
    status: int,
    error_code: str | None,
    error_id: str | None,
    url: str,
) -> ApiError:
    """Files a 4xx that no further attempt can change.

    Args:
        subject: what the path addressed.
        agent_id: the agent that was asked for.
        region: where it was asked for.
        said: the API's own words, empty where it has none.
        status: HTTP status.
        error_code: from the error envelope.
        error_id: correlation id.
        url: what was asked.
    """
    kind, what, advice = ApiError, "the API does not take the request", None
    code = (error_code or "").upper()
    if status == 401:
        kind, what = AccessError, "the API key is not accepted"
        advice = (
            f"Most likely it belongs to another region than {region}: set POLYAI_REGION to one of "
            "us, eu, uk, studio. A key is good for one account, agent and region only"
        )
    elif status == 403:
        kind, what = AccessError, "the API key has no permission"
        advice = "Ask an administrator of the workspace for a key that may read conversations"
    elif status == 404 and (subject == "agent" or "AGENT" in code or "PROJECT" in code):
        kind, what = AccessError, f"agent {agent_id} is not known in region {region}"
        advice = (
            "Set POLYAI_AGENT_ID to the id that stands in Agent Studio's address, "
            f"studio.{region}.poly.ai/ACCOUNT/AGENT, or to that address"
        )
    elif subject == "conversation":
        kind, what = ConversationError, "the conversation cannot be read"
    return kind(
        f"{what}: {said}" if said else what,
        status=status,
        error_code=error_code,
        error_id=error_id,
        url=url,
        advice=advice,
    )
