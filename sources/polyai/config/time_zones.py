"""The reporting time zone: what a local date is in."""

from __future__ import annotations

import re
from typing import Any
from zoneinfo import available_timezones

from ..errors import ConfigurationError
from .validators import text

DEFAULT_ZONE = "UTC"

_OFFSETS = re.compile(r"Etc/GMT[+-].*|GMT[+-]?0|[A-Z]{3}\d[A-Z]{3}|Factory|localtime")
"""Names that databases read otherwise than people, or differently from each other."""


def time_zone(value: Any) -> str:
    """The IANA name of a time zone, such as `Europe/London`, in the spelling of its database.

    Raises:
        ConfigurationError: There is no such zone.
    """
    wanted = text(value)
    known = {name.lower(): name for name in available_timezones() if not _OFFSETS.fullmatch(name)}
    if found := known.get(wanted.lower()):
        return found
    raise ConfigurationError(
        f"{wanted!r} is no time zone: write an IANA name such as UTC, Europe/London or "
        "America/New_York"
    )
