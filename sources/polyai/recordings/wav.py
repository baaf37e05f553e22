"""WAV files: written as they arrive, found whole or not, and what is in them."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..api.decoding import NotAcceptedError

_HEADER = struct.Struct("<4sI4s")
_CHUNK = struct.Struct("<4sI")
_LENGTHS = struct.Struct("<QQ")

_HEAD_BYTES = 4096
"""Of a file, kept while it is written: the chunks before its sound are seldom longer."""

_KINDS = (b"RIFF", b"RF64", b"BW64")
"""The last two are for more than 4 GB: their lengths stand in a chunk `ds64`."""

_NO_LENGTH = 0x7FFF_0000
"""Programs that do not know a length beforehand write one from here on that no file reaches."""

_WIDTHS = {
    "PCM_S8": 1,
    "PCM_U8": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
    "ULAW": 1,
    "ALAW": 1,
}
"""Bytes of a sample by libsndfile's name of its encoding; others pack several samples."""


@dataclass(frozen=True)
class Received:
    """A file that is whole."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Sound:
    """What a file says of its sound; the names are columns of `recordings`."""

    duration_seconds: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    sample_width_bytes: int | None = None
    audio_format: str | None = None


def receive(parts: Iterable[bytes], path: Path) -> Received:
    """Writes a WAV file as it arrives.

    Args:
        parts: Its bytes.
        path: Where to; written anew.

    Raises:
        NotAcceptedError: It is no WAV file, or breaks off.
    """
    digest, size, head = hashlib.sha256(), 0, b""
    with path.open("wb+") as file:

        def read_at(position: int, count: int) -> bytes:
            # nearly always in what was just in memory: each call of the system, by many threads
            # at once, costs more than it seems to
            if position + count <= len(head):
                return head[position : position + count]
            file.seek(position)
            return file.read(count)

        for part in parts:
            file.write(part)
            digest.update(part)
            if len(head) < _HEAD_BYTES:
                head += part[: _HEAD_BYTES - len(head)]
                # what a gateway answers in place of a file need not be read to its end
                if size < _HEADER.size <= len(head):
                    _stated_bytes(head[: _HEADER.size])
            size += len(part)
        check_whole(read_at, size)
    return Received(size, digest.hexdigest())


def check_whole(read_at: Callable[[int, int], bytes], size: int) -> None:
    """Compares the lengths that a WAV file states with its own.

    Args:
        read_at: Gives what stands at a position, so many bytes or as far as the file goes.
        size: Its bytes.

    Raises:
        NotAcceptedError: It is no WAV file, or breaks off.
    """
    stated, long_data = _stated_bytes(read_at(0, _HEADER.size)), 0
    if size < stated < _NO_LENGTH:
        raise NotAcceptedError(f"breaks off: {size} of {stated} bytes arrived")
    position = _HEADER.size
    while position + _CHUNK.size <= size:
        name, length = _CHUNK.unpack(read_at(position, _CHUNK.size))
        position += _CHUNK.size
        if name == b"ds64":
            lengths = read_at(position, _LENGTHS.size)
            long_data = _LENGTHS.unpack(lengths)[1] if len(lengths) == _LENGTHS.size else 0
        if name == b"data":
            is_known = length < _NO_LENGTH or long_data > 0
            length = length if length < _NO_LENGTH else long_data
            if is_known and size - position < length:
                raise NotAcceptedError(f"breaks off: {size - position} of {length} bytes of sound")
            return
        position += length + length % 2  # padded to an even length
    raise NotAcceptedError("is a WAV file without sound, or breaks off")


def _stated_bytes(header: bytes) -> int:
    """The bytes that the file says it has, by its first ones."""
    if len(header) == _HEADER.size:
        kind, length, form = _HEADER.unpack(header)
        if kind in _KINDS and form == b"WAVE":
            return int(length) + _CHUNK.size
    raise NotAcceptedError("is no WAV file" if header else "is empty")


def sound_of(path: Path) -> Sound:
    """Reads what a WAV file says of its sound; nothing where its encoding is not known."""
    # takes 0.2 s with numpy, which no other command needs
    import soundfile

    try:
        # not its `info`, which has libsndfile's log of the file put into words too
        with soundfile.SoundFile(str(path)) as file:
            return Sound(
                duration_seconds=file.frames / file.samplerate if file.samplerate else None,
                sample_rate_hz=file.samplerate,
                channels=file.channels,
                sample_width_bytes=_WIDTHS.get(file.subtype),
                audio_format=file.subtype,
            )
    except soundfile.LibsndfileError:
        return Sound()
