"""Response times of the dashboard's pages, over the published copy of a synthetic warehouse."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import dlt
import duckdb
from rich.console import Console
from rich.table import Table

from polyai import open_pipeline
from polyai.dashboard.dashboard import Dashboard
from polyai.dashboard.selection import PRESETS, Selection, ending
from polyai.views.query_reader import open_reader

from .views import RUNS, fill

Page = Callable[[Selection], object]


def pages(dashboard: Dashboard) -> dict[str, Page]:
    """Returns the pages by name."""
    choices = dashboard.start({}).choices
    assert choices is not None
    found: dict[str, Page] = {
        name: lambda selection, name=name: dashboard.page(name, selection, choices)  # type: ignore[misc]
        for name in ("overview", "topics", "performance", "data")
    }
    found["conversations"] = lambda chosen: dashboard.find("conversations", chosen, "", None, 0)
    found["conversations, a search"] = lambda chosen: dashboard.find(
        "conversations", chosen, "a table for two", None, 0
    )
    found["reviews"] = lambda chosen: dashboard.find("reviews", chosen, "", None, 0)
    return found


def seconds(page: Page, selection: Selection) -> float:
    """Returns the median time to build a page."""
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        page(selection)
        times.append(time.perf_counter() - began)
    return median(times)


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds every page for each length of period, and prints the times."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--conversations", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=10)
    options = parser.parse_args(arguments)
    shown = Table("page", *PRESETS, title=f"{options.conversations:,} conversations of a year")
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder, "warehouse.duckdb")
        with duckdb.connect(str(database)) as connection:
            fill(connection, options.conversations, options.turns)
        pipeline = open_pipeline(dlt.destinations.duckdb(str(database)), pipelines_dir=folder)
        with open_reader(pipeline, Path(folder, "published")) as reader:
            dashboard = Dashboard(reader)
            choices = dashboard.start({}).choices
            assert choices is not None
            for name, page in pages(dashboard).items():
                lengths = [
                    Selection(ending(choices.today, length), environment="live")
                    for length in PRESETS.values()
                ]
                shown.add_row(name, *(f"{seconds(page, chosen):.2f} s" for chosen in lengths))
            opened = reader.query("SELECT agent_id, conversation_id FROM turns LIMIT 1")[0]
            key = opened["agent_id"], opened["conversation_id"]
            took = seconds(lambda _: dashboard.conversation(key, "", ""), lengths[0])
            shown.add_row("one conversation", f"{took:.2f} s")
    Console().print(shown)


if __name__ == "__main__":
    main()
