"""Charts of Altair: as wide as their place, in the page's own colours, light or dark.

Colours are the style sheet's variables, which SVG follows also when the theme changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import altair as alt
import marimo as mo

from .markup import Markup
from .wording import weekday

HEIGHT = 208
"""Pixels, on the grid of 8."""

_DAYS_NAMED = 7
"""Days that are named on the axis, up to the last one."""

SERIES = ("var(--pw-series-1)", "var(--pw-series-2)", "var(--pw-series-3)", "var(--pw-series-4)")
_MUTED = "var(--pw-muted)"
_LINE = "var(--pw-line)"
_BAD = "var(--pw-bad)"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"

_TICKS = 4

_NICE = alt.Scale(zero=True, nice=_TICKS)
"""From 0 to a round number."""

PERCENT = "format(datum.value * 100, '.0f') + ' %'"
SECONDS = "format(datum.value, '.1f') + ' s'"
COUNT = "format(datum.value, ',')"
SCORE = "format(datum.value, '.1f')"

Series = Mapping[str, Mapping[date, float | None]]
"""Values by day of each line, by its name."""


def bars(
    dates: Sequence[date], values: Mapping[date, float | None], *, of: str, axis: str = COUNT
) -> Markup:
    """A bar a day; days without a value are 0.

    Args:
        dates: The days in order.
        values: By day.
        of: What is counted, for the tooltip.
        axis: Vega's expression for a label of the axis.
    """
    rows = [
        {"day": one.isoformat(), "said": weekday(one), of: values.get(one) or 0} for one in dates
    ]
    chart = (
        alt.Chart(_data(rows))
        .mark_bar(color=SERIES[0], cornerRadiusTopLeft=2, cornerRadiusTopRight=2)
        .encode(
            x=_days(dates),
            y=alt.Y(f"{of}:Q", title=None, scale=_NICE, axis=_axis(axis, whole=True)),
            tooltip=[alt.Tooltip("said:N", title="Day"), alt.Tooltip(f"{of}:Q", format=",")],
        )
    )
    return html(chart)


def stacked(dates: Sequence[date], series: Series) -> Markup:
    """Bars of several parts a day, in the order of the series.

    Args:
        dates: The days in order.
        series: Each part's values, at most as many as there are colours.
    """
    rows = [
        {
            "day": one.isoformat(),
            "said": weekday(one),
            "part": name,
            "order": order,
            "number": number,
        }
        for order, (name, values) in enumerate(series.items())
        for one in dates
        if (number := values.get(one))
    ]
    chart = (
        alt.Chart(_data(rows))
        .mark_bar()
        .encode(
            x=_days(dates),
            y=alt.Y("number:Q", title=None, scale=_NICE, axis=_axis(COUNT, whole=True)),
            color=_colours(list(series)),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("said:N", title="Day"),
                alt.Tooltip("part:N", title="Reason"),
                alt.Tooltip("number:Q", title="Number", format=","),
            ],
        )
    )
    return html(chart)


def lines(
    dates: Sequence[date],
    series: Series,
    *,
    axis: str,
    tooltip: str,
    domain: tuple[float, float] | None = None,
    threshold: tuple[float, str] | None = None,
) -> Markup:
    """A line each; a day without a value is a gap.

    Args:
        dates: The days in order.
        series: Each line's values, at most as many as there are colours.
        axis: Vega's expression for a label of the axis.
        tooltip: Vega's format of a value.
        domain: Ends of the axis, where they are known.
        threshold: A value to stay below, and what it is called.
    """
    rows = [
        {"day": one.isoformat(), "said": weekday(one), "part": name, "number": values.get(one)}
        for name, values in series.items()
        for one in dates
    ]
    scale = alt.Scale(domain=list(domain)) if domain else _NICE
    base = alt.Chart(_data(rows)).encode(
        x=_days(dates),
        y=alt.Y("number:Q", title=None, scale=scale, axis=_axis(axis)),
        color=_colours(list(series)),
    )
    layers: list[Any] = [
        base.mark_line(strokeWidth=2, strokeJoin="round", point=_points(dates)),
        # wide and unseen, so that a finger meets it
        base.transform_filter("isValid(datum.number)")
        .mark_point(size=400, opacity=0, filled=True)
        .encode(
            tooltip=[
                alt.Tooltip("said:N", title="Day"),
                alt.Tooltip("part:N", title="What"),
                alt.Tooltip("number:Q", title="Value", format=tooltip),
            ]
        ),
    ]
    if threshold:
        at, name = threshold
        rule = alt.Chart(_data([{"at": at, "name": name}])).encode(y=alt.Y("at:Q"))
        layers.append(rule.mark_rule(color=_BAD, strokeDash=[4, 4]))
        layers.append(
            rule.mark_text(color=_BAD, align="left", baseline="bottom", dx=4, dy=-3).encode(
                x=alt.value(0), text="name:N"
            )
        )
    return html(alt.layer(*layers))


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def html(chart: Any) -> Markup:
    """What marimo's page makes the chart of."""
    styled = (
        chart.properties(width="container", height=HEIGHT)
        .configure(
            background="transparent",
            font=_FONT,
            padding={"left": 0, "top": 8, "right": 8, "bottom": 0},
        )
        .configure_view(stroke=None)
        .configure_axis(
            domain=False,
            ticks=False,
            gridColor=_LINE,
            labelColor=_MUTED,
            labelFontSize=12,
            labelPadding=8,
        )
        .configure_text(fontSize=12)
        .properties(usermeta={"embedOptions": {"renderer": "svg", "actions": False}})
    )
    return Markup(mo.as_html(styled).text)


def _days(dates: Sequence[date]) -> alt.X:
    """The days from left to right, each with a place of its own, some of them named."""
    step = max(1, -(-len(dates) // _DAYS_NAMED))
    axis = alt.Axis(
        grid=False,
        labelAngle=0,
        labelExpr="utcFormat(toDate(datum.value), '%-d %b')",
        labelOverlap=True,
        values=[one.isoformat() for one in dates[::-step]],
    )
    return alt.X("day:O", title=None, axis=axis)


def _axis(label: str, *, whole: bool = False) -> alt.Axis:
    options: dict[str, Any] = {"tickMinStep": 1} if whole else {}
    return alt.Axis(labelExpr=label, tickCount=_TICKS, **options)


def _colours(names: list[str]) -> alt.Color:
    return alt.Color(
        "part:N",
        scale=alt.Scale(domain=names, range=list(SERIES[: len(names)])),
        legend=None,
    )


def _points(dates: Sequence[date]) -> Any:
    """Dots where there are few days: a day between two gaps would not be seen."""
    return alt.OverlayMarkDef(filled=True, size=24) if len(dates) < 45 else False
