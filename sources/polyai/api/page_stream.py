"""A page of a listing that is too large to be held: read as it arrives, kept on disk.

A page of the Conversations API v3 carries whole conversations, up to a thousand of them. Each is
parsed when its last byte is there, and put aside; what stays in memory is a few dozen bytes a
conversation. A page counts only when its last brace has arrived.
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

from .decoding import NotAcceptedError, _finite, cleaned, decode, within_64_bits

READ_BYTES = 256 * 1024
"""Bytes that are taken from the connection at once."""

_SPACE = " \t\r\n"
_TO_BE_CLEANED = ("\\u0000", "\\ud", "\\uD")
"""What stands in the text of a value that may need it: U+0000, halves of a pair."""


class Spool:
    """Bytes put aside in a file without a name, which ends with the last one who holds it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as its documents
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self.length = 0

    def put(self, body: bytes) -> Document:
        """Puts a document aside."""
        with self._lock:
            self._file.seek(self.length)
            self._file.write(body)
            document = Document(self, self.length, len(body))
            self.length += len(body)
        return document

    def at(self, offset: int, length: int) -> bytes:
        """Bytes that were put aside."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(length)


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON object that was put aside."""

    spool: Spool
    offset: int
    length: int

    def read(self) -> dict[str, Any]:
        """The object, decoded as `decode` does."""
        found: dict[str, Any] = decode(self.spool.at(self.offset, self.length))
        return found


def packed(value: Any, *, by_key: bool = False) -> bytes:
    """JSON as text.

    Args:
        value: What `json` gives.
        by_key: Sort the keys, so that equal objects are equal bytes.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if by_key else None)
    except TypeError:
        # lone surrogates, or nested more deeply than orjson writes
        return json.dumps(cleaned(value), ensure_ascii=False, sort_keys=by_key).encode()


def row_hash(row: Mapping[str, Any]) -> str:
    """A hash of a list row that tells whether the conversation has changed since it was read.

    Nulls are left out, so that a field which the API begins to send empty changes nothing.
    """
    filled = {name: value for name, value in row.items() if value is not None}
    return hashlib.blake2b(packed(filled, by_key=True), digest_size=16).hexdigest()


def read_page(
    chunks: Iterator[bytes], name: str, take: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Reads a JSON object that has one long list of objects, an item at a time.

    Args:
        chunks: The body as it arrives.
        name: The list's key.
        take: Given each item.

    Returns:
        Everything else of the object.

    Raises:
        NotAcceptedError: It is not such an object, or breaks off.
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
                    raise NotAcceptedError(f"has something in {name} that is no object")
                take(item)
        else:
            rest[key] = body.value()
    if rest.get("success") is False:
        raise NotAcceptedError("says that the request failed")
    if not has_list:
        raise NotAcceptedError(f"has no list of {name}")
    return rest


class _Json:
    """JSON that is decoded value by value while its text arrives."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._decoder = json.JSONDecoder(
            parse_float=_finite, parse_int=within_64_bits, parse_constant=lambda _: None
        )
        self._text = ""
        self._at = 0

    def members(self) -> Iterator[str]:
        """The keys of the object that is the whole body; each value has to be taken after it."""
        self._expect("{")
        goes_on = not self.next_is("}")
        while goes_on:
            key = self.value()
            if not isinstance(key, str):
                raise NotAcceptedError("is not JSON")
            self._expect(":")
            yield key
            if goes_on := self.next_is(","):
                self._expect(",")
        self._expect("}")
        if self._peek():
            raise NotAcceptedError("goes on behind its end")

    def items(self) -> Iterator[Any]:
        """The items of the list that comes next."""
        self._expect("[")
        goes_on = not self.next_is("]")
        while goes_on:
            yield self.value()
            if goes_on := self.next_is(","):
                self._expect(",")
        self._expect("]")

    def value(self) -> Any:
        """The value that comes next, as `decode` gives it."""
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            length = end - self._at
            # a number may go on in what is still to come, `1e+` is no number yet
            if len(self._text) - end > len("e+") or not self._more():
                start, self._at = self._at, self._at + length
                if any(self._text.find(odd, start, self._at) >= 0 for odd in _TO_BE_CLEANED):
                    return cleaned(value)
                return value

    def next_is(self, sign: str) -> bool:
        """Whether this is what comes next."""
        return self._peek() == sign

    def _expect(self, sign: str) -> None:
        found = self._peek()
        if found != sign:
            raise NotAcceptedError("is not JSON" if found else "breaks off")
        self._at += 1

    def _peek(self) -> str:
        """The next character that is no space; none at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Takes more of the body, at least as much as is waiting; False where there is none.

        So a value that is larger than what comes at once is tried a few times only.
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
