"""The command `polyai-warehouse dashboard`."""

from __future__ import annotations

import webbrowser
from typing import Annotated

import typer

from ..config.settings import shared_setting
from ..console.options import DatasetOption, DestinationOption
from ..console.terminal import stdout, stop_on_signals
from ..errors import ConfigurationError
from ..views import PIPELINE_NAME
from ..views.query_reader import open_reader
from ..warehouse.open import open_pipeline


def dashboard(
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine need a token.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Default: 2718, or a free one where it is taken."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="POLYAI_DASHBOARD_TOKEN",
            help="What a browser has to know. Better in the environment, which others cannot see.",
        ),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open it in the browser.")] = True,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
) -> None:
    """Open the dashboard: numbers, trends, conversations with their recordings.

    Needs no key, and runs beside a load. It asks nothing of the internet and
    changes nothing. A DuckDB warehouse is read from a copy that follows it.
    """
    try:
        from .dashboard import Dashboard
        from .serving import serve
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the dashboard needs {error.name}: pip install 'polyai-warehouse[dashboard]'"
        ) from error
    pipeline = open_pipeline(destination, dataset, name=PIPELINE_NAME)
    with (
        stop_on_signals("the dashboard ends") as stop,
        open_reader(pipeline, shared_setting("publish_to")) as reader,
    ):
        try:
            with serve(Dashboard(reader), host, port, token) as url:
                stdout.print(f"dashboard: {url}")
                stdout.print("Ctrl-C ends it")
                if browser:
                    webbrowser.open(url)  # the token is asked for: others see a command's arguments
                stop.wait()
        except OSError as error:
            raise ConfigurationError(f"{host} cannot be served: {error}") from error
