"""JSON values to Arrow columns: fast by column where the values are as declared, else by cell.

Nothing is lost: a value that its column's type cannot hold is handed back to the caller, who keeps
it in the row's `extra`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ..clock import UnfitError, timestamp
from ..tables.declaration import ARROW_TYPES, ColumnType

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""A plain decimal number: neither `1_000`, which Python takes, nor `nan` and `inf`."""

_RFC_1123 = "%a, %d %b %Y %H:%M:%S GMT"
_TIMESTAMP = ARROW_TYPES["timestamp"]

ColumnValues = tuple[pa.Array, dict[int, Any]]
"""A column, and the values by row that it could not hold."""


def dumps(value: Any) -> str:
    """A compact JSON text, also of integers beyond 64 bits, which orjson refuses."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def text(value: Any) -> str | None:
    """Text as it is, empty as NULL, anything else as its JSON text."""
    if isinstance(value, str):
        return value or None
    return None if value is None else dumps(value)


def number(value: Any) -> float | None:
    """A finite number, also where it came as text."""
    if value is None or value == "":
        return None
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UnfitError
    try:
        as_float = float(value)
    except OverflowError as error:
        raise UnfitError from error
    # a whole number beyond 53 bits would lose digits
    if not math.isfinite(as_float) or as_float != value:
        raise UnfitError
    return as_float


def integer(value: Any) -> int | None:
    """A whole number of 64 bits, also where it came as text or as 3.0."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,19}", value.strip()):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        whole = value
    else:
        as_number = number(value)
        if as_number is None:
            return None
        if not as_number.is_integer():
            raise UnfitError
        whole = int(as_number)
    if not -(2**63) <= whole < 2**63:
        raise UnfitError
    return whole


def boolean(value: Any) -> bool | None:
    """True or false, also where it came as text or as 0 and 1."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    if value in (0, 1):
        return bool(value)
    raise UnfitError


_CELLS: dict[ColumnType, Callable[[Any], Any]] = {
    "text": text,
    "bigint": integer,
    "double": number,
    "bool": boolean,
    "timestamp": timestamp,
}


def column(values: list[Any], column_type: ColumnType) -> ColumnValues:
    """Makes one Arrow column of the declared type.

    Args:
        values: JSON values, one a row.
        column_type: The declared type.

    Returns:
        The column, and by row the values that it could not hold (NULL in the column).
    """
    if column_type == "json":
        texts = [None if value is None or value == "" else dumps(value) for value in values]
        return pa.array(texts, pa.string()), {}
    try:
        return _by_column(values, column_type), {}
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return _by_cell(values, column_type)


def _by_column(values: list[Any], column_type: ColumnType) -> pa.Array:
    """The whole column at once; raises where one value is not as declared."""
    if column_type == "timestamp":
        return _timestamps(pa.array(values, pa.string()))
    if column_type in ("bigint", "double"):
        if bool in set(map(type, values)):
            raise TypeError("Arrow takes a boolean among floats for a number")
        return _numbers(pa.array(values), ARROW_TYPES[column_type])
    array = pa.array(values, ARROW_TYPES[column_type])
    if column_type == "text":
        empty = pc.equal(array, "")
        return pc.if_else(empty, None, array) if pc.any(empty).as_py() else array
    return array


def _numbers(inferred: pa.Array, to: pa.DataType) -> pa.Array:
    """Takes the type that Arrow finds: told the type, it would truncate 3.7 and take True for 1."""
    found = inferred.type
    if not (pa.types.is_null(found) or pa.types.is_integer(found) or found == to):
        raise ValueError(f"{found} in a column of {to}")
    if pa.types.is_floating(found) and pc.any(pc.invert(pc.is_finite(inferred))).as_py():
        raise ValueError("not finite")
    return inferred.cast(to)


def _timestamps(texts: pa.Array) -> pa.Array:
    """Text of one form throughout: ISO 8601 with a zone, without one, or RFC 1123."""
    try:
        moments = texts.cast(_TIMESTAMP)
    except pa.ArrowInvalid:
        try:
            local = texts.cast(pa.timestamp("us"))
        except pa.ArrowInvalid:
            local = pc.strptime(texts, format=_RFC_1123, unit="s")
            if pc.strftime(local, format=_RFC_1123) != texts:
                raise ValueError("a day that is not, such as 31 June, is read as another") from None
        moments = pc.assume_timezone(local, "UTC").cast(_TIMESTAMP)
    # raises for years that Arrow knows and others do not
    pc.min_max(moments).as_py()
    return moments


def _by_cell(values: list[Any], column_type: ColumnType) -> ColumnValues:
    convert = _CELLS[column_type]
    cells: list[Any] = []
    unfit: dict[int, Any] = {}
    for row, value in enumerate(values):
        try:
            cells.append(convert(value))
        except UnfitError:
            cells.append(None)
            unfit[row] = value
    return pa.array(cells, ARROW_TYPES[column_type]), unfit
