"""Results of scenarios as terminal output and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .results import ChatsRun, Outcome, ScenarioResult, TurnResult

_Line = tuple[str, str, str]
"""Label, text, and the style of the text."""

_COLOURS: dict[Outcome, str] = {
    "passed": "green",
    "failed": "red",
    "error": "yellow",
    "skipped": "dim",
}


def chats(console: Console, run: ChatsRun) -> None:
    """Prints all scenarios, the unmet expectations and errors, and the totals."""
    if console.is_terminal:
        console.print(_table(run))
    else:
        for one in run.scenarios:
            console.print(
                f"{_coloured(one.outcome)} {escape(one.suite)} / {escape(one.scenario)}: "
                f"{_turns(one)}, {one.seconds:.1f} s"
            )
    not_passed = [one for one in run.scenarios if one.outcome in ("failed", "error")]
    for one in not_passed:
        _details(console, one)
    if not_passed:
        console.print()
    counts = ", ".join(
        f"{run.count(outcome):,} {outcome}" for outcome in _COLOURS if run.count(outcome)
    )
    total = f"{len(run.scenarios):,} scenario{'s' if len(run.scenarios) != 1 else ''}"
    console.print(f"[bold]{total}[/]: {counts} in {run.seconds:.1f} s")


def _table(run: ChatsRun) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=False)
    with_suites = len(run.files) > 1
    table.add_column("result", no_wrap=True)
    if with_suites:
        table.add_column("suite", overflow="fold")
    table.add_column("scenario", overflow="fold")
    table.add_column("turns", justify="right")
    table.add_column("slowest", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    for one in run.scenarios:
        slowest = max((turn.latency_seconds for turn in one.turns), default=None)
        table.add_row(
            _coloured(one.outcome),
            *([escape(one.suite)] if with_suites else []),
            escape(one.scenario),
            str(len(one.turns)),
            f"{slowest:.2f} s" if slowest is not None else "",
            f"{one.seconds:.1f} s",
        )
    return table


def _details(console: Console, result: ScenarioResult) -> None:
    console.print(
        f"\n{_coloured(result.outcome)} [bold]{escape(result.scenario)}[/] "
        f"[dim]{escape(result.place)}[/]",
        soft_wrap=True,
    )
    if result.chat_id:
        console.print(f"  [dim]chat {escape(result.chat_id)}[/]", soft_wrap=True)
    for turn in result.turns:
        if turn.unmet:
            console.print("  greeting" if turn.turn_index == 0 else f"  turn {turn.turn_index}")
            _lines(console, _unmet(turn))
    _lines(console, [("", reason, "") for reason in (result.failure, result.error) if reason])


def _unmet(turn: TurnResult) -> Iterator[_Line]:
    """Message, answer, and unmet expectations."""
    if turn.user_input is not None:
        yield "message", turn.user_input, ""
    if turn.response is not None:
        yield "answer", turn.response, ""
    for check in turn.unmet:
        yield "expected", check.expected, "red"
        # the answer is already in a line above
        actual = (check.actual or "").replace(f'the answer was "{turn.response}"', "").strip("; ")
        if actual:
            yield "actual", actual, ""


def _lines(console: Console, lines: Iterable[_Line]) -> None:
    """Prints labelled lines; on a terminal, with a hanging indent."""
    for label, text, style in lines:
        start = f"    {label:<10}" if label else "  "
        if console.is_terminal:
            grid = Table.grid()
            grid.add_column(width=len(start), no_wrap=True)
            grid.add_column(overflow="fold")
            grid.add_row(start, Text(text, style))
            console.print(grid)
        else:
            console.print(Text(start).append(text, style), soft_wrap=True)


def _turns(result: ScenarioResult) -> str:
    return f"{len(result.turns)} turn{'s' if len(result.turns) != 1 else ''}"


def _coloured(outcome: Outcome) -> str:
    return f"[{_COLOURS[outcome]}]{outcome}[/]"


def chats_as_json(run: ChatsRun, code: int, warehouse: str | None) -> dict[str, Any]:
    """Returns the results as the object that `--json` prints.

    Args:
        run: The results.
        code: Exit code.
        warehouse: Destination that stores the results; None if they were not stored.
    """
    return {
        "exit_code": int(code),
        "run_id": run.run_id,
        "label": run.label,
        "started_at": run.started_at.isoformat(),
        "finished_at": run.finished_at.isoformat(),
        "warehouse": warehouse,
        "error": str(run.stopped_by) if run.stopped_by else None,
        "scenarios": list(_scenarios(run)),
    }


def _scenarios(run: ChatsRun) -> Iterator[dict[str, Any]]:
    for one in run.scenarios:
        yield {
            "suite": one.suite,
            "scenario": one.scenario,
            "place": one.place,
            "agent_id": one.agent_id,
            **asdict(one.setup),
            "conversation_id": one.chat_id,
            "outcome": one.outcome,
            "started_at": one.started_at.isoformat(),
            "finished_at": one.finished_at.isoformat(),
            "ended": one.has_ended,
            "attempts": one.attempts,
            "reasons": one.reasons if one.outcome != "passed" else [],
            "turns": [
                {
                    "turn_index": turn.turn_index,
                    "user_input": turn.user_input,
                    "response": turn.response,
                    "latency_ms": round(turn.latency_seconds * 1000),
                    "delayed_response": turn.is_delayed,
                    "passed": turn.passed,
                    "checks": [asdict(check) for check in turn.checks],
                    "metadata": turn.metadata,
                }
                for turn in one.turns
            ],
        }
