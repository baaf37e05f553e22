"""Command `polyai-warehouse sandbox`."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console.process import stop_on_signals
from ..console.terminal import stdout
from ..errors import ConfigurationError, extra_required


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
                stdout.print(
                    f"Keys of one kind, as PolyAI's are: {config.data_api_key} (Data API), "
                    f"{config.v3_api_key} (Conversations API v3), {config.workspace_api_key} "
                    f"(Agents API, debug chats). The account is {config.account_id}.",
                    soft_wrap=True,
                    markup=False,
                )
                stop.wait()
        except OSError as error:
            raise ConfigurationError(f"port {port} cannot be served: {error}") from error
