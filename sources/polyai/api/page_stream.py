"""Streaming parser for pages of a listing that are too large for memory, spooled to disk.

A page of the Conversations API v3 contains up to a thousand whole conversations. Each is parsed as
soon as its last byte has arrived and is written to a temporary file; a few dozen bytes per
conversation stay in memory. A page is valid only once its closing brace has arrived.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .decoding import NotAcceptedError, OversizeError, clean, decode, encode, parse_float, parse_int

READ_BYTES = 256 * 1024
"""Bytes to read from the connection at once."""

MAX_ITEM = 64 * 2**20
"""Default of the longest list item to keep in memory, in characters."""

_SPACE = " \t\r\n"
_STRUCTURE = re.compile(r'\\.|["\[\]{}]', re.DOTALL)
"""Escapes, and the characters that open and close values."""

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


def row_hash(row: Mapping[str, Any]) -> str:
    """Hashes a list row, to detect changes of the conversation.

    Nulls are left out, so that a new field without a value does not change the hash.
    """
    filled = {name: value for name, value in row.items() if value is not None}
    return hashed(encode(filled, sort_keys=True, digits=False))


def hashed(body: bytes) -> str:
    """Hashes the JSON of a list row."""
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def read_page(
    chunks: Iterator[bytes],
    name: str,
    take: Callable[[dict[str, Any]], None],
    reject: Callable[[str, str], None],
    *,
    max_item: int = MAX_ITEM,
) -> dict[str, Any]:
    """Reads a JSON object that contains one long list of objects, item by item.

    Args:
        chunks: Body as it arrives.
        name: Key of the list.
        take: Called with each item.
        reject: Called with the hash of each item that is not an object, is longer than `max_item`
            or is nested too deeply, and with the reason. The page is read on without it.
        max_item: Longest item to keep in memory, in characters.

    Returns:
        The other fields of the object.

    Raises:
        NotAcceptedError: The body is not such an object, or is incomplete.
    """
    try:
        return _read_page(_Json(chunks, max_item), name, take, reject)
    except (ValueError, RecursionError) as error:
        if isinstance(error, NotAcceptedError):
            raise
        raise NotAcceptedError("is not JSON") from error


def _read_page(
    body: _Json,
    name: str,
    take: Callable[[dict[str, Any]], None],
    reject: Callable[[str, str], None],
) -> dict[str, Any]:
    rest: dict[str, Any] = {}
    has_list = False
    for key in body.members():
        if key == name and body.next_is("["):
            has_list = True
            for item in body.items():
                if isinstance(item, dict):
                    take(item)
                elif isinstance(item, _Skipped):
                    reject(item.hash, item.reason)
                else:
                    reject(hashed(encode(item)), "is not an object")
        else:
            value = rest[key] = body.value()
            if isinstance(value, _Skipped):
                raise OversizeError(f"has a field {key[:40]!r} that {value.reason}")
    if rest.get("success") is False:
        raise NotAcceptedError("reports that the request failed")
    if not has_list:
        raise NotAcceptedError(f"has no list of {name}")
    return rest


@dataclass(frozen=True, slots=True)
class _Skipped:
    """A value that was not kept in memory: the hash of its text, and the reason."""

    hash: str
    reason: str


class _Json:
    """Incremental JSON reader over chunks of text.

    Args:
        chunks: Body as it arrives.
        max_value: Longest value to keep in memory, in characters; longer ones are skipped.
    """

    def __init__(self, chunks: Iterator[bytes], max_value: int) -> None:
        self._chunks = chunks
        self._max_value = max_value
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
        """Reads the next value, decoded as by `decode`; `_Skipped` for one that is too large."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if len(self._text) - self._at > self._max_value:
                    return self._skip(f"is longer than {self._max_value:,} characters")
                if not self._more():
                    raise
                continue
            except RecursionError:
                return self._skip("is nested too deeply")
            if end - self._at > self._max_value:
                return self._skip(f"is longer than {self._max_value:,} characters")
            length = end - self._at
            # a number may continue in the next chunk; `1e+` is not a number yet
            if len(self._text) - end > len("e+") or not self._more():
                start, self._at = self._at, self._at + length
                if any(self._text.find(escape, start, self._at) >= 0 for escape in _NEEDS_CLEANING):
                    return self._cleaned(value, start)
                return value

    def _cleaned(self, value: Any, start: int) -> Any:
        try:
            return clean(value)
        except RecursionError:
            text = self._text[start : self._at]
            return _Skipped(hashed(text.encode("utf-8", "replace")), "is nested too deeply")

    def _skip(self, reason: str) -> _Skipped:
        """Reads past the next value without keeping it: an object, a list or a text."""
        if self._text[self._at] not in '{["':
            raise NotAcceptedError("is not JSON")
        digest = hashlib.blake2b(digest_size=16)
        depth, in_text = 0, False
        while True:
            is_over, end = False, self._at
            for match in _STRUCTURE.finditer(self._text, self._at):
                sign = match[0]
                if sign == '"':
                    in_text = not in_text
                elif not in_text and sign in "[{":
                    depth += 1
                elif not in_text and sign in "]}":
                    depth -= 1
                end = match.end()
                if is_over := depth <= 0 and not in_text:
                    break
            if not is_over:
                # the character after an escape sign may be in the next chunk
                has_open_escape = end < len(self._text) and self._text.endswith("\\")
                end = len(self._text) - has_open_escape
            digest.update(self._text[self._at : end].encode("utf-8", "replace"))
            self._at = end
            if is_over:
                return _Skipped(digest.hexdigest(), reason)
            if not self._more():
                raise NotAcceptedError("is incomplete")

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

        The buffer at least doubles, so that a value of many chunks is parsed a few times only; but
        it does not grow far beyond the longest value that is kept.
        """
        parts = [self._text[self._at :]]
        waiting = len(parts[0])
        wanted = min(2 * waiting + 2, max(self._max_value, waiting) + 1)
        for chunk in self._chunks:
            parts.append(self._utf8.decode(chunk))
            waiting += len(parts[-1])
            if waiting >= wanted:
                break
        else:
            parts.append(self._utf8.decode(b"", final=True))
        had = len(parts[0])
        self._text, self._at = "".join(parts), 0
        return len(self._text) > had
