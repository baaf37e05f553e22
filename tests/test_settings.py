"""Settings: sources, precedence, and errors for invalid ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import polyai
from polyai.config.agent import Agent
from polyai.config.regions import data_api_url, parse_base_url
from polyai.config.settings import Settings, resolve
from polyai.config.validators import parse_duration
from polyai.errors import ConfigurationError

pytestmark = pytest.mark.unit

KEY = "secret-key-0123456789"
NAMED = {"agent_id": "PROJECT-1", "api_key": KEY}


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("POLYAI_", "SOURCES__POLYAI__")):
            monkeypatch.delenv(name)


def only_agent(**options: Any) -> Agent:
    (agent,) = resolve(**{**NAMED, **options}).agents
    return agent


def resolve_in(folder: Path, **files: str) -> dict[str, Any]:
    """Settings that a new process resolves in a folder with these files under `.dlt`."""
    (folder / ".dlt").mkdir()
    for name, text in files.items():
        (folder / ".dlt" / f"{name}.toml").write_text(text, encoding="utf-8")
    script = (
        "import dataclasses, json; from polyai.errors import ConfigurationError\n"
        "from polyai.config.settings import resolve\n"
        "try: print(json.dumps(dataclasses.asdict(resolve()), default=str))\n"
        "except ConfigurationError as error: print(json.dumps({'error': str(error)}))\n"
    )
    root = str(Path(polyai.__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_defaults() -> None:
    agent = Agent(
        "PROJECT-1",
        KEY,
        "us",
        None,
        "https://api.us.poly.ai",
        "https://api.us-1.platform.polyai.app",
    )
    assert resolve(**NAMED) == Settings(
        agents=(agent,),
        api="auto",
        details=False,
        environments=("live", "sandbox", "pre-release"),
        workers=8,
        lookback=timedelta(hours=24),
        settle_after=(
            timedelta(hours=1),
            timedelta(hours=24),
            timedelta(days=7),
            timedelta(days=30),
        ),
        give_up_after=timedelta(days=30),
        lock_wait=timedelta(0),
        chunk_size=5000,
        page_size=None,
        uncertain_wait=timedelta(seconds=10),
        recordings_url="recordings/",
        directions=("combined",),
        redacted=True,
        recordings_wait=timedelta(days=7),
        pii="keep",
        pii_secret="",
        phone_region="",
        retention=None,
        retention_recordings=None,
        retention_transcripts=None,
        forget_ledger="",
        transcripts="keep",
        keep_columns=(),
        drop_columns=(),
        accept_mixed=False,
        names={},
        reporting_time_zone="UTC",
        publish_to=None,
        request_timeout=60,
        request_deadline=timedelta(minutes=5),
        max_body=64 * 2**20,
        max_attempts=5,
    )


@pytest.mark.parametrize(
    ("name", "region", "data_host", "v3_host"),
    [
        ("us", "us", "api.us.poly.ai", "api.us-1.platform.polyai.app"),
        ("US", "us", "api.us.poly.ai", "api.us-1.platform.polyai.app"),
        ("us-1", "us", "api.us.poly.ai", "api.us-1.platform.polyai.app"),
        ("eu", "eu", "api.eu.poly.ai", "api.euw-1.platform.polyai.app"),
        ("euw-1", "eu", "api.eu.poly.ai", "api.euw-1.platform.polyai.app"),
        ("uk", "uk", "api.uk.poly.ai", "api.uk-1.platform.polyai.app"),
        (" uk-1 ", "uk", "api.uk.poly.ai", "api.uk-1.platform.polyai.app"),
        ("studio", "studio", "api.studio.poly.ai", None),
    ],
)
def test_each_region_has_its_hosts(
    name: str, region: str, data_host: str, v3_host: str | None
) -> None:
    agent = only_agent(region=name)
    assert (agent.region, agent.base_url) == (region, f"https://{data_host}")
    assert data_api_url(region) == agent.base_url
    assert agent.v3_base_url == (f"https://{v3_host}" if v3_host else None)


@pytest.mark.parametrize(
    ("url", "region", "account_id", "agent_id"),
    [
        ("https://studio.uk.poly.ai/acme-uk/acme-team-4", "uk", "acme-uk", "acme-team-4"),
        ("https://studio.us.poly.ai/ws-1/PROJECT-9/home?tab=x#y", "us", "ws-1", "PROJECT-9"),
        ("https://studio.eu.poly.ai/acme/p/", "eu", "acme", "p"),
        ("https://studio.poly.ai/acme/p", "studio", "acme", "p"),
        ("studio.uk.poly.ai/acme/p", "uk", "acme", "p"),
        ("https://jupiter.polyai.app/acme/p/home", "us", "acme", "p"),
        ("jupiter.polyai.app/ws-1/PROJECT-9", "us", "ws-1", "PROJECT-9"),
        ("https://STUDIO.uk.poly.ai//acme/caf%C3%A9", "uk", "acme", "café"),
    ],
)
def test_a_studio_url_names_agent_account_and_region(
    url: str, region: str, account_id: str, agent_id: str
) -> None:
    agent = only_agent(agent_id=url)
    assert (agent.region, agent.account_id, agent.agent_id) == (region, account_id, agent_id)
    assert agent.base_url == f"https://api.{region}.poly.ai"


def test_a_url_of_all_regions_leaves_the_region_to_its_setting() -> None:
    agent = only_agent(agent_id="https://jupiter.polyai.app/acme/p", region="uk-1")
    assert (agent.region, agent.account_id, agent.agent_id) == ("uk", "acme", "p")


@pytest.mark.parametrize("setting", [{"region": "us"}, {"account_id": "other"}], ids=str)
def test_a_studio_url_that_contradicts_other_settings_is_rejected(setting: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="in the Studio URL"):
        only_agent(agent_id="https://studio.uk.poly.ai/acme/p", **setting)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/acme/p",
        "https://studio.uk.poly.ai/acme",
        "https://studio.uk.poly.ai.evil.com/acme/p",
        "https://[studio/acme/p",
        "acme/p",
    ],
)
def test_other_urls_are_rejected(url: str) -> None:
    with pytest.raises(ConfigurationError, match="Studio URL"):
        only_agent(agent_id=url)


def test_options_override_the_environment_which_overrides_dlt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCES__POLYAI__REGION", "eu")
    monkeypatch.setenv("SOURCES__POLYAI__WORKERS", "3")
    assert (only_agent().region, resolve(**NAMED).workers) == ("eu", 3)
    monkeypatch.setenv("POLYAI_REGION", "uk")
    assert only_agent().region == "uk"
    assert only_agent(region="studio").region == "studio"
    assert only_agent(region=None).region == "uk"


@pytest.mark.parametrize("empty", ["", "  ", "\n", "<configure me>"])
def test_empty_values_count_as_not_set(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYAI_REGION", empty)
    monkeypatch.setenv("POLYAI_WORKERS", empty)
    monkeypatch.setenv("SOURCES__POLYAI__REGION", "eu")
    settings = resolve(**NAMED, lookback=empty)
    assert (settings.agents[0].region, settings.workers) == ("eu", 8)
    with pytest.raises(ConfigurationError, match="api_key of agent PROJECT-1 is missing"):
        resolve(agent_id="PROJECT-1", api_key=empty)


def test_every_setting_has_an_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "API_KEY": f"{KEY}\n",
        "AGENT_ID": "A, B,,A ",
        "ACCOUNT_ID": "ws-1",
        "REGION": "uk",
        "BASE_URL": "http://localhost:8080/",
        "V3_BASE_URL": "https://proxy.example/v3",
        "V3_API_KEY": "its-own",
        "API": "conversations_v3",
        "DETAILS": "true",
        "ENVIRONMENTS": "live, sandbox,live",
        "WORKERS": "64",
        "LOOKBACK": "30d",
        "SETTLE_AFTER": "2d, 1h",
        "CHUNK_SIZE": "100",
        "PAGE_SIZE": "50",
        "RECORDINGS_URL": "s3://bucket/x",
        "DIRECTIONS": "user, agent",
        "REDACTED": "false",
        "RECORDINGS_WAIT": "2d",
        "PII": "hash",
        "PII_SECRET": "pepper of some length",
        "PHONE_REGION": "gb",
        "FORGET_LEDGER": "s3://bucket/ledger",
        "TRANSCRIPTS": "drop",
        "REQUEST_TIMEOUT": "7.5",
        "REQUEST_DEADLINE": "2m",
        "MAX_BODY": "1 MB",
        "GIVE_UP_AFTER": "3d",
        "LOCK_WAIT": "10m",
        "UNCERTAIN_WAIT": "1m",
        "REPORTING_TIME_ZONE": "europe/london",
        "NAMES": '{"agents": {"A": " Front desk "}, "variants": {}}',
        "PUBLISH_TO": "published",
        "ACCEPT_MIXED": "true",
        "KEEP_COLUMNS": "phone_numbers.number",
        "DROP_COLUMNS": "turns.metadata, conversations.state",
        "RETENTION": "400d",
        "RETENTION_RECORDINGS": "90d",
        "RETENTION_TRANSCRIPTS": "180d",
        "MAX_ATTEMPTS": "2",
    }
    for name, value in environment.items():
        monkeypatch.setenv(f"POLYAI_{name}", value)
    ways = ("uk", "ws-1", "http://localhost:8080", "https://proxy.example/v3", "its-own")
    assert resolve() == Settings(
        agents=(Agent("A", KEY, *ways), Agent("B", KEY, *ways)),
        api="conversations_v3",
        details=True,
        environments=("live", "sandbox"),
        workers=64,
        lookback=timedelta(days=30),
        settle_after=(timedelta(hours=1), timedelta(days=2)),
        give_up_after=timedelta(days=3),
        lock_wait=timedelta(minutes=10),
        chunk_size=100,
        page_size=50,
        uncertain_wait=timedelta(minutes=1),
        recordings_url="s3://bucket/x",
        directions=("user", "agent"),
        redacted=False,
        recordings_wait=timedelta(days=2),
        pii="hash",
        pii_secret="pepper of some length",
        phone_region="GB",
        retention=timedelta(days=400),
        retention_recordings=timedelta(days=90),
        retention_transcripts=timedelta(days=180),
        forget_ledger="s3://bucket/ledger",
        transcripts="drop",
        keep_columns=("phone_numbers.number",),
        drop_columns=("turns.metadata", "conversations.state"),
        accept_mixed=True,
        names={"agents": {"A": "Front desk"}},
        reporting_time_zone="Europe/London",
        publish_to=Path("published"),
        request_timeout=7.5,
        request_deadline=timedelta(minutes=2),
        max_body=2**20,
        max_attempts=2,
    )


def test_what_is_published_depends_on_the_target() -> None:
    for target in (None, "", " "):
        assert resolve(**NAMED, publish_to=target).publish_to is None
    assert resolve(**NAMED, publish_to="~/bi").publish_to == Path.home() / "bi"
    # texts are targets of Parquet files
    assert resolve(**NAMED, publish_to="~/lake/").publish_to == f"{Path.home() / 'lake'}/"
    for url in ("s3://bucket/lake", "file:///srv/lake"):
        assert resolve(**NAMED, publish_to=url).publish_to == url


def test_the_default_page_size_depends_on_the_listing() -> None:
    assert resolve(**NAMED, api="conversations_v3").page_size == 1000
    assert resolve(**NAMED, api="conversations_v3", page_size=10).page_size == 10


def test_a_base_url_is_also_used_for_v3() -> None:
    assert only_agent(base_url="http://127.0.0.1:1").v3_base_url == "http://127.0.0.1:1"


TABLES = """
[sources.polyai]
region = "us"
api_key = "shared"
[[sources.polyai.agents]]
agent_id = "A"
[[sources.polyai.agents]]
agent_id = "https://studio.eu.poly.ai/acme/B"
api_key = "own-b"
[[sources.polyai.agents]]
agent_id = "C"
api_key = " own-c\\n"
region = "uk-1"
account_id = "ws-c"
base_url = "http://[::1]:9"
"""


def test_tables_in_secrets_toml(tmp_path: Path) -> None:
    tables = TABLES.replace('region = "us"\n', "")
    config = "[sources.polyai]\nworkers = 4\nsettle_after = []\nrequest_timeout = 9\n"
    found = resolve_in(tmp_path, secrets=tables, config=config)
    facts = [
        (agent["agent_id"], agent["api_key"], agent["region"], agent["account_id"])
        for agent in found["agents"]
    ]
    assert facts == [
        ("A", "shared", "us", None),
        ("B", "own-b", "eu", "acme"),
        ("C", "own-c", "uk", "ws-c"),
    ]
    assert found["agents"][2]["base_url"] == "http://[::1]:9"
    assert (found["workers"], found["settle_after"], found["request_timeout"]) == (4, [], 9.0)


def test_an_agent_selected_in_the_environment_uses_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLYAI_AGENT_ID", "C,D")
    found = resolve_in(tmp_path, secrets=TABLES)
    facts = [(agent["agent_id"], agent["api_key"], agent["region"]) for agent in found["agents"]]
    assert facts == [("C", "own-c", "uk"), ("D", "shared", "us")]


def test_options_can_be_lists_and_timedeltas() -> None:
    settings = resolve(agent_id=["A", "B"], api_key=KEY, settle_after=["2d", timedelta(hours=1)])
    assert [agent.agent_id for agent in settings.agents] == ["A", "B"]
    assert settings.settle_after == (timedelta(hours=1), timedelta(days=2))


def test_agent_id_and_tables_in_one_place_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCES__POLYAI__AGENTS", '[{"agent_id": "A"}]')
    monkeypatch.setenv("SOURCES__POLYAI__AGENT_ID", "D")
    with pytest.raises(ConfigurationError, match="agent_id and agents are both set"):
        resolve(api_key=KEY)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("text", "expected names by id"),
        ({"agent": {}}, "not of agent"),
        ({"agents": {"A": ""}}, "the name of 'A' in agents"),
        ({"agents": {"A": "\0"}}, "the name of 'A' in agents"),
        ({"agents": {"A": "\ud800"}}, "the name of 'A' in agents"),
        ({"agents": {"A": 1}}, "the name of 'A' in agents"),
        ({"agents": "A"}, "agents is not a table"),
    ],
)
def test_names_that_are_no_texts_are_refused(names: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        resolve(**NAMED, names=names)


def test_a_key_in_config_toml_is_refused(tmp_path: Path) -> None:
    found = resolve_in(tmp_path, config=f'[sources.polyai]\nagent_id = "A"\napi_key = "{KEY}"\n')
    assert "config.toml" in found["error"]
    assert KEY not in found["error"]
    assert ".dlt/secrets.toml" in found["error"]


def test_tables_as_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = json.dumps([{"agent_id": "A", "api_key": KEY, "region": "eu"}])
    monkeypatch.setenv("SOURCES__POLYAI__AGENTS", tables)
    assert resolve().agents[0].region == "eu"


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ([{"api_key": KEY}], "table 1 has no agent_id"),
        ([{"agent_id": "A", "key": KEY}], "unknown settings key"),
        ([{"agent_id": "A"}, {"agent_id": "A "}], "the same agent_id"),
        ([{"agent_id": 5}], "expected text, not int"),
        ([{"agent_id": "A", "api_key": 5}], "expected text, not int"),
        ([{"agent_id": "A", "region": 5}], "expected text, not int"),
        ([{"agent_id": "A", "api_key": KEY, "base_url": 5}], "expected text, not int"),
        ("[", "a list of tables"),
        ({"agent_id": "A"}, "a list of tables"),
    ],
)
def test_errors_of_tables_name_the_mistake(tables: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        resolve(agents=tables)
    assert KEY not in str(caught.value)


def test_selection_of_agents() -> None:
    settings = resolve(agent_id="A,B,C", api_key=KEY)
    assert [agent.agent_id for agent in settings.only(["C", "A", "C"]).agents] == ["C", "A"]
    assert settings.only([]) == settings
    with pytest.raises(ConfigurationError, match=r"agent D is not configured.*A, B, C"):
        settings.only(["A", "D"])


def test_a_missing_agent_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match="POLYAI_AGENT_ID"):
        resolve(api_key=KEY)


class TestHowToSet:
    def test_only_existing_places_are_named(self) -> None:
        with pytest.raises(ConfigurationError) as caught:
            resolve(agent_id="PROJECT-1")
        message = str(caught.value)
        assert "POLYAI_API_KEY" in message
        assert "api_key under [sources.polyai] in .dlt/secrets.toml" in message
        assert "option" not in message

    def test_an_option_is_named_where_the_caller_has_it(self) -> None:
        with pytest.raises(ConfigurationError, match=r"as an option.*POLYAI_WORKERS"):
            resolve(**NAMED, workers=0)
        with pytest.raises(ConfigurationError, match=r"as an option.*POLYAI_API_KEY"):
            resolve(agent_id="PROJECT-1", api_key=None)


def test_an_unknown_option_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown setting worker\b.*workers"):
        resolve(**NAMED, worker=3)


def test_hashing_requires_a_secret() -> None:
    with pytest.raises(ConfigurationError, match="POLYAI_PII_SECRET"):
        resolve(**NAMED, pii="hash")


def test_a_short_secret_is_rejected_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="too short") as caught:
        resolve(**NAMED, pii="hash", pii_secret="short and sweet")
    assert "sweet" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("region", "mars", "us, eu, uk, studio, us-1, euw-1, uk-1"),
        ("api", "v4", "data, conversations_v3"),
        ("pii", "KEEP", "keep, hash, drop"),
        ("transcripts", "hash", "keep, drop"),
        ("workers", "0", "from 1 to 64"),
        ("workers", 65, "from 1 to 64"),
        ("workers", True, "from 1 to 64"),
        ("workers", 1.5, "from 1 to 64"),
        ("workers", "many", "from 1 to 64"),
        ("chunk_size", -1, "from 1 to 1,000,000"),
        ("page_size", "0", "from 1 to 10,000"),
        ("details", "maybe", "neither true nor false"),
        ("environments", "draft", "live, sandbox, pre-release"),
        ("max_attempts", "0", "from 1 to 100"),
        ("request_deadline", "0s", "shorter than 1s"),
        ("max_body", "1KB", "from 64KB"),
        ("max_body", "2GB", "less than 2GB"),
        ("max_body", "64 megabytes", "such as 64MB"),
        ("request_timeout", "nan", "from 1 to 3,600"),
        ("request_timeout", "inf", "from 1 to 3,600"),
        ("request_timeout", 0, "from 1 to 3,600"),
        ("lookback", "5", "1d12h"),
        ("lookback", 24, "1d12h"),
        ("lookback", "-1h", "1d12h"),
        ("settle_after", "1h,soon", "1d12h"),
        ("give_up_after", "never", "1d12h"),
        ("lock_wait", "10", "1d12h"),
        ("settle_after", 3600, "1h,24h,7d"),
    ],
)
def test_an_invalid_value_is_named_with_the_accepted_values(
    name: str, value: Any, allowed: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(**NAMED, **{name: value})
    message = str(caught.value)
    shown = "soon" if value == "1h,soon" else str(value)
    assert message.startswith(f"{name}: ")
    for words in (shown, allowed, f"POLYAI_{name.upper()}", ".dlt/config.toml"):
        assert words in message


@pytest.mark.parametrize("key", ["smart’quote-key", "line\nbreak-key", "nul\0-key", "\x7f-key"])
def test_a_key_with_invalid_characters_is_rejected_and_not_shown(key: str) -> None:
    with pytest.raises(ConfigurationError, match="api_key of agent PROJECT-1") as caught:
        resolve(agent_id="PROJECT-1", api_key=key)
    assert "-key" not in str(caught.value)


def test_no_repr_contains_secrets() -> None:
    settings = resolve(**NAMED, pii="hash", pii_secret="pepper of some length")
    assert KEY not in repr(settings)
    assert "pepper of some length" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("https://api.us.poly.ai/", "https://api.us.poly.ai"),
        (" https://proxy.example:8443/polyai ", "https://proxy.example:8443/polyai"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.3.2.1", "http://127.3.2.1"),
        ("https://[fd00::1]:8443", "https://[fd00::1]:8443"),
        ("https://polyai_proxy", "https://polyai_proxy"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
    ],
)
def test_accepted_base_urls(url: str, parsed: str) -> None:
    assert parse_base_url(url) == parsed


@pytest.mark.parametrize(
    "url",
    [
        "http://api.us.poly.ai",
        "http://localhost.evil.com",
        "http://127.0.0.1.evil.com",
        "http://127.0.0.1@evil.com",
        "http://0.0.0.0",
        "http://192.168.0.1",
        "https://user:password@api.us.poly.ai",
        "https://api.us.poly.ai?x=1",
        "https://api.us.poly.ai#x",
        "https://",
        "https://host:port",
        "https://.poly.ai",
        "https://*.poly.ai",
        "https://api..poly.ai",
        "https://host:99999",
        "https://[::1",
        "https://evil.com\\@api.us.poly.ai",
        "https://api.us.poly.ai\n.evil.com",
        "ftp://localhost",
        "api.us.poly.ai",
    ],
)
def test_rejected_base_urls(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url: ") as caught:
        resolve(**NAMED, base_url=url)
    assert "password@" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
        (" 1D12H ", timedelta(days=1, hours=12)),
        ("1w2d3h4m5s", timedelta(weeks=1, days=2, hours=3, minutes=4, seconds=5)),
        ("0s", timedelta(0)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "h", "1", "1.5h", "1h1d", "1h 30m", "١h", "99999999999999d", "9" * 5000 + "s"]
)
def test_invalid_durations(text: str) -> None:
    with pytest.raises(ConfigurationError, match="1d12h"):
        parse_duration(text)
