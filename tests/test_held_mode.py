"""Privacy modes: runs under another one than that of what is loaded are refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import duckdb
import pytest

from command import KEY, access, error_of, query, run
from loaded import put_loaded
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.shape.privacy_mode import PrivacyMode, fingerprint

pytestmark = pytest.mark.load

CONFIG = SandboxConfig(conversations=12, span=timedelta(days=4), oddities=False)
SECRET = "pepper of some length"
HASH = {"POLYAI_PII": "hash", "POLYAI_PII_SECRET": SECRET}


@pytest.fixture
def sandbox() -> Iterator[tuple[Sandbox, str]]:
    put_loaded(CONFIG)
    sandbox = Sandbox(CONFIG)
    with serve(sandbox) as url:
        yield sandbox, url


def modes() -> list[tuple[object, ...]]:
    return query("SELECT pii, transcripts, pii_key FROM sync_runs ORDER BY started_at")


class TestAnotherMode:
    def test_is_refused_by_each_run_that_writes(self, sandbox: tuple[Sandbox, str]) -> None:
        served, url = sandbox
        notes = "SELECT conversation_id, 'call back' AS note FROM polyai.conversations LIMIT 1"
        for command in (
            ["load"],
            ["backfill", "--from", "2026-01-01", "--workers", "1", "--slice", "5y"],
            ["recordings"],
            ["note", "--query", notes],
        ):
            result = run(*command, **access(url), **HASH)
            assert result.returncode == 1, command
            shown = result.stdout + result.stderr
            for part in ("pii = keep", "pii = hash", "redact", "--accept-mixed"):
                assert part in " ".join(shown.split()), command
            assert SECRET not in shown
        assert served.requests.count() == 0
        assert modes() == [("keep", "keep", None)]

    @pytest.mark.slow
    def test_is_written_beside_the_other_where_that_is_accepted(
        self, sandbox: tuple[Sandbox, str]
    ) -> None:
        _, url = sandbox
        mixed = run("load", "--accept-mixed", **access(url), **HASH)
        assert mixed.returncode == 0
        assert "mixed with rows of pii = keep" in mixed.stderr
        assert modes()[1:] == [("hash", "keep", fingerprint(SECRET))]
        # both modes are loaded now
        for environment in ({}, HASH):
            assert run("load", **access(url), **environment).returncode == 1
        assert run("load", **access(url), POLYAI_ACCEPT_MIXED="true").returncode == 0

    def test_what_was_dropped_cannot_be_brought_back(self, sandbox: tuple[Sandbox, str]) -> None:
        _, url = sandbox
        with duckdb.connect("polyai.duckdb") as connection:
            connection.execute("UPDATE sync_runs SET transcripts = 'drop'")
        error = error_of(run("load", **access(url)))
        assert "cannot be brought back" in error
        assert "redact" not in error


@pytest.mark.slow
def test_a_warehouse_of_0_1_is_taken_for_one_of_the_present_settings(
    sandbox: tuple[Sandbox, str],
) -> None:
    _, url = sandbox
    with duckdb.connect("polyai.duckdb") as connection:
        for column in PrivacyMode._fields:
            connection.execute(f"ALTER TABLE sync_runs DROP {column}")
    result = run("load", **access(url), **HASH)
    assert result.returncode == 0
    assert "does not record under which settings" in result.stderr
    assert modes() == [(None, None, None), ("hash", "keep", fingerprint(SECRET))]
    again = run("load", **access(url), **HASH)
    assert again.returncode == 0
    assert "does not record" not in again.stderr
    assert run("load", **access(url)).returncode == 1


class TestMode:
    @pytest.mark.unit
    @pytest.mark.parametrize(
        ("before", "after", "is_possible"),
        [
            (("keep", "keep"), ("hash", "keep"), True),
            (("keep", "keep"), ("drop", "drop"), True),
            (("hash", "keep"), ("drop", "keep"), True),
            (("hash", "keep"), ("hash", "drop"), True),
            (("hash", "keep"), ("keep", "keep"), False),
            (("drop", "keep"), ("hash", "keep"), False),
            (("hash", "drop"), ("drop", "keep"), False),
        ],
    )
    def test_only_a_stricter_one_can_be_converted_to(
        self, before: tuple[str, str], after: tuple[str, str], is_possible: bool
    ) -> None:
        one, other = (PrivacyMode.named(*names, SECRET) for names in (before, after))
        assert one.can_become(other) is is_possible

    @pytest.mark.unit
    def test_another_secret_is_another_mode(self) -> None:
        one, other = (PrivacyMode.named("hash", "keep", secret) for secret in (SECRET, KEY * 2))
        assert not one.can_become(other)
        assert one.can_become(PrivacyMode.named("drop", "keep", SECRET))
        assert SECRET not in str(tuple(one))
