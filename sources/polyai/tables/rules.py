"""Rules that several parts of the project share, in Python, as SQL, or both.

Rules: complete load, missing conversations, start and end of a conversation, caller, abandoned
conversation, name of an agent. SQL files of views and recipes contain a rule as
`${name(arguments)}`; see `render`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

COMPLETE_STATUSES = ("complete", "partial")
"""Statuses of a run that read everything it was to read; in a partial one, single conversations
failed."""

OUTBOUND = "outbound"
"""Value of `direction` for conversations that the agent started."""

_OUTBOUND_ID = "OUT-"
"""Beginning of the ids of outbound calls."""

REDACTED = "REDACTED"
"""Value that PolyAI sends instead of a number to a key without PII access; never hashed or joined.
"""

DROPPED = "[dropped]"
"""Value that replaces numbers and addresses under `pii = drop`."""

_AGENT_NAME = "polyai"
"""Name that PolyAI sends as the number of its own side."""


@dataclass(frozen=True)
class FirstKnown:
    """Value of the first of several columns that is not NULL.

    Attributes:
        columns: Columns of `conversations`, in order of preference.
    """

    columns: tuple[str, ...]

    def of(self, row: Mapping[str, Any]) -> Any:
        """Returns the value for a row given as a mapping; absent columns count as NULL."""
        return next((row[name] for name in self.columns if row.get(name) is not None), None)

    def sql(self, alias: str = "") -> str:
        """Returns the SQL expression.

        Args:
            alias: Alias of `conversations` in the query; empty for none.
        """
        return f"coalesce({', '.join(_column(name, alias) for name in self.columns)})"


BEGAN_AT = FirstKnown(("started_at", "created_at"))
"""Start of a conversation; NULL if the API gave neither time."""

PLACED_AT = FirstKnown((*BEGAN_AT.columns, "fetched_at"))
"""Start of a conversation, or else the time it was read: never NULL, so that it can be sorted and
counted by day."""

ENDED_AT = FirstKnown(("finished_at", *BEGAN_AT.columns))
"""End of a conversation, or else its start."""


def has_read_all(status: str) -> bool:
    """Returns whether a run with this status read everything it was to read."""
    return status in COMPLETE_STATUSES


def is_complete_load(command: str, status: str) -> bool:
    """Returns whether a run makes its agent current.

    A backfill does not: it reads old conversations.

    Args:
        command: Command of the run, as in `sync_runs`.
        status: Status of the run, as in `sync_runs`.
    """
    return command == "load" and has_read_all(status)


def complete_load_sql() -> str:
    """Returns the SQL condition on `sync_runs` for `is_complete_load`."""
    return f"command = 'load' AND status IN ({_literals(*COMPLETE_STATUSES)})"


def missing(
    api_count: int | None,
    loaded: int | None,
    *,
    erased: int = 0,
    absent: int | None = None,
    pending: int = 0,
    excess: int | None = None,
    too_old: int = 0,
) -> int | None:
    """Returns the number of conversations that the API has and the warehouse does not.

    Args:
        api_count: Conversations that the API had; None if it was not asked.
        loaded: Conversations in the warehouse; None if they were not counted.
        erased: Conversations that `forget` erased: the API can still have them, and they are not
            to be loaded.
        absent: Loaded conversations that the API no longer lists; None if not all was listed.
        pending: Conversations not loaded that the next run reads again, and that are not to be
            counted as missing.
        excess: Conversations that the API counts beyond those that it lists; negative where it
            counts too few; None if the list and its count were never compared.
        too_old: Conversations that the API counts and that are too old for the setting
            `retention`.

    Returns:
        At least 0; None if either count is unknown.
    """
    if api_count is None or loaded is None:
        return None
    listed = api_count - (excess or 0)
    return max(0, listed - too_old - erased - (loaded - (absent or 0)) - pending)


def missing_sql(
    api_count: str, loaded: str, erased: str, absent: str, pending: str, excess: str, too_old: str
) -> str:
    """Returns the SQL expression for `missing`; NULL if `api_count` is NULL.

    Args:
        api_count: Column, as are the others. NULL in the others counts as 0.
        loaded: As in `missing`.
        erased: As in `missing`.
        absent: As in `missing`.
        pending: As in `missing`.
        excess: As in `missing`.
        too_old: As in `missing`.
    """
    counted = (erased, loaded, pending, excess, too_old)
    minus = " - ".join(f"coalesce({column}, 0)" for column in counted)
    return (
        f"CASE WHEN {api_count} IS NOT NULL THEN "
        f"greatest({api_count} + coalesce({absent}, 0) - {minus}, 0) END"
    )


def direction_of(direction: Any, conversation_id: str) -> Any:
    """Returns the direction as sent; if none was, that of an outbound call's id."""
    if direction in (None, "") and conversation_id.startswith(_OUTBOUND_ID):
        return OUTBOUND
    return direction


def direction_unknown_sql() -> str:
    """Returns the SQL condition for a row of `conversations` that lacks its id's direction."""
    return f"direction IS NULL AND conversation_id LIKE '{_OUTBOUND_ID}%'"


def caller_column(direction: str | None) -> str:
    """Returns the column that has the caller's number: of outbound calls, the number called."""
    return "to_number" if str(direction).lower() == OUTBOUND else "from_number"


def caller_sql() -> str:
    """Returns the SQL expression for the number of a conversation's caller."""
    return f"CASE WHEN lower(direction) = '{OUTBOUND}' THEN to_number ELSE from_number END"


def is_caller_known(direction: str | None, from_number: str | None) -> bool:
    """Returns whether an inbound conversation's number identifies its caller.

    It does not if PolyAI redacted it, if the load dropped it, or if it is the agent's own name.
    """
    return (
        direction is not None
        and direction != OUTBOUND
        and from_number is not None
        and from_number not in (REDACTED, _AGENT_NAME)
        and DROPPED not in from_number
    )


def caller_known_sql(alias: str = "") -> str:
    """Returns the SQL condition for `is_caller_known`, one line per part.

    Args:
        alias: Alias of the table or view in the query; empty for none.
    """
    direction, number = _column("direction", alias), _column("from_number", alias)
    return (
        f"{direction} <> '{OUTBOUND}'\n"
        f"  AND {number} NOT IN ({_literals(REDACTED, _AGENT_NAME)})\n"
        f"  AND {number} NOT LIKE '%{DROPPED}%'"
    )


def caller_spoken_sql() -> str:
    """Returns the SQL expression for whether the caller has spoken; NULL if unknown.

    Reads the columns `num_turns` and `num_silences` of a conversation, and counts of its turns:
    `num_user_turns` (words or a pressed key of the caller) and `num_worded_turns` (any words).
    """
    return (
        "CASE WHEN num_user_turns > 0 THEN TRUE WHEN num_worded_turns > 0 THEN FALSE "
        "WHEN num_turns > 0 THEN num_turns - coalesce(num_silences, 0) > 1 END"
    )


def abandoned_sql() -> str:
    """Returns the SQL condition for a conversation that its caller abandoned.

    Reads columns of `conversations_local`, `is_chat_abandoned` and `has_caller_spoken`.
    """
    return (
        "is_finished AND NOT is_handed_off AND (is_chat_abandoned\n"
        "  OR (is_voice AND NOT coalesce(has_caller_spoken, TRUE))\n"
        "  OR (is_voice AND coalesce(handle_time_seconds < 10, FALSE)))"
    )


def agent_name_sql(alias: str) -> str:
    """Returns the SQL column `agent_name` of an example query: the agent's name, NULL if unknown.

    Args:
        alias: Alias of a table or view with `agent_id` in the query.
    """
    found = f"SELECT n.agent_name FROM polyai.agents AS n WHERE n.agent_id = {alias}.agent_id"
    return f"({found}) AS agent_name"


_RENDERED: Mapping[str, Callable[..., str]] = {
    "complete_load": complete_load_sql,
    "missing": missing_sql,
    "placed_at": PLACED_AT.sql,
    "caller_known": caller_known_sql,
    "caller_spoken": caller_spoken_sql,
    "abandoned": abandoned_sql,
    "agent_name": agent_name_sql,
}
"""Rules by the name that they have in SQL files."""

_MARK = re.compile(r"\$\{(\w+)\(([^()]*)\)\}")


def render(sql: str) -> str:
    """Replaces each `${name(arguments)}` in a SQL file by the rule of that name.

    Raises:
        KeyError: There is no such rule.
    """

    def rule(mark: re.Match[str]) -> str:
        arguments = [argument.strip() for argument in mark[2].split(",") if argument.strip()]
        return _RENDERED[mark[1]](*arguments)

    return _MARK.sub(rule, sql)


def _column(name: str, alias: str) -> str:
    return f"{alias}.{name}" if alias else name


def _literals(*values: str) -> str:
    return ", ".join(f"'{value}'" for value in values)
