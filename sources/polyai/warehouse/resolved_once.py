"""Destinations that resolve their configuration once.

dlt creates a client for each step and each query, and resolves the destination's configuration for
each client, 200 times in a small load: it looks up every field in the environment and in all
configuration files. They do not change within a run.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Any

from dlt.common.destination import Destination


class ResolvedOnce(Destination[Any, Any]):
    """Mixin for a destination: an equal request gets a copy of the first one's configuration.

    Credentials are shared by all clients, as dlt shares resolved ones.
    """

    def configuration(self, initial_config: Any, accept_partial: bool = False) -> Any:
        request = [*vars(initial_config).items(), *self.config_params.items()]
        key = (accept_partial, *map(_as_key, request))
        if key not in self._configurations:
            resolved = super().configuration(initial_config, accept_partial)
            # kept with the objects of the request, which the key has by their ids
            self._configurations[key] = resolved, request
        return copy.copy(self._configurations[key][0])

    @cached_property
    def _configurations(self) -> dict[tuple[object, ...], tuple[Any, list[tuple[str, Any]]]]:
        return {}


def _as_key(item: tuple[str, Any]) -> tuple[str, Any]:
    name, value = item
    return (name, value if isinstance(value, str | bool | int | None) else id(value))
