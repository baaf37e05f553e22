"""Components of pages: cards, tiles, bar lists, tables, messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from .formats import UNKNOWN, count, percent, signed
from .markup import Child, Markup, tag

Good = Literal["up", "down", None]
"""Direction in which a number improves; None for a neutral number."""

_STEADY = 1e-9
_SPARK_WIDTH, _SPARK_HEIGHT = 100, 28

_SERIES = 4
"""Number of series colours in the style sheet."""


@dataclass(frozen=True)
class Change:
    """Change of a number from the previous period.

    Attributes:
        now: The number; None if unknown.
        before: The number of the previous period.
        format: Formats a difference without its sign.
        good: Direction in which it improves.
        is_relative: True to show the difference relative to the previous number.
    """

    now: float | None
    before: float | None
    format: Callable[[float], str]
    good: Good = None
    is_relative: bool = False

    def markup(self) -> Markup:
        """Returns an arrow, the difference, and a verdict in words."""
        if self.now is None or self.before is None or (self.is_relative and not self.before):
            return tag("span", "no comparison", class_="pw-change pw-quiet")
        difference = self.now - self.before
        if self.is_relative:
            difference /= self.before
        text = self.format(abs(difference))
        if abs(difference) < _STEADY or text == self.format(0.0):
            return tag("span", "→ unchanged", class_="pw-change pw-quiet")
        is_up = difference > 0
        verdict, kind = ("more" if is_up else "less"), "pw-quiet"
        if self.good:
            is_better = is_up == (self.good == "up")
            verdict, kind = ("better", "pw-good") if is_better else ("worse", "pw-bad")
        arrow = tag("span", "▲ " if is_up else "▼ ", aria_hidden="true")
        return tag(
            "span", arrow, signed(text, difference), f" {verdict}", class_=f"pw-change {kind}"
        )


def points(difference: float) -> str:
    """Formats a difference of ratios: 2.1 pts."""
    return f"{difference * 100:.1f} pts"


def tile(
    title: str,
    value: str,
    change: Change,
    note: str = "",
    trend: Sequence[float | None] = (),
    hint: str | None = None,
) -> Markup:
    """Returns a tile: a number, its change, and its trend.

    Args:
        title: Name of the number.
        value: The formatted number.
        change: Change from the previous period.
        note: An additional number.
        trend: One value per day for the sparkline; None leaves a gap.
        hint: Definition of the number.
    """
    return tag(
        "section",
        tag("h3", title, title=hint),
        tag("p", value, class_="pw-value"),
        tag("p", change.markup(), class_="pw-compare"),
        tag("p", note, class_="pw-note"),
        sparkline(trend),
        class_="pw-card pw-tile",
        data_tile=title,
    )


def sparkline(values: Sequence[float | None]) -> Markup:
    """Returns a small line chart without axes; None leaves a gap."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup("")
    low, high = min(known), max(known)
    spread = (high - low) or 1
    step = _SPARK_WIDTH / (len(values) - 1)
    points = [
        (index * step, _SPARK_HEIGHT - 2 - (value - low) / spread * (_SPARK_HEIGHT - 4))
        if value is not None
        else None
        for index, value in enumerate(values)
    ]
    parts = [
        [point for point in group if point]
        for is_known, group in groupby(points, key=lambda point: point is not None)
        if is_known
    ]
    # a single point is repeated: a line from a point to itself is drawn as a dot
    lines = [
        tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in (*part, part[-1])))
        for part in parts
    ]
    return tag(
        "svg",
        *lines,
        viewBox=f"0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}",
        preserveAspectRatio="none",
        class_="pw-spark",
        aria_hidden="true",
    )


def grid(*children: Child, kind: str = "") -> Markup:
    """Returns components side by side, as many as fit."""
    return tag("div", *children, class_=f"pw-grid {kind}".strip())


def card(title: str, *children: Child, note: str = "", legend: Sequence[str] = ()) -> Markup:
    """Returns a box with a title.

    Args:
        title: The title.
        children: The content.
        note: A line below the title.
        legend: Names of the series in the order of their colours.
    """
    return tag(
        "section",
        tag(
            "header",
            tag("h2", title),
            tag("p", note, class_="pw-note") if note else None,
            _legend(legend) if legend else None,
        ),
        *children,
        class_="pw-card",
        data_card=title,
    )


def _legend(names: Sequence[str]) -> Markup:
    return tag(
        "ul",
        *(
            tag("li", tag("i", class_=f"pw-series-{number}"), name)
            for number, name in enumerate(names[:_SERIES], start=1)
        ),
        class_="pw-legend",
    )


def bar_list(rows: Sequence[Mapping[str, Any]], *, of: str) -> Markup:
    """Returns a list of names with their number, change and bar.

    Args:
        rows: Each with `name`, `now` and `before`.
        of: Name of the counted things, such as conversations.
    """
    most = max((row["now"] for row in rows), default=0) or 1
    return tag(
        "ol",
        *(
            tag(
                "li",
                tag("span", row["name"], class_="pw-name", title=row["name"]),
                tag("span", count(row["now"]), class_="pw-number"),
                Change(row["now"], row["before"], _whole_percent, is_relative=True).markup(),
                tag(
                    "span",
                    tag("span", style=f"width:{row['now'] / most * 100:.1f}%"),
                    class_="pw-bar",
                    aria_hidden="true",
                ),
            )
            for row in rows
        ),
        class_="pw-bars",
        aria_label=of,
    )


def _whole_percent(value: float) -> str:
    return percent(value, 0)


def change_of_count(now: float | None, before: float | None) -> Change:
    """Returns the relative change of a count."""
    return Change(now, before, _whole_percent, is_relative=True)


Cell = str | None
Column = tuple[str, bool]
"""Heading of a column, and True for a column of numbers."""


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, label: str) -> Markup:
    """Returns a table; on a phone each row is a block of labelled cells.

    Args:
        columns: Headings of the columns.
        rows: One cell per column.
        label: Accessible name of the table.
    """
    head = tag(
        "tr",
        *(tag("th", name, scope="col", class_=_kind(is_number)) for name, is_number in columns),
    )
    body = [
        tag(
            "tr",
            *(
                tag(
                    "td",
                    UNKNOWN if cell is None or cell == "" else cell,
                    class_=_kind(is_number),
                    data_label=name,
                )
                for (name, is_number), cell in zip(columns, row)
            ),
        )
        for row in rows
    ]
    return tag(
        "table", tag("thead", head), tag("tbody", *body), class_="pw-table", aria_label=label
    )


def _kind(is_number: bool) -> str | None:
    return "pw-number" if is_number else None


def chip(text: str, kind: str = "") -> Markup:
    """Returns a short text in a box."""
    return tag("span", text, class_=f"pw-chip {kind}".strip())


def facts(pairs: Sequence[tuple[str, Cell]]) -> Markup:
    """Returns a list of names and values, without unknown values."""
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", value))
            for name, value in pairs
            if value not in (None, "", UNKNOWN)
        ),
        class_="pw-facts",
    )


def message(title: str, *paragraphs: Child, kind: str = "") -> Markup:
    """Returns a message with advice in place of a page or list."""
    return tag(
        "section",
        tag("h2", title),
        *(tag("p", one) for one in paragraphs if one is not None),
        class_=f"pw-card pw-message {kind}".strip(),
        role="status",
    )


def code(text: str) -> Markup:
    """Returns a command to type."""
    return tag("code", text)


def empty(text: str) -> Markup:
    """Returns the text of an empty card."""
    return tag("p", text, class_="pw-nothing")


def page(*children: Child, name: str) -> Markup:
    """Returns a whole page."""
    return tag("main", *children, class_="pw-page", data_page=name)


def more(shown: int, number: int, what: str) -> Markup | None:
    """Returns the number of entries that are not shown; None if there are none."""
    if number <= shown:
        return None
    return tag("p", f"and {count(number - shown)} more {what}", class_="pw-note pw-more")


def lines_of(*children: Child) -> Markup:
    """Returns lines below each other."""
    lines = (tag("span", child, class_="pw-line") for child in children if child)
    return tag("span", *lines, class_="pw-lines")
