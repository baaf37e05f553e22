"""What pages are made of: cards, tiles with their change, lists of bars, tables, messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

from .markup import Child, Markup, tag
from .wording import UNKNOWN, count, percent, signed

Good = Literal["up", "down", None]
"""The direction in which a number gets better; None where neither is."""

_STEADY = 1e-9
_SPARK_WIDTH, _SPARK_HEIGHT = 100, 28

_SERIES = 4
"""Colours of series that the style sheet has."""


@dataclass(frozen=True)
class Change:
    """A number against the period before.

    Attributes:
        now: The number; None where it is not known.
        before: The same of the period before.
        says: Words a difference, without its sign.
        good: The direction in which it gets better.
        is_relative: Tell the difference as a share of the number before.
    """

    now: float | None
    before: float | None
    says: Callable[[float], str]
    good: Good = None
    is_relative: bool = False

    def markup(self) -> Markup:
        """An arrow, the difference, and in words whether that is good."""
        if self.now is None or self.before is None or (self.is_relative and not self.before):
            return tag("span", "no comparison", class_="pw-change pw-quiet")
        difference = self.now - self.before
        if self.is_relative:
            difference /= self.before
        said = self.says(abs(difference))
        if abs(difference) < _STEADY or said == self.says(0.0):
            return tag("span", "→ unchanged", class_="pw-change pw-quiet")
        is_up = difference > 0
        verdict, kind = ("more" if is_up else "less"), "pw-quiet"
        if self.good:
            is_better = is_up == (self.good == "up")
            verdict, kind = ("better", "pw-good") if is_better else ("worse", "pw-bad")
        arrow = tag("span", "▲ " if is_up else "▼ ", aria_hidden="true")
        return tag(
            "span", arrow, signed(said, difference), f" {verdict}", class_=f"pw-change {kind}"
        )


def points(difference: float) -> str:
    """The difference of two ratios: 2.1 pts."""
    return f"{difference * 100:.1f} pts"


def tile(
    title: str,
    value: str,
    change: Change,
    note: str = "",
    trend: Sequence[float | None] = (),
    hint: str | None = None,
) -> Markup:
    """A number, what it was before, and how it went.

    Args:
        title: What it is.
        value: Worded.
        change: Against the period before.
        note: A further number.
        trend: A value a day, for the line; None leaves a gap.
        hint: How it is defined.
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
    """A small line without axes; None leaves a gap."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup("")
    low, high = min(known), max(known)
    spread = (high - low) or 1
    step = _SPARK_WIDTH / (len(values) - 1)
    placed = [
        (number * step, _SPARK_HEIGHT - 2 - (value - low) / spread * (_SPARK_HEIGHT - 4))
        if value is not None
        else None
        for number, value in enumerate(values)
    ]
    parts = [
        [place for place in group if place]
        for is_known, group in groupby(placed, key=lambda place: place is not None)
        if is_known
    ]
    # a lone day is a line to itself, which is drawn as a dot
    pieces = [
        tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in (*part, part[-1])))
        for part in parts
    ]
    return tag(
        "svg",
        *pieces,
        viewBox=f"0 0 {_SPARK_WIDTH} {_SPARK_HEIGHT}",
        preserveAspectRatio="none",
        class_="pw-spark",
        aria_hidden="true",
    )


def grid(*children: Child, kind: str = "") -> Markup:
    """Pieces side by side, as many as fit."""
    return tag("div", *children, class_=f"pw-grid {kind}".strip())


def card(title: str, *children: Child, note: str = "", legend: Sequence[str] = ()) -> Markup:
    """A titled box.

    Args:
        title: What is in it.
        children: What is in it.
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
    """Names with a bar, their number, their share and their change.

    Args:
        rows: Each with `name`, `now` and `before`.
        of: What is counted, such as conversations.
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
    """A count against the one before, as a share of it."""
    return Change(now, before, _whole_percent, is_relative=True)


Cell = str | None
Column = tuple[str, bool]
"""A column's heading, and whether numbers stand in it."""


def table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]], *, label: str) -> Markup:
    """A table; on a phone each row is a block that names its cells.

    Args:
        columns: Their headings.
        rows: A cell for each column.
        label: What it lists.
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
    """A short word in a box."""
    return tag("span", text, class_=f"pw-chip {kind}".strip())


def facts(pairs: Sequence[tuple[str, Cell]]) -> Markup:
    """Names and values; those that are not known are left out."""
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", value))
            for name, value in pairs
            if value not in (None, "", UNKNOWN)
        ),
        class_="pw-facts",
    )


def message(title: str, *said: Child, kind: str = "") -> Markup:
    """What to do where there is nothing to show."""
    return tag(
        "section",
        tag("h2", title),
        *(tag("p", one) for one in said if one is not None),
        class_=f"pw-card pw-message {kind}".strip(),
        role="status",
    )


def code(text: str) -> Markup:
    """A command to type."""
    return tag("code", text)


def nothing(text: str) -> Markup:
    """A line where a card has nothing to show."""
    return tag("p", text, class_="pw-nothing")


def page(*children: Child, name: str) -> Markup:
    """A whole page."""
    return tag("main", *children, class_="pw-page", data_page=name)


def more(shown: int, number: int, what: str) -> Markup | None:
    """Tells that a list goes on; None where it does not."""
    if number <= shown:
        return None
    return tag("p", f"and {count(number - shown)} more {what}", class_="pw-note pw-more")


def lines_of(*children: Child) -> Markup:
    """Lines below each other in one place."""
    lines = (tag("span", child, class_="pw-line") for child in children if child)
    return tag("span", *lines, class_="pw-lines")
