"""Scenarios files: what is read of them, and what is said of each mistake, with its place."""

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
from polyai.debug_chats.validation import schema_text
from polyai.errors import ConfigurationError

SCENARIOS = Path(__file__).parent / "scenarios"


def written(content: str | bytes, name: str = "suite.yaml") -> str:
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return name


def mistakes(*names: str) -> list[str]:
    """What is said of files that are not in order."""
    with pytest.raises(ConfigurationError) as caught:
        load_suites(names)
    first, *others = str(caught.value).splitlines()
    if not others:
        return [first]
    assert first == f"{len(others)} mistakes, nothing was sent"
    return others


def test_texts_are_what_they_look_like() -> None:
    (suite,) = load_suites([SCENARIOS / "bookings.yaml"])
    by_name = {scenario.name: scenario for scenario in suite.scenarios}
    assert suite.name == "bookings"
    assert [turn.say for turn in by_name["says yes"].turns] == ["yes", "007", "1.0", "true"]
    late = by_name["says that the answer is late"]
    assert [(turn.say, turn.metadata) for turn in late.turns] == [
        ("how slow is the garage to park in?", {"source": "voice", "attempt": 2}),
        ("", None),
    ]


def test_a_scenario_overrides_what_the_file_says_for_all() -> None:
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


def test_yaml_of_older_days_does_not_bite() -> None:
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
              - say: &said off
                expect: &expected {contains: [no, 4, 1.50], matches: 12, handoff: 7}
              - say: *said
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
    words = [
        'contains "no"',
        'contains "4"',
        'contains "1.50"',
        "matches /12/",
        'hands over to "7"',
    ]
    for turn in scenario.turns:
        assert turn.say == "off"
        assert [one.words for one in turn.expected] == words


@pytest.mark.parametrize(
    ("written", "read"),
    [("800ms", 0.8), ("2s", 2), ("1.5s", 1.5), ("1m", 60), (3, 3), (0.25, 0.25)],
)
def test_durations(written: str | float, read: float) -> None:
    assert seconds(written) == pytest.approx(read)


def test_the_schema_is_one_and_knows_every_expectation(capsys: pytest.CaptureFixture[str]) -> None:
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

MALFORMED = {
    "empty": ("", "1:1: the file is empty"),
    "comment": ("# nothing\n", "1:1: the file is empty"),
    "list": ("[1]", "1:1: a mapping with scenarios is needed, not a list"),
    "syntax": (
        "scenarios:\n  - name: 'a\n",
        "3:1: this is no YAML: while scanning a quoted scalar from line 2 on, found unexpected "
        "end of stream",
    ),
    "tab": (
        "scenarios:\n\t- name: a\n",
        "2:1: this is no YAML: while scanning for the next token, found character "
        "'\\t' that cannot start any token",
    ),
    "two-documents": (
        "scenarios: []\n---\nscenarios: []\n",
        "2:1: this is no YAML: expected a single document in the stream from line 1 on, but found "
        "another document",
    ),
    "character": ("scenarios:\n - name: \a\n", "2:10: the character U+0007 is not allowed in YAML"),
    "encoding": (b"scenarios:\n  - \xfc", "2:5: this is not UTF-8: save the file as UTF-8"),
    "tag": ("scenarios: !mine 3", "1:12: '3' is not of the kind '!mine'"),
    "key-twice": (
        "scenarios:\n  - name: a\n    turns: [{say: x}]\n    turns: [{say: y}]\n",
        "4:5: 'turns' is here twice, first in line 3",
    ),
    "key-no-text": ("? [a]\n: b\n", "1:3: a key has to be text"),
    "endless": ("scenarios: &a [*a]", "1:12: this alias stands within what it refers to"),
    "no-scenarios": ("name: x\n", "1:1: 'scenarios' is missing"),
    "scenarios-empty": (
        "scenarios: []",
        "1:12: scenarios: a list of at least one scenario is needed, not an empty list",
    ),
    "nearly": ("enviroment: live\nscenarios: [{name: a, greeting: {ended: false}}]",
               "1:1: 'enviroment' is not known; did you mean environment?"),
    "unknown": (
        "scenarios:\n  - name: a\n    colour: red\n    turns: [{say: x}]\n",
        "3:5: scenarios[0]: 'colour' is not known; allowed are name, agent, environment, variant, "
        "language, channel, integration_attributes, greeting, turns",
    ),
    "name-missing": ("scenarios:\n  - turns: [{say: x}]\n", "2:5: scenarios[0]: 'name' is missing"),
    "name-empty": (
        "scenarios:\n  - name:\n    turns: [{say: x}]\n",
        "2:10: scenarios[0].name: text is needed, not an empty value",
    ),
    "name-twice": (
        "scenarios:\n  - {name: 1, turns: [{say: x}]}\n  - {name: '1', turns: [{say: x}]}\n",
        "3:12: scenarios[1].name: '1' is taken by line 2",
    ),
    "nothing-to-try": (
        "scenarios:\n  - name: a\n",
        "2:5: scenarios[0]: turns or greeting is missing: nothing would be tried",
    ),
    "no-turns": (
        "scenarios:\n  - name: a\n    turns: []\n",
        "3:12: scenarios[0].turns: a list of at least one turn is needed, not an empty list",
    ),
    "turn-text": (
        "scenarios:\n  - name: a\n    turns: [hello]\n",
        "3:13: scenarios[0].turns[0]: a mapping with say is needed, not 'hello'",
    ),
    "say-missing": (
        "scenarios:\n  - name: a\n    turns: [{expect: {ended: true}}]\n",
        "3:13: scenarios[0].turns[0]: 'say' is missing",
    ),
    "say-null": (
        "scenarios:\n  - name: a\n    turns: [{say: null}]\n",
        '3:19: scenarios[0].turns[0].say: text is needed ("" for silence), not an empty value',
    ),
    "language": (
        "language: {}\nscenarios: [{name: a, turns: [{say: x}]}]\n",
        "1:11: language: a code such as en-US is needed, or a mapping of asr and tts, not an empty "
        "mapping",
    ),
    "expects-nothing": (
        a_turn("{}"),
        f"5:17: {AT}: a mapping of at least one expectation is needed, not an empty mapping",
    ),
    "typing-error": (a_turn("{contians: a}"), f"5:18: {AT}: 'contians' is not known; did you mean "
                     "contains?"),
    "regex": (
        a_turn('{matches: "a("}'),
        f"5:27: {AT}.matches: 'a(' is no regular expression: missing ), unterminated subpattern "
        "at position 1",
    ),
    "duration": (
        a_turn("{max_latency: soon}"),
        f"5:31: {AT}.max_latency: a duration is needed, such as 800ms, 2s, 1.5s or 1m, or a number "
        "of seconds, not 'soon'",
    ),
    "duration-zero": (
        a_turn("{max_latency: 0}"),
        f"5:31: {AT}.max_latency: a duration is needed, such as 800ms, 2s, 1.5s or 1m, or a number "
        "of seconds, not 0",
    ),
    "boolean": (
        a_turn("{ended: yes}"),
        f"5:25: {AT}.ended: true or false is needed, not 'yes'",
    ),
    "nested": (
        a_turn("{not: {not: {delayed: 1}}}"),
        f"5:39: {AT}.not.not.delayed: true or false is needed, not 1",
    ),
    "texts": (
        a_turn("{contains: {a: b}}"),
        f"5:28: {AT}.contains: text, or a list of texts, is needed, not a mapping",
    ),
    "text-of-texts": (
        a_turn("{contains: [a, null]}"),
        f"5:32: {AT}.contains[1]: text is needed, not an empty value",
    ),
    "state": (
        a_turn("{state: topic}"),
        f"5:25: {AT}.state: a mapping of paths and values is needed, not 'topic'",
    ),
    "ends-too-early": (
        "scenarios:\n  - name: a\n    turns:\n      - say: bye\n        expect: {ended: true}\n"
        "      - say: hello\n",
        "5:18: scenarios[0].turns[0]: the agent is expected to end the chat here, so what follows "
        "cannot be said",
    ),
    "greeting-ends": (
        "scenarios:\n  - {name: a, greeting: {ended: true}, turns: [{say: x}]}\n",
        "2:26: scenarios[0].greeting: the agent is expected to end the chat here, so what follows "
        "cannot be said",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("content", "said"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_mistake_has_its_place_and_says_what_is_allowed(content: str | bytes, said: str) -> None:
    assert mistakes(written(content)) == [f"suite.yaml:{said}"]


def test_all_mistakes_of_all_files_come_at_once() -> None:
    first = written("name: x\nscenarios:\n  - nme: a\n    turns: hello\n", "b.yaml")
    second = written(a_turn("{ended: 1, delayed: 2, matches: '['}"), "a.yaml")
    assert mistakes(first, "none.yaml", second) == [
        f"a.yaml:5:25: {AT}.ended: true or false is needed, not 1",
        f"a.yaml:5:37: {AT}.delayed: true or false is needed, not 2",
        f"a.yaml:5:49: {AT}.matches: '[' is no regular expression: "
        "unterminated character set at position 0",
        "b.yaml:3:5: scenarios[0]: 'name' is missing",
        "b.yaml:3:5: scenarios[0]: 'nme' is not known; did you mean name?",
        "b.yaml:4:12: scenarios[0].turns: a list of at least one turn is needed, not 'hello'",
        "none.yaml: the file cannot be read: No such file or directory",
    ]


def test_suites_have_names_of_their_own() -> None:
    for folder in ("one", "two"):
        Path(folder).mkdir()
        written(a_turn("{ended: false}"), f"{folder}/smoke.yaml")
    named = written("name: smoke\n" + a_turn("{ended: false}"), "other.yaml")
    said = "is called 'smoke' too: give each a name of its own, which tells their results apart"
    assert mistakes("one/smoke.yaml", "two/smoke.yaml", named) == [
        f"other.yaml:1:7: the suite in one/smoke.yaml {said}",
        f"two/smoke.yaml:1:1: the suite in one/smoke.yaml {said}",
    ]
    # the same file twice is read once
    assert len(load_suites(["one/smoke.yaml", Path("one/../one/smoke.yaml")])) == 1


def test_aliases_of_aliases_are_refused() -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert mistakes(written("\n".join(lines))) == ["suite.yaml: there are more than 100,000 values"]


def test_what_is_nested_too_deeply_is_refused() -> None:
    assert mistakes(written("[" * 5000)) == ["suite.yaml: this is nested too deeply"]
