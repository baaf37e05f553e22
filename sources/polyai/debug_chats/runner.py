"""Parallel runner of scenarios; each scenario is a separate chat with its turns in order."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from ..api.worker_pool import WorkerPool
from ..clock import Clock, utc_now
from ..config.agent import Agent
from ..config.lookup import how_to_set
from ..config.settings import Settings, resolve
from ..errors import AccessError, ApiError, ConfigurationError, StoppedError, UncertainError
from ..shape.redaction import request_options
from .chat import ChatApi, DebugChat, Reply, check_environment
from .expectations import Expectation
from .results import ChatsRun, Check, Outcome, ResultRedaction, ScenarioResult, TurnResult
from .suite import Scenario, Suite, select_scenarios

logger = logging.getLogger("polyai")

ATTEMPTS = 3
"""Maximum number of chats per scenario.

After a lost answer the scenario restarts in a new chat: a message must not be sent twice in one.
"""

_POLL_SECONDS = 0.1
"""Interval between checks of the stop event."""

OnResult = Callable[[ScenarioResult], object]
"""Callback for finished scenarios; called in their worker threads."""


def run_suites(
    suites: Sequence[Suite],
    settings: Settings | None = None,
    *,
    scenarios: Sequence[str] = (),
    environment: str | None = None,
    agent_id: str | None = None,
    label: str | None = None,
    stop: threading.Event | None = None,
    on_result: OnResult = lambda result: None,
    clock: Clock = utc_now,
) -> ChatsRun:
    """Runs scenarios, `workers` at a time; writes nothing to the warehouse.

    A failure or error of one scenario does not stop the others; a refused key stops the run.
    Results are redacted under the settings `pii` and `transcripts`.

    Args:
        suites: Result of `load_suites`.
        settings: Agents and `workers`; None for the result of `resolve`.
        scenarios: Names of scenarios, `scenario` or `suite/scenario`; empty for all.
        environment: Overrides the environment of all scenarios.
        agent_id: Overrides the agent of all scenarios.
        label: Label of the tested version, such as a version or a commit.
        stop: When set, pending answers are awaited, and no more messages are sent.
        on_result: Called with the result of each scenario that was started.
        clock: Source of the current time.

    Raises:
        ConfigurationError: Raised before any request: a name matches no scenario, the environment
            is unknown, a scenario's agent is not configured, or it names none although several are
            configured.
    """
    settings = settings or resolve()
    selected = select_scenarios(suites, scenarios)
    if environment:
        check_environment(environment)
    if environment or agent_id:
        selected = [
            replace(
                one,
                agent_id=agent_id or one.agent_id,
                setup=replace(one.setup, environment=environment or one.setup.environment),
            )
            for one in selected
        ]
    tasks = [(one, _agent_of(one, settings)) for one in selected]
    run = ChatsRun(
        run_id=uuid.uuid4().hex,
        label=label,
        files={suite.name: suite.path for suite in suites},
        scenarios=(),
        started_at=clock(),
        finished_at=clock(),
    )
    stop = stop or threading.Event()
    results, stopped_by = _Pool(settings, stop, on_result, clock).results(tasks)
    return replace(
        run,
        scenarios=tuple(results),
        finished_at=clock(),
        stopped_by=stopped_by,
        is_interrupted=stop.is_set(),
    )


def _agent_of(scenario: Scenario, settings: Settings) -> Agent:
    known = {agent.agent_id: agent for agent in settings.agents}
    if scenario.agent_id is None:
        if len(known) == 1:
            return settings.agents[0]
        raise ConfigurationError(
            f"{scenario.place}: scenario {scenario.name!r} names no agent, and several are "
            f"configured: set agent to one of {', '.join(known)}"
        )
    if scenario.agent_id not in known:
        raise ConfigurationError(
            f"{scenario.place}: agent {scenario.agent_id} of scenario {scenario.name!r} is not "
            f"configured (configured: {', '.join(known)}). {how_to_set('agent_id')}"
        )
    return known[scenario.agent_id]


class _Pool:
    """Worker threads of a run, and its stop conditions.

    Args:
        settings: The run's settings.
        stop: Set by the caller to interrupt the run.
        on_result: Called with the result of each scenario that was started.
        clock: Source of the current time.
    """

    def __init__(
        self, settings: Settings, stop: threading.Event, on_result: OnResult, clock: Clock
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._on_result = on_result
        self._clock = clock
        self._halt = threading.Event()
        """Set when no more messages may be sent: the run is interrupted, or the key is refused."""
        self._redaction = ResultRedaction(settings)
        self._refusals: list[AccessError] = []

    def results(
        self, tasks: Sequence[tuple[Scenario, Agent]]
    ) -> tuple[list[ScenarioResult], AccessError | None]:
        """Returns results in the order of the tasks, and the refusal that stopped the run."""
        settings = self._settings
        with ExitStack() as opened:
            apis = {
                agent.agent_id: opened.enter_context(
                    ChatApi(
                        agent,
                        **request_options(settings),
                        connections=settings.workers,
                    )
                )
                for _, agent in tasks
            }
            pool = opened.enter_context(WorkerPool(settings.workers, "polyai-chat"))
            # however this block ends, no more messages are sent
            opened.callback(self._halt.set)
            results: dict[int, ScenarioResult] = {}

            def run_one(index: int) -> tuple[int, ScenarioResult]:
                scenario, agent = tasks[index]
                return index, self._run(scenario, apis[agent.agent_id], agent.agent_id)

            # all are submitted, also after a stop: those that have not started end as skipped
            for done in pool.as_completed(run_one, range(len(tasks)), tick_seconds=_POLL_SECONDS):
                if done is not None:
                    index, result = done
                    results[index] = result
                if self._stop.is_set() or self._halt.is_set():
                    self._halt.set()
                    for api in apis.values():
                        # ends waits between attempts; pending answers still arrive
                        api.close()
            return [results[index] for index in sorted(results)], next(iter(self._refusals), None)

    def _run(self, scenario: Scenario, api: ChatApi, agent_id: str) -> ScenarioResult:
        attempt = 0
        while True:
            attempt += 1
            chat = _Attempt(scenario, api, agent_id, self._halt, self._clock)
            try:
                chat.run()
            except UncertainError as error:
                if attempt < ATTEMPTS and not self._halt.is_set():
                    logger.warning("%s: restarting in a new chat: %s", scenario.name, error)
                    continue
                chat.error = error
            except StoppedError:
                chat.is_interrupted = True
            except AccessError as error:
                chat.error = error
                self._refusals.append(error)
                self._halt.set()
            except ApiError as error:
                chat.error = error
            result = self._redaction.scenario(replace(chat.result(), attempts=attempt))
            if result.turns or result.outcome != "skipped":
                self._on_result(result)
            return result


class _Attempt:
    """One attempt at a scenario."""

    def __init__(
        self,
        scenario: Scenario,
        api: ChatApi,
        agent_id: str,
        halt: threading.Event,
        clock: Clock,
    ) -> None:
        self._scenario = scenario
        self._agent_id = agent_id
        self._halt = halt
        self._clock = clock
        self._chat = DebugChat(api, scenario.setup)
        self._turns: list[TurnResult] = []
        self._started_at = self._finished_at = clock()
        self._has_ended = False
        self._failure: str | None = None
        self.error: ApiError | None = None
        self.is_interrupted = False
        """True if the run was stopped before the end of the scenario."""

    def run(self) -> None:
        """Runs the turns until the end of the scenario, of the chat or of the run."""
        scenario = self._scenario
        if self._halt.is_set():
            self.is_interrupted = True
            return
        self._started_at = self._clock()
        self._record(None, self._chat.start(), scenario.greeting)
        for number, turn in enumerate(scenario.turns):
            if self._has_ended:
                first, last = number + 1, len(scenario.turns)
                unsent = f"turn {first} was" if first == last else f"turns {first} to {last} were"
                self._failure = f"the agent ended the chat after turn {number}: {unsent} not sent"
                return
            if self._halt.is_set():
                self.is_interrupted = True
                return
            self._record(turn.say, self._chat.say(turn.say, turn.metadata), turn.expected)

    def _record(self, message: str | None, reply: Reply, expected: Sequence[Expectation]) -> None:
        self._finished_at = self._clock()
        self._has_ended = reply.has_ended
        self._turns.append(
            TurnResult(
                turn_index=len(self._turns),
                user_input=message,
                response=reply.response,
                latency_seconds=reply.latency_seconds,
                is_delayed=reply.is_delayed,
                metadata=reply.metadata,
                extra=reply.extra or None,
                checks=tuple(
                    Check(one.description, one.is_met(reply), one.actual(reply)) for one in expected
                ),
            )
        )

    def result(self) -> ScenarioResult:
        """Returns the result so far."""
        scenario, error = self._scenario, self.error
        if error is not None:
            self._finished_at = self._clock()
        message = f"turn {len(self._turns)}: {error}" if error is not None else None
        return ScenarioResult(
            suite=scenario.suite,
            scenario=scenario.name,
            place=scenario.place,
            agent_id=self._agent_id,
            setup=scenario.setup,
            chat_id=self._chat.chat_id,
            outcome=self._outcome(),
            started_at=self._started_at,
            finished_at=self._finished_at,
            has_ended=self._has_ended,
            turns=tuple(self._turns),
            failure=self._failure,
            error="the run was stopped before the end of this scenario"
            if self.is_interrupted
            else message,
            error_kind=type(error).__name__ if error is not None else None,
        )

    def _outcome(self) -> Outcome:
        if self.error is not None:
            return "error"
        if self.is_interrupted:
            return "skipped"
        is_met = self._failure is None and all(turn.passed is not False for turn in self._turns)
        return "passed" if is_met else "failed"
