"""Copies of a warehouse for readers, which are made again without the erased data."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import dlt

from ..errors import PolyAIError
from ..views.copies import Copy, copies
from ..views.parquet import MANIFEST
from ..views.publication import publish_to
from ..warehouse.duckdb_file import duckdb_path
from ..warehouse.stores import open_store


def remake_copies(
    pipeline: dlt.Pipeline, *, wait: timedelta = timedelta(), besides: Path | str | None = None
) -> list[str]:
    """Makes all copies of a DuckDB warehouse again; returns why some still have the erased data.

    A copy that does not exist any more is left out.

    Args:
        pipeline: Pipeline of the warehouse.
        wait: Maximum wait for another run that publishes.
        besides: Target that is published otherwise.
    """
    database = duckdb_path(pipeline)
    if database is None or not database.exists():
        return []
    problems = []
    for copy in list(copies(pipeline, database)):
        try:
            if problem := _remake(pipeline, copy, database, wait, besides):
                problems.append(problem)
        except PolyAIError as error:
            problems.append(f"{copy.at(database)}: {error}")
    return problems


def _remake(
    pipeline: dlt.Pipeline,
    copy: Copy,
    database: Path,
    wait: timedelta,
    besides: Path | str | None,
) -> str | None:
    place = copy.at(database)
    target = place.parent if isinstance(place, Path) else place
    if _same(target, besides) or not _exists(place):
        return None
    if Path(copy.place).is_absolute() and copy.warehouse != str(database):
        return (
            f"{place} was published by {copy.warehouse}, which this warehouse was copied or moved "
            "from. If it was moved, publish there again with views --publish, or delete that copy"
        )
    publish_to(pipeline, target, wait=wait)
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
