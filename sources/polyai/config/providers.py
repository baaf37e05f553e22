"""dlt's configuration providers: their documents, and errors for files that are not valid TOML."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dlt.common.configuration.container import Container
from dlt.common.configuration.providers.doc import BaseDocProvider
from dlt.common.configuration.providers.provider import ConfigProvider
from dlt.common.configuration.providers.toml import (
    SecretsTomlProvider,
    SettingsTomlProvider,
    TomlProviderReadException,
)
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

from ..errors import ConfigurationError

_LINE = re.compile(r"at line (\d+)")


class Document(NamedTuple):
    """A TOML document of dlt's configuration, and its name for messages."""

    name: str
    content: Mapping[str, Any]


def providers() -> list[ConfigProvider]:
    """Returns dlt's providers, those with the highest precedence first.

    Raises:
        ConfigurationError: A file of dlt is not valid TOML, or cannot be read.
    """
    try:
        return list(Container()[PluggableRunContext].providers.providers)
    except TomlProviderReadException as error:
        raise invalid_file(error) from None


def documents() -> Iterator[Document]:
    """Yields the documents of all providers that have one, with the values set in the process."""
    for provider in providers():
        if isinstance(provider, BaseDocProvider):
            yield Document(provider.name, tomllib.loads(provider.to_toml()))


def other_files(provider: ConfigProvider) -> Iterator[Mapping[str, Any]]:
    """Yields the files that a provider has merged into its first one, which is left out.

    dlt merges tables, but of two lists it keeps only the one of the first file.
    """
    if isinstance(provider, SettingsTomlProvider):
        for path in provider.present_locations[1:]:
            yield tomllib.loads(Path(path).read_text(encoding="utf-8"))


def secret_files() -> Iterator[Path]:
    """Yields the files of secrets for a source of ours or a destination."""
    for provider in providers():
        if isinstance(provider, SecretsTomlProvider):
            for path in map(Path, provider.present_locations):
                content = tomllib.loads(path.read_text(encoding="utf-8"))
                if "destination" in content or "polyai" in content.get("sources", ()):
                    yield path


def invalid_file(error: TomlProviderReadException) -> ConfigurationError:
    """Describes a file that is not valid TOML by its name and line, never by its content."""
    for path in map(Path, dict.fromkeys(error.full_paths)):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as unreadable:
            return ConfigurationError(f"{path} cannot be read: {unreadable.strerror}")
        try:
            text = content.decode()
        except UnicodeDecodeError as undecodable:
            line = content.count(b"\n", 0, undecodable.start) + 1
            return ConfigurationError(f"{path}, line {line}: the file is not UTF-8 text")
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as invalid:
            found = _LINE.search(str(invalid))
            line = int(found[1]) if found else max(1, len(text.splitlines()))
            return ConfigurationError(f"{path}, line {line}: {_ADVICE}")
    found = _LINE.search(str(error))
    where = f"{error.file_name}, line {found[1]}" if found else error.file_name
    return ConfigurationError(f"{where}: {_ADVICE}")


_ADVICE = (
    "this is not valid TOML. Complete or correct it: text in quotes on one line, each key once in "
    "its section, sections in [brackets]"
)
