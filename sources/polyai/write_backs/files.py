"""Reads rows from CSV, JSON lines and Parquet; what the content is decides, not the file's name."""

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
    """The rows of a file.

    A row that cannot be read is given with its problem, so that it does not keep the others.

    Args:
        name: Path of a CSV, JSON lines or Parquet file; `-` for standard input.

    Raises:
        ConfigurationError: There is no such file, or it is none of these.
    """
    try:
        body = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{name} cannot be read: {error.strerror}") from error
    if body.startswith(_PARQUET):
        try:
            return from_rows(pq.read_table(pa.BufferReader(body)).to_pylist())
        except pa.ArrowException as error:
            said = first_line(error)
            raise ConfigurationError(f"{name} is no whole Parquet file: {said}") from error
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
            yield unreadable(number, f"it is no JSON: {error.msg} (column {error.colno})")
            continue
        if not isinstance(row, dict):
            yield unreadable(number, "it is no JSON object")
            continue
        yield from_line(number, row)


def _csv(name: str, text: str) -> Iterator[Record]:
    header = text.lstrip("\r\n").partition("\n")[0]
    # the delimiter that a spreadsheet writes depends on its language
    delimiter = max(_DELIMITERS, key=header.count)
    # newlines within quotes are kept as they are
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    while True:
        # a text in quotes can hold line breaks: its row is known by its first line
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise ConfigurationError(f"{name}, line {number}: it is no CSV: {error}") from error
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if not columns:
            columns = cells
        elif len(cells) != len(columns):
            said = f"it has {len(cells)} fields, the heading {len(columns)}"
            yield unreadable(number, f"{said}: text with {delimiter!r} needs quotes")
        else:
            yield from_line(number, dict(zip(columns, cells)))
