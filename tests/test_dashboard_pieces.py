"""What the dashboard's pages are made of: markup, words, periods and changes."""

from __future__ import annotations

from datetime import date, datetime

import pytest

from polyai.dashboard import pieces, wording
from polyai.dashboard.markup import Markup, joined, tag
from polyai.dashboard.pieces import Change
from polyai.dashboard.selection import Period, Selection, ending
from polyai.dashboard.totals import Totals, total

EVIL = """<img src=x onerror="alert('x')">"""


def test_whatever_is_no_markup_is_escaped() -> None:
    assert tag("p", EVIL) == "<p>&lt;img src=x onerror=&quot;alert(&#x27;x&#x27;)&quot;&gt;</p>"
    assert tag("p", title=EVIL).count("<") == 2
    assert tag("p", tag("b", "a")) == "<p><b>a</b></p>"
    assert joined("<", Markup("<br>"), None) == "&lt;<br>"
    assert tag("input", class_="a", aria_label="b", hidden=True, title=None, disabled=False) == (
        '<input class="a" aria-label="b" hidden>'
    )


def test_no_piece_lets_markup_through() -> None:
    made = [
        pieces.card(EVIL, EVIL, note=EVIL, legend=[EVIL]),
        pieces.tile(EVIL, EVIL, Change(1, 2, wording.count), EVIL, [1, 2], EVIL),
        pieces.bar_list([{"name": EVIL, "now": 2, "before": 1}], of=EVIL),
        pieces.table([(EVIL, True)], [[EVIL]], label=EVIL),
        pieces.chip(EVIL),
        pieces.facts([(EVIL, EVIL)]),
        pieces.message(EVIL, EVIL),
    ]
    for piece in made:
        assert "<img" not in piece
        assert "&lt;img" in piece


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (wording.count(1234), "1,234"),
        (wording.count(None), "–"),
        (wording.count(0), "0"),
        (wording.percent(0.6123), "61.2 %"),
        (wording.percent(None), "–"),
        (wording.decimal(4.256), "4.26"),
        (wording.decimal(None), "–"),
        (wording.duration(None), "–"),
        (wording.duration(45.4), "45 s"),
        (wording.duration(192), "3 m 12 s"),
        (wording.duration(59.7), "1 m 00 s"),
        (wording.duration(3900), "1 h 05 m"),
        (wording.seconds(1.236), "1.24 s"),
        (wording.milliseconds(840.2), "840 ms"),
        (wording.milliseconds(1236), "1.24 s"),
        (wording.milliseconds(None), "–"),
        (wording.moment(datetime(2026, 11, 3, 9, 5)), "3 Nov 2026, 09:05"),
        (wording.moment(None), "–"),
        (wording.days(date(2026, 11, 3), date(2026, 11, 3)), "3 Nov 2026"),
        (wording.days(date(2026, 11, 3), date(2026, 11, 9)), "3 – 9 Nov 2026"),
        (wording.days(date(2026, 10, 28), date(2026, 11, 3)), "28 Oct – 3 Nov 2026"),
        (wording.days(date(2025, 12, 28), date(2026, 1, 3)), "28 Dec 2025 – 3 Jan 2026"),
        (wording.age(59), "59 min"),
        (wording.age(600), "10 h"),
        (wording.age(6000), "4 days"),
        (wording.age(None), "–"),
        (wording.size(80_114), "80.1 kB"),
        (wording.size(12), "12 B"),
        (wording.size(None), "–"),
        (wording.phrase("wrong_info"), "Wrong info"),
        (wording.phrase(None), "–"),
    ],
)
def test_numbers_are_worded_with_their_units(said: str, expected: str) -> None:
    assert said == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Change(0.8, 0.75, pieces.points, "up"), ("▲", "+5.0 pts better", "pw-good")),
        (Change(0.7, 0.75, pieces.points, "up"), ("▼", "−5.0 pts worse", "pw-bad")),
        (Change(2.0, 2.5, wording.seconds, "down"), ("▼", "−0.50 s better", "pw-good")),
        (Change(0.8, 0.80001, pieces.points, "up"), ("→", "unchanged", "pw-quiet")),
        (pieces.change_of_count(120, 100), ("▲", "+20 % more", "pw-quiet")),
        (pieces.change_of_count(50, 100), ("▼", "−50 % less", "pw-quiet")),
        (pieces.change_of_count(50, 0), ("", "no comparison", "pw-quiet")),
        (Change(None, 1, wording.count), ("", "no comparison", "pw-quiet")),
        (Change(1, None, wording.count), ("", "no comparison", "pw-quiet")),
    ],
)
def test_a_change_says_in_words_whether_it_is_good(
    change: Change, expected: tuple[str, ...]
) -> None:
    made = change.markup()
    for part in expected:
        assert part in made


def test_a_sparkline_leaves_gaps() -> None:
    assert pieces.sparkline([1, 2, None, 3]).count("<polyline") == 2
    assert pieces.sparkline([None, 1]) == ""
    assert "nan" not in pieces.sparkline([5, 5, 5])


def test_periods_are_followed_by_their_like() -> None:
    week = ending(date(2026, 11, 3), 7)
    assert week == Period(date(2026, 10, 28), date(2026, 11, 3))
    assert week.previous == Period(date(2026, 10, 21), date(2026, 10, 27))
    assert (week.length, len(week.dates)) == (7, 7)
    assert Selection(week).both == Period(date(2026, 10, 21), date(2026, 11, 3))


def test_filters_become_conditions_with_values_beside_them() -> None:
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


def test_rates_of_nothing_are_not_known() -> None:
    nothing = total([])
    assert nothing == Totals()
    assert nothing.containment_rate is nothing.handoff_rate is None
    assert nothing.poly_score_1_5_mean is nothing.csat_mean is None
