"""`python -m polyai.sandbox`: serves a sandbox and prints its base URL as the first line."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from .config import SandboxConfig
from .keys import Key
from .server import Sandbox, serve


def main(arguments: list[str] | None = None) -> None:
    """Serves until the process is interrupted or terminated."""
    options = vars(_parser().parse_args(arguments))
    port = options.pop("port")
    signals = {signal.SIGINT, signal.SIGTERM}
    # threads started from here on inherit the mask, so that sigwait below receives the signals
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with serve(Sandbox(SandboxConfig(**options)), port) as base_url:
        sys.stdout.write(f"{base_url}\n")
        sys.stdout.flush()
        signal.sigwait(signals)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m polyai.sandbox", description=__doc__)
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on; 0 for any free port"
    )
    defaults = SandboxConfig()
    for field in fields(SandboxConfig):
        option, default = f"--{field.name.replace('_', '-')}", getattr(defaults, field.name)
        if isinstance(default, bool):
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=default)
        else:
            parser.add_argument(option, type=_converter(field.name, default), default=default)
    return parser


def _converter(name: str, default: Any) -> Any:
    """Returns the function that converts an option's text to a value."""
    converters: dict[str, Any] = {
        "agents": lambda text: tuple(text.split(",")),
        "now": _time,
        "span": lambda text: timedelta(days=float(text)),
        "rate_limit": float,
        "absurd_created_at": _time,
        "max_count": int,
        "v3_stable_limit": int,
        "foreign_status": int,
        "slugs": json.loads,
        "keys": _keys,
    }
    return converters.get(name, type(default))


def _keys(text: str) -> dict[str, Key]:
    """Keys from a JSON object: the fields of `Key` by the text of the key."""
    keys: dict[str, dict[str, Any]] = json.loads(text)
    return {name: Key(**{k: _frozen(v) for k, v in given.items()}) for name, given in keys.items()}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


if __name__ == "__main__":
    main()
