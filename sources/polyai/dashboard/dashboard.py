"""What the app asks for: choices, a selection, and a page of each kind as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ..errors import PolyAIError
from ..views.query_reader import Reader
from . import (
    conversation,
    conversations,
    data,
    overview,
    performance,
    pieces,
    queries,
    reviews,
    wording,
)
from . import topics as topics_page
from .conversations import Found
from .markup import Markup, tag
from .player import player
from .queries import Choices
from .selection import CUSTOM, FIELDS, LIVE, PRESETS, Period, Selection, ending

PAGES = {
    "Overview": "overview",
    "Topics & handoffs": "topics",
    "Performance": "performance",
    "Conversations": "conversations",
    "Reviews": "reviews",
    "Data": "data",
}
"""The pages by what they are called, with their names in a URL."""

LISTS = ("conversations", "reviews")

PERIODS = {
    "Last 7 days": "7d",
    "Last 30 days": "30d",
    "Last 90 days": "90d",
    "Other days": CUSTOM,
}

_FIRST = "7d"

_OUTCOMES = {
    "Any outcome": None,
    "Contained": "contained",
    "Handed off": "handed_off",
    "In progress": "in_progress",
    "Low PolyScore": "low_score",
    "Annotated": "annotated",
}

_NO_VARIANT = "none"
"""What the views call a conversation without a variant."""


@dataclass(frozen=True)
class Start:
    """What a URL asks for.

    Attributes:
        choices: What there is to choose from; None where there are no conversations.
        page: What it is called.
        period: A key of `PRESETS`, or `CUSTOM`.
        days: The days if it is custom, otherwise a proposal.
        chosen: Filters by name.
        search: Text to look for.
        opened: agent_id and conversation_id of the one that is open.
        problem: What to say where nothing can be shown.
    """

    choices: Choices | None
    page: str
    period: str
    days: Period
    chosen: Mapping[str, str | None]
    search: str = ""
    opened: tuple[str, str] | None = None
    problem: Markup | None = None


class Dashboard:
    """The pages over one warehouse. Threads can share one.

    Args:
        reader: Of the warehouse.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def start(self, query: Mapping[str, str | list[str]]) -> Start:
        """What a URL asks for; what it says that is not understood is left out."""
        asked = {key: value for key, value in query.items() if isinstance(value, str)}
        try:
            choices = queries.choices(self._reader)
        except PolyAIError as error:
            return _not_started(_failed(error, _NO_VIEWS))
        if choices is None:
            return _not_started(_EMPTY)
        period = asked.get("days", _FIRST)
        since, until = _date(asked.get("from")), _date(asked.get("to"))
        days = Period(since, until) if since and until and since <= until else None
        agent, _, opened = asked.get("conversation", "").partition("/")
        return Start(
            choices,
            next((name for name, key in PAGES.items() if key == asked.get("page")), "Overview"),
            period if period in PRESETS or (period == CUSTOM and days) else _FIRST,
            days or ending(choices.today, PRESETS[_FIRST]),
            _chosen(asked, choices),
            asked.get("search", ""),
            (agent, opened) if agent and opened else None,
        )

    @staticmethod
    def options(field: str, choices: Choices, agent: str | None = None) -> dict[str, str | None]:
        """What a filter offers, by what it is called.

        Args:
            field: One of `selection.FIELDS`.
            choices: What there is.
            agent: Only what this agent has.
        """
        column = FIELDS.index(field)
        found: dict[str, str | None] = {f"All {field}s": None}
        for row in choices.rows:
            if agent is None or row[0] == agent:
                name = row[column]
                if field == "variant":
                    given = choices.variant_names.get((row[0], name))
                    label = (
                        "No variant"
                        if name == _NO_VARIANT
                        else f"{given} ({name})"
                        if given
                        else name
                    )
                    found[label] = name
                else:
                    found[name] = name
        return found

    @staticmethod
    def outcomes() -> dict[str, str | None]:
        """What a list can be narrowed to, by what it is called."""
        return dict(_OUTCOMES)

    @staticmethod
    def selection(
        choices: Choices,
        period: str,
        days: Sequence[date],
        agent: str | None,
        channel: str | None,
        environment: str | None,
        variant: str | None,
    ) -> Selection:
        """What the filters say; the days count where the period is custom."""
        chosen = (
            Period(min(days), max(days))
            if period == CUSTOM
            else ending(choices.today, PRESETS[period])
        )
        return Selection(chosen, agent, channel, environment, variant)

    def page(self, name: str, selection: Selection, choices: Choices) -> Markup:
        """A page without lists.

        Args:
            name: Its name in a URL.
            selection: What is looked at.
            choices: What there is.
        """
        if name == "data":
            return _guarded(lambda: data.page(self._reader))
        if choices.newest < selection.period.since or choices.first > selection.period.until:
            return pieces.page(_outside(selection, choices), name=name)
        build = {
            "overview": overview.page,
            "topics": topics_page.page,
            "performance": performance.page,
        }[name]
        return _guarded(lambda: build(self._reader, selection))

    def find(
        self, name: str, selection: Selection, search: str, outcome: str | None, page: int
    ) -> Found:
        """A page of one of the `LISTS`; an empty one where the warehouse cannot be asked."""
        try:
            if name == "reviews":
                return reviews.find(self._reader, selection, page)
            return conversations.find(self._reader, selection, search, outcome, page)
        except PolyAIError as error:
            return Found((_failed(error),), (), 0, 0)

    @staticmethod
    def listed(name: str, found: Found, openers: Sequence[str], controls: str) -> Markup:
        """A list as a page; `openers` and `controls` are markup of marimo's own elements."""
        title, note = (
            ("Review queue", "Finished, not annotated, and worth a look: most reasons first")
            if name == "reviews"
            else ("Conversations", "Newest first")
        )
        none = (
            "Nothing to review in this period."
            if name == "reviews"
            else "No conversation matches. Try other words, other days, or fewer filters."
        )
        if found.rows and not found.keys:
            return pieces.page(*found.rows, name=name)
        return pieces.page(
            conversations.listed(
                found,
                [Markup(opener) for opener in openers],
                Markup(controls),
                title=title,
                note=note,
                none=none,
            ),
            name=name,
        )

    def conversation(self, opened: tuple[str, str], back: str, player: str) -> Markup:
        """The page of one conversation; `back` and `player` are markup of marimo's own elements."""
        return _guarded(
            lambda: conversation.page(self._reader, *opened, Markup(back), Markup(player))
        )

    def player(self, opened: tuple[str, str]) -> Markup:
        """What plays the recording of a conversation."""
        return _guarded(lambda: player(self._reader, *opened))

    def head(self, navigation: str) -> Markup:
        """The head of every page; `navigation` is markup of marimo's own element."""
        try:
            as_of = f"As of {wording.moment(self._reader.as_of)} UTC"
        except PolyAIError:
            as_of = ""
        return tag(
            "header",
            tag("p", tag("strong", "PolyAI"), " warehouse", class_="pw-brand"),
            tag("nav", Markup(navigation), aria_label="Pages"),
            tag("p", as_of, class_="pw-asof"),
            class_="pw-head",
        )

    @staticmethod
    def filters(elements: Sequence[str], selection: Selection, page: str) -> Markup:
        """The filters, and what the numbers of the page are of and compared with."""
        period = selection.period
        compared = f", compared with {wording.days(period.previous.since, period.previous.until)}"
        return tag(
            "div",
            tag(
                "div",
                *(tag("div", Markup(element)) for element in elements),
                class_="pw-filters",
            ),
            tag(
                "p",
                tag("strong", wording.days(period.since, period.until)),
                None if page in LISTS else compared,
                class_="pw-note pw-period",
            ),
        )

    @staticmethod
    def controls(narrowing: Sequence[str], turning: Sequence[str]) -> Markup:
        """What narrows a list and turns its pages, from marimo's own elements."""
        return tag(
            "div",
            *(tag("div", Markup(element)) for element in narrowing),
            tag("div", *(Markup(element) for element in turning), class_="pw-turning"),
            class_="pw-controls",
        )

    @staticmethod
    def address(
        page: str,
        opened: tuple[str, str] | None,
        period: str,
        selection: Selection,
        search: str,
    ) -> dict[str, str | None]:
        """The query of the URL that leads here; None where a key is not in it."""
        is_custom = period == CUSTOM
        return {
            "page": PAGES[page] if page != "Overview" else None,
            "days": period if period != _FIRST else None,
            "from": selection.period.since.isoformat() if is_custom else None,
            "to": selection.period.until.isoformat() if is_custom else None,
            "agent": selection.agent,
            "channel": selection.channel,
            "environment": None if selection.environment == LIVE else selection.environment or ALL,
            "variant": selection.variant,
            "search": search or None,
            "conversation": "/".join(opened) if opened else None,
        }


ALL = "all"
"""What a URL says where an environment is not filtered, which it is by default."""

_EMPTY = pieces.message(
    "There are no conversations yet",
    tag(
        "span", "Load them with ", pieces.code("polyai-warehouse load"), ", then reload this page."
    ),
)


_NO_VIEWS = tag(
    "span", "If it has no views yet, ", pieces.code("polyai-warehouse views"), " makes them."
)


def _not_started(problem: Markup) -> Start:
    return Start(None, "", "", ending(date.min, 1), {}, problem=problem)


def _failed(error: PolyAIError, advice: Markup | None = None) -> Markup:
    return pieces.message("The warehouse cannot be asked", str(error), advice, kind="pw-alarm")


def _guarded(build: Callable[[], Markup]) -> Markup:
    try:
        return build()
    except PolyAIError as error:
        return _failed(error)


def _outside(selection: Selection, choices: Choices) -> Markup:
    return pieces.message(
        "No conversations in these days",
        f"There are some from {wording.days(choices.first, choices.newest)}: choose other days.",
    )


def _chosen(asked: Mapping[str, str], choices: Choices) -> dict[str, str | None]:
    """The filters that the URL names and the warehouse has."""
    chosen: dict[str, str | None] = {}
    for number, field in enumerate(FIELDS):
        there = {
            row[number]
            for row in choices.rows
            if field == "agent" or chosen["agent"] in (None, row[0])
        }
        wanted = asked.get(field, LIVE if field == "environment" else None)
        chosen[field] = wanted if wanted in there else None
    return chosen


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None
