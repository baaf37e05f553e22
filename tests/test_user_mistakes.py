"""Mistakes of users: misspelt settings, invalid files, keys that are copied with more around them.

Each has to be an error before the first request, or to be understood; none may pass in silence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dlt
import pytest
from dlt.common.configuration.providers.toml import (
    ConfigTomlProvider,
    SecretsTomlProvider,
    TomlProviderReadException,
)
from dlt.pipeline.exceptions import PipelineStepFailed

from command import AGENT, KEY, access, error_of, files_read_again, query, run, run_process
from loaded import put_loaded
from polyai import ExitCode, note, polyai
from polyai.config.providers import invalid_file
from polyai.config.settings import resolve
from polyai.config.unknown_names import nearest
from polyai.errors import ConfigurationError
from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.load

OTHER = "PROJECT-OTHER"
CONFIG = SandboxConfig(conversations=10, agents=(AGENT, OTHER))


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    return Sandbox(CONFIG)


@pytest.fixture(scope="module")
def base_url(sandbox: Sandbox) -> Iterator[str]:
    with serve(sandbox) as url:
        yield url


def write(name: str, text: str) -> None:
    path = Path(".dlt", name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("variable", "value", "suggested"),
        [
            ("POLYAI_PPI", "drop", "POLYAI_PII"),
            ("POLYAI_PII_MODE", "hash", "POLYAI_PII"),
            pytest.param("POLYAI_TRANSCRIPT", "drop", "POLYAI_TRANSCRIPTS", marks=pytest.mark.slow),
            pytest.param("POLYAI_REDACT", "true", "POLYAI_REDACTED", marks=pytest.mark.slow),
            pytest.param(
                "POLYAI_TIME_ZONE",
                "Europe/London",
                "POLYAI_REPORTING_TIME_ZONE",
                marks=pytest.mark.slow,
            ),
            pytest.param("polyai_pii", "drop", "POLYAI_PII", marks=pytest.mark.slow),
            pytest.param("POLY_AI_PII", "drop", "POLYAI_PII", marks=pytest.mark.slow),
            pytest.param("POLYAI__PII", "drop", "POLYAI_PII", marks=pytest.mark.slow),
            ("POLAI_PII", "drop", "POLYAI_PII"),
            pytest.param(
                "SOURCES_POLYAI_PII", "drop", "SOURCES__POLYAI__PII", marks=pytest.mark.slow
            ),
            ("SOURCES__POLYAI__PPI", "drop", "pii"),
            pytest.param(
                "SOURCES__POLYAI__NAMES__AGENTS__A", "Desk", "POLYAI_NAMES", marks=pytest.mark.slow
            ),
            pytest.param("SOURCES__POLAI__PII", "drop", "[sources.polyai]", marks=pytest.mark.slow),
            pytest.param("SOURCE__POLYAI__PII", "drop", "[sources.polyai]", marks=pytest.mark.slow),
            pytest.param("SOURCES__POLYAI__POLYAI__PII", "drop", "polyai", marks=pytest.mark.slow),
            pytest.param(
                "sources__polyai__pii", "drop", "SOURCES__POLYAI__PII", marks=pytest.mark.slow
            ),
        ],
    )
    def test_a_variable_that_resembles_a_setting_is_an_error(
        self, variable: str, value: str, suggested: str, sandbox: Sandbox, base_url: str
    ) -> None:
        sandbox.requests.clear()
        result = run("load", **access(base_url), **{variable: value})
        assert result.returncode == 1
        assert variable in error_of(result)
        assert suggested in error_of(result)
        assert sandbox.requests.count() == 0
        assert not Path("polyai.duckdb").exists()

    @pytest.mark.parametrize(
        "file", ["config.toml", pytest.param("secrets.toml", marks=pytest.mark.slow)]
    )
    @pytest.mark.parametrize(
        ("text", "suggested"),
        [
            ('[sources.polyai]\npii_mode = "drop"', "pii"),
            pytest.param('[sources.polyai]\nPII = "drop"', "pii", marks=pytest.mark.slow),
            pytest.param('[sources.polyai]\nlook_back = "30d"', "lookback", marks=pytest.mark.slow),
            ('[source.polyai]\npii = "drop"', "[sources.polyai]"),
            ('[sources.polai]\npii = "drop"', "[sources.polyai]"),
            pytest.param(
                '[sources.poly_ai]\npii = "drop"', "[sources.polyai]", marks=pytest.mark.slow
            ),
            pytest.param(
                '[Sources.PolyAI]\npii = "drop"', "[sources.polyai]", marks=pytest.mark.slow
            ),
            ('[polyai]\npii = "drop"', "[sources.polyai]"),
            pytest.param(
                '[polyai.sources.polyai]\npii = "drop"', "[sources.polyai]", marks=pytest.mark.slow
            ),
            pytest.param(
                '["sources.polyai"]\npii = "drop"', "[sources.polyai]", marks=pytest.mark.slow
            ),
            pytest.param(
                '[sources.polyai.polyai]\npii = "drop"',
                "sources.polyai.polyai",
                marks=pytest.mark.slow,
            ),
            ("[sources.polyai.recordings]\nredacted = false", "recordings_url"),
            pytest.param(
                '[[sources.polyai.agent]]\nagent_id = "A"', "agents", marks=pytest.mark.slow
            ),
            pytest.param('[sources]\npii = "drop"', "[sources.polyai]", marks=pytest.mark.slow),
            pytest.param('pii = "drop"', "[sources.polyai]", marks=pytest.mark.slow),
            pytest.param(
                '[[sources.polyai.agents]]\nagent_id = "A"\napikey = "x"',
                "api_key",
                marks=pytest.mark.slow,
            ),
        ],
    )
    def test_a_key_or_section_that_resembles_ours_is_an_error(
        self, file: str, text: str, suggested: str, sandbox: Sandbox, base_url: str
    ) -> None:
        sandbox.requests.clear()
        write(file, text)
        environment = access(base_url)
        if "agents" in suggested or "api_key" in suggested:
            del environment["POLYAI_AGENT_ID"]
        result = run("load", **environment)
        assert result.returncode == 1
        assert suggested in error_of(result)
        assert sandbox.requests.count() == 0

    @pytest.mark.parametrize(
        "command",
        [
            ["check"],
            ["backfill", "--from", "2025-01-01"],
            ["recordings"],
            pytest.param(["recordings", "verify"], marks=pytest.mark.slow),
            pytest.param(["recordings", "prune", "--older-than", "90d"], marks=pytest.mark.slow),
            ["status"],
            pytest.param(["views"], marks=pytest.mark.slow),
            ["forget", "one", "--yes"],
            pytest.param(["dashboard", "--no-browser"], marks=pytest.mark.slow),
            pytest.param(["note", "notes.jsonl"], marks=pytest.mark.slow),
            pytest.param(["demo", "--conversations", "10"], marks=pytest.mark.slow),
        ],
    )
    def test_every_command_refuses(self, command: list[str], base_url: str) -> None:
        Path("notes.jsonl").write_text('{"conversation_id": "a", "note": "b"}\n')
        result = run(*command, **access(base_url), POLYAI_PPI="drop")
        assert result.returncode == 1
        assert "POLYAI_PII" in error_of(result)

    @pytest.mark.slow
    def test_a_variable_that_resembles_nothing_is_a_warning(self, base_url: str) -> None:
        result = run("load", **access(base_url), POLYAI_TEAM_MOOD="good", POLYAI_QUX="1")
        assert result.returncode == 0, result.stderr
        assert "POLYAI_TEAM_MOOD" in result.stderr
        assert "POLYAI_QUX" in result.stderr

    @pytest.mark.slow
    def test_names_of_dlt_of_other_sources_and_of_other_parts_are_allowed(
        self, base_url: str
    ) -> None:
        write(
            "config.toml",
            "pipeline_name = 'x'\n[sources.github]\napi_key = 'x'\npage_size = 5\n"
            "[sources.polyai]\nworkers = 3\n[sources.polyai.data_writer]\nbuffer_max_items = 500\n"
            "[sources.polyai.turns.data_writer]\nbuffer_max_items = 500\n"
            "[sources.polyai.recordings]\nread_only = false\n"
            "[sources.polyai.recordings.credentials]\naws_access_key_id = 'x'\n"
            "[sources.polyai.publish.credentials]\naws_access_key_id = 'x'\n"
            "[sources.polyai.credentials]\naws_access_key_id = 'x'\n"
            "[polyai.load]\nworkers = 1\n[polyai.destination.duckdb]\n"
            "[destination.polyai]\nx = 1\n[normalize]\nworkers = 1\n[runtime]\nlog_level = 'ERROR'",
        )
        result = run(
            "load",
            **access(base_url),
            POLYAI_DASHBOARD_TOKEN="token",
            POLYAI_DAGSTER_START="2025-01-01",
            POLYAI_DAGSTER_DATASET="polyai",
            SOURCES__POLYAI__DATA_WRITER__BUFFER_MAX_ITEMS="400",
            SOURCES__POLYAI__RECORDINGS__CREDENTIALS__AWS_SECRET_ACCESS_KEY="x",
            SOURCES__POLYAI__RECORDINGS__CLIENT_KWARGS='{"verify": "x"}',
            SOURCES__GITHUB__PII="x",
            POLYAI_PPI="",
        )
        assert result.returncode == 0, result.stderr
        assert "is not a setting" not in result.stderr

    def test_the_dlt_source_refuses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("POLYAI_PPI", "drop")
        with pytest.raises(ConfigurationError, match="POLYAI_PII"):
            polyai(AGENT, KEY)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [("ppi", "pii"), ("pii_mode", "pii"), ("agentid", "agent_id"), ("zzz", None)],
    )
    def test_nearest(self, name: str, expected: str | None) -> None:
        found = nearest(name, ["agent_id", "api", "pii", "workers"])
        assert (found[0] if name != "ppi" else found[-1]) == expected if expected else not found


class TestSecrets:
    @pytest.mark.parametrize("name", ["api_key", "v3_api_key", "pii_secret"])
    def test_a_secret_in_the_other_file_is_not_ignored_in_silence(self, name: str) -> None:
        write("config.toml", f'[sources.polyai]\nagent_id = "{AGENT}"\n{name} = "hidden-key"\n')
        options = {"api_key": KEY} if name != "api_key" else {}
        with files_read_again(), pytest.raises(ConfigurationError) as caught:
            resolve(**options)
        assert str(caught.value).startswith(f"{name} ")
        assert "secrets.toml" in str(caught.value)
        assert "hidden-key" not in str(caught.value)
        # nothing is ignored where another place has a higher precedence
        write("secrets.toml", f'[sources.polyai]\n{name} = "{KEY}"\n')
        with files_read_again():
            assert resolve(**options).agents[0].api_key == KEY


class TestInvalidFiles:
    @pytest.mark.process
    @pytest.mark.parametrize(
        ("file", "content", "line"),
        [
            ("secrets.toml", b'[sources.polyai]\nagent_id = "A"\napi_key = "hidden-key\n', 3),
            pytest.param(
                "secrets.toml",
                b"[sources.polyai]\napi_key = hidden-key\n",
                2,
                marks=pytest.mark.matrix,
            ),
            pytest.param(
                "config.toml",
                b"[sources.polyai]\nworkers = 3\n\n[sources.pol",
                4,
                marks=pytest.mark.matrix,
            ),
            pytest.param(
                "config.toml",
                b"[sources.polyai]\nworkers = 3\nworkers = 4\n",
                3,
                marks=pytest.mark.matrix,
            ),
            ("config.toml", b'[sources.polyai]\nregion = "\xe9"\n', 2),
        ],
    )
    def test_the_error_is_one_line_with_file_and_line(
        self, file: str, content: bytes, line: int, tmp_path: Path, base_url: str
    ) -> None:
        path = tmp_path / ".dlt" / file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        result = run_process("load", **access(base_url))
        assert result.returncode == 1
        message = error_of(result)
        assert len(result.stderr.splitlines()) == 1
        assert f"{file}, line {line}:" in message
        assert "hidden" not in result.stderr + result.stdout

    @pytest.mark.parametrize(("name", "line"), [("secrets.toml", 2), ("config.toml", 1)])
    def test_a_global_file_is_named_too(self, name: str, line: int, tmp_path: Path) -> None:
        write(name, "[sources.polyai]\n")
        (tmp_path / "global").mkdir()
        (tmp_path / "global" / name).write_text("\n" * (line - 1) + '= "hidden-key"\n')
        kind = SecretsTomlProvider if name == "secrets.toml" else ConfigTomlProvider
        with pytest.raises(TomlProviderReadException) as caught:
            kind(".dlt", str(tmp_path / "global"))
        message = str(invalid_file(caught.value))
        assert f"{tmp_path}/global/{name}, line {line}:" in message
        assert "hidden" not in message

    @pytest.mark.matrix
    @pytest.mark.process
    def test_commands_without_settings_and_scripts_report_it_too(self, tmp_path: Path) -> None:
        write("config.toml", "[sources.polyai]\nworkers =\n")
        for command in (["status"], ["dashboard", "--no-browser"], ["views"]):
            result = run_process(*command)
            assert (result.returncode, len(result.stderr.splitlines())) == (1, 1), result.stderr
            assert "config.toml, line 2:" in error_of(result)


class TestSeveralAgents:
    @pytest.mark.slow
    def test_tables_of_both_files_are_merged_by_agent(self, base_url: str) -> None:
        write(
            "config.toml",
            f'[[sources.polyai.agents]]\nagent_id = "{OTHER}"\nbase_url = "{base_url}"\n'
            f'[[sources.polyai.agents]]\nagent_id = "{AGENT}"\nbase_url = "http://localhost:1"\n',
        )
        write(
            "secrets.toml",
            f'[sources.polyai]\napi_key = "{KEY}"\n'
            f'[[sources.polyai.agents]]\nagent_id = "{AGENT}"\nbase_url = "{base_url}"\n',
        )
        result = run("load", "--json")
        assert result.returncode == 0, result.stderr
        reports = json.loads(result.stdout)["agents"]
        assert [report["agent_id"] for report in reports] == [OTHER, AGENT]
        assert query(
            "SELECT agent_id, count(*) FROM polyai.conversations GROUP BY 1 ORDER BY 1"
        ) == [
            (AGENT, 10),
            (OTHER, 10),
        ]

    def test_tables_of_the_global_file_are_merged_too(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = f'[[sources.polyai.agents]]\napi_key = "{KEY}"\n'
        write("secrets.toml", f'{table}agent_id = "{AGENT}"\n')
        (tmp_path / "global").mkdir()
        (tmp_path / "global" / "secrets.toml").write_text(f'{table}agent_id = "{OTHER}"\n')
        provider = SecretsTomlProvider(".dlt", str(tmp_path / "global"))
        monkeypatch.setattr("polyai.config.lookup.providers", lambda: [provider])
        assert {agent.agent_id for agent in resolve().agents} == {AGENT, OTHER}

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "bad", ["", pytest.param('api_key = "two words"\n', marks=pytest.mark.matrix)]
    )
    def test_an_agent_without_a_valid_key_does_not_stop_the_others(
        self, bad: str, base_url: str
    ) -> None:
        url = f'base_url = "{base_url}"\n'
        write(
            "secrets.toml",
            f'[[sources.polyai.agents]]\nagent_id = "{OTHER}"\n{url}{bad}'
            f'[[sources.polyai.agents]]\nagent_id = "{AGENT}"\n{url}api_key = "{KEY}"\n',
        )
        result = run("load", "--json")
        assert result.returncode == 1
        failed, loaded = json.loads(result.stdout)["agents"]
        assert (failed["agent_id"], failed["status"]) == (OTHER, "failed")
        assert "api_key" in failed["error"]
        assert (loaded["agent_id"], loaded["status"], loaded["new"]) == (AGENT, "complete", 10)
        assert "quote" not in failed["error"].replace("quotes", "")
        checked = run("check", "--json")
        assert checked.returncode == 1
        subjects = {
            (found["agent_id"], found["subject"]): found["outcome"]
            for found in json.loads(checked.stdout)["findings"]
        }
        assert subjects[OTHER, "key"] == "failed"
        assert subjects[AGENT, "key"] == "ok"
        fetched = run("recordings", "--json")
        assert fetched.returncode == 1
        assert "Traceback" not in fetched.stderr
        sliced = run("backfill", "--from", "2020-01-01", "--slice", "20y", "--workers", "1")
        assert sliced.returncode == 3, sliced.stderr
        only = run("load", "--agent", OTHER)
        assert only.returncode == 1
        assert "api_key" in error_of(only)
        assert run("load", "--agent", AGENT).returncode == 0

    @pytest.mark.slow
    def test_nor_rows_that_are_written_back_to_the_others(self, base_url: str) -> None:
        url = f'base_url = "{base_url}"\n'
        write(
            "secrets.toml",
            f'[[sources.polyai.agents]]\nagent_id = "{OTHER}"\n{url}'
            f'[[sources.polyai.agents]]\nagent_id = "{AGENT}"\n{url}api_key = "{KEY}"\n',
        )
        run("load")
        ((loaded,),) = query("SELECT min(conversation_id) FROM polyai.conversations")
        rows = [
            {"conversation_id": "any", "agent_id": OTHER, "note": "one"},
            {"conversation_id": loaded, "agent_id": AGENT, "note": "two"},
        ]
        for dry_run, sent in ((True, "to send"), (False, "sent")):
            with files_read_again():
                done = note(rows, dry_run=dry_run, overwrite=True)
            assert [one.outcome for one in done.results] == ["not sent", sent]
            assert f"api_key of agent {OTHER}" in str(done.results[0].reason)
            assert done.exit_code == ExitCode.CONFIGURATION
        with files_read_again(), pytest.raises(ConfigurationError, match="api_key"):
            note(rows[:1])

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("bad", "is_first"),
        [
            ("", True),
            ('api_key = "refused"\n', False),
            pytest.param("", False, marks=pytest.mark.matrix),
            pytest.param('api_key = "refused"\n', True, marks=pytest.mark.matrix),
        ],
    )
    def test_the_dlt_source_loads_the_others(
        self, bad: str, is_first: bool, base_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        tables = [
            f'[[sources.polyai.agents]]\nagent_id = "{OTHER}"\nbase_url = "{base_url}"\n{bad}',
            f'[[sources.polyai.agents]]\nagent_id = "{AGENT}"\nbase_url = "{base_url}"\n'
            f'api_key = "{KEY}"\n',
        ]
        write("secrets.toml", "".join(tables[:: 1 if is_first else -1]))
        own = dlt.pipeline(
            "own",
            pipelines_dir="pipelines",
            destination=dlt.destinations.duckdb("own.duckdb"),
            dataset_name="calls",
        )
        with files_read_again():
            own.run(polyai())
        counts = "SELECT agent_id, count(*) FROM calls.conversations GROUP BY 1"
        assert query(counts, "own.duckdb") == [(AGENT, 10)]
        (logged,) = (one for one in caplog.records if one.levelname == "ERROR")
        assert OTHER in logged.getMessage()
        write("secrets.toml", tables[0])
        with files_read_again(), pytest.raises((ConfigurationError, PipelineStepFailed)):
            own.run(polyai())

    @pytest.mark.parametrize("files", [("secrets.toml",), ("config.toml",)])
    def test_duplicate_agents_in_one_file_are_an_error(
        self, files: tuple[str, ...], base_url: str
    ) -> None:
        write(files[0], f'[[sources.polyai.agents]]\nagent_id = "{AGENT}"\n' * 2)
        result = run("load", POLYAI_API_KEY=KEY, POLYAI_BASE_URL=base_url)
        assert result.returncode == 1
        assert AGENT in error_of(result)

    @pytest.mark.slow
    def test_the_variable_selects_among_the_tables(self, base_url: str) -> None:
        table = f'[[sources.polyai.agents]]\napi_key = "{KEY}"\nbase_url = "{base_url}"\n'
        write("config.toml", f'{table}agent_id = "{OTHER}"\n')
        write("secrets.toml", f'{table}agent_id = "{AGENT}"\n')
        result = run("load", "--json", POLYAI_AGENT_ID=OTHER)
        assert [r["agent_id"] for r in json.loads(result.stdout)["agents"]] == [OTHER]


class TestCopiedKeys:
    @pytest.mark.parametrize(
        "key",
        [f'"{KEY}"', f"'{KEY}'", f"Bearer {KEY}", f'  "Bearer {KEY}" ', f"“{KEY}”", f"{KEY}\n"],
    )
    @pytest.mark.parametrize("agent_id", [AGENT, f'"{AGENT}"', f" '{AGENT}' "])
    def test_what_was_copied_along_is_removed(self, key: str, agent_id: str) -> None:
        (agent,) = resolve(agent_id=agent_id, api_key=key).agents
        assert (agent.agent_id, agent.api_key, agent.problem) == (AGENT, KEY, "")

    @pytest.mark.parametrize("key", ['hidden"key', "hidden key", "x-api-key: hidden", '"hidden'])
    def test_an_unclear_key_is_refused_and_not_shown(self, key: str) -> None:
        with pytest.raises(ConfigurationError, match="api_key of agent") as caught:
            resolve(agent_id=AGENT, api_key=key)
        assert "hidden" not in str(caught.value)

    @pytest.mark.parametrize("agent_id", ['A"B', '["A"', "Bearer A", "<PROJECT>"])
    def test_an_unclear_agent_id_is_refused(self, agent_id: str) -> None:
        with pytest.raises(ConfigurationError, match="not a valid agent id"):
            resolve(agent_id=agent_id, api_key=KEY)


class TestDurations:
    @pytest.mark.parametrize("name", ["POLYAI_LOOKBACK", "POLYAI_SETTLE_AFTER"])
    @pytest.mark.parametrize("value", ["1M", pytest.param("1d12M", marks=pytest.mark.slow)])
    def test_a_capital_m_is_refused_with_advice(
        self, name: str, value: str, sandbox: Sandbox, base_url: str
    ) -> None:
        sandbox.requests.clear()
        result = run("load", **access(base_url), **{name: value})
        assert result.returncode == 1
        assert "mo" in error_of(result)
        assert sandbox.requests.count() == 0

    def test_months_and_years(self) -> None:
        settings = resolve(agent_id=AGENT, api_key=KEY, lookback="2mo", give_up_after="1Y1MO3W")
        assert settings.lookback.days == 60
        assert settings.give_up_after.days == 365 + 30 + 21


class TestPrune:
    @pytest.mark.parametrize("age", ["12M", "1M"])
    def test_a_capital_m_is_refused(self, age: str, base_url: str) -> None:
        for more in ([], ["--yes"], ["--dry-run"]):
            result = run("recordings", "prune", "--older-than", age, *more, **access(base_url))
            assert result.returncode == 2
            assert "mo" in result.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("age", ["12m", pytest.param("29d", marks=pytest.mark.slow)])
    def test_less_than_30_days_needs_a_confirmation(self, age: str) -> None:
        put_loaded(CONFIG)
        Path("recordings").mkdir()
        command = ("recordings", "prune", "--older-than", age)
        refused = run(*command)
        assert refused.returncode == 2
        assert "--yes" in refused.stderr
        assert run(*command, "--yes").returncode == 0
        assert run(*command, "--dry-run").returncode == 0
        assert run("recordings", "prune", "--older-than", "1mo").returncode == 0
