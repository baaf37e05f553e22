"""WAV files: written as they arrive, checked for completeness, and their audio format."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..api.decoding import NotAcceptedError

ReadAt = Callable[[int, int], bytes]
"""Reads up to so many bytes (second) from a position (first); fewer at the end of the file."""

_HEADER = struct.Struct("<4sI4s")
_CHUNK = struct.Struct("<4sI")
_LENGTHS = struct.Struct("<QQ")
_FORMAT = struct.Struct("<HHIIHH")
_SAMPLES_PER_BLOCK = struct.Struct("<H")

_HEAD_BYTES = 4096
"""Start of a file that is kept in memory: the chunks before its audio are seldom longer."""

_KINDS = (b"RIFF", b"RF64", b"BW64")
"""The last two are for more than 4 GB: their lengths are in a chunk `ds64`."""

_NO_LENGTH = 0x7FFF_0000
"""Programs that do not know a length in advance write one from here on; no file is that long."""

_LONG = 0xFFFF_FFFF
"""Length of `data` where `ds64` has the real one."""

_NOT_CLOSED = 8
"""Length in the header of a file whose program was ended before it wrote the lengths."""

_MAX_CHANNELS = 1024
_MAX_RATE_HZ = 2**31 - 1

_PCM, _MS_ADPCM, _FLOAT, _ALAW, _ULAW, _IMA_ADPCM = 0x01, 0x02, 0x03, 0x06, 0x07, 0x11
_GSM610, _NMS_ADPCM, _G721, _MP3, _EXTENSIBLE = 0x31, 0x38, 0x40, 0x55, 0xFFFE
"""Format tags, as Microsoft registered them."""

_SUBFORMATS = {
    bytes.fromhex("000000001000800000aa00389b71"): (_PCM, _FLOAT, _ALAW, _ULAW),
    bytes.fromhex("00002107d3118644c8c1ca000000"): (_PCM, _FLOAT),
}
"""Format tags by the rest of a GUID in WAVE_FORMAT_EXTENSIBLE: Microsoft, Ambisonic B-format."""

_PCM_NAMES = {1: "PCM_U8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}
_FLOAT_NAMES = {4: "FLOAT", 8: "DOUBLE"}
_NMS_NAMES = {2: "NMS_ADPCM_16", 3: "NMS_ADPCM_24", 4: "NMS_ADPCM_32"}


@dataclass(frozen=True)
class Sound:
    """Audio format of a file; the names are columns of `recordings`. NULL if it is not known.

    Attributes:
        duration_seconds: Packed encodings count whole blocks, so they end with silence.
        sample_rate_hz: Samples per second and channel.
        channels: Number of channels.
        sample_width_bytes: NULL for encodings that pack several samples.
        audio_format: The encoding's name in libsndfile, such as `PCM_16`.
    """

    duration_seconds: float | None = None
    sample_rate_hz: int | None = None
    channels: int | None = None
    sample_width_bytes: int | None = None
    audio_format: str | None = None


@dataclass(frozen=True)
class Received:
    """A complete file.

    Attributes:
        bytes: Its size.
        sha256: Its hash, in hexadecimal.
        sound: Its audio format.
    """

    bytes: int
    sha256: str
    sound: Sound


def receive(parts: Iterable[bytes], path: Path) -> Received:
    """Writes a WAV file as it arrives.

    Args:
        parts: Its bytes.
        path: Target; overwritten.

    Raises:
        NotAcceptedError: It is not a WAV file, or it is incomplete.
    """
    digest, size, head = hashlib.sha256(), 0, b""
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
        sound = check_whole(read_at, size)
    return Received(size, digest.hexdigest(), sound)


def check_whole(read_at: ReadAt, size: int) -> Sound:
    """Compares the lengths that a WAV file states with its size, and reads its audio format.

    Args:
        read_at: Reads from the file.
        size: Its bytes.

    Raises:
        NotAcceptedError: It is not a WAV file, or it is incomplete.
    """
    stated, long_data, encoding = _stated_bytes(read_at(0, _HEADER.size)), 0, b""
    if size < stated < _NO_LENGTH:
        raise NotAcceptedError(f"is incomplete: {size} of {stated} bytes arrived")
    position = _HEADER.size
    while position + _CHUNK.size <= size:
        name, length = _CHUNK.unpack(read_at(position, _CHUNK.size))
        position += _CHUNK.size
        if name == b"fmt " and not encoding:
            encoding = read_at(position, min(length, _HEAD_BYTES))
        if name == b"ds64":
            lengths = read_at(position, _LENGTHS.size)
            long_data = _LENGTHS.unpack(lengths)[1] if len(lengths) == _LENGTHS.size else 0
        if name == b"data":
            is_known = length < _NO_LENGTH or long_data > 0
            expected = length if length < _NO_LENGTH else long_data
            available = size - position
            if is_known and available < expected:
                raise NotAcceptedError(f"is incomplete: {available} of {expected} bytes of audio")
            if length == 0 and stated == _CHUNK.size + _NOT_CLOSED:
                length = available
            elif length == _LONG and long_data:
                length = long_data
            return _sound(encoding, min(length, available))
        position += length + length % 2  # padded to an even length
    raise NotAcceptedError("is incomplete, or a WAV file without audio")


def _stated_bytes(header: bytes) -> int:
    """Returns the file's size according to its header."""
    if len(header) == _HEADER.size:
        kind, length, form = _HEADER.unpack(header)
        if kind in _KINDS and form == b"WAVE":
            return int(length) + _CHUNK.size
    raise NotAcceptedError("is not a WAV file" if header else "is empty")


def _sound(encoding: bytes, data_bytes: int) -> Sound:
    """Decodes a `fmt ` chunk; everything is NULL if the encoding is not known.

    Args:
        encoding: The chunk's body.
        data_bytes: Length of the audio.
    """
    if len(encoding) < _FORMAT.size:
        return Sound()
    tag, channels, rate, _, block_bytes, bits = _FORMAT.unpack_from(encoding)
    if not (1 <= channels <= _MAX_CHANNELS and 1 <= rate <= _MAX_RATE_HZ):
        return Sound()
    width = (bits + 7) // 8
    if tag == _PCM and bits == 24 and block_bytes == 4 * channels:
        width = 4  # 24 bits in 32, as arecord writes them
    if tag == _EXTENSIBLE:
        # behind the common fields: size, valid bits and channel mask, then the GUID
        tag, guid = int.from_bytes(encoding[24:26], "little"), encoding[26:40]
        if tag not in _SUBFORMATS.get(guid, ()):
            return Sound()
    name = {
        _PCM: _PCM_NAMES.get(width),
        _FLOAT: _FLOAT_NAMES.get(width),
        _ALAW: "ALAW",
        _ULAW: "ULAW",
    }.get(tag)
    if name is not None:
        width = 1 if tag in (_ALAW, _ULAW) else width
        return Sound(data_bytes // (channels * width) / rate, rate, channels, width, name)
    if tag == _MP3:
        return Sound(None, rate, channels, None, "MPEG_LAYER_III")
    blocks = _blocks(encoding, tag, channels, block_bytes, bits)
    if blocks is None:
        return Sound()
    name, block_bytes, samples = blocks
    # the padding counts, as in libsndfile, and an incomplete block except for MS ADPCM
    padded = data_bytes + data_bytes % 2
    count = padded // block_bytes if tag == _MS_ADPCM else -(-padded // block_bytes)
    return Sound(count * samples / rate, rate, channels, None, name)


def _blocks(
    encoding: bytes, tag: int, channels: int, block_bytes: int, bits: int
) -> tuple[str, int, int] | None:
    """Returns name, bytes and samples per block of an encoding that packs samples into blocks.

    None if it is another encoding, or if its parameters contradict each other.
    """
    samples = 0
    if len(encoding) >= 20:
        (samples,) = _SAMPLES_PER_BLOCK.unpack_from(encoding, 18)
    is_adpcm = bits == 4 and channels in (1, 2) and samples > 0
    if tag == _MS_ADPCM and is_adpcm and samples == 2 * (block_bytes - 6 * channels) // channels:
        return "MS_ADPCM", block_bytes, samples
    if (
        tag == _IMA_ADPCM
        and is_adpcm
        and samples == 2 * (block_bytes - 4 * channels) // channels + 1
    ):
        return "IMA_ADPCM", block_bytes, samples
    if tag == _GSM610 and (channels, block_bytes, samples) == (1, 65, 320):
        return "GSM610", 65, 320
    if tag == _NMS_ADPCM and channels == 1 and block_bytes == 20 * bits + 2 and bits in _NMS_NAMES:
        return _NMS_NAMES[bits], block_bytes, 160
    if tag == _G721 and channels == 1:
        # its own block size, whatever the chunk states
        return "G721_32", 60, 120
    return None
