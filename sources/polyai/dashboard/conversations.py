"""List of conversations; its rows are also used by the review queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..views.query_reader import Reader, Row
from . import components, formats, queries
from .markup import Markup, tag
from .queries import ROWS_OF_A_PAGE
from .selection import Selection


@dataclass(frozen=True)
class Found:
    """One page of a list of conversations.

    Attributes:
        rows: Content of each row.
        keys: agent_id and conversation_id of each row.
        number: Number of conversations on all pages.
        page: Page number, from 0.
    """

    rows: tuple[Markup, ...]
    keys: tuple[tuple[str, str], ...]
    number: int
    page: int

    @property
    def pages(self) -> int:
        """Number of pages, at least 1."""
        return max(1, -(-self.number // ROWS_OF_A_PAGE))


def found(rows: Sequence[Row], shown: Sequence[Markup], number: int, page: int) -> Found:
    """Returns a page of a list from its rows and their content."""
    keys = tuple((row["agent_id"], row["conversation_id"]) for row in rows)
    return Found(tuple(shown), keys, number, page)


def find(
    reader: Reader, selection: Selection, search: str, outcome: str | None, page: int
) -> Found:
    """Returns a page of matching conversations; arguments as for `queries.conversations`."""
    rows, number = queries.conversations(reader, selection, search.strip(), outcome, page)
    return found(rows, [_shown(row) for row in rows], number, page)


def listed(
    found: Found, openers: Sequence[Markup], controls: Markup, *, title: str, note: str, none: str
) -> Markup:
    """Returns the list as a card.

    Args:
        found: The page of the list.
        openers: One button per row, which the style sheet extends over the whole row.
        controls: Search, filters and paging buttons.
        title: Title of the list.
        note: Line below the title.
        none: Text for an empty list.
    """
    rows = [tag("li", row, opener, class_="pw-row") for row, opener in zip(found.rows, openers)]
    range_shown = (
        f"{formats.count(found.page * ROWS_OF_A_PAGE + 1)} – "
        f"{formats.count(found.page * ROWS_OF_A_PAGE + len(rows))} of {formats.count(found.number)}"
        if rows
        else ""
    )
    return components.card(
        title,
        controls,
        tag("ol", *rows, class_="pw-rows") if rows else components.empty(none),
        tag("p", range_shown, class_="pw-note pw-count") if range_shown else None,
        note=note,
    )


def _shown(row: Row) -> Markup:
    seconds = row["handle_time_seconds"] or row["duration_seconds"]
    facts = [
        formats.duration(seconds) if seconds is not None else "",
        f"{formats.count(row['num_turns'])} turns" if row["num_turns"] is not None else "",
        score(row),
    ]
    return summary_of(row, outcome(row), " · ".join(fact for fact in facts if fact))


def summary_of(row: Row, chips: Markup, facts: str) -> Markup:
    """Returns a conversation as a row of a list.

    Args:
        row: With agent_id, agent_name, channel, local_started_at, summary and conversation_id.
        chips: Highlights.
        facts: Additional numbers.
    """
    heading = row.get("summary_heading") or row["summary"] or row["conversation_id"]
    text = row["summary"] if row.get("summary_heading") else None
    name, agent_id = row["agent_name"], row["agent_id"]
    return tag(
        "div",
        components.lines_of(
            tag("strong", formats.moment(row["local_started_at"])),
            tag("span", f"{row['channel']} · {name or agent_id}", class_="pw-quiet"),
            tag("span", agent_id, class_="pw-quiet") if name else None,
        ),
        tag(
            "span",
            tag("strong", heading, dir="auto", class_="pw-line"),
            tag("span", text, dir="auto", class_="pw-line pw-quiet pw-clip") if text else None,
        ),
        components.lines_of(
            tag("span", chips, class_="pw-chips"), tag("span", facts, class_="pw-quiet")
        ),
        class_="pw-row-grid",
    )


def outcome(row: Row) -> Markup:
    """Returns the outcome as a chip."""
    if not row["is_finished"]:
        return components.chip("In progress")
    if row["is_handed_off"]:
        return components.chip("Handed off", "pw-bad")
    return components.chip("Contained", "pw-good")


def score(row: Row) -> str:
    """Formats the PolyScore with its scale."""
    if row["poly_score"] is None:
        return ""
    return f"PolyScore {row['poly_score']:g} of {(row['poly_score_scale'] or '-').split('-')[1]}"
