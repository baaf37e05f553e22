"""Runs over recordings: from the sandbox into a folder, a manifest and DuckDB."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
import shutil
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import duckdb
import pyarrow.dataset as ds
import pytest

from command import AGENT, KEY, access, error_of, query, run, start, wait_until
from loaded import put_loaded
from polyai import open_pipeline, resolve
from polyai.errors import ConfigurationError
from polyai.load.run import load
from polyai.recordings import fetcher
from polyai.recordings.findings import Verification
from polyai.recordings.prune import prune
from polyai.recordings.relocate import adopt
from polyai.recordings.report import RecordingsReport
from polyai.recordings.run import PIPELINE_NAME, fetch_recordings
from polyai.recordings.verify import verify_and_repair
from polyai.recordings.writer import ArchiveWriter
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.sandbox.faults import FaultKind

pytestmark = pytest.mark.load

NOW = datetime(2026, 11, 1, tzinfo=UTC)
FACTS = (
    "bytes, sha256, duration_seconds, sample_rate_hz, channels, sample_width_bytes, audio_format"
)
KIND = "conversation_id, direction, redacted"


class Archive:
    """A sandbox, with warehouse and recordings in the working directory."""

    def __init__(self, sandbox: Sandbox, base_url: str) -> None:
        self.sandbox = sandbox
        self.base_url = base_url
        self.options: dict[str, Any] = {
            "agent_id": AGENT,
            "api_key": KEY,
            "base_url": base_url,
            "max_attempts": 3,
        }
        self.now = NOW
        put_loaded(sandbox.config)

    def fetch(self, stop: threading.Event | None = None, **options: Any) -> RecordingsReport:
        """Runs `recordings` once."""
        (report,) = fetch_recordings(
            resolve(**self.options | options),
            open_pipeline(name=PIPELINE_NAME),
            stop=stop,
            clock=lambda: self.now,
        )
        return report

    def verify(self, *, quick: bool = False, **options: Any) -> Verification:
        """Runs `recordings verify --refetch` once."""
        return verify_and_repair(
            resolve(**self.options | options), open_pipeline(name=PIPELINE_NAME), quick=quick
        )

    def asked(self) -> Counter[str]:
        """Number of requests per recording."""
        return Counter(self.sandbox.requests.paths("/audio"))

    def calls(self) -> list[str]:
        """Finished calls that may have recordings."""
        return [
            conversation_id
            for index in self.sandbox.listed(AGENT)
            for conversation_id in [self.sandbox.traits(AGENT, index).conversation_id]
            if not self.sandbox.traits(AGENT, index).is_chat
            and not self.sandbox.is_in_progress(AGENT, index)
        ]

    def served(self, direction: str = "combined", *, redacted: bool = True) -> dict[str, bytes]:
        """Recordings that the sandbox serves of these calls."""
        bodies = {
            name: self.sandbox.recording(AGENT, name, direction, redacted=redacted)  # type: ignore[arg-type]
            for name in self.calls()
        }
        return {name: body for name, body in bodies.items() if body is not None}

    def stored(self, columns: str) -> list[tuple[Any, ...]]:
        """Rows of stored recordings."""
        return query(f"SELECT {columns} FROM polyai.recordings WHERE status = 'stored'")

    def assert_consistent(self, direction: str = "combined", *, redacted: bool = True) -> None:
        """Asserts that warehouse, manifest, files and sandbox agree."""
        served = self.served(direction, redacted=redacted)
        rows = query(
            "SELECT conversation_id, uri, bytes, sha256 FROM polyai.recordings "
            f"WHERE status = 'stored' AND direction = '{direction}' AND redacted = {redacted}"
        )
        assert {name for name, *_ in rows} == served.keys()
        assert len(rows) == len(served)
        for name, uri, size, sha256 in rows:
            body = Path(str(uri)).read_bytes()
            assert body == served[str(name)]
            assert (size, sha256) == (len(body), hashlib.sha256(body).hexdigest())
        assert_manifest_agrees()
        assert_no_other_files()


def chunks_of(path: Path) -> dict[bytes, bytes]:
    """Chunks of a WAV file by name."""
    body, position, chunks = path.read_bytes(), 12, {}
    while position < len(body):
        name, length = struct.unpack_from("<4sI", body, position)
        chunks[name] = body[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
    return chunks


def read_manifest(sql: str, root: str = "recordings") -> list[tuple[Any, ...]]:
    """Returns the rows of a query over the rows and indexes that the archive answers for."""
    with duckdb.connect() as connection:
        indexes = f"SELECT * FROM read_json('{root}/manifest/*/*/_index.json')"
        connection.execute(f"CREATE VIEW indexes AS {indexes}")
        parts = f"SELECT list('{root}/' || part.path) FROM (SELECT unnest(parts) part FROM indexes)"
        connection.execute(f"SET VARIABLE parts = ({parts})")
        return connection.execute(
            f"WITH manifest AS (FROM read_parquet(getvariable('parts'))) {sql}"
        ).fetchall()


def assert_manifest_agrees() -> None:
    """Asserts that the manifest has the rows of the warehouse, with all columns."""
    columns = (
        f"agent_id, {KIND}, status, path, {FACTS}, started_at, fetched_at, attempts, error_code"
    )
    listed = read_manifest(f"SELECT {columns} FROM manifest ORDER BY ALL")
    rows = query(f"SELECT {columns} FROM polyai.recordings ORDER BY ALL")
    # an earlier warehouse may have listed the same recordings
    assert set(rows) <= set(listed)
    assert {row[:4] for row in rows} == {row[:4] for row in listed}
    assert len(rows) == len({row[:4] for row in rows}) > 0


def assert_no_other_files() -> None:
    """Asserts that each file is a manifest or has a row in the warehouse."""
    uris = {uri for (uri,) in query("SELECT uri FROM polyai.recordings WHERE uri IS NOT NULL")}
    root = Path("recordings").resolve()
    listed = {path for (path,) in read_manifest("SELECT unnest(parts).path FROM indexes")}
    files = {path for path in root.rglob("*") if path.is_file() and path.name != ".incoming.lock"}
    others = [path.relative_to(root) for path in files if str(path) not in uris]
    assert {str(path) for path in others if path.suffix == ".parquet"} == listed
    names = {path.name for path in others if path.suffix != ".parquet"}
    assert all(re.fullmatch(r"archive.json|_index.json|\d{10}.jsonl", name) for name in names)
    assert len(uris) + len(others) == len(files)


@pytest.fixture
def sandbox() -> Sandbox:
    config = SandboxConfig(
        conversations=120, span=timedelta(days=20), recording_rate_hz=20, detail="small"
    )
    return Sandbox(config)


@pytest.fixture
def archive(sandbox: Sandbox) -> Iterator[Archive]:
    with serve(sandbox) as url:
        yield Archive(sandbox, url)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("conversations", "recordings"),
    [(150, 75), pytest.param(2_900, 2_000, marks=pytest.mark.matrix)],
)
def test_all_are_stored_unchanged_and_not_requested_again(
    conversations: int, recordings: int
) -> None:
    config = SandboxConfig(conversations=conversations, recording_rate_hz=20, detail="small")
    sandbox = Sandbox(config)
    with serve(sandbox) as url:
        archive = Archive(sandbox, url)
        report = archive.fetch()
        assert report.status == "complete"
        assert report.fetched >= recordings
        archive.assert_consistent()
        assert report.traffic.requests == len(archive.calls())
        assert report.traffic.retries == 0
        # old enough that missing ones are not requested again
        archive.now = NOW + timedelta(days=8)
        archive.fetch()
        sandbox.requests.clear()
        again = archive.fetch()
        assert (again.status, again.fetched, again.traffic.requests) == ("complete", 0, 0)
        shutil.rmtree(".dlt/pipelines")
        elsewhere = archive.fetch()
        assert (elsewhere.fetched, elsewhere.traffic.requests) == (0, 0)
        archive.assert_consistent()


@pytest.mark.matrix
def test_a_file_is_flushed_to_the_disk_before_it_is_registered(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: list[int] = []
    registered: list[int] = []
    fsync, add = os.fsync, ArchiveWriter.record

    def sent(descriptor: int) -> None:
        fsync(descriptor)
        on_disk.append(os.fstat(descriptor).st_ino)

    def report(self: ArchiveWriter, rows: list[dict[str, Any]], *more: Any, **other: Any) -> None:
        registered.extend(
            Path(row["uri"]).stat().st_ino for row in rows if row["status"] == "stored"
        )
        assert set(registered) <= set(on_disk)
        add(self, rows, *more, **other)

    monkeypatch.setattr(os, "fsync", sent)
    monkeypatch.setattr(ArchiveWriter, "record", report)
    monkeypatch.setattr(fetcher, "_SYNCED_TOGETHER", 10)
    monkeypatch.setattr(fetcher, "BATCH_SIZE", 25)
    assert archive.fetch().status == "complete"
    assert len(registered) == len(set(registered)) == len(archive.served()) > 25
    archive.assert_consistent()


@pytest.mark.matrix
@pytest.mark.slow
def test_files_in_the_manifest_are_adopted_without_a_write(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = archive.fetch()
    Path("polyai.duckdb").unlink()
    shutil.rmtree(".dlt/pipelines")
    put_loaded(archive.sandbox.config)
    assert run("recordings", "adopt", "recordings").returncode == 0

    def sent(descriptor: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", sent)
        again = archive.fetch()
    assert (again.status, again.fetched, again.adopted) == ("complete", 0, first.fetched)
    archive.assert_consistent()


@pytest.mark.matrix
def test_files_that_a_failing_disk_lost_are_not_registered_and_adopted_later(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, fsync = 10, os.fsync

    def sent(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == -1:  # as on Linux, which reports the error only once
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(descriptor)

    monkeypatch.setattr(fetcher, "_SYNCED_TOGETHER", 10)
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", sent)
        report = archive.fetch()
    assert report.status == "failed"
    assert report.error is not None
    assert "cannot be written" in str(report.error)
    assert 1 <= len(archive.stored("uri")) <= 10
    assert archive.fetch().status == "complete"
    archive.assert_consistent()
    served = archive.served()
    asked = {unquote(path.split("/")[5]): times for path, times in archive.asked().items()}
    assert {asked[name] for name in served} == {1}


def test_the_audio_format_is_in_the_warehouse(archive: Archive) -> None:
    archive.fetch()
    for name, uri, *facts in archive.stored(f"conversation_id, uri, {FACTS}"):
        size, sha256, seconds, rate, channels, width, encoding = facts
        chunks = chunks_of(Path(uri))
        assert (rate, channels) == (20, 1)
        assert (encoding, width) == {1: ("PCM_16", 2), 7: ("ULAW", 1)}[chunks[b"fmt "][0]]
        assert seconds == pytest.approx(len(chunks[b"data"]) / width / 20)
        assert size == Path(uri).stat().st_size, name
        assert len(sha256) == 64


@pytest.mark.matrix
def test_another_program_finds_and_reads_a_call_from_the_manifest(
    archive: Archive,
) -> None:
    """Ids of any characters have a file of their own, which only the owner can read."""
    archive.fetch()
    name = next(iter(archive.served()))
    table = ds.dataset("recordings/manifest", partitioning="hive").to_table(
        filter=(ds.field("conversation_id") == name) & (ds.field("status") == "stored")
    )
    (row,) = table.to_pylist()
    assert row["agent_id"] == AGENT
    assert row["date"] == f"{row['started_at']:%Y-%m-%d}"
    audio_bytes = len(chunks_of(Path(row["uri"]))[b"data"])
    assert row["duration_seconds"] * 20 * row["sample_width_bytes"] == audio_bytes
    path = Path(row["uri"])
    assert path.parent.name == f"date={row['date']}"
    assert path.parent.parent.name == f"agent_id={AGENT}"
    assert path.name == f"{name}.combined.redacted.wav"
    ((body,),) = duckdb.sql(f"SELECT content FROM read_blob('{row['uri']}')").fetchall()
    assert body == archive.served()[name]

    rows = archive.stored("conversation_id, uri")
    assert any("/" in name or " " in name for name in archive.served()), (
        "no unusual id in the sample"
    )
    assert len({uri for _, uri in rows}) == len(rows)
    for name, uri in rows:
        assert unquote(Path(uri).name) == f"{name}.combined.redacted.wav"
    for path in [Path("recordings"), *Path("recordings").rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.matrix
@pytest.mark.slow
def test_chats_and_calls_in_progress_are_not_requested(archive: Archive) -> None:
    sandbox = archive.sandbox
    sandbox.advance(timedelta(minutes=1), arrivals=30)
    load(resolve(**archive.options), open_pipeline())
    going_on = [i for i in sandbox.listed(AGENT) if sandbox.is_in_progress(AGENT, i)]
    assert going_on
    report = archive.fetch()
    assert report.traffic.requests == len(archive.calls())
    assert sorted(archive.asked().values()) == [1] * len(archive.calls())
    sandbox.advance(timedelta(hours=3))
    load(resolve(**archive.options), open_pipeline())
    later = archive.fetch()
    voices = [i for i in going_on if not sandbox.traits(AGENT, i).is_chat]
    assert later.traffic.requests >= len(voices) > 0
    archive.assert_consistent()


@pytest.mark.slow
def test_a_missing_recording_is_requested_until_the_call_is_old_enough(archive: Archive) -> None:
    sandbox = archive.sandbox
    missing = len(archive.calls()) - len(archive.served())
    archive.now = NOW + timedelta(minutes=5)
    first = archive.fetch()
    assert first.not_found == missing > 0
    rows = query(
        "SELECT DISTINCT status, uri, error_code, attempts FROM polyai.recordings "
        "WHERE status <> 'stored'"
    )
    assert rows == [("not_found", None, "CONVERSATIONS_RECORDING_NOT_FOUND", 1)]
    recent = len(
        query(
            "SELECT 1 FROM polyai.recordings r JOIN polyai.conversations c USING (conversation_id) "
            f"WHERE r.status = 'not_found' AND finished_at > '{archive.now - timedelta(days=7)}'"
        )
    )
    assert 0 < recent < missing
    sandbox.requests.clear()
    assert archive.fetch().not_found == recent
    archive.now = NOW + timedelta(days=8)
    assert archive.fetch().not_found == recent
    archive.now = NOW + timedelta(days=9)
    assert archive.fetch().traffic.requests == 0
    assert archive.fetch(recordings_wait="90d").not_found == missing
    assert query("SELECT max(attempts) FROM polyai.recordings") == [(4,)]
    assert_manifest_agrees()


@pytest.mark.matrix
def test_a_recording_that_appears_late_is_downloaded(archive: Archive) -> None:
    sandbox = archive.sandbox
    late = next(iter(archive.served()))
    code = "CONVERSATIONS_RECORDING_NOT_FOUND"
    sandbox.faults.add("status", path=late, status=404, error_code=code)
    archive.now = NOW
    assert archive.fetch().failed == 0
    sandbox.faults.clear()
    report = archive.fetch()
    assert report.fetched == 1
    archive.assert_consistent()
    assert query(
        "SELECT status, attempts, error_code FROM polyai.recordings "
        f"WHERE conversation_id = '{late}'"
    ) == [("stored", 2, None)]


@pytest.mark.slow
def test_each_direction_and_redaction_has_its_own_file(archive: Archive) -> None:
    archive.fetch(directions="user,agent")
    archive.fetch(directions="combined,user", redacted=False)
    archive.assert_consistent("user")
    archive.assert_consistent("agent")
    archive.assert_consistent("user", redacted=False)
    archive.assert_consistent("combined", redacted=False)
    endings = Counter(uri.split(".", 1)[1] for (uri,) in archive.stored("uri"))
    wanted = len(archive.served())
    assert endings == {
        "user.redacted.wav": wanted,
        "agent.redacted.wav": wanted,
        "user.wav": wanted,
        "combined.wav": wanted,
    }
    assert set(archive.asked().values()) == {1}


@pytest.mark.slow
def test_without_access_to_personal_data_recordings_are_stored_as_redacted(
    archive: Archive,
) -> None:
    report = archive.fetch(api_key="sandbox-key-no-pii", redacted=False)
    assert report.status == "complete"
    assert archive.stored("DISTINCT redacted") == [(True,)]
    archive.assert_consistent(redacted=True)
    asked = len(archive.asked())
    archive.fetch(api_key="sandbox-key-no-pii", redacted=False)
    assert len(archive.asked()) == asked, "requested again although the key never gets it"
    # with another key the raw ones are downloaded too
    archive.fetch(redacted=False)
    archive.assert_consistent(redacted=True)
    archive.assert_consistent(redacted=False)


@pytest.mark.slow
def test_faults_are_retried(archive: Archive) -> None:
    faults = archive.sandbox.faults
    for status in (429, 503):
        faults.add("status", path="/audio", rate=0.05, status=status)
    faults.add("html", path="/audio", rate=0.05, status=502)
    faults.add("truncated", path="/audio", rate=0.05)
    faults.add("reset", path="/audio", rate=0.05)
    report = archive.fetch(max_attempts=12)
    assert faults.hits > 20
    assert (report.status, report.failed) == ("complete", 0)
    assert report.traffic.retries == faults.hits
    archive.assert_consistent()


@pytest.mark.slow
def test_complete_answers_that_are_no_recordings_are_requested_by_the_next_run(
    archive: Archive,
) -> None:
    served = sorted(archive.served())[:21]
    kinds: Iterator[FaultKind] = itertools.cycle(("truncated_json", "envelope", "empty"))
    for name, kind in zip(served, kinds):
        archive.sandbox.faults.add(kind, path=re.escape(quote(name, safe="")) + "/audio")
    report = archive.fetch()
    assert (report.status, report.failed) == ("partial", len(served))
    assert report.traffic.retries == 0
    archive.sandbox.faults.clear()
    report = archive.fetch()
    assert (report.status, report.fetched) == ("complete", len(served))
    archive.assert_consistent()


@pytest.mark.matrix
def test_one_bad_recording_is_recorded_and_retried(archive: Archive) -> None:
    sandbox = archive.sandbox
    bad = next(iter(archive.served()))
    sandbox.faults.add("truncated_json", path=bad)
    report = archive.fetch()
    assert (report.status, report.failed) == ("partial", 1)
    assert "incomplete" in str(report.failures[bad])
    failures = (
        "SELECT conversation_id, attempts, message, resolved_at IS NULL FROM polyai.fetch_failures "
        "WHERE stage = 'recording'"
    )
    ((name, attempts, message, is_open),) = query(failures)
    assert (name, attempts, is_open) == (bad, 1, True)
    assert "incomplete" in str(message)
    state = f"SELECT status, uri, attempts FROM polyai.recordings WHERE conversation_id = '{bad}'"
    assert query(state) == [("failed", None, 1)]
    assert_manifest_agrees()
    assert archive.fetch().failed == 1
    sandbox.faults.clear()
    assert archive.fetch().fetched == 1
    assert query(failures)[0][1:] == (2, "read after all", False)
    assert query(state)[0][0::2] == ("stored", 3)
    archive.assert_consistent()


@pytest.mark.matrix
def test_a_failure_that_is_too_old_is_not_retried(archive: Archive) -> None:
    archive.sandbox.faults.add("status", path="/audio", status=400)
    first = archive.fetch()
    assert first.failed == len(archive.calls())
    archive.now = NOW + timedelta(days=31)
    later = archive.fetch()
    assert (later.given_up, later.traffic.requests) == (len(archive.calls()), 0)


@pytest.mark.matrix
def test_404_without_an_error_code_of_the_api_is_a_failure(archive: Archive) -> None:
    archive.sandbox.faults.add("html", path="/audio", status=404)
    report = archive.fetch()
    assert (report.not_found, report.failed) == (0, len(archive.calls()))


def test_a_refused_key_stops_at_once(archive: Archive) -> None:
    result = run(
        "recordings", **access(archive.base_url, api_key="sandbox-key-eu"), POLYAI_WORKERS="2"
    )
    assert result.returncode == 1
    assert "the API key is not accepted" in error_of(result)
    assert len(archive.sandbox.requests.matching()) <= 4


@pytest.mark.matrix
def test_an_outage_stops_the_run(archive: Archive) -> None:
    archive.sandbox.faults.add("status", path="/audio", status=503)
    report = archive.fetch(max_attempts=1, workers=4)
    assert report.status == "failed"
    assert report.traffic.requests < 60 < len(archive.calls())


@pytest.mark.slow
def test_a_new_warehouse_adopts_the_files_in_the_store(archive: Archive) -> None:
    archive.fetch(directions="combined,user")
    before = query(f"SELECT {KIND}, {FACTS}, fetched_at FROM polyai.recordings ORDER BY ALL")
    for name in ("polyai.duckdb", ".dlt"):
        path = Path(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    load(resolve(**archive.options), open_pipeline())
    archive.sandbox.requests.clear()
    archive.now = NOW + timedelta(days=60)
    with pytest.raises(ConfigurationError, match="recordings adopt"):
        archive.fetch(directions="combined,user")
    adopt(open_pipeline(name=PIPELINE_NAME), "recordings")
    report = archive.fetch(directions="combined,user")
    assert (report.fetched, report.adopted) == (0, 2 * len(archive.served()))
    assert not set(archive.asked()) & {
        target for target in archive.asked() if any(name in target for name in archive.served())
    }
    stored = f"SELECT {KIND}, {FACTS}, fetched_at FROM polyai.recordings WHERE status = 'stored'"
    assert query(f"{stored} ORDER BY ALL") == [row for row in before if row[4] is not None]
    archive.assert_consistent()


@pytest.mark.matrix
def test_without_a_manifest_the_files_are_read(archive: Archive) -> None:
    archive.fetch()
    before = query(f"SELECT {KIND}, uri, {FACTS} FROM polyai.recordings ORDER BY ALL")
    shutil.rmtree("recordings/manifest")
    with duckdb.connect("polyai.duckdb") as connection:
        connection.execute("DELETE FROM polyai.recordings")
    archive.sandbox.requests.clear()
    report = archive.fetch()
    assert report.adopted == len(archive.served())
    assert report.traffic.requests == len(archive.calls()) - len(archive.served())
    assert query(f"SELECT {KIND}, uri, {FACTS} FROM polyai.recordings ORDER BY ALL") == before
    archive.assert_consistent()


@pytest.mark.matrix
def test_an_incomplete_file_is_not_adopted(archive: Archive) -> None:
    archive.fetch()
    ((name, uri),) = archive.stored("conversation_id, uri")[:1]
    with duckdb.connect("polyai.duckdb") as connection:
        connection.execute("DELETE FROM polyai.recordings")
    shutil.rmtree("recordings/manifest")
    incomplete = archive.served()[name][:100]
    Path(uri).write_bytes(incomplete)
    assert archive.fetch().fetched == 1
    assert Path(uri).read_bytes() == archive.served()[name]
    (aside,) = [path for path in Path("recordings/quarantine").rglob("*") if path.is_file()]
    assert aside.read_bytes() == incomplete
    shutil.rmtree("recordings/quarantine")
    archive.assert_consistent()


def _damage_size(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _damage_byte(path: Path) -> None:
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)


@pytest.mark.slow
def test_verify_names_and_repairs(archive: Archive) -> None:
    archive.fetch()
    assert run("recordings", "verify").returncode == 0
    deleted, longer, changed = (uri for (uri,) in archive.stored("uri")[3:6])
    Path(deleted).unlink()
    _damage_size(Path(longer))
    _damage_byte(Path(changed))
    troubles = {deleted: "missing", longer: "changed", changed: "changed"}
    archive.sandbox.requests.clear()
    result = run("recordings", "verify")
    assert result.returncode == 1
    assert all(f"{trouble} {uri}" in result.stdout for uri, trouble in troubles.items())
    assert not archive.sandbox.requests.matching()
    altered = {Path(uri).read_bytes() for uri in (longer, changed)}
    found = archive.verify()
    assert {one.uri: (one.trouble, one.is_repaired) for one in found.findings} == {
        uri: (trouble, True) for uri, trouble in troubles.items()
    }
    assert len(found.findings) == 3
    assert found.is_sound
    assert len(archive.asked()) == 3
    assert run("recordings", "verify").returncode == 0
    aside = [path for path in Path("recordings/quarantine").rglob("*") if path.is_file()]
    assert {path.read_bytes() for path in aside} == altered
    shutil.rmtree("recordings/quarantine")
    assert run("recordings", "verify").returncode == 1
    archive.assert_consistent()


@pytest.mark.slow
def test_a_quick_verification_reads_no_file(archive: Archive) -> None:
    archive.fetch()
    _damage_byte(Path(archive.stored("uri")[0][0]))
    assert run("recordings", "verify", "--quick").returncode == 0
    assert run("recordings", "verify").returncode == 1


@pytest.mark.matrix
def test_a_recording_that_polyai_no_longer_has_keeps_its_row(archive: Archive) -> None:
    archive.fetch()
    name, uri, sha256 = archive.stored("conversation_id, uri, sha256")[0]
    Path(uri).unlink()
    code = "CONVERSATIONS_RECORDING_NOT_FOUND"
    archive.sandbox.faults.add("status", path="/audio", status=404, error_code=code)
    found = archive.verify()
    assert [one.is_repaired for one in found.findings] == [False]
    assert not found.is_sound
    assert name in found.reports[0].failures
    stored = f"SELECT status, sha256 FROM polyai.recordings WHERE conversation_id = '{name}'"
    assert query(stored) == [("stored", sha256)]


@pytest.mark.matrix
@pytest.mark.slow
def test_a_manifest_that_differs_is_rewritten(archive: Archive) -> None:
    archive.fetch()
    harms: list[Callable[[Path], object]] = [
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.unlink(),
        lambda path: next(path.parent.glob("_index.json")).unlink(),
    ]
    for harm in harms:
        harm(sorted(Path("recordings/manifest").rglob("*.parquet"))[0])
        assert run("recordings", "verify").returncode == 1
        archive.sandbox.requests.clear()
        found = archive.verify()
        assert found.is_sound
        assert "manifest" in {one.trouble for one in found.findings}
        assert not archive.sandbox.requests.matching()
        assert_manifest_agrees()
        assert run("recordings", "verify").returncode == 0


@pytest.mark.matrix
def test_a_moved_folder_is_adopted(archive: Archive) -> None:
    archive.fetch()
    Path("recordings").rename("archive")
    moved = str(Path("archive").resolve())
    result = run("recordings", "verify", "--recordings-url", moved)
    assert result.returncode == 1
    assert "recordings adopt" in error_of(result)
    archive.sandbox.requests.clear()
    assert run("recordings", "adopt", moved).returncode == 0
    assert not archive.sandbox.requests.matching()
    assert all(Path(uri).exists() and "/archive/" in uri for (uri,) in archive.stored("uri"))
    assert run("recordings", "verify", "--recordings-url", "archive").returncode == 0


@pytest.mark.slow
def test_prune_deletes_by_age_and_nothing_is_downloaded_again(archive: Archive) -> None:
    archive.fetch()
    age = datetime.now(UTC) - (NOW - timedelta(days=10))
    limit = f"{int(age.total_seconds())}s"
    old = query(
        "SELECT uri FROM polyai.recordings WHERE status = 'stored' "
        f"AND started_at < '{NOW - timedelta(days=10)}'"
    )
    all_files = len(archive.stored("uri"))
    assert 0 < len(old) < all_files
    dry = run("recordings", "prune", "--older-than", limit, "--dry-run")
    assert dry.returncode == 0
    assert f"would delete {len(old)} files" in dry.stdout
    assert len(archive.stored("uri")) == all_files
    done = run("recordings", "prune", "--older-than", limit, "--yes")
    assert done.returncode == 0, done.stderr
    assert f"deleted {len(old)} files" in done.stdout
    assert not any(Path(str(uri)).exists() for (uri,) in old)
    assert len(archive.stored("uri")) == all_files - len(old)
    assert_manifest_agrees()
    assert_no_other_files()
    archive.sandbox.requests.clear()
    archive.now = datetime.now(UTC)
    assert archive.fetch(recordings_wait="400d").fetched == 0
    found = {name for (name,) in query("SELECT conversation_id FROM polyai.recordings")}
    assert all(unquote(target.split("/")[5]) in found for target in archive.asked())
    ((status,),) = query("SELECT status FROM polyai.sync_runs WHERE command = 'prune'")
    assert status == "complete"


@pytest.mark.matrix
def test_the_next_pruning_completes_one_that_was_stopped(archive: Archive) -> None:
    archive.fetch()
    stop = threading.Event()
    url = resolve(**archive.options).recordings_url

    def clock() -> datetime:
        return NOW

    (first,) = prune(
        open_pipeline(name=PIPELINE_NAME),
        url,
        timedelta(days=5),
        stop=stop,
        on_rows=lambda _: stop.set(),
        clock=clock,
    )
    (rest,) = prune(open_pipeline(name=PIPELINE_NAME), url, timedelta(days=5), clock=clock)
    assert min(first.files, rest.files) > 0
    limit = NOW - timedelta(days=5)
    assert query(f"SELECT count(*) FROM polyai.recordings WHERE started_at < '{limit}'") == [(0,)]
    assert_manifest_agrees()
    assert_no_other_files()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["--dry-run", "--yes"])
def test_prune_refuses_files_in_another_store_and_changes_nothing(
    archive: Archive, how: str
) -> None:
    archive.fetch()
    files = len(archive.stored("uri"))
    result = run("recordings", "prune", "--older-than", "1d", how, "--recordings-url", "elsewhere")
    assert result.returncode == 1
    assert "the archive of this warehouse is" in error_of(result)
    assert len(archive.stored("uri")) == files
    # no limit is set, after which nothing older would be requested
    assert query("SELECT count(*) FROM polyai.sync_runs WHERE command = 'prune'") == [(0,)]


@pytest.mark.slow
def test_a_second_run_waits_or_leaves(archive: Archive) -> None:
    archive.sandbox.faults.add("delay", path="/audio", seconds=0.2)
    environment = access(archive.base_url) | {"POLYAI_WORKERS": "2"}
    first = start("recordings", **environment)
    wait_until(lambda: bool(archive.asked()))
    second = run("recordings", **environment)
    assert second.returncode == 75
    assert "another run" in error_of(second)
    loading = run("load", **environment)
    assert loading.returncode == 0, loading.stderr
    waiting = start("recordings", "--wait", "60s", **environment)
    for process in (first, waiting):
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
    assert set(archive.asked().values()) == {1}
    archive.assert_consistent()


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_it_has(archive: Archive) -> None:
    archive.sandbox.faults.add("delay", path="/audio", seconds=0.1)
    process = start("recordings", **access(archive.base_url), POLYAI_WORKERS="2")
    wait_until(lambda: len(archive.asked()) > 20)
    process.terminate()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    kept = len(archive.stored("uri"))
    assert 15 < kept < len(archive.served())
    archive.sandbox.faults.clear()
    assert run("recordings", **access(archive.base_url)).returncode == 0
    assert set(archive.asked().values()) == {1}
    archive.assert_consistent()


@pytest.mark.matrix
def test_load_with_recordings_does_both(sandbox: Sandbox) -> None:
    with serve(sandbox) as url:
        result = run("load", "--recordings", **access(url))
    assert result.returncode == 0, result.stderr
    assert "recordings complete" in result.stdout
    assert query("SELECT command, status FROM polyai.sync_runs ORDER BY started_at") == [
        ("load", "complete"),
        ("recordings", "complete"),
    ]
    stored, other = query(
        "SELECT count(*) FILTER (status = 'stored'), count(*) FILTER (status <> 'stored') "
        "FROM polyai.recordings"
    )[0]
    assert int(str(stored)) > 5 * int(str(other)) > 0


def test_without_a_warehouse_there_is_nothing_to_download(sandbox: Sandbox) -> None:
    with serve(sandbox) as url:
        result = run("recordings", **access(url))
    assert result.returncode == 0, result.stderr
    assert "0 stored" in result.stdout
    assert not sandbox.requests.matching()


@pytest.mark.matrix
def test_failed_recordings_in_a_row_keep_no_other_from_being_stored(archive: Archive) -> None:
    calls = archive.calls()
    broken = calls[:40]
    for conversation_id in broken:
        path = re.escape(quote(conversation_id, safe="")) + "/audio"
        archive.sandbox.faults.add("status", path=path, status=500)
    report = archive.fetch(max_attempts=1, workers=4)
    assert (report.status, report.failed) == ("partial", len(broken))
    asked = query("SELECT count(DISTINCT conversation_id) FROM polyai.recordings")
    assert asked == [(len(calls),)]
