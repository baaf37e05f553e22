"""The commands `polyai-warehouse debug-chat` and `polyai-warehouse chat`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..config.settings import Agent, Settings, resolve
from ..console.options import (
    BaseUrlOption,
    DatasetOption,
    DestinationOption,
    JsonOption,
    RegionOption,
    WaitOption,
    WorkersOption,
)
from ..console.terminal import Exit, print_error, print_json, stderr, stdout, stop_on_signals
from ..errors import ConfigurationError, PolyAIError
from ..warehouse.open import open_pipeline, place
from . import show
from .chat import ChatApi, ChatSetup
from .interactive import InteractiveChat, Transcript, ask_person, ask_stream
from .junit import write_junit
from .keeping import PIPELINE_NAME, keep_results
from .progress import ScenariosProgress
from .results import ChatsRun
from .runner import run_suites
from .suite import ENVIRONMENT, chosen_scenarios, load_suites
from .validation import schema_text

_ENDING = "ending when the answers under way are there; again: leaving at once"


def _print_schema(is_wanted: bool) -> None:
    if is_wanted:
        sys.stdout.write(schema_text())
        raise typer.Exit


def debug_chat(
    files: Annotated[
        list[Path], typer.Argument(help="Scenarios in YAML.", show_default=False, metavar="FILE")
    ],
    scenario: Annotated[
        list[str] | None,
        typer.Option("--scenario", help="Only this one, NAME or SUITE/NAME; repeat for several."),
    ] = None,
    agent: Annotated[
        str | None, typer.Option(help="The agent for all of them, whatever the files say.")
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(help="The environment for all of them: sandbox, pre-release or live."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="What is tested, such as a version or a commit; kept.")
    ] = None,
    junit: Annotated[
        Path | None, typer.Option(help="Also write results as JUnit XML.", metavar="FILE")
    ] = None,
    warehouse: Annotated[
        bool,
        typer.Option(
            "--warehouse/--no-warehouse", help="Keep results and transcripts in the warehouse."
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
            help="Print the JSON Schema of the files, for editors, and leave.",
            callback=_print_schema,
            is_eager=True,
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Try scenarios with an agent: what is said, what is expected.

    Each scenario is a debug chat of its own; they run in parallel. Nothing is
    sent before every file is in order.

    Exits with 3 where a scenario failed or met an error.
    """
    suites = load_suites(files)
    settings = resolve(lock_wait=wait, workers=workers, region=region, base_url=base_url)
    pipeline = open_pipeline(destination, dataset, name=PIPELINE_NAME) if warehouse else None
    count = len(chosen_scenarios(suites, scenario or ()))
    with stop_on_signals(_ENDING) as stop:
        with ScenariosProgress(stderr, count) as progress:
            run = run_suites(
                suites,
                settings,
                scenarios=scenario or (),
                environment=environment,
                agent_id=agent,
                label=label,
                stop=stop,
                on_result=progress.tell,
            )
        if not as_json:
            show.chats(stdout, run)
        # first the file, for which nobody has to be waited for
        troubles: list[PolyAIError] = []
        if junit is not None:
            with _noted(troubles):
                write_junit(run, junit)
        kept = None
        if pipeline is not None:
            with _noted(troubles):
                keep_results(run, pipeline, wait=settings.lock_wait)
                kept = place(pipeline)
    code = _exit_code(run)
    if as_json:
        print_json(show.chats_as_json(run, code, kept))
    elif kept is not None:
        stdout.print(f"warehouse: {kept}", soft_wrap=True, markup=False)
    if code == Exit.INTERRUPTED:
        stderr.print("interrupted: what was done is kept")
    if run.stopped_by is not None:
        troubles.append(run.stopped_by)
    for trouble in troubles[:-1]:
        print_error(str(trouble))
    if troubles:
        raise troubles[-1]
    raise typer.Exit(code)


@contextmanager
def _noted(troubles: list[PolyAIError]) -> Iterator[None]:
    """Lets go on after an error: what came of the scenarios is told in any case."""
    try:
        yield
    except PolyAIError as error:
        troubles.append(error)


def _exit_code(run: ChatsRun) -> Exit:
    if run.is_interrupted:
        return Exit.INTERRUPTED
    if run.stopped_by is not None:
        return Exit.CONFIGURATION  # which its error says too
    return Exit.DONE if run.passed else Exit.SOME_FAILED


def chat(
    agent: Annotated[
        str | None, typer.Option(help="The agent. Default: the only one that is configured.")
    ] = None,
    environment: Annotated[str, typer.Option(help="sandbox, pre-release or live.")] = ENVIRONMENT,
    variant: Annotated[str | None, typer.Option(help="Id of the variant to talk to.")] = None,
    language: Annotated[
        str | None, typer.Option(help="Code of the language, such as en-US.")
    ] = None,
    channel: Annotated[
        str | None, typer.Option(help="Kind of channel, such as webchat.polyai.")
    ] = None,
    attributes: Annotated[
        list[str] | None,
        typer.Option(
            help="An integration attribute, as text; repeat for several.", metavar="KEY=VALUE"
        ),
    ] = None,
    region: RegionOption = None,
    base_url: BaseUrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Chat with an agent by hand, or with lines from a pipe.

    Under each answer stands what the agent did: latency, node, topics,
    functions, and what has changed in the state. Nothing is kept.
    """
    setup = ChatSetup(
        environment=environment,
        variant_id=variant,
        asr_lang_code=language,
        tts_lang_code=language,
        channel=channel,
        integration_attributes=_attributes(attributes),
    )
    settings = resolve(region=region, base_url=base_url)
    one = _only_agent(settings, agent)
    console = stderr if as_json else stdout
    is_live = sys.stdin.isatty()
    transcript = Transcript(one.agent_id, environment)
    code = Exit.DONE
    api = ChatApi(one, request_timeout=settings.request_timeout, max_attempts=settings.max_attempts)
    try:
        with api:
            ask = ask_person(console) if is_live else ask_stream(console, sys.stdin)
            InteractiveChat(api, setup, console, ask, transcript, is_live=is_live).hold()
    except KeyboardInterrupt:
        console.print()
        code = Exit.INTERRUPTED
    finally:
        if as_json:
            print_json(asdict(transcript))
    raise typer.Exit(code)


def _only_agent(settings: Settings, agent_id: str | None) -> Agent:
    """The agent to chat with."""
    agents = settings.only([agent_id] if agent_id else ()).agents
    if len(agents) > 1:
        names = ", ".join(agent.agent_id for agent in agents)
        raise ConfigurationError(f"several agents are configured, say which: --agent, of {names}")
    return agents[0]


def _attributes(given: list[str] | None) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in given or ()]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise typer.BadParameter(
                f"an attribute is KEY=VALUE, not {name!r}", param_hint="--attributes"
            )
    return {name: value for name, _, value in pairs} or None
