"""Archives that move or are shared, and the requests that they cost."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pytest

from command import access, error_of, query, run, start
from loaded import put_loaded
from optional import needs_s3
from polyai import open_pipeline
from polyai.dashboard import data
from polyai.recordings import relocate
from polyai.recordings.relocate import move
from polyai.recordings.run import PIPELINE_NAME
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.views import PIPELINE_NAME as VIEWS_PIPELINE
from polyai.views import create_views
from polyai.views.query_reader import open_reader
from s3_server import S3Server, s3

pytestmark = pytest.mark.load

CONFIG = SandboxConfig(
    conversations=40, span=timedelta(days=70), recording_rate_hz=20, detail="small"
)


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(CONFIG)


@pytest.fixture
def environment(sandbox: Sandbox) -> Iterator[dict[str, str]]:
    with serve(sandbox) as url:
        put_loaded(CONFIG)
        yield access(url)


def done(*arguments: str, **environment: str) -> dict[str, Any]:
    """Runs `recordings` with a subcommand, which has to succeed; returns its JSON."""
    result = run("recordings", *arguments, "--json", **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def stored() -> list[tuple[object, ...]]:
    return query(
        "SELECT conversation_id, path, sha256 FROM polyai.recordings WHERE status = 'stored' "
        "ORDER BY ALL"
    )


def assert_in_place(folder: Path) -> None:
    """Asserts that the rows name files in a folder, and that all is as it should be."""
    rows = query("SELECT uri, path FROM polyai.recordings WHERE path IS NOT NULL")
    assert rows
    assert all(uri == str(folder.resolve() / str(path)) for uri, path in rows)
    assert all(Path(str(uri)).exists() for uri, _ in rows)


class TestMove:
    def test_copies_compares_and_switches(
        self, sandbox: Sandbox, environment: dict[str, str]
    ) -> None:
        done(**environment)
        before = stored()
        sandbox.requests.clear()
        moved = done("move", "--to", "new/place", **environment)
        assert moved["files"] >= len(before)
        assert_in_place(Path("new/place"))
        assert stored() == before
        shutil.rmtree("recordings")
        found = done("verify", "--recordings-url", "new/place", **environment)
        assert found["files"] == len(before)
        again = done("--recordings-url", "new/place", **environment)
        assert again["agents"][0]["fetched"] == 0
        name = str(before[0][0])
        chain = done("prove", name, "--recordings-url", "new/place", **environment)
        assert [entry["event"] for entry in chain["entries"]] == ["fetched"]
        # the old place is no longer the archive, nor is another one begun there
        forgotten = run("recordings", **environment)
        assert forgotten.returncode == 1
        assert str(Path("new/place").resolve()) in error_of(forgotten)
        assert not [path for path in sandbox.requests.paths("/audio") if name in path]

    @pytest.mark.slow
    def test_that_is_killed_loses_nothing_and_resumes(
        self, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        done(**environment)
        before, copy_one = stored(), relocate._copy_one
        left = 10

        def copied(*arguments: Any) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            copy_one(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(relocate, "_copy_one", copied)
            with pytest.raises(KeyboardInterrupt):
                move(open_pipeline(name=PIPELINE_NAME), "moved", workers=1)
        done("verify", **environment)
        assert stored() == before
        resumed = done("move", "--to", "moved", **environment)
        assert 0 < resumed["files"] < len(before) + 10
        done("verify", "--recordings-url", "moved", **environment)

    def test_refuses_a_copy_that_is_not_what_was_recorded(
        self, environment: dict[str, str]
    ) -> None:
        done(**environment)
        path = next(Path("recordings").rglob("*.wav"))
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        result = run("recordings", "move", "--to", "moved", **environment)
        assert result.returncode == 1
        assert path.name in error_of(result)
        assert_in_place(Path("recordings"))


FILES = "SELECT conversation_id, path, sha256, uri FROM polyai.recording_files ORDER BY ALL"


def copied(target: str, bucket: fsspec.AbstractFileSystem) -> int:
    """Number of recordings in a folder or a bucket."""
    if target.startswith("s3:"):
        return len(bucket.find(target))
    return len(list(Path(target).rglob("*.wav")))


@pytest.mark.slow
@needs_s3
def test_moves_that_are_killed_lose_nothing(sandbox: Sandbox, environment: dict[str, str]) -> None:
    done(**environment)
    create_views(open_pipeline(name=VIEWS_PIPELINE))
    before, fetched = stored(), len(sandbox.requests.paths("/audio"))
    with s3() as server:
        environment |= server.environment()
        files = server.files()
        places = [f"s3://{server.bucket}/calls", str(Path("back").resolve())]
        url = str(Path("recordings").resolve())
        for target in places:
            for wanted in (2, 12):
                with start("recordings", "move", "--to", target, **environment) as process:
                    while process.poll() is None and copied(target, files) < wanted:
                        time.sleep(0.01)
                    process.kill()
                done("verify", "--recordings-url", url, **environment)
                assert stored() == before
            done("move", "--to", target, **environment)
            done("verify", "--recordings-url", target, **environment)
            done("verify", "--quick", "--recordings-url", target, **environment)
            done("--recordings-url", target, **environment)
            assert stored() == before
            assert query(FILES) == [(*row, f"{target}/{row[1]}") for row in before]
            url = target
    again = sandbox.requests.paths("/audio")[fetched:]
    assert not [path for path in again if any(str(name) in path for name, *_ in before)]


@pytest.mark.slow
def test_a_moved_project_takes_its_archive_along(environment: dict[str, str]) -> None:
    project = Path("project")
    project.mkdir()
    os.chdir(project)  # restored by the fixture of the working directory
    put_loaded(CONFIG)
    done(**environment)
    before = stored()
    os.chdir("..")
    project.rename("renamed")
    os.chdir("renamed")
    done("verify", **environment)
    assert stored() == before
    assert_in_place(Path("recordings"))
    # the log that was written in the old place has the pruned files, too
    done("prune", "--older-than", "60d", "--yes", **environment)
    assert 0 < len(stored()) < len(before)
    done("verify", **environment)


def test_other_bytes_from_polyai_are_a_version_and_a_finding(
    sandbox: Sandbox, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done(**environment)
    name, path, sha256 = stored()[0]
    file = Path("recordings") / str(path)
    body = file.read_bytes()
    altered = body[:-1] + bytes([body[-1] ^ 1])
    file.write_bytes(altered)
    given = Sandbox.recording

    def other(self: Sandbox, *arguments: Any, **options: Any) -> bytes | None:
        sound = given(self, *arguments, **options)
        return sound and sound[:-2] + bytes([sound[-2] ^ 3, sound[-1]])

    with monkeypatch.context() as patch:
        patch.setattr(Sandbox, "recording", other)
        for _ in range(2):
            result = run("recordings", "verify", "--refetch", "--json", **environment)
            assert result.returncode == 3
    troubles = [one["trouble"] for one in json.loads(result.stdout)["findings"]]
    assert sorted(troubles) == ["missing", "version"]
    # the first hash is kept, and so are both files
    assert stored()[0] == (name, path, sha256)
    assert file.with_suffix(".v2.wav").read_bytes() not in (body, altered)
    (aside,) = [one for one in Path("recordings/quarantine").rglob("*") if one.is_file()]
    assert aside.read_bytes() == altered
    assert not file.with_suffix(".v3.wav").exists()
    # with the file from a backup, the archive has all that there is
    file.write_bytes(body)
    done("verify", **environment)


@pytest.mark.matrix
@pytest.mark.slow
def test_status_and_dashboard_show_the_last_verification(environment: dict[str, str]) -> None:
    views = open_pipeline(name=VIEWS_PIPELINE)
    create_views(views)

    def dashboard() -> str:
        with open_reader(views, Path("published")) as reader:
            return data.page(reader).partition("</table>")[0].rpartition("<td")[2]

    done(**environment)
    before = json.loads(run("status", "--json", **environment).stdout)["agents"][0]
    assert before["last_verify"] is None
    next(Path("recordings").rglob("*.wav")).unlink()
    assert run("recordings", "verify", **environment).returncode == 1
    assert "1 missing" in run("status", **environment).stdout
    assert "1 missing" in dashboard()
    done("verify", "--refetch", **environment)
    after = json.loads(run("status", "--json", **environment).stdout)["agents"][0]
    assert after["last_verify"]["findings"] == 0
    assert "verified 0 min ago" in dashboard()
    assert "missing" not in dashboard()


def test_a_broken_chain_proves_nothing(environment: dict[str, str]) -> None:
    done(**environment)
    name = str(stored()[3][0])
    (segment,) = Path("recordings/custody").rglob("*.jsonl")
    entries = segment.read_bytes()
    segment.write_bytes(entries.replace(b'"http_status":200', b'"http_status":204', 1))
    result = run("recordings", "prove", name, **environment)
    assert result.returncode == 1
    assert "entry 2 was changed" in result.stdout
    segment.write_bytes(entries)
    done("prove", name, **environment)
    assert run("recordings", "prove", "unknown", **environment).returncode == 1


@pytest.mark.matrix
@pytest.mark.slow
def test_what_was_deleted_stays_in_the_log(environment: dict[str, str]) -> None:
    done(**environment)
    first, last = (str(row[0]) for row in (stored()[0], stored()[-1]))
    erased = run("forget", first, "--reason", "DSR-1", "--yes", **environment)
    assert erased.returncode == 0, erased.stderr
    done("verify", **environment)
    done("prune", "--older-than", "1d", "--yes", **environment)
    assert not list(Path("recordings").rglob("*.wav"))
    for name, why, reason in ((first, "forget", "DSR-1"), (last, "prune", None)):
        result = run("recordings", "prove", name, "--json", **environment)
        entry = json.loads(result.stdout)["entries"][-1]
        assert (entry["event"], entry["why"], entry.get("reason")) == ("deleted", why, reason)
        assert len(entry["sha256"]) == 64


ROUNDS = [
    pytest.param(2, marks=pytest.mark.slow),
    pytest.param(20, marks=pytest.mark.matrix),
]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_two_warehouses_keep_every_row(
    rounds: int, sandbox: Sandbox, environment: dict[str, str]
) -> None:
    pick = random.Random(rounds)
    here = Path.cwd()
    shared = environment | {"POLYAI_RECORDINGS_URL": str(here / "shared")}
    for name in ("one", "two"):
        (here / name).mkdir()
        os.chdir(here / name)
        put_loaded(CONFIG)
    os.chdir(here / "one")
    done("--directions", "agent", **shared)
    os.chdir(here / "two")
    done("adopt", shared["POLYAI_RECORDINGS_URL"], **shared)
    directions = "combined,user,agent"
    for number in range(rounds):
        processes = []
        for name in ("one", "two"):
            os.chdir(here / name)
            processes.append(start("recordings", "--directions", directions, **shared))
        time.sleep(pick.uniform(1.0, 4.0))
        processes[number % 2].kill()
        for process in processes:
            process.communicate()
    rows = {}
    for name in ("one", "two", "one"):
        os.chdir(here / name)
        done("--directions", directions, **shared)
        rows[name] = stored()
    assert rows["one"] == rows["two"]
    for name in ("one", "two"):
        os.chdir(here / name)
        found = done("verify", **shared)
        assert (found["files"], found["writers"]) == (len(rows["one"]), 2)


@needs_s3
@pytest.mark.slow
def test_requests_to_a_bucket_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    # without stubs, as its callers have none either
    client_class = pytest.importorskip("aiobotocore.client").AioBaseClient

    requests: list[str] = []
    call = client_class._make_api_call

    async def counted(self: Any, operation: str, options: Any) -> Any:
        requests.append(operation)
        return await call(self, operation, options)

    monkeypatch.setattr(client_class, "_make_api_call", counted)
    config = SandboxConfig(
        conversations=300, span=timedelta(days=1_125), recording_rate_hz=20, detail="small"
    )
    with s3() as server, serve(Sandbox(config)) as url:
        environment = bucket_of(server, url)
        put_loaded(config)
        fetched = done(**environment)["agents"][0]["fetched"]
        assert fetched > 150
        assert len(requests) <= 1.6 * fetched, Counter(requests)
        requests.clear()
        assert done("verify", "--quick", **environment)["files"] == fetched
        # at most one per 500 recordings, and two
        assert Counter(requests) == {"GetObject": 1, "ListObjectsV2": 1}


@dataclass
class Versions:
    """Bucket that keeps versions, for commands that find it by AWS's own variables.

    Attributes:
        client: Client of boto3.
        name: Its name.
    """

    client: Any
    name: str

    def of(self, part: str) -> list[dict[str, Any]]:
        """Versions and delete markers of the keys with a part in them."""
        page = self.client.list_object_versions(Bucket=self.name)
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        return [one for one in found if part in one["Key"]]

    def unlock(self) -> None:
        """Ends the retention of all recordings."""
        past = {"Mode": "GOVERNANCE", "RetainUntilDate": datetime(2020, 1, 1, tzinfo=UTC)}
        page = self.client.list_object_versions(Bucket=self.name)
        for one in page["Versions"]:
            if ".wav" in one["Key"]:
                place = {"Key": one["Key"], "VersionId": one["VersionId"]}
                self.client.put_object_retention(Bucket=self.name, Retention=past, **place)


@pytest.fixture
def versions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Versions]:
    """A bucket with versioning, and with a default retention of 30 days if so asked for."""
    boto3 = pytest.importorskip("boto3")
    is_locked = request.param == "locked"
    # whose key does not have the variables
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with s3() as server:
        for name, value in {
            "AWS_ACCESS_KEY_ID": "loader",
            "AWS_SECRET_ACCESS_KEY": "unused",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": server.url,
        }.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")
        client.create_bucket(Bucket="kept", ObjectLockEnabledForBucket=is_locked)
        client.put_bucket_versioning(Bucket="kept", VersioningConfiguration={"Status": "Enabled"})
        if is_locked:
            retention = {"Mode": "GOVERNANCE", "Days": 30}
            rule = {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}}
            client.put_object_lock_configuration(Bucket="kept", ObjectLockConfiguration=rule)
        yield Versions(client, "kept")


@needs_s3
@pytest.mark.slow
@pytest.mark.parametrize(
    "versions", [pytest.param("versioned", marks=pytest.mark.matrix), "locked"], indirect=True
)
def test_erasing_in_a_bucket_that_keeps_versions(
    versions: Versions, request: pytest.FixtureRequest, environment: dict[str, str]
) -> None:
    is_locked = "[locked]" in request.node.name
    environment |= {"POLYAI_RECORDINGS_URL": "s3://kept/calls"}
    done(**environment)
    calls = query(
        "SELECT conversation_id, path FROM polyai.recordings WHERE status = 'stored' "
        "ORDER BY started_at"
    )
    (first, _), (last, path) = calls[0], calls[-1]
    put = versions.client.head_object(Bucket="kept", Key=f"calls/{path}", ChecksumMode="ENABLED")
    assert any(name.startswith("Checksum") for name in put)
    # another version of the file, which is then set aside
    versions.client.put_object(Bucket="kept", Key=f"calls/{path}", Body=b"altered")
    assert run("recordings", "verify", **environment).returncode == 1
    done("verify", "--refetch", **environment)
    commands = (
        ("forget", str(last), "--yes"),
        ("recordings", "prune", "--older-than", "60d", "--yes"),
    )
    for command, name in zip(commands, (last, first)):
        result = run(*command, **environment)
        if is_locked:
            assert result.returncode == 3, result.stdout + result.stderr
            until = f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}"
            assert re.search(
                rf"s3://kept/calls/\S+/{name}\S+ is locked until {until}", result.stdout
            )
            with_json = json.loads(run(*command, "--json", **environment).stdout)
            assert with_json["exit_code"] == 3
            assert with_json["agents"][0]["locked"][0]["until"].startswith(until)
            assert versions.of(f"{name}.")
        else:
            assert result.returncode == 0, result.stdout + result.stderr
            assert not versions.of(f"{name}.")
    assert bool(query("SELECT 1 FROM polyai.forgotten WHERE erased_at IS NULL")) == is_locked
    done("verify", **environment)
    if is_locked:
        versions.unlock()
        for command in commands:
            result = run(*command, **environment)
            assert result.returncode == 0, result.stdout + result.stderr
    assert not [one for name in (first, last) for one in versions.of(f"{name}.")]
    assert not query("SELECT 1 FROM polyai.forgotten WHERE erased_at IS NULL")
    left = {str(path) for _, path, _ in stored()}
    assert left
    assert {one["Key"].removeprefix("calls/") for one in versions.of(".wav")} == left
    done("verify", **environment)


def bucket_of(server: S3Server, base_url: str) -> dict[str, str]:
    place = f"s3://{server.bucket}/calls"
    return access(base_url) | server.environment() | {"POLYAI_RECORDINGS_URL": place}
