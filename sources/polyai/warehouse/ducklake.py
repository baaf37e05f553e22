"""DuckLake: places of its catalog and its files, and settings that would keep them apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import dlt

from ..errors import ConfigurationError

DUCKLAKE = "dlt.destinations.ducklake"
"""dlt's type of the DuckLake destination."""

_FILES = ("duckdb", "sqlite")
"""Drivers of catalogs that are files; all others are servers."""


def check_lake(pipeline: dlt.Pipeline, config: Any) -> None:
    """Checks that a load can use the catalog, and that every machine finds the files of all others.

    Args:
        pipeline: Pipeline with a DuckLake destination.
        config: Its resolved configuration.

    Raises:
        ConfigurationError: The catalog is on a server, and the files are in the working directory.
    """
    credentials = config.credentials
    storage, catalog = credentials.storage, credentials.catalog
    if catalog.drivername in _FILES or not storage.is_local_filesystem:
        return
    given = _setting(pipeline, "storage.bucket_url")
    if _is_absolute(given) or (given is None and _is_given_in_code(pipeline)):
        return
    folder = credentials.storage_url
    name = _variable(pipeline)
    raise ConfigurationError(
        f"destination: the catalog of {pipeline.destination.destination_name} is on a server, but "
        f"its files would be in the working directory, in {folder}, where no other machine finds "
        f"them. Set {name} to a bucket, such as s3://bucket/lake, or to the absolute path of a "
        "folder that all machines share; on one machine, to this folder"
    )


def check_storage_name(pipeline: dlt.Pipeline) -> None:
    """Checks that the place of the files is set under the name that dlt reads.

    Raises:
        ConfigurationError: It is set as `storage`, which dlt ignores without an error.
    """
    value = _setting(pipeline, "storage")
    if isinstance(value, str) and value:
        raise ConfigurationError(
            f"destination: dlt ignores the setting {_variable(pipeline, 'STORAGE')}, and would "
            f"keep the files in the working directory. Set {_variable(pipeline)} in place of it, "
            "or bucket_url in the table "
            f"[destination.{pipeline.destination.destination_name}.credentials.storage]"
        )


def catalog_file(credentials: Any) -> Path:
    """Returns the path of a catalog that is a file.

    Args:
        credentials: Resolved credentials of the destination.
    """
    return Path(str(credentials.catalog.database)).resolve()


def places(config: Any) -> str:
    """Describes where catalog and files of a lake are, without passwords.

    Args:
        config: Resolved configuration of the destination.
    """
    credentials = config.credentials
    catalog = credentials.catalog
    if catalog.drivername in _FILES:
        where = f"{catalog.drivername} {catalog.database}"
    else:
        where = f"{catalog.drivername} {catalog.host}/{catalog.database}"
    return f"catalog in {where}, files in {credentials.storage_url}"


def _setting(pipeline: dlt.Pipeline, name: str) -> Any:
    """Returns a setting of the credentials as dlt finds it; None if it is not set."""
    destination = pipeline.destination.destination_name
    sections = (f"destination.{destination}.credentials", "destination.credentials", "credentials")
    for section in sections:
        for prefix in (f"{pipeline.pipeline_name}.", ""):
            found: Any = dlt.secrets.get(f"{prefix}{section}.{name}")
            if found is not None:
                return found
    return None


def _variable(pipeline: dlt.Pipeline, name: str = "STORAGE__BUCKET_URL") -> str:
    destination = pipeline.destination.destination_name.upper()
    return f"DESTINATION__{destination}__CREDENTIALS__{name}"


def _is_absolute(place: Any) -> bool:
    return isinstance(place, str) and (
        urlparse(place).scheme == "file" or Path(place).expanduser().is_absolute()
    )


def _is_given_in_code(pipeline: dlt.Pipeline) -> bool:
    """Returns whether a caller passed the place of the files to dlt's destination."""
    credentials = pipeline.destination.config_params.get("credentials")
    return getattr(credentials, "storage", None) is not None
