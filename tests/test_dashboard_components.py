"""Components of the dashboard: markup, formats, periods and changes."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from polyai.dashboard import components, formats
from polyai.dashboard.components import Change
from polyai.dashboard.dashboard import Dashboard
from polyai.dashboard.markup import Markup, joined, tag
from polyai.dashboard.queries import Choices
from polyai.dashboard.selection import Period, Selection, ending
from polyai.dashboard.totals import Totals, total

pytestmark = pytest.mark.unit

EVIL = """<img src=x onerror="alert('x')">"""


def test_text_that_is_not_markup_is_escaped() -> None:
    assert tag("p", EVIL) == "<p>&lt;img src=x onerror=&quot;alert(&#x27;x&#x27;)&quot;&gt;</p>"
    assert tag("p", title=EVIL).count("<") == 2
    assert tag("p", tag("b", "a")) == "<p><b>a</b></p>"
    assert joined("<", Markup("<br>"), None) == "&lt;<br>"
    assert tag("input", class_="a", aria_label="b", hidden=True, title=None, disabled=False) == (
        '<input class="a" aria-label="b" hidden>'
    )


def test_components_escape_untrusted_text() -> None:
    markup = [
        components.card(EVIL, EVIL, note=EVIL, legend=[EVIL]),
        components.tile(EVIL, EVIL, Change(1, 2, formats.count), EVIL, [1, 2], EVIL),
        components.bar_list([{"name": EVIL, "now": 2, "before": 1}], of=EVIL),
        components.table([(EVIL, True)], [[EVIL]], label=EVIL),
        components.chip(EVIL),
        components.facts([(EVIL, EVIL)]),
        components.message(EVIL, EVIL),
    ]
    for component in markup:
        assert "<img" not in component
        assert "&lt;img" in component


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (formats.count(1234), "1,234"),
        (formats.count(None), "–"),
        (formats.count(0), "0"),
        (formats.percent(0.6123), "61.2 %"),
        (formats.percent(None), "–"),
        (formats.decimal(4.256), "4.26"),
        (formats.decimal(None), "–"),
        (formats.duration(None), "–"),
        (formats.duration(45.4), "45 s"),
        (formats.duration(192), "3 m 12 s"),
        (formats.duration(59.7), "1 m 00 s"),
        (formats.duration(3900), "1 h 05 m"),
        (formats.seconds(1.236), "1.24 s"),
        (formats.milliseconds(840.2), "840 ms"),
        (formats.milliseconds(1236), "1.24 s"),
        (formats.milliseconds(None), "–"),
        (formats.moment(datetime(2026, 11, 3, 9, 5)), "3 Nov 2026, 09:05"),
        (formats.moment(None), "–"),
        (formats.days(date(2026, 11, 3), date(2026, 11, 3)), "3 Nov 2026"),
        (formats.days(date(2026, 11, 3), date(2026, 11, 9)), "3 – 9 Nov 2026"),
        (formats.days(date(2026, 10, 28), date(2026, 11, 3)), "28 Oct – 3 Nov 2026"),
        (formats.days(date(2025, 12, 28), date(2026, 1, 3)), "28 Dec 2025 – 3 Jan 2026"),
        (formats.age(59), "59 min"),
        (formats.age(600), "10 h"),
        (formats.age(6000), "4 days"),
        (formats.age(None), "–"),
        (formats.size(80_114), "80.1 kB"),
        (formats.size(12), "12 B"),
        (formats.size(None), "–"),
        (formats.phrase("wrong_info"), "Wrong info"),
        (formats.phrase(None), "–"),
    ],
)
def test_numbers_are_formatted_with_their_units(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change(0.8, 0.75, components.points, "up"), ("▲", "+5.0 pts better", "pw-good")),
        (Change(0.7, 0.75, components.points, "up"), ("▼", "−5.0 pts worse", "pw-bad")),
        (Change(2.0, 2.5, formats.seconds, "down"), ("▼", "−0.50 s better", "pw-good")),
        (Change(0.8, 0.80001, components.points, "up"), ("→", "unchanged", "pw-quiet")),
        (components.change_of_count(120, 100), ("▲", "+20 % more", "pw-quiet")),
        (components.change_of_count(50, 100), ("▼", "−50 % less", "pw-quiet")),
        (components.change_of_count(50, 0), ("", "no comparison", "pw-quiet")),
        (Change(None, 1, formats.count), ("", "no comparison", "pw-quiet")),
        (Change(1, None, formats.count), ("", "no comparison", "pw-quiet")),
    ],
)
def test_a_change_has_a_verdict_in_words(change: Change, expected: tuple[str, ...]) -> None:
    markup = change.markup()
    for part in expected:
        assert part in markup


def test_a_sparkline_leaves_gaps() -> None:
    assert components.sparkline([1, 2, None, 3]).count("<polyline") == 2
    assert components.sparkline([None, 1]) == ""
    assert "nan" not in components.sparkline([5, 5, 5])


def test_the_previous_period_has_the_same_length() -> None:
    week = ending(date(2026, 11, 3), 7)
    assert week == Period(date(2026, 10, 28), date(2026, 11, 3))
    assert week.previous == Period(date(2026, 10, 21), date(2026, 10, 27))
    assert (week.length, len(week.dates)) == (7, 7)
    assert Selection(week).both == Period(date(2026, 10, 21), date(2026, 11, 3))


def test_filters_become_conditions_with_bound_values() -> None:
    where, values = Selection(ending(date(2026, 11, 3), 1), agent="A'", channel="B").where("v")
    assert where == (
        "v.local_date BETWEEN $since AND $until AND v.agent_id = $agent AND v.channel = $channel"
    )
    assert values == {
        "since": date(2026, 11, 3),
        "until": date(2026, 11, 3),
        "agent": "A'",
        "channel": "B",
    }


def test_filters_show_known_names_before_ids() -> None:
    today = date(2026, 11, 3)
    rows = (
        ("A", "VOICE", "live", "v1"),
        ("B", "VOICE", "live", "v2"),
        ("B", "CHAT", "live", "none"),
    )
    choices = Choices(today, today, today, rows, {("A", "v1"): "London"}, {"B": "Spa"})
    assert Dashboard.options("agent", choices) == {"All agents": None, "A": "A", "Spa (B)": "B"}
    assert Dashboard.options("variant", choices) == {
        "All variants": None,
        "London (v1)": "v1",
        "v2": "v2",
        "No variant": "none",
    }
    assert list(Dashboard.options("variant", choices, "A")) == ["All variants", "London (v1)"]


def test_rates_without_conversations_are_unknown() -> None:
    nothing = total([])
    assert nothing == Totals()
    assert nothing.containment_rate is nothing.handoff_rate is None
    assert nothing.poly_score_1_5_mean is nothing.csat_mean is None
