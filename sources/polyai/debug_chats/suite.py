"""Suites, scenarios and turns, and their loading from YAML files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, extra_required
from .chat import ChatSetup
from .expectations import Expectation

ENVIRONMENT = "sandbox"
"""Environment of scenarios that name none."""


@dataclass(frozen=True)
class Turn:
    """One message to the agent and the expectations for its answer.

    Attributes:
        say: The message, exactly as written in the file; empty for silence.
        metadata: Metadata sent with the message.
        expected: Expectations for the answer.
    """

    say: str
    metadata: Mapping[str, Any] | None
    expected: tuple[Expectation, ...]


@dataclass(frozen=True)
class Scenario:
    """Definition of one chat.

    Attributes:
        suite: Name of its suite.
        name: Name, unique within the suite.
        place: Position of the definition, `file:line:column`.
        agent_id: The agent; None for the only configured one.
        setup: Options of the chat.
        greeting: Expectations for turn 0, the agent's greeting.
        turns: Turn 1 and later.
    """

    suite: str
    name: str
    place: str
    agent_id: str | None
    setup: ChatSetup
    greeting: tuple[Expectation, ...]
    turns: tuple[Turn, ...]

    @property
    def names(self) -> frozenset[str]:
        """Names that select it: `scenario` and `suite/scenario`."""
        return frozenset({self.name, f"{self.suite}/{self.name}"})


@dataclass(frozen=True)
class Suite:
    """The scenarios of one file.

    Attributes:
        name: The `name` key of the file, otherwise the file name without its suffix.
        path: The file.
        scenarios: In file order.
    """

    name: str
    path: Path
    scenarios: tuple[Scenario, ...]


def load_suite(path: str | Path) -> Suite:
    """Reads one scenario file.

    Raises:
        ConfigurationError: As `load_suites` does.
    """
    return load_suites([path])[0]


def load_suites(paths: Iterable[str | Path]) -> list[Suite]:
    """Reads scenario files; a file that is named more than once is read once.

    Raises:
        ConfigurationError: A file cannot be read or is invalid: the message has one line per
            mistake in any of the files, `file:line:column: mistake`. Or the extra `debug-chats` is
            not installed.
    """
    # only reading scenario files needs the packages of the extra
    with extra_required("reading scenario files", "debug-chats"):
        from .suite_files import read_suites
    return read_suites(paths)


def select_scenarios(suites: Iterable[Suite], names: Sequence[str]) -> list[Scenario]:
    """Returns the scenarios with these names; all scenarios if no names are given.

    Args:
        suites: The suites.
        names: `scenario`, or `suite/scenario` if several suites have a scenario of that name.

    Raises:
        ConfigurationError: A name matches no scenario.
    """
    scenarios = [scenario for suite in suites for scenario in suite.scenarios]
    known = {name for scenario in scenarios for name in scenario.names}
    if unknown := [name for name in names if name not in known]:
        existing = dict.fromkeys(scenario.name for scenario in scenarios)
        raise ConfigurationError(
            f"unknown scenario {', '.join(map(repr, unknown))}: the files have "
            f"{', '.join(map(repr, existing))}"
        )
    return [one for one in scenarios if not names or not one.names.isdisjoint(names)]
