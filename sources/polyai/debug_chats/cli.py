"""The commands `polyai-warehouse debug-chat` and `polyai-warehouse chat`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..config.agent import Agent
from ..config.settings import Settings, resolve
from ..console.exit_codes import ExitCode
from ..console.options import (
    BaseUrlOption,
    DatasetOption,
    DestinationOption,
    JsonOption,
    RegionOption,
    WaitOption,
    WorkersOption,
)
from ..console.process import stop_on_signals
from ..console.terminal import print_error, print_json, stderr, stdout
from ..errors import ConfigurationError
from ..shape.redaction import request_options
from ..warehouse.target import Target
from . import show
from .chat import ChatApi, ChatSetup, check_environment
from .command import run_exit_code, save
from .interactive import InteractiveChat, Transcript, ask_person, ask_stream
from .progress import ScenariosProgress
from .result_store import PIPELINE_NAME
from .runner import run_suites
from .schema import schema_text
from .suite import ENVIRONMENT, load_suites, select_scenarios

_STOP_MESSAGE = "stopping after pending answers"


def _print_schema(is_wanted: bool) -> None:
    if is_wanted:
        sys.stdout.write(schema_text())
        raise typer.Exit


def debug_chat(
    files: Annotated[
        list[Path],
        typer.Argument(help="Scenario files (YAML).", show_default=False, metavar="FILE"),
    ],
    scenario: Annotated[
        list[str] | None,
        typer.Option("--scenario", help="Run only this scenario: NAME or SUITE/NAME. Repeatable."),
    ] = None,
    agent: Annotated[
        str | None, typer.Option(help="Agent for all scenarios; overrides the files.")
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(
            help="Environment for all scenarios: sandbox, pre-release, live or draft. "
            "Overrides the files."
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Label of the tested version, such as a commit. Stored with the results."
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Also write the results as JUnit XML.", metavar="FILE")
    ] = None,
    warehouse: Annotated[
        bool,
        typer.Option(
            "--warehouse/--no-warehouse", help="Store results and transcripts in the warehouse."
        ),
    ] = True,
    workers: WorkersOption = None,
    wait: WaitOption = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    destination: DestinationOption = None,
    dataset: DatasetOption = None,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            help="Print the JSON Schema of scenario files, for editors, and exit.",
            callback=_print_schema,
            is_eager=True,
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Test an agent with scenarios: messages and expected answers.

    Each scenario is a separate debug chat; scenarios run in parallel. Nothing
    is sent unless all files are valid. Needs the extra debug-chats.

    Exits with 3 if a scenario failed or ended with an error.
    """
    suites = load_suites(files)
    settings = resolve(lock_wait=wait, workers=workers, region=region, base_url=base_url)
    pipeline = Target(destination, dataset).open(PIPELINE_NAME) if warehouse else None
    count = len(select_scenarios(suites, scenario or ()))
    with stop_on_signals(_STOP_MESSAGE) as stop:
        with ScenariosProgress(stderr, count) as progress:
            run = run_suites(
                suites,
                settings,
                scenarios=scenario or (),
                environment=environment,
                agent_id=agent,
                label=label,
                stop=stop,
                on_result=progress.add,
            )
        if not as_json:
            show.chats(stdout, run)
        saved = save(run, junit=junit, pipeline=pipeline, lock_wait=settings.lock_wait)
    code = run_exit_code(run)
    if as_json:
        print_json(show.chats_as_json(run, code, saved.warehouse))
    elif saved.warehouse is not None:
        stdout.print(f"warehouse: {saved.warehouse}", soft_wrap=True, markup=False)
    if code == ExitCode.INTERRUPTED:
        stderr.print("interrupted: the results so far are kept")
    for error in saved.errors:
        print_error(str(error))
    raise typer.Exit(saved.exit_code)


def chat(
    agent: Annotated[
        str | None, typer.Option(help="The agent. Default: the only configured one.")
    ] = None,
    environment: Annotated[
        str, typer.Option(help="Environment: sandbox, pre-release, live or draft.")
    ] = ENVIRONMENT,
    variant: Annotated[str | None, typer.Option(help="Id of the variant to chat with.")] = None,
    language: Annotated[str | None, typer.Option(help="Language code, such as en-US.")] = None,
    channel: Annotated[
        str | None, typer.Option(help="Channel to simulate, such as webchat.polyai.")
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option(help="Integration attribute, as text. Repeatable.", metavar="KEY=VALUE"),
    ] = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Chat with an agent, interactively or with lines from a pipe.

    Shows below each answer: latency, node, topics, functions, and changes of
    the state. Nothing is stored.

    Exits with 3 if the chat ended before all lines of a pipe were sent.
    """
    check_environment(environment)
    setup = ChatSetup(
        environment=environment,
        variant_id=variant,
        asr_lang_code=language,
        tts_lang_code=language,
        channel=channel,
        integration_attributes=_attributes(attributes),
    )
    settings = resolve(region=region, base_url=base_url)
    selected = _only_agent(settings, agent)
    console = stderr if as_json else stdout
    is_live = sys.stdin.isatty()
    transcript = Transcript(selected.agent_id, environment)
    code = ExitCode.DONE
    api = ChatApi(selected, **request_options(settings))
    try:
        with api:
            ask = ask_person(console) if is_live else ask_stream(console, sys.stdin)
            session = InteractiveChat(api, setup, console, ask, transcript, is_live=is_live)
            if not session.run():
                code = ExitCode.SOME_FAILED
    except KeyboardInterrupt:
        console.print()
        code = ExitCode.INTERRUPTED
    finally:
        if as_json:
            print_json(asdict(transcript))
    raise typer.Exit(code)


def _only_agent(settings: Settings, agent_id: str | None) -> Agent:
    """Returns the agent to chat with."""
    agents = settings.only([agent_id] if agent_id else ()).agents
    if len(agents) > 1:
        names = ", ".join(agent.agent_id for agent in agents)
        raise ConfigurationError(f"several agents are configured, choose one with --agent: {names}")
    return agents[0]


def _attributes(given: list[str] | None) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in given or ()]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise typer.BadParameter(f"expected KEY=VALUE, not {name!r}", param_hint="--attributes")
    return {name: value for name, _, value in pairs} or None
