"""The page to find a conversation, and the rows that it shares with the reviews."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..views.query_reader import Reader, Row
from . import pieces, queries, wording
from .markup import Markup, tag
from .queries import ROWS_OF_A_PAGE
from .selection import Selection


@dataclass(frozen=True)
class Found:
    """A page of a list of conversations.

    Attributes:
        rows: What is shown of each.
        keys: agent_id and conversation_id of each.
        number: How many there are on all pages.
        page: From 0.
    """

    rows: tuple[Markup, ...]
    keys: tuple[tuple[str, str], ...]
    number: int
    page: int

    @property
    def pages(self) -> int:
        """How many pages there are, at least one."""
        return max(1, -(-self.number // ROWS_OF_A_PAGE))


def found(rows: Sequence[Row], shown: Sequence[Markup], number: int, page: int) -> Found:
    """A page from its rows and what is shown of each."""
    keys = tuple((row["agent_id"], row["conversation_id"]) for row in rows)
    return Found(tuple(shown), keys, number, page)


def find(
    reader: Reader, selection: Selection, search: str, outcome: str | None, page: int
) -> Found:
    """The conversations that match; arguments as `queries.conversations` takes them."""
    rows, number = queries.conversations(reader, selection, search.strip(), outcome, page)
    return found(rows, [_shown(row) for row in rows], number, page)


def listed(
    found: Found, openers: Sequence[Markup], controls: Markup, *, title: str, note: str, none: str
) -> Markup:
    """The list.

    Args:
        found: Its page.
        openers: A button for each row, which the style sheet lays over the whole of it.
        controls: What narrows the list and turns its pages.
        title: What is listed.
        note: What it is for.
        none: What to say of an empty one.
    """
    rows = [tag("li", row, opener, class_="pw-row") for row, opener in zip(found.rows, openers)]
    said = (
        f"{wording.count(found.page * ROWS_OF_A_PAGE + 1)} – "
        f"{wording.count(found.page * ROWS_OF_A_PAGE + len(rows))} of {wording.count(found.number)}"
        if rows
        else ""
    )
    return pieces.card(
        title,
        controls,
        tag("ol", *rows, class_="pw-rows") if rows else pieces.nothing(none),
        tag("p", said, class_="pw-note pw-count") if said else None,
        note=note,
    )


def _shown(row: Row) -> Markup:
    seconds = row["handle_time_seconds"] or row["duration_seconds"]
    facts = [
        wording.duration(seconds) if seconds is not None else "",
        f"{wording.count(row['num_turns'])} turns" if row["num_turns"] is not None else "",
        score(row),
    ]
    return summary_of(row, outcome(row), " · ".join(fact for fact in facts if fact))


def summary_of(row: Row, chips: Markup, facts: str) -> Markup:
    """A conversation as a row of a list.

    Args:
        row: With agent_id, channel, local_started_at, summary and conversation_id.
        chips: What stands out.
        facts: Further numbers.
    """
    heading = row.get("summary_heading") or row["summary"] or row["conversation_id"]
    text = row["summary"] if row.get("summary_heading") else None
    return tag(
        "div",
        pieces.lines_of(
            tag("strong", wording.moment(row["local_started_at"])),
            tag("span", f"{row['channel']} · {row['agent_id']}", class_="pw-quiet"),
        ),
        tag(
            "span",
            tag("strong", heading, dir="auto", class_="pw-line"),
            tag("span", text, dir="auto", class_="pw-line pw-quiet pw-clip") if text else None,
        ),
        pieces.lines_of(
            tag("span", chips, class_="pw-chips"), tag("span", facts, class_="pw-quiet")
        ),
        class_="pw-row-grid",
    )


def outcome(row: Row) -> Markup:
    """How it ended."""
    if not row["is_finished"]:
        return pieces.chip("In progress")
    if row["is_handed_off"]:
        return pieces.chip("Handed off", "pw-bad")
    return pieces.chip("Contained", "pw-good")


def score(row: Row) -> str:
    """Its PolyScore with the scale."""
    if row["poly_score"] is None:
        return ""
    return f"PolyScore {row['poly_score']:g} of {(row['poly_score_scale'] or '-').split('-')[1]}"
