"""Classification of the errors that dlt and database drivers raise for a destination."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile

from dlt.common.exceptions import DltException
from dlt.pipeline.exceptions import PipelineStepFailed

from ..errors import DestinationError, PolyAIError, first_line
from .drivers import missing_driver

_CONFLICTS = (
    "Failed to commit DuckLake transaction",
    "Failed to initialize DuckLake",
    "Transaction conflict",
    "could not serialize access",
    "deadlock detected",
    # two transactions that create the same table or view, also with IF NOT EXISTS or OR REPLACE
    "pg_type_typname_nsp_index",
    "pg_class_relname_nsp_index",
    "tuple concurrently updated",
    "Deadlock found when trying to get lock",
    "Lock wait timeout exceeded",
    "Record has changed since last read",
    "database is locked",
)
"""Messages of DuckLake, DuckDB, PostgreSQL, MariaDB and SQLite for conflicts between two
transactions."""

_OWN_PACKAGES = frozenset({"pyarrow", "sqlglot", __name__.partition(".")[0]})
"""Packages whose errors show a fault of this package, not of the destination."""

_STEP_FAILURES = {"load": "rejected the load", "sync": "cannot be opened"}
"""Messages for the steps of dlt that fail because of the destination."""


@contextmanager
def destination_errors() -> Iterator[None]:
    """Converts errors of dlt and of database drivers to a `DestinationError` of one line.

    Errors of this package that dlt wrapped are unwrapped. Steps of dlt that do not use the
    destination raise as they are.

    Raises:
        ConfigurationError: A module that the destination needs is not installed.
        DestinationError: The destination cannot be used.
    """
    try:
        yield
    except ImportError as error:
        raise missing_driver("the destination", "", error) from error
    except PipelineStepFailed as error:
        cause = root_cause(error)
        for one in _chain(error):
            if isinstance(one, (PolyAIError, KeyboardInterrupt)):
                raise one from None
        if error.step not in _STEP_FAILURES:
            raise
        raise DestinationError(
            f"the destination {_STEP_FAILURES[error.step]}: {first_line(cause)}"
        ) from error
    except (DltException, OSError) as error:
        raise DestinationError(
            f"the destination cannot be used: {first_line(root_cause(error))}"
        ) from error
    except Exception as error:
        # dlt does not wrap what some drivers raise while they connect
        if not is_driver_error(error):
            raise
        raise DestinationError(f"the destination cannot be used: {first_line(error)}") from error


def is_conflict(error: BaseException) -> bool:
    """Checks whether a step failed because of another run's commit, so that a retry may succeed."""
    return chain_contains(error, _CONFLICTS)


def chain_contains(error: BaseException, texts: Sequence[str]) -> bool:
    """Checks whether the message of an error, or of one that led to it, contains one of the texts.

    Args:
        error: The error.
        texts: The texts, compared by case.
    """
    return any(text in str(cause) for cause in _chain(error) for text in texts)


def root_cause(error: BaseException) -> BaseException:
    """Returns the first error of the chain that led to this one.

    The `StopIteration` that ends a loop is not an error, but the context of errors that follow it.
    """
    *_, root = takewhile(
        lambda one: one is error or not isinstance(one, StopIteration), _chain(error)
    )
    return root


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and those that led to it.

    They can form a ring: an error that is unwrapped has its wrapper as context.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and not any(cause is one for one in seen):
        yield cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__


def is_driver_error(error: Exception) -> bool:
    """Checks whether a database driver raised the error, or a library that the driver is made of.

    That is an `Error` of its module, as of `sqlite3`, or an error of any other installed package.
    """
    package = type(error).__module__.partition(".")[0]
    if isinstance(error, getattr(sys.modules.get(package), "Error", ())):
        return True
    return package not in sys.stdlib_module_names | _OWN_PACKAGES
