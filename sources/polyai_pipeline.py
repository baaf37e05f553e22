"""Example pipeline, copied by `dlt init`: load the conversations of your PolyAI agents.

First set the agent and its key in `.dlt/secrets.toml`:

    [sources.polyai]
    api_key = "the key of the Data API"
    agent_id = "PROJECT-1234"
    region = "us"

or the environment variables POLYAI_API_KEY, POLYAI_AGENT_ID and POLYAI_REGION.
"""

from __future__ import annotations

import dlt
from dlt.common.pipeline import LoadInfo

from polyai import polyai


def load_conversations() -> LoadInfo:
    """Loads all tables; later runs load only new and changed conversations."""
    # DuckDB names the database after the file; it must differ from the name of the dataset
    pipeline = dlt.pipeline("polyai_pipeline", destination="duckdb", dataset_name="polyai")
    return pipeline.run(polyai())


def load_turns() -> LoadInfo:
    """Loads the transcripts only, without metrics, tags and other tables.

    `conversations` is required: the next run compares it with the listing to find what to fetch.
    What fails is recorded in `fetch_failures`, which need not be selected.
    """
    pipeline = dlt.pipeline("polyai_turns", destination="duckdb", dataset_name="polyai")
    return pipeline.run(polyai().with_resources("conversations", "turns"))


if __name__ == "__main__":
    print(load_conversations())
