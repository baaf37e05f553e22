"""Findings of `check` about the destination: contents, level of support, leases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import dlt

from ..errors import ConfigurationError, PolyAIError
from ..warehouse.capabilities import (
    RefusedError,
    Support,
    advice_without_leases,
    label_of,
    support_of,
)
from ..warehouse.duckdb_file import locked_file
from ..warehouse.ducklake_destination import check_files
from ..warehouse.open import destination_label
from ..warehouse.queries import Warehouse
from ..warehouse.target import Target
from .findings import Finding


@dataclass(frozen=True)
class OpenedDestination:
    """Destination that was opened, or why it was not.

    Attributes:
        pipeline: Pipeline with the destination; None if it is refused or not configured.
        name: Its name; empty if it is not known.
        support: Its support; None if it is not known.
        error: Why it was not opened.
    """

    pipeline: dlt.Pipeline | None
    name: str = ""
    support: Support | None = None
    error: str = ""

    @classmethod
    def of(cls, target: Target) -> Self:
        """Opens a target without connecting to it; keeps the error if that fails."""
        try:
            pipeline = target.open()
        except RefusedError as error:
            return cls(None, error.name, error.support, str(error))
        except ConfigurationError as error:
            return cls(None, error=str(error))
        return cls(pipeline, label_of(pipeline), support_of(pipeline))

    def findings(self) -> Iterator[Finding]:
        """Yields the findings; the first one has the contents, or the error."""
        pipeline, support = self.pipeline, self.support
        if pipeline is None:
            message = self.error.removeprefix("destination: ")
            yield Finding("", "destination", "failed", message)
            return
        try:
            check_files(pipeline)
            held = Warehouse(pipeline).count_rows("conversations")
        except PolyAIError as error:
            yield Finding("", "destination", "failed", str(error))
        else:
            message = f"{destination_label(pipeline)}: {held:,} conversations loaded"
            yield Finding("", "destination", "ok", message)
        if support is not None:
            yield _support(self.name, support)
            yield _leases(pipeline)

    def as_json(self) -> dict[str, Any]:
        """Returns the support as JSON; values that are not known are null.

        A DuckDB file, also as the catalog of a DuckLake, has locks, and no leases.
        """
        support, pipeline = self.support, self.pipeline
        is_file = pipeline is not None and locked_file(pipeline) is not None
        return {
            "name": self.name or None,
            "level": support.level if support else None,
            "reason": support.reason if support else None,
            "alternative": (support.alternative or None) if support else None,
            "has_leases": (support.has_leases and not is_file) if support else None,
            "without_views": list(support.without_views) if support else None,
        }


def _support(name: str, support: Support) -> Finding:
    message = f"{name} is {support.level}: {support.reason}"
    if support.without_views:
        names = ", ".join(support.without_views)
        message += f". Its SQL cannot express the views {names}, which are left out"
    return Finding("", "support", "ok" if support.level == "proven" else "warning", message)


def _leases(pipeline: dlt.Pipeline) -> Finding:
    if locked_file(pipeline) is not None:
        message = "locks beside the file keep two runs on one machine apart; load from one machine"
        return Finding("", "leases", "ok", message)
    if advice := advice_without_leases(pipeline):
        return Finding("", "leases", "warning", advice)
    message = "a lease per agent keeps two machines from loading the same agent at once"
    return Finding("", "leases", "ok", message)
