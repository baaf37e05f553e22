"""Refusal of unknown settings, so that a misspelt one never passes in silence.

Covers keys under `[sources.polyai]`, sections that resemble it, and `POLYAI_*` variables. dlt's own
sections, and those of other sources, are left alone.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from dlt.common.configuration.specs import known_sections
from dlt.common.storages.configuration import FilesystemConfiguration
from dlt.pipeline.configuration import PipelineConfiguration

from ..errors import ConfigurationError
from .lookup import SECTION, is_empty
from .providers import documents

logger = logging.getLogger("polyai")

OTHER_VARIABLES = ("POLYAI_DASHBOARD_TOKEN", "POLYAI_DAGSTER_START", "POLYAI_DAGSTER_DATASET")
"""Variables that are read, but are not settings."""

_PREFIX = "POLYAI_"
_DLT_PREFIX = "SOURCES__POLYAI__"

_DLT_SECTIONS = frozenset(
    value for name, value in vars(known_sections).items() if name.isupper()
) - {known_sections.SOURCES}
"""Sections that dlt reads itself, at the top of a file and in the section of a source."""

_STORES = frozenset({"recordings", "publish", "forget"})
"""Sections inside ours with what dlt needs to open a store of files."""

_STORE_KEYS = frozenset(FilesystemConfiguration.get_resolvable_fields())

_SHARED_WITH_OTHERS = frozenset(
    {
        "account_id",
        "agents",
        "api",
        "api_key",
        "base_url",
        "chunk_size",
        "details",
        "environments",
        "max_attempts",
        "page_size",
        "region",
        "request_timeout",
        "workers",
    }
)
"""Names that other sources use as well; outside of our section they may be theirs."""

_LIKE_A_SETTING = 0.65
_LIKE_A_SECTION = 0.75
_LIKE_A_PREFIX = 0.8
_TIE = 0.05
"""Difference of similarity up to which several names are suggested."""

_warned: set[str] = set()


def refuse_unknown_names(known: Sequence[str]) -> None:
    """Checks the names in the environment and in dlt's files.

    A variable `POLYAI_*` that resembles no setting is only logged, once.

    Args:
        known: Names of all settings.

    Raises:
        ConfigurationError: A name is unknown; the message suggests the nearest ones.
    """
    for document in documents():
        for message in _in_document(document.content, known):
            raise ConfigurationError(f"{document.name}: {message}")
    for message in _in_environment(known):
        raise ConfigurationError(message)


def nearest(name: str, known: Iterable[str]) -> list[str]:
    """Returns the known names that a name resembles most, the best first; at most three.

    Names resemble each other if most of their characters agree, or if one has all words of the
    other.
    """
    wanted = _normalized(name)
    words = set(wanted.split("_"))
    scores: dict[str, float] = {}
    for candidate in known:
        parts = set(_normalized(candidate).split("_"))
        score = SequenceMatcher(None, wanted, _normalized(candidate)).ratio()
        if parts <= words or words <= parts:
            score = max(score, _LIKE_A_SETTING)
        if score >= _LIKE_A_SETTING:
            scores[candidate] = score
    best = sorted(scores, key=lambda candidate: (-scores[candidate], candidate))
    return [candidate for candidate in best if scores[candidate] >= scores[best[0]] - _TIE][:3]


def suggestion(name: str, known: Sequence[str]) -> str:
    """Returns a sentence with the nearest names, or with all of them."""
    if found := nearest(name, known):
        return f"Did you mean {' or '.join(found)}?"
    return f"Known settings: {', '.join(known)}"


def _in_document(content: Mapping[str, Any], known: Sequence[str]) -> Iterator[str]:
    """Yields what is wrong in a document of dlt's configuration."""
    sources = content.get(known_sections.SOURCES)
    if isinstance(sources, Mapping):
        own = sources.get("polyai")
        if isinstance(own, Mapping):
            yield from _unknown_keys(own, known)
        elif own is not None:
            yield f"sources.polyai is not a section: write [{SECTION}] above its settings"
    yield from _stray(content, (), known)


def _unknown_keys(own: Mapping[str, Any], known: Sequence[str]) -> Iterator[str]:
    for key, value in own.items():
        if key in known or (isinstance(value, Mapping) and _is_dlts(key, value)):
            continue
        place = f"[{SECTION}.{key}]" if isinstance(value, Mapping) else key
        yield f"{place} is not a setting of [{SECTION}]. {suggestion(key, known)}"


def _is_dlts(key: str, section: Mapping[str, Any]) -> bool:
    """Returns whether dlt reads a section inside ours.

    That is a section of dlt's, one of a resource with only such sections, the credentials of the
    stores, or a store itself with only dlt's settings of it.
    """
    if (
        key in _DLT_SECTIONS
        or key == "credentials"
        or (key in _STORES and section.keys() <= _STORE_KEYS)
    ):
        return True
    return all(
        name in _DLT_SECTIONS and isinstance(value, Mapping) for name, value in section.items()
    )


def _stray(section: Mapping[str, Any], path: Sequence[str], known: Sequence[str]) -> Iterator[str]:
    """Yields sections that resemble ours, and settings outside of it, which nothing would read."""
    for key, value in section.items():
        here = (*path, key)
        shown = ".".join(here)
        if here == ("sources", "polyai") or (not path and key in _DLT_SECTIONS):
            continue
        if not isinstance(value, Mapping):
            is_ours = key in known and key not in _SHARED_WITH_OTHERS
            if is_ours and path in ((), ("sources",)):
                yield f"{shown} is not in a section: move {key} below [{SECTION}]"
            continue
        if _resembles_polyai(key) and not _is_dlts_pipeline(value):
            yield f"[{shown}] is not read. Did you mean [{SECTION}]?"
        elif len(here) < 3:
            yield from _stray(value, here, known)


def _is_dlts_pipeline(section: Mapping[str, Any]) -> bool:
    """Returns whether a section only configures a dlt pipeline of that name."""
    of_pipeline = PipelineConfiguration.get_resolvable_fields().keys()
    return all(name in _DLT_SECTIONS or name in of_pipeline for name in section)


def _resembles_polyai(name: str) -> bool:
    plain = re.sub("[^a-z0-9]", "", name.casefold())
    return "polyai" in plain or SequenceMatcher(None, plain, "polyai").ratio() >= _LIKE_A_SECTION


def _in_environment(known: Sequence[str]) -> Iterator[str]:
    """Yields what is wrong in the environment."""
    variables = [*(f"{_PREFIX}{name.upper()}" for name in known), *OTHER_VARIABLES]
    by_letters = {_letters(name): name for name in variables}
    for name, value in os.environ.items():
        if is_empty(value) or name in variables:
            continue
        is_upper = name == name.upper()
        if not is_upper and _letters(name).startswith(("POLYAI", "SOURCESPOLYAI")):
            upper = name.upper()
            if upper in variables or "__" in name:
                yield f"the environment variable {name} is not read: write it as {upper}"
        if same := by_letters.get(_letters(name)):
            yield f"the environment variable {name} is not read. Did you mean {same}?"
        elif "__" in name:
            path = name.lower().split("__")
            if path[:3] == [*SECTION.split("."), "names"] and len(path) > 3:
                yield (
                    f"the environment variable {name} is not read, because ids have capitals. Set "
                    'POLYAI_NAMES to JSON such as {"agents": {"PROJECT-1": "Front desk"}}'
                )
                continue
            nested: Any = value
            for part in reversed(path):
                nested = {part: nested}
            for message in _in_document(nested, known):
                yield f"environment variable {name}: {message}"
            continue
        if not name.upper().startswith(_PREFIX):
            if meant := _with_another_prefix(name, known):
                yield f"the environment variable {name} is not read. Did you mean {meant}?"
            continue
        if found := nearest(name[len(_PREFIX) :], [known_[len(_PREFIX) :] for known_ in variables]):
            names = " or ".join(f"{_PREFIX}{one}" for one in found)
            yield f"the environment variable {name} is not a setting. Did you mean {names}?"
        elif name not in _warned:
            _warned.add(name)
            logger.warning("the environment variable %s is not a setting and is ignored", name)


def _with_another_prefix(name: str, known: Sequence[str]) -> str | None:
    """Returns the variable that a setting's name after a misspelt prefix means; None for others."""
    for setting in known:
        prefix, found, rest = name.upper().rpartition(f"_{setting.upper()}")
        plain = _letters(prefix)
        if not found or rest or setting in _SHARED_WITH_OTHERS:
            continue
        for right in (_PREFIX, _DLT_PREFIX):
            if SequenceMatcher(None, plain, _letters(right)).ratio() >= _LIKE_A_PREFIX:
                return f"{right}{setting.upper()}"
    return None


def _letters(name: str) -> str:
    return name.upper().replace("_", "")


def _normalized(name: str) -> str:
    return re.sub("[^a-z0-9]+", "_", name.casefold()).strip("_")
