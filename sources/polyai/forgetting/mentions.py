"""Mentions of callers in conversations of others: in transcripts, arguments, notes, any text.

SQL finds texts with the last digits of the number, and the matcher of `pii`, which knows the
spellings, decides about each. Only ids leave this module, never texts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from ..shape.caller_identity import keyed_hash, spellings
from ..shape.personal_data import replace_personal_data
from ..tables.declaration import LOAD_ID, OWNER, Column, Table
from ..tables.registry import erased_tables
from ..warehouse.queries import Warehouse
from ..warehouse.values import NATIVE

ENDING_DIGITS = 6
"""Digits at the end of a number that all of its spellings share."""

_GAP = r"([^0-9]|%(25)*[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4}){0,12}"
"""Characters between two digits of a number, plain or encoded. The matcher accepts fewer."""

_WORD = re.compile("[a-z0-9]+")

_BATCH = 100
"""Conversations whose texts are read together."""


@dataclass(frozen=True)
class Sought:
    """A caller in texts.

    Attributes:
        caller: Number or address.
        region: As for `normalize_number`.
        pii_secret: Key of the hashes that may be in texts instead; empty for none.
    """

    caller: str
    region: str
    pii_secret: str

    @cached_property
    def forms(self) -> frozenset[str]:
        """Forms of the caller, of which one has to be that of a found text."""
        return spellings(self.caller, self.region)

    @cached_property
    def hashes(self) -> frozenset[str]:
        """Hashes that stand for the caller where `pii` is `hash`."""
        if not self.pii_secret:
            return frozenset()
        return frozenset(keyed_hash(form, self.pii_secret) for form in self.forms)

    def conditions(self, text: str, dialect: str) -> Iterator[tuple[str, str]]:
        """Yields conditions on a text, of which one is true for each mention, with their parameter.

        Args:
            text: SQL expression.
            dialect: sqlglot's name of the dialect.
        """
        for hashed in sorted(self.hashes):
            yield f"{text} LIKE %s", f"%{hashed}%"
        for form in sorted(self.forms):
            if "@" in form:
                word = max(_WORD.findall(form.partition("@")[0]), key=len, default="@")
                yield f"lower({text}) LIKE %s", f"%{word}%"
                continue
            digits = form[-ENDING_DIGITS:]
            if dialect not in NATIVE:
                yield f"{text} LIKE %s", f"%{'%'.join(digits)}%"
            elif dialect == "postgres":
                yield f"{text} ~ %s", _GAP.join(digits)
            else:
                yield f"regexp_matches({text}, %s)", _GAP.join(digits)

    def is_in(self, text: str) -> bool:
        """Returns whether a text mentions the caller."""
        if any(hashed in text for hashed in self.hashes):
            return True
        found: list[str] = []

        def note(number_or_address: str) -> str:
            found.append(number_or_address)
            return ""

        replace_personal_data(text, self.region, note)
        return any(not self.forms.isdisjoint(spellings(one, self.region)) for one in found)


def find_mentions(
    warehouse: Warehouse,
    agent_id: str,
    callers: Sequence[str],
    *,
    region: str,
    pii_secret: str,
    besides: Collection[str],
) -> dict[str, list[str]]:
    """Finds conversations in which callers are mentioned.

    Args:
        warehouse: The warehouse.
        agent_id: The agent.
        callers: Numbers or addresses.
        region: As for `normalize_number`.
        pii_secret: Key of the hashes that may be in texts instead; empty for none.
        besides: Conversations that are not looked at.

    Returns:
        By conversation id, in order, the places, such as `turns.user_input`.
    """
    sought = [Sought(caller, region, pii_secret) for caller in callers]
    places: dict[str, list[str]] = {}
    with warehouse.kept_open():
        for table in erased_tables():
            columns = _text_columns(warehouse, table)
            ids = _candidates(warehouse, agent_id, table, columns, sought)
            others = [name for name in ids if name not in besides]
            for start in range(0, len(others), _BATCH):
                batch = others[start : start + _BATCH]
                for name, place in _found(warehouse, agent_id, table, columns, sought, batch):
                    if place not in places.setdefault(name, []):
                        places[name].append(place)
    return {name: sorted(found) for name, found in sorted(places.items())}


def _text_columns(warehouse: Warehouse, table: Table) -> list[Column]:
    """Returns the columns of a table that can mention a caller."""
    existing = warehouse.existing_columns(table.name) or frozenset()
    # an id can be a number; that of a child is its parent's
    ids = (LOAD_ID, *OWNER) if table.is_child else (LOAD_ID, "agent_id")
    return [
        column
        for column in table.columns
        if column.type in ("text", "json") and column.name in existing and column.name not in ids
    ]


def _candidates(
    warehouse: Warehouse,
    agent_id: str,
    table: Table,
    columns: Sequence[Column],
    sought: Sequence[Sought],
) -> list[str]:
    """Returns the conversations with a text that may mention a caller."""
    conditions = [
        condition
        for column in columns
        for one in sought
        for condition in one.conditions(_as_text(warehouse, column), warehouse.dialect)
    ]
    if not conditions:
        return []
    rows = warehouse.rows(
        f"SELECT DISTINCT conversation_id FROM {{{table.name}}} WHERE agent_id = %s AND "
        f"conversation_id IS NOT NULL AND ({' OR '.join(sql for sql, _ in conditions)})",
        agent_id,
        *(parameter for _, parameter in conditions),
    )
    return sorted(name for (name,) in rows)


def _found(
    warehouse: Warehouse,
    agent_id: str,
    table: Table,
    columns: Sequence[Column],
    sought: Sequence[Sought],
    conversation_ids: Sequence[str],
) -> Iterator[tuple[str, str]]:
    """Yields conversation and place of each mention."""
    texts = ", ".join(_as_text(warehouse, column) for column in columns)
    marks = ", ".join(["%s"] * len(conversation_ids))
    for name, *values in warehouse.rows(
        f"SELECT conversation_id, {texts} FROM {{{table.name}}} "
        f"WHERE agent_id = %s AND conversation_id IN ({marks})",
        agent_id,
        *conversation_ids,
    ):
        for column, value in zip(columns, values):
            if value and any(one.is_in(text) for text in _texts(value, column) for one in sought):
                yield name, f"{table.name}.{column.name}"


def _as_text(warehouse: Warehouse, column: Column) -> str:
    name = warehouse.name(column.name)
    return f"CAST({name} AS VARCHAR)" if column.type == "json" else name


def _texts(value: Any, column: Column) -> Iterator[str]:
    """Yields the texts of a column's value: of JSON all keys and values."""
    if column.type == "json" and isinstance(value, str):
        with suppress(orjson.JSONDecodeError):
            value = orjson.loads(value)
    yield from _leaves(value)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(int(value)) if float(value).is_integer() else str(value)
