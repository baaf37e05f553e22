"""`backfill`: an explicit range, in slices, several at a time, each in a process of its own.

A slice needs nothing but its arguments and the destination, so any orchestrator can run each of
them on another machine with the same command. Here a few worker processes take one after the other.
One that dies takes only its slice with it.
"""

from __future__ import annotations

import logging
import multiprocessing
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from ..config.settings import Settings
from ..errors import BusyError, PolyAIError
from ..listing.landmarks import Landmarks
from ..locking.files import free_pipeline_name
from ..warehouse.open import BACKFILL_PIPELINE, open_pipeline, working_folder
from .plan import Span
from .report import RunReport
from .run import load_slice
from .slices import Slice, SliceReport, cut, slice_report, without_run

logger = logging.getLogger("polyai")

WORKERS = 2
"""Slices at a time, unless said otherwise: more need more cores, and some 250 MB each."""

SLICE_LENGTH = timedelta(days=1)
"""Length of a slice, unless said otherwise."""

MOST_PIPELINES = 256
"""Slices that one working directory can have at a time."""

_TOLD_EVERY_SECONDS = 0.5

OnChange = Callable[[SliceReport], None]
"""Told how each slice stands, every now and then and at its end."""


@dataclass(frozen=True)
class Target:
    """Where to load: the arguments of `open_pipeline`."""

    destination: str | None = None
    dataset: str | None = None
    pipelines_dir: Path | None = None


def _silent(report: SliceReport) -> None:
    """Takes no notice."""


def backfill(
    settings: Settings,
    target: Target,
    span: Span,
    *,
    slice_length: timedelta = SLICE_LENGTH,
    workers: int = WORKERS,
    again: bool = False,
    stop: threading.Event | None = None,
    on_change: OnChange = _silent,
) -> list[SliceReport]:
    """Loads what all agents have in a range.

    Can be run again at any time: what the warehouse holds and has not changed is skipped. How far
    `load` has come does not change.

    Args:
        settings: Agents and how to read them; `workers` requests in flight are shared among the
            slices of an agent.
        target: Where to load.
        span: The range.
        slice_length: Length of a slice.
        workers: Slices at a time.
        again: Read all of it, also what is held and has not changed.
        stop: When set, slices that have begun end with what they read, and no more begin.
        on_change: Told how each slice stands.

    Returns:
        A report for each slice that was begun, in their order. One that failed did not stop the
        others.

    Raises:
        ConfigurationError: The range is empty.
    """
    stop = stop or threading.Event()
    slices = cut([agent.agent_id for agent in settings.agents], span, slice_length)
    workers = min(workers, len(slices))
    at_once = max(1, -(-workers // len(settings.agents)))
    order = _Order(replace(settings, workers=max(1, settings.workers // at_once)), target, again)
    run = _one_by_one if workers == 1 else _side_by_side
    reports = {report.slice: report for report in run(order, slices, workers, stop, on_change)}
    return [reports[slice_] for slice_ in slices if slice_ in reports]


@dataclass(frozen=True)
class _Order:
    """What all slices of a backfill have in common."""

    settings: Settings
    target: Target
    again: bool


def _one_by_one(
    order: _Order, slices: Sequence[Slice], _: int, stop: threading.Event, on_change: OnChange
) -> Iterator[SliceReport]:
    """In this process: how a slice of its own is run by an orchestrator."""
    landmarks: dict[str, Landmarks] = {}
    for slice_ in slices:
        if stop.is_set():
            return
        known = landmarks.setdefault(slice_.agent_id, Landmarks())
        on_change(without_run(slice_, "running"))
        report = _loaded(order, slice_, known, 1, stop, on_change)
        on_change(report)
        yield report


def _loaded(
    order: _Order,
    slice_: Slice,
    landmarks: Landmarks,
    first_pipeline: int,
    stop: threading.Event,
    on_change: OnChange,
) -> SliceReport:
    """Loads one slice with the first pipeline that nobody is using."""
    settings, target = order.settings.only([slice_.agent_id]), order.target
    began = time.monotonic()
    over = threading.Event()
    tellers: list[threading.Thread] = []

    def on_begin(report: RunReport) -> None:
        def tell() -> None:
            while not over.wait(_TOLD_EVERY_SECONDS) and report.finished_at is None:
                on_change(slice_report(slice_, report, time.monotonic() - began))

        tellers.append(threading.Thread(target=tell, name="polyai-slice", daemon=True))
        tellers[-1].start()

    folder = working_folder(target.pipelines_dir)
    try:
        with free_pipeline_name(folder, BACKFILL_PIPELINE, first_pipeline, MOST_PIPELINES) as name:
            report = load_slice(
                settings,
                open_pipeline(target.destination, target.dataset, folder, name),
                slice_.span,
                again=order.again,
                landmarks=landmarks,
                stop=stop,
                on_begin=on_begin,
            )
    except PolyAIError as error:
        return without_run(slice_, "busy" if isinstance(error, BusyError) else "failed", str(error))
    finally:
        over.set()
        for teller in tellers:
            teller.join()
    return slice_report(slice_, report, time.monotonic() - began)


@dataclass
class _Worker:
    """A process that loads slices, and the one that it has."""

    number: int
    process: Any
    connection: Connection
    slice: Slice | None = None


def _side_by_side(
    order: _Order, slices: Sequence[Slice], workers: int, stop: threading.Event, on_change: OnChange
) -> Iterator[SliceReport]:
    waiting = deque(slices)
    landmarks: dict[str, Landmarks] = {}
    at_work = {number: _begun(number, order) for number in range(1, workers + 1)}
    is_told = False
    try:
        for worker in at_work.values():
            _hand_out(worker, waiting, landmarks, stop, on_change)
        while any(worker.slice for worker in at_work.values()):
            if stop.is_set() and not is_told:
                is_told = True
                for worker in at_work.values():
                    with suppress(OSError):
                        worker.connection.send(None)
            busy = [worker for worker in at_work.values() if worker.slice]
            heard = wait([worker.connection for worker in busy], _TOLD_EVERY_SECONDS)
            for worker in busy:
                if worker.connection not in heard:
                    continue
                ended = _heard(worker, landmarks, on_change)
                if ended is None:
                    continue
                on_change(ended)
                yield ended
                if not worker.process.is_alive() and waiting and not stop.is_set():
                    worker = at_work[worker.number] = _begun(worker.number, order)
                _hand_out(worker, waiting, landmarks, stop, on_change)
    finally:
        for worker in at_work.values():
            worker.connection.close()
        for worker in at_work.values():
            worker.process.join()


def _begun(number: int, order: _Order) -> _Worker:
    # spawned: a fork would take over threads and open connections half-way
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, number, order, logger.level), name=f"polyai-slices-{number}"
    )
    process.start()
    theirs.close()
    return _Worker(number, process, ours)


def _hand_out(
    worker: _Worker,
    waiting: deque[Slice],
    landmarks: dict[str, Landmarks],
    stop: threading.Event,
    on_change: OnChange,
) -> None:
    """Gives the worker its next slice, if there is one."""
    worker.slice = waiting.popleft() if waiting and not stop.is_set() else None
    if worker.slice is not None:
        known = landmarks.setdefault(worker.slice.agent_id, Landmarks())
        on_change(without_run(worker.slice, "running"))
        # one that has died is noticed when it is listened to
        with suppress(OSError):
            worker.connection.send((worker.slice, known))


def _heard(
    worker: _Worker, landmarks: dict[str, Landmarks], on_change: OnChange
) -> SliceReport | None:
    """Takes one message of a worker; the report of its slice where that has ended."""
    slice_ = worker.slice
    if slice_ is None:
        return None
    try:
        kind, said, learned = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        why = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
        error = f"its process died ({why}); run the backfill again to load it"
        return without_run(slice_, "failed", error)
    if kind == "log":
        logger.log(*said)
    elif kind == "stands":
        on_change(said)
    else:
        landmarks[slice_.agent_id].update(learned)
        report: SliceReport = said
        return report
    return None


def _work(connection: Connection, number: int, order: _Order, log_level: int) -> None:
    """The worker process: loads the slices that it is given until there are no more."""
    # the parent is told of a Ctrl-C as well, and says what is to be done
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stop = threading.Event()
    orders: queue.SimpleQueue[tuple[Slice, Landmarks] | None] = queue.SimpleQueue()
    lock = threading.Lock()

    def tell(*message: object) -> None:
        # a parent that is gone hears nothing, and nothing more is begun
        with lock, suppress(OSError):
            connection.send(message)

    def listen() -> None:
        with suppress(EOFError, OSError):
            while (given := connection.recv()) is not None:
                orders.put(given)
        stop.set()
        orders.put(None)

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell("log", (record.levelno, "%s", record.getMessage()), None)

    for name in ("polyai", "dlt"):
        logging.getLogger(name).handlers = [Teller()]
    logger.setLevel(log_level or logging.INFO)
    logger.propagate = False
    threading.Thread(target=listen, name="polyai-orders", daemon=True).start()
    while (given := orders.get()) is not None and not stop.is_set():
        slice_, landmarks = given
        try:
            report = _loaded(
                order, slice_, landmarks, number, stop, lambda report: tell("stands", report, None)
            )
        except Exception as error:
            logger.exception("%s", slice_)
            report = without_run(slice_, "failed", repr(error))
        tell("ended", report, landmarks)
    connection.close()
