"""DuckLake: places of its catalog and its files, and settings that would keep them apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import dlt

from ..errors import ConfigurationError

DUCKLAKE = "dlt.destinations.ducklake"
"""dlt's type of the DuckLake destination."""

_FILES = ("duckdb", "sqlite")
"""Drivers of catalogs that are files; all others are servers."""

OTHER_PLACE = re.compile(r'does not match existing data path in the catalog "([^"]*)"')
"""DuckLake's message for files in another place than the catalog has, with that place."""


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


def is_absent(credentials: Any) -> bool:
    """Checks whether the catalog is a file that does not exist, in a folder that does.

    Args:
        credentials: Resolved credentials of the destination.
    """
    if credentials.catalog.drivername not in _FILES:
        return False
    file = catalog_file(credentials)
    return file.parent.is_dir() and not file.exists()


def other_place(credentials: Any, place: str) -> str:
    """Returns the message for files that the catalog has in another place.

    Args:
        credentials: Resolved credentials of the destination.
        place: The place in the catalog.
    """
    return (
        f"the destination cannot be opened: its files are set to {credentials.storage_url}, but "
        f"its catalog has them in {place}. Set the storage's bucket_url back to {place}; or, if "
        "all files were moved, set override_data_path = true in the table "
        "[destination.ducklake], for every machine"
    )


def places(config: Any) -> str:
    """Describes where catalog and files of a lake are, without passwords.

    Args:
        config: Resolved configuration of the destination.
    """
    return lake_places(config.credentials)


def lake_places(credentials: Any) -> str:
    """Describes the places as `places` does, for resolved credentials of the destination."""
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
