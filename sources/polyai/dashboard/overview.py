"""The page that tells at a glance how the agents do."""

from __future__ import annotations

from datetime import date

from ..views.query_reader import Reader, Row
from . import charts, pieces, queries, wording
from .markup import Markup, tag
from .pieces import Change
from .queries import Waits
from .selection import LIVE, Selection
from .totals import Totals, total

_CONTAINED = (
    "Share of finished conversations without a handoff to a person. An abandoned call counts as "
    "contained; the number below leaves those out."
)

_FLAGS = {
    "latency_p50": "Median latency",
    "latency_p95": "95th percentile of latency",
    "function_errors": "Function errors",
    "handoff_rate": "Handoff rate",
    "handoff_above_baseline": "Handoff rate against the week before",
    "volume_down": "Volume against the same weekday",
}


def page(reader: Reader, selection: Selection) -> Markup:
    """The page of the selection."""
    rows = queries.daily(reader, selection)
    now = total(queries.of_period(rows, selection.period))
    before = total(queries.of_period(rows, selection.period.previous))
    by_day = {row["local_date"]: total([row]) for row in rows}
    waits = queries.waits(reader, selection)
    handled = queries.handle_times(reader, selection)
    dates = selection.period.dates
    days = [by_day.get(day, Totals()) for day in dates]
    return pieces.page(
        pieces.grid(
            *_tiles(days, now, before),
            *_score_tiles(days, now, before),
            _time_tile(days, now, before, handled),
            *(
                latency_tile(title, name, waits, dates)
                for title, name in (("Latency, median", "p50"), ("Latency, p95", "p95"))
            ),
            kind="pw-tiles",
        ),
        pieces.grid(
            *_charts(dates, by_day, now),
            kind="pw-halves",
        ),
        _flags(reader, selection),
        name="overview",
    )


def _tiles(days: list[Totals], now: Totals, before: Totals) -> list[Markup]:
    in_progress = now.conversations - now.finished_conversations
    return [
        pieces.tile(
            "Conversations",
            wording.count(now.conversations),
            pieces.change_of_count(now.conversations, before.conversations),
            f"{wording.count(in_progress)} in progress when read" if in_progress else "",
            [day.conversations for day in days],
        ),
        pieces.tile(
            "Containment",
            wording.percent(now.containment_rate),
            Change(now.containment_rate, before.containment_rate, pieces.points, "up"),
            f"{wording.percent(now.containment_rate_excl_abandoned)} without abandoned",
            [day.containment_rate for day in days],
            _CONTAINED,
        ),
        pieces.tile(
            "Handoff rate",
            wording.percent(now.handoff_rate),
            Change(now.handoff_rate, before.handoff_rate, pieces.points, "down"),
            f"{wording.count(now.handed_off_conversations)} handed to a person",
            [day.handoff_rate for day in days],
        ),
    ]


def _score_tiles(days: list[Totals], now: Totals, before: Totals) -> list[Markup]:
    older = (
        f"; on the older 0–10 scale {wording.decimal(now.poly_score_0_10_mean)}"
        if now.scored_conversations_0_10
        else ""
    )
    return [
        pieces.tile(
            "PolyScore, of 5",
            wording.decimal(now.poly_score_1_5_mean),
            Change(now.poly_score_1_5_mean, before.poly_score_1_5_mean, wording.decimal, "up"),
            f"{wording.count(now.scored_conversations_1_5)} scored{older}",
            [day.poly_score_1_5_mean for day in days],
            "Mean over scored conversations. The older scale of 0 to 10 is never mixed in.",
        ),
        pieces.tile(
            "CSAT, of 5",
            wording.decimal(now.csat_mean),
            Change(now.csat_mean, before.csat_mean, wording.decimal, "up"),
            f"{wording.count(now.csat_answers)} answers, "
            f"{wording.percent(now.csat_response_rate, 0)} of those asked",
            [day.csat_mean for day in days],
        ),
    ]


def _time_tile(days: list[Totals], now: Totals, before: Totals, handled: Row) -> Markup:
    return pieces.tile(
        "Average handle time",
        wording.duration(now.handle_time_seconds_mean),
        Change(now.handle_time_seconds_mean, before.handle_time_seconds_mean, wording.duration),
        f"median {wording.duration(handled['p50'])}, p95 {wording.duration(handled['p95'])}",
        [day.handle_time_seconds_mean for day in days],
        "Whole contact, handoff included.",
    )


def latency_tile(title: str, name: str, waits: Waits, dates: list[date]) -> Markup:
    """A percentile of the turns' latencies.

    Args:
        title: Of the tile.
        name: p50, p95 or p99.
        waits: Both periods.
        dates: The period's days.
    """
    notes = {
        "p50": f"over {wording.count(waits.now.get('turns', 0))} turns",
        "p95": f"{wording.percent(_share(waits, 'over_3s'))} of turns over 3 s",
        "p99": f"{wording.percent(_share(waits, 'over_2s'))} of turns over 2 s",
    }
    return pieces.tile(
        title,
        wording.seconds(waits.now.get(name)),
        Change(waits.now.get(name), waits.before.get(name), wording.seconds, "down"),
        notes[name],
        [waits.by_day.get(day, {}).get(name) for day in dates],
        "Time until the agent answers; PolyAI's target is under 2 s, above 3 s is red.",
    )


def _share(waits: Waits, name: str) -> float | None:
    return waits.now[name] / waits.now["turns"] if waits.now else None


def _charts(dates: list[date], by_day: dict[date, Totals], now: Totals) -> list[Markup]:
    days = {day: by_day.get(day, Totals()) for day in dates}
    containment = {
        "All contained": {day: one.containment_rate for day, one in days.items()},
        "Without abandoned": {
            day: one.containment_rate_excl_abandoned for day, one in days.items()
        },
    }
    scales: list[Markup] = []
    for name, domain, values, scored in (
        (
            "PolyScore, of 5",
            (1, 5),
            {day: one.poly_score_1_5_mean for day, one in days.items()},
            now.scored_conversations_1_5,
        ),
        (
            "PolyScore, older scale of 10",
            (0, 10),
            {day: one.poly_score_0_10_mean for day, one in days.items()},
            now.scored_conversations_0_10,
        ),
        (
            "CSAT, of 5",
            (1, 5),
            {day: one.csat_mean for day, one in days.items()},
            now.csat_answers,
        ),
    ):
        if scored:
            chart = charts.lines(
                dates, {name: values}, axis=charts.SCORE, tooltip=".2f", domain=domain
            )
            scales.append(pieces.card(name, chart, note="Mean of a day's scores"))
    return [
        pieces.card(
            "Conversations a day",
            charts.bars(
                dates, {day: one.conversations for day, one in days.items()}, of="Conversations"
            ),
            note="By the local day on which they began",
        ),
        pieces.card(
            "Containment",
            charts.lines(dates, containment, axis=charts.PERCENT, tooltip=".1%", domain=(0, 1)),
            legend=list(containment),
        ),
        *scales,
    ]


def _flags(reader: Reader, selection: Selection) -> Markup:
    title, note = "Red flags", "Thresholds that an agent crossed; live, all channels"
    if selection.environment not in (None, LIVE):
        return pieces.card(title, pieces.nothing("Only live conversations are judged."), note=note)
    rows = queries.red_flags(reader, selection)
    if not rows:
        return pieces.card(title, pieces.nothing("None in this period."), note=note)
    listed = tag(
        "ul",
        *(
            tag(
                "li",
                pieces.lines_of(
                    tag("strong", _FLAGS.get(row["flag"], wording.phrase(row["flag"]))),
                    tag("span", f"{row['agent_id']} · {_when(row)}", class_="pw-quiet"),
                ),
                pieces.lines_of(
                    tag("strong", flag_value(row["flag"], row["value"]), class_="pw-bad"),
                    tag("span", _limit(row), class_="pw-quiet"),
                ),
            )
            for row in rows
        ),
        class_="pw-flags",
    )
    return pieces.card(
        title, listed, pieces.more(len(rows), rows[0]["flags"], "in this period"), note=note
    )


def _when(row: Row) -> str:
    day = wording.day(row["local_date"], year=False)
    return day if row["days"] == 1 else f"on {row['days']} days, last on {day}"


def flag_value(flag: str, value: float | None) -> str:
    """What a flag measured, in its unit."""
    if flag.startswith("latency"):
        return wording.seconds(value)
    return wording.count(value) if flag == "volume_down" else wording.percent(value)


def _limit(row: Row) -> str:
    limit = flag_value(row["flag"], row["threshold"])
    if row["baseline"] is None:
        return f"limit {limit}"
    return f"limit {limit}, usual {flag_value(row['flag'], row['baseline'])}"
