"""`polyai-warehouse check`: findings, advice and exit code."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from command import AGENT, KEY, access, run
from polyai.sandbox import DATA_LISTING, Sandbox, SandboxConfig, serve
from polyai.warehouse.capabilities import DESTINATIONS

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve(Sandbox(SandboxConfig(conversations=30))) as url:
        yield url


def findings(code: int, **environment: str) -> dict[str, dict[str, Any]]:
    """Runs `check --json` and returns its findings by subject."""
    result = run("check", "--json", **environment)
    assert result.returncode == code
    assert "Traceback" not in result.stderr
    report = json.loads(result.stdout)
    assert report["ok"] is (code == 0)
    return {finding["subject"]: finding for finding in report["findings"]}


def outcomes(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {subject: finding["outcome"] for subject, finding in found.items()}


def test_all_good(url: str) -> None:
    result = run("check", **access(url), POLYAI_ACCOUNT_ID="ws-sandbox")
    assert result.returncode == 0
    assert result.stderr == ""
    printed, _, settings = result.stdout.partition("\nsettings to use")
    destination, support, leases, *others, recommended = printed.splitlines()
    *_, last = settings.splitlines()
    assert destination.startswith("ok destination: duckdb /")
    assert destination.endswith("polyai.duckdb, dataset polyai: 0 conversations loaded")
    assert support.startswith("ok support: duckdb is proven: ")
    assert leases.startswith("ok leases: ")
    subjects = ["key", "detail", "transcripts", "metrics", "pii", "conversations_v3", "names"]
    assert [line.partition(":")[0] for line in others] == [
        f"ok {AGENT} {subject}" for subject in subjects
    ]
    assert "30 conversations in region us" in others[0]
    assert others[-2].endswith("live, sandbox, pre-release")
    assert recommended.startswith(f"ok {AGENT} listing: both listings can be used: api = 'auto'")
    assert "deprecated" in recommended
    exports, _, toml = settings.partition("\nor in ")
    expected = {
        "agent_id": AGENT,
        "region": "us",
        "account_id": "ws-sandbox",
        "base_url": url,
        "api": "auto",
    }
    lines = [f"export POLYAI_{name.upper()}={value}" for name, value in expected.items()]
    assert exports.splitlines() == [", in the environment:", *lines]
    heading, _, toml = toml.partition("\n")
    assert "`unset POLYAI_AGENT_ID POLYAI_ACCOUNT_ID POLYAI_BASE_URL`" in heading
    assert tomllib.loads(toml.partition("ready")[0])["sources"]["polyai"] == expected
    assert last == "ready: polyai-warehouse load"


def test_support_of_the_destination_as_json(url: str) -> None:
    report = json.loads(run("check", "--json", **access(url)).stdout)
    assert report["destination"] == {
        "name": "duckdb",
        "level": "proven",
        "reason": DESTINATIONS["duckdb"].reason,
        "alternative": None,
        "has_leases": False,
        "without_views": [],
    }


def test_v3_is_skipped_without_an_account(url: str) -> None:
    found = findings(0, **access(url))
    assert found["conversations_v3"]["outcome"] == "skipped"
    assert "set account_id" in found["conversations_v3"]["message"]
    assert set(outcomes(found).values()) == {"ok", "skipped"}


def test_a_refused_v3_key_is_a_warning(url: str) -> None:
    found = findings(0, **access(url, api_key="sandbox-data-key"), POLYAI_ACCOUNT_ID="ws-sandbox")
    assert found["conversations_v3"]["outcome"] == "warning"
    assert "HTTP 403" in found["conversations_v3"]["message"]
    assert "POLYAI_V3_API_KEY" in found["conversations_v3"]["message"]


def test_a_wrong_account_is_corrected_from_the_other_listing(url: str) -> None:
    found = findings(0, **access(url), POLYAI_ACCOUNT_ID="ws-other")
    assert found["conversations_v3"]["outcome"] == "warning"
    assert "set account_id to 'ws-sandbox'" in found["conversations_v3"]["message"]


def test_the_usable_listing_is_recommended(url: str) -> None:
    found = findings(0, **access(url, api_key="sandbox-data-key"))
    assert "use api = 'auto'" in found["listing"]["message"]
    assert "deprecated" in found["listing"]["message"]
    own_key = {"POLYAI_ACCOUNT_ID": "ws-sandbox", "POLYAI_V3_API_KEY": "sandbox-v3-key"}
    found = findings(0, **access(url, api_key="none"), **own_key, POLYAI_API="conversations_v3")
    assert found["key"]["outcome"] == "warning"
    assert "use api = 'conversations_v3'" in found["listing"]["message"]


def test_a_refused_selected_listing_is_a_failure(url: str) -> None:
    chosen = {"POLYAI_API": "conversations_v3"}
    found = findings(1, **access(url), **chosen, POLYAI_ACCOUNT_ID="ws-other")
    assert found["conversations_v3"]["outcome"] == "failed"
    assert "POLYAI_ACCOUNT_ID" in found["conversations_v3"]["message"]
    assert found["key"]["outcome"] == "ok"
    found = findings(1, **access(url), **chosen)
    assert "set account_id" in found["conversations_v3"]["message"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "subject", "message"),
    [
        pytest.param({"api_key": "nonsense"}, "key", "HTTP 401", id="wrong key"),
        pytest.param(
            {"api_key": "sandbox-key-eu"}, "key", "set POLYAI_REGION", id="key of another region"
        ),
        pytest.param(
            {"api_key": "sandbox-key-forbidden"}, "permission", "HTTP 403", id="no permission"
        ),
        pytest.param(
            {"agent_id": "PROJECT-OTHER"}, "agent", "set POLYAI_AGENT_ID", id="unknown agent"
        ),
        pytest.param(
            {"base_url": "http://127.0.0.1:1"},
            "api",
            "127.0.0.1:1",
            id="closed port",
        ),
    ],
)
def test_refused(url: str, wrong: dict[str, str], subject: str, message: str) -> None:
    found = findings(1, **access(**{"base_url": url} | wrong))
    assert outcomes(found) == {
        "destination": "ok",
        "support": "ok",
        "leases": "ok",
        subject: "failed",
        "conversations_v3": "skipped",
        "names": "skipped",
        "listing": "skipped",
    }
    assert message.lower() in found[subject]["message"].lower()


def test_each_agent_is_tested(url: str) -> None:
    result = run("check", **access(url, agent_id=f"PROJECT-OTHER,{AGENT}"))
    assert result.returncode == 1
    assert "\nfailed PROJECT-OTHER agent: agent PROJECT-OTHER is not known" in result.stdout
    assert f"\nok {AGENT} key: " in result.stdout
    # variables cannot differ between agents
    assert "export" not in result.stdout
    assert "`unset POLYAI_AGENT_ID POLYAI_BASE_URL`:\n" in result.stdout
    assert f'[[sources.polyai.agents]]\nagent_id = "{AGENT}"\n' in result.stdout
    assert "ready" not in result.stdout


def test_key_without_access_to_numbers_is_a_warning(url: str) -> None:
    found = findings(0, **access(url, api_key="sandbox-key-no-pii"))
    assert found["pii"]["outcome"] == "warning"
    assert "REDACTED" in found["pii"]["message"]


def test_withheld_transcripts_are_a_warning() -> None:
    with serve(Sandbox(SandboxConfig(conversations=20, withhold_transcripts=True))) as url:
        found = findings(0, **access(url))
    assert found["transcripts"]["outcome"] == "warning"
    assert "Agent Studio" in found["transcripts"]["message"]


def test_a_key_of_v3_alone_is_ready_with_an_account(url: str) -> None:
    key = {"POLYAI_API_KEY": "", "POLYAI_V3_API_KEY": "sandbox-v3-key"}
    found = findings(0, **access(url) | key, POLYAI_ACCOUNT_ID="ws-sandbox")
    assert found["conversations_v3"]["outcome"] == "ok"
    assert "use api = 'conversations_v3'" in found["listing"]["message"]
    # from the rows of v3
    assert found["transcripts"]["outcome"] == found["metrics"]["outcome"] == "ok"
    # nothing is wrong with a key that is not needed
    assert found["key"]["outcome"] == "skipped"
    _, _, _, first, *others = findings(1, **access(url) | key).values()
    assert (first["subject"], first["outcome"]) == ("conversations_v3", "failed")
    assert "set account_id (POLYAI_ACCOUNT_ID) to the Workspace ID" in first["message"]
    assert "v3_api_key is enough" in first["message"]
    assert "region" not in first["message"]
    assert {one["outcome"] for one in others} == {"skipped"}


@pytest.mark.parametrize("account", [{}, {"POLYAI_ACCOUNT_ID": "ws-sandbox"}], ids=["id", "both"])
def test_swapped_keys_are_reported_as_such(url: str, account: dict[str, str]) -> None:
    given = access(url, api_key="sandbox-v3-key") | account
    result = run("check", **given, POLYAI_V3_API_KEY="sandbox-data-key")
    assert result.returncode == 1
    assert result.stdout.count("the two keys are swapped") == 2
    assert "Likely causes" not in result.stdout
    moved = 'export POLYAI_API_KEY="$POLYAI_V3_API_KEY" POLYAI_V3_API_KEY="$POLYAI_API_KEY"'
    assert moved in result.stdout.splitlines()
    assert "sandbox-v3-key" not in result.stdout
    assert "sandbox-data-key" not in result.stdout


def test_a_listing_that_answers_rules_out_the_region_of_the_other(url: str) -> None:
    account = {"POLYAI_ACCOUNT_ID": "ws-sandbox"}
    found = findings(0, **access(url, api_key="sandbox-data-key"), **account)
    assert found["key"]["outcome"] == "ok"
    message = found["conversations_v3"]["message"]
    assert "POLYAI_REGION" not in message
    assert "(1) it is a key of the Data API: set v3_api_key" in message
    assert "set account_id" not in found["listing"]["message"]


@pytest.mark.parametrize("v3_key", [None, "sandbox-v3-key"])
def test_a_workspace_key_is_named_as_such(url: str, v3_key: str | None) -> None:
    environment = access(url, api_key="sandbox-workspace-key") | {"POLYAI_ACCOUNT_ID": "ws-sandbox"}
    if v3_key:
        environment["POLYAI_V3_API_KEY"] = v3_key
    found = findings(0 if v3_key else 1, **environment)
    assert found["names"]["outcome"] == "ok"
    (message,) = (it["message"] for it in found.values() if "is a workspace key" in it["message"])
    assert "swapped" not in message
    assert ("Set api_key (POLYAI_API_KEY) to a key of the Data API" in message) == (v3_key is None)
    assert found["conversations_v3"]["outcome"] == ("ok" if v3_key else "failed")


def test_settings_in_files_are_printed_for_files(url: str) -> None:
    Path(".dlt").mkdir()
    settings = f'[sources.polyai]\nagent_id = "{AGENT}"\nbase_url = "{url}"\n'
    Path(".dlt", "config.toml").write_text(settings, encoding="utf-8")
    result = run("check", POLYAI_API_KEY=KEY)
    assert result.returncode == 0
    assert "settings to use, in .dlt/config.toml:\n[sources.polyai]\n" in result.stdout
    assert "export" not in result.stdout


@pytest.mark.slow
def test_a_listing_that_a_load_would_keep_to_has_to_answer(url: str) -> None:
    both = access(url) | {"POLYAI_ACCOUNT_ID": "ws-sandbox"}
    assert run("load", **both, POLYAI_API="conversations_v3").returncode == 0
    assert " ago through the Conversations API v3\n" in run("status", **both).stdout
    listing = findings(0, **both)["listing"]["message"]
    assert "goes on through the Conversations API v3" in listing
    assert "api = 'data' (POLYAI_API)" in listing
    # a load with `auto` keeps to v3, which refuses the key
    refused = both | {"POLYAI_V3_API_KEY": "wrong", "POLYAI_API_KEY": "sandbox-data-key"}
    result = run("check", **refused)
    assert result.returncode == 1
    assert "export POLYAI_API=data\n" in result.stdout
    assert run("load", **refused).returncode == 1
    assert run("load", **refused, POLYAI_API="data").returncode == 0


def test_names_that_the_key_may_not_read_are_skipped(url: str) -> None:
    found = findings(0, **access(url, api_key="sandbox-data-key"))
    assert found["names"]["outcome"] == "skipped"
    assert "HTTP 403" in found["names"]["message"]


def test_a_listing_that_is_gone_is_reported_with_the_answer_of_the_gateway() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=20))
    sandbox.faults.add("no_route", path=DATA_LISTING)
    with serve(sandbox) as url:
        result = run("check", "--json", **access(url), POLYAI_ACCOUNT_ID="ws-sandbox")
    report = json.loads(result.stdout)
    assert result.returncode == 0, report
    found = {finding["subject"]: finding for finding in report["findings"]}
    assert "no Route matched with those values" in found["agent"]["message"]
    assert found["detail"]["outcome"] == "ok"
    assert "details = true" in found["listing"]["message"]
    assert "need a key" not in found["listing"]["message"]
    (settings,) = report["settings"]
    assert settings["config"]["api"] == "conversations_v3"
    assert settings["config"]["details"] is True


def test_secrets_that_others_can_read_are_a_warning(url: str) -> None:
    Path(".dlt").mkdir()
    secrets = Path(".dlt", "secrets.toml")
    secrets.write_text(f'[sources.polyai]\napi_key = "{KEY}"\n', encoding="utf-8")
    secrets.chmod(0o644)
    given = access(url) | {"POLYAI_API_KEY": ""}
    found = findings(0, **given)
    assert found["secrets"]["outcome"] == "warning"
    assert "chmod 600" in found["secrets"]["message"]
    secrets.chmod(0o600)
    assert "secrets" not in findings(0, **given)


def test_files_without_secrets_of_ours_are_not_mentioned(url: str) -> None:
    Path(".dlt").mkdir()
    secrets = Path(".dlt", "secrets.toml")
    secrets.write_text('[sources.others]\napi_key = "other"\n', encoding="utf-8")
    secrets.chmod(0o644)
    assert "secrets" not in findings(0, **access(url))


def test_agent_without_conversations() -> None:
    with serve(Sandbox(SandboxConfig(conversations=0))) as url:
        found = findings(0, **access(url))
    assert found["detail"]["outcome"] == "skipped"


def test_unreadable_details() -> None:
    sandbox = Sandbox(SandboxConfig(conversations=20))
    sandbox.faults.add("status", path="/conversations/", status=404, error_code="GONE")
    with serve(sandbox) as url:
        found = findings(1, **access(url))
    assert outcomes(found)["detail"] == "failed"


def test_unusable_destination(url: str) -> None:
    missing = "missing/polyai.duckdb"
    found = findings(1, **access(url), DESTINATION__DUCKDB__CREDENTIALS=missing)
    assert outcomes(found) == {
        "destination": "failed",
        "support": "ok",
        "leases": "ok",
        "key": "ok",
        "detail": "ok",
        "transcripts": "ok",
        "metrics": "ok",
        "pii": "ok",
        "conversations_v3": "skipped",
        "names": "ok",
        "listing": "ok",
    }
    assert missing in found["destination"]["message"]
