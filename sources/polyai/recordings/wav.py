"""WAV files: written as they arrive, checked for completeness, and their audio format.

Two things show that a file is complete: the transport (Content-Length met, or chunked encoding
ended) and the lengths that the file states. Where only the file disagrees, by a little, the file is
stored and marked, because another request would bring the same bytes; beyond that it is refused.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..api.decoding import NotAcceptedError, UnusableError
from .wav_format import Sound, sound_of

ReadAt = Callable[[int, int], bytes]
"""Reads up to so many bytes (second) from a position (first); fewer at the end of the file."""

_HEADER = struct.Struct("<4sI4s")
_CHUNK = struct.Struct("<4sI")
_LENGTHS = struct.Struct("<QQ")

_HEAD_BYTES = 4096
"""Start of a file that is kept in memory: the chunks before its audio are seldom longer."""

_KINDS = (b"RIFF", b"RF64", b"BW64")
"""The last two are for more than 4 GB: their lengths are in a chunk `ds64`."""

_NO_LENGTH = 0x7FFF_0000
"""Programs that do not know a length in advance write one from here on; no file is that long."""

MAX_BYTES = _NO_LENGTH
"""Size of the largest file: 37 hours of 16-bit audio at 8 kHz."""

TOLERATED_BYTES = 64
"""Bytes by which a file may be shorter than it states: lengths that count the file's header (8 to
44 bytes), a pad byte or a small chunk that were not written. At 8 kHz they are 4 ms."""

TOLERATED_TRAILING_BYTES = 64 * 1024
"""Bytes that may follow the stated end: tags, and blocks filled up with zeros."""

LENGTH_MISMATCH = "LENGTH_MISMATCH"
"""The lengths that the file states are not those of its content."""

LENGTH_UNKNOWN = "LENGTH_UNKNOWN"
"""Neither the transport nor the file states a length, so an early end would not show."""

NOT_WAV = "NOT_WAV"
"""Something else than a WAV file was sent."""

NO_AUDIO = "NO_AUDIO"
"""The file has no audio at all, although it states that it has, or no chunk for it."""

TOO_LARGE = "TOO_LARGE"
"""The file is larger than `MAX_BYTES`."""

REFUSALS = frozenset({LENGTH_MISMATCH, NOT_WAV, NO_AUDIO, TOO_LARGE})
"""Codes of files that are not stored; an immediate retry would bring the same bytes."""

_CHUNK_NAMES = frozenset(
    (b"data", b"fmt ", b"fact", b"LIST", b"JUNK", b"PAD ", b"FLLR", b"bext", b"iXML")
) | frozenset((b"id3 ", b"ID3 ", b"cue ", b"smpl", b"inst", b"PEAK", b"cart", b"_PMX", b"ds64"))
"""Usual chunks, by which the next one is found where its place is uncertain."""

_NOT_CLOSED = 16
"""Size by the header of a file whose program was ended before it wrote the lengths."""


@dataclass(frozen=True)
class Received:
    """A complete file.

    Attributes:
        bytes: Its size.
        sha256: Its hash, in hexadecimal.
        sound: Its audio format.
        mark: `LENGTH_MISMATCH`, `LENGTH_UNKNOWN`, or None.
    """

    bytes: int
    sha256: str
    sound: Sound
    mark: str | None = None


@dataclass(frozen=True)
class Checked:
    """Result of the check of a file.

    Attributes:
        sound: Its audio format.
        mark: As of `Received`.
    """

    sound: Sound
    mark: str | None = None


def receive(parts: Iterable[bytes], path: Path, *, is_framed: bool = False) -> Received:
    """Writes a WAV file as it arrives.

    Args:
        parts: Its bytes.
        path: Target; overwritten.
        is_framed: Whether the end of `parts` proves that all of them arrived.

    Raises:
        NotAcceptedError: It is incomplete; another request may bring the rest.
        UnusableError: It is not a WAV file, is too large, or contradicts its own lengths.
    """
    digest, size, head = hashlib.sha256(), 0, b""
    limit: float = TOLERATED_TRAILING_BYTES
    with path.open("wb+") as file:

        def read_at(position: int, count: int) -> bytes:
            # nearly always still in memory: system calls by many threads at once are expensive
            if position + count <= len(head):
                return head[position : position + count]
            file.seek(position)
            return file.read(count)

        for part in parts:
            file.write(part)
            digest.update(part)
            if len(head) < _HEAD_BYTES:
                head += part[: _HEAD_BYTES - len(head)]
                # a gateway's answer in place of a file need not be read to its end
                if size < _HEADER.size <= len(head):
                    _stated_bytes(head[: _HEADER.size])
            size += len(part)
            if size > MAX_BYTES:
                raise UnusableError(f"is larger than {MAX_BYTES:,} bytes", TOO_LARGE)
            if size > limit:
                limit = _size_limit(read_at, size)
                file.seek(size)
        checked = check_whole(read_at, size, is_framed=is_framed)
    return Received(size, digest.hexdigest(), checked.sound, checked.mark)


@dataclass(frozen=True)
class _Layout:
    """Chunks of a file, as far as its audio.

    Attributes:
        stated: Size of the file by its header; None if the header leaves it open.
        encoding: Body of the chunk `fmt `.
        data_at: Position of the audio; None if there is none (yet).
        data_bytes: Its stated length; None if the file leaves it open.
        is_regular: Chunks are padded to even lengths, and the length of the audio is not zero
            where audio follows.
    """

    stated: int | None
    encoding: bytes
    data_at: int | None
    data_bytes: int | None
    is_regular: bool

    @property
    def end(self) -> int | None:
        """Stated end of the file: that of its header or of its audio; None if both are open."""
        data_end = (
            None
            if self.data_at is None or self.data_bytes is None
            else self.data_at + self.data_bytes
        )
        ends = [end for end in (self.stated, data_end) if end is not None]
        return max(ends) if ends else None


def check_whole(read_at: ReadAt, size: int, *, is_framed: bool = False) -> Checked:
    """Compares the lengths that a WAV file states with its size, and reads its audio format.

    Args:
        read_at: Reads from the file.
        size: Its bytes.
        is_framed: Whether the transport has proven that these are all bytes.

    Raises:
        NotAcceptedError: It is incomplete; another request may bring the rest.
        UnusableError: It is not a WAV file, or contradicts its own lengths.
    """
    if size < _HEADER.size and not is_framed:
        raise NotAcceptedError("is not a WAV file" if size else "is empty")
    found = _layout(read_at, size)
    if found.stated is not None and size < found.stated:
        _check_missing(size, found.stated, "bytes arrived", is_framed=is_framed)
    if found.data_at is None:
        _refuse("is incomplete, or a WAV file without audio", NO_AUDIO, is_framed=is_framed)
    available = size - found.data_at
    if found.data_bytes is None:
        if not available:
            _refuse("is a WAV file without audio or length", NO_AUDIO, is_framed=is_framed)
        data_bytes = available
    else:
        data_bytes = min(found.data_bytes, available)
        if available < found.data_bytes:
            _check_missing(available, found.data_bytes, "bytes of audio", is_framed=is_framed)
    end = found.end
    if end is not None and size > end + TOLERATED_TRAILING_BYTES:
        _refuse_trailing(size - end)
    mark = None
    if not _agrees(found, read_at, size):
        mark = LENGTH_MISMATCH
    elif end is None and not is_framed:
        mark = LENGTH_UNKNOWN
    return Checked(sound_of(found.encoding, data_bytes), mark)


def _layout(read_at: ReadAt, size: int) -> _Layout:
    """Reads the chunks of a file, which may still be growing."""
    stated = _stated_bytes(read_at(0, _HEADER.size))
    is_open = stated == _CHUNK.size or stated >= _NO_LENGTH
    position, encoding, long_data, is_regular = _HEADER.size, b"", 0, True
    while position + _CHUNK.size <= size:
        name, length = _CHUNK.unpack(read_at(position, _CHUNK.size))
        position += _CHUNK.size
        if name == b"fmt " and not encoding:
            encoding = read_at(position, min(length, _HEAD_BYTES))
        if name == b"ds64":
            lengths = read_at(position, _LENGTHS.size)
            long_data = _LENGTHS.unpack(lengths)[1] if len(lengths) == _LENGTHS.size else 0
        if name == b"data":
            data_bytes = length if length < _NO_LENGTH else long_data or None
            if length == 0 and position == size and (is_open or stated == _NOT_CLOSED):
                data_bytes = None
            elif length == 0 and position < size and not _is_chunk(read_at(position, 4)):
                # written before the audio, and never again; the header may be as old
                data_bytes = None
                is_regular = is_regular and is_open
                is_open = is_open or stated <= position
            return _Layout(None if is_open else stated, encoding, position, data_bytes, is_regular)
        position += length
        if length % 2:
            # padded to an even length, but some programs forget that
            around = read_at(position, 5)
            if _is_chunk(around[:4]) and not _is_chunk(around[1:]):
                is_regular = False
            else:
                position += 1
    return _Layout(None if is_open else stated, encoding, None, None, is_regular)


def _size_limit(read_at: ReadAt, size: int) -> float:
    """Returns the size that a file that is still arriving may reach before it is checked again."""
    found = _layout(read_at, size)
    if found.end is None:
        return MAX_BYTES if found.data_at is not None else 2 * size
    if size > found.end + TOLERATED_TRAILING_BYTES:
        _refuse_trailing(size - found.end, "or more ")
    return found.end + TOLERATED_TRAILING_BYTES


def _agrees(found: _Layout, read_at: ReadAt, size: int) -> bool:
    """Returns whether the lengths of header and audio are those of the content."""
    if not found.is_regular or (found.stated is not None and found.stated != size):
        return False
    if found.data_at is None or found.data_bytes is None:
        return True
    rest = found.data_at + found.data_bytes
    # the next chunk may only follow where the audio ends
    padded = rest + found.data_bytes % 2
    return padded >= size >= rest or _is_name(read_at(padded, 4))


def _is_chunk(name: bytes) -> bool:
    return name in _CHUNK_NAMES


def _is_name(name: bytes) -> bool:
    """Returns whether four bytes can be the name of a chunk: printable ASCII."""
    return len(name) == 4 and name.isascii() and name.decode("ascii").isprintable()


def _check_missing(found: int, expected: int, what: str, *, is_framed: bool) -> None:
    """Refuses a file that lacks more bytes than are tolerated of a complete answer."""
    message = f"is incomplete: {found} of {expected} {what}"
    if not is_framed:
        raise NotAcceptedError(message)
    if expected - found > TOLERATED_BYTES:
        raise UnusableError(f"{message}, although all of it was sent", LENGTH_MISMATCH)


def _refuse(message: str, code: str, *, is_framed: bool) -> NoReturn:
    raise UnusableError(message, code) if is_framed else NotAcceptedError(message)


def _refuse_trailing(trailing: int, more: str = "") -> NoReturn:
    raise UnusableError(f"has {trailing:,} {more}bytes after its stated end", LENGTH_MISMATCH)


def _stated_bytes(header: bytes) -> int:
    """Returns the file's size according to its header."""
    if len(header) == _HEADER.size:
        kind, length, form = _HEADER.unpack(header)
        if kind in _KINDS and form == b"WAVE":
            return int(length) + _CHUNK.size
    raise UnusableError("is not a WAV file" if header else "is empty", NOT_WAV)
