"""Hashes of list rows, to detect changes of conversations."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from .decoding import encode

EMPTY: tuple[Any, ...] = (None, "", [], {})
"""Values that mean the same as an absent field."""

_URL = re.compile(r"(?i)([a-z][a-z0-9+.-]*:/)?/\S*[?#]\S*")
"""URLs and paths with a query, such as a signature."""


def digest(value: Mapping[str, Any]) -> str:
    """Hashes a JSON object, whatever the order of its keys."""
    return hashlib.blake2b(encode(value, sort_keys=True), digest_size=16).hexdigest()


def content_hash(row: Mapping[str, Any]) -> str:
    """Hashes a list row that is a whole conversation (v3).

    Covers everything that is loaded from it, except for queries of URLs and empty fields.
    """
    try:
        return digest(without_queries(row))
    except RecursionError:
        # nested too deeply for Python; `digest` is not
        return digest(row)


def without_queries(value: Any) -> Any:
    """Removes the queries of all URLs in a value, and the empty fields of its objects.

    A signed URL differs in each answer.
    """
    if isinstance(value, str):
        return re.split("[?#]", value, maxsplit=1)[0] if _URL.fullmatch(value) else value
    if isinstance(value, list):
        return [without_queries(item) for item in value]
    if isinstance(value, dict):
        return {name: without_queries(item) for name, item in value.items() if item not in EMPTY}
    return value
