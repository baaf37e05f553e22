"""Command `polyai-warehouse`: its subcommands, and the mapping of errors to exit codes.

Exit codes: 0 everything done and proven; 1 configuration, key or destination; 2 usage; 3 done, but
a conversation failed, a row was not sent, or a scenario failed; 75 another run holds the lock; 130
interrupted, with everything committed so far kept.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ..config.version import DISTRIBUTION, installed_version
from ..console.process import exit_on_errors, set_up_process
from ..console.terminal import stdout
from .commands import COMMANDS, LazyGroup, example, placeholder

app = typer.Typer(
    name="polyai-warehouse",
    cls=LazyGroup,
    help="Every conversation of your PolyAI agents in your own warehouse.",
    epilog="Example: polyai-warehouse demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _command in COMMANDS.items():
    app.command(_name, help=_command.summary, epilog=example(_name))(placeholder)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        stdout.print(f"{DISTRIBUTION} {installed_version()}")
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every retry.")] = False,
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Every conversation of your PolyAI agents in your own warehouse."""
    set_up_process(verbose=verbose)


def main() -> None:
    """Runs the command; an expected error is one line on stderr and an exit code."""
    exit_on_errors(app)
