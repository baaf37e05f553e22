"""Storage of recordings: names, folders and buckets, and the manifest."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from optional import needs_s3
from polyai.errors import ConfigurationError, PolyAIError, StoreError
from polyai.recordings.custody import Head
from polyai.recordings.index import Index, read_index
from polyai.recordings.layout import file_name, partition, safe_name
from polyai.recordings.manifest import SCHEMA, Manifest, Row, key_of, read_part, rows_of
from polyai.warehouse.file_store import Store
from polyai.warehouse.incoming import Incoming
from polyai.warehouse.open import owner_only
from polyai.warehouse.stores import open_store
from s3_server import S3Server, s3

pytestmark = pytest.mark.server

AGENT = "PROJECT-BOOKINGS"

MORNING = datetime(2025, 3, 1, 9, 30, tzinfo=UTC)

NO_DAY = "__HIVE_DEFAULT_PARTITION__"

MEGABYTE = 2**20

_roots = (f"root-{number}" for number in count())


class Shelf(LocalFileSystem):  # type: ignore[misc]
    """File server, such as SFTP: a file on it grows while it is written."""

    protocol = "shelf"

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(os.fspath(path).removeprefix("shelf://"))

    def unstrip_protocol(self, name: str) -> str:
        return f"shelf://{self._strip_protocol(name)}"

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        body = Path(lpath).read_bytes()
        with Path(rpath).open("wb") as file:
            file.write(body[: len(body) // 2])
            file.flush()
            self.half_way()
            file.write(body[len(body) // 2 :])

    def half_way(self) -> None:
        """No-op."""


class BrokenShelf(Shelf):
    """File server that fails in the middle of each upload."""

    protocol = "broken"

    def half_way(self) -> None:
        raise ConnectionResetError("by peer")


class TimelessShelf(Shelf):
    """File server without modification times."""

    protocol = "timeless"

    def modified(self, path: str) -> datetime:
        raise NotImplementedError


for kind in (Shelf, BrokenShelf, TimelessShelf):
    fsspec.register_implementation(kind.protocol, kind, clobber=True)
fsspec.register_implementation("undriven", "no_such_module.Files", clobber=True)


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3() as running:
        yield running


@pytest.fixture
def bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, with its settings in the environment."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


def root_of(kind: str, request: pytest.FixtureRequest) -> str:
    name = next(_roots)
    match kind:
        case "folder":
            return str(request.getfixturevalue("tmp_path") / name)
        case "shelf":
            return f"shelf://{request.getfixturevalue('tmp_path') / name}"
        case "s3":
            return f"s3://{request.getfixturevalue('bucket').bucket}/{name}"
    return f"memory://{name}"


@pytest.fixture(params=["folder", "memory", "shelf", pytest.param("s3", marks=needs_s3)])
def store(request: pytest.FixtureRequest) -> Store:
    return open_store(root_of(request.param, request))


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "recordings"))


@pytest.fixture
def draft(tmp_path: Path) -> Callable[[bytes], Path]:
    """Returns a function that writes a file for `put`."""

    def write(body: bytes) -> Path:
        path = tmp_path / "drafts" / os.urandom(8).hex()
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(body)
        return path

    return write


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return tmp_path / "pipelines"


def read(store: Store, path: str) -> bytes:
    return b"".join(store.parts(path))


def message_of(error: pytest.ExceptionInfo[PolyAIError]) -> str:
    """The message, which has to be one line."""
    text = str(error.value)
    assert "\n" not in text
    assert not text.rstrip().endswith(":")
    return text


awkward = st.sampled_from([*"./\\ ~%=+#?*:|<>\"'[]{}&;$\0\n", "..", "%2E", "~~", "ä", "漢", "😀"])
names = st.lists(awkward | st.text(max_size=3), max_size=12).map("".join) | st.builds(
    lambda text, times, end: text * times + end,
    st.text(min_size=1, max_size=3),
    st.integers(1, 200),
    st.text(max_size=2),
)


class TestASafeName:
    @pytest.mark.parametrize(
        ("name", "safe"),
        [
            ("PROJECT-1_a.b", "PROJECT-1_a.b"),
            ("a/b", "a%2Fb"),
            ("a\\b", "a%5Cb"),
            ("100%", "100%25"),
            ("a b", "a%20b"),
            ("a=b", "a%3Db"),
            ("a~b", "a%7Eb"),
            ("ä", "%C3%A4"),
            ("\0", "%00"),
            (".", "%2E"),
            ("..", "%2E."),
            (".hidden", "%2Ehidden"),
            ("%2Ehidden", "%252Ehidden"),
            ("a" * 180, "a" * 180),
        ],
        ids=lambda name: f"{name[:12]!r}",
    )
    def test_is_percent_encoded(self, name: str, safe: str) -> None:
        assert safe_name(name) == safe

    @pytest.mark.parametrize(
        "name",
        ["a" * 181, "/" * 61, "." + "a" * 178, "ä" * 300],
        ids=["letters", "slashes", "leading dot", "umlauts"],
    )
    def test_that_is_too_long_ends_with_a_hash(self, name: str) -> None:
        safe = safe_name(name)
        assert len(safe) == 180
        assert re.fullmatch(r"[a-zA-Z0-9%.]{146}~~[0-9a-f]{32}", safe)
        assert safe != safe_name(f"{name[:-1]}b")

    @examples(200)
    @given(names)
    def test_is_valid_in_every_store_and_can_be_decoded(self, name: str) -> None:
        safe = safe_name(name)
        assert re.fullmatch(r"[A-Za-z0-9_.~%-]*", safe)
        assert len(safe) <= 180
        assert not safe.startswith(".")
        if "~~" in safe:
            assert len(safe) == 180
        else:
            assert unquote(safe, errors="strict") == name

    @examples(200)
    @given(st.lists(names, min_size=2, max_size=8))
    def test_is_unique(self, some: list[str]) -> None:
        # names that look like the encoded or decoded form of others
        distinct = {*some, *map(safe_name, some), *map(unquote, some), *(f".{n}" for n in some)}
        assert len({safe_name(name) for name in distinct}) == len(distinct)

    @examples(100)
    @given(st.lists(names.filter(bool), min_size=1, max_size=4, unique=True))
    def test_gives_each_recording_its_own_file_name(self, ids: list[str]) -> None:
        directions = ["combined", "user", "agent"]
        ids = list({one for name in ids for one in (name, f"{name}.user", f"{name}.redacted")})
        found = {
            file_name(conversation_id, direction, redacted=redacted)
            for conversation_id in ids
            for direction in directions
            for redacted in (True, False)
        }
        assert len(found) == len(ids) * 6
        assert all(len(name) <= 255 and name.endswith(".wav") for name in found)
        assert not any(name.startswith(".") for name in found)


def test_a_file_name_contains_direction_and_redaction() -> None:
    assert file_name("CA1", "combined", redacted=True) == "CA1.combined.redacted.wav"
    assert file_name("CA/1", "user", redacted=False) == "CA%2F1.user.wav"


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (MORNING, "2025-03-01"),
        (datetime(2025, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC), "2025-03-01"),
        (datetime(2025, 3, 1, 23, 30, tzinfo=timezone(timedelta(hours=-1))), "2025-03-02"),
        (datetime(2025, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=5.5))), "2025-02-28"),
        (None, NO_DAY),
        (datetime(9999, 12, 31, tzinfo=UTC), "9999-12-31"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01"),
    ],
    ids=["UTC", "late", "west of it", "east of it", "unknown", "the last year", "the first year"],
)
def test_a_partition_is_a_day_in_utc(moment: datetime | None, day: str) -> None:
    assert partition("a/b", moment) == f"agent_id=a%2Fb/date={day}"


class TestAStore:
    def test_returns_the_files_that_were_put(
        self, store: Store, draft: Callable[[bytes], Path]
    ) -> None:
        store.put(draft(b"sound"), "agent_id=A/date=2025-03-01/c.wav")
        store.put(draft(b""), "agent_id=A/date=2025-03-01/empty.wav")
        store.put(draft(b"other"), "agent_id=A/date=2025-03-02/d.wav")
        store.put(draft(b"top"), "top.wav")

        assert store.sizes("agent_id=A/date=2025-03-01") == {"c.wav": 5, "empty.wav": 0}
        assert store.sizes("agent_id=A") == {}
        assert store.folders("agent_id=A") == ["date=2025-03-01", "date=2025-03-02"]
        assert "agent_id=A" in store.folders("")
        assert store.sizes("")["top.wav"] == 3
        assert read(store, "agent_id=A/date=2025-03-01/c.wav") == b"sound"
        assert read(store, "agent_id=A/date=2025-03-01/empty.wav") == b""

    def test_is_empty_at_first(self, store: Store) -> None:
        assert store.sizes("agent_id=A/date=2025-03-01") == {}
        assert store.folders("agent_id=A") == []
        assert store.folders("") == []
        with pytest.raises(FileNotFoundError):
            read(store, "agent_id=A/date=2025-03-01/c.wav")
        store.delete(["agent_id=A/date=2025-03-01/c.wav", "d.wav"])
        store.delete([])
        store.delete_orphans()

    def test_deletes_files(self, store: Store, draft: Callable[[bytes], Path]) -> None:
        for name in ("a", "b", "c"):
            store.put(draft(b"sound"), f"day/{name}.wav")

        store.delete(["day/a.wav", "day/absent.wav", "night/absent.wav", "day/b.wav"])

        assert store.sizes("day") == {"c.wav": 5}
        with pytest.raises(FileNotFoundError):
            read(store, "day/a.wav")
        assert read(store, "day/c.wav") == b"sound"

    def test_accepts_a_file_in_place_of_a_deleted_one(
        self, store: Store, draft: Callable[[bytes], Path]
    ) -> None:
        for body in (b"one", b"another"):
            store.put(draft(body), "agent/day/a.wav")
            assert read(store, "agent/day/a.wav") == body
            store.delete(["agent/day/a.wav"])
            assert store.sizes("agent/day") == {}

    def test_replaces_an_existing_file(self, store: Store, draft: Callable[[bytes], Path]) -> None:
        for body in (b"long enough", b"short", b"", b"longer than all of them before"):
            store.put(draft(body), "day/a.wav")
            assert read(store, "day/a.wav") == body
            assert store.sizes("day") == {"a.wav": len(body)}

    def test_keeps_the_existing_file_if_the_upload_fails(
        self, store: Store, draft: Callable[[bytes], Path], tmp_path: Path
    ) -> None:
        store.put(draft(b"before"), "day/a.wav")
        with pytest.raises(StoreError) as error:
            store.put(tmp_path / "absent.wav", "day/a.wav")
        assert message_of(error).startswith(f"{store.uri('day/a.wav')} cannot be written: ")
        assert read(store, "day/a.wav") == b"before"

    @pytest.mark.slow
    @pytest.mark.parametrize("megabytes", [8, 20], ids="{} MB".format)
    def test_accepts_large_files(
        self, megabytes: int, store: Store, draft: Callable[[bytes], Path]
    ) -> None:
        body = os.urandom(megabytes * MEGABYTE + 1)
        store.put(draft(body), "day/large.wav")
        assert store.sizes("day") == {"large.wav": len(body)}
        assert read(store, "day/large.wav") == body

    @pytest.mark.parametrize(
        "conversation_id",
        ["a/b", "100%", "a%2Fb", "a b", "ä漢😀", "..", "~", "?versionId=1", "#[x]*", "x" * 300],
        ids=lambda name: name[:12],
    )
    def test_accepts_every_id(
        self, conversation_id: str, store: Store, draft: Callable[[bytes], Path]
    ) -> None:
        day = partition(conversation_id, MORNING)
        name = file_name(conversation_id, "combined", redacted=True)
        path = f"{day}/{name}"

        store.put(draft(b"sound"), path)

        assert store.sizes(day) == {name: 5}
        assert store.folders("") in ([day.split("/")[0]], [".incoming", day.split("/")[0]])
        assert read(store, path) == b"sound"
        assert store.path_of(store.uri(path)) == path
        store.delete([path])
        assert store.sizes(day) == {}

    def test_converts_uris_back_to_paths(self, store: Store) -> None:
        assert store.path_of(store.uri("day/a.wav")) == "day/a.wav"
        assert str(store) == store.uri("")
        for other in ("day/a.wav", f"{store}2/day/a.wav", "s3://other/day/a.wav", ""):
            assert store.path_of(other) is None

    @pytest.mark.parametrize("kind", ["folder", "memory", "shelf"])
    def test_has_uris_that_fsspec_opens(
        self, kind: str, draft: Callable[[bytes], Path], request: pytest.FixtureRequest
    ) -> None:
        store = open_store(root_of(kind, request))
        path = f"{partition('a/b ü', MORNING)}/{file_name('100%', 'user', redacted=False)}"
        store.put(draft(b"sound"), path)
        with fsspec.open(store.uri(path)) as file:
            assert file.read() == b"sound"

    @pytest.mark.parametrize("kind", ["folder", "shelf", pytest.param("s3", marks=needs_s3)])
    def test_replaces_files_atomically(
        self, kind: str, draft: Callable[[bytes], Path], request: pytest.FixtureRequest
    ) -> None:
        store = open_store(root_of(kind, request))
        store.put(draft(b"a" * 9 * MEGABYTE), "day/a.wav")
        done = threading.Event()

        def replace() -> None:
            for letter in (b"b", b"c", b"d"):
                store.put(draft(letter * 9 * MEGABYTE), "day/a.wav")
            done.set()

        writer = threading.Thread(target=replace)
        writer.start()
        seen: set[tuple[bytes, int]] = set()
        while not done.is_set():
            assert store.sizes("day") == {"a.wav": 9 * MEGABYTE}
            try:
                body = read(store, "day/a.wav")
            except StoreError:
                # S3 reports a file that is replaced while it is read
                assert kind == "s3"
                continue
            seen.add((body[:1], body.count(body[:1])))
        writer.join()
        assert {length for _, length in seen} == {9 * MEGABYTE}
        assert read(store, "day/a.wav") == b"d" * 9 * MEGABYTE


class TestAFolder:
    @pytest.mark.parametrize(
        "name",
        ["plain", "a b", "100%", "a%20b", "ü", "a#b", "a?b", "[a]", "a::b", "~a"],
    )
    def test_is_at_the_given_path(
        self, name: str, draft: Callable[[bytes], Path], tmp_path: Path
    ) -> None:
        store = open_store(str(tmp_path / name))
        store.put(draft(b"sound"), "day/a.wav")
        assert store.local_folder == tmp_path / name
        assert (tmp_path / name / "day" / "a.wav").read_bytes() == b"sound"
        assert store.uri("day/a.wav") == str(tmp_path / name / "day" / "a.wav")
        assert store.path_of(str(tmp_path / name / "day" / "a.wav")) == "day/a.wav"

    @pytest.mark.parametrize(
        "url", ["recordings", "recordings/", "./recordings", "x/../recordings"]
    )
    def test_may_be_relative(self, url: str, tmp_path: Path) -> None:
        assert open_store(url).uri("day/a.wav") == str(tmp_path / "recordings" / "day" / "a.wav")

    def test_may_be_a_url(self, tmp_path: Path) -> None:
        store = open_store(f"file://{tmp_path}/recordings/")
        assert store.local_folder == tmp_path / "recordings"

    def test_is_created_by_the_first_put(self, tmp_path: Path) -> None:
        store = open_store(str(tmp_path / "recordings"))
        store.sizes("")
        store.folders("")
        store.delete(["day/a.wav"])
        store.delete_orphans()
        assert list(tmp_path.iterdir()) == []

    def test_drops_empty_days(
        self, folder: Store, draft: Callable[[bytes], Path], tmp_path: Path
    ) -> None:
        for path in ("agent/one/a.wav", "agent/two/a.wav", "agent/two/b.wav"):
            folder.put(draft(b"sound"), path)
        folder.delete(["agent/one/a.wav", "agent/two/a.wav"])
        assert folder.folders("agent") == ["two"]
        assert not (tmp_path / "recordings" / "agent" / "one").exists()

    def test_moves_the_file(self, folder: Store, draft: Callable[[bytes], Path]) -> None:
        file = draft(b"sound")
        inode = file.stat().st_ino
        folder.put(file, "day/a.wav")
        assert Path(folder.uri("day/a.wav")).stat().st_ino == inode
        assert not file.exists()

    def test_that_is_a_file_is_an_error(
        self, draft: Callable[[bytes], Path], tmp_path: Path
    ) -> None:
        (tmp_path / "recordings").write_text("mine")
        store = open_store(str(tmp_path / "recordings"))
        with pytest.raises(StoreError) as error:
            store.put(draft(b"sound"), "day/a.wav")
        assert "cannot be written" in message_of(error)
        assert (tmp_path / "recordings").read_text() == "mine"

    def test_in_place_of_a_file_is_an_error(
        self, folder: Store, draft: Callable[[bytes], Path]
    ) -> None:
        folder.put(draft(b"sound"), "day/a.wav/b.wav")
        for use in (
            lambda: folder.put(draft(b"sound"), "day/a.wav"),
            lambda: read(folder, "day/a.wav"),
            lambda: folder.delete(["day/a.wav"]),
        ):
            with pytest.raises(StoreError) as error:
                use()
            assert folder.uri("day/a.wav") in message_of(error)


USES: dict[str, Callable[[Store, Path], object]] = {
    "put": lambda store, file: store.put(file, "day/a.wav"),
    "sizes": lambda store, _: store.sizes("day"),
    "folders": lambda store, _: store.folders(""),
    "parts": lambda store, _: read(store, "day/a.wav"),
    "delete": lambda store, _: store.delete(["day/a.wav"]),
}
"""Operations of a store."""

every_use = pytest.mark.parametrize("use", USES)


@needs_s3
class TestABucket:
    def test_uploads_large_files_in_parts(
        self, bucket: S3Server, draft: Callable[[bytes], Path]
    ) -> None:
        store = open_store(f"s3://{bucket.bucket}/{next(_roots)}")
        for megabytes in (7, 20):
            store.put(draft(os.urandom(megabytes * MEGABYTE)), f"{megabytes}.wav")
        tags = [bucket.files().info(store.uri(f"{size}.wav"))["ETag"] for size in (7, 20)]
        # the number of parts follows the dash
        assert [tag.strip('"').partition("-")[2] for tag in tags] == ["", "3"]

    def test_may_be_the_whole_bucket(
        self, bucket: S3Server, draft: Callable[[bytes], Path]
    ) -> None:
        store = open_store(f"s3://{bucket.bucket}")
        name = next(_roots)
        store.put(draft(b"sound"), f"{name}/a.wav")
        assert store.uri(f"{name}/a.wav") == f"s3://{bucket.bucket}/{name}/a.wav"
        assert store.path_of(f"s3://{bucket.bucket}/{name}/a.wav") == f"{name}/a.wav"
        assert store.sizes(name) == {"a.wav": 5}
        assert name in store.folders("")

    def test_shows_changes_by_other_machines(
        self, bucket: S3Server, draft: Callable[[bytes], Path]
    ) -> None:
        store, other = open_store(f"s3://{bucket.bucket}/{next(_roots)}"), bucket.files()
        store.put(draft(b"sound"), "day/a.wav")
        assert store.sizes("day") == {"a.wav": 5}

        other.pipe_file(store.uri("day/a.wav"), b"another")
        other.pipe_file(store.uri("day/b.wav"), b"one")
        assert store.sizes("day") == {"a.wav": 7, "b.wav": 3}
        assert read(store, "day/a.wav") == b"another"

        other.rm_file(store.uri("day/a.wav"))
        assert store.sizes("day") == {"b.wav": 3}
        with pytest.raises(FileNotFoundError):
            read(store, "day/a.wav")

    def test_contains_nothing_but_the_files(
        self, bucket: S3Server, draft: Callable[[bytes], Path]
    ) -> None:
        root = f"{bucket.bucket}/{next(_roots)}"
        store = open_store(f"s3://{root}")
        store.put(draft(b"sound"), "day/a.wav")
        store.put(draft(b"more"), "day/a.wav")
        assert bucket.files().find(root) == [f"{root}/day/a.wav"]

    def test_can_use_the_credentials_of_the_destination(
        self, server: S3Server, draft: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in server.environment("DESTINATION__FILESYSTEM").items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{server.bucket}/{next(_roots)}")
        store.put(draft(b"sound"), "day/a.wav")
        assert server.files().cat_file(store.uri("day/a.wav")) == b"sound"

    def test_prefers_its_own_credentials(
        self, bucket: S3Server, draft: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        nowhere = S3Server("http://127.0.0.1:1")
        for name, value in nowhere.environment("DESTINATION__FILESYSTEM").items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{bucket.bucket}/{next(_roots)}")
        store.put(draft(b"sound"), "day/a.wav")
        assert bucket.files().cat_file(store.uri("day/a.wav")) == b"sound"

    @pytest.mark.usefixtures("bucket")
    def test_that_does_not_exist_is_an_error(self, draft: Callable[[bytes], Path]) -> None:
        store = open_store("s3://no-such-bucket/recordings")
        for use in (Store.check, lambda store: store.put(draft(b"sound"), "day/a.wav")):
            with pytest.raises(StoreError, match=r"s3://no-such-bucket/.*bucket") as error:
                use(store)
            message_of(error)

    def test_that_exists_is_no_error(self, bucket: S3Server) -> None:
        open_store(f"s3://{bucket.bucket}/no/such/folder").check()

    @every_use
    def test_that_refuses_the_key_is_an_error(
        self, use: str, bucket: S3Server, draft: Callable[[bytes], Path]
    ) -> None:
        store = open_store(f"s3://{bucket.bucket}/recordings")
        with (
            bucket.refusing(),
            pytest.raises(StoreError, match=r"does not exist in our records|Forbidden") as error,
        ):
            USES[use](store, draft(b"sound"))
        message_of(error)

    @every_use
    def test_that_does_not_answer_is_an_error(
        self, use: str, draft: Callable[[bytes], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            nowhere = S3Server(f"http://127.0.0.1:{unused.getsockname()[1]}")
            for name, value in nowhere.environment().items():
                monkeypatch.setenv(name, value)
            # five attempts take ten seconds
            monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
            store = open_store(f"s3://{nowhere.bucket}/recordings")
            with pytest.raises(StoreError, match=re.escape(nowhere.url)) as error:
                USES[use](store, draft(b"sound"))
        message_of(error)

    def test_without_credentials_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in list(os.environ):
            if name.startswith("AWS_"):
                monkeypatch.delenv(name)
        # and none of the machine
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
        with pytest.raises(ConfigurationError, match=r"s3://bucket/x: .*credentials") as error:
            open_store("s3://bucket/x")
        assert "[sources.polyai.recordings.credentials]" in message_of(error)
        assert "[destination.filesystem.credentials]" in message_of(error)


@pytest.mark.parametrize(
    "url", ["", "s3://", "memory://", "nosuch://bucket/x", "undriven://bucket/x"]
)
def test_an_invalid_url_is_an_error(url: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^recordings_url {re.escape(url)}: ") as error:
        open_store(url)
    message_of(error)


def test_a_missing_driver_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"dlt\[undriven\]") as error:
        open_store("undriven://bucket/x")
    message_of(error)


class TestAFileServer:
    def test_has_a_file_only_when_it_is_complete(
        self, draft: Callable[[bytes], Path], tmp_path: Path
    ) -> None:
        store, broken = (open_store(f"{kind}://{tmp_path}/root") for kind in ("shelf", "broken"))
        store.put(draft(b"before"), "day/a.wav")

        with pytest.raises(StoreError, match="by peer") as error:
            broken.put(draft(b"afterwards"), "day/a.wav")

        assert message_of(error).startswith(f"{broken.uri('day/a.wav')} cannot be written: ")
        assert store.sizes("day") == {"a.wav": 6}
        assert read(store, "day/a.wav") == b"before"
        with pytest.raises(StoreError, match="by peer"):
            broken.put(draft(b"new"), "day/b.wav")
        assert store.sizes("day") == {"a.wav": 6}
        assert set(store.sizes(".incoming").values()) == {5, 1}

    def test_keeps_no_drafts(self, draft: Callable[[bytes], Path], tmp_path: Path) -> None:
        store = open_store(f"shelf://{tmp_path}/root")
        for _ in range(2):
            store.put(draft(b"sound"), "day/a.wav")
        files = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
        assert files == [tmp_path / "root" / "day" / "a.wav"]

    def test_deletes_orphaned_drafts(self, draft: Callable[[bytes], Path], tmp_path: Path) -> None:
        store = open_store(f"shelf://{tmp_path}/root")
        store.put(draft(b"sound"), "day/a.wav")
        aged(tmp_path / "root" / "day" / "a.wav", timedelta(days=400))
        drafts = tmp_path / "root" / ".incoming"
        for name, age in {"old": 25, "older": 1_000, "recent": 23, "new": 0}.items():
            (drafts / name).write_bytes(b"half")
            aged(drafts / name, timedelta(hours=age))

        store.delete_orphans()

        assert set(store.sizes(".incoming")) == {"recent", "new"}
        assert store.sizes("day") == {"a.wav": 5}

    def test_without_modification_times_keeps_drafts(self, tmp_path: Path) -> None:
        drafts = tmp_path / "root" / ".incoming"
        drafts.mkdir(parents=True)
        (drafts / "old").write_bytes(b"half")
        aged(drafts / "old", timedelta(days=400))

        open_store(f"timeless://{tmp_path}/root").delete_orphans()

        assert (drafts / "old").exists()


def test_a_folder_keeps_the_drafts_of_another_run(folder: Store, tmp_path: Path) -> None:
    own = tmp_path / "recordings" / ".incoming" / "run"
    own.mkdir(parents=True)
    (own / "a.wav").write_bytes(b"half")
    aged(own / "a.wav", timedelta(days=400))
    folder.delete_orphans()
    assert (own / "a.wav").exists()


def aged(path: Path, age: timedelta) -> None:
    then = time.time() - age.total_seconds()
    os.utime(path, (then, then))


RUN = """
import sys
from pathlib import Path
from polyai.warehouse.stores import open_store
from polyai.warehouse.incoming import Incoming

store, elsewhere = open_store(sys.argv[1]), Path(sys.argv[2])
with Incoming(store, elsewhere) as incoming, incoming.file(".wav") as file:
    file.write_bytes(b"half")
    print(file, flush=True)
    sys.stdin.read()
"""
"""Program that writes half of a file and waits for a signal."""

MANY_RUNS = """
import sys
from pathlib import Path
from polyai.warehouse.stores import open_store
from polyai.warehouse.incoming import Incoming

store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(100):
    with Incoming(store, Path(sys.argv[1])) as incoming, incoming.file(".wav") as file:
        file.write_bytes(b"half")
        file.read_bytes()
"""


@contextmanager
def running(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def left_in(folder: Path) -> list[Path]:
    """Files in a folder, except the lock of the gate."""
    return [path for path in folder.glob("*") if path.name != ".incoming.lock"]


class TestIncoming:
    @pytest.mark.slow
    @pytest.mark.parametrize("place", ["in the store", "elsewhere"])
    def test_removes_the_files_of_killed_runs_only(
        self, place: str, folder: Store, elsewhere: Path, tmp_path: Path
    ) -> None:
        is_local = place == "in the store"
        store = folder if is_local else open_store("memory://incoming")
        parent = tmp_path / "recordings" if is_local else elsewhere
        url = folder.uri("") if is_local else "memory://incoming"
        with running(RUN, url, elsewhere) as living, running(RUN, url, elsewhere) as killed:
            half, left = Path(line_of(living)), Path(line_of(killed))
            assert half.parents[1] == left.parents[1] == parent / ".incoming"
            killed.send_signal(signal.SIGKILL)
            killed.wait()
            assert left.exists()

            with Incoming(store, elsewhere) as incoming, incoming.file(".wav") as own:
                own.write_bytes(b"mine")
                assert not left.exists()
                assert half.read_bytes() == b"half"
                names = {path.name for path in (parent / ".incoming").iterdir()}
                runs = (half.parent.name, own.parent.name)
                assert names == {name for run in runs for name in (run, f"{run}.lock")}

            assert half.read_bytes() == b"half"
            _, errors = living.communicate()
            assert (living.returncode, errors) == (0, "")
        assert not (parent / ".incoming").exists()

    @pytest.mark.slow
    def test_can_be_entered_by_several_runs_at_once(self, tmp_path: Path) -> None:
        with ExitStack() as opened:
            runs = [opened.enter_context(running(MANY_RUNS, tmp_path)) for _ in range(3)]
            assert [line_of(run) for run in runs] == ["ready"] * 3
            for run in runs:
                assert run.stdin is not None
                run.stdin.write("\n")
                run.stdin.flush()
            errors = [run.communicate()[1] for run in runs]
        assert [text.strip().rpartition("\n")[2] for text in errors] == [""] * 3

    def test_is_on_the_stores_own_disk(self, store: Store, elsewhere: Path, tmp_path: Path) -> None:
        with Incoming(store, elsewhere) as incoming, incoming.file(".wav") as file:
            assert (store.local_folder or elsewhere) in file.parents
            assert file.is_relative_to(tmp_path)
        assert left_in(elsewhere) == []

    def test_removes_files_that_were_not_moved(self, folder: Store, elsewhere: Path) -> None:
        with Incoming(folder, elsewhere) as incoming:
            with incoming.file(".wav") as one, incoming.file(".wav") as other:
                assert one != other
                assert one.suffix == ".wav"
                assert not one.exists()
                one.write_bytes(b"half")
            assert not one.exists()

    def test_has_files_that_can_be_put(self, store: Store, elsewhere: Path) -> None:
        with Incoming(store, elsewhere) as incoming:
            with incoming.file(".wav") as file:
                file.write_bytes(b"sound")
                store.put(file, "day/a.wav")
            assert read(store, "day/a.wav") == b"sound"
        assert read(store, "day/a.wav") == b"sound"

    def test_leaves_nothing_even_after_an_error(self, folder: Store, tmp_path: Path) -> None:
        def fail() -> None:
            with Incoming(folder, tmp_path) as incoming, incoming.file(".wav") as file:
                file.write_bytes(b"half")
                raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            fail()
        assert left_in(tmp_path / "recordings") == []


def test_files_are_readable_by_their_owner_only(
    folder: Store, elsewhere: Path, tmp_path: Path
) -> None:
    remote = open_store(f"shelf://{tmp_path}/remote")
    before = os.umask(0o022)
    try:
        with owner_only():
            for store in (folder, remote):
                with Incoming(store, elsewhere) as incoming:
                    with incoming.file(".wav") as file:
                        file.write_bytes(b"sound")
                        store.put(file, f"{partition(AGENT, MORNING)}/a.wav")
                    manifest = Manifest(store, incoming, Index("a", AGENT, "writer"), "run")
                    commit(manifest, [row("a")])
                    made = [path for path in tmp_path.rglob("*") if path.stat().st_mode & 0o077]
                    assert made == []
        assert len(list(tmp_path.rglob("*.wav"))) == 2
        assert len(list(tmp_path.rglob("*.parquet"))) == 2
        assert [path for path in tmp_path.rglob("*") if path.stat().st_mode & 0o077] == []
    finally:
        os.umask(before)


def row(conversation_id: str, **facts: Any) -> Row:
    """Row as it is read back, with every column."""
    return {
        **dict.fromkeys(name for name in SCHEMA.names if name != "date"),
        "agent_id": AGENT,
        "conversation_id": conversation_id,
        "direction": "combined",
        "redacted": True,
        "status": "stored",
        "bytes": 16_044,
        "sha256": "0" * 64,
        "duration_seconds": 1.5,
        "started_at": MORNING,
        "fetched_at": MORNING + timedelta(hours=1, microseconds=1),
        "attempts": 1,
        **facts,
    }


@pytest.fixture
def incoming(store: Store, elsewhere: Path) -> Iterator[Incoming]:
    with Incoming(store, elsewhere) as own:
        yield own


@pytest.fixture
def manifest(store: Store, incoming: Incoming) -> Manifest:
    return Manifest(store, incoming, Index("archive", AGENT, "writer"), "run")


def by_key(*rows: Row) -> dict[Any, Row]:
    return {key_of(one): one for one in rows}


class TestAManifest:
    def test_contains_the_rows_that_were_committed(self, manifest: Manifest, store: Store) -> None:
        rows = [
            row("a"),
            row("a", direction="user"),
            row("a", redacted=False),
            row("ä/漢 %", error_code="NO_RECORDING", status="not_found", bytes=None),
        ]
        commit(manifest, rows)
        assert manifest.read(partition(AGENT, MORNING)) == by_key(*rows)
        again = opened(store, manifest)
        assert again.read(partition(AGENT, MORNING)) == by_key(*rows)
        assert store.folders("manifest") == [safe_name(AGENT)]

    def test_replaces_rows_of_the_same_key(self, manifest: Manifest) -> None:
        commit(manifest, [row("a", status="failed"), row("b"), row("a", direction="user")])
        commit(manifest, [row("a", attempts=2), row("c")])
        commit(manifest, [row("c", attempts=8), row("c", attempts=9)])
        assert manifest.read(partition(AGENT, MORNING)) == by_key(
            row("a", attempts=2), row("b"), row("a", direction="user"), row("c", attempts=9)
        )
        assert len(manifest.index.parts) == 1

    def test_appends_a_part_for_each_month(self, manifest: Manifest, store: Store) -> None:
        rows = [row(str(day), started_at=MORNING + timedelta(days=day)) for day in range(40)]
        rows.append(row("no start", started_at=None))
        for one in rows:
            commit(manifest, [one], is_new=True)
        parts = [part for part in manifest.index.parts if part.month == "2025-04"]
        assert len(parts) > 1
        # merged while there are many
        assert len(manifest.index.parts) < 30
        manifest.compact("2025-05")
        assert sorted(part.month for part in manifest.index.parts) == [
            "2025-03",
            "2025-04",
            "unknown",
        ]
        assert sum(part.rows for part in manifest.index.parts) == 41
        for one in rows:
            assert manifest.read(partition(AGENT, one["started_at"])) == by_key(one)
        assert listed_in(store) == {part.path for part in manifest.index.parts}

    def test_of_two_warehouses_has_the_rows_of_both(
        self, manifest: Manifest, store: Store, incoming: Incoming
    ) -> None:
        other = Manifest(store, incoming, Index("archive", AGENT, "other"), "run2")
        commit(manifest, [row("a"), row("b")])
        commit(other, [row("b", attempts=2), row("c")])
        commit(manifest, [row("d")])
        both = opened(store, manifest).read(partition(AGENT, MORNING))
        assert both == by_key(row("a"), row("b"), row("c"), row("d"))

    def test_is_separate_for_each_agent(
        self, manifest: Manifest, store: Store, incoming: Incoming
    ) -> None:
        commit(manifest, [row("a")])
        other = Manifest(store, incoming, Index("archive", "other", "writer"), "run")
        commit(other, [row("b", agent_id="other")])
        assert manifest.read(partition(AGENT, MORNING)) == by_key(row("a"))
        assert other.read(partition("other", MORNING)) == by_key(row("b", agent_id="other"))

    def test_loses_rows_that_are_removed(self, manifest: Manifest, store: Store) -> None:
        commit(manifest, [row("a"), row("b"), row("c", started_at=None)])
        manifest.remove(pc.field("started_at") >= MORNING, (), Head())
        assert manifest.read(partition(AGENT, MORNING)) == {}
        assert manifest.read(partition(AGENT, None)) == by_key(row("c", started_at=None))
        manifest.remove(pc.field("conversation_id").isin(["c"]), (), Head())
        assert listed_in(store) == set()

    def test_of_an_older_version_without_a_column_can_be_read(
        self, manifest: Manifest, store: Store, draft: Callable[[bytes], Path]
    ) -> None:
        commit(manifest, [row("a")])
        (part,) = manifest.index.parts
        table = pq.read_table(pa.BufferReader(store.read(part.path)))
        older = pa.BufferOutputStream()
        pq.write_table(table.drop_columns(["audio_format", "channels"]), older)
        body = older.getvalue().to_pybytes()
        store.put(draft(body), part.path)
        older_part = replace(part, sha256=hashlib.sha256(body).hexdigest())
        assert list(rows_of(read_part(store, older_part))) == [row("a")]


def commit(manifest: Manifest, rows: list[Row], *, is_new: bool = False) -> None:
    manifest.commit(rows, custody=Head(), replaces=lambda _: not is_new)


def opened(store: Store, manifest: Manifest) -> Manifest:
    """The manifest as another run reads it."""
    index = read_index(store, manifest.index.path)
    assert index == manifest.index
    return Manifest(store, manifest._incoming, index, "another")


def listed_in(store: Store) -> set[str]:
    """Paths of the Parquet files of manifests."""
    return {path for path, _ in store.walk("manifest/") if path.endswith(".parquet")}


every_agent = pytest.mark.parametrize(
    "agent_id", [AGENT, "a/b c", "100%", "a%2Fb", "a=b", "ä漢😀", ".hidden", "a~b"]
)


class TestReaders:
    """Manifests as other programs read them."""

    @every_agent
    def test_duckdb_and_pyarrow_read_agent_and_day(
        self, agent_id: str, folder: Store, elsewhere: Path
    ) -> None:
        rows = [
            row("a", agent_id=agent_id),
            row("b", agent_id=agent_id, started_at=MORNING + timedelta(days=1)),
            row("c", agent_id=agent_id, started_at=None),
        ]
        with Incoming(folder, elsewhere) as incoming:
            manifest = Manifest(folder, incoming, Index("archive", agent_id, "writer"), "run")
            commit(manifest, rows)
        paths = [folder.uri(part.path) for part in manifest.index.parts]
        expected = [
            ("a", agent_id, "2025-03-01"),
            ("b", agent_id, "2025-03-02"),
            ("c", agent_id, None),
        ]
        with duckdb.connect() as connection:
            found = connection.execute(
                "SELECT conversation_id, agent_id, date FROM read_parquet(?) ORDER BY 1", [paths]
            ).fetchall()
        assert found == expected
        # the index and drafts are skipped
        dataset = pyarrow.dataset.dataset(folder.uri("manifest"))
        listed = dataset.to_table(["conversation_id", "agent_id", "date"]).to_pylist()
        assert sorted(tuple(one.values()) for one in listed) == expected

    def test_columns_that_depend_on_the_place_are_not_in_the_file(
        self, manifest: Manifest, store: Store
    ) -> None:
        commit(manifest, [row("a")])
        body = store.read(manifest.index.parts[0].path)
        assert pq.read_schema(pa.BufferReader(body)).equals(SCHEMA)
        assert not {"uri", "archive_id", "_dlt_load_id"} & set(SCHEMA.names)


def foreign() -> bytes:
    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"something": [1, 2]}), table)
    return bytes(table.getvalue().to_pybytes())


HARM: dict[str, Callable[[bytes], bytes]] = {
    "nothing left": lambda _: b"",
    "its first word left": lambda body: body[:4],
    "half of it left": lambda body: body[: len(body) // 2],
    "the last byte lost": lambda body: body[:-1],
    "zeros to its end": lambda body: body[:100] + b"\0" * (len(body) - 100),
    "HTML in its place": lambda _: b"<html>504 Gateway Time-out</html>",
    "a page of it overwritten": lambda body: body[:4] + b"\0" * 200 + body[204:],
    "its footer overwritten": lambda body: body[:-40] + b"\xff" * 32 + body[-8:],
    "another table in its place": lambda _: foreign(),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_part_is_an_error(harm: str, folder: Store, elsewhere: Path) -> None:
    with Incoming(folder, elsewhere) as incoming:
        manifest = Manifest(folder, incoming, Index("archive", AGENT, "writer"), "run")
        commit(manifest, [row(str(number)) for number in range(50)])
        path = Path(folder.uri(manifest.index.parts[0].path))
        damaged = HARM[harm](path.read_bytes())
        path.write_bytes(damaged)

        again = opened(folder, manifest)
        with pytest.raises(StoreError) as error:
            again.read(partition(AGENT, MORNING))
        assert message_of(error).startswith(f"{path} cannot be read")
        with pytest.raises(StoreError):
            commit(again, [row("a")])
        # a run does not hide the damage
        assert path.read_bytes() == damaged
