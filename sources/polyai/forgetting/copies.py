"""Copies of a warehouse for readers, which are made again without the erased data."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import dlt

from ..errors import PolyAIError
from ..views.copies import Copy, copies
from ..views.parquet import MANIFEST
from ..views.publication import publish_to
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.stores import open_store


class Remade(NamedTuple):
    """Copies after an erasure.

    Attributes:
        copies: Copies that were made again.
        problems: Reasons why others still have the erased data.
    """

    copies: list[str]
    problems: list[str]


def remake_copies(
    pipeline: dlt.Pipeline, *, wait: timedelta = timedelta(), besides: Path | str | None = None
) -> Remade:
    """Makes all copies of a DuckDB warehouse again.

    A copy that does not exist any more is left out.

    Args:
        pipeline: Pipeline of the warehouse.
        wait: Maximum wait for another run that publishes.
        besides: Target that is published otherwise.
    """
    database = duckdb_path(pipeline)
    if database is None or not database.exists():
        return Remade([], [])
    made, problems = [], []
    for copy in list(copies(pipeline, database)):
        try:
            place = copy.at(database)
            target = place.parent if isinstance(place, Path) else place
            if _same(target, besides) or not _exists(place):
                continue
            if problem := _of_another_warehouse(copy, place, database):
                problems.append(problem)
                continue
            publish_to(pipeline, target, wait=wait)
            made.append(str(place))
        except PolyAIError as error:
            problems.append(f"{copy.at(database)}: {error}")
    return Remade(made, problems)


def _of_another_warehouse(copy: Copy, place: Path | str, database: Path) -> str | None:
    """Returns why a copy is not this warehouse's to make again; None if it is."""
    if Path(copy.place).is_absolute() and copy.warehouse != str(database):
        return (
            f"{place} was published by {copy.warehouse}, which this warehouse was copied or moved "
            "from. If it was moved, publish there again with views --publish, or delete that copy"
        )
    return None


def _exists(place: Path | str) -> bool:
    if isinstance(place, Path):
        return place.exists()
    return MANIFEST in open_store(place, setting="publish_to", section="publish").sizes("")


def _same(target: Path | str, other: Path | str | None) -> bool:
    if other is None or "://" in str(target) or "://" in str(other):
        return target == other
    return isinstance(target, Path) == isinstance(other, Path) and (
        Path(target).resolve() == Path(other).resolve()
    )
