"""Altair charts in the width of their container and the colours of the page.

Colours are variables of the style sheet, so that they follow changes between light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import altair as alt
import marimo as mo

from .formats import weekday
from .markup import Markup

HEIGHT = 208
"""Height in pixels, on the 8-pixel grid."""

_DAYS_NAMED = 7
"""Maximum number of labelled days on the axis, which include the last one."""

SERIES = ("var(--pw-series-1)", "var(--pw-series-2)", "var(--pw-series-3)", "var(--pw-series-4)")
_MUTED = "var(--pw-muted)"
_LINE = "var(--pw-line)"
_BAD = "var(--pw-bad)"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"

_TICKS = 4

_NICE = alt.Scale(zero=True, nice=_TICKS)
"""Scale from 0 to a round number."""

PERCENT = "format(datum.value * 100, '.0f') + ' %'"
SECONDS = "format(datum.value, '.1f') + ' s'"
COUNT = "format(datum.value, ',')"
SCORE = "format(datum.value, '.1f')"

Series = Mapping[str, Mapping[date, float | None]]
"""Values by day, by the name of the series."""


def bars(
    dates: Sequence[date], values: Mapping[date, float | None], *, of: str, axis: str = COUNT
) -> Markup:
    """Returns a bar chart with one bar per day; days without a value are 0.

    Args:
        dates: The days in order.
        values: Values by day.
        of: Name of the counted things, for the tooltip.
        axis: Vega expression for the labels of the axis.
    """
    rows = [
        {"day": one.isoformat(), "label": weekday(one), of: values.get(one) or 0} for one in dates
    ]
    chart = (
        alt.Chart(_data(rows))
        .mark_bar(color=SERIES[0], cornerRadiusTopLeft=2, cornerRadiusTopRight=2)
        .encode(
            x=_days(dates),
            y=alt.Y(f"{of}:Q", title=None, scale=_NICE, axis=_axis(axis, whole=True)),
            tooltip=[alt.Tooltip("label:N", title="Day"), alt.Tooltip(f"{of}:Q", format=",")],
        )
    )
    return html(chart)


def stacked(dates: Sequence[date], series: Series) -> Markup:
    """Returns a stacked bar chart with one bar per day.

    Args:
        dates: The days in order.
        series: Values of each part, in stacking order; at most as many as there are colours.
    """
    rows = [
        {
            "day": one.isoformat(),
            "label": weekday(one),
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
                alt.Tooltip("label:N", title="Day"),
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
    """Returns a line chart; a day without a value is a gap.

    Args:
        dates: The days in order.
        series: Values of each line; at most as many as there are colours.
        axis: Vega expression for the labels of the axis.
        tooltip: Vega format of a value.
        domain: Fixed ends of the axis.
        threshold: Upper limit of good values, and its label.
    """
    rows = [
        {"day": one.isoformat(), "label": weekday(one), "part": name, "number": values.get(one)}
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
        # large and invisible, so that it can be touched on a phone
        base.transform_filter("isValid(datum.number)")
        .mark_point(size=400, opacity=0, filled=True)
        .encode(
            tooltip=[
                alt.Tooltip("label:N", title="Day"),
                alt.Tooltip("part:N", title="Series"),
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
    """Returns the chart as an element of marimo's page."""
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
        # `ast`: interprets expressions, which the policy of the page does not allow to be compiled
        .properties(usermeta={"embedOptions": {"renderer": "svg", "actions": False, "ast": True}})
    )
    return Markup(mo.as_html(styled).text)


def _days(dates: Sequence[date]) -> alt.X:
    """Axis of days, some of them labelled."""
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
    """Dots if there are few days: a single day between two gaps would be invisible otherwise."""
    return alt.OverlayMarkDef(filled=True, size=24) if len(dates) < 45 else False
