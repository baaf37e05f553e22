"""Lookup of single settings: sources in order of precedence, validation, advice in errors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import NamedTuple, TypeVar

import dlt
from dlt.common.configuration.providers import EnvironProvider
from dlt.common.typing import TSecretValue

from ..errors import ConfigurationError
from .providers import other_files, providers

T = TypeVar("T")

SECTION = "sources.polyai"
"""Section of dlt's configuration."""

SECRET_NAMES = frozenset({"api_key", "v3_api_key", "agents", "pii_secret"})
"""Settings read as dlt secrets, which keeps them out of dlt's traces; never shown."""


def how_to_set(name: str, *, is_option: bool = False) -> str:
    """Returns a sentence that lists the places where a setting can be given.

    Args:
        name: The setting.
        is_option: Whether the caller also accepts it as an option.
    """
    file = "secrets" if name in SECRET_NAMES else "config"
    variable, key = f"POLYAI_{name.upper()}", f"{name} under [{SECTION}] in .dlt/{file}.toml"
    if is_option:
        return f"Set it as an option, as the environment variable {variable}, or as {key}"
    return f"Set the environment variable {variable}, or {key}"


_TOKEN = re.compile(r"\b(?!PROJECT-)[\w+=~-]{16,}", re.ASCII)

_RUNS = re.compile(r"[a-z]+|[A-Z]+|\d+")

_MOST_RUNS = 4
"""Runs of small letters, capitals or digits in a name; a random text of its length has more."""


def without_keys(message: str) -> str:
    """Returns a message about a wrong value in which whatever looks like a key is masked.

    A key looks random: 16 characters or more, in which letters and digits alternate.
    """

    def masked(token: re.Match[str]) -> str:
        is_random = re.search(r"\d", token[0]) and len(_RUNS.findall(token[0])) > _MOST_RUNS
        return "***" if is_random else token[0]

    return _TOKEN.sub(masked, message)


class Layer(IntEnum):
    """Source of a value; the lower takes precedence."""

    OPTION = 0
    ENVIRONMENT = 1
    DLT = 2


class Places(tuple[object, ...]):
    """Values of one setting from several places of the same layer, highest precedence first."""


class Found(NamedTuple):
    """A value that is not empty, and its source."""

    value: object
    layer: Layer


def look_up(name: str, options: Mapping[str, object]) -> Found | None:
    """Returns the value with the highest precedence; None where it is not set.

    Raises:
        ConfigurationError: It is a secret, and only in a place where dlt does not look for secrets.
    """
    environment = os.environ.get(f"POLYAI_{name.upper()}")
    for layer, value in ((Layer.OPTION, options.get(name)), (Layer.ENVIRONMENT, environment)):
        if not is_empty(value):
            return Found(value, layer)
    if name == "agents":
        places = Places(place for place in _places(name) if not is_empty(place))
        return Found(places, Layer.DLT) if places else None
    key = f"{SECTION}.{name}"
    value = dlt.secrets.get(key) if name in SECRET_NAMES else dlt.config.get(key)
    if not is_empty(value):
        return Found(value, Layer.DLT)
    if name in SECRET_NAMES and not is_empty(dlt.config.get(key)):
        raise ConfigurationError(
            f"{name} is a secret and is not read from config.toml: move it below [{SECTION}] in "
            ".dlt/secrets.toml"
        )
    return None


def _places(name: str) -> Iterator[object]:
    """Yields the values of a setting in the environment alone, else in all files and vaults."""
    section = SECTION.split(".")
    for provider in providers():
        value, _ = provider.get_value(name, TSecretValue, "", *section)
        yield value
        if isinstance(provider, EnvironProvider) and not is_empty(value):
            return
        for content in other_files(provider):
            node: object = content
            for part in (*section, name):
                node = node.get(part) if isinstance(node, Mapping) else None
            yield node


def is_empty(value: object) -> bool:
    """Returns whether a value counts as not set, such as a placeholder that dlt generates."""
    return value is None or (isinstance(value, str) and value.strip() in ("", "<configure me>"))


def validate(
    name: str, value: object, validator: Callable[[object], T], options: Mapping[str, object]
) -> T:
    """Returns the validated value; errors name the setting and the places to set it."""
    try:
        return validator(value)
    except ConfigurationError as error:
        where = how_to_set(name, is_option=name in options)
        raise ConfigurationError(f"{name}: {without_keys(str(error))}. {where}") from None
