"""Commands with a destination that is refused, not configured, or rejects the login."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import dlt
import pytest

import optional
from command import AGENT, KEY, access, error_of, run
from mariadb_server import mariadb, needs_mariadb
from optional import needs_sqlalchemy
from polyai import polyai
from polyai.errors import ConfigurationError, DestinationError
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.warehouse import capabilities
from polyai.warehouse.capabilities import DATABASES
from polyai.warehouse.errors import destination_errors

pytestmark = pytest.mark.server

COMMANDS = {
    "load": ("load", "--recordings"),
    "backfill": ("backfill", "--from", "2024-01-01"),
    "recordings": ("recordings",),
    "recordings verify": ("recordings", "verify"),
    "recordings prune": ("recordings", "prune", "--older-than", "1d", "--yes"),
    "views": ("views",),
    "views --drop": ("views", "--drop"),
    "dashboard": ("dashboard", "--no-browser"),
    "annotate": ("annotate", "rows.json"),
    "note": ("note", "rows.json"),
    "note --query": ("note", "--query", "select 1"),
    "debug-chat": ("debug-chat", "suite.yaml"),
    "forget": ("forget", "CONV-1", "--yes"),
    "status": ("status",),
}

MYSQL = {"DESTINATION__SQLALCHEMY__CREDENTIALS": "mysql+pymysql://a:b@127.0.0.1:1/c"}


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(SandboxConfig(conversations=5))


@pytest.fixture(scope="module")
def url(sandbox: Sandbox) -> Iterator[str]:
    with serve(sandbox) as url:
        yield url


@pytest.fixture(autouse=True)
def files() -> None:
    note = {"conversation_id": "CONV-1", "note": "checked"}
    row = {"turn_index": 0, "role": "agent", "annotation_type": "missing_topic"}
    Path("rows.json").write_text(json.dumps([note | row]))
    Path("suite.yaml").write_text("scenarios:\n  - name: one\n    turns:\n      - say: hello\n")


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(name, marks=optional.needs_dashboard if name == "dashboard" else [])
        for name in COMMANDS
    ],
)
def test_refused_before_the_first_request(command: str, url: str, sandbox: Sandbox) -> None:
    sandbox.requests.clear()
    result = run(*COMMANDS[command], "--destination", "filesystem", **access(url))
    assert result.returncode == 1
    message = error_of(result)
    assert "filesystem is refused" in message
    assert "ducklake" in message
    assert "publish_to" in message
    assert sandbox.requests.count("") == 0


def test_check_shows_the_refusal(url: str, sandbox: Sandbox) -> None:
    sandbox.requests.clear()
    result = run("check", "--json", "--destination", "lance", **access(url))
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert [one["outcome"] for one in report["findings"]] == ["failed"]
    assert report["destination"]["level"] == "refused"
    assert report["destination"]["alternative"] in report["findings"][0]["message"]
    assert sandbox.requests.count("") == 0


def test_the_dlt_source_refuses_too(url: str, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.requests.clear()
    own: Any = dlt.pipeline(
        "own", pipelines_dir=str(tmp_path), destination=dlt.destinations.filesystem("lake")
    )
    with pytest.raises(Exception, match="filesystem is refused"):
        own.run(polyai(AGENT, KEY, base_url=url))
    assert sandbox.requests.count("") == 0


@needs_sqlalchemy
@pytest.mark.parametrize("command", ["load", "status"])
def test_server_that_cannot_be_reached(command: str, url: str, sandbox: Sandbox) -> None:
    sandbox.requests.clear()
    result = run(command, "--destination", "sqlalchemy", **access(url) | MYSQL)
    assert result.returncode == 1
    assert "refused" in error_of(result)
    assert sandbox.requests.count("") == 0


@needs_sqlalchemy
@pytest.mark.parametrize(
    ("command", "has_leases"),
    [
        (("load",), False),
        (("load",), True),
        (("backfill", "--from", "2026-01-01", "--slice", "1000d", "--workers", "1"), False),
    ],
)
def test_lack_of_leases_is_logged_once(
    command: tuple[str, ...], has_leases: bool, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    support = replace(DATABASES["mysql"], has_leases=has_leases)
    monkeypatch.setattr(capabilities, "DATABASES", {"mysql": support})
    # it is logged before the server is found to be missing
    result = run(*command, "--destination", "sqlalchemy", **access(url) | MYSQL)
    warnings = [line for line in result.stderr.splitlines() if "keeps no leases" in line]
    assert len(warnings) == (not has_leases)
    assert all("one machine and one working directory at a time" in line for line in warnings)


@needs_sqlalchemy
def test_check_finds_what_a_driver_raises(url: str) -> None:
    result = run("check", "--json", "--destination", "sqlalchemy", **access(url) | MYSQL)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    report = json.loads(result.stdout)
    failed = [one for one in report["findings"] if one["outcome"] == "failed"]
    assert [one["subject"] for one in failed] == ["destination"]
    assert "pymysql" in failed[0]["message"]


@needs_mariadb
@needs_sqlalchemy
@pytest.mark.process
def test_tables_of_version_0_1_in_mysql(url: str, sandbox: Sandbox) -> None:
    import pymysql

    with mariadb() as server:
        place = urlparse(server)
        with closing(
            pymysql.connect(
                host=str(place.hostname),
                port=int(place.port or 0),
                user=str(place.username),
                password=str(place.password),
            )
        ) as connection:
            cursor = connection.cursor()
            cursor.execute("CREATE DATABASE polyai")
            cursor.execute("CREATE TABLE polyai.conversations (conversation_id TEXT)")
        sandbox.requests.clear()
        settings = access(url) | {"DESTINATION__SQLALCHEMY__CREDENTIALS": server}
        refused = run("load", "--destination", "sqlalchemy", **settings)
        assert refused.returncode == 1
        assert "the tables in polyai are of version 0.1" in error_of(refused)
        assert sandbox.requests.count("") == 0
        loaded = run("load", "--destination", "sqlalchemy", "--dataset", "other", **settings)
        assert loaded.returncode == 0, loaded.stderr


@pytest.mark.unit
def test_error_of_any_driver_is_one_of_the_destination() -> None:
    class LoginError(Exception):
        __module__ = "driver.errors"

    with pytest.raises(DestinationError, match="no such user"), destination_errors():
        raise LoginError("no such user\nmore")
    with (
        pytest.raises(ConfigurationError, match=r"requires the module gcsfs: pip install .*\[gs\]"),
        destination_errors(),
    ):
        raise ModuleNotFoundError("no module", name="gcsfs")
    # a fault of this package shows where it is
    for fault in (TypeError("fault"), KeyError("fault")):
        with pytest.raises(type(fault)), destination_errors():
            raise fault
