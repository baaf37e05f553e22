"""Recordings: valid WAV files with a tone for each of the two voices."""

from __future__ import annotations

import math
import struct
from functools import lru_cache
from typing import Literal

SAMPLE_RATE_HZ = 8000
Direction = Literal["combined", "user", "agent"]
_PCM, _MU_LAW = 1, 7
_SILENCE = {_PCM: b"\0\0", _MU_LAW: b"\xff"}
_FREQUENCIES_HZ = {"user": (196, 220, 247), "agent": (330, 392, 440)}


def wav(
    entropy: int,
    seconds: float,
    direction: Direction,
    *,
    redacted: bool,
    rate_hz: int = SAMPLE_RATE_HZ,
) -> bytes:
    """Renders the WAV file of a recording: mono, 16-bit PCM or 8-bit mu-law.

    Args:
        entropy: The conversation's; determines the format, the chunks and the tones.
        seconds: Length of the recording.
        direction: Voice to include.
        redacted: Replace the middle third by silence.
        rate_hz: Sample rate.
    """
    audio_format = _MU_LAW if entropy % 3 == 0 else _PCM
    width = len(_SILENCE[audio_format])
    samples = max(1, int(seconds * rate_hz))
    tone = _second(audio_format, direction, entropy % 3, rate_hz)
    mark = (entropy % 2**64).to_bytes(8, "little")
    data = (mark + tone * (samples // rate_hz + 1))[: samples * width]
    if redacted:
        third = samples // 3 * width
        data = data[:third] + _SILENCE[audio_format] * (third // width) + data[2 * third :]
    return _file(audio_format, width, data, rate_hz, has_odd_chunks=entropy % 5 == 0)


def _file(
    audio_format: int, width: int, data: bytes, rate_hz: int, *, has_odd_chunks: bool
) -> bytes:
    layout = struct.pack("<HHIIHH", audio_format, 1, rate_hz, rate_hz * width, width, width * 8)
    chunks = []
    if audio_format == _MU_LAW:
        chunks = [_chunk(b"fmt ", layout + b"\0\0"), _chunk(b"fact", struct.pack("<I", len(data)))]
    else:
        chunks = [_chunk(b"fmt ", layout)]
    if has_odd_chunks:
        # a padded chunk of odd length, and below a chunk of an unknown type
        chunks.insert(0, _chunk(b"JUNK", b"\0" * 7))
        chunks.append(_chunk(b"LIST", b"INFO" + _chunk(b"ISFT", b"sandbox")))
    chunks.append(_chunk(b"data", data))
    if has_odd_chunks:
        chunks.append(_chunk(b"poly", b"end"))
    body = b"WAVE" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _chunk(name: bytes, content: bytes) -> bytes:
    padding = b"\0" * (len(content) % 2)
    return name + struct.pack("<I", len(content)) + content + padding


@lru_cache(maxsize=32)
def _second(audio_format: int, direction: Direction, pitch: int, rate_hz: int) -> bytes:
    """Renders one second of the tones of a direction."""
    voices = ("user", "agent") if direction == "combined" else (direction,)
    tones = [_FREQUENCIES_HZ[voice][pitch] for voice in voices]
    samples = [
        int(sum(math.sin(math.tau * hz * n / rate_hz) for hz in tones) * 6000)
        for n in range(rate_hz)
    ]
    if audio_format == _MU_LAW:
        return bytes(_mu_law(sample) for sample in samples)
    return struct.pack(f"<{len(samples)}h", *samples)


def _mu_law(sample: int) -> int:
    """Encodes a sample as G.711: sign, exponent and mantissa of the biased sample, inverted."""
    sign = 0x80 if sample < 0 else 0
    biased = min(abs(sample), 32635) + 0x84
    exponent = biased.bit_length() - 8
    mantissa = (biased >> (exponent + 3)) & 0x0F
    return ~(sign | exponent << 4 | mantissa) & 0xFF
