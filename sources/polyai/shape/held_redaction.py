"""Redaction of values that are loaded already, some of which may be hashed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

from ..api.decoding import decode, encode
from ..tables.declaration import ColumnType
from ..tables.rules import DROPPED
from .redaction import NO_LEVEL, Level, Redaction

_HASH = re.compile("[0-9a-f]{64}(?=(?:[0-9a-f]{64})*(?![0-9a-f]))")
"""Hash, which may follow other hexadecimal digits."""


class HeldRedaction(Redaction):
    """Redaction of loaded values, which leaves hashes as they are, or drops them.

    So a run over rows that are converted already changes nothing.

    Attributes:
        drops_hashes: Whether 64 hexadecimal digits are a hash that is to be dropped.
    """

    drops_hashes = False

    def keeping_hashes(self) -> HeldRedaction:
        """Returns a redaction that leaves hashes as they are."""
        other = copy(self)
        other.drops_hashes = False
        return other

    def column(
        self,
        value: Any,
        column_type: ColumnType,
        field: str,
        level: Level = NO_LEVEL,
        own_id: Any = None,
    ) -> Any:
        """Returns the value of a column as it would be if its field had been redacted.

        Args:
            value: The value; JSON as text.
            column_type: Type of the column.
            field: Name of the field that the value was sent in.
            level: Level of the field's own fields, if it is an object.
            own_id: Id of the conversation.

        Returns:
            The same object if nothing is to be redacted; a text for a number that is redacted.
        """
        if value is None or self._pii == "keep":
            return value
        if column_type == "json":
            return self._json(value, field, level, own_id)
        if column_type == "text":
            found = as_sent(value)
            if found is not value:
                return self._json(value, field, level, own_id)
            return self._redacted(value, field, level, own_id)
        return self._redacted(value, field, level, own_id, column_type)

    def _json(self, text: str, field: str, level: Level, own_id: Any) -> str:
        found = decode(text.encode())
        redacted = self._redacted(found, field, level, own_id, "json")
        # not encoded again for its notation alone
        return text if redacted == found else encode(redacted).decode()

    def leftovers(self, text: str, level: Level, own_id: Any) -> str:
        """Returns the fields without a column, redacted as fields of their own level."""
        found = decode(text.encode())
        if self._pii == "keep" or not isinstance(found, dict):
            return text
        redacted = self._object(found, "", level, own_id)
        return text if redacted == found else encode(redacted).decode()

    def with_fields(self, extra: str | None, fields: Mapping[str, Any]) -> str:
        """Returns `extra` with these fields, redacted already."""
        known = {} if extra is None else decode(extra.encode())
        return encode(known | dict(fields)).decode()

    def key(self, name: str) -> str:
        """Returns the key of an object without numbers and addresses."""
        return (
            self._text(name, "", None) if self._pii != "keep" and self._is_suspect(name) else name
        )

    def text(self, text: str) -> str:
        if self._pii == "keep":
            return text
        return self._around_hashes(text, super().text)

    def _is_suspect(self, key: str) -> bool:
        return super()._is_suspect(key) or _HASH.search(key) is not None

    def _text(self, text: str, name: str, kind: ColumnType | None) -> str:
        redact = super()._text
        return self._around_hashes(text, lambda part: redact(part, name, kind))

    def _around_hashes(self, text: str, redact: Callable[[str], str]) -> str:
        parts, place = [], 0
        for match in _HASH.finditer(text):
            parts += [redact(text[place : match.start()])]
            parts += [DROPPED if self.drops_hashes else match[0]]
            place = match.end()
        return "".join([*parts, redact(text[place:])])


def as_sent(text: str) -> Any:
    """Returns the object or list that a column of texts has as JSON; any other text as it is."""
    if text[:1] not in ("{", "["):
        return text
    try:
        found = decode(text.encode())
    except ValueError:
        return text
    # JSON that was sent as a text is rarely as compact as ours
    return found if encode(found).decode() == text else text
