"""The command `polyai-warehouse dashboard`."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from ..config.settings import shared_setting
from ..console.options import DatasetOption, DestinationOption
from ..console.process import stop_on_signals
from ..console.terminal import stdout
from ..errors import ConfigurationError, extra_required
from ..views import PIPELINE_NAME
from ..views.query_reader import open_reader
from ..warehouse.open import open_pipeline


def dashboard(
    host: Annotated[
        str, typer.Option(help="Address to listen on. Others than loopback: behind TLS only.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Default: 2718, or a free port if it is in use."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="POLYAI_DASHBOARD_TOKEN",
            help="Token that browsers have to enter, of 16 characters or more. Default: a random "
            "one. Other users can see options, not variables.",
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the dashboard in the browser.")] = True,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
) -> None:
    """Open the dashboard: metrics, trends, conversations with their recordings.

    Needs no API key and no internet access, is read-only, and can run during a
    load. A DuckDB warehouse is read from a copy that is kept up to date.
    """
    with extra_required("the dashboard", "dashboard"):
        from .dashboard import Dashboard
        from .server import serve
    pipeline = open_pipeline(destination, dataset, name=PIPELINE_NAME)
    with (
        stop_on_signals("stopping the dashboard") as stop,
        open_reader(pipeline, shared_setting("publish_to")) as reader,
    ):
        try:
            with serve(Dashboard(reader), host, port, token) as served:
                # a chosen token may be that of others, who read the log
                url = served.url if token else served.token_url
                stdout.print(f"dashboard: {url}", soft_wrap=True, markup=False)
                stdout.print("Press Ctrl-C to stop")
                if browser:
                    webbrowser.open(served.once_url)
                stop.wait()
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {host}: {error}") from error
