"""Rows that are loaded already, as they would be under another privacy mode.

Redaction applies to a conversation before it is shaped. Here each value is redacted as its field
would have been, by the field's name and level, so that rows equal those of a load in that mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..tables import children, names, turns
from ..tables.audit import FETCH_FAILURES, SYNC_RUNS, WRITE_BACKS
from ..tables.debug_chats import DEBUG_CHAT_TURNS, DEBUG_CHATS
from ..tables.declaration import OWNER, Column, Table
from ..tables.recordings import RECORDINGS
from ..tables.registry import conversation_tables, key_of
from ..tables.rules import DROPPED
from .column_rules import NO_RULES, ColumnRules
from .held_redaction import HeldRedaction
from .held_transcripts import rows_without_transcript
from .metrics import value_boolean, value_number
from .redaction import NO_LEVEL, unused_key

Row = dict[str, Any]

_FIELDS: Mapping[tuple[str, str], str] = {
    ("conversations", "summary"): "content",
    ("conversations", "num_turns"): "num_turns",
    ("conversations", "num_silences"): "num_silences",
    ("conversations", "num_ood"): "num_ood",
    ("turns", "latency_seconds"): "latency",
    ("conversations", "poly_score_scale"): "",
    ("conversation_tags", "tag"): "tags",
}
"""Fields of columns whose declared source is not the name of one; empty for none."""

_MESSAGES: Mapping[Table, tuple[str, ...]] = {
    FETCH_FAILURES: ("error_code", "error_id", "message"),
    RECORDINGS: ("error_code",),
    WRITE_BACKS: ("note", "error_code", "error_id", "message"),
    DEBUG_CHATS: ("error",),
    DEBUG_CHAT_TURNS: ("user_input", "response", "metadata", "check", "failure", "extra"),
    SYNC_RUNS: ("error", "unmapped_fields"),
}
"""Columns of other tables that are redacted."""

_VERSION = (names.DEPLOYMENTS.name, "version")
"""Column whose values may be hashes that are not those of numbers."""

_HASH_LENGTH = 64


def redacted_tables() -> tuple[Table, ...]:
    """Returns all tables that can hold personal data."""
    return (*conversation_tables(), *_NAMES, *_MESSAGES)


_NAMES = (names.AGENTS, names.DEPLOYMENTS, names.VARIANTS, names.PHONE_NUMBERS)


class HeldRows:
    """Rows of a warehouse under another privacy mode.

    Args:
        redaction: Redaction of that mode.
        drops_transcripts: The mode drops transcripts.
        rules: Rules per column.
    """

    def __init__(
        self,
        redaction: HeldRedaction,
        *,
        drops_transcripts: bool,
        rules: ColumnRules = NO_RULES,
    ) -> None:
        self._redaction = redaction
        self._of_versions = redaction.keeping_hashes()
        self._drops_transcripts = drops_transcripts
        self._rules = rules

    def converted(self, table: Table, rows: Sequence[Row]) -> list[Row]:
        """Returns the rows as they would have been loaded.

        Args:
            table: One of `redacted_tables()`.
            rows: All rows of some conversations, or any of another table; JSON columns as text.
                They are changed in place.
        """
        found = list(rows)
        for row in found:
            self._rules.empty_dropped(table, row)
        if self._drops_transcripts:
            if table in conversation_tables():
                found = rows_without_transcript(table, found)
            elif table is DEBUG_CHAT_TURNS:
                for row in found:
                    _drop_chat(row)
        if columns := _MESSAGES.get(table):
            for row in found:
                self._redact_messages(table, columns, row)
        elif table is children.METRICS:
            self._redact_metrics(found)
        else:
            for row in found:
                self._redact(table, row)
        if table in _NAMES:
            return _of_distinct_keys(table, found)
        return found

    def _redact(self, table: Table, row: Row) -> None:
        level, own_id = self._redaction.levels.get(table, NO_LEVEL), row.get("conversation_id")
        kept = self._rules.kept.get(table, ())
        extra: dict[str, Any] = {}
        for column, field in _redacted_columns(table):
            name, value = column.name, row[column.name]
            if value is None or name in kept:
                continue
            if name == "extra":
                row[name] = self._redaction.leftovers(value, level, own_id)
                continue
            if table is turns.TURN_ENTITIES:
                row[name] = self._entity(row, name)
                continue
            nested = level.nested.get(field) or level.others or NO_LEVEL
            is_version = (table.name, name) == _VERSION and len(value) == _HASH_LENGTH
            redaction = self._of_versions if is_version else self._redaction
            redacted = redaction.column(value, column.type, field, nested, own_id)
            if redacted is value:
                continue
            row[name] = redacted
            if column.type not in ("text", "json"):
                # as a value that does not fit the type of its column
                row[name] = None
                extra[field] = redacted
        if extra:
            self._keep_in_extra(table, row, extra)

    def _keep_in_extra(self, table: Table, row: Row, extra: Mapping[str, Any]) -> None:
        if "poly_score_scale" in row and row["poly_score"] is None:
            row["poly_score_scale"] = None
        if table is turns.TURNS and row["latency"] is not None:
            # of an object, which is redacted itself
            extra = {name: value for name, value in extra.items() if name != "latency"}
        if extra and "extra" in table.arrow_schema.names:
            row["extra"] = self._redaction.with_fields(row["extra"], extra)

    def _entity(self, row: Row, name: str) -> Any:
        if name == "name":
            return self._redaction.key(row["name"])
        return self._redaction.column(row["value"], "text", row["name"] or "entities")

    def _redact_messages(self, table: Table, columns: Sequence[str], row: Row) -> None:
        types = {column.name: column.type for column in table.columns}
        for name in columns:
            row[name] = self._redaction.column(row[name], types[name], "")

    def _redact_metrics(self, rows: Sequence[Row]) -> None:
        by_owner: dict[tuple[Any, ...], list[Row]] = {}
        for row in rows:
            by_owner.setdefault(tuple(row[name] for name in OWNER), []).append(row)
        for group in by_owner.values():
            known = dict.fromkeys(row["name"] for row in group)
            renamed: dict[str, str] = {}
            for name in known:
                key = self._redaction.key(name)
                if key != name:
                    renamed[name] = unused_key(key, renamed.values(), known)
            for row in group:
                value = self._redaction.column(row["value"], "text", row["name"])
                if value is not row["value"] or self._drops_transcripts:
                    row["value"] = value
                    row["value_number"] = value_number(value)
                    row["value_boolean"] = value_boolean(value)
                row["name"] = renamed.get(row["name"], row["name"])


def _redacted_columns(table: Table) -> list[tuple[Column, str]]:
    """Returns the columns that take a field of the API, with its name."""
    if table not in _COLUMNS:
        _COLUMNS[table] = [
            (column, field)
            for column in table.columns
            if column.name not in OWNER and (field := _field(table, column))
        ]
    return _COLUMNS[table]


_COLUMNS: dict[Table, list[tuple[Column, str]]] = {}


def _field(table: Table, column: Column) -> str:
    if column.name in ("extra", "earlier_names") or table is children.NOTES:
        return "note" if column.name == "note" else column.name if column.type == "json" else ""
    known = _FIELDS.get((table.name, column.name))
    source = column.source or column.source_v3
    return known if known is not None else source.rsplit(".", 1)[-1].rstrip("[]")


def _drop_chat(row: Row) -> None:
    for name in ("user_input", "response", "metadata", "extra"):
        row[name] = None
    for name in ("check", "failure"):
        row[name] = None if row[name] is None else DROPPED


def _of_distinct_keys(table: Table, rows: Sequence[Row]) -> list[Row]:
    """Returns the first row of each key, as `name_rows` does; none for a key that is dropped."""
    key = key_of(table)
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        values = tuple(row[name] for name in key)
        if DROPPED not in values:
            found.setdefault(values, row)
    return list(found.values())
