"""Overview page: key figures, charts and red flags."""

from __future__ import annotations

from datetime import date

from ..views.query_reader import Reader, Row
from . import charts, components, formats, queries
from .components import Change
from .markup import Markup, tag
from .queries import Latencies
from .selection import LIVE, Selection
from .totals import Totals, total

_CONTAINED = (
    "Share of finished conversations without a handoff to a person. An abandoned call counts as "
    "contained; the number below excludes abandoned calls."
)

_FLAGS = {
    "latency_p50": "Median latency",
    "latency_p95": "95th percentile of latency",
    "function_errors": "Function errors",
    "handoff_rate": "Handoff rate",
    "handoff_above_baseline": "Handoff rate vs. previous week",
    "volume_down": "Volume vs. same weekday",
}


def page(reader: Reader, selection: Selection) -> Markup:
    """Returns the page for a selection."""
    rows = queries.daily(reader, selection)
    now = total(queries.of_period(rows, selection.period))
    before = total(queries.of_period(rows, selection.period.previous))
    by_day = {row["local_date"]: total([row]) for row in rows}
    latencies = queries.latencies(reader, selection)
    handled = queries.handle_times(reader, selection)
    dates = selection.period.dates
    days = [by_day.get(day, Totals()) for day in dates]
    return components.page(
        components.grid(
            *_tiles(days, now, before),
            *_score_tiles(days, now, before),
            _time_tile(days, now, before, handled),
            *(
                latency_tile(title, name, latencies, dates)
                for title, name in (("Latency, median", "p50"), ("Latency, p95", "p95"))
            ),
            kind="pw-tiles",
        ),
        components.grid(
            *_charts(dates, by_day, now),
            kind="pw-halves",
        ),
        _flags(reader, selection),
        name="overview",
    )


def _tiles(days: list[Totals], now: Totals, before: Totals) -> list[Markup]:
    in_progress = now.conversations - now.finished_conversations
    return [
        components.tile(
            "Conversations",
            formats.count(now.conversations),
            components.change_of_count(now.conversations, before.conversations),
            f"{formats.count(in_progress)} in progress when loaded" if in_progress else "",
            [day.conversations for day in days],
        ),
        components.tile(
            "Containment",
            formats.percent(now.containment_rate),
            Change(now.containment_rate, before.containment_rate, components.points, "up"),
            f"{formats.percent(now.containment_rate_excl_abandoned)} without abandoned",
            [day.containment_rate for day in days],
            _CONTAINED,
        ),
        components.tile(
            "Handoff rate",
            formats.percent(now.handoff_rate),
            Change(now.handoff_rate, before.handoff_rate, components.points, "down"),
            f"{formats.count(now.handed_off_conversations)} handed off",
            [day.handoff_rate for day in days],
        ),
    ]


def _score_tiles(days: list[Totals], now: Totals, before: Totals) -> list[Markup]:
    older = (
        f"; on the older 0–10 scale {formats.decimal(now.poly_score_0_10_mean)}"
        if now.scored_conversations_0_10
        else ""
    )
    return [
        components.tile(
            "PolyScore, of 5",
            formats.decimal(now.poly_score_1_5_mean),
            Change(now.poly_score_1_5_mean, before.poly_score_1_5_mean, formats.decimal, "up"),
            f"{formats.count(now.scored_conversations_1_5)} scored{older}",
            [day.poly_score_1_5_mean for day in days],
            "Mean of scored conversations. The older 0–10 scale is not included.",
        ),
        components.tile(
            "CSAT, of 5",
            formats.decimal(now.csat_mean),
            Change(now.csat_mean, before.csat_mean, formats.decimal, "up"),
            f"{formats.count(now.csat_answers)} answers, "
            f"{formats.percent(now.csat_response_rate, 0)} response rate",
            [day.csat_mean for day in days],
        ),
    ]


def _time_tile(days: list[Totals], now: Totals, before: Totals, handled: Row) -> Markup:
    return components.tile(
        "Average handle time",
        formats.duration(now.handle_time_seconds_mean),
        Change(now.handle_time_seconds_mean, before.handle_time_seconds_mean, formats.duration),
        f"median {formats.duration(handled['p50'])}, p95 {formats.duration(handled['p95'])}",
        [day.handle_time_seconds_mean for day in days],
        "Whole contact, including the handoff.",
    )


def latency_tile(title: str, name: str, latencies: Latencies, dates: list[date]) -> Markup:
    """Returns a tile with a percentile of turn latency.

    Args:
        title: Title of the tile.
        name: p50, p95 or p99.
        latencies: Latencies of both periods.
        dates: Days of the period.
    """
    notes = {
        "p50": f"over {formats.count(latencies.now.get('turns', 0))} turns",
        "p95": f"{formats.percent(_share(latencies, 'over_3s'))} of turns over 3 s",
        "p99": f"{formats.percent(_share(latencies, 'over_2s'))} of turns over 2 s",
    }
    return components.tile(
        title,
        formats.seconds(latencies.now.get(name)),
        Change(latencies.now.get(name), latencies.before.get(name), formats.seconds, "down"),
        notes[name],
        [latencies.by_day.get(day, {}).get(name) for day in dates],
        "Time until the agent answers. PolyAI's target is under 2 s; above 3 s is red.",
    )


def _share(latencies: Latencies, name: str) -> float | None:
    return latencies.now[name] / latencies.now["turns"] if latencies.now else None


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
            scales.append(components.card(name, chart, note="Daily mean"))
    return [
        components.card(
            "Conversations per day",
            charts.bars(
                dates, {day: one.conversations for day, one in days.items()}, of="Conversations"
            ),
            note="By local start date",
        ),
        components.card(
            "Containment",
            charts.lines(dates, containment, axis=charts.PERCENT, tooltip=".1%", domain=(0, 1)),
            legend=list(containment),
        ),
        *scales,
    ]


def _flags(reader: Reader, selection: Selection) -> Markup:
    title, note = "Red flags", "Crossed thresholds per agent; live, all channels"
    if selection.environment not in (None, LIVE):
        return components.card(
            title, components.empty("Red flags cover live conversations only."), note=note
        )
    rows = queries.red_flags(reader, selection)
    if not rows:
        return components.card(title, components.empty("None in this period."), note=note)
    listed = tag(
        "ul",
        *(
            tag(
                "li",
                components.lines_of(
                    tag("strong", _FLAGS.get(row["flag"], formats.phrase(row["flag"]))),
                    tag("span", f"{_agent(row)} · {_when(row)}", class_="pw-quiet"),
                ),
                components.lines_of(
                    tag("strong", flag_value(row["flag"], row["value"]), class_="pw-bad"),
                    tag("span", _limit(row), class_="pw-quiet"),
                ),
            )
            for row in rows
        ),
        class_="pw-flags",
    )
    return components.card(
        title, listed, components.more(len(rows), rows[0]["flags"], "in this period"), note=note
    )


def _agent(row: Row) -> str:
    return formats.named(row["agent_name"], row["agent_id"])


def _when(row: Row) -> str:
    day = formats.day(row["local_date"], year=False)
    return day if row["days"] == 1 else f"on {row['days']} days, last on {day}"


def flag_value(flag: str, value: float | None) -> str:
    """Formats the value of a flag with its unit."""
    if flag.startswith("latency"):
        return formats.seconds(value)
    return formats.count(value) if flag == "volume_down" else formats.percent(value)


def _limit(row: Row) -> str:
    limit = flag_value(row["flag"], row["threshold"])
    if row["baseline"] is None:
        return f"limit {limit}"
    return f"limit {limit}, usual {flag_value(row['flag'], row['baseline'])}"
