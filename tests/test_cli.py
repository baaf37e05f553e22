"""`polyai-warehouse load` and `sandbox`: exit codes, output, signals, a terminal."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from command import AGENT, access, error_of, query, run, run_in_terminal, start, wait_until
from polyai.cli.commands import COMMANDS, imported
from polyai.sandbox import Sandbox, SandboxConfig, serve
from polyai.sandbox.faults import FaultKind
from polyai.sandbox.texts import AGENT_NAMES
from polyai.tables.registry import name_tables

pytestmark = pytest.mark.load

DETAIL = "GET .*/conversations/"
SIGNALS = [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.matrix)]


@pytest.fixture(scope="module")
def shared_url() -> Iterator[str]:
    """A small sandbox for runs that only read it or are refused."""
    with serve(Sandbox(SandboxConfig(conversations=20))) as url:
        yield url


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class TestLoad:
    def test_first_and_second_run(self) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=40))
        with serve(sandbox) as url:
            first = run("load", **access(url))
            assert first.returncode == 0
            assert first.stderr == ""
            assert "\x1b" not in first.stdout
            requests = 43 + sandbox.requests.kinds["agents"]
            assert re.match(
                rf"{AGENT} \({AGENT_NAMES[0]}\): complete in \d+\.\d s — 40 listed, 40 new, "
                r"0 changed, 0 settled, 0 unchanged, 0 failed\n"
                r"  40 loaded of 40 at PolyAI, 0 missing.*\n"
                rf"  {requests} requests \(0 retries\), .* rows\n    conversations +40\n",
                first.stdout,
            )
            assert first.stdout.endswith("polyai.duckdb, dataset polyai\n")
            assert query("SELECT count(*) FROM polyai.conversations") == [(40,)]

            sandbox.requests.clear()
            second = run("load", "--json", **access(url))
            assert second.returncode == 0
            assert second.stderr == ""
            report = json.loads(second.stdout)
            (agent,) = report["agents"]
            assert report["exit_code"] == 0
            assert (agent["status"], agent["listed"], agent["unchanged"]) == ("complete", 40, 40)
            assert (agent["rows"], agent["agent_name"]) == ({}, AGENT_NAMES[0])
            assert sandbox.requests.count(DETAIL) == 0

    @pytest.mark.matrix
    def test_select_loads_these_tables_and_conversations(self, shared_url: str) -> None:
        result = run("load", "--select", "turns,metrics", **access(shared_url))
        assert result.returncode == 0
        # the views need the other tables, which are empty
        tables = query(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' "
            "AND estimated_size > 0 AND NOT starts_with(table_name, '_dlt') ORDER BY ALL"
        )
        names = {table.name for table in name_tables()}
        loaded = {name for (name,) in tables}
        assert loaded - names == {"conversations", "metrics", "sync_runs", "turns"}
        assert names <= loaded
        assert run("status").returncode == 0
        assert run("load", "--select", "metrics", **access(shared_url)).returncode == 0

    @pytest.mark.slow
    def test_stdout_is_json_only_although_requests_fail(self) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=20))
        sandbox.faults.add("status", path="/conversations/", times=3)
        with serve(sandbox) as url:
            result = run("load", "--json", **access(url))
        assert result.returncode == 0
        assert json.loads(result.stdout)["agents"][0]["retries"] == 3
        assert "WARNING retrying" in result.stderr


class TestSomeConversationsFail:
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["status", pytest.param("html", marks=pytest.mark.matrix)])
    def test_the_others_are_loaded_and_the_next_run_retries(self, kind: FaultKind) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=30))
        bad = sorted(list(sandbox.conversation_ids(AGENT))[3:9:2])
        sandbox.faults.add(kind, path="|".join(bad), status=500)
        with serve(sandbox) as url:
            result = run("load", **access(url), POLYAI_MAX_ATTEMPTS="2")
            assert result.returncode == 3
            assert f"{AGENT} ({AGENT_NAMES[0]}): partial in " in result.stdout
            assert "Traceback" not in result.stderr
            for conversation_id in bad:
                assert f"\n  failed {conversation_id}: the API has a problem" in result.stdout
            assert "fetch_failures" in result.stdout
            assert query("SELECT count(*) FROM polyai.conversations") == [(27,)]
            failures = (
                "SELECT conversation_id, attempts, http_status, resolved_at IS NOT NULL "
                "FROM polyai.fetch_failures ORDER BY 1"
            )
            assert query(failures) == [(name, 1, 500, False) for name in bad]

            as_json = run("load", "--json", **access(url), POLYAI_MAX_ATTEMPTS="1")
            assert as_json.returncode == 3
            report = json.loads(as_json.stdout)
            assert report["exit_code"] == 3
            assert sorted(report["agents"][0]["failures"]) == bad

            sandbox.faults.clear()
            assert run("load", **access(url)).returncode == 0
            assert query("SELECT count(*) FROM polyai.conversations") == [(30,)]
            assert query(failures) == [(name, 2, None, True) for name in bad]


class TestRefused:
    """Exit code 1, and one line with advice."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            pytest.param(
                {"POLYAI_API_KEY": "nonsense"},
                r"the API key is not accepted.*HTTP 401.*error_id.*POLYAI_REGION",
                id="wrong key",
            ),
            pytest.param(
                {"POLYAI_API_KEY": "sandbox-key-eu"},
                "another region than us: set POLYAI_REGION to one of eu, uk, studio",
                id="key of another region",
                marks=pytest.mark.matrix,
            ),
            pytest.param(
                {"POLYAI_API_KEY": "sandbox-key-forbidden"},
                "the API key has no permission.*HTTP 403.*administrator",
                id="key without permission",
            ),
            pytest.param(
                {"POLYAI_API_KEY": ""},
                f"api_key of agent {AGENT} is missing.*POLYAI_API_KEY.*secrets.toml",
                id="no key",
            ),
            pytest.param(
                {"POLYAI_AGENT_ID": ""},
                "agent_id is missing",
                id="no agent",
                marks=pytest.mark.matrix,
            ),
            pytest.param(
                {"POLYAI_AGENT_ID": "PROJECT-OTHER"},
                "agent PROJECT-OTHER is not known in region us.*HTTP 404.*POLYAI_AGENT_ID",
                id="unknown agent",
            ),
            pytest.param(
                {"POLYAI_REGION": "mars"},
                "'mars' is not a PolyAI region.*us, eu, uk, studio",
                id="unknown region",
                marks=pytest.mark.matrix,
            ),
            pytest.param(
                {"POLYAI_BASE_URL": "https://no-such-host.invalid"},
                "no-such-host.invalid:443 cannot be resolved",
                id="unknown host",
            ),
            pytest.param(
                {"POLYAI_BASE_URL": "ftp://api.us.poly.ai"},
                "'ftp://api.us.poly.ai' is not a base URL.*https://",
                id="not http",
                marks=pytest.mark.matrix,
            ),
            pytest.param(
                {"DESTINATION__DUCKDB__CREDENTIALS": "missing/polyai.duckdb"},
                "Cannot open file .*missing/polyai.duckdb.*No such file or directory",
                id="database in a missing folder",
            ),
        ],
    )
    def test_wrong_environment(self, shared_url: str, wrong: dict[str, str], message: str) -> None:
        result = run("load", **access(shared_url) | wrong)
        assert result.returncode == 1
        assert re.search(message, error_of(result))

    @pytest.mark.matrix
    def test_closed_port(self, closed_port: int) -> None:
        result = run("load", **access(f"http://127.0.0.1:{closed_port}"))
        assert result.returncode == 1
        assert re.search(f"^error: .*127.0.0.1:{closed_port}.*5 attempts", error_of(result))

    def test_unknown_agent(self, shared_url: str) -> None:
        result = run("load", "--agent", "PROJECT-OTHER", **access(shared_url))
        assert result.returncode == 1
        message = f"error: agent PROJECT-OTHER is not configured.*{AGENT}"
        assert re.search(message, error_of(result))

    @pytest.mark.matrix
    def test_one_of_several_agents(self, shared_url: str) -> None:
        agents = f"{AGENT},PROJECT-OTHER"
        result = run("load", "--json", **access(shared_url, agent_id=agents))
        assert result.returncode == 1
        assert error_of(result).startswith("error: PROJECT-OTHER: agent PROJECT-OTHER is not known")
        loaded, refused = json.loads(result.stdout)["agents"]
        assert (loaded["status"], loaded["new"]) == ("complete", 20)
        assert (refused["status"], refused["fetched"]) == ("failed", 0)
        assert "HTTP 404" in refused["error"]

    def test_folder_instead_of_the_database(self, shared_url: str) -> None:
        Path("polyai.duckdb").mkdir()
        result = run("load", **access(shared_url))
        assert result.returncode == 1
        assert "polyai.duckdb" in error_of(result)

    def test_other_file_instead_of_the_database(self, shared_url: str) -> None:
        Path("polyai.duckdb").write_text("this is not a database\n" * 500)
        result = run("load", **access(shared_url))
        assert result.returncode == 1
        assert "not a valid DuckDB database file" in error_of(result)

    @pytest.mark.slow
    def test_database_locked_by_another_process(self, shared_url: str) -> None:
        hold = "import duckdb, sys; c = duckdb.connect('polyai.duckdb'); print(1, flush=True)"
        with subprocess.Popen(
            [sys.executable, "-c", f"{hold}; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as holder:
            assert holder.stdout
            holder.stdout.readline()
            result = run("load", **access(shared_url))
            holder.communicate()
        assert result.returncode == 1
        assert re.search(r"polyai.duckdb.*lock is held in .*PID \d+", error_of(result))


class TestUsage:
    """Exit code 2, as for any command."""

    def test_unknown_table_names_the_known_ones(self, shared_url: str) -> None:
        result = run("load", "--select", "turns,nope", **access(shared_url))
        assert result.returncode == 2
        assert re.search(
            r"table nope\b.*conversations\b.*\bturns\b", " ".join(result.stderr.split())
        )
        assert not Path("polyai.duckdb").exists()

    def test_unknown_option(self) -> None:
        result = run("load", "--nope")
        assert result.returncode == 2
        assert "No such option: --nope" in result.stderr

    def test_unknown_command(self) -> None:
        assert run("nope").returncode == 2


@pytest.mark.process
class TestSignals:
    """Commit of what was read; the next run continues from there."""

    @pytest.mark.slow
    @pytest.mark.parametrize("number", SIGNALS)
    def test_while_details_are_read(self, number: signal.Signals) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=200, delay_seconds=0.1))
        with serve(sandbox) as url:
            process = start("load", **access(url))
            wait_until(lambda: sandbox.requests.count(DETAIL) >= 30)
            process.send_signal(number)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 130
        assert f"WARNING {number.name}: " in err
        assert err.splitlines()[-1].startswith("interrupted: ")
        assert f"{AGENT}: interrupted in " in out
        self.check_next_run(sandbox)

    @pytest.mark.matrix
    def test_while_chunks_are_committed(self) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=200))
        with serve(sandbox) as url:
            process = start("load", "--chunk-size", "10", **access(url))
            # the run then only has to normalize and load
            wait_until(lambda: sandbox.requests.count(DETAIL) == 200)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 130, err
        assert "error" not in err
        self.check_next_run(sandbox)

    @pytest.mark.matrix
    def test_a_second_signal_exits_at_once(self) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=20))
        sandbox.faults.add("delay", path="/conversations/", seconds=50)
        with serve(sandbox) as url:
            process = start("load", **access(url))
            wait_until(lambda: sandbox.faults.hits > 0)
            process.send_signal(signal.SIGINT)
            assert process.stderr
            assert "WARNING SIGINT: " in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=10)
        assert process.returncode == 130

    def check_next_run(self, sandbox: Sandbox) -> None:
        ((kept,),) = query("SELECT count(*) FROM polyai.conversations")
        assert isinstance(kept, int)
        assert 0 < kept < 200
        sandbox.requests.clear()
        with serve(sandbox) as url:
            result = run("load", **access(url))
        assert result.returncode == 0
        assert f"{200 - kept} new" in result.stdout
        assert query("SELECT count(*), count(DISTINCT conversation_id) FROM polyai.turns") == query(
            "SELECT sum(num_turns), count(*) FILTER (num_turns > 0) FROM polyai.conversations"
        )


@pytest.mark.process
class TestTerminal:
    @pytest.mark.slow
    @pytest.mark.parametrize("columns", [80, pytest.param(160, marks=pytest.mark.matrix)])
    def test_progress_bar(self, columns: int) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=150, delay_seconds=0.05))
        sandbox.faults.add("status", path="/conversations/", times=2)
        with serve(sandbox) as url:
            code, shown = run_in_terminal(columns, "load", **access(url))
        assert code == 0
        assert re.search(rf"{AGENT} ━+ +\d+/150 \d:\d\d:\d\d [-\d:]+ left", shown)
        assert re.search(r"\n  150 listed · [1-9][\d,]* rows · \d+/s · 2 retries", shown)
        # a log line is printed above the bar
        assert re.search(r"(^|[\r\n])\d{4}-\d\d-\d\d [\d:,]+ WARNING retrying", shown)
        assert f"{AGENT} ({AGENT_NAMES[0]}): complete in " in shown.replace("\r\n", " ")

    @pytest.mark.matrix
    def test_json_is_separate_from_the_bar(self) -> None:
        with serve(Sandbox(SandboxConfig(conversations=20))) as url:
            code, shown = run_in_terminal(80, "load", "--json", **access(url))
        assert code == 0
        assert json.loads(shown[shown.index("{") :])["exit_code"] == 0


@pytest.mark.process
class TestSandboxCommand:
    @pytest.mark.parametrize("number", SIGNALS)
    def test_serves_until_a_signal(self, number: signal.Signals) -> None:
        process = start("sandbox", "--port", "0", "--conversations", "12")
        assert process.stdout
        first, exports, load = (process.stdout.readline() for _ in range(3))
        assert first.startswith("sandbox at http://127.0.0.1:")
        variables = dict(part.split("=") for part in exports.split()[1:])
        assert variables == access(variables["POLYAI_BASE_URL"])
        assert load == "  polyai-warehouse load\n"
        assert "The account is ws-sandbox" in process.stdout.readline()
        path = f"/v1/agents/{AGENT}/conversations?limit=1"
        headers = {"X-API-KEY": variables["POLYAI_API_KEY"]}
        answer = requests.get(variables["POLYAI_BASE_URL"] + path, headers=headers, timeout=10)
        assert answer.json()["count"] == 12
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        # stopping a server is not a failure
        assert process.returncode == 0
        assert out == ""
        assert err.splitlines()[-1].split(" WARNING ")[1].startswith(f"{number.name}: ")

    def test_used_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            result = run("sandbox", "--port", port)
        assert result.returncode == 1
        assert error_of(result).startswith(f"error: port {port} cannot be served: ")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_an_example(command: str) -> None:
    result = run(*filter(None, [command]), "--help")
    assert result.returncode == 0
    assert f"Example: polyai-warehouse {command}" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_of_commands_has_the_first_line_of_each_help(command: str) -> None:
    help_ = imported(command).help
    assert help_.splitlines()[0] == COMMANDS[command].summary


def test_version() -> None:
    result = run("--version")
    assert result.returncode == 0
    assert re.fullmatch(r"polyai-warehouse \d+\.\d+\.\d+.*\n", result.stdout)


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_neither_dlt_nor_arrow(option: str) -> None:
    code = (
        "import sys\nfrom polyai.cli.app import app\ntry:\n    app()\nfinally:\n"
        "    sys.stderr.write(' '.join(sorted({'dlt', 'duckdb', 'pyarrow'} & sys.modules.keys())))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, option], capture_output=True, text=True, check=True
    )
    assert result.stderr == ""


@pytest.mark.process
def test_modules_of_a_command_are_excluded_from_garbage_collection() -> None:
    code = (
        "import atexit, gc, sys\n"
        "from polyai.cli.app import main\n"
        "atexit.register(lambda: print(gc.get_freeze_count() > 100_000, gc.isenabled()))\n"
        "sys.argv = ['polyai-warehouse', 'load']\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # it fails for want of settings, after the import
    assert result.stdout == "True True\n", result.stderr
