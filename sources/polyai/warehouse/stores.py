"""Opening of folders and buckets, with credentials from dlt's configuration."""

from __future__ import annotations

from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.resolve import resolve_configuration
from dlt.common.exceptions import DltException, MissingDependencyException
from dlt.common.storages.configuration import FilesystemConfiguration
from dlt.common.storages.fsspec_filesystem import fsspec_from_config

from ..errors import ConfigurationError, first_line
from .file_store import Store

_OWN_SECTION = ("sources", "polyai")

_SHARED_SECTION = ("destination", "filesystem")
"""Section of dlt's configuration with credentials of buckets, where our own has none."""


def open_store(url: str, *, setting: str = "recordings_url", section: str = "recordings") -> Store:
    """Opens the store at a folder or fsspec URL, with credentials from dlt's configuration.

    Args:
        url: `recordings/`, `s3://bucket/path`, `gs://…`, `az://…` or any other that fsspec knows.
        setting: Name of the setting that has the URL, for messages.
        section: Section below `sources.polyai` that may hold the credentials. Else they are those
            of `destination.filesystem`.

    Raises:
        ConfigurationError: The URL is not valid, or its driver or credentials are missing.
    """
    places = ((*_OWN_SECTION, section), _SHARED_SECTION)
    first_error: Exception | None = None
    for sections in places:
        try:
            config = resolve_configuration(FilesystemConfiguration(url), sections=sections)
            fs, root = fsspec_from_config(config)
        except (MissingDependencyException, ImportError) as error:
            protocol = url.partition("://")[0]
            raise ConfigurationError(
                f"{setting} {url}: its driver is missing: pip install 'dlt[{protocol}]'"
            ) from error
        except (ConfigurationException, DltException, ValueError) as error:
            first_error = first_error or error
            continue
        if config.is_local_filesystem:
            # fsspec leaves the path percent-encoded
            root = config.make_local_path(config.bucket_url)
        return Store(fs, root, config.protocol)
    reason = first_line(first_error) if first_error else ""
    names = " or ".join(f"[{'.'.join(place)}.credentials]" for place in places)
    raise ConfigurationError(
        f"{setting} {url}: {reason}. Set the credentials in {names} of .dlt/secrets.toml"
    )
