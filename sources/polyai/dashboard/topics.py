"""Topics page: topics of conversations and reasons for handoffs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import date
from typing import Any

from ..views.query_reader import Reader, Row
from . import charts, components, queries
from .markup import Markup
from .selection import Selection

_SHOWN_AS_LINES = 4


def page(reader: Reader, selection: Selection) -> Markup:
    """Returns the page for a selection."""
    topics = queries.topics(reader, selection)
    reasons = queries.handoff_reasons(reader, selection)
    dates = selection.period.dates
    return components.page(
        components.grid(
            _list("Top topics", "conversations", topics, "No topic was retrieved in this period."),
            _list("Handoff reasons", "handoffs", reasons, "There was no handoff in this period."),
            _topics_by_day(reader, selection, topics, dates),
            _reasons_by_day(reader, selection, reasons, dates),
            kind="pw-halves",
        ),
        name="topics",
    )


def _list(title: str, of: str, rows: list[Row], none: str) -> Markup:
    shown = [row for row in rows if row["now"]]
    if not shown:
        return components.card(title, components.empty(none))
    more = components.more(len(rows), rows[0]["names"], title.split()[-1])
    return components.card(title, components.bar_list(shown, of=of), more, note=f"By {of}")


def _topics_by_day(
    reader: Reader, selection: Selection, topics: list[Row], dates: list[date]
) -> Markup | None:
    if not (names := _leading(topics)):
        return None
    series = _series(queries.topic_days(reader, selection, names), names, dates)
    chart = charts.lines(dates, series, axis=charts.COUNT, tooltip=",")
    return components.card("Top topics per day", chart, legend=names)


def _reasons_by_day(
    reader: Reader, selection: Selection, reasons: list[Row], dates: list[date]
) -> Markup | None:
    if not (names := _leading(reasons)):
        return None
    series = _series(queries.reason_days(reader, selection, names), names, dates)
    return components.card("Top reasons per day", charts.stacked(dates, series), legend=names)


def _leading(rows: list[Row]) -> list[str]:
    return [row["name"] for row in rows if row["now"]][:_SHOWN_AS_LINES]


def _series(
    rows: list[Row], names: list[str], dates: list[date]
) -> Mapping[str, Mapping[date, float | None]]:
    found: dict[str, dict[Any, Any]] = defaultdict(dict)
    for row in rows:
        found[row["name"]][row["local_date"]] = row["number"]
    return {name: {day: found[name].get(day, 0) for day in dates} for name in names}
