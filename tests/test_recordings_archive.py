"""Proof of an archive: every tampering is found, in a folder and in a bucket."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command import AGENT, access, error_of, query, run
from optional import needs_s3
from polyai import open_pipeline
from polyai.recordings.custody import ChainCheck, Custody, Head, event, links
from polyai.recordings.run import PIPELINE_NAME
from polyai.recordings.verify import verify
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.warehouse.incoming import Incoming
from polyai.warehouse.stores import open_store
from s3_server import s3

pytestmark = pytest.mark.load

WAIT = timedelta(days=7)


@dataclass
class Made:
    """An archive that was fetched once; each test gets a copy of it.

    Attributes:
        warehouse: DuckDB file.
        fs: File system of the archive.
        url: Address of the archive.
        root: Its path in the file system.
        environment: Environment of commands.
        files: Contents of its files, by path.
    """

    warehouse: Path
    fs: fsspec.AbstractFileSystem
    url: str
    root: str
    environment: dict[str, str]
    files: dict[str, bytes]

    def paths(self, ending: str) -> list[str]:
        """Paths in the archive that end so, in order."""
        found = (path.removeprefix(f"{self.root}/") for path in self.fs.find(self.root))
        return sorted(path for path in found if path.endswith(ending))

    def read(self, path: str) -> bytes:
        return bytes(self.fs.cat_file(f"{self.root}/{path}"))

    def write(self, path: str, body: bytes) -> None:
        self.fs.makedirs(self.fs._parent(f"{self.root}/{path}"), exist_ok=True)
        self.fs.pipe_file(f"{self.root}/{path}", body)

    def delete(self, path: str) -> None:
        self.fs.rm_file(f"{self.root}/{path}")

    def change(self, path: str, change: Callable[[bytes], bytes]) -> None:
        self.write(path, change(self.read(path)))

    def change_json(self, path: str, change: Callable[[Any], object]) -> None:
        content = json.loads(self.read(path))
        change(content)
        self.write(path, json.dumps(content).encode())

    def sql(self, statement: str) -> None:
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute(statement)

    def restore(self) -> None:
        """Puts warehouse and files back as they were fetched."""
        shutil.copy(self.warehouse, "polyai.duckdb")
        for path in self.paths(""):
            if self.files.get(path) != self.read(path):
                self.delete(path)
        for path in sorted(self.files.keys() - set(self.paths(""))):
            self.write(path, self.files[path])

    def troubles(self, *, quick: bool = False) -> set[str]:
        """Kinds of the findings of `verify`."""
        found = verify(open_pipeline(name=PIPELINE_NAME), self.url, wait=WAIT, quick=quick)
        assert found.is_sound == (not found.findings and not found.is_empty)
        return {one.trouble for one in found.findings} | ({"empty"} if found.is_empty else set())


@contextmanager
def fetched(place: str) -> Iterator[Made]:
    """Fetches an archive into a folder or a bucket."""
    config = SandboxConfig(
        conversations=24, span=timedelta(days=40), recording_rate_hz=20, detail="small"
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(pytest.MonkeyPatch.context()).chdir(folder)
        if place == "s3":
            server = stack.enter_context(s3())
            root, fs = f"{server.bucket}/calls", server.files()
            url, environment = f"s3://{root}", server.environment()
        else:
            root, fs = str(folder / "archive"), fsspec.filesystem("file")
            url, environment = root, {}
        with serve(Sandbox(config)) as base_url:
            environment |= access(base_url) | {"POLYAI_RECORDINGS_URL": url}
            result = run("load", "--recordings", **environment)
            assert result.returncode == 0, result.stderr
            kept = shutil.copy("polyai.duckdb", folder / "kept.duckdb")
            made = Made(Path(kept), fs, url, root, environment, {})
            made.files.update({path: made.read(path) for path in made.paths("")})
            made.files.pop(".incoming.lock", None)
            yield made


@pytest.fixture(scope="module")
def in_folder() -> Iterator[Made]:
    with fetched("folder") as made:
        yield made


@pytest.fixture(scope="module")
def in_bucket() -> Iterator[Made]:
    with fetched("s3") as made:
        yield made


# a parametrized fixture of the module would be made again for each test that names its parameter
@pytest.fixture(params=["folder", pytest.param("s3", marks=needs_s3)])
def archive(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Made:
    made: Made = request.getfixturevalue("in_folder" if request.param == "folder" else "in_bucket")
    # another place would make it another warehouse
    monkeypatch.chdir(made.warehouse.parent)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    made.restore()
    return made


def flip(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


def wav(archive: Made, place: int = 0) -> str:
    return archive.paths(".wav")[place]


def day(archive: Made) -> str:
    return wav(archive).rpartition("/")[0]


def index(archive: Made) -> str:
    return archive.paths("_index.json")[0]


def part(archive: Made, place: int = 0) -> str:
    return archive.paths(".parquet")[place]


def segment(archive: Made) -> str:
    return archive.paths(".jsonl")[0]


def swap(archive: Made, one: str, other: str) -> None:
    first, second = archive.read(one), archive.read(other)
    archive.write(one, second)
    archive.write(other, first)


def rename(archive: Made, path: str, target: str) -> None:
    archive.write(target, archive.read(path))
    archive.delete(path)


def edit_part(
    archive: Made, change: Callable[[list[dict[str, Any]]], object], place: int = 0
) -> None:
    """Changes rows of a part of the manifest, and its hash in the index to match."""
    path = part(archive, place)
    table = pq.read_table(pa.BufferReader(archive.read(path)))
    rows = table.to_pylist()
    change(rows)
    body = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), body)
    written = body.getvalue().to_pybytes()
    archive.write(path, written)

    def listed(content: Any) -> None:
        for one in content["parts"]:
            if one["path"] == path:
                one["sha256"] = hashlib.sha256(written).hexdigest()
                one["bytes"], one["rows"] = len(written), len(rows)

    archive.change_json(index(archive), listed)


def without_line(body: bytes, number: int) -> bytes:
    lines = body.split(b"\n")
    return b"\n".join([*lines[:number], *lines[number + 1 :]])


def forge_chain(archive: Made) -> None:
    """Writes the whole log again with another time, every hash correct."""
    previous, lines = "0" * 64, []
    for line in archive.read(segment(archive)).splitlines():
        entry = orjson.loads(line) | {"previous": previous, "at": "2020-01-01T00:00:00Z"}
        lines.append(orjson.dumps(entry))
        previous = hashlib.sha256(lines[-1]).hexdigest()
    archive.write(segment(archive), b"\n".join(lines) + b"\n")
    archive.change_json(index(archive), lambda one: one["custody"].update(sha256=previous))


FIRST = "(SELECT min(conversation_id) FROM polyai.recordings WHERE status = 'stored')"


def forget_a_call(archive: Made) -> None:
    """Deletes a file, its row and its row of the manifest."""
    archive.delete(edit_everywhere(archive, None))


def edit_everywhere(archive: Made, sha256: str | None, size: int = 0) -> str:
    """Edits hash and size of a call in warehouse and manifest, or deletes both rows; its path."""
    found: list[str] = []

    def edit(rows: list[dict[str, Any]]) -> None:
        place = next(n for n, row in enumerate(rows) if row["status"] == "stored")
        found.append(rows[place]["path"])
        if sha256 is None:
            del rows[place]
        else:
            rows[place] |= {"sha256": sha256, "bytes": size or rows[place]["bytes"]}

    edit_part(archive, edit)
    call = f"WHERE path = '{found[0]}'"
    if sha256 is None:
        archive.sql(f"DELETE FROM polyai.recordings {call}")
    else:
        bytes_ = f", bytes = {size}" if size else ""
        archive.sql(f"UPDATE polyai.recordings SET sha256 = '{sha256}'{bytes_} {call}")
    return found[0]


def edit_file_and_hashes(archive: Made) -> None:
    """Changes a file, and its hash in warehouse and manifest to match."""
    path = edit_everywhere(archive, "0")
    archive.change(path, flip)
    sha256 = hashlib.sha256(archive.read(path)).hexdigest()
    assert edit_everywhere(archive, sha256) == path


def plant_with_row(archive: Made) -> None:
    """Plants a file that warehouse and manifest have."""
    path = f"{day(archive)}/CAplanted.combined.redacted.wav"

    def add(rows: list[dict[str, Any]]) -> None:
        (source,) = [row for row in rows if row["path"] == wav(archive)]
        rows.append(source | {"conversation_id": "CAplanted", "path": path})

    found = archive.paths(".parquet")
    place = next(n for n, one in enumerate(found) if day(archive)[-10:-3] in one)
    edit_part(archive, add, place)
    archive.sql(
        "INSERT INTO polyai.recordings SELECT * REPLACE ('CAplanted' AS conversation_id, "
        f"'{path}' AS path, replace(uri, '{wav(archive)}', '{path}') AS uri) "
        f"FROM polyai.recordings WHERE path = '{wav(archive)}'"
    )
    archive.write(path, archive.read(wav(archive)))


def plant_as_kept(archive: Made) -> None:
    """Plants a file as another version, which the index lists."""
    path, body = wav(archive).replace(".wav", ".v2.wav"), archive.read(wav(archive))
    kept = {"path": path, "bytes": len(body), "why": "other_version"}
    kept["sha256"] = hashlib.sha256(body).hexdigest()
    archive.write(path, body)
    archive.change_json(index(archive), lambda one: one["kept"].append(kept))


def plant_a_warehouse(archive: Made) -> None:
    """Plants the manifest of another warehouse, which lists a planted file."""
    path = f"agent_id={AGENT}/date=2019-01-01/CAx.combined.redacted.wav"
    body = archive.read(wav(archive))
    archive.write(path, body)
    table = pq.read_table(pa.BufferReader(archive.read(part(archive))))
    row = table.to_pylist()[0] | {"conversation_id": "CAx", "path": path, "status": "stored"}
    row |= {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row], schema=table.schema), out)
    written = out.getvalue().to_pybytes()
    folder = f"manifest/{AGENT}/0123456789abcdef"
    archive.write(f"{folder}/2019-01.x.1.parquet", written)
    content = json.loads(archive.read(index(archive))) | {"writer": "0123456789abcdef"}
    listed = {"path": f"{folder}/2019-01.x.1.parquet", "month": "2019-01", "rows": 1}
    listed |= {"sha256": hashlib.sha256(written).hexdigest(), "bytes": len(written)}
    content |= {"parts": [listed], "kept": [], "custody": {"entries": 0, "sha256": "0" * 64}}
    archive.write(f"{folder}/_index.json", json.dumps(content).encode())


def delete_part_and_index(archive: Made) -> None:
    archive.delete(part(archive))
    archive.delete(index(archive))


def delete_the_log(archive: Made) -> None:
    """Deletes the log and every head of it that was recorded."""
    archive.delete(segment(archive))
    nothing = {"entries": 0, "sha256": "0" * 64}
    archive.change_json(index(archive), lambda one: one.update(custody=nothing))
    archive.sql("UPDATE polyai.sync_runs SET custody_entries = 0, custody_head = NULL")


TAMPERINGS: dict[str, tuple[Callable[[Made], object], set[str]]] = {
    "a changed byte": (lambda a: a.change(wav(a), flip), {"changed"}),
    "a truncated file": (lambda a: a.change(wav(a), lambda b: b[:-4]), {"changed"}),
    "an empty file": (lambda a: a.write(wav(a), b""), {"changed"}),
    "a longer file": (lambda a: a.change(wav(a), lambda b: b + b"x"), {"changed"}),
    "a deleted file": (lambda a: a.delete(wav(a)), {"missing"}),
    "two swapped files": (lambda a: swap(a, wav(a), wav(a, 3)), {"changed"}),
    "a renamed file": (
        lambda a: rename(a, wav(a), wav(a) + ".bak"),
        {"missing", "untold"},
    ),
    "a file under another day": (
        lambda a: rename(a, wav(a), wav(a).replace("date=", "date=1")),
        {"missing", "untold"},
    ),
    "a planted WAV in a day with rows": (
        lambda a: a.write(f"{day(a)}/CAplanted.combined.redacted.wav", a.read(wav(a))),
        {"untold"},
    ),
    "a planted WAV in a day without rows": (
        lambda a: a.write(f"agent_id={AGENT}/date=2019-01-01/CAx.combined.wav", a.read(wav(a))),
        {"untold"},
    ),
    "a planted WAV of another agent": (
        lambda a: a.write("agent_id=OTHER/date=2026-10-01/CAx.combined.wav", a.read(wav(a))),
        {"untold"},
    ),
    "a planted version of a file": (
        lambda a: a.write(wav(a).replace(".wav", ".v2.wav"), a.read(wav(a))),
        {"untold"},
    ),
    "a WAV in a folder of a day": (
        lambda a: a.write(f"{day(a)}/more/CAx.combined.wav", a.read(wav(a))),
        {"untold"},
    ),
    "a loose WAV": (lambda a: a.write("loose.wav", a.read(wav(a))), {"untold"}),
    "a loose text": (lambda a: a.write("notes/read me.txt", b"hello"), {"untold"}),
    "a file planted in quarantine": (lambda a: a.write("quarantine/x.wav", b"x"), {"untold"}),
    "a forged part": (
        lambda a: a.write(part(a).replace(".parquet", ".more.parquet"), a.read(part(a))),
        {"untold"},
    ),
    "a forged extra.parquet": (
        lambda a: a.write("manifest/extra.parquet", a.read(part(a))),
        {"untold"},
    ),
    "a forged index": (
        lambda a: a.write(f"manifest/{AGENT}/0123456789abcdef/_index.json", a.read(index(a))),
        {"manifest", "untold"},
    ),
    "a forged manifest of version 0.1": (
        lambda a: a.write(
            f"manifest/agent_id={AGENT}/date=2026-10-01/recordings.parquet", a.read(part(a))
        ),
        {"untold"},
    ),
    "a deleted part": (lambda a: a.delete(part(a)), {"manifest"}),
    "a changed part": (lambda a: a.change(part(a), flip), {"manifest"}),
    "two swapped parts": (lambda a: swap(a, part(a), part(a, 1)), {"manifest"}),
    "a row edited in a part and its hash": (
        lambda a: edit_part(a, lambda rows: rows[0].update(sha256="0" * 64)),
        {"manifest"},
    ),
    "a row added to a part and its hash": (
        lambda a: edit_part(a, lambda rows: rows.append(rows[0] | {"conversation_id": "CAx"})),
        {"manifest"},
    ),
    "a row doubled in a part and its hash": (
        lambda a: edit_part(a, lambda rows: rows.append(rows[0])),
        {"manifest"},
    ),
    "a part taken out of the index": (
        lambda a: a.change_json(index(a), lambda one: one["parts"].pop()),
        {"manifest", "untold"},
    ),
    "a deleted index": (lambda a: a.delete(index(a)), {"manifest", "untold"}),
    "an index that is no JSON": (lambda a: a.write(index(a), b"{"), {"manifest", "untold"}),
    "a changed entry of the log": (
        lambda a: a.change(segment(a), lambda b: b.replace(b'status":200', b'status":206', 1)),
        {"custody"},
    ),
    "a deleted entry of the log": (
        lambda a: a.change(segment(a), lambda b: without_line(b, 4)),
        {"custody"},
    ),
    "the last entry cut off": (
        lambda a: a.change(segment(a), lambda b: b[: b[:-1].rindex(b"\n") + 1]),
        {"custody"},
    ),
    "a deleted log": (lambda a: a.delete(segment(a)), {"custody"}),
    "a log written again": (forge_chain, {"custody"}),
    "a planted file in the log": (lambda a: a.write("custody/x.jsonl", b"{}"), {"untold"}),
    "an edited archive.json": (
        lambda a: a.change_json("archive.json", lambda one: one.update(created_at="2020-01-01")),
        {"custody"},
    ),
    "all rows deleted": (
        lambda a: a.sql("DELETE FROM polyai.recordings"),
        {"manifest", "untold"},
    ),
    "the rows of one call deleted": (
        lambda a: a.sql(f"DELETE FROM polyai.recordings WHERE conversation_id = {FIRST}"),
        {"manifest", "untold"},
    ),
    "a doubled row": (
        lambda a: a.sql(
            "INSERT INTO polyai.recordings SELECT * FROM polyai.recordings "
            f"WHERE conversation_id = {FIRST}"
        ),
        {"doubled", "missing"},
    ),
    "a hash edited in the warehouse": (
        lambda a: a.sql(
            f"UPDATE polyai.recordings SET sha256 = '0' WHERE conversation_id = {FIRST}"
        ),
        {"changed", "manifest", "custody"},
    ),
    "a place edited in the warehouse": (
        lambda a: a.sql(
            f"UPDATE polyai.recordings SET uri = '/x.wav' WHERE conversation_id = {FIRST}"
        ),
        {"moved"},
    ),
    "a path edited in the warehouse": (
        lambda a: a.sql(
            f"UPDATE polyai.recordings SET path = (SELECT max(path) FROM polyai.recordings) "
            f"WHERE conversation_id = {FIRST}"
        ),
        {"moved", "untold", "manifest", "custody"},
    ),
    "a hash edited in warehouse and manifest": (
        lambda a: edit_everywhere(a, "0" * 64),
        {"changed", "custody"},
    ),
    "a file and its hashes edited in warehouse and manifest": (edit_file_and_hashes, {"custody"}),
    "a call deleted from files, warehouse and manifest": (forget_a_call, {"custody"}),
    "a planted file with a row in warehouse and manifest": (plant_with_row, {"custody"}),
    "a planted version that the index lists": (plant_as_kept, {"custody", "version"}),
    "a planted warehouse": (plant_a_warehouse, {"custody"}),
    "a log deleted with its heads": (delete_the_log, {"custody"}),
    "a part and its index deleted": (delete_part_and_index, {"manifest", "untold"}),
    "a file under its name in other letters": (
        lambda a: a.write(
            f"{day(a)}/{wav(a).rpartition('/')[2].replace('CA', 'ca')}", a.read(wav(a))
        ),
        {"untold"},
    ),
    "a hidden file": (lambda a: a.write(f"{day(a)}/.x.wav", a.read(wav(a))), {"untold"}),
    "a hidden file beside the drafts": (
        lambda a: a.write(".incoming.wav", a.read(wav(a))),
        {"untold"},
    ),
    "a copy of the log": (
        lambda a: a.write(segment(a).replace("0001.", "9999."), a.read(segment(a))),
        {"custody"},
    ),
    "an empty line in the log": (lambda a: a.change(segment(a), lambda b: b + b"\n"), {"custody"}),
    "a status edited in the warehouse": (
        lambda a: a.sql(
            f"UPDATE polyai.recordings SET status = 'failed' WHERE conversation_id = {FIRST}"
        ),
        {"untold", "manifest"},
    ),
}


OF_THE_STORE = {
    "a changed byte",
    "a truncated file",
    "a deleted file",
    "a file under another day",
    "a planted WAV in a day with rows",
    "a deleted part",
    "a deleted log",
    "a planted file in the log",
    "a file under its name in other letters",
    "a hidden file",
}
"""Tamperings that are found by what the store lists and reads; the others do not depend on it."""

assert TAMPERINGS.keys() >= OF_THE_STORE

LINKS: dict[str, tuple[Callable[[Made, Path], object], set[str]]] = {
    "of a file": (lambda a, aside: link(a, wav(a), aside), {"changed", "missing"}),
    "of a day": (lambda a, aside: link(a, day(a), aside), {"changed", "missing"}),
    "of a part": (lambda a, aside: link(a, part(a), aside), {"changed", "manifest"}),
    "of the log": (lambda a, aside: link(a, segment(a), aside), {"changed", "custody"}),
    "that was planted": (
        lambda a, aside: Path(a.root, "more").symlink_to(aside.parent),
        {"changed"},
    ),
}


def link(archive: Made, path: str, aside: Path) -> None:
    """Puts a link in the place of a file or folder, which is moved away."""
    place = Path(archive.root, path)
    place.rename(aside)
    place.symlink_to(aside)


@pytest.mark.slow
@pytest.mark.parametrize("name", LINKS)
def test_a_link_to_the_same_bytes_is_found(name: str, archive: Made, tmp_path: Path) -> None:
    if archive.url.startswith("s3:"):
        pytest.skip("a bucket has no links")
    tamper, expected = LINKS[name]
    try:
        tamper(archive, tmp_path / "aside")
        assert archive.troubles() == expected
    finally:
        for one in Path(archive.root).rglob("*"):
            if one.is_symlink():
                one.unlink()


@pytest.mark.slow
def test_an_object_in_the_name_of_a_folder_is_found(archive: Made) -> None:
    if not archive.url.startswith("s3:"):
        pytest.skip("a folder has no such files")
    bucket, _, key = archive.root.partition("/")
    archive.fs.call_s3("put_object", Bucket=bucket, Key=f"{key}/{day(archive)}/", Body=b"x")
    try:
        assert archive.troubles() == {"untold"}
    finally:
        archive.fs.call_s3("delete_object", Bucket=bucket, Key=f"{key}/{day(archive)}/")


def test_an_archive_as_it_was_fetched_has_no_findings(archive: Made) -> None:
    assert archive.troubles() == set()
    assert archive.troubles(quick=True) == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("archive", "name"),
    [
        *(pytest.param("folder", name) for name in TAMPERINGS),
        *(
            pytest.param("s3", name, marks=[needs_s3, *matrix])
            for name in TAMPERINGS
            for matrix in [[] if name in OF_THE_STORE else [pytest.mark.matrix]]
        ),
    ],
    indirect=["archive"],
)
def test_a_tampering_is_found(name: str, archive: Made) -> None:
    tamper, expected = TAMPERINGS[name]
    tamper(archive)
    assert archive.troubles() == expected


def refused(archive: Made, *more: str, **environment: str) -> str:
    """Runs `verify`, which has to refuse the archive; returns the message."""
    result = run("recordings", "verify", *more, **archive.environment | environment)
    assert result.returncode == 1
    return error_of(result)


class TestAnArchive:
    def test_without_its_identity_is_refused(self, archive: Made) -> None:
        archive.delete("archive.json")
        assert "has no archive.json" in refused(archive)
        assert "has no archive.json" in refused(archive, "--quick")

    def test_with_another_identity_is_refused(self, archive: Made) -> None:
        archive.change_json("archive.json", lambda one: one.update(archive_id="0" * 32))
        assert "is another archive, 00000000" in refused(archive)
        archive.delete(index(archive))
        assert "is another archive, 00000000" in refused(archive, "--quick")

    def test_with_a_damaged_identity_is_refused(self, archive: Made) -> None:
        archive.write("archive.json", b"{}")
        assert "is damaged" in refused(archive)
        assert "is damaged" in refused(archive, "--quick")

    def test_in_another_place_is_refused_by_every_command(self, archive: Made) -> None:
        for command in (
            ("recordings",),
            ("recordings", "verify"),
            ("recordings", "verify", "--refetch"),
            ("recordings", "prune", "--older-than", "90d"),
        ):
            result = run(*command, "--recordings-url", "elsewhere", **archive.environment)
            assert result.returncode == 1
            assert archive.url in error_of(result)
            assert str(Path("elsewhere").resolve()) in error_of(result)
        assert not Path("elsewhere").exists()

    def test_that_is_empty_is_no_proof(self, archive: Made) -> None:
        for name in ("archives", "recordings", "sync_runs"):
            archive.sql(f"DELETE FROM polyai.{name}")
        for path in archive.paths(""):
            archive.delete(path)
        result = run("recordings", "verify", **archive.environment)
        assert result.returncode == 1
        assert "nothing to verify" in result.stdout

    def test_that_is_verified_leaves_a_row(self, archive: Made) -> None:
        archive.delete(wav(archive))
        assert run("recordings", "verify", **archive.environment).returncode == 1
        rows = query(
            "SELECT status, findings, error, custody_entries > 1, length(custody_head) "
            "FROM polyai.sync_runs WHERE command = 'verify'"
        )
        assert rows == [("partial", 1, "1 missing", True, 64)]


def chain_of(folder: Path, entries: int, segments: int) -> list[str]:
    """Writes a chain; returns the paths of its segments."""
    store = open_store(str(folder))
    with Incoming(store, folder) as incoming:
        custody = Custody(store, incoming, AGENT, "writer", Head())
        now = duckdb.sql("SELECT TIMESTAMPTZ '2026-01-01 00:00:00Z'").fetchall()[0][0]
        for _ in range(segments):
            custody.append([event("fetched", now, path=str(n)) for n in range(entries // segments)])
    return [path for path, _ in store.walk("custody/")]


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(1, marks=pytest.mark.slow),
        *(pytest.param(number, marks=pytest.mark.matrix) for number in (2, 999, 1_001, 1_999)),
        1_000,
        pytest.param(2_000, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("place", [30, 60, -20], ids=["previous", "previous' end", "its path"])
def test_a_changed_byte_in_a_log_of_2000_entries_is_named(
    number: int, place: int, tmp_path: Path
) -> None:
    paths = chain_of(tmp_path, 2_000, 4)
    store = open_store(str(tmp_path))
    head = list(links(store, paths))[-1]
    file = tmp_path / paths[(number - 1) // 500]
    lines = file.read_bytes().split(b"\n")
    line = bytearray(lines[(number - 1) % 500])
    line[place] ^= 1
    lines[(number - 1) % 500] = bytes(line)
    file.write_bytes(b"\n".join(lines))
    check = ChainCheck()
    for link in links(store, paths):
        check.add(link)
    check.finish(Head(head.number, head.sha256))
    assert {one.number for one in check.breaks} == {number}
