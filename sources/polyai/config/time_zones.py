"""Validator for the reporting time zone of local dates."""

from __future__ import annotations

import re
from zoneinfo import available_timezones

from ..errors import ConfigurationError
from .validators import text

DEFAULT_ZONE = "UTC"

_OFFSETS = re.compile(r"Etc/GMT[+-].*|GMT[+-]?0|[A-Z]{3}\d[A-Z]{3}|Factory|localtime")
"""Names whose offsets databases interpret with different signs, or not at all."""


def time_zone(value: object) -> str:
    """Validates an IANA time zone and corrects its case, such as `Europe/London`.

    Raises:
        ConfigurationError: The time zone does not exist.
    """
    wanted = text(value)
    known = {name.lower(): name for name in available_timezones() if not _OFFSETS.fullmatch(name)}
    if found := known.get(wanted.lower()):
        return found
    raise ConfigurationError(
        f"{wanted!r} is not a time zone: use an IANA name such as UTC, Europe/London or "
        "America/New_York"
    )
