"""`dlt init polyai DESTINATION --location REPOSITORY`: copied files, and the example's run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import duckdb
import pytest

from polyai.sandbox import Sandbox, SandboxConfig, serve

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent
AGENT = "PROJECT-BOOKINGS"

RUN = """
import json, runpy, polyai
runpy.run_path("polyai_pipeline.py", run_name="__main__")
from polyai_pipeline import load_turns
load_turns()
print(json.dumps(polyai.__file__))
"""


def run(*command: str, folder: Path, **environment: str) -> str:
    """Output of a new process without this repository's path and git state."""
    outside = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONPATH" and not name.startswith("GIT_")
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=outside | {"GIT_CONFIG_GLOBAL": os.devnull} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository of the sources: dlt copies committed files."""
    folder = tmp_path / "repository"
    shutil.copytree(
        ROOT / "sources", folder / "sources", ignore=shutil.ignore_patterns("__pycache__")
    )
    run("git", "init", "--quiet", folder=folder)
    run("git", "add", ".", folder=folder)
    author = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    run("git", *author, "commit", "--quiet", "--message", "sources", folder=folder)
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def init(destination: str, repository: Path, project: Path) -> str:
    command = (sys.executable, "-m", "dlt", "--non-interactive", "init", "polyai", destination)
    return run(*command, "--location", str(repository), folder=project)


@pytest.mark.slow
@pytest.mark.parametrize(
    "destination", ["duckdb", pytest.param("postgres", marks=pytest.mark.slow)]
)
def test_init_copies_the_package_and_the_example(
    destination: str, repository: Path, project: Path
) -> None:
    output = init(destination, repository, project)
    assert "Verified source polyai was added to your project" in output
    original = repository / "sources" / "polyai"
    assert {path.relative_to(project) for path in (project / "polyai").rglob("*.*")} == {
        path.relative_to(original.parent)
        for path in original.rglob("*.*")
        # dlt keeps the requirements at the project's root
        if path.suffix != ".pyc" and path.name != "requirements.txt"
    }
    example = (project / "polyai_pipeline.py").read_text(encoding="utf-8")
    assert f"destination='{destination}'" in example
    requirements = (project / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert requirements[0] == f"dlt[{destination}]<1.32,>=1.31"
    assert len(requirements) == len(dependencies())


@pytest.mark.matrix
def test_the_example_runs_with_only_the_copied_package(repository: Path, project: Path) -> None:
    init("duckdb", repository, project)
    sandbox = Sandbox(SandboxConfig(conversations=30, inventions=True))
    with serve(sandbox) as base_url:
        output = run(
            sys.executable,
            "-c",
            RUN,
            folder=project,
            SOURCES__POLYAI__AGENT_ID=AGENT,
            SOURCES__POLYAI__BASE_URL=base_url,
            POLYAI_API_KEY="sandbox-key",
        )
    package = Path(json.loads(output.splitlines()[-1]))
    assert package == project / "polyai" / "__init__.py"
    assert "sandbox-key" not in output
    assert counts(project / "polyai_pipeline.duckdb") == counts(project / "polyai_turns.duckdb")
    conversations, turns = counts(project / "polyai_pipeline.duckdb")
    assert conversations == len(list(sandbox.truth(AGENT)))
    assert turns > conversations


def counts(database: Path) -> tuple[int, int]:
    """Numbers of conversations and turns, under the documented names."""
    with duckdb.connect(str(database), read_only=True) as connection:
        (row,) = connection.execute(
            "SELECT (SELECT count(*) FROM polyai.conversations), "
            "(SELECT count(*) FROM polyai.turns)"
        ).fetchall()
    return row[0], row[1]


def dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return list(project["dependencies"])


def test_requirements_are_the_dependencies_of_pyproject() -> None:
    # without comments: dlt init reads every line of the file as a requirement
    text = (ROOT / "sources" / "polyai" / "requirements.txt").read_text(encoding="utf-8")
    assert text.splitlines() == dependencies()
