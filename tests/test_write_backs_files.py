"""Readers of CSV, JSON lines and Parquet return the rows that were written."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyai.errors import ConfigurationError
from polyai.write_backs.files import read_records
from polyai.write_backs.rows import Row, checked, from_rows

pytestmark = pytest.mark.unit

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n,;\t|\"'"))
notes = st.lists(
    st.tuples(words.filter(str.strip), words.filter(str.strip), st.integers(0, 9)), min_size=1
)


def records_of(rows: list[tuple[str, str, int]]) -> list[dict[str, object]]:
    return [{"conversation_id": id_, "note": note, "turn_index": turn} for id_, note, turn in rows]


@given(rows=notes, delimiter=st.sampled_from(",;\t|"), bom=st.booleans())
def test_csv_of_any_dialect(rows: list[tuple[str, str, int]], delimiter: str, bom: bool) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["conversation_id", "note", "turn_index"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(records_of(rows))
    Path("rows").write_bytes(text.getvalue().encode("utf-8-sig" if bom else "utf-8"))
    found = read_records("rows")
    expected = [row | {"turn_index": str(row["turn_index"])} for row in records_of(rows)]
    assert [record.values for record in found] == expected
    # the place is the line in which the row begins
    lines = text.getvalue().replace("\r\n", "\n").split("\n")
    for record, row in zip(found, rows):
        first = row[0].split("\n")[0].replace('"', '""')
        assert first in lines[record.place - 1]


@given(rows=notes)
def test_json_lines(rows: list[tuple[str, str, int]]) -> None:
    Path("rows").write_bytes(b"\n\n".join(map(orjson.dumps, records_of(rows))))
    found = read_records("rows")
    assert [record.values for record in found] == records_of(rows)
    assert [record.place for record in found] == list(range(1, 2 * len(rows), 2))


@given(rows=notes)
def test_parquet(rows: list[tuple[str, str, int]]) -> None:
    pq.write_table(pa.Table.from_pylist(records_of(rows)), "rows")
    found = read_records("rows")
    assert [record.values for record in found] == records_of(rows)
    assert [record.place for record in found] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    ("body", "fact"),
    [
        (b"", "rows is empty"),
        (b"\xef\xbb\xbf \r\n", "rows is empty"),
        (
            "conversation_id,note\na,Müller\n".encode("cp1252"),
            "rows, line 2: the text is not UTF-8",
        ),
        ("conversation_id,note\n".encode("utf-16"), "rows, line 1: the text is not UTF-8"),
        (b'a,b\n"x"y,1\n', "rows, line 2: .*CSV"),
        (b'a,b\n"x,1\n', "rows, line 2: .*CSV: unexpected end of data"),
        (b"PAR1 and no more", "rows is .*Parquet"),
    ],
)
def test_other_content_is_refused_with_the_reason(body: bytes, fact: str) -> None:
    Path("rows").write_bytes(body)
    with pytest.raises(ConfigurationError, match=fact):
        read_records("rows")


def test_a_folder_and_a_missing_file_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.csv cannot be read: No such file"):
        read_records("nowhere.csv")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        read_records(".")


def test_unreadable_lines_are_reported_with_their_places() -> None:
    Path("rows").write_text('{"a": 1}\nnonsense\n\n[2]\n{"a": 2}')
    found = read_records("rows")
    assert [(record.place, dict(record.values)) for record in found] == [
        (1, {"a": 1}),
        (2, {}),
        (4, {}),
        (5, {"a": 2}),
    ]
    first, second, fourth, fifth = (record.problem for record in found)
    assert first is fifth is None
    assert "column 1" in str(second)
    assert "JSON object" in str(fourth)


def test_the_same_row_has_the_same_id_in_every_file() -> None:
    plain = {
        "conversation_id": "7",
        "turn_index": 1,
        "role": "user",
        "annotation_type": "wrong_info",
    }
    written = {
        "Conversation_ID": 7,
        "turn_index": "1",
        "ROLE": "User",
        "annotation_type": "wrong_info",
    }
    other = plain | {"turn_index": 2}

    def id_of(row: dict[str, object], agent: str) -> str:
        ((_, found),) = checked("annotation", from_rows([row]), [agent])
        assert isinstance(found, Row)
        return found.write_back_id

    # a later version with another id would send everything again
    assert id_of(plain, "A") == id_of(written, "A") == "e98d0dc36341267cf8c25e8f39a8be1f"
    assert len({id_of(plain, "A"), id_of(plain, "B"), id_of(other, "A")}) == 3
