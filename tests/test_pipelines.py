"""The scripts of `pipelines/`, and the configuration files that stand beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import duckdb
import pytest

import polyai
from polyai.config.lookup import SECRET_NAMES
from polyai.config.settings import AGENT_NAMES, Settings
from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent
AGENT = "PROJECT-BOOKINGS"
KEYS = {"PROJECT-1234": "the-key-of-the-data-api", "PROJECT-5678": "the-key-of-the-other-agent"}

RESOLVE = """
import dataclasses, json, dlt, polyai
settings = polyai.resolve()
destination = dlt.secrets.get("destination.postgres.credentials")
print(json.dumps([dataclasses.asdict(settings), destination], default=str))
"""


def fresh(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A process of its own in the test's folder."""
    root = str(Path(polyai.__path__[0]).parent)
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def resolved(**files: str) -> tuple[dict[str, Any], Any]:
    """Settings and postgres credentials that a process finds with these files under `.dlt`."""
    Path(".dlt").mkdir(exist_ok=True)
    for name, text in files.items():
        Path(".dlt", f"{name}.toml").write_text(text, encoding="utf-8")
    done = fresh("-c", RESOLVE)
    assert done.returncode == 0, done.stderr
    settings, destination = json.loads(done.stdout)
    return settings, destination


def kept(name: str) -> str:
    return (ROOT / ".dlt" / name).read_text(encoding="utf-8")


def uncommented(text: str) -> str:
    """The text with its commented settings and tables put in force."""
    lines = (line.removeprefix("# ") for line in text.splitlines())
    settings = (line for line in lines if line.startswith("[") or " = " in line)
    return "\n".join(settings)


@pytest.mark.parametrize(
    ("api_key", "code", "rows"),
    [
        pytest.param("sandbox-key", 0, 30, id="all done"),
        pytest.param("sandbox-key-eu", 1, None, id="a key of another region"),
    ],
)
def test_load_script(api_key: str, code: int, rows: int | None) -> None:
    sandbox = Sandbox(SandboxConfig(conversations=30))
    with serve(sandbox) as base_url:
        done = fresh(
            str(ROOT / "pipelines" / "load.py"),
            POLYAI_AGENT_ID=AGENT,
            POLYAI_API_KEY=api_key,
            POLYAI_BASE_URL=base_url,
        )
    assert done.returncode == code, done.stderr
    assert api_key not in done.stdout + done.stderr
    if rows is not None:
        with duckdb.connect("polyai.duckdb", read_only=True) as connection:
            found = connection.execute("SELECT count(*) FROM polyai.conversations").fetchall()
        assert found == [(rows,)]


def test_load_script_takes_the_options_of_the_command() -> None:
    done = fresh(str(ROOT / "pipelines" / "load.py"), "--lookback", "soon")
    assert done.returncode == 1
    assert "lookback" in done.stderr


def test_config_toml_has_every_setting_with_its_default() -> None:
    config = tomllib.loads(kept("config.toml"))
    names = {*AGENT_NAMES, *(field.name for field in fields(Settings))} - SECRET_NAMES
    assert config["sources"]["polyai"].keys() == names
    assert config["runtime"]["dlthub_telemetry"] is False
    secrets = '[sources.polyai]\napi_key = "k"\nagent_id = "PROJECT-1"\n'
    without, _ = resolved(secrets=secrets)
    with_defaults, _ = resolved(config=kept("config.toml"))
    assert with_defaults == without


def test_every_setting_of_config_toml_is_explained() -> None:
    settings = [line for line in kept("config.toml").splitlines() if " = " in line]
    assert all(" # " in line for line in settings)


def test_secrets_example_holds_one_agent() -> None:
    settings, destination = resolved(
        config=kept("config.toml"), secrets=kept("secrets.toml.example")
    )
    (agent,) = settings["agents"]
    assert (agent["agent_id"], agent["api_key"], agent["region"]) == (
        "PROJECT-1234",
        KEYS["PROJECT-1234"],
        "us",
    )
    assert destination is None


def test_secrets_example_with_several_agents() -> None:
    # as its comment says: the tables stand in place of the one agent_id
    secrets = uncommented(kept("secrets.toml.example")).replace(
        'agent_id = "PROJECT-1234"\n', "", 1
    )
    tomllib.loads(secrets)
    settings, destination = resolved(config=kept("config.toml"), secrets=secrets)
    agents = {agent["agent_id"]: agent for agent in settings["agents"]}
    assert {name: agent["api_key"] for name, agent in agents.items()} == KEYS
    assert [agent["region"] for agent in agents.values()] == ["us", "uk"]
    assert [agent["account_id"] for agent in agents.values()] == ["ws-1234", "ws-5678"]
    assert settings["pii_secret"]
    assert destination.keys() == {"host", "port", "database", "username", "password"}


def test_secrets_are_ignored_by_git_and_committed_files_hold_none() -> None:
    assert ".dlt/secrets.toml" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert not SECRET_NAMES & tomllib.loads(kept("config.toml"))["sources"]["polyai"].keys()
