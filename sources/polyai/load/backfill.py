"""Backfill: loads an explicit time range in slices, several at once, each in its own process.

A slice needs nothing but its arguments and the destination, so that any orchestrator can run slices
on other machines with the same command. Here a few worker processes load them. If one dies, only
its slice is lost.
"""

from __future__ import annotations

import logging
import multiprocessing
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

from ..config.settings import Settings
from ..errors import BusyError, PolyAIError
from ..listing.landmarks import Landmarks
from ..warehouse.target import Target
from .refetch import Span
from .report import RunReport, no_op
from .slice_loader import SliceLoader
from .slice_queue import SliceQueue
from .slices import Slice, SliceReport, cut, slice_report, without_run

logger = logging.getLogger("polyai")

WORKERS = 2
"""Default number of concurrent slices; more need more cores, and some 250 MB each."""

SLICE_LENGTH = timedelta(days=1)
"""Default length of a slice."""

_PROGRESS_SECONDS = 0.5
"""Interval of progress reports."""

OnChange = Callable[[SliceReport], None]
"""Called with the progress of each slice at intervals, and with its final report."""


def backfill(
    settings: Settings,
    target: Target,
    span: Span,
    *,
    slice_length: timedelta = SLICE_LENGTH,
    workers: int = WORKERS,
    again: bool = False,
    stop: threading.Event | None = None,
    on_change: OnChange = no_op,
) -> list[SliceReport]:
    """Loads all agents' conversations of a time range.

    Can be repeated at any time: conversations that are loaded and unchanged are skipped. The
    watermark of `load` does not move.

    Args:
        settings: Agents and how to read them; `workers` concurrent requests are shared among the
            slices of an agent.
        target: Destination.
        span: The range.
        slice_length: Length of a slice.
        workers: Concurrent slices.
        again: Read listed conversations even if they have not changed.
        stop: Event that ends the backfill: slices in progress load what they read, no more begin.
        on_change: Called with the progress of each slice.

    Returns:
        A report for each slice that was begun, in their order; adjacent ones with few conversations
        are joined, see `SliceReport.joined`. A failed slice does not stop the others.

    Raises:
        ConfigurationError: The range is empty.
    """
    stop = stop or threading.Event()
    slices = cut([agent.agent_id for agent in settings.agents], span, slice_length)
    workers = min(workers, len(slices))
    per_agent = max(1, -(-workers // len(settings.agents)))
    shared = _Shared(
        replace(settings, workers=max(1, settings.workers // per_agent)), target, again
    )
    run = _run_in_process if workers == 1 else _run_in_workers
    reports = list(run(shared, SliceQueue(slices), workers, stop, on_change))
    places = [agent.agent_id for agent in settings.agents]
    return sorted(reports, key=lambda report: (report.since, places.index(report.agent_id)))


@dataclass(frozen=True)
class _Shared:
    """Arguments that all slices of a backfill share."""

    settings: Settings
    target: Target
    again: bool


def _run_in_process(
    shared: _Shared, waiting: SliceQueue, _: int, stop: threading.Event, on_change: OnChange
) -> Iterator[SliceReport]:
    """Loads slices one after the other in this process; orchestrators run a single one."""
    landmarks: dict[str, Landmarks] = {}
    with SliceLoader(shared.target, stop) as loader:
        while waiting and not stop.is_set():
            slice_ = waiting.take()
            known = landmarks.setdefault(slice_.agent_id, Landmarks())
            on_change(without_run(slice_, "running"))
            report = _load(shared, slice_, known, loader, on_change)
            waiting.adapt(report)
            on_change(report)
            yield report


def _load(
    shared: _Shared,
    slice_: Slice,
    landmarks: Landmarks,
    loader: SliceLoader,
    on_change: OnChange,
) -> SliceReport:
    """Loads one slice, and reports its progress."""
    started = time.monotonic()
    is_over = threading.Event()
    reporters: list[threading.Thread] = []

    def on_begin(report: RunReport) -> None:
        def report_progress() -> None:
            while not is_over.wait(_PROGRESS_SECONDS) and report.finished_at is None:
                on_change(slice_report(slice_, report, time.monotonic() - started))

        reporters.append(threading.Thread(target=report_progress, name="polyai-slice", daemon=True))
        reporters[-1].start()

    try:
        report = loader.load(
            shared.settings.only([slice_.agent_id]),
            slice_.span,
            again=shared.again,
            landmarks=landmarks,
            on_begin=on_begin,
        )
    except PolyAIError as error:
        return without_run(slice_, "busy" if isinstance(error, BusyError) else "failed", str(error))
    finally:
        is_over.set()
        for reporter in reporters:
            reporter.join()
    return slice_report(slice_, report, time.monotonic() - started)


@dataclass
class _Worker:
    """A worker process and the slice that it is loading."""

    number: int
    process: Any
    connection: Connection
    slice: Slice | None = None


def _run_in_workers(
    shared: _Shared,
    waiting: SliceQueue,
    workers: int,
    stop: threading.Event,
    on_change: OnChange,
) -> Iterator[SliceReport]:
    landmarks: dict[str, Landmarks] = {}
    pool = {number: _start_worker(number, shared) for number in range(1, workers + 1)}
    is_notified = False
    logged: set[str] = set()
    try:
        for worker in pool.values():
            _assign(worker, waiting, landmarks, stop, on_change)
        while any(worker.slice for worker in pool.values()):
            if stop.is_set() and not is_notified:
                is_notified = True
                for worker in pool.values():
                    with suppress(OSError):
                        worker.connection.send(None)
            busy = [worker for worker in pool.values() if worker.slice]
            readable = wait([worker.connection for worker in busy], _PROGRESS_SECONDS)
            for worker in busy:
                if worker.connection not in readable:
                    continue
                ended = _receive(worker, landmarks, on_change, logged)
                if ended is None:
                    continue
                waiting.adapt(ended)
                on_change(ended)
                yield ended
                if not worker.process.is_alive() and waiting and not stop.is_set():
                    worker = pool[worker.number] = _start_worker(worker.number, shared)
                _assign(worker, waiting, landmarks, stop, on_change)
    finally:
        for worker in pool.values():
            worker.connection.close()
        for worker in pool.values():
            worker.process.join()


def _start_worker(number: int, shared: _Shared) -> _Worker:
    # a fork would copy threads and open connections in an undefined state
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(
        target=_work, args=(theirs, number, shared, logger.level), name=f"polyai-slices-{number}"
    )
    process.start()
    theirs.close()
    return _Worker(number, process, ours)


def _assign(
    worker: _Worker,
    waiting: SliceQueue,
    landmarks: dict[str, Landmarks],
    stop: threading.Event,
    on_change: OnChange,
) -> None:
    """Sends the next slice to the worker, if there is one."""
    worker.slice = waiting.take() if waiting and not stop.is_set() else None
    if worker.slice is not None:
        known = landmarks.setdefault(worker.slice.agent_id, Landmarks())
        on_change(without_run(worker.slice, "running"))
        # a dead worker is detected when its connection is read
        with suppress(OSError):
            worker.connection.send((worker.slice, known))


def _receive(
    worker: _Worker, landmarks: dict[str, Landmarks], on_change: OnChange, logged: set[str]
) -> SliceReport | None:
    """Handles one message of a worker; returns the report of its slice if that has ended.

    Args:
        worker: The worker.
        landmarks: Known positions in the listing of each agent.
        on_change: Called with the progress of the slice.
        logged: Warnings that were logged, of which equal ones of other workers are dropped.
    """
    slice_ = worker.slice
    if slice_ is None:
        return None
    try:
        kind, content, learned = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        cause = f"signal {signal.Signals(-code).name}" if code and code < 0 else f"exit code {code}"
        error = f"its process died ({cause}); run the backfill again to load it"
        return without_run(slice_, "failed", error)
    if kind == "log":
        level, _, text = content
        if text not in logged:
            logger.log(*content)
        if level == logging.WARNING:
            logged.add(text)
    elif kind == "progress":
        on_change(content)
    else:
        landmarks[slice_.agent_id].update(learned)
        report: SliceReport = content
        return report
    return None


def _work(connection: Connection, number: int, shared: _Shared, log_level: int) -> None:
    """Runs a worker process: loads the slices that it receives until there are no more."""
    # the parent receives Ctrl-C as well, and sends the end
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stop = threading.Event()
    received: queue.SimpleQueue[tuple[Slice, Landmarks] | None] = queue.SimpleQueue()
    lock = threading.Lock()

    def send(*message: object) -> None:
        # if the parent is gone, nothing more is begun
        with lock, suppress(OSError):
            connection.send(message)

    def listen() -> None:
        with suppress(EOFError, OSError):
            while (message := connection.recv()) is not None:
                received.put(message)
        stop.set()
        received.put(None)

    class ParentHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            send("log", (record.levelno, "%s", record.getMessage()), None)

    for name in ("polyai", "dlt"):
        logging.getLogger(name).handlers = [ParentHandler()]
    logger.setLevel(log_level or logging.INFO)
    logger.propagate = False
    threading.Thread(target=listen, name="polyai-slices", daemon=True).start()
    with SliceLoader(shared.target, stop, number) as loader:
        while (message := received.get()) is not None and not stop.is_set():
            slice_, landmarks = message
            try:
                report = _load(
                    shared,
                    slice_,
                    landmarks,
                    loader,
                    lambda report: send("progress", report, None),
                )
            except Exception as error:
                logger.exception("%s", slice_)
                report = without_run(slice_, "failed", repr(error))
            send("ended", report, landmarks)
    connection.close()
