"""Subcommands of `polyai-warehouse`, each imported when it is called.

An import of all of them, with dlt, takes a CPU second; a list of commands needs none of it.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from importlib.util import resolve_name
from types import ModuleType
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

_PACKAGE = __package__.rpartition(".")[0]


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        module: Module with its function, or with the Typer app of a group, relative to the package.
        attribute: Name of the function or app.
        summary: First line of its help.
        example: Example of its arguments.
    """

    module: str
    attribute: str
    summary: str
    example: str


COMMANDS = {
    "demo": Command(
        ".cli.demo",
        "demo",
        "Start the sandbox, load it into DuckDB, and show the result.",
        "--conversations 1000",
    ),
    "check": Command(
        ".cli.preflight",
        "check",
        "Test keys, regions, ids and permissions; print what works and the settings to use.",
        "--agent PROJECT-1234",
    ),
    "load": Command(
        ".cli.load_commands",
        "load",
        "Load new and changed conversations of all agents. The job for cron.",
        "--lookback 30d --destination postgres",
    ),
    "backfill": Command(
        ".cli.load_commands",
        "backfill",
        "Load one range of time, in slices, several of them concurrently.",
        "--from 2024-01-01 --to 2024-07-01",
    ),
    "recordings": Command(
        ".recordings.cli",
        "app",
        "Download missing recordings; verify, prune, move or prove stored ones.",
        "--recordings-url s3://bucket/recordings",
    ),
    "annotate": Command(
        ".write_backs.cli",
        "annotate",
        "Add annotations to turns, from a file or a query; idempotent.",
        "flags.csv --dry-run",
    ),
    "note": Command(
        ".write_backs.cli",
        "note",
        "Set the notes of conversations, from a file or a query.",
        "notes.jsonl",
    ),
    "debug-chat": Command(
        ".debug_chats.cli",
        "debug_chat",
        "Test an agent with scenarios: messages and expected answers.",
        "booking.yaml --label v12 --junit results.xml",
    ),
    "chat": Command(
        ".debug_chats.cli",
        "chat",
        "Chat with an agent, interactively or with lines from a pipe.",
        "--environment pre-release",
    ),
    "forget": Command(
        ".forgetting.cli",
        "forget",
        "Erase conversations or callers, and never load them again.",
        "--caller +442079460018 --reason DSR-4711",
    ),
    "hold": Command(
        ".holding.cli",
        "hold",
        "Place, release or list legal holds: what they name is not deleted.",
        "--caller +442079460018 --reason CASE-12",
    ),
    "prune": Command(
        ".retention.cli",
        "prune",
        "Delete what is older than the settings of retention, as each load does.",
        "--dry-run",
    ),
    "redact": Command(
        ".redacting.cli",
        "redact",
        "Convert what is loaded to stricter settings pii and transcripts.",
        "--dry-run",
    ),
    "status": Command(
        ".status.cli",
        "status",
        "Show freshness, last runs, failures, and whether rows are consistent.",
        "--max-age 30m --quick",
    ),
    "views": Command(
        ".views.cli",
        "views",
        "Create or replace the SQL views for analysts and BI.",
        "--time-zone Europe/London",
    ),
    "copy": Command(
        ".copying.cli",
        "copy",
        "Copy the warehouse to another destination, and compare both.",
        "--destination duckdb --to postgres",
    ),
    "dashboard": Command(
        ".dashboard.cli",
        "dashboard",
        "Open the dashboard: metrics, trends, conversations with their recordings.",
        "--port 8080 --no-browser",
    ),
    "sandbox": Command(
        ".cli.sandbox",
        "sandbox",
        "Serve a stand-in for the PolyAI API on loopback, for demos and tests.",
        "--port 8787 --conversations 10000",
    ),
}
"""Subcommands by name, in the order of the help."""


class LazyGroup(TyperGroup):
    """Group whose subcommands are placeholders until one is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, placeholder, rest = super().resolve_command(ctx, args)
        return name, imported(name) if name in COMMANDS else placeholder, rest


def imported(name: str) -> Any:
    """Imports a subcommand, and returns its Typer command."""
    command = COMMANDS[name]
    found = getattr(_module(command), command.attribute)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name, epilog=example(name))(found)
    return typer.main.get_command(single)


def _module(command: Command) -> ModuleType:
    """Imports the module of a subcommand, and excludes what it imports from garbage collection.

    Modules live as long as the process. Collecting among their objects takes 0.4 CPU s, while they
    are imported and above all when the process ends.
    """
    if known := sys.modules.get(resolve_name(command.module, _PACKAGE)):
        return known
    gc.disable()
    try:
        module = import_module(command.module, _PACKAGE)
        gc.freeze()
    finally:
        gc.enable()
    return module


def example(name: str) -> str:
    """Returns the line of the help with an example of the subcommand."""
    return f"Example: polyai-warehouse {name} {COMMANDS[name].example}"


def placeholder() -> None:
    """Stands for a subcommand in the list of commands."""
