"""Scenarios in parallel, each in a chat of its own, its turns in order."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

from ..api.worker_pool import WorkerPool
from ..clock import Clock, utc_now
from ..config.settings import Agent, Settings, how_to_set, resolve
from ..errors import AccessError, ApiError, ConfigurationError, StoppedError, UncertainError
from .chat import ChatApi, DebugChat, Reply
from .expectations import Expectation
from .results import ChatsRun, Check, Concealment, Outcome, ScenarioResult, TurnResult
from .suite import Scenario, Suite, chosen_scenarios

logger = logging.getLogger("polyai")

ATTEMPTS = 3
"""Chats that a scenario begins at most: a message whose answer is lost must not be said twice."""

_POLL_SECONDS = 0.1
"""Time between two looks at whether the run is to end."""

OnResult = Callable[[ScenarioResult], object]
"""Told of each scenario as it ends, in a thread of its own."""


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
    """Tries scenarios, as many at once as `workers` says; nothing is written anywhere.

    A scenario that fails or meets an error keeps no other from being tried; a refused key does.
    What `pii` and `transcripts` hide is hidden in the results.

    Args:
        suites: From `load_suites`.
        settings: Agents and `workers`; what `resolve` finds where None.
        scenarios: Names of those to try, `scenario` or `suite/scenario`; all where none is given.
        environment: For all of them, whatever the files say.
        agent_id: For all of them, whatever the files say.
        label: What is tested, such as a version or a commit.
        stop: When set, answers under way are waited for, and no more is said.
        on_result: Told of each scenario that was begun.
        clock: What time it is.

    Raises:
        ConfigurationError: No scenario has a given name, a scenario's agent is not configured, or
            it names none where several are; no request was made then.
    """
    settings = settings or resolve()
    chosen = chosen_scenarios(suites, scenarios)
    if environment or agent_id:
        chosen = [
            replace(
                one,
                agent_id=agent_id or one.agent_id,
                setup=replace(one.setup, environment=environment or one.setup.environment),
            )
            for one in chosen
        ]
    tasks = [(one, _agent_of(one, settings)) for one in chosen]
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
            f"{scenario.place}: scenario {scenario.name!r} does not say which agent, and several "
            f"are configured: write agent: with one of {', '.join(known)}"
        )
    if scenario.agent_id not in known:
        raise ConfigurationError(
            f"{scenario.place}: agent {scenario.agent_id} of scenario {scenario.name!r} is not "
            f"configured: known are {', '.join(known)}. {how_to_set('agent_id')}"
        )
    return known[scenario.agent_id]


class _Pool:
    """The threads of a run, and what ends it.

    Args:
        settings: The run's settings.
        stop: Set from outside.
        on_result: Told of each scenario that was begun.
        clock: What time it is.
    """

    def __init__(
        self, settings: Settings, stop: threading.Event, on_result: OnResult, clock: Clock
    ) -> None:
        self._settings = settings
        self._stop = stop
        self._on_result = on_result
        self._clock = clock
        self._halt = threading.Event()
        """No more is said: the run was told to end, or the key is refused."""
        self._concealment = Concealment(settings)
        self._refusals: list[AccessError] = []

    def results(
        self, tasks: Sequence[tuple[Scenario, Agent]]
    ) -> tuple[list[ScenarioResult], AccessError | None]:
        """Results in the order of the tasks, and the refusal that stopped the run."""
        settings = self._settings
        with ExitStack() as opened:
            apis = {
                agent.agent_id: opened.enter_context(
                    ChatApi(
                        agent,
                        request_timeout=settings.request_timeout,
                        max_attempts=settings.max_attempts,
                        connections=settings.workers,
                    )
                )
                for _, agent in tasks
            }
            pool = opened.enter_context(WorkerPool(settings.workers, "polyai-chat"))
            # whatever ends this block, nothing more is said
            opened.callback(self._halt.set)
            results: dict[int, ScenarioResult] = {}

            def run_one(number: int) -> tuple[int, ScenarioResult]:
                scenario, agent = tasks[number]
                return number, self._try(scenario, apis[agent.agent_id], agent.agent_id)

            # all are submitted, also after a stop: those that have not begun end as skipped
            for done in pool.as_completed(run_one, range(len(tasks)), tick_seconds=_POLL_SECONDS):
                if done is not None:
                    results[done[0]] = done[1]
                if self._stop.is_set() or self._halt.is_set():
                    self._halt.set()
                    for api in apis.values():
                        # ends waits between attempts; answers under way still come
                        api.close()
            return [results[number] for number in sorted(results)], next(iter(self._refusals), None)

    def _try(self, scenario: Scenario, api: ChatApi, agent_id: str) -> ScenarioResult:
        attempt = 0
        while True:
            attempt += 1
            talk = _Talk(scenario, api, agent_id, self._halt, self._clock)
            try:
                talk.hold()
            except UncertainError as error:
                if attempt < ATTEMPTS and not self._halt.is_set():
                    logger.warning("%s: begun anew in another chat: %s", scenario.name, error)
                    continue
                talk.error = error
            except StoppedError:
                talk.is_cut_off = True
            except AccessError as error:
                talk.error = error
                self._refusals.append(error)
                self._halt.set()
            except ApiError as error:
                talk.error = error
            result = self._concealment.scenario(replace(talk.result(), attempts=attempt))
            if result.turns or result.outcome != "skipped":
                self._on_result(result)
            return result


class _Talk:
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
        self.is_cut_off = False
        """Whether the run ended before the scenario did."""

    def hold(self) -> None:
        """Has the chat, as far as it goes."""
        scenario = self._scenario
        if self._halt.is_set():
            self.is_cut_off = True
            return
        self._started_at = self._clock()
        self._take(None, self._chat.begin(), scenario.greeting)
        for number, turn in enumerate(scenario.turns):
            if self._has_ended:
                first, last = number + 1, len(scenario.turns)
                unsaid = f"turn {first}" if first == last else f"turns {first} to {last}"
                self._failure = (
                    f"the agent ended the chat after turn {number}: nothing was said of {unsaid}"
                )
                return
            if self._halt.is_set():
                self.is_cut_off = True
                return
            self._take(turn.say, self._chat.say(turn.say, turn.metadata), turn.expected)

    def _take(self, said: str | None, reply: Reply, expected: Sequence[Expectation]) -> None:
        self._finished_at = self._clock()
        self._has_ended = reply.has_ended
        self._turns.append(
            TurnResult(
                turn_index=len(self._turns),
                user_input=said,
                response=reply.response,
                latency_seconds=reply.latency_seconds,
                is_delayed=reply.is_delayed,
                metadata=reply.metadata,
                extra=reply.extra or None,
                checks=tuple(
                    Check(one.words, one.is_met(reply), one.found(reply)) for one in expected
                ),
            )
        )

    def result(self) -> ScenarioResult:
        """What came of it."""
        scenario, error = self._scenario, self.error
        if error is not None:
            self._finished_at = self._clock()
        words = f"turn {len(self._turns)}: {error}" if error is not None else None
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
            error="the run ended before this scenario did" if self.is_cut_off else words,
            error_kind=type(error).__name__ if error is not None else None,
        )

    def _outcome(self) -> Outcome:
        if self.error is not None:
            return "error"
        if self.is_cut_off:
            return "skipped"
        is_met = self._failure is None and all(turn.passed is not False for turn in self._turns)
        return "passed" if is_met else "failed"
