"""WAV files: written as they arrive, refused where they break off, and what is in them."""

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyai.api.decoding import NotAcceptedError
from polyai.recordings.wav import Received, Sound, check_whole, receive, sound_of

unhurried = settings(deadline=None, suppress_health_check=list(HealthCheck))

NO_LENGTHS = [0x7FFF_0000, 0x7FFF_F000, 0x7FFF_FFFF, 0xFFFF_FFFF]
"""What programs write in place of a length that they do not know."""

WIDTHS = {
    "PCM_U8": 1,
    "PCM_16": 2,
    "PCM_24": 3,
    "PCM_32": 4,
    "FLOAT": 4,
    "DOUBLE": 8,
    "ULAW": 1,
    "ALAW": 1,
}
"""Bytes of a sample."""

RATE = 8_000


def chunk(name: bytes, body: bytes, length: int | None = None) -> bytes:
    stated = struct.pack("<I", len(body) if length is None else length)
    return name + stated + body + b"\0" * (len(body) % 2)


def riff(*chunks: bytes, length: int | None = None, kind: bytes = b"RIFF") -> bytes:
    body = b"WAVE" + b"".join(chunks)
    return kind + struct.pack("<I", len(body) if length is None else length) + body


def encoding(tag: int = 1, channels: int = 1, rate: int = RATE) -> bytes:
    block = channels * 2
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, 16))


def sound(seconds: float = 1.0, length: int | None = None) -> bytes:
    return chunk(b"data", b"\1\2" * round(RATE * seconds), length)


def written(container: str, subtype: str, channels: int = 1) -> bytes:
    """Two seconds as libsndfile writes them."""
    tone = np.sin(np.arange(2 * RATE) / 10) / 2
    file = io.BytesIO()
    soundfile.write(
        file, np.stack([tone] * channels, axis=1), RATE, format=container, subtype=subtype
    )
    return file.getvalue()


def check(body: bytes) -> None:
    check_whole(lambda position, count: body[position : position + count], len(body))


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "draft.wav"


class TestAWholeFile:
    @pytest.mark.parametrize("channels", [1, 2], ids=["mono", "stereo"])
    @pytest.mark.parametrize("container", ["WAV", "WAVEX", "RF64"])
    @pytest.mark.parametrize(
        ("subtype", "width"),
        [pytest.param(subtype, width, id=subtype) for subtype, width in WIDTHS.items()],
    )
    def test_is_kept_and_told_of(
        self, container: str, subtype: str, width: int, channels: int, file: Path
    ) -> None:
        body = written(container, subtype, channels)

        received = receive([body], file)

        assert received == Received(len(body), hashlib.sha256(body).hexdigest())
        assert file.read_bytes() == body
        assert sound_of(file) == Sound(2.0, RATE, channels, width, subtype)

    @pytest.mark.parametrize("subtype", ["IMA_ADPCM", "MS_ADPCM", "GSM610", "G721_32"])
    def test_of_packed_samples_has_no_width(self, subtype: str, file: Path) -> None:
        receive([written("WAV", subtype)], file)

        found = sound_of(file)

        # blocks are filled up
        assert found.duration_seconds == pytest.approx(2, abs=0.1)
        assert found == Sound(found.duration_seconds, RATE, 1, None, subtype)

    @pytest.mark.parametrize("after", [0, 1, 3], ids="{} after".format)
    @pytest.mark.parametrize("before", [0, 1, 3], ids="{} before".format)
    @pytest.mark.parametrize("length", [0, 1, 34], ids="of {} bytes".format)
    def test_may_have_other_chunks(self, length: int, before: int, after: int, file: Path) -> None:
        other = chunk(b"LIST", b"i" * length)

        receive([riff(encoding(), *[other] * before, sound(), *[other] * after)], file)

        assert sound_of(file) == Sound(1.0, RATE, 1, 2, "PCM_16")

    @pytest.mark.parametrize("kind", [b"RIFF", b"RF64", b"BW64"], ids=bytes.decode)
    def test_is_of_one_of_these_kinds(self, kind: bytes) -> None:
        check(riff(encoding(), sound(), kind=kind))

    def test_may_have_what_looks_like_sound_in_another_chunk(self) -> None:
        check(riff(encoding(), chunk(b"LIST", b"data\xff\xff\0\0"), sound()))

    @pytest.mark.parametrize(
        "after",
        [b"\0", b"\r\n", b"7 bytes", b"\0" * 4_096, sound()],
        ids=["a zero", "a line's end", "7 bytes", "a block of zeros", "more sound"],
    )
    def test_may_be_followed_by_what_it_does_not_count(self, after: bytes, file: Path) -> None:
        body = riff(encoding(), sound()) + after

        assert receive([body], file).bytes == len(body)
        assert file.read_bytes() == body

    def test_may_have_an_odd_number_of_bytes_of_sound(self) -> None:
        odd = chunk(b"data", b"\1\2\3")
        check(riff(encoding(), odd))
        # not everyone counts the padding, or writes it
        check(riff(encoding(), odd, length=4 + 24 + 8 + 3))
        check(riff(encoding(), odd[:-1]))

    def test_may_be_silent_for_no_time(self, file: Path) -> None:
        receive([riff(encoding(), sound(0))], file)

        assert sound_of(file) == Sound(0.0, RATE, 1, 2, "PCM_16")

    def test_replaces_what_was_in_its_place(self, file: Path) -> None:
        file.write_bytes(b"x" * 100_000)
        body = riff(encoding(), sound())

        receive([body], file)

        assert file.read_bytes() == body


class TestLengths:
    """Of files that were sent before they were complete."""

    @pytest.mark.parametrize("data", [None, *NO_LENGTHS], ids=lambda n: f"data {n and hex(n)}")
    @pytest.mark.parametrize("whole", [0, *NO_LENGTHS], ids=lambda n: f"RIFF {hex(n)}")
    def test_that_are_not_known_do_not_count(
        self, whole: int, data: int | None, file: Path
    ) -> None:
        receive([riff(encoding(), sound(length=data), length=whole)], file)

        assert sound_of(file) == Sound(1.0, RATE, 1, 2, "PCM_16")

    @pytest.mark.parametrize("whole", [0, 36, None, *NO_LENGTHS], ids=lambda n: f"RIFF {n}")
    def test_of_no_sound_may_stand_before_sound(self, whole: int | None, file: Path) -> None:
        body = riff(encoding(), sound(length=0), length=whole)

        assert receive([body], file).bytes == len(body)
        assert sound_of(file).audio_format == "PCM_16"

    @pytest.mark.parametrize("data", NO_LENGTHS, ids=hex)
    def test_of_sound_do_not_make_up_for_the_whole(self, data: int) -> None:
        body = riff(encoding(), sound(length=data))
        check(body)
        with pytest.raises(NotAcceptedError, match=f"{len(body) - 1} of {len(body)} bytes"):
            check(body[:-1])

    @pytest.mark.parametrize("whole", [0, *NO_LENGTHS], ids=hex)
    def test_of_the_whole_do_not_make_up_for_sound(self, whole: int) -> None:
        body = riff(encoding(), sound(), length=whole)
        check(body)
        with pytest.raises(NotAcceptedError, match="15999 of 16000 bytes of sound"):
            check(body[:-1])

    def test_just_below_those_that_are_not_known_count(self) -> None:
        with pytest.raises(NotAcceptedError, match=f"of {0x7FFF_0000 - 1} bytes"):
            check(riff(encoding(), sound(), length=0x7FFF_0000 - 9))
        with pytest.raises(NotAcceptedError, match="bytes of sound"):
            check(riff(encoding(), sound(length=0x7FFF_0000 - 1), length=0))


class TestAFileThatBreaksOff:
    @pytest.mark.parametrize(
        ("end", "said"),
        [
            (0, "is empty"),
            (1, "is no WAV file"),
            (4, "is no WAV file"),
            (11, "is no WAV file"),
            (12, "breaks off: 12 of "),
            (16, "breaks off"),
            (19, "breaks off"),
            (30, "breaks off"),
            (36, "breaks off"),
            (40, "breaks off"),
            (44, "breaks off"),
            (45, "breaks off"),
            (-1, "breaks off"),
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
    def test_is_refused(self, end: int, said: str, file: Path) -> None:
        body = riff(encoding(), sound())
        with pytest.raises(NotAcceptedError, match=f"^{said}"):
            receive([body[:end]], file)
        with pytest.raises(NotAcceptedError, match=f"^{said}"):
            receive(pieces(body[:end], 1), file)

    @pytest.mark.parametrize(
        ("body", "needed"),
        [
            # up to what has to be there for it to be taken
            (riff(encoding(), sound(0.01)), 204),
            (riff(encoding(), sound(0.01), chunk(b"LIST", b"odd")), 216),
            (riff(encoding(), chunk(b"LIST", b"odd"), sound(0.01)), 216),
            (riff(encoding(), sound(0.01), length=0xFFFF_FFFF), 204),
            (riff(encoding(), sound(0.01), chunk(b"LIST", b"odd"), length=0x7FFF_FFFF), 204),
            (riff(encoding(), sound(0.01, length=0xFFFF_FFFF), length=0xFFFF_FFFF), 44),
            (riff(encoding(), sound(0.01, length=0), length=0), 44),
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
    def test_is_refused_wherever_it_does(self, body: bytes, needed: int) -> None:
        for end in range(needed):
            with pytest.raises(NotAcceptedError):
                check(body[:end])
        for end in range(needed, len(body) + 1):
            check(body[:end])

    @pytest.mark.parametrize("container", ["WAV", "WAVEX"])
    @pytest.mark.parametrize("lost", [1, 100, 31_999], ids="without {} bytes".format)
    def test_is_refused_as_libsndfile_writes_it(self, container: str, lost: int) -> None:
        with pytest.raises(NotAcceptedError, match="breaks off"):
            check(written(container, "PCM_16")[:-lost])

    @pytest.mark.parametrize("lost", [1, 100, 31_999], ids="without {} bytes".format)
    def test_is_refused_where_its_length_has_64_bits(self, lost: int) -> None:
        """The chunk `ds64` has the lengths of an RF64 file."""
        with pytest.raises(NotAcceptedError, match="breaks off"):
            check(written("RF64", "PCM_16")[:-lost])

    def test_is_refused_where_a_chunk_leads_beyond_its_end(self) -> None:
        with pytest.raises(NotAcceptedError, match="without sound, or breaks off"):
            check(riff(encoding(), chunk(b"LIST", b"", 0xFFFF_FFFF), sound(), length=0))

    def test_is_refused_without_sound(self) -> None:
        with pytest.raises(NotAcceptedError, match="without sound"):
            check(riff(encoding()))
        with pytest.raises(NotAcceptedError, match="without sound"):
            check(riff())


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
def test_what_is_no_wav_file_is_refused(body: bytes, size: int, file: Path) -> None:
    with pytest.raises(NotAcceptedError, match=r"^is no WAV file$"):
        receive(pieces(body, size), file)


@pytest.mark.parametrize("parts", [[], [b""], [b"", b""]], ids=["no parts", "one", "two"])
def test_nothing_is_refused(parts: list[bytes], file: Path) -> None:
    with pytest.raises(NotAcceptedError, match=r"^is empty$"):
        receive(parts, file)


@pytest.mark.parametrize("size", [1, 7, 12, 4_096], ids="in pieces of {}".format)
def test_what_is_no_wav_file_is_not_read_to_its_end(size: int, file: Path) -> None:
    given_out = 0

    def long_page() -> Iterator[bytes]:
        nonlocal given_out
        for _ in range(100):
            given_out += size
            yield b"<" * size

    with pytest.raises(NotAcceptedError, match="no WAV file"):
        receive(long_page(), file)
    assert given_out < 12 + size


def test_what_goes_wrong_on_the_way_is_told(file: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield riff(encoding(), sound())
        raise ConnectionResetError("by peer")

    with pytest.raises(ConnectionResetError, match="by peer"):
        receive(broken(), file)


class TestSound:
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
    def test_that_is_not_known_is_kept_all_the_same(self, unknown: bytes, file: Path) -> None:
        body = riff(unknown, sound())

        assert receive([body], file).sha256 == hashlib.sha256(body).hexdigest()
        assert sound_of(file) == Sound()
        assert file.read_bytes() == body

    def test_of_what_is_no_file_at_all_is_nothing(self, file: Path) -> None:
        file.write_bytes(b"<html>")
        assert sound_of(file) == Sound()
        file.write_bytes(b"")
        assert sound_of(file) == Sound()

    @settings(unhurried, max_examples=100)
    @given(st.data())
    def test_is_a_number_or_nothing_whatever_a_file_says(
        self, tmp_path: Path, data: st.DataObject
    ) -> None:
        container = data.draw(st.sampled_from(["WAV", "WAVEX", "RF64"]))
        body = bytearray(written(container, data.draw(st.sampled_from(["PCM_16", "ULAW"]))))
        for place in data.draw(st.lists(st.integers(4, 79), min_size=1, max_size=6)):
            body[place] = data.draw(st.integers(0, 255))
        path = tmp_path / "odd.wav"
        path.write_bytes(body)

        found = sound_of(path)

        assert found.duration_seconds is None or 0 <= found.duration_seconds < math.inf
        assert (found == Sound()) == (found.audio_format is None)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A WAV file that states how long it is, of whatever chunks."""
    names = st.sampled_from([b"LIST", b"fact", b"JUNK", b"bext", b"id3 "])
    others = st.lists(st.builds(chunk, names, st.binary(max_size=33)), max_size=3)
    samples = draw(st.binary(max_size=200))
    stated = draw(st.sampled_from([None, 0, *NO_LENGTHS]))
    return riff(
        encoding(), *draw(others), chunk(b"data", samples, stated), *draw(others), length=None
    )


@settings(unhurried, max_examples=200)
@given(bodies(), st.integers(0))
def test_any_file_cut_short_of_its_length_is_refused(body: bytes, end: int) -> None:
    check(body)
    with pytest.raises(NotAcceptedError):
        check(body[: end % len(body)])


@settings(unhurried, max_examples=60)
@given(bodies(), st.lists(st.integers(0, 500), max_size=20))
def test_any_file_is_received_as_it_is_whatever_its_pieces(
    tmp_path: Path, body: bytes, places: list[int]
) -> None:
    path = tmp_path / "any.wav"
    ends = sorted(min(place, len(body)) for place in places)
    parts = [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)])]
    expected = Received(len(body), hashlib.sha256(body).hexdigest())

    assert receive(parts, path) == expected
    assert path.read_bytes() == body
    assert receive(pieces(body, 1), path) == expected
    assert path.read_bytes() == body
