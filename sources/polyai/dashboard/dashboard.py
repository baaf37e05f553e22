"""Interface of the app: filter options, selections, and pages as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ..errors import PolyAIError
from ..views.query_reader import Reader
from . import (
    components,
    conversation,
    conversations,
    data,
    formats,
    overview,
    performance,
    queries,
    reviews,
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
"""Page names in a URL, by their titles."""

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
"""The views' value for a conversation without a variant."""


@dataclass(frozen=True)
class Start:
    """Initial state, as given by a URL.

    Attributes:
        choices: Available filter values; None if there are no conversations.
        page: Title of the page.
        period: A key of `PRESETS`, or `CUSTOM`.
        days: The days of a custom period, otherwise a default for it.
        chosen: Values of the filters by name.
        search: Search text.
        opened: agent_id and conversation_id of the open conversation.
        problem: Message to show in place of everything else.
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
    """Pages over one warehouse. Thread-safe.

    Args:
        reader: Reader of the warehouse.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def start(self, query: Mapping[str, str | list[str]]) -> Start:
        """Returns the initial state for the query of a URL; invalid values are ignored."""
        given = {key: value for key, value in query.items() if isinstance(value, str)}
        try:
            choices = queries.choices(self._reader)
        except PolyAIError as error:
            return _not_started(_failed(error, _NO_VIEWS))
        if choices is None:
            return _not_started(_EMPTY)
        period = given.get("days", _FIRST)
        since, until = _date(given.get("from")), _date(given.get("to"))
        days = Period(since, until) if since and until and since <= until else None
        agent, _, opened = given.get("conversation", "").partition("/")
        return Start(
            choices,
            next((name for name, key in PAGES.items() if key == given.get("page")), "Overview"),
            period if period in PRESETS or (period == CUSTOM and days) else _FIRST,
            days or ending(choices.today, PRESETS[_FIRST]),
            _chosen(given, choices),
            given.get("search", ""),
            (agent, opened) if agent and opened else None,
        )

    @staticmethod
    def options(field: str, choices: Choices, agent: str | None = None) -> dict[str, str | None]:
        """Returns the values of a filter by their labels.

        Args:
            field: One of `selection.FIELDS`.
            choices: Available filter values.
            agent: Restricts the values to those of this agent.
        """
        column = FIELDS.index(field)
        names: dict[str, str] = choices.agent_names if field == "agent" else {}
        options: dict[str, str | None] = {f"All {field}s": None}
        for row in choices.rows:
            if agent is None or row[0] == agent:
                value = row[column]
                if field == "variant":
                    name = choices.variant_names.get((row[0], value))
                    is_none = value == _NO_VARIANT
                    options["No variant" if is_none else formats.named(name, value)] = value
                else:
                    options[formats.named(names.get(value), value)] = value
        return options

    @staticmethod
    def outcomes() -> dict[str, str | None]:
        """Returns the values of the outcome filter by their labels."""
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
        """Returns the selection of the filters; `days` is used for a custom period."""
        chosen = (
            Period(min(days), max(days))
            if period == CUSTOM
            else ending(choices.today, PRESETS[period])
        )
        return Selection(chosen, agent, channel, environment, variant)

    def page(self, name: str, selection: Selection, choices: Choices) -> Markup:
        """Returns a page without lists.

        Args:
            name: Page name in a URL.
            selection: Selection of the filters.
            choices: Available filter values.
        """
        if name == "data":
            return _guarded(lambda: data.page(self._reader))
        if choices.newest < selection.period.since or choices.first > selection.period.until:
            return components.page(_outside(selection, choices), name=name)
        build = {
            "overview": overview.page,
            "topics": topics_page.page,
            "performance": performance.page,
        }[name]
        return _guarded(lambda: build(self._reader, selection))

    def find(
        self, name: str, selection: Selection, search: str, outcome: str | None, page: int
    ) -> Found:
        """Returns a page of one of the `LISTS`; an error message if the query fails."""
        try:
            if name == "reviews":
                return reviews.find(self._reader, selection, page)
            return conversations.find(self._reader, selection, search, outcome, page)
        except PolyAIError as error:
            return Found((_failed(error),), (), 0, 0)

    @staticmethod
    def listed(name: str, found: Found, openers: Sequence[str], controls: str) -> Markup:
        """Returns a list as a page; `openers` and `controls` are markup of marimo elements."""
        title, note = (
            (
                "Review queue",
                "Finished, not annotated, with reasons for a review; most reasons first",
            )
            if name == "reviews"
            else ("Conversations", "Newest first")
        )
        none = (
            "Nothing to review in this period."
            if name == "reviews"
            else "No conversation matches. Change the search, the days or the filters."
        )
        if found.rows and not found.keys:
            return components.page(*found.rows, name=name)
        return components.page(
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
        """Returns the page of a conversation; `back` and `player` are markup of marimo elements."""
        return _guarded(
            lambda: conversation.page(self._reader, *opened, Markup(back), Markup(player))
        )

    def player(self, opened: tuple[str, str]) -> Markup:
        """Returns the player of a conversation's recording."""
        return _guarded(lambda: player(self._reader, *opened))

    def head(self, navigation: str) -> Markup:
        """Returns the head of all pages; `navigation` is markup of a marimo element."""
        try:
            as_of = f"As of {formats.moment(self._reader.as_of)} UTC"
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
        """Returns the filters, the selected days and the days of the comparison."""
        period = selection.period
        compared = f", compared with {formats.days(period.previous.since, period.previous.until)}"
        return tag(
            "div",
            tag(
                "div",
                *(tag("div", Markup(element)) for element in elements),
                class_="pw-filters",
            ),
            tag(
                "p",
                tag("strong", formats.days(period.since, period.until)),
                None if page in LISTS else compared,
                class_="pw-note pw-period",
            ),
        )

    @staticmethod
    def controls(filters: Sequence[str], paging: Sequence[str]) -> Markup:
        """Returns the filters and paging buttons of a list, from markup of marimo elements."""
        return tag(
            "div",
            *(tag("div", Markup(element)) for element in filters),
            tag("div", *(Markup(element) for element in paging), class_="pw-turning"),
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
        """Returns the query of the URL of this state; None for keys that are not in it."""
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
"""Value in a URL for no environment filter; the default is a filter for live."""

_EMPTY = components.message(
    "There are no conversations yet",
    tag(
        "span",
        "Load them with ",
        components.code("polyai-warehouse load"),
        ", then reload this page.",
    ),
)


_NO_VIEWS = tag(
    "span",
    "If there are no views yet, create them with ",
    components.code("polyai-warehouse views"),
)


def _not_started(problem: Markup) -> Start:
    return Start(None, "", "", ending(date.min, 1), {}, problem=problem)


def _failed(error: PolyAIError, advice: Markup | None = None) -> Markup:
    return components.message(
        "The warehouse cannot be queried", str(error), advice, kind="pw-alarm"
    )


def _guarded(build: Callable[[], Markup]) -> Markup:
    try:
        return build()
    except PolyAIError as error:
        return _failed(error)


def _outside(selection: Selection, choices: Choices) -> Markup:
    return components.message(
        "No conversations on these days",
        f"The warehouse has conversations from {formats.days(choices.first, choices.newest)}.",
    )


def _chosen(given: Mapping[str, str], choices: Choices) -> dict[str, str | None]:
    """Returns the filter values of the URL that exist in the warehouse."""
    chosen: dict[str, str | None] = {}
    for number, field in enumerate(FIELDS):
        existing = {
            row[number]
            for row in choices.rows
            if field == "agent" or chosen["agent"] in (None, row[0])
        }
        wanted = given.get(field, LIVE if field == "environment" else None)
        chosen[field] = wanted if wanted in existing else None
    return chosen


def _date(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None
