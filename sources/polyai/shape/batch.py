"""Batch of answers: shared state of its tables, and the builder of one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

import pyarrow as pa

from ..tables.declaration import LOAD_ID, TOMBSTONE, Table
from .answer import Answer, Json
from .values import column

TurnKeys = Sequence[tuple[str, int]]
"""Conversation id and index of each turn."""


@dataclass
class Batch:
    """Shared state of all tables of a batch while they are built."""

    agent_id: str
    region: str
    load_id: str
    answers: Sequence[Answer]
    unmapped: Counter[str] = field(default_factory=Counter)
    leftovers: dict[int, Json] = field(default_factory=dict)
    """Values that no table takes, by answer, for the conversation's `extra`."""

    def keep_leftover(self, answer: int, name: str, value: Any) -> None:
        """Keeps a value that no table takes."""
        self.leftovers.setdefault(answer, {})[name] = value

    def lists(self, name: str) -> list[list[Any]]:
        """Returns a list field of each answer; a value of another type becomes a leftover."""
        found: list[list[Any]] = []
        for row, answer in enumerate(self.answers):
            value = answer.detail.get(name)
            if value is not None and not isinstance(value, list):
                if value != "":
                    self.keep_leftover(row, name, value)
                value = None
            found.append(value or [])
        return found

    def objects(self, name: str) -> list[Json]:
        """Returns an object field of each answer; a value of another type becomes a leftover."""
        found: list[Json] = []
        for row, answer in enumerate(self.answers):
            value = answer.detail.get(name)
            if value is not None and not isinstance(value, dict):
                if value not in ("", []):
                    self.keep_leftover(row, name, value)
                value = None
            found.append(value or {})
        return found

    def table(
        self,
        table: Table,
        owners: Sequence[str],
        given: dict[str, Any],
        objects: Sequence[Json] = (),
        prefix: str | None = None,
        taken: Iterable[str] = (),
        extras: dict[int, Json] | None = None,
    ) -> pa.Table:
        """Builds one table, column by column.

        Args:
            table: The declaration.
            owners: Conversation id of each row.
            given: Columns computed by the caller, as values or as Arrow arrays.
            objects: JSON object of each row, for the columns that take one of its fields.
            prefix: Path of these objects in the answer; selects the columns that read them.
            taken: Fields of the objects that computed columns take.
            extras: Values of the caller for `extra`, by row.
        """
        fields = table.fields(prefix) if prefix is not None else {}
        known = {*fields.values(), *taken}
        extras = {} if extras is None else extras
        constants = {"agent_id": self.agent_id, LOAD_ID: self.load_id}
        arrays: dict[str, pa.Array] = {}
        for declared in table.columns:
            name = declared.name
            if name in constants:
                arrays[name] = pa.repeat(constants[name], len(owners))
            elif name == "conversation_id":
                arrays[name] = pa.array(owners, pa.string())
            elif name in given and isinstance(given[name], pa.Array):
                arrays[name] = given[name]
            elif name in given or name in fields:
                source = fields.get(name, name)
                values = (
                    given[name] if name in given else list(map(dict.get, objects, repeat(source)))
                )
                arrays[name], unfit = column(values, declared.type)
                for row, value in unfit.items():
                    extras.setdefault(row, {})[source] = value
            elif name != "extra":
                arrays[name] = pa.nulls(len(owners), table.arrow_schema.field(name).type)
        if "extra" in table.arrow_schema.names:
            unknown_among: dict[tuple[str, ...], list[str]] = {}
            for row, item in enumerate(objects):
                names = tuple(item)
                unknown = unknown_among.get(names)
                if unknown is None:
                    unknown = [name for name in names if name not in known]
                    unknown_among[names] = unknown
                if unknown:
                    extras[row] = {name: item[name] for name in unknown} | extras.get(row, {})
            for key, count in Counter(chain.from_iterable(extras.values())).items():
                if key not in table.in_extra:
                    self.unmapped[f"{table.name}.{key}"] += count
            arrays["extra"], _ = column([extras.get(row) for row in range(len(owners))], "json")
        ordered = [arrays[name] for name in table.arrow_schema.names]
        return pa.Table.from_arrays(ordered, schema=table.arrow_schema)

    def with_tombstones(
        self, table: Table, rows: pa.Table, kept: Sequence[bool] | None
    ) -> pa.Table:
        """Adds a tombstone for each loaded conversation without a row, to delete its old rows."""
        emptied = {
            answer.conversation_id: None
            for index, answer in enumerate(self.answers)
            if answer.may_have_rows
            and table.is_known_to(answer.apis)
            and not (kept and kept[index])
        }
        if emptied:
            for present in rows["conversation_id"].unique().to_pylist():
                emptied.pop(present, None)
        if not emptied:
            return rows
        blank: dict[str, Any] = {
            declared.name: [0 if declared.type == "bigint" else ""] * len(emptied)
            for declared in table.columns
            if declared.required
        }
        given = {
            name: pa.array(values, table.arrow_schema.field(name).type)
            for name, values in blank.items()
        }
        given[TOMBSTONE] = pa.array([True] * len(emptied), pa.bool_())
        return pa.concat_tables([rows, self.table(table, list(emptied), given)])
