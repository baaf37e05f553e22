"""Audio format of a WAV file, by its `fmt ` chunk."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_FORMAT = struct.Struct("<HHIIHH")
_SAMPLES_PER_BLOCK = struct.Struct("<H")

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


def sound_of(encoding: bytes, data_bytes: int) -> Sound:
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
