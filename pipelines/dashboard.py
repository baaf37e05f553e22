"""Serve the dashboard until a signal stops it: `python pipelines/dashboard.py`.

Listens on loopback only. The printed URL contains a random token, unless POLYAI_DASHBOARD_TOKEN is
one, of at least 16 characters, for which the dashboard then asks.
"""

import os
import threading

import polyai
from polyai.config.settings import shared_setting
from polyai.dashboard.dashboard import Dashboard
from polyai.dashboard.server import serve
from polyai.views import PIPELINE_NAME
from polyai.views.query_reader import open_reader


def main(stop: threading.Event) -> int:
    """Serves a copy of the warehouse that follows each load."""
    port = int(os.environ.get("PORT", "2718"))
    token = os.environ.get("POLYAI_DASHBOARD_TOKEN")
    pipeline = polyai.open_pipeline(name=PIPELINE_NAME)
    with (
        open_reader(pipeline, shared_setting("publish_to")) as reader,
        serve(Dashboard(reader), "127.0.0.1", port, token) as served,
    ):
        print(f"dashboard: {served.url if token else served.token_url}", flush=True)
        stop.wait()
    return polyai.ExitCode.DONE


if __name__ == "__main__":
    polyai.run_script(main)
