"""Archives of version 0.1, which are upgraded in place or adopted without a download."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from command import AGENT, access, error_of, query, run
from loaded import restore
from polyai import open_pipeline
from polyai.load.committer import Committer
from polyai.recordings import opening, relocate
from polyai.recordings.custody import Custody, Entry, Head
from polyai.recordings.relocate import adopt
from polyai.recordings.run import PIPELINE_NAME
from polyai.recordings.verify import verify
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.warehouse.file_store import Store

pytestmark = pytest.mark.load

FIXTURE = Path(__file__).parent / "fixtures" / "archive_0_1"

FOLDER = "/srv/polyai"
"""Folder in which version 0.1 made the archive."""

PRUNED = "CA9075ecf2d07c61870b69635f00000001"
FORGOTTEN = "CA605a8a298ede27fc69432a4000000005"
NOT_FOUND = ["CA82e66223491209eebaa3589a0000000b", "OUT-4fd3c851efee389517e4883800000006"]


def sql(statement: str) -> None:
    with duckdb.connect("polyai.duckdb") as connection:
        connection.execute(statement)


@pytest.fixture
def before() -> list[tuple[object, ...]]:
    """Restores warehouse and archive in the working directory; returns the rows."""
    shutil.unpack_archive(FIXTURE / "recordings.zip", "recordings")
    restore(FIXTURE / "warehouse")
    sql(f"UPDATE recordings SET uri = replace(uri, '{FOLDER}', '{Path.cwd()}')")
    return rows()


COLUMNS = "conversation_id, direction, redacted, status, bytes, sha256, started_at, fetched_at"


def rows() -> list[tuple[object, ...]]:
    return query(f"SELECT {COLUMNS}, attempts FROM polyai.recordings ORDER BY ALL")


@pytest.fixture
def sandbox() -> Sandbox:
    return Sandbox(SandboxConfig(conversations=1))


@pytest.fixture
def environment(sandbox: Sandbox) -> Iterator[dict[str, str]]:
    with serve(sandbox) as url:
        yield access(url)


def done(*arguments: str, **environment: str) -> dict[str, Any]:
    """Runs `recordings` with a subcommand, which has to succeed; returns its JSON."""
    result = run("recordings", *arguments, "--json", **environment)
    assert result.returncode == 0, result.stdout + result.stderr
    content: dict[str, Any] = json.loads(result.stdout)
    return content


def assert_upgraded(folder: str, before: Sequence[tuple[object, ...]]) -> None:
    """Asserts that all rows are unchanged, and that each file is in the folder and in one log."""
    assert rows() == before
    assert sorted(str(row[0]) for row in before if row[3] == "not_found") == NOT_FOUND
    found = query("SELECT path, uri, sha256 FROM polyai.recordings WHERE status = 'stored'")
    assert len(found) == 4
    assert all(uri == str(Path(folder, str(path)).resolve()) for path, uri, _ in found)
    assert {str(path) for path, *_ in found} == {
        str(path.relative_to(folder)) for path in Path(folder).rglob("*.wav")
    }
    (chain,) = Path(folder, "custody").glob("*/*")
    lines = [line for path in chain.iterdir() for line in path.read_bytes().splitlines()]
    upgraded = [one for one in map(json.loads, lines) if one["event"] == "upgraded"]
    in_log = sorted((one["path"], one["sha256"]) for one in upgraded)
    assert in_log == sorted((path, sha256) for path, _, sha256 in found)
    assert not list(Path(folder, "manifest").rglob("date=*"))
    assert query("SELECT DISTINCT agent_id FROM polyai.archives") == [(AGENT,)]


@pytest.mark.parametrize("command", [pytest.param("recordings", marks=pytest.mark.slow), "verify"])
def test_is_upgraded_in_place(
    command: str,
    sandbox: Sandbox,
    environment: dict[str, str],
    before: list[tuple[object, ...]],
) -> None:
    done(*[command] if command != "recordings" else [], **environment)
    assert_upgraded("recordings", before)
    found = done("verify", **environment)
    assert (found["files"], found["writers"]) == (4, 1)
    chain = done("prove", str(before[0][0]), **environment)
    assert [entry["event"] for entry in chain["entries"]] == ["upgraded"]
    assert not sandbox.requests.matching("/audio")
    names = {row[0] for row in rows()}
    assert not names & {PRUNED, FORGOTTEN}


def test_is_upgraded_after_an_upgrade_that_was_killed(
    environment: dict[str, str],
    before: list[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    append = Custody.append

    def killed(self: Custody, entries: Sequence[Entry]) -> Head:
        append(self, entries)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(opening, "_ENTRIES", 2)
        patch.setattr(Custody, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            verify(open_pipeline(name=PIPELINE_NAME), "recordings", wait=timedelta(days=7))
    assert done("verify", **environment)["files"] == 4
    assert_upgraded("recordings", before)


@pytest.mark.slow
def test_is_adopted_where_it_was_moved(
    sandbox: Sandbox, environment: dict[str, str], before: list[tuple[object, ...]]
) -> None:
    Path("recordings").rename("elsewhere")
    for url in ("recordings", "elsewhere"):
        refused = run("recordings", "--recordings-url", url, **environment)
        assert refused.returncode == 1
        assert "is not the archive of this warehouse" in error_of(refused)
    done("adopt", "elsewhere", **environment)
    done("verify", "--recordings-url", "elsewhere", **environment)
    assert_upgraded("elsewhere", before)
    done("--recordings-url", "elsewhere", **environment)
    assert not sandbox.requests.matching("/audio")


@pytest.mark.slow
def test_is_adopted_by_a_new_warehouse(
    sandbox: Sandbox, environment: dict[str, str], before: list[tuple[object, ...]]
) -> None:
    for table in ("recordings", "sync_runs"):
        sql(f"DELETE FROM {table}")
    assert "recordings adopt" in error_of(run("recordings", **environment))
    done("adopt", "recordings", **environment)
    done("verify", **environment)
    assert_upgraded("recordings", before)
    # the limit of pruning was lost with the warehouse
    sandbox.requests.clear()
    assert run("recordings", **environment).returncode in (0, 3)
    assert {path.split("/")[-2] for path in sandbox.requests.paths("/audio")} <= {PRUNED}


def until_it_succeeds(
    work: Callable[[], object], step: int, monkeypatch: pytest.MonkeyPatch
) -> int:
    """Kills work before a change of store or warehouse, each time some changes later.

    Returns:
        Number of changes without a kill.
    """
    left = 0

    def killed(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return change(*arguments, **options)

        return changed

    with monkeypatch.context() as patch:
        for owner, name in (
            (Store, "put"),
            (Store, "create"),
            (Store, "delete"),
            (Committer, "write"),
            (Committer, "statements"),
        ):
            patch.setattr(owner, name, killed(getattr(owner, name)))
        for changes in itertools.count(0, step):
            left = changes
            try:
                work()
            except KeyboardInterrupt:
                continue
            return changes
    raise AssertionError


@pytest.mark.parametrize(
    ("work", "step"),
    [
        pytest.param("adopt into a new warehouse", 4, marks=pytest.mark.slow),
        pytest.param("adopt into a new warehouse", 1, marks=pytest.mark.matrix),
        pytest.param("adopt", 1, marks=pytest.mark.matrix),
        pytest.param("upgrade", 1, marks=pytest.mark.matrix),
    ],
)
def test_has_one_log_after_kills(
    work: str,
    step: int,
    environment: dict[str, str],
    before: list[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if work == "adopt into a new warehouse":
        for table in ("recordings", "sync_runs"):
            sql(f"DELETE FROM {table}")

    def take_over() -> None:
        pipeline = open_pipeline(name=PIPELINE_NAME)
        if work == "upgrade":
            verify(pipeline, "recordings", wait=timedelta(days=7))
        else:
            adopt(pipeline, "recordings")

    monkeypatch.setattr(opening, "_ENTRIES", 2)
    monkeypatch.setattr(relocate, "_ROWS", 2)
    assert until_it_succeeds(take_over, step, monkeypatch) > 5
    assert done("verify", **environment)["writers"] == 1
    assert_upgraded("recordings", before)
