"""WAV files: written as they arrive, refused if incomplete, and their audio format."""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from polyai.api.decoding import NotAcceptedError, UnusableError
from polyai.recordings.wav import (
    LENGTH_MISMATCH,
    LENGTH_UNKNOWN,
    NO_AUDIO,
    NOT_WAV,
    check_whole,
    receive,
)
from polyai.recordings.wav_format import Sound

pytestmark = pytest.mark.unit

NO_LENGTHS = [0x7FFF_0000, 0x7FFF_F000, 0x7FFF_FFFF, 0xFFFF_FFFF]
"""Lengths that programs write in place of one that they do not know."""

ENCODINGS = {
    "PCM_U8": (1, 8),
    "PCM_16": (1, 16),
    "PCM_24": (1, 24),
    "PCM_32": (1, 32),
    "FLOAT": (3, 32),
    "DOUBLE": (3, 64),
    "ULAW": (7, 8),
    "ALAW": (6, 8),
}
"""Format tag and bits per sample of the encodings that do not pack samples."""

GUID = bytes.fromhex("000000001000800000aa00389b71")
"""Rest of Microsoft's GUID in WAVE_FORMAT_EXTENSIBLE, behind the format tag."""

RATE = 8_000

MS_ADPCM = struct.pack("<HHH", 32, 500, 7) + bytes(28)
IMA_ADPCM = struct.pack("<HH", 2, 505)
GSM610 = struct.pack("<HH", 2, 320)


def chunk(name: bytes, body: bytes, length: int | None = None) -> bytes:
    stated = struct.pack("<I", len(body) if length is None else length)
    return name + stated + body + b"\0" * (len(body) % 2)


def riff(*chunks: bytes, length: int | None = None, kind: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return kind + struct.pack("<I", len(body) if length is None else length) + body


def encoding(
    tag: int = 1,
    channels: int = 1,
    rate: int = RATE,
    bits: int = 16,
    block: int | None = None,
    extra: bytes = b"",
) -> bytes:
    """A `fmt ` chunk."""
    block = channels * bits // 8 if block is None else block
    common = struct.pack("<HHIIHH", tag, channels, rate, rate * block % 2**32, block, bits)
    return chunk(b"fmt ", common + extra)


def extensible(tag: int, channels: int, bits: int, guid: bytes = GUID) -> bytes:
    """A `fmt ` chunk of WAVE_FORMAT_EXTENSIBLE."""
    extra = struct.pack("<HHIH", 22, bits, 0, tag) + guid
    return encoding(0xFFFE, channels, bits=bits, extra=extra)


def sound(seconds: float = 1.0, length: int | None = None) -> bytes:
    return chunk(b"data", b"\1\2" * round(RATE * seconds), length)


def written(container: str, subtype: str, channels: int = 1) -> bytes:
    """Two seconds with the chunks that libsndfile writes."""
    tag, bits = ENCODINGS[subtype]
    samples = b"\1" * (2 * RATE * channels * bits // 8)
    if container == "WAV":
        fact = [chunk(b"fact", struct.pack("<I", 2 * RATE))] if tag != 1 else []
        return riff(encoding(tag, channels, bits=bits), *fact, chunk(b"data", samples))
    if container == "WAVEX":
        return riff(extensible(tag, channels, bits), chunk(b"data", samples))
    lengths = struct.pack("<QQQI", 0, len(samples), 2 * RATE, 0)
    return riff(
        chunk(b"ds64", lengths),
        extensible(tag, channels, bits),
        chunk(b"data", samples, 0xFFFF_FFFF),
        length=0xFFFF_FFFF,
        kind=b"RF64",
    )


def check(body: bytes) -> Sound:
    return check_whole(lambda position, count: body[position : position + count], len(body)).sound


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "draft.wav"


class TestACompleteFile:
    @pytest.mark.parametrize("channels", [1, 2], ids=["mono", "stereo"])
    @pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
    @pytest.mark.parametrize("subtype", ENCODINGS)
    def test_is_stored_with_its_audio_format(
        self, container: str, subtype: str, channels: int, file: Path
    ) -> None:
        body, width = written(container, subtype, channels), ENCODINGS[subtype][1] // 8

        received = receive([body], file)

        assert (received.bytes, received.sha256) == (len(body), hashlib.sha256(body).hexdigest())
        assert file.read_bytes() == body
        assert received.sound == Sound(2.0, RATE, channels, width, subtype)

    @pytest.mark.parametrize("after", [0, 1, 3], ids="{} after".format)
    @pytest.mark.parametrize("before", [0, 1, 3], ids="{} before".format)
    @pytest.mark.parametrize("length", [0, 1, 34], ids="of {} bytes".format)
    def test_may_have_other_chunks(self, length: int, before: int, after: int, file: Path) -> None:
        other = chunk(b"LIST", b"i" * length)

        received = receive([riff(encoding(), *[other] * before, sound(), *[other] * after)], file)

        assert received.sound == Sound(1.0, RATE, 1, 2, "PCM_16")

    @pytest.mark.parametrize("kind", [b"RIFF", b"RF64", b"BW64"], ids=bytes.decode)
    def test_has_one_of_these_kinds(self, kind: bytes) -> None:
        check(riff(encoding(), sound(), kind=kind))

    def test_may_have_another_chunk_that_contains_the_word_data(self) -> None:
        check(riff(encoding(), chunk(b"LIST", b"data\xff\xff\0\0"), sound()))

    @pytest.mark.parametrize(
        "after",
        [b"\0", b"\r\n", b"7 bytes", b"\0" * 4_096, sound()],
        ids=["a zero", "a line's end", "7 bytes", "a block of zeros", "more sound"],
    )
    def test_may_be_followed_by_bytes_that_its_length_excludes(
        self, after: bytes, file: Path
    ) -> None:
        body = riff(encoding(), sound()) + after

        assert receive([body], file).bytes == len(body)
        assert file.read_bytes() == body

    def test_may_have_audio_of_an_odd_length(self) -> None:
        odd = chunk(b"data", b"\1\2\3")
        check(riff(encoding(), odd))
        # some programs do not count the padding, or do not write it
        check(riff(encoding(), odd, length=4 + 24 + 8 + 3))
        check(riff(encoding(), odd[:-1]))

    def test_may_have_empty_audio(self, file: Path) -> None:
        received = receive([riff(encoding(), sound(0))], file)

        assert received.sound == Sound(0.0, RATE, 1, 2, "PCM_16")

    def test_replaces_an_existing_file(self, file: Path) -> None:
        file.write_bytes(b"x" * 100_000)
        body = riff(encoding(), sound())

        receive([body], file)

        assert file.read_bytes() == body


class TestLengths:
    """Stated lengths of files that were sent while they were recorded."""

    @pytest.mark.parametrize("data", [None, *NO_LENGTHS], ids=lambda n: f"data {n and hex(n)}")
    @pytest.mark.parametrize("whole", [0, *NO_LENGTHS], ids=lambda n: f"RIFF {hex(n)}")
    def test_are_ignored_if_unknown(self, whole: int, data: int | None, file: Path) -> None:
        received = receive([riff(encoding(), sound(length=data), length=whole)], file)

        assert received.sound == Sound(1.0, RATE, 1, 2, "PCM_16")

    @pytest.mark.parametrize("whole", [0, 36, None, *NO_LENGTHS], ids=lambda n: f"RIFF {n}")
    def test_of_zero_may_precede_audio(self, whole: int | None, file: Path) -> None:
        body = riff(encoding(), sound(length=0), length=whole)

        received = receive([body], file)

        assert received.bytes == len(body)
        assert received.sound == Sound(1.0, RATE, 1, 2, "PCM_16")

    def test_of_a_file_that_was_not_closed_are_its_size(self) -> None:
        body = riff(encoding(), sound(length=0), length=8)
        assert check(body) == Sound(1.0, RATE, 1, 2, "PCM_16")

    @pytest.mark.parametrize("data", NO_LENGTHS, ids=hex)
    def test_that_are_unknown_in_data_still_count_in_the_header(self, data: int) -> None:
        body = riff(encoding(), sound(length=data))
        check(body)
        with pytest.raises(NotAcceptedError, match=f"{len(body) - 1} of {len(body)} bytes"):
            check(body[:-1])

    @pytest.mark.parametrize("whole", [0, *NO_LENGTHS], ids=hex)
    def test_that_are_unknown_in_the_header_still_count_in_data(self, whole: int) -> None:
        body = riff(encoding(), sound(), length=whole)
        check(body)
        with pytest.raises(NotAcceptedError, match="15999 of 16000 bytes"):
            check(body[:-1])

    def test_just_below_the_unknown_ones_count(self) -> None:
        with pytest.raises(NotAcceptedError, match=f"of {0x7FFF_0000 - 1} bytes"):
            check(riff(encoding(), sound(), length=0x7FFF_0000 - 9))
        with pytest.raises(NotAcceptedError, match="bytes of audio"):
            check(riff(encoding(), sound(length=0x7FFF_0000 - 1), length=0))


class TestAnIncompleteFile:
    @pytest.mark.parametrize(
        ("end", "reason"),
        [
            (0, "is empty"),
            (1, "is not a WAV file"),
            (4, "is not a WAV file"),
            (11, "is not a WAV file"),
            (12, "is incomplete: 12 of "),
            (16, "incomplete"),
            (19, "incomplete"),
            (30, "incomplete"),
            (36, "incomplete"),
            (40, "incomplete"),
            (44, "incomplete"),
            (45, "incomplete"),
            (-1, "incomplete"),
        ],
        ids=[
            "before it begins",
            "in its first word",
            "before its length",
            "in its kind",
            "after its header",
            "in a chunk's name",
            "in a chunk's length",
            "in its encoding",
            "after its encoding",
            "in the length of the sound",
            "before the sound",
            "in the sound",
            "before the last byte",
        ],
    )
    def test_is_refused(self, end: int, reason: str, file: Path) -> None:
        body = riff(encoding(), sound())
        with pytest.raises(NotAcceptedError, match=reason):
            receive([body[:end]], file)
        with pytest.raises(NotAcceptedError, match=reason):
            receive(pieces(body[:end], 1), file)

    @pytest.mark.parametrize(
        ("body", "needed"),
        [
            # and the number of bytes from which on it is accepted
            (riff(encoding(), sound(0.01)), 204),
            (riff(encoding(), sound(0.01), chunk(b"LIST", b"odd")), 216),
            (riff(encoding(), chunk(b"LIST", b"odd"), sound(0.01)), 216),
            (riff(encoding(), sound(0.01), length=0xFFFF_FFFF), 204),
            (riff(encoding(), sound(0.01), chunk(b"LIST", b"odd"), length=0x7FFF_FFFF), 204),
            (riff(encoding(), sound(0.01, length=0xFFFF_FFFF), length=0xFFFF_FFFF), 45),
            (riff(encoding(), sound(0.01, length=0), length=0), 45),
        ],
        ids=[
            "lengths",
            "lengths, a chunk after",
            "lengths, a chunk before",
            "no length",
            "no length, a chunk after",
            "no lengths",
            "lengths of zero",
        ],
    )
    def test_is_refused_at_every_length(self, body: bytes, needed: int) -> None:
        for end in range(needed):
            with pytest.raises(NotAcceptedError):
                check(body[:end])
        for end in range(needed, len(body) + 1):
            check(body[:end])

    @pytest.mark.parametrize("container", ["WAV", "WAVEX"])
    @pytest.mark.parametrize("lost", [1, 100, 31_999], ids="without {} bytes".format)
    def test_is_refused_in_each_container(self, container: str, lost: int) -> None:
        with pytest.raises(NotAcceptedError, match="incomplete"):
            check(written(container, "PCM_16")[:-lost])

    @pytest.mark.parametrize("lost", [1, 100, 31_999], ids="without {} bytes".format)
    def test_is_refused_if_its_length_has_64_bits(self, lost: int) -> None:
        """The chunk `ds64` contains the lengths of an RF64 file."""
        with pytest.raises(NotAcceptedError, match="incomplete"):
            check(written("RF64", "PCM_16")[:-lost])

    def test_is_refused_if_a_chunk_extends_beyond_its_end(self) -> None:
        with pytest.raises(NotAcceptedError, match="incomplete"):
            check(riff(encoding(), chunk(b"LIST", b"", 0xFFFF_FFFF), sound(), length=0))

    def test_is_refused_without_a_data_chunk(self) -> None:
        with pytest.raises(NotAcceptedError, match="without audio"):
            check(riff(encoding()))
        with pytest.raises(NotAcceptedError, match="without audio"):
            check(riff())


HEADER = 4 + len(encoding()) + 8
"""Length of RIFF that counts no audio."""


def unpadded(length: int) -> bytes:
    """A LIST chunk of an odd length without its pad byte."""
    return chunk(b"LIST", b"i" * length)[:-1]


class TestACompleteAnswer:
    """Files that the transport has proven to be all that was sent."""

    @pytest.mark.parametrize(
        ("body", "mark"),
        [
            (riff(encoding(), sound()), None),
            (riff(encoding(), sound(), length=HEADER + 16_000 + 8), LENGTH_MISMATCH),
            (riff(encoding(), sound(), length=HEADER + 16_000 - 8), LENGTH_MISMATCH),
            (riff(encoding(), sound(length=16_008)), LENGTH_MISMATCH),
            (riff(encoding(), sound(length=16_044), length=16_044), LENGTH_MISMATCH),
            (riff(encoding(), sound(length=15_992)), LENGTH_MISMATCH),
            (
                riff(encoding(), chunk(b"data", b"\1" * 15_999)[:-1], length=HEADER + 16_000),
                LENGTH_MISMATCH,
            ),
            (riff(encoding(), unpadded(3), sound()), LENGTH_MISMATCH),
            (riff(encoding(), sound(), unpadded(3)), None),
            (riff(encoding(), unpadded(35), sound(), unpadded(5)), LENGTH_MISMATCH),
            (riff(encoding(), chunk(b"LIST", b"odd"), sound()), None),
            (
                riff(encoding(), chunk(b"LIST", b"odd"), sound(), length=HEADER + 11 + 16_000),
                LENGTH_MISMATCH,
            ),
            (riff(encoding(), sound()) + b"\r\n", LENGTH_MISMATCH),
            (riff(encoding(), sound()) + bytes(4_096), LENGTH_MISMATCH),
            (riff(encoding(), sound(length=0), length=HEADER), LENGTH_MISMATCH),
            (riff(encoding(), sound(length=0)), LENGTH_MISMATCH),
            (riff(encoding(), sound(length=0), length=0), None),
            (riff(encoding(), sound(length=0xFFFF_FFFF), length=0xFFFF_FFFF), None),
        ],
        ids=[
            "correct",
            "RIFF 8 too long",
            "RIFF 8 too short",
            "data 8 too long",
            "data counts the header",
            "data 8 too short",
            "pad byte counted, not written",
            "odd chunk without a pad byte",
            "odd chunk at the end without a pad byte",
            "two odd chunks without pad bytes",
            "odd chunk",
            "pad byte written, not counted",
            "line end after it",
            "zeros after it",
            "lengths of the empty file",
            "no length of the audio",
            "lengths of zero",
            "no lengths",
        ],
    )
    def test_is_stored_and_marked_if_its_lengths_are_a_little_wrong(
        self, body: bytes, mark: str | None, file: Path
    ) -> None:
        received = receive(pieces(body, 1_000), file, is_framed=True)

        assert received.mark == mark
        assert (received.bytes, file.read_bytes()) == (len(body), body)
        assert received.sound.duration_seconds == pytest.approx(1, abs=0.01)

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"", NOT_WAV),
            (b"RIFF", NOT_WAV),
            (b"<html>", NOT_WAV),
            (riff(encoding(), sound())[:-65], LENGTH_MISMATCH),
            (riff(encoding(), sound(length=16_065), length=0), LENGTH_MISMATCH),
            (riff(encoding(), sound())[:8_000], LENGTH_MISMATCH),
            (riff(encoding()), NO_AUDIO),
            (riff(encoding(), chunk(b"LIST", b"", 0xFFFF_FFFF), sound(), length=0), NO_AUDIO),
            (riff(encoding(), sound(0, 0xFFFF_FFFF), length=0xFFFF_FFFF), NO_AUDIO),
            (riff(encoding(), sound(0, 0xFFFF_FFF0)), NO_AUDIO),
            (riff(encoding(), sound(0, 0x7FFE_0000)), LENGTH_MISMATCH),
            (riff(encoding(), sound(0), length=0x7FFE_0000), LENGTH_MISMATCH),
            (riff(encoding(), sound(0, 0), length=0), NO_AUDIO),
            (riff(encoding(), sound()) + bytes(65_537), LENGTH_MISMATCH),
        ],
        ids=[
            "empty",
            "a word",
            "HTML",
            "65 bytes missing",
            "65 bytes of audio missing",
            "half of it missing",
            "no data chunk",
            "chunk beyond the end",
            "4 GB in 44 bytes",
            "4 GB of audio in 44 bytes",
            "2 GB of audio in 44 bytes",
            "header of 2 GB in 44 bytes",
            "header only",
            "64 KB after it",
        ],
    )
    @pytest.mark.parametrize("size", [7, 100_000], ids="in pieces of {}".format)
    def test_is_refused_for_good_beyond_that(
        self, body: bytes, code: str, size: int, file: Path
    ) -> None:
        with pytest.raises(UnusableError) as error:
            receive(pieces(body, size), file, is_framed=True)
        assert error.value.code == code

    def test_is_not_read_to_an_end_that_its_lengths_exclude(self, file: Path) -> None:
        sent = 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            yield riff(encoding(), sound())
            while True:
                sent += 10_000
                yield bytes(10_000)

        with pytest.raises(UnusableError, match="after its stated end"):
            receive(endless(), file, is_framed=True)
        assert sent < 100_000

    def test_may_be_long_if_its_header_was_written_before_the_audio(self, file: Path) -> None:
        body = riff(encoding(), sound(20, 0), length=HEADER)
        received = receive(pieces(body, 44), file, is_framed=True)
        assert (received.mark, received.sound.duration_seconds) == (LENGTH_MISMATCH, 20)

    def test_without_sound_is_stored(self, file: Path) -> None:
        received = receive([riff(encoding(), sound(0))], file, is_framed=True)
        assert (received.mark, received.sound.duration_seconds) == (None, 0)


def test_an_end_that_nothing_proves_is_marked(file: Path) -> None:
    body = riff(encoding(), sound(length=0xFFFF_FFFF), length=0xFFFF_FFFF)
    assert receive([body], file).mark == LENGTH_UNKNOWN
    assert receive([body], file, is_framed=True).mark is None


@pytest.mark.parametrize("end", [0, 5, 11, 12, 44, 8_000, -1])
def test_an_answer_without_a_marked_end_may_be_requested_again(end: int, file: Path) -> None:
    with pytest.raises(NotAcceptedError) as error:
        receive([riff(encoding(), sound())[:end]], file)
    assert not isinstance(error.value, UnusableError)


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><title>504 Gateway Time-out</title>",
        b'{"error_code": "RECORDING_NOT_FOUND"}',
        b"{}",
        b"\0" * 100,
        b"RIFF",
        b"ID3\4\0\0\0\0\0\0\0\0\0\0",
        b"OggS\0\2\0\0\0\0\0\0\0\0",
        riff(encoding(), sound(), kind=b"RIFX"),
        riff(encoding(), sound(), kind=b"riff"),
        riff(encoding(), sound()).replace(b"WAVE", b"AVI "),
        b" " + riff(encoding(), sound()),
    ],
    ids=[
        "HTML",
        "JSON",
        "short JSON",
        "zeros",
        "a word",
        "MP3",
        "Ogg",
        "big-endian",
        "small letters",
        "a film",
        "a space before",
    ],
)
@pytest.mark.parametrize("size", [1, 5, 12, 1_000_000], ids="in pieces of {}".format)
def test_another_kind_of_file_is_refused(body: bytes, size: int, file: Path) -> None:
    with pytest.raises(NotAcceptedError, match=r"^is not a WAV file$"):
        receive(pieces(body, size), file)


@pytest.mark.parametrize("parts", [[], [b""], [b"", b""]], ids=["no parts", "one", "two"])
def test_an_empty_answer_is_refused(parts: list[bytes], file: Path) -> None:
    with pytest.raises(NotAcceptedError, match=r"^is empty$"):
        receive(parts, file)


@pytest.mark.parametrize("size", [1, 7, 12, 4_096], ids="in pieces of {}".format)
def test_another_kind_of_file_is_not_read_to_its_end(size: int, file: Path) -> None:
    given_out = 0

    def long_page() -> Iterator[bytes]:
        nonlocal given_out
        for _ in range(100):
            given_out += size
            yield b"<" * size

    with pytest.raises(NotAcceptedError, match="not a WAV file"):
        receive(long_page(), file)
    assert given_out < 12 + size


def test_an_error_during_the_transfer_is_raised(file: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield riff(encoding(), sound())
        raise ConnectionResetError("by peer")

    with pytest.raises(ConnectionResetError, match="by peer"):
        receive(broken(), file)


class TestTheAudioFormat:
    @pytest.mark.parametrize(
        "unknown",
        [
            encoding(tag=0x9999),
            encoding(tag=0),
            encoding(channels=0),
            encoding(channels=2_000),
            encoding(rate=0),
            chunk(b"fmt ", b""),
            chunk(b"fmt ", b"\1\0"),
            b"",
        ],
        ids=[
            "an unknown tag",
            "no tag",
            "no channels",
            "2,000 channels",
            "no rate",
            "an empty encoding",
            "a short encoding",
            "no encoding",
        ],
    )
    def test_is_null_if_unknown_and_the_file_is_stored(self, unknown: bytes, file: Path) -> None:
        body = riff(unknown, sound())

        received = receive([body], file)

        assert received.sha256 == hashlib.sha256(body).hexdigest()
        assert received.sound == Sound()
        assert file.read_bytes() == body

    @pytest.mark.parametrize(
        ("form", "length", "frames", "name"),
        [
            (encoding(0x02, 1, bits=4, block=256, extra=MS_ADPCM), 256, 500, "MS_ADPCM"),
            (encoding(0x02, 1, bits=4, block=256, extra=MS_ADPCM), 400, 500, "MS_ADPCM"),
            (encoding(0x11, 1, bits=4, block=256, extra=IMA_ADPCM), 256, 505, "IMA_ADPCM"),
            (encoding(0x11, 1, bits=4, block=256, extra=IMA_ADPCM), 400, 1010, "IMA_ADPCM"),
            (encoding(0x31, 1, bits=0, block=65, extra=GSM610), 130, 640, "GSM610"),
            (encoding(0x31, 1, bits=0, block=65, extra=GSM610), 131, 960, "GSM610"),
            (encoding(0x31, 1, bits=0, block=65, extra=GSM610), 65, 640, "GSM610"),
            (encoding(0x38, 1, bits=2, block=42), 84, 320, "NMS_ADPCM_16"),
            (encoding(0x38, 1, bits=3, block=62), 63, 320, "NMS_ADPCM_24"),
            (encoding(0x38, 1, bits=4, block=82), 82, 160, "NMS_ADPCM_32"),
            (encoding(0x40, 1, bits=4, block=64), 60, 120, "G721_32"),
            (encoding(0x40, 1, bits=4, block=64), 61, 240, "G721_32"),
        ],
        ids=lambda value: "" if isinstance(value, bytes) else str(value),
    )
    def test_of_packed_samples_counts_blocks_and_has_no_width(
        self, form: bytes, length: int, frames: int, name: str
    ) -> None:
        """Numbers of frames as libsndfile 1.2.2 gives them."""
        body = riff(form, chunk(b"data", b"\1" * length))
        assert check(body) == Sound(frames / RATE, RATE, 1, None, name)

    def test_of_mp3_has_no_duration(self) -> None:
        body = riff(encoding(0x55, 2, bits=0, block=1), chunk(b"data", b"\xff\xfb" * 99))
        assert check(body) == Sound(None, RATE, 2, None, "MPEG_LAYER_III")

    @pytest.mark.parametrize(
        "form",
        [
            encoding(bits=0),
            encoding(bits=40),
            encoding(3, bits=16),
            encoding(0x02, 1, bits=4, block=256, extra=IMA_ADPCM),
            encoding(0x11, 1, bits=4, block=256, extra=MS_ADPCM),
            encoding(0x11, 3, bits=4, block=256, extra=IMA_ADPCM),
            encoding(0x11, 1, bits=4, block=256),
            encoding(0x31, 2, bits=0, block=65, extra=GSM610),
            encoding(0x38, 1, bits=4, block=42),
            encoding(0x40, 2, bits=4, block=64),
            extensible(0x9999, 1, 16),
            extensible(1, 1, 16, bytes(14)),
            encoding(0xFFFE),
        ],
        ids=[
            "PCM of no bits",
            "PCM of 40 bits",
            "float of 16 bits",
            "MS ADPCM with another block",
            "IMA ADPCM with another block",
            "IMA ADPCM of three channels",
            "IMA ADPCM without samples per block",
            "GSM of two channels",
            "NMS ADPCM with another block",
            "G.721 of two channels",
            "extensible with an unknown tag",
            "extensible with an unknown GUID",
            "extensible without a GUID",
        ],
    )
    def test_is_null_if_its_parameters_contradict_each_other(self, form: bytes) -> None:
        assert check(riff(form, sound())) == Sound()

    def test_may_be_extensible_for_ambisonics(self) -> None:
        guid = bytes.fromhex("00002107d3118644c8c1ca000000")
        assert check(riff(extensible(1, 1, 16, guid), sound())).audio_format == "PCM_16"
        assert check(riff(extensible(7, 1, 8, guid), sound())) == Sound()

    def test_of_24_bits_in_32_counts_32(self) -> None:
        body = riff(encoding(bits=24, block=4), chunk(b"data", b"\0\1\2\3" * RATE))
        assert check(body) == Sound(1.0, RATE, 1, 4, "PCM_32")

    def test_is_that_of_the_first_fmt_chunk_before_the_data(self) -> None:
        assert check(riff(encoding(), encoding(bits=8), sound())).audio_format == "PCM_16"
        assert check(riff(sound(), encoding())) == Sound()

    @examples(200)
    @given(st.data())
    def test_is_a_number_or_null_for_any_header(self, data: st.DataObject) -> None:
        container = data.draw(st.sampled_from(["WAV", "WAVEX", "RF64"]))
        body = bytearray(written(container, data.draw(st.sampled_from(["PCM_16", "ULAW"]))))
        for place in data.draw(st.lists(st.integers(4, 79), min_size=1, max_size=6)):
            body[place] = data.draw(st.integers(0, 255))
        try:
            found = check(bytes(body))
        except NotAcceptedError:
            return

        assert found.duration_seconds is None or 0 <= found.duration_seconds < math.inf
        assert (found == Sound()) == (found.audio_format is None)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """WAV files that state their length, with arbitrary chunks."""
    names = st.sampled_from([b"LIST", b"fact", b"JUNK", b"bext", b"id3 "])
    others = st.lists(st.builds(chunk, names, st.binary(max_size=33)), max_size=3)
    samples = draw(st.binary(min_size=1, max_size=200))
    stated = draw(st.sampled_from([None, 0, *NO_LENGTHS]))
    return riff(
        encoding(), *draw(others), chunk(b"data", samples, stated), *draw(others), length=None
    )


@examples(200)
@given(bodies(), st.integers(0))
def test_any_truncated_file_is_refused(body: bytes, end: int) -> None:
    check(body)
    with pytest.raises(NotAcceptedError):
        check(body[: end % len(body)])


@examples(60)
@given(bodies(), st.lists(st.integers(0, 500), max_size=20))
def test_any_file_is_stored_unchanged_whatever_its_pieces(
    tmp_path: Path, body: bytes, places: list[int]
) -> None:
    path = tmp_path / "any.wav"
    ends = sorted(min(place, len(body)) for place in places)
    parts = [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)])]

    received = receive(parts, path)

    assert (received.bytes, received.sha256) == (len(body), hashlib.sha256(body).hexdigest())
    assert path.read_bytes() == body
    assert receive(pieces(body, 1), path) == received
    assert path.read_bytes() == body
