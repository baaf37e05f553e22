"""Fixtures of every test, the layers of the suite, and the profiles of hypothesis.

A module names its layer, such as `pytestmark = pytest.mark.load`; classes, tests and parameters of
another layer name theirs. See LAYERS.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

import interpreter
import loaded
import optional

LAYERS = ("browser", "process", "load", "server", "unit")
"""Layers, the most expensive first; each test belongs to one.

- `unit`: functions and values, and DuckDB in memory.
- `server`: HTTP to a server in this process, or a PostgreSQL or S3 server.
- `load`: whole loads, or other work on a warehouse, in this process.
- `process`: other interpreters: signals, terminals, locks, kills, imports.
- `browser`: chromium.
"""

SPREAD = {
    "test_backfill",
    "test_cli",
    "test_current",
    "test_faults",
    "test_load",
    "test_parallel",
    "test_v3_load",
}
"""Modules of expensive tests that share no fixture, so that any worker may run each of them."""

interpreter.reduce_costs()

# pytest keeps the rewritten assertions of each module for the next process; to rewrite those of all
# modules takes 8 s
sys.dont_write_bytecode = False

collect_ignore = [
    name for name, modules in optional.MODULES.items() if not optional.are_installed(*modules)
]


def pytest_report_header() -> list[str]:
    """Names the modules that are not collected."""
    if not collect_ignore:
        return []
    names = ", ".join(collect_ignore)
    return [f"not run: {names}, for want of packages: pip install -e '.[test-extras]'"]


def pytest_xdist_auto_num_workers() -> int:
    """Half as many workers again as cores: a third of the time, tests wait for something."""
    return (os.cpu_count() or 1) * 3 // 2 or 1


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Imports the modules of the whole suite beforehand, each worker from another one on.

    In the same order, all workers would rewrite the assertions of the same module at the same time.
    """
    report = yield
    config = collector.config
    if isinstance(collector, pytest.Dir) and config.args_source is config.ArgsSource.TESTPATHS:
        modules = [node for node in report.result or () if isinstance(node, pytest.Module)]
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
        number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        first = len(modules) * number // workers
        for module in modules[first:] + modules[:first]:
            # an error is reported when the module is collected
            with contextlib.suppress(module.CollectError, pytest.skip.Exception):
                _ = module.obj
    return report


# `slow` looks for what is not known yet; the others give the same answer for the same code
for _name, _examples in {"dev": 25, "ci": 50, "slow": 1_000}.items():
    settings.register_profile(
        _name,
        max_examples=_examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=_name != "slow",
    )
# `--hypothesis-profile` chooses another one later
settings.load_profile("dev")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Reduces the layers of each test to the closest one; marks it as `slow` or `extras`.

    Tests of expensive layers run first, so that no worker ends with a long test alone.
    """
    without = []
    for item in items:
        layers = [mark for mark in item.iter_markers() if mark.name in LAYERS]
        if layers:
            # the closest one; `-m` would see those of the class and the module too
            item.add_marker(layers[0].name, append=False)
        else:
            without.append(item.nodeid)
    for node in {node for item in items for node in item.listchain()[:-1]}:
        node.own_markers = [mark for mark in node.own_markers if mark.name not in LAYERS]
    if without:
        raise pytest.UsageError(f"no layer ({', '.join(LAYERS)}) is named by {without[0]}")
    for item in items:
        closest = next(mark for mark in item.own_markers if mark.name in LAYERS)
        item.own_markers = [
            mark for mark in item.own_markers if mark.name not in LAYERS or mark is closest
        ]
        if item.get_closest_marker("matrix"):
            item.add_marker("slow")
        if optional.needs_extras(item):
            item.add_marker("extras")
    items.sort(key=lambda item: LAYERS.index(_layer(item)))


def _layer(item: pytest.Item) -> str:
    return next(mark.name for mark in item.own_markers if mark.name in LAYERS)


class _ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Assigns each module to one worker, because its tests share fixtures, with exceptions."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.endswith("kills.py"):
            # run concurrently, they would slow each other down beyond their time limits
            return "kills"
        return nodeid if Path(file).stem in SPREAD else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    """Replaces the scheduler of `--dist loadfile`.

    xdist 3.8 does not find its marker xdist_group in the ids of pytest 9.2.
    """
    return _ByFile(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test in an empty folder, without settings of the environment."""
    for name in list(os.environ):
        if name.startswith(("POLYAI_", "SOURCES__", "DESTINATION__", "DLT_")):
            monkeypatch.delenv(name)
    # otherwise each command that a test starts would compile the package again
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True, scope="session")
def shared_warehouses(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> None:
    """Keeps loaded warehouses in a folder of this run, which its workers share."""
    folder = tmp_path_factory.getbasetemp()
    loaded.keep_in((folder if worker_id == "master" else folder.parent) / "loaded")


@pytest.fixture(autouse=True, scope="session")
def no_files_of_dlt(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Makes dlt read its files now, where there are none, rather than those of the first test."""
    with contextlib.chdir(tmp_path_factory.mktemp("empty")):
        Container()[PluggableRunContext].reload_providers()
