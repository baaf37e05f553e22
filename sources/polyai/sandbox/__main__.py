"""`python -m polyai.sandbox`: serves a sandbox and writes its base URL as the first line."""

from __future__ import annotations

import argparse
import signal
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from .config import SandboxConfig
from .server import Sandbox, serve


def main(arguments: list[str] | None = None) -> None:
    """Serves until the process is interrupted or terminated."""
    options = vars(_parser().parse_args(arguments))
    port = options.pop("port")
    signals = {signal.SIGINT, signal.SIGTERM}
    # every thread that starts from here on leaves them to the wait below
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with serve(Sandbox(SandboxConfig(**options)), port) as base_url:
        sys.stdout.write(f"{base_url}\n")
        sys.stdout.flush()
        signal.sigwait(signals)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m polyai.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 for a free one")
    defaults = SandboxConfig()
    for field in fields(SandboxConfig):
        option, default = f"--{field.name.replace('_', '-')}", getattr(defaults, field.name)
        if isinstance(default, bool):
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=default)
        else:
            parser.add_argument(option, type=_reader(field.name, default), default=default)
    return parser


def _reader(name: str, default: Any) -> Any:
    """What makes a value of the option's text."""
    readers: dict[str, Any] = {
        "agents": lambda text: tuple(text.split(",")),
        "now": _moment,
        "span": lambda text: timedelta(days=float(text)),
        "rate_limit": float,
    }
    return readers.get(name, type(default))


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


if __name__ == "__main__":
    main()
