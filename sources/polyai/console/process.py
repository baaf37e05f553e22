"""Process setup shared by the command and by scripts: logging, signals, errors, exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from ..errors import PolyAIError, without_credentials
from .exit_codes import ExitCode, error_exit_code
from .terminal import print_error, stderr

logger = logging.getLogger("polyai")

STOPPING = "stopping after what was read so far is committed"
"""Log message of a load that is interrupted."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class ConsoleHandler(logging.Handler):
    """Log handler that writes above the progress bar, in one format for dlt's lines and ours."""

    line = logging.Formatter("%(asctime)s %(levelname)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        # not self.formatter: dlt sets its own on every handler it finds
        stderr.print(without_credentials(self.line.format(record)), markup=False, soft_wrap=True)


def set_up_process(*, verbose: bool = False) -> None:
    """Makes new files private, disables dlt's telemetry and logs to stderr.

    Args:
        verbose: Log every retry.
    """
    # the files contain conversations: only their owner may read them
    os.umask(0o077)
    # dlt would report each run to its vendor
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    logger.handlers = logging.getLogger("dlt").handlers = [ConsoleHandler()]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False


@contextmanager
def stop_on_signals(message: str = STOPPING) -> Iterator[threading.Event]:
    """Yields an event that SIGTERM and SIGINT set; a second signal exits at once.

    Args:
        message: Logged when the first signal arrives; what is done before the run ends.
    """
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            # threads may wait for minutes; the next run discards and repeats unfinished work
            stderr.show_cursor()
            os._exit(ExitCode.INTERRUPTED)
        stop.set()
        name = signal.Signals(number).name
        logger.warning("%s: %s; a second signal exits at once", name, message)

    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_on_errors(job: Callable[[], object]) -> None:
    """Calls a job; an expected error becomes one line on stderr and an exit code.

    Raises:
        SystemExit: With the exit code of the error.
    """
    try:
        job()
    except PolyAIError as error:
        _exit(error)
    except Exception as error:
        # imported here, because the help does not need dlt
        from dlt.common.configuration.providers.toml import TomlProviderReadException

        from ..config.providers import invalid_file

        if not isinstance(error, TomlProviderReadException):
            raise
        _exit(invalid_file(error))


def _exit(error: PolyAIError) -> NoReturn:
    print_error(str(error))
    sys.exit(error_exit_code(error))


def run_script(main: Callable[[threading.Event], int]) -> NoReturn:
    """Runs a function as a process and exits with the code that it returns.

    The process then behaves as the command does: new files are private, the log goes to stderr,
    SIGTERM and SIGINT end the run after what was read is committed, and an expected error is one
    line on stderr and an exit code.

    Args:
        main: Called with the event that a signal sets; pass it on as `stop`. Returns the exit code,
            which is the `exit_code` of each result.

    Raises:
        SystemExit: Always.
    """

    def job() -> NoReturn:
        with stop_on_signals() as stop:
            code = main(stop)
        sys.exit(code)

    set_up_process()
    exit_on_errors(job)
    raise AssertionError("unreachable")
