"""Conversion of JSON values to Arrow columns: by column where possible, else cell by cell.

No value is lost: one that does not fit the type of its column is returned to the caller, which
keeps it in the row's `extra`. `pyarrow.compute`, whose import takes 40 CPU ms, is imported by what
needs it: a run with nothing new does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import suppress
from itertools import chain
from typing import Any

import orjson
import pyarrow as pa

from ..api.decoding import encode, fragment
from ..clock import parse_timestamp
from ..tables.declaration import ARROW_TYPES, ColumnType

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
"""Plain decimal numbers: neither `1_000`, which Python accepts, nor `nan` and `inf`."""

_RFC_1123 = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d:\d\d:\d\d) GMT",
    re.ASCII,
)
_MONTHS = {
    name: f"{number:02}"
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}
_TIMESTAMP = ARROW_TYPES["timestamp"]

_NOT_OF_THE_TYPE = (pa.ArrowException, LookupError, TypeError, ValueError, OverflowError)
"""Exceptions of Arrow and Python for values that do not fit a type."""

ColumnValues = tuple[pa.Array, dict[int, Any]]
"""A column, and by row the values that do not fit its type."""


def dumps(value: Any) -> str:
    """Encodes compact JSON, numbers with all their digits."""
    return encode(value).decode()


def text(value: Any) -> str | None:
    """Converts to text: empty becomes None, anything but text becomes JSON."""
    if isinstance(value, str):
        return value or None
    return None if value is None else dumps(value)


def number(value: Any) -> float | None:
    """Converts to a finite number, also from text.

    Raises:
        ValueError: The value is not a number, or a double cannot represent it exactly.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    try:
        as_float = float(value)
    except OverflowError as error:
        raise ValueError("not a double") from error
    # an integer beyond 53 bits would lose digits
    if not math.isfinite(as_float) or as_float != value:
        raise ValueError("not a double")
    return as_float


def integer(value: Any) -> int | None:
    """Converts to an integer of 64 bits, also from text or from 3.0.

    Raises:
        ValueError: The value is not such an integer.
    """
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,19}", value.strip()):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        whole = value
    else:
        as_number = number(value)
        if as_number is None:
            return None
        if not as_number.is_integer():
            raise ValueError("not an integer")
        whole = int(as_number)
    if not -(2**63) <= whole < 2**63:
        raise ValueError("not an integer of 64 bits")
    return whole


def boolean(value: Any) -> bool | None:
    """Converts to a boolean, also from text or from 0 and 1.

    Raises:
        ValueError: The value is not a boolean.
    """
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    if value in (0, 1):
        return bool(value)
    raise ValueError("not a boolean")


_CELLS: dict[ColumnType, Callable[[Any], Any]] = {
    "text": text,
    "bigint": integer,
    "double": number,
    "bool": boolean,
    "timestamp": parse_timestamp,
}


def column(values: list[Any], column_type: ColumnType) -> ColumnValues:
    """Builds an Arrow column of the declared type.

    Args:
        values: JSON values, one per row.
        column_type: The declared type.

    Returns:
        The column, and by row the values that do not fit its type (NULL in the column).
    """
    if column_type == "json":
        return pa.array(_json_texts(values), pa.string()), {}
    if column_type == "timestamp":
        return _timestamps(values)
    try:
        return _by_column(values, column_type), {}
    except _NOT_OF_THE_TYPE:
        return cells(values, column_type)


def _json_texts(values: list[Any]) -> list[str | None]:
    write = orjson.dumps
    try:
        # as `dumps`, without two calls per value
        return [
            None if value is None or value == "" else write(value, fragment).decode()
            for value in values
        ]
    except TypeError:
        return [None if value is None or value == "" else dumps(value) for value in values]


def _by_column(values: list[Any], column_type: ColumnType) -> pa.Array:
    """Converts the whole column at once; raises where a value is not of the declared type."""
    if column_type in ("bigint", "double"):
        if bool in set(map(type, values)):
            raise TypeError("Arrow would convert a boolean among floats to a number")
        return _numbers(pa.array(values), ARROW_TYPES[column_type])
    array = pa.array(values, ARROW_TYPES[column_type])
    return _without_empty(array) if column_type == "text" else array


def _without_empty(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    empty = pc.equal(texts, "")
    return pc.if_else(empty, None, texts) if pc.any(empty).as_py() else texts


def _numbers(inferred: pa.Array, to: pa.DataType) -> pa.Array:
    """Casts from the inferred type: given the type, Arrow truncates 3.7 and converts True to 1."""
    import pyarrow.compute as pc

    found = inferred.type
    if not (pa.types.is_null(found) or pa.types.is_integer(found) or found == to):
        raise ValueError(f"{found} in a column of {to}")
    if pa.types.is_floating(found) and pc.any(pc.invert(pc.is_finite(inferred))).as_py():
        raise ValueError("not finite")
    return inferred.cast(to)


def _timestamps(values: list[Any]) -> ColumnValues:
    """Converts times: those of one format at once, and those of other formats cell by cell."""
    try:
        return _zoned(values), {}
    except _NOT_OF_THE_TYPE:
        pass
    # texts of one format have one length
    groups: dict[int, list[int]] = {}
    for row, value in enumerate(values):
        groups.setdefault(len(value) if isinstance(value, str) else -1, []).append(row)
    arrays: list[pa.Array] = []
    unfit: dict[int, Any] = {}
    for rows in groups.values():
        array, without = _of_one_format([values[row] for row in rows])
        arrays.append(array)
        unfit |= {rows[index]: value for index, value in without.items()}
    places = [0] * len(values)
    for place, row in enumerate(chain.from_iterable(groups.values())):
        places[row] = place
    return pa.concat_arrays(arrays).take(pa.array(places)), unfit


def _of_one_format(values: list[Any]) -> ColumnValues:
    for convert in (_zoned, _local, _rfc_1123):
        with suppress(*_NOT_OF_THE_TYPE):
            return convert(values), {}
    return cells(values, "timestamp")


def _zoned(values: list[Any]) -> pa.Array:
    """Converts texts in ISO 8601 with a time zone; raises for others."""
    return _in_years_of_python(pa.array(values, pa.string()).cast(_TIMESTAMP))


def _local(values: list[Any]) -> pa.Array:
    """Converts texts in ISO 8601 without a time zone, which are in UTC; raises for others."""
    moments = pa.array(values, pa.string()).cast(pa.timestamp("us"))
    return _in_years_of_python(moments.view(_TIMESTAMP))


def _in_years_of_python(moments: pa.Array) -> pa.Array:
    """Raises for years that Arrow supports and Python does not."""
    import pyarrow.compute as pc

    pc.min_max(moments).as_py()
    return moments


def _rfc_1123(values: list[Any]) -> pa.Array:
    """Converts texts such as "Wed, 03 Jun 2026 13:18:06 GMT"; raises for others."""
    texts = []
    for value in values:
        found = _RFC_1123.fullmatch(value)
        if found is None:
            raise ValueError("another format")
        day, month, year, time = found.groups()
        texts.append(f"{year}-{_MONTHS[month]}-{day}T{time}Z")
    return _zoned(texts)


def cells(values: list[Any], column_type: ColumnType) -> ColumnValues:
    """Builds a column of a type other than JSON as `column` does, value by value."""
    convert = _CELLS[column_type]
    converted: list[Any] = []
    unfit: dict[int, Any] = {}
    for row, value in enumerate(values):
        try:
            converted.append(convert(value))
        except ValueError:
            converted.append(None)
            unfit[row] = value
    return pa.array(converted, ARROW_TYPES[column_type]), unfit
