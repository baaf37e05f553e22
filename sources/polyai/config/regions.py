"""PolyAI regions: names, hosts of the APIs, Studio URLs."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ..errors import ConfigurationError

REGIONS = ("us", "eu", "uk", "studio")
"""Names of regions in settings, tables and messages."""

_ALIASES = {"us-1": "us", "euw-1": "eu", "uk-1": "uk"}
_PLATFORM_NAMES = {region: alias for alias, region in _ALIASES.items()}
_STUDIO_HOSTS = {
    "studio.poly.ai": "studio",
    **{f"studio.{region}.poly.ai": region for region in ("us", "eu", "uk")},
}
_JUPITER = "jupiter.polyai.app"
"""Host of Agent Studio for all regions."""
_HOST = re.compile(r"[a-z0-9]+([-_.][a-z0-9]+|-)*|[0-9a-f:]+:[0-9a-f:.]*")


class StudioLocation(NamedTuple):
    """Region, account and agent of an Agent Studio URL; no region where its host serves all."""

    region: str | None
    account_id: str
    agent_id: str


def parse_region(name: str) -> str:
    """Normalizes the name of a region, such as `US`, `us-1` or `euw-1`.

    Raises:
        ConfigurationError: The name is unknown.
    """
    region = name.strip().lower()
    region = _ALIASES.get(region, region)
    if region not in REGIONS:
        allowed = ", ".join((*REGIONS, *_ALIASES))
        raise ConfigurationError(f"{name!r} is not a PolyAI region: use one of {allowed}")
    return region


def data_api_url(region: str) -> str:
    """Returns the base URL of the Data API."""
    return f"https://api.{region}.poly.ai"


def conversations_v3_url(region: str) -> str | None:
    """Returns the base URL of the Conversations API v3; None for `studio`."""
    platform_name = _PLATFORM_NAMES.get(region)
    return f"https://api.{platform_name}.platform.polyai.app" if platform_name else None


def is_studio_url(text: str) -> bool:
    """Returns whether `text` is a URL rather than an agent id."""
    return "/" in text or text.lower().startswith(("studio.", "jupiter."))


def parse_studio_url(text: str) -> StudioLocation:
    """Parses `https://studio.{region}.poly.ai/{account}/{project}/…`, or `jupiter.polyai.app`.

    Raises:
        ConfigurationError: Any other URL.
    """
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        host = parts.hostname or ""
    except ValueError:
        host = ""
    is_known = host == _JUPITER or host in _STUDIO_HOSTS
    path = [unquote(name) for name in parts.path.split("/") if name] if is_known else []
    if len(path) < 2:
        hosts = ", ".join((*_STUDIO_HOSTS, _JUPITER))
        raise ConfigurationError(
            f"{text!r} is neither an agent id nor a Studio URL such as "
            f"https://studio.us.poly.ai/ACCOUNT/PROJECT/… (hosts: {hosts})"
        )
    return StudioLocation(_STUDIO_HOSTS.get(host), path[0], path[1])


def parse_base_url(text: str) -> str:
    """Validates the base URL of an API and removes a trailing slash.

    Plain http is accepted for loopback addresses only, because each request carries the key.

    Raises:
        ConfigurationError: The URL is neither https nor http to a loopback address, or contains
            credentials, a query or a fragment. The message never shows credentials.
    """
    url = text.strip()
    try:
        parts = urlsplit(url)
        host, has_port = parts.hostname or "", parts.port is None or parts.port > 0
    except ValueError:
        host, has_port = "", False
    if "@" in parts.netloc if host else "@" in url:
        raise ConfigurationError("the URL must not contain a user name or password")
    is_plain = url.isascii() and url.isprintable() and not set(url) & set(" \\?#")
    is_host = _HOST.fullmatch(host) is not None or is_loopback(host)
    if not (is_host and has_port and is_plain and parts.scheme in ("http", "https")):
        raise ConfigurationError(f"{url!r} is not a base URL such as https://api.us.poly.ai")
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigurationError(
            f"{url!r} would send the key unencrypted: use https; plain http is accepted for "
            "loopback addresses (localhost, 127.0.0.1, [::1]) only"
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Returns whether `host` is localhost or a loopback address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
