"""Readers of CSV, JSON lines and Parquet; the content decides, not the file name."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import ConfigurationError, first_line
from .rows import Record, from_line, from_rows, unreadable

STDIN = "-"

_PARQUET = b"PAR1"

_DELIMITERS = ",;\t|"


def read_records(name: str) -> list[Record]:
    """Reads the rows of a file; a row that cannot be read is returned with its problem.

    Args:
        name: Path of a CSV, JSON lines or Parquet file; `-` for standard input.

    Raises:
        ConfigurationError: The file cannot be read, or has another format.
    """
    try:
        body = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error.strerror}") from error
    if body.startswith(_PARQUET):
        try:
            return from_rows(pq.read_table(pa.BufferReader(body)).to_pylist())
        except pa.ArrowException as error:
            reason = first_line(error)
            raise ConfigurationError(f"{name} is not a complete Parquet file: {reason}") from error
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        raise ConfigurationError(
            f"{name}, line {line}: the text is not UTF-8; save it as UTF-8 (in Excel: CSV UTF-8)"
        ) from error
    if not text.strip():
        raise ConfigurationError(f"{name} is empty")
    return list(_json_lines(text) if text.lstrip().startswith("{") else _csv(name, text))


def _json_lines(text: str) -> Iterator[Record]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield unreadable(number, f"it is not valid JSON: {error.msg} (column {error.colno})")
            continue
        if not isinstance(row, dict):
            yield unreadable(number, "it is not a JSON object")
            continue
        yield from_line(number, row)


def _csv(name: str, text: str) -> Iterator[Record]:
    header = text.lstrip("\r\n").partition("\n")[0]
    # the delimiter of a spreadsheet depends on its language
    delimiter = max(_DELIMITERS, key=header.count)
    # keeps newlines within quotes
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    while True:
        # quoted text may contain line breaks: a row has the number of its first line
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ConfigurationError(f"{name}, line {number}: not valid CSV: {error}") from error
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = cells
        elif len(cells) != len(columns):
            counts = f"it has {len(cells)} fields, the header {len(columns)}"
            yield unreadable(number, f"{counts}: text with {delimiter!r} needs quotes")
        else:
            yield from_line(number, dict(zip(columns, cells)))
