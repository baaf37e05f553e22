"""The page of how quick the agents are, and how well their functions work."""

from __future__ import annotations

from datetime import date

from ..views.query_reader import Reader, Row
from . import charts, pieces, queries, wording
from .markup import Child, Markup, tag
from .overview import latency_tile
from .pieces import Change
from .queries import Waits
from .selection import Selection
from .totals import RED_ERRORS, RED_SECONDS

_COLUMNS = (
    ("Function", False),
    ("Calls", True),
    ("Errors", True),
    ("Error rate", True),
    ("Median", True),
    ("p95", True),
)


def page(reader: Reader, selection: Selection) -> Markup:
    """The page of the selection."""
    waits = queries.waits(reader, selection)
    days = queries.function_days(reader, selection)
    functions = queries.functions(reader, selection)
    dates = selection.period.dates
    return pieces.page(
        pieces.grid(
            *(
                latency_tile(title, name, waits, dates)
                for title, name in (
                    ("Latency, median", "p50"),
                    ("Latency, p95", "p95"),
                    ("Latency, p99", "p99"),
                )
            ),
            _errors(selection, days),
            kind="pw-tiles",
        ),
        pieces.grid(
            _latency(waits, dates),
            _error_days(days, dates),
            kind="pw-halves",
        ),
        _functions(functions),
        name="performance",
    )


def _errors(selection: Selection, days: list[Row]) -> Markup:
    now = queries.of_period(days, selection.period)
    before = queries.of_period(days, selection.period.previous)
    calls = sum(row["calls"] for row in now)
    rates = {row["local_date"]: row["errors"] / row["calls"] for row in now}
    return pieces.tile(
        "Function errors",
        wording.percent(_rate(now)),
        Change(_rate(now), _rate(before), pieces.points, "down"),
        f"of {wording.count(calls)} calls",
        [rates.get(day) for day in selection.period.dates],
        "Failed calls of functions ÷ calls; above 5 % is red.",
    )


def _rate(rows: list[Row]) -> float | None:
    calls = sum(row["calls"] for row in rows)
    return sum(row["errors"] for row in rows) / calls if calls else None


def _latency(waits: Waits, dates: list[date]) -> Markup:
    title = "Latency a day"
    if not waits.by_day:
        return pieces.card(title, pieces.nothing("No latency is known in this period."))
    series = {
        name: {day: waits.by_day.get(day, {}).get(key) for day in dates}
        for name, key in (("Median", "p50"), ("95th percentile", "p95"))
    }
    chart = charts.lines(
        dates,
        series,
        axis=charts.SECONDS,
        tooltip=".2f",
        threshold=(RED_SECONDS, "red above 3 s"),
    )
    return pieces.card(title, chart, legend=list(series), note="Seconds until the agent answers")


def _error_days(days: list[Row], dates: list[date]) -> Markup:
    title = "Function errors a day"
    if not days:
        return pieces.card(title, pieces.nothing("No function was called in this period."))
    rates = {row["local_date"]: row["errors"] / row["calls"] for row in days}
    chart = charts.lines(
        dates,
        {"Error rate": rates},
        axis=charts.PERCENT,
        tooltip=".1%",
        threshold=(RED_ERRORS, "red above 5 %"),
    )
    return pieces.card(title, chart, note="Share of the calls that failed")


def _functions(rows: list[Row]) -> Markup:
    if not rows:
        return pieces.card("Functions", pieces.nothing("No function was called in this period."))
    cells: list[list[Child]] = [
        [
            tag("strong", row["name"]),
            wording.count(row["calls"]),
            wording.count(row["errors"]),
            _error_rate(row["errors"] / row["calls"]),
            wording.milliseconds(row["p50"]),
            wording.milliseconds(row["p95"]),
        ]
        for row in rows
    ]
    return pieces.card(
        "Functions",
        pieces.table(_COLUMNS, cells, label="Functions"),
        pieces.more(len(rows), rows[0]["names"], "functions"),
        note="Those with most calls",
    )


def _error_rate(rate: float) -> Markup:
    is_red = rate > RED_ERRORS
    return tag(
        "span",
        wording.percent(rate),
        " red" if is_red else None,
        class_="pw-bad" if is_red else None,
    )
