"""Missing drivers of destinations: errors that name the package to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ConfigurationError, first_line

_PACKAGES = {
    "MySQLdb": "'polyai-warehouse[mysql]', and begin the URL with mysql+pymysql://",
    "mariadb": "'polyai-warehouse[mysql]', and begin the URL with mysql+pymysql://",
    "s3fs": "'polyai-warehouse[s3]'",
    "boto3": "'polyai-warehouse[s3]'",
    "botocore": "'polyai-warehouse[s3]'",
    "gcsfs": "'polyai-warehouse[gs]'",
    "adlfs": "'polyai-warehouse[az]'",
    "azure": "'polyai-warehouse[az]'",
}
"""Packages of modules that the destination's own do not bring, by the module's first name."""


@contextmanager
def drivers_required(label: str, packages: str) -> Iterator[None]:
    """Converts a failed import in the block to an error of one line with a `pip install`.

    Args:
        label: Name of the destination.
        packages: Arguments of `pip install` for the drivers of the destination.

    Raises:
        ConfigurationError: A driver is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise missing_driver(label, packages, error) from error


def missing_driver(label: str, packages: str, error: ImportError) -> ConfigurationError:
    """Describes a failed import, of which dlt may have raised another error."""
    cause: BaseException | None = error
    module = error.name
    while cause is not None and not module:
        cause = cause.__cause__ or cause.__context__
        module = getattr(cause, "name", None)
    if not module:
        return ConfigurationError(f"destination: {label}: {first_line(error)}")
    found = _PACKAGES.get(module.partition(".")[0], packages)
    advice = f": pip install {found}" if found else ""
    return ConfigurationError(f"destination: {label} requires the module {module}{advice}")
