"""SQL clients of a pipeline's destination."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import dlt
from dlt.destinations.sql_client import SqlClientBase


def sql_client(pipeline: dlt.Pipeline) -> SqlClientBase[Any]:
    """Returns a client as `Pipeline.sql_client` does, without its cost after the first.

    dlt reads and checks the schema in the working directory for each client, 20 CPU ms.
    """
    layout = pipeline.destination.config_params.get("staging_dataset_name_layout")
    known = _client(pipeline, pipeline.dataset_name, layout)
    # not by `copy`, which asks for attributes that a client without a connection does not have
    client: SqlClientBase[Any] = object.__new__(type(known))
    vars(client).update(vars(known))
    return client


@lru_cache(maxsize=16)
def _client(pipeline: dlt.Pipeline, dataset: str, staging_layout: str) -> SqlClientBase[Any]:
    """Returns a client that is never opened; one per dataset and staging layout."""
    client: SqlClientBase[Any] = pipeline.sql_client()
    return client
