"""Loads the conversations of your PolyAI agents: the example that `dlt init` hands out.

Say first which agent to read, and with which key, in `.dlt/secrets.toml`:

    [sources.polyai]
    api_key = "the key of the Data API"
    agent_id = "PROJECT-1234"
    region = "us"

or in the environment as POLYAI_API_KEY, POLYAI_AGENT_ID and POLYAI_REGION.
"""

from __future__ import annotations

import dlt
from dlt.common.pipeline import LoadInfo

from polyai import polyai


def load_conversations() -> LoadInfo:
    """Loads every table; when it runs again, only what is new or changed."""
    # DuckDB takes the file's name for the database, which must not be that of the dataset
    pipeline = dlt.pipeline("polyai_pipeline", destination="duckdb", dataset_name="polyai")
    return pipeline.run(polyai())


def load_turns() -> LoadInfo:
    """Loads what was said, without metrics, tags and the like.

    `conversations` and `fetch_failures` come along: they tell the next run what it need not read
    again, and what it must.
    """
    pipeline = dlt.pipeline("polyai_turns", destination="duckdb", dataset_name="polyai")
    return pipeline.run(polyai().with_resources("conversations", "turns", "fetch_failures"))


if __name__ == "__main__":
    print(load_conversations())
