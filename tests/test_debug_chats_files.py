"""Scenario files: values read from YAML, and the position and message of each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from jsonschema import Draft202012Validator

from polyai.debug_chats import load_suite, load_suites
from polyai.debug_chats.chat import ChatSetup
from polyai.debug_chats.cli import debug_chat
from polyai.debug_chats.expectations import _KINDS, seconds
from polyai.debug_chats.schema import schema_text
from polyai.errors import ConfigurationError

pytestmark = pytest.mark.unit

SCENARIOS = Path(__file__).parent / "scenarios"


def written(content: str | bytes, name: str = "suite.yaml") -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def mistakes(*names: str) -> list[str]:
    """Loads invalid files and returns the reported mistakes, one line each."""
    with pytest.raises(ConfigurationError) as caught:
        load_suites(names)
    first, *others = str(caught.value).splitlines()
    if not others:
        return [first]
    assert first.startswith(f"{len(others)} mistakes")
    return others


def assert_mistakes(lines: list[str], *expected: tuple[str, ...]) -> None:
    """Asserts one line per mistake, each with its position and the facts of its message."""
    assert len(lines) == len(expected), lines
    for line, (position, *facts) in zip(lines, expected):
        assert line.startswith(f"{position}: ")
        assert [fact for fact in facts if fact not in line] == [], line


def test_scalars_are_read_as_written() -> None:
    (suite,) = load_suites([SCENARIOS / "bookings.yaml"])
    by_name = {scenario.name: scenario for scenario in suite.scenarios}
    assert suite.name == "bookings"
    assert [turn.say for turn in by_name["says yes"].turns] == ["yes", "007", "1.0", "true"]
    delayed = by_name["announces a delayed answer"]
    assert [(turn.say, turn.metadata) for turn in delayed.turns] == [
        ("how slow is the garage to park in?", {"source": "voice", "attempt": 2}),
        ("", None),
    ]


def test_a_scenario_overrides_the_defaults_of_the_file() -> None:
    scenarios = load_suite(SCENARIOS / "bookings.yaml").scenarios
    assert scenarios[0].setup == ChatSetup(
        environment="sandbox",
        asr_lang_code="en-US",
        tts_lang_code="en-US",
        channel="chat.polyai",
        integration_attributes={"caller": "+15550100"},
    )
    assert scenarios[-1].setup == ChatSetup(
        environment="pre-release",
        variant_id="night shift",
        asr_lang_code="de-DE",
        tts_lang_code="de-DE",
        channel="chat.polyai",
        integration_attributes={},
    )


def test_only_json_literals_are_not_text() -> None:
    name = written(
        """
        agent: 12345678901234567890123
        language: no
        variant: 1e5
        scenarios:
          - name: on
            integration_attributes:
              {on: off, y: Yes, born: 2026-03-01, at: 12:30, octal: 010, big: 92233720368547758080,
               int: -4, float: 1.5, huge: 1e999, true: True, none: ~, nothing: , quoted: "true"}
            turns:
              - say: &message off
                expect: &expected {contains: [no, 4, 1.50], matches: 12, handoff: 7}
              - say: *message
                expect: *expected
        """
    )
    (scenario,) = load_suite(name).scenarios
    assert (scenario.name, scenario.agent_id) == ("on", "12345678901234567890123")
    assert (scenario.setup.asr_lang_code, scenario.setup.variant_id) == ("no", "1e5")
    assert scenario.setup.integration_attributes == {
        "on": "off",
        "y": "Yes",
        "born": "2026-03-01",
        "at": "12:30",
        "octal": "010",
        "big": "92233720368547758080",
        "int": -4,
        "float": 1.5,
        "huge": "1e999",
        "true": True,
        "none": None,
        "nothing": None,
        "quoted": "true",
    }
    for turn in scenario.turns:
        assert turn.say == "off"
        assert [one.description for one in turn.expected] == [
            'contains "no"',
            'contains "4"',
            'contains "1.50"',
            "matches /12/",
            'hands over to "7"',
        ]


@pytest.mark.parametrize(
    ("written", "expected"),
    [("800ms", 0.8), ("2s", 2), ("1.5s", 1.5), ("1m", 60), (3, 3), (0.25, 0.25)],
)
def test_durations_are_read_in_seconds(written: str | float, expected: float) -> None:
    assert seconds(written) == pytest.approx(expected)


def test_the_schema_is_valid_and_has_every_expectation(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = typer.Typer()
    app.command()(debug_chat)
    app(["--schema"], standalone_mode=False)
    assert capsys.readouterr().out == schema_text()
    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    assert schema["$defs"]["expectations"]["properties"].keys() == _KINDS.keys()
    for path in SCENARIOS.glob("*.yaml"):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        relative = first.removeprefix("# yaml-language-server: $schema=")
        assert (path.parent / relative).read_text(encoding="utf-8") == schema_text()


def a_turn(expected: str) -> str:
    return f"scenarios:\n  - name: a\n    turns:\n      - say: x\n        expect: {expected}\n"


AT = "scenarios[0].turns[0].expect"

MALFORMED: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty": ("", ("1:1", "empty")),
    "comment": ("# nothing\n", ("1:1", "empty")),
    "list": ("[1]", ("1:1", "a mapping with scenarios", "not a list")),
    "syntax": (
        "scenarios:\n  - name: 'a\n",
        ("3:1", "scanning a quoted scalar from line 2 on", "found unexpected end of stream"),
    ),
    "tab": (
        "scenarios:\n\t- name: a\n",
        ("2:1", "found character '\\t' that cannot start any token"),
    ),
    "two-documents": (
        "scenarios: []\n---\nscenarios: []\n",
        ("2:1", "a single document in the stream from line 1 on", "another document"),
    ),
    "character": ("scenarios:\n - name: \a\n", ("2:10", "U+0007")),
    "encoding": (b"scenarios:\n  - \xfc", ("2:5", "UTF-8")),
    "tag": ("scenarios: !mine 3", ("1:12", "'3'", "'!mine'")),
    "duplicate-key": (
        "scenarios:\n  - name: a\n    turns: [{say: x}]\n    turns: [{say: y}]\n",
        ("4:5", "duplicate key 'turns'", "line 3"),
    ),
    "key-not-text": ("? [a]\n: b\n", ("1:3", "a key must be text")),
    "recursive-alias": ("scenarios: &a [*a]", ("1:12", "alias")),
    "no-scenarios": ("name: x\n", ("1:1", "'scenarios' is missing")),
    "scenarios-empty": (
        "scenarios: []",
        ("1:12", "scenarios: ", "a list of at least one scenario", "not an empty list"),
    ),
    "nearly": (
        "enviroment: live\nscenarios: [{name: a, greeting: {ended: false}}]",
        ("1:1", "'enviroment'", "did you mean environment?"),
    ),
    "unknown": (
        "scenarios:\n  - name: a\n    colour: red\n    turns: [{say: x}]\n",
        (
            "3:5",
            "scenarios[0]: ",
            "'colour'",
            "name, agent, environment, variant, language, channel, integration_attributes, "
            "greeting, turns",
        ),
    ),
    "environment": (
        "environment: Sandbox\nscenarios: [{name: a, turns: [{say: x}]}]\n",
        ("1:14", "environment: ", "sandbox, pre-release, live or draft", "not 'Sandbox'"),
    ),
    "environment-of-one": (
        "scenarios:\n  - name: a\n    environment: prod\n    turns: [{say: x}]\n",
        ("3:18", "scenarios[0].environment: ", "pre-release", "not 'prod'"),
    ),
    "name-missing": (
        "scenarios:\n  - turns: [{say: x}]\n",
        ("2:5", "scenarios[0]: 'name' is missing"),
    ),
    "name-empty": (
        "scenarios:\n  - name:\n    turns: [{say: x}]\n",
        ("2:10", "scenarios[0].name: ", "text", "not an empty value"),
    ),
    "duplicate-name": (
        "scenarios:\n  - {name: 1, turns: [{say: x}]}\n  - {name: '1', turns: [{say: x}]}\n",
        ("3:12", "scenarios[1].name: ", "duplicate name '1'", "line 2"),
    ),
    "nothing-to-test": (
        "scenarios:\n  - name: a\n",
        ("2:5", "scenarios[0]: turns or greeting is missing"),
    ),
    "no-turns": (
        "scenarios:\n  - name: a\n    turns: []\n",
        ("3:12", "scenarios[0].turns: ", "a list of at least one turn", "not an empty list"),
    ),
    "turn-text": (
        "scenarios:\n  - name: a\n    turns: [hello]\n",
        ("3:13", "scenarios[0].turns[0]: ", "a mapping with say", "not 'hello'"),
    ),
    "say-missing": (
        "scenarios:\n  - name: a\n    turns: [{expect: {ended: true}}]\n",
        ("3:13", "scenarios[0].turns[0]: 'say' is missing"),
    ),
    "say-null": (
        "scenarios:\n  - name: a\n    turns: [{say: null}]\n",
        ("3:19", "scenarios[0].turns[0].say: ", '"" for silence', "not an empty value"),
    ),
    "language": (
        "language: {}\nscenarios: [{name: a, turns: [{say: x}]}]\n",
        ("1:11", "language: ", "en-US", "a mapping of asr and tts", "not an empty mapping"),
    ),
    "no-expectation": (
        a_turn("{}"),
        ("5:17", f"{AT}: ", "a mapping of at least one expectation", "not an empty mapping"),
    ),
    "misspelt": (
        a_turn("{contians: a}"),
        ("5:18", f"{AT}: ", "'contians'", "did you mean contains?"),
    ),
    "regex": (
        a_turn('{matches: "a("}'),
        (
            "5:27",
            f"{AT}.matches: 'a('",
            "regular expression",
            "missing ), unterminated subpattern at position 1",
        ),
    ),
    "duration": (
        a_turn("{max_latency: soon}"),
        ("5:31", f"{AT}.max_latency: ", "800ms, 2s, 1.5s or 1m", "not 'soon'"),
    ),
    "duration-zero": (
        a_turn("{max_latency: 0}"),
        ("5:31", f"{AT}.max_latency: ", "800ms, 2s, 1.5s or 1m", "not 0"),
    ),
    "boolean": (
        a_turn("{ended: yes}"),
        ("5:25", f"{AT}.ended: ", "true or false", "not 'yes'"),
    ),
    "nested": (
        a_turn("{not: {not: {delayed: 1}}}"),
        ("5:39", f"{AT}.not.not.delayed: ", "true or false", "not 1"),
    ),
    "texts": (
        a_turn("{contains: {a: b}}"),
        ("5:28", f"{AT}.contains: ", "text or a list of texts", "not a mapping"),
    ),
    "text-of-texts": (
        a_turn("{contains: [a, null]}"),
        ("5:32", f"{AT}.contains[1]: ", "text", "not an empty value"),
    ),
    "state": (
        a_turn("{state: topic}"),
        ("5:25", f"{AT}.state: ", "a mapping of paths to values", "not 'topic'"),
    ),
    "turn-after-the-end": (
        "scenarios:\n  - name: a\n    turns:\n      - say: bye\n        expect: {ended: true}\n"
        "      - say: hello\n",
        ("5:18", "scenarios[0].turns[0]: ", "end the chat"),
    ),
    "turn-after-a-final-greeting": (
        "scenarios:\n  - {name: a, greeting: {ended: true}, turns: [{say: x}]}\n",
        ("2:26", "scenarios[0].greeting: ", "end the chat"),
    ),
}


@pytest.mark.parametrize(("content", "mistake"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_mistake_is_reported_with_position_and_allowed_values(
    content: str | bytes, mistake: tuple[str, ...]
) -> None:
    position, *facts = mistake
    assert_mistakes(mistakes(written(content)), (f"suite.yaml:{position}", *facts))


def test_all_mistakes_of_all_files_are_reported_at_once() -> None:
    first = written("name: x\nscenarios:\n  - nme: a\n    turns: hello\n", "b.yaml")
    second = written(a_turn("{ended: 1, delayed: 2, matches: '['}"), "a.yaml")
    assert_mistakes(
        mistakes(first, "none.yaml", second),
        ("a.yaml:5:25", f"{AT}.ended: ", "not 1"),
        ("a.yaml:5:37", f"{AT}.delayed: ", "not 2"),
        ("a.yaml:5:49", f"{AT}.matches: '['", "unterminated character set at position 0"),
        ("b.yaml:3:5", "scenarios[0]: 'name' is missing"),
        ("b.yaml:3:5", "scenarios[0]: ", "'nme'", "did you mean name?"),
        ("b.yaml:4:12", "scenarios[0].turns: ", "not 'hello'"),
        ("none.yaml", "No such file or directory"),
    )


def test_duplicate_suite_names_are_reported() -> None:
    for folder in ("one", "two"):
        Path(folder).mkdir()
        written(a_turn("{ended: false}"), f"{folder}/smoke.yaml")
    named = written("name: smoke\n" + a_turn("{ended: false}"), "other.yaml")
    assert_mistakes(
        mistakes("one/smoke.yaml", "two/smoke.yaml", named),
        ("other.yaml:1:7", "'smoke'", "one/smoke.yaml"),
        ("two/smoke.yaml:1:1", "'smoke'", "one/smoke.yaml"),
    )


def test_a_file_that_is_named_twice_is_read_once() -> None:
    Path("one").mkdir()
    written(a_turn("{ended: false}"), "one/smoke.yaml")
    assert len(load_suites(["one/smoke.yaml", Path("one/../one/smoke.yaml")])) == 1


def test_exponential_aliases_are_rejected() -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert_mistakes(mistakes(written("\n".join(lines))), ("suite.yaml", "100,000 values"))


def test_deep_nesting_is_rejected() -> None:
    assert_mistakes(mistakes(written("[" * 5000)), ("suite.yaml", "nested too deeply"))
