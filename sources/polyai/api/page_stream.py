"""Streaming parser for pages of a listing that are too large for memory, spooled to disk.

A page of the Conversations API v3 contains up to a thousand whole conversations. Each is parsed as
soon as its last byte has arrived and is written to a temporary file; a few dozen bytes per
conversation stay in memory. A page is valid only once its closing brace has arrived.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from .decoding import NotAcceptedError, clean, decode, parse_float, parse_int

READ_BYTES = 256 * 1024
"""Bytes to read from the connection at once."""

_SPACE = " \t\r\n"
_NEEDS_CLEANING = ("\\u0000", "\\ud", "\\uD")
"""Escapes of U+0000 and of surrogates: a value whose JSON contains one may need `clean`."""


class Spool:
    """Temporary file of documents, deleted with the last reference to it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 closed with the last reference
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self.length = 0

    def put(self, body: bytes) -> Document:
        """Appends a document."""
        with self._lock:
            self._file.seek(self.length)
            self._file.write(body)
            document = Document(self, self.length, len(body))
            self.length += len(body)
        return document

    def read(self, offset: int, length: int) -> bytes:
        """Reads bytes of an earlier document."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object in a spool."""

    spool: Spool
    offset: int
    length: int

    def read(self) -> dict[str, Any]:
        """Returns the object, decoded by `decode`."""
        value: dict[str, Any] = decode(self.spool.read(self.offset, self.length))
        return value


def encode(value: Any, *, sort_keys: bool = False) -> bytes:
    """Encodes a JSON value.

    Args:
        value: Value as `json` decodes it.
        sort_keys: Sort the keys, so that equal objects become equal bytes.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError:
        # lone surrogates, or nested more deeply than orjson supports
        return json.dumps(clean(value), ensure_ascii=False, sort_keys=sort_keys).encode()


def row_hash(row: Mapping[str, Any]) -> str:
    """Hashes a list row, to detect changes of the conversation.

    Nulls are left out, so that a new field without a value does not change the hash.
    """
    filled = {name: value for name, value in row.items() if value is not None}
    return hashlib.blake2b(encode(filled, sort_keys=True), digest_size=16).hexdigest()


def read_page(
    chunks: Iterator[bytes], name: str, take: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Reads a JSON object that contains one long list of objects, item by item.

    Args:
        chunks: Body as it arrives.
        name: Key of the list.
        take: Called with each item.

    Returns:
        The other fields of the object.

    Raises:
        NotAcceptedError: The body is not such an object, or is incomplete.
    """
    try:
        return _read_page(_Json(chunks), name, take)
    except (ValueError, RecursionError) as error:
        if isinstance(error, NotAcceptedError):
            raise
        raise NotAcceptedError("is not JSON") from error


def _read_page(body: _Json, name: str, take: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    rest: dict[str, Any] = {}
    has_list = False
    for key in body.members():
        if key == name and body.next_is("["):
            has_list = True
            for item in body.items():
                if not isinstance(item, dict):
                    raise NotAcceptedError(f"has an item in {name} that is not an object")
                take(item)
        else:
            rest[key] = body.value()
    if rest.get("success") is False:
        raise NotAcceptedError("reports that the request failed")
    if not has_list:
        raise NotAcceptedError(f"has no list of {name}")
    return rest


class _Json:
    """Incremental JSON reader over chunks of text."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._decoder = json.JSONDecoder(
            parse_float=parse_float, parse_int=parse_int, parse_constant=lambda _: None
        )
        self._text = ""
        self._at = 0

    def members(self) -> Iterator[str]:
        """Yields the keys of the top-level object; the caller reads each value in between."""
        self._expect("{")
        has_more = not self.next_is("}")
        while has_more:
            key = self.value()
            if not isinstance(key, str):
                raise NotAcceptedError("is not JSON")
            self._expect(":")
            yield key
            if has_more := self.next_is(","):
                self._expect(",")
        self._expect("}")
        if self._peek():
            raise NotAcceptedError("has more after its end")

    def items(self) -> Iterator[Any]:
        """Yields the items of the next value, a list."""
        self._expect("[")
        has_more = not self.next_is("]")
        while has_more:
            yield self.value()
            if has_more := self.next_is(","):
                self._expect(",")
        self._expect("]")

    def value(self) -> Any:
        """Reads the next value, decoded as by `decode`."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            length = end - self._at
            # a number may continue in the next chunk; `1e+` is not a number yet
            if len(self._text) - end > len("e+") or not self._more():
                start, self._at = self._at, self._at + length
                if any(self._text.find(escape, start, self._at) >= 0 for escape in _NEEDS_CLEANING):
                    return clean(value)
                return value

    def next_is(self, sign: str) -> bool:
        """Returns whether the next character is `sign`."""
        return self._peek() == sign

    def _expect(self, sign: str) -> None:
        found = self._peek()
        if found != sign:
            raise NotAcceptedError("is not JSON" if found else "is incomplete")
        self._at += 1

    def _peek(self) -> str:
        """Returns the next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Reads more of the body; False at its end.

        The buffer at least doubles, so that a value of many chunks is parsed a few times only.
        """
        parts = [self._text[self._at :]]
        waiting, wanted = len(parts[0]), len(parts[0]) + 1
        for chunk in self._chunks:
            parts.append(self._utf8.decode(chunk))
            waiting += len(parts[-1])
            if waiting >= 2 * wanted:
                break
        else:
            parts.append(self._utf8.decode(b"", final=True))
        had = len(parts[0])
        self._text, self._at = "".join(parts), 0
        return len(self._text) > had
