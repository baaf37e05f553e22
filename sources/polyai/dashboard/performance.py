"""Performance page: latency and function errors."""

from __future__ import annotations

from datetime import date

from ..views.query_reader import Reader, Row
from . import charts, components, formats, queries
from .components import Change
from .markup import Child, Markup, tag
from .overview import latency_tile
from .queries import Latencies
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
    """Returns the page for a selection."""
    latencies = queries.latencies(reader, selection)
    days = queries.function_days(reader, selection)
    functions = queries.functions(reader, selection)
    dates = selection.period.dates
    return components.page(
        components.grid(
            *(
                latency_tile(title, name, latencies, dates)
                for title, name in (
                    ("Latency, median", "p50"),
                    ("Latency, p95", "p95"),
                    ("Latency, p99", "p99"),
                )
            ),
            _errors(selection, days),
            kind="pw-tiles",
        ),
        components.grid(
            _latency(latencies, dates),
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
    return components.tile(
        "Function errors",
        formats.percent(_rate(now)),
        Change(_rate(now), _rate(before), components.points, "down"),
        f"of {formats.count(calls)} calls",
        [rates.get(day) for day in selection.period.dates],
        "Failed function calls ÷ all function calls; above 5 % is red.",
    )


def _rate(rows: list[Row]) -> float | None:
    calls = sum(row["calls"] for row in rows)
    return sum(row["errors"] for row in rows) / calls if calls else None


def _latency(latencies: Latencies, dates: list[date]) -> Markup:
    title = "Latency per day"
    if not latencies.by_day:
        return components.card(title, components.empty("No latency was recorded in this period."))
    series = {
        name: {day: latencies.by_day.get(day, {}).get(key) for day in dates}
        for name, key in (("Median", "p50"), ("95th percentile", "p95"))
    }
    chart = charts.lines(
        dates,
        series,
        axis=charts.SECONDS,
        tooltip=".2f",
        threshold=(RED_SECONDS, "red above 3 s"),
    )
    return components.card(
        title, chart, legend=list(series), note="Seconds until the agent answers"
    )


def _error_days(days: list[Row], dates: list[date]) -> Markup:
    title = "Function errors per day"
    if not days:
        return components.card(title, components.empty("No function was called in this period."))
    rates = {row["local_date"]: row["errors"] / row["calls"] for row in days}
    chart = charts.lines(
        dates,
        {"Error rate": rates},
        axis=charts.PERCENT,
        tooltip=".1%",
        threshold=(RED_ERRORS, "red above 5 %"),
    )
    return components.card(title, chart, note="Share of failed calls")


def _functions(rows: list[Row]) -> Markup:
    if not rows:
        return components.card(
            "Functions", components.empty("No function was called in this period.")
        )
    cells: list[list[Child]] = [
        [
            tag("strong", row["name"]),
            formats.count(row["calls"]),
            formats.count(row["errors"]),
            _error_rate(row["errors"] / row["calls"]),
            formats.milliseconds(row["p50"]),
            formats.milliseconds(row["p95"]),
        ]
        for row in rows
    ]
    return components.card(
        "Functions",
        components.table(_COLUMNS, cells, label="Functions"),
        components.more(len(rows), rows[0]["names"], "functions"),
        note="By number of calls",
    )


def _error_rate(rate: float) -> Markup:
    is_red = rate > RED_ERRORS
    return tag(
        "span",
        formats.percent(rate),
        " red" if is_red else None,
        class_="pw-bad" if is_red else None,
    )
