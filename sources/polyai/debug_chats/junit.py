"""JUnit XML of results for CI systems: one test suite per file, one test case per scenario."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from ..errors import ConfigurationError
from .results import ChatsRun, ScenarioResult

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML does not allow, not even escaped."""


def write_junit(run: ChatsRun, path: str | Path) -> None:
    """Writes the file atomically, and creates missing folders.

    Args:
        run: Result of `run_suites`.
        path: The file.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    path = Path(path)
    tree = ElementTree(_suites(run))
    indent(tree)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(draft, "wb") as file:
                tree.write(file, encoding="utf-8", xml_declaration=True)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror or error}") from error


def _suites(run: ChatsRun) -> Element:
    root = Element("testsuites", name=_text(run.label or "debug chats"))
    _count(root, list(run.scenarios), run.seconds)
    for name, file in run.files.items():
        results = [one for one in run.scenarios if one.suite == name]
        if not results:
            continue
        seconds = sum(one.seconds for one in results)
        suite = SubElement(root, "testsuite", name=_text(name))
        _count(suite, results, seconds)
        suite.set("timestamp", min(one.started_at for one in results).isoformat("T", "seconds"))
        suite.set("file", _text(str(file)))
        properties = SubElement(suite, "properties")
        for key, value in (("run_id", run.run_id), ("label", run.label)):
            if value is not None:
                SubElement(properties, "property", name=key, value=_text(value))
        for result in results:
            _case(suite, result)
    return root


def _count(element: Element, results: list[ScenarioResult], seconds: float) -> None:
    outcomes = [one.outcome for one in results]
    element.set("tests", str(len(results)))
    element.set("failures", str(outcomes.count("failed")))
    element.set("errors", str(outcomes.count("error")))
    element.set("skipped", str(outcomes.count("skipped")))
    element.set("time", f"{seconds:.3f}")


def _case(suite: Element, result: ScenarioResult) -> None:
    case = SubElement(
        suite,
        "testcase",
        classname=_text(result.suite),
        name=_text(result.scenario),
        time=f"{result.seconds:.3f}",
        file=_text(result.place.rsplit(":", 2)[0]),
        line=result.place.rsplit(":", 2)[1],
    )
    if result.outcome != "passed":
        element = {"failed": "failure", "error": "error", "skipped": "skipped"}[result.outcome]
        reasons = result.reasons
        outcome = SubElement(case, element, message=_text(reasons[0]))
        if element != "skipped":
            outcome.set("type", result.error_kind or "ExpectationNotMet")
            outcome.text = _text("\n".join(reasons))
    if result.turns:
        SubElement(case, "system-out").text = _text("\n".join(_transcript(result)))


def _transcript(result: ScenarioResult) -> Iterator[str]:
    """One line per message and answer, followed by its expectations."""
    yield f"chat {result.chat_id} with {result.agent_id} in {result.setup.environment}"
    for turn in result.turns:
        if turn.user_input is not None:
            yield f"[{turn.turn_index}] user:  {turn.user_input}"
        if turn.response is not None:
            took = f"({turn.latency_seconds:.3f} s{', delayed' if turn.is_delayed else ''})"
            yield f"[{turn.turn_index}] agent: {turn.response} {took}"
        for check in turn.checks:
            yield f"    met: {check.expected}" if check.is_met else f"    NOT MET: {check}"


def _text(text: str) -> str:
    return _FORBIDDEN.sub("", text)
