"""Costs of the libraries that recur in each test of a load, taken from this process.

They are a sixth of the CPU time of these tests, and change no result. Other processes, which
some tests start, bear them as a user's do.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from dlt.common import validation
from dlt.common.configuration import resolve
from dlt.common.configuration.providers import environ
from dlt.common.configuration.specs import base_configuration


class _Missing(MetaPathFinder):
    """Finder that knows that a module is not installed, without a look into each folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == self._name:
            raise ModuleNotFoundError(f"no module named {fullname!r}", name=fullname)
        return None


def reduce_costs() -> None:
    """Takes the costs from this process."""
    # DuckDB tries to import pandas for every parameter of a query
    if importlib.util.find_spec("pandas") is None:
        sys.meta_path.insert(0, _Missing("pandas"))
    # dlt evaluates the annotations of a class for every dictionary that it validates
    module: Any = validation
    evaluate = module.get_type_hints
    evaluated: dict[object, dict[str, Any]] = {}

    def remember(spec: type, globalns: dict[str, Any] | None = None) -> dict[str, Any]:
        if spec not in evaluated:
            evaluated[spec] = evaluate(spec, globalns=globalns)
        return evaluated[spec]

    module.get_type_hints = remember
    # for each place where a setting may be, dlt takes its annotation apart again
    is_secret = functools.cache(base_configuration.is_secret_hint)
    users: tuple[Any, ...] = (base_configuration, environ, resolve)
    for user in users:
        user.is_secret_hint = is_secret
