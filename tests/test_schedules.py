"""Files of `pipelines/schedules`, read by their own tools, with their shell commands run."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import yaml
from croniter import croniter  # type: ignore[import-untyped]
from filelock import FileLock

import polyai
from command import AGENT, KEY, TIME_LIMIT_SECONDS, query
from optional import needs_hatchling, needs_schemas
from polyai import resolve
from polyai.cli.commands import COMMANDS, imported
from polyai.config.agent_tables import AGENT_NAMES
from polyai.config.settings import Settings
from polyai.console.exit_codes import ExitCode
from polyai.sandbox import Sandbox, SandboxConfig, serve, texts
from postgres_server import binaries, postgres

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "pipelines" / "schedules"
FILES = sorted(FOLDER.iterdir())
README = (FOLDER / "README.md").read_text(encoding="utf-8")

QUIET = (0, 75)
LOUD = (1, 2, 3)
RHYTHM = {
    "load": timedelta(minutes=15),
    "nightly": timedelta(days=1),
    "weekly": timedelta(days=7),
    "verify": timedelta(days=7),
    "status": timedelta(hours=1),
}


def text_of(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def gaps(cron: str) -> set[timedelta]:
    """Returns the times between the runs of a cron expression."""
    times = croniter(cron, datetime(2026, 11, 2, tzinfo=UTC))
    runs = [times.get_next(datetime) for _ in range(10)]
    return {later - earlier for earlier, later in pairwise(runs)}


def script(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]), encoding="utf-8")
    path.chmod(0o755)


def the_command(path: Path) -> None:
    """Installs the command at a path, as pip would."""
    script(
        path,
        f"export PYTHONPATH={shlex.quote(str(Path(polyai.__file__).parents[1]))}",
        f"export DLT_DATA_DIR={shlex.quote(os.environ['DLT_DATA_DIR'])}",
        f'exec {shlex.quote(sys.executable)} -m polyai "$@"',
    )


def a_stand_in(path: Path, code: int) -> None:
    """Installs a stand-in that prints its arguments and exits with this code."""
    script(path, 'echo "arguments: $*"', "echo line on stderr >&2", f"exit {code}")


# calls of the command in the files


def calls() -> Iterator[tuple[str, list[str]]]:
    """Yields file and words of each call of the command."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for call in re.findall(
            r"polyai-warehouse ((?:load|status|recordings verify)\b[^;)|&>`\n$]*)", text
        ):
            yield path.name, shlex.split(call)
    for call in environment_of_units().values():
        yield "polyai@.service", shlex.split(call)
    for call in re.findall(r'command="(.*)"', text_of("github-actions.yml")):
        yield "github-actions.yml", shlex.split(call)
    for job in cron_jobs():
        yield "kubernetes-cronjob.yaml", container_of(job)["args"]
    yield "Containerfile", yaml.safe_load(instruction("CMD"))


def environment_of_units() -> dict[str, str]:
    """Returns the arguments of each instance of the unit."""
    return dict(
        assignment.split("=", 1)
        for line in values("polyai@.service", "Environment")
        for assignment in shlex.split(line)
    )


def values(unit: str, name: str) -> list[str]:
    """Returns the values of a setting of a unit, in order."""
    return re.findall(rf"^{name}=(.*)$", text_of(unit), re.MULTILINE)


def test_every_call_is_valid() -> None:
    seen = list(calls())
    assert {file for file, _ in seen} >= {
        "README.md", "crontab", "polyai@.service", "github-actions.yml", "kubernetes-cronjob.yaml",
    }  # fmt: skip
    for file, (name, *arguments) in seen:
        assert name in COMMANDS, f"{file}: {name}"
        command = imported(name)
        if name == "recordings":
            command = command.commands[arguments.pop(0)]
        context = command.make_context(f"{file}: {name}", list(arguments))
        given = {
            "lookback": context.params.get("lookback"),
            "lock_wait": context.params.get("wait"),
        }
        resolve(agent_id=AGENT, api_key=KEY, **given)


def test_files_contain_no_secret_and_no_local_path() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for found in re.findall(r"(?<![\w.:/*}])(/[a-z]+)/", text):
            assert found in ("/opt", "/etc", "/var", "/usr", "/bin", "/tmp"), path.name  # noqa: S108
        for name, value in re.findall(
            r"(\w*(?:KEY|CREDENTIALS|SECRET))[ \t]*[:=][ \t]*(\S*)", text
        ):
            is_named = value == "${{" or (path.suffix == ".example" and "password@" in value)
            assert not value or is_named, f"{path.name}: {name}"


def test_all_tools_read_the_same_settings() -> None:
    example = text_of("polyai.env.example")
    # docker and kubectl keep quotes, sh and systemd remove them: there are none
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", example, re.MULTILINE)
    assert all(re.fullmatch(r"[^\s'\"$&;#\\]*", value) for _, value in lines)
    known = {*AGENT_NAMES, *(field.name for field in fields_of(Settings))}
    assert {name.removeprefix("POLYAI_").lower() for name, _ in lines if "POLYAI" in name} <= known
    Path("all.env").write_text(re.sub(r"^#(?=[A-Z])", "", example, flags=re.MULTILINE))
    shown = subprocess.run(
        ["sh", "-c", "set -a; . ./all.env; env"], capture_output=True, text=True, check=True
    )
    assert {f"{name}={value}" for name, value in lines} <= set(shown.stdout.splitlines())


class TestReadme:
    def test_every_file_is_listed(self) -> None:
        linked = set(re.findall(r"\]\(([^)]+)\)", README))
        assert all((FOLDER / target).exists() for target in linked)
        timers = {path.name for path in FILES if path.suffix == ".timer"}
        assert linked | timers | {"README.md"} == {path.name for path in FILES}
        assert all(timer in README for timer in timers)
        for pattern in re.findall(r"pipelines/schedules/\S+", README):
            assert list(ROOT.glob(pattern)), pattern

    def test_every_exit_code_is_explained(self) -> None:
        table = re.findall(r"^\| (\d+(?:, \d+)*) \|", README, re.MULTILINE)
        assert sorted(int(code) for row in table for code in row.split(",")) == sorted(ExitCode)

    @pytest.mark.parametrize(
        ("probe", "outcomes"),
        [
            pytest.param("curl", ["0 pinged", "1 ", "75 "], id="dead man's switch"),
            pytest.param("exit 2", ["0 ", "2 ", "3 "], id="nagios"),
            pytest.param(
                "polyai.prom",
                [f"0 polyai_status_exit_code {code}" for code in (0, 1, 75)],
                id="prometheus",
            ),
        ],
    )
    def test_probes(self, probe: str, outcomes: list[str]) -> None:
        found = re.findall(r"`(polyai-warehouse status [^`]+)`", " ".join(README.split()))
        (snippet,) = [snippet for snippet in found if probe in snippet]
        script(Path("bin/curl"), "echo pinged")
        for code, expected in zip((0, 1, 75), outcomes):
            # the monitor reads the exit code, not the output
            script(Path("bin/polyai-warehouse"), "echo fresh or not >&2", f"exit {code}")
            done = subprocess.run(
                ["sh", "-c", snippet],
                env={"PATH": f"{Path('bin').resolve()}:/usr/bin:/bin"},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                check=False,
            )
            written = Path("polyai.prom")
            shown = written.read_text() if written.exists() else done.stdout
            assert f"{done.returncode} {shown.strip()}" == expected


# cron


@dataclass(frozen=True)
class Line:
    """Line of the crontab."""

    when: str
    shell: str

    @property
    def name(self) -> str:
        """Name of the same job elsewhere."""
        marks = {" status ": "status", "--lookback": "nightly", "--full": "weekly"}
        marks |= {" verify ": "verify"}
        return next((name for mark, name in marks.items() if mark in self.shell), "load")


def crontab() -> tuple[dict[str, str], list[Line]]:
    """Parses variables and lines, those that are switched off included."""
    text = re.sub(r"^#(?=\d)", "", text_of("crontab"), flags=re.MULTILINE)
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    variables = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]+=", line))
    jobs = [line.split(maxsplit=5) for line in lines if not re.match(r"[A-Z]+=", line)]
    return variables, [Line(" ".join(words[:5]), words[5]) for words in jobs]


def line_of_readme() -> Line:
    """Returns the line that the guide to operations shows."""
    readme = (ROOT / "pipelines" / "operations.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```crontab\n(.*)\n```$", readme, re.MULTILINE)
    return Line(*re.split(r" {2,}", block, maxsplit=1))


LINES = [pytest.param(line, id=line.name) for line in crontab()[1]]
LOADS = [pytest.param(line, id=line.name) for line in crontab()[1] if line.name != "status"]


@pytest.fixture
def machine(own_folder: Path) -> Path:
    """Folders of a machine, inside the test's: of the command, the settings and the warehouse."""
    for name in ("opt", "etc", "var"):
        (own_folder / name).mkdir()
    the_command(own_folder / "opt/bin/polyai-warehouse")
    return own_folder


def write_settings(machine: Path, base_url: str, api_key: str = KEY) -> None:
    example = text_of("polyai.env.example")
    settings = example.replace("_KEY=", f"_KEY={api_key}").replace("PROJECT-1234", AGENT)
    more = f"POLYAI_BASE_URL={base_url}\nPOLYAI_MAX_ATTEMPTS=1\n"
    (machine / "etc/polyai.env").write_text(settings + more, encoding="utf-8")


def run_line(machine: Path, line: Line) -> subprocess.CompletedProcess[str]:
    """Runs a line as cron does: with SHELL, in HOME, with the crontab's variables only."""
    moved = {"/opt/polyai": "opt", "/etc/polyai": "etc", "/var/lib/polyai": "var"}

    def here(text: str) -> str:
        for there, name in moved.items():
            text = text.replace(there, str(machine / name))
        return text

    variables = {name: here(value) for name, value in crontab()[0].items()}
    # cron would end the command there
    assert "%" not in line.shell
    return subprocess.run(
        [variables["SHELL"], "-c", here(line.shell)],
        cwd=variables["HOME"],
        env=variables,
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT_SECONDS,
        check=False,
    )


class TestCron:
    @pytest.mark.parametrize("line", LINES)
    def test_rhythm(self, line: Line) -> None:
        assert gaps(line.when) == {RHYTHM[line.name]}

    def test_all_jobs_exist(self) -> None:
        assert [line.name for line in crontab()[1]] == list(RHYTHM)
        assert "@" in crontab()[0]["MAILTO"]

    @pytest.mark.parametrize("code", [*QUIET, *LOUD])
    @pytest.mark.parametrize("line", LOADS)
    def test_only_actionable_failures_are_mailed(
        self, line: Line, code: int, machine: Path
    ) -> None:
        a_stand_in(machine / "opt/bin/polyai-warehouse", code)
        write_settings(machine, "http://127.0.0.1:9")
        done = run_line(machine, line)
        assert not done.stderr
        assert ("line on stderr" in done.stdout) == (code in LOUD)
        assert bool(done.stdout) == (code in LOUD)
        log = machine / "var/load.log"
        time, *lines = log.read_text().splitlines()
        assert str(datetime.now(tz=UTC).year) in time
        assert len(lines) == 2
        assert stat.S_IMODE(log.stat().st_mode) == 0o600

    @pytest.mark.parametrize("code", [*QUIET, *LOUD])
    def test_the_line_in_the_guide_does_the_same(self, code: int, machine: Path) -> None:
        a_stand_in(machine / "opt/bin/polyai-warehouse", code)
        write_settings(machine, "http://127.0.0.1:9")
        line = line_of_readme()
        done = run_line(machine, line)
        assert gaps(line.when) == {RHYTHM["load"]}
        assert not done.stderr
        assert ("line on stderr" in done.stdout) == (code in LOUD)

    @pytest.mark.parametrize("code", [*QUIET, *LOUD])
    def test_3_can_be_made_quiet(self, code: int, machine: Path) -> None:
        asked, instead = "[ $? -eq 75 ]", "[ $? -ge 3 ]"
        assert all(f"`{condition}`" in README for condition in (instead, asked))
        a_stand_in(machine / "opt/bin/polyai-warehouse", code)
        write_settings(machine, "http://127.0.0.1:9")
        load = crontab()[1][0]
        done = run_line(machine, Line(load.when, load.shell.replace(asked, instead)))
        assert bool(done.stdout) == (code in (1, 2))

    @pytest.mark.parametrize("code", [0, 1, 75])
    def test_a_stale_warehouse_is_mailed(self, code: int, machine: Path) -> None:
        a_stand_in(machine / "opt/bin/polyai-warehouse", code)
        write_settings(machine, "http://127.0.0.1:9")
        done = run_line(machine, crontab()[1][-1])
        assert bool(done.stdout) == (code == 1)

    @pytest.mark.parametrize("line", LINES)
    def test_missing_settings_are_mailed(self, line: Line, machine: Path) -> None:
        done = run_line(machine, line)
        assert "polyai.env" in done.stderr

    @pytest.mark.slow
    def test_one_day(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=20, now=datetime.now(tz=UTC)))
        load, nightly, *_, status = crontab()[1]
        monkeypatch.chdir(machine / "var")
        with serve(sandbox) as base_url:
            write_settings(machine, base_url)
            for line in (nightly, status):
                done = run_line(machine, line)
                assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), line
            assert query("SELECT count(*) FROM polyai.conversations") == [(20,)]
            before = Path("load.log").stat().st_size

            with FileLock(Path(".dlt/pipelines/polyai.lock")):
                assert (done := run_line(machine, load)).stdout + done.stderr == ""
            assert Path("load.log").stat().st_size > before

            held = set(sandbox.conversation_ids(AGENT))
            sandbox.advance(timedelta(hours=1), arrivals=2)
            bad, _ = set(sandbox.conversation_ids(AGENT)) - held
            sandbox.faults.add("status", path=bad, status=500)
            done = run_line(machine, load)
            assert f"{AGENT} ({texts.AGENT_NAMES[0]}): partial" in done.stdout

            write_settings(machine, base_url, api_key="sandbox-key-eu")
            done = run_line(machine, load)
            assert "error: the API key is not accepted" in done.stdout
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path().iterdir()}
        assert {name for name, mode in modes.items() if mode & 0o077} == set()
        assert modes.keys() >= {"polyai.duckdb", "load.log", "status.txt", ".dlt"}


# systemd

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and not os.environ.get("CI"),
    reason="needs systemd-analyze: install the package systemd",
)
UNIT = "polyai@.service"
TIMERS = [path.name for path in FILES if path.suffix == ".timer"]


def analyze(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *map(str, arguments)],
        env={**os.environ, "TZ": "UTC", "SYSTEMD_COLORS": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


class TestSystemd:
    @pytest.fixture
    def units(self, own_folder: Path) -> Path:
        """The units, with a command that exists on this machine."""
        folder = own_folder / "units"
        folder.mkdir()
        for path in FILES:
            if path.suffix in (".service", ".timer"):
                text = path.read_text(encoding="utf-8")
                here = text.replace("/opt/polyai/bin/polyai-warehouse", "/bin/true")
                (folder / path.name).write_text(here, encoding="utf-8")
        return folder

    def complaints(self, units: Path) -> list[str]:
        """Returns systemd's messages about the units."""
        names = [*TIMERS, "polyai@load.service", "polyai-alert@polyai@load.service.service"]
        done = analyze(
            "verify", "--man=no", *(units / name for name in names), SYSTEMD_UNIT_PATH=f"{units}:"
        )
        # not those about other units of the machine
        return [line for line in done.stdout.splitlines() if "polyai" in line]

    @needs_systemd
    def test_units_are_well_formed(self, units: Path) -> None:
        assert self.complaints(units) == []

    @needs_systemd
    @pytest.mark.parametrize(
        ("right", "wrong"),
        [
            pytest.param("NoNewPrivileges=", "NoNewPrivilege=", id="name"),
            pytest.param("KillMode=mixed", "KillMode=some", id="value"),
            pytest.param("/bin/true", "/bin/no-such-command", id="command"),
        ],
    )
    def test_mistakes_are_found(self, right: str, wrong: str, units: Path) -> None:
        text = (units / UNIT).read_text(encoding="utf-8")
        assert right in text
        (units / UNIT).write_text(text.replace(right, wrong), encoding="utf-8")
        assert self.complaints(units)

    @needs_systemd
    def test_the_service_is_sandboxed(self, units: Path) -> None:
        done = analyze("security", "--offline=true", "--threshold=20", units / UNIT)
        assert done.returncode == 0, done.stdout

    @needs_systemd
    @pytest.mark.parametrize("timer", TIMERS)
    def test_rhythm(self, timer: str) -> None:
        (when,) = values(timer, "OnCalendar")
        done = analyze("calendar", "--iterations=5", "--base-time=2026-11-02 00:00:00 UTC", when)
        found = re.findall(r": \w+ (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", done.stdout)
        runs = [datetime.fromisoformat(time) for time in found]
        assert len(runs) == 5, done.stdout
        name = timer.removeprefix("polyai@").removesuffix(".timer")
        assert {later - earlier for earlier, later in pairwise(runs)} == {RHYTHM[name]}

    def test_each_timer_has_an_instance_and_each_instance_a_timer(self) -> None:
        assert {f"polyai@{name}.timer" for name in environment_of_units()} == set(TIMERS)
        assert environment_of_units().keys() == RHYTHM.keys()
        (command,) = values(UNIT, "ExecStart")
        assert command.split()[1:] == ["$%i"]

    def test_exit_codes_without_an_action_raise_no_alert(self) -> None:
        (codes,) = values(UNIT, "SuccessExitStatus")
        quiet = {int(code) for code in codes.split()}
        assert quiet >= set(QUIET) - {0}
        assert not quiet & set(LOUD)
        (alert,) = values(UNIT, "OnFailure")
        assert (FOLDER / alert.replace("%n.service", ".service")).exists()


# GitHub Actions


class TestGitHubActions:
    workflow: Mapping[Any, Any] = yaml.safe_load(text_of("github-actions.yml"))
    # yaml reads the word `on` as true
    triggers: Mapping[str, Any] = workflow[True]
    job: Mapping[str, Any] = workflow["jobs"]["load"]

    def step(self, name: str) -> Mapping[str, Any]:
        (step,) = [step for step in self.job["steps"] if step.get("name") == name]
        return dict(step)

    def run_step(self, runner: Path, rhythm: str, **known: str) -> subprocess.CompletedProcess[str]:
        """Runs the load's shell as a runner does, with the expressions replaced by values."""
        step = self.step("load")
        contexts = {"inputs.rhythm || github.event.schedule": rhythm, **known}

        def filled(value: str) -> str:
            expression = re.fullmatch(r"\$\{\{ (.*) \}\}", value)
            return contexts.get(expression[1], "") if expression else value

        (runner / "step.sh").write_text(step["run"], encoding="utf-8")
        return subprocess.run(
            ["bash", "-e", "step.sh"],
            cwd=runner,
            env={"PATH": "/usr/bin:/bin"} | {k: filled(v) for k, v in step["env"].items()} | known,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT_SECONDS,
            check=False,
        )

    @needs_schemas
    @pytest.mark.parametrize(
        "schema", ["vendor.github-workflows", "custom.github-workflows-require-timeout"]
    )
    def test_it_is_a_workflow(self, schema: str) -> None:
        path = FOLDER / "github-actions.yml"
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout

    def test_only_the_load_sees_secrets_and_nothing_is_uploaded(self) -> None:
        assert self.workflow["permissions"] == {"contents": "read"}
        assert [step["uses"] for step in self.job["steps"] if "uses" in step] == [
            "actions/checkout@08c6903cd8c0fde910a37f88322edcfb5dd907a8"
        ]
        others = [step for step in self.job["steps"] if step.get("name") != "load"]
        assert "secrets." not in str(others)
        # an expression in a script could inject shell code
        assert not any("${{" in step.get("run", "") for step in self.job["steps"])
        assert self.step("load")["env"]["DESTINATION_TYPE"] != "duckdb"

    def test_runs_of_different_rhythms_do_not_cancel_each_other(self) -> None:
        concurrency = self.workflow["concurrency"]
        assert "github.event.schedule" in concurrency["group"]
        assert concurrency["cancel-in-progress"] is False

    def test_installed_extras_exist(self) -> None:
        (extras,) = re.findall(r"'\.\[(.*)\]'", self.step("install")["run"])
        assert set(extras.split(",")) <= extras_of_project()

    @pytest.mark.parametrize(
        ("place", "arguments"),
        [
            pytest.param(0, "load", id="new"),
            pytest.param(1, "load --lookback 30d --wait 30m", id="nightly"),
            pytest.param(2, "load --full --wait 2h", id="weekly"),
            pytest.param(3, "recordings verify --wait 2h", id="verify"),
        ],
    )
    def test_arguments_of_each_rhythm(self, place: int, arguments: str, own_folder: Path) -> None:
        cron = re.findall(r'- cron: "(.*)"', text_of("github-actions.yml"))[place]
        by_hand = self.triggers["workflow_dispatch"]["inputs"]["rhythm"]["options"][place]
        gap = [timedelta(hours=1), RHYTHM["nightly"], RHYTHM["weekly"], RHYTHM["verify"]][place]
        assert gaps(cron) == {gap}
        a_stand_in(own_folder / ".venv/bin/polyai-warehouse", 0)
        for rhythm in (cron, by_hand):
            done = self.run_step(own_folder, rhythm)
            assert done.stdout.strip() == f"arguments: {arguments}"

    @pytest.mark.parametrize("code", [*QUIET, *LOUD])
    def test_the_job_fails_only_if_an_action_is_needed(self, code: int, own_folder: Path) -> None:
        a_stand_in(own_folder / ".venv/bin/polyai-warehouse", code)
        done = self.run_step(own_folder, "nightly")
        assert done.returncode == (code if code in LOUD else 0)
        assert ("::notice::" in done.stdout) == (code == 75)

    @pytest.mark.matrix
    @pytest.mark.skipif(
        binaries() is None and not os.environ.get("CI"),
        reason="needs a PostgreSQL server: install the package postgresql",
    )
    def test_each_runner_continues_from_the_warehouse(self, own_folder: Path) -> None:
        sandbox = Sandbox(SandboxConfig(conversations=20))
        with serve(sandbox) as base_url, postgres() as database:
            known = {
                "secrets.POLYAI_API_KEY": KEY,
                "secrets.DESTINATION__POSTGRES__CREDENTIALS": database,
                "vars.POLYAI_AGENT_ID": AGENT,
                "POLYAI_BASE_URL": base_url,
            }
            outputs = []
            for number in (1, 2):
                runner = own_folder / f"runner-{number}"
                the_command(runner / ".venv/bin/polyai-warehouse")
                done = self.run_step(runner, "17 * * * *", **known)
                assert done.returncode == 0, done.stderr
                outputs.append(done.stdout)
                sandbox.advance(timedelta(minutes=1), arrivals=1)
            with psycopg2.connect(database) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT count(*) FROM polyai.conversations")
                assert cursor.fetchone() == (21,)
        assert [re.findall(r"(\d+) new", output) for output in outputs] == [["20"], ["1"]]
        assert all(database not in output and KEY not in output for output in outputs)


# containers


@cache
def instructions() -> list[tuple[str, str]]:
    """Returns the instructions of the Containerfile, in order."""
    lines = text_of("Containerfile").replace("\\\n", " ").splitlines()
    words = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(name, rest) for name, rest in words]


def instruction(name: str) -> str:
    """Returns the last instruction of that name, which is the effective one."""
    return [rest for found, rest in instructions() if found == name][-1]


def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])


def extras_of_project() -> set[str]:
    return set(project()["optional-dependencies"])


class TestContainerfile:
    def test_instructions(self) -> None:
        assert {name for name, _ in instructions()} == {
            "FROM", "ARG", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "STOPSIGNAL", "ENTRYPOINT",
            "CMD",
        }  # fmt: skip
        assert instruction("FROM") == "python:3.13-slim"
        assert "Programming Language :: Python :: 3.13" in project()["classifiers"]
        assert set(instruction("ARG").removeprefix("EXTRAS=").split(",")) <= extras_of_project()

    def test_the_command_runs_as_an_unprivileged_user(self) -> None:
        assert yaml.safe_load(instruction("ENTRYPOINT")) == [*project()["scripts"]]
        assert int(instruction("USER")) > 0
        assert instruction("WORKDIR") == instruction("VOLUME")
        assert instruction("STOPSIGNAL") == "SIGTERM"
        users = [place for place, (name, _) in enumerate(instructions()) if name == "USER"]
        installs = [place for place, (name, _) in enumerate(instructions()) if name == "RUN"]
        assert max(installs) < min(users)

    @pytest.mark.matrix
    @needs_hatchling
    def test_the_copied_files_can_be_installed(self, own_folder: Path) -> None:
        context = own_folder / "context"
        for words in (rest.split() for name, rest in instructions() if name == "COPY"):
            *sources, target = words
            for source in sources:
                place = context / target / (source if target == "./" else "")
                place.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place)
                else:
                    shutil.copy(ROOT / source, place)
        site = own_folder / "site"
        # offline: the dependencies are installed, and the build is not isolated
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
             "--no-build-isolation", "--target", site, context],
            check=True,
        )  # fmt: skip
        assert [path.name for path in (site / "bin").iterdir()] == [*project()["scripts"]]
        packages = [ROOT / "sources" / "polyai", site / "polyai"]
        here, there = ({p.relative_to(top) for p in top.rglob("*.py")} for top in packages)
        assert there == here


# Kubernetes


def cron_jobs() -> list[dict[str, Any]]:
    """Returns the jobs of the manifest, with its anchors resolved."""
    items: list[dict[str, Any]] = yaml.safe_load(text_of("kubernetes-cronjob.yaml"))["items"]
    return items


def pod_of(job: Mapping[str, Any]) -> dict[str, Any]:
    return dict(job["spec"]["jobTemplate"]["spec"]["template"]["spec"])


def container_of(job: Mapping[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(job)["containers"]
    return dict(container)


class TestKubernetes:
    def test_rhythm(self) -> None:
        assert [job["metadata"]["name"] for job in cron_jobs()] == [
            "polyai-load", "polyai-nightly", "polyai-weekly", "polyai-verify",
        ]  # fmt: skip
        for job in cron_jobs():
            name = job["metadata"]["name"].removeprefix("polyai-")
            assert gaps(job["spec"]["schedule"]) == {RHYTHM[name]}
            # without recordings it would fail
            assert job["spec"].get("suspend", False) == (name == "verify")

    @pytest.mark.parametrize("job", cron_jobs(), ids=lambda job: str(job["metadata"]["name"]))
    def test_each_job_is_complete(self, job: dict[str, Any]) -> None:
        assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        pod, container = pod_of(job), container_of(job)
        assert pod["restartPolicy"] == "Never"
        assert pod["terminationGracePeriodSeconds"] >= 300
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["envFrom"] == [{"secretRef": {"name": "polyai"}}]
        assert "env" not in container
        # the root is read-only: the command and dlt need writable mounts
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert mounted.keys() == {instruction("WORKDIR"), "/tmp"}  # noqa: S108
        assert set(mounted.values()) == {volume["name"] for volume in pod["volumes"]}

    def test_only_a_lock_and_a_lost_node_are_retried(self) -> None:
        for job in cron_jobs():
            spec = job["spec"]["jobTemplate"]["spec"]
            assert spec["backoffLimit"] == 0
            rules = spec["podFailurePolicy"]["rules"]
            assert {rule["action"] for rule in rules} == {"Ignore"}
            (codes,) = [rule["onExitCodes"] for rule in rules if "onExitCodes" in rule]
            assert codes == {"operator": "In", "values": [75]}
