"""Command `polyai-warehouse`: its subcommands, and the mapping of errors to exit codes.

Exit codes: 0 everything done and proven; 1 configuration, key or destination; 2 usage; 3 done, but
a conversation failed, a row was not sent, or a scenario failed; 75 another run holds the lock; 130
interrupted, with everything committed so far kept.
"""

from __future__ import annotations

from typing import Annotated

import typer

from ..console.process import exit_on_errors, set_up_process, stop_on_signals
from ..console.terminal import stdout
from ..dashboard.cli import dashboard
from ..debug_chats.cli import chat, debug_chat
from ..errors import ConfigurationError, extra_required
from ..forgetting.cli import forget
from ..recordings.cli import app as recordings_app
from ..status.cli import status
from ..views.cli import views
from ..write_backs.cli import annotate, note
from .demo import demo
from .load_commands import backfill, load
from .preflight import check

app = typer.Typer(
    name="polyai-warehouse",
    help="Every conversation of your PolyAI agents in your own warehouse.",
    epilog="Example: polyai-warehouse demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def common(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every retry.")] = False,
) -> None:
    """Every conversation of your PolyAI agents in your own warehouse."""
    set_up_process(verbose=verbose)


app.add_typer(recordings_app)
app.command(epilog="Example: polyai-warehouse views --time-zone Europe/London")(views)
app.command(epilog="Example: polyai-warehouse dashboard --port 8080 --no-browser")(dashboard)
app.command(epilog="Example: polyai-warehouse forget --caller +442079460018 --reason DSR-4711")(
    forget
)
app.command(epilog="Example: polyai-warehouse annotate flags.csv --dry-run")(annotate)
app.command(epilog="Example: polyai-warehouse note notes.jsonl")(note)
app.command(
    "debug-chat",
    epilog="Example: polyai-warehouse debug-chat booking.yaml --label v12 --junit results.xml",
)(debug_chat)
app.command(epilog="Example: polyai-warehouse chat --environment pre-release")(chat)
app.command(epilog="Example: polyai-warehouse demo --conversations 1000")(demo)
app.command(epilog="Example: polyai-warehouse check --agent PROJECT-1234")(check)
app.command(epilog="Example: polyai-warehouse load --lookback 30d --destination postgres")(load)
app.command(epilog="Example: polyai-warehouse backfill --from 2024-01-01 --to 2024-07-01")(backfill)
app.command(epilog="Example: polyai-warehouse status --max-age 30m --quick")(status)


@app.command(epilog="Example: polyai-warehouse sandbox --port 8787 --conversations 10000")
def sandbox(
    port: Annotated[int, typer.Option(help="Port; 0 for a free one.")] = 8787,
    conversations: Annotated[
        int, typer.Option(min=10, max=1_000_000, help="Number of conversations.")
    ] = 500,
    seed: Annotated[int, typer.Option(help="Seed; another one gives other conversations.")] = 1,
    agent: Annotated[str, typer.Option(help="Agent of the conversations.")] = "PROJECT-BOOKINGS",
    oddities: Annotated[
        bool, typer.Option(help="Reproduce the irregular answers of the real API.")
    ] = True,
) -> None:
    """Serve a stand-in for the PolyAI API on loopback, for demos and tests."""
    with extra_required("the sandbox", "sandbox"):
        from ..sandbox import Sandbox, SandboxConfig, serve
    config = SandboxConfig(
        conversations=conversations, seed=seed, agents=(agent,), oddities=oddities
    )
    with stop_on_signals("stopping the sandbox") as stop:
        try:
            with serve(Sandbox(config), port) as base_url:
                stdout.print(
                    f"sandbox at [bold]{base_url}[/]; stop it with Ctrl-C. In another terminal:"
                )
                stdout.print(
                    f"  export POLYAI_BASE_URL={base_url} POLYAI_API_KEY={config.api_key} "
                    f"POLYAI_AGENT_ID={agent}\n  polyai-warehouse load",
                    soft_wrap=True,
                    markup=False,
                )
                stop.wait()
        except OSError as error:
            raise ConfigurationError(f"port {port} cannot be served: {error}") from error


def main() -> None:
    """Runs the command; an expected error is one line on stderr and an exit code."""
    exit_on_errors(app)
