"""Conversion of JSON values to Arrow columns: accepted values, and values returned as unfit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from polyai.clock import parse_timestamp
from polyai.shape import values
from polyai.shape.values import boolean, column, dumps, integer, number, text
from polyai.tables.declaration import ARROW_TYPES, ColumnType

pytestmark = pytest.mark.unit

MOMENT = datetime(2026, 6, 3, 13, 18, 6, 370000, UTC)

COLUMN_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)


class TestTimestamp:
    def test_each_format_of_a_mixed_column_is_read_as_in_a_column_of_its_own(self) -> None:
        sent = [
            "2026-06-03T13:18:06.37Z",
            "Wed, 03 Jun 2026 13:18:06 GMT",
            None,
            "soon",
            1780492686.37,
            "",
            "2026-06-03 13:18:06.370000",
            "Wed, 31 Jun 2026 13:18:06 GMT",
            "2026-06-03T15:18:06.370000+02:00",
            {"at": "2026-06-03"},
            "2026-06-04T13:18:06.37Z",
            "2026-13-03T13:18:06.37Z",
            True,
        ]
        array, unfit = column(sent, "timestamp")
        alone = [column([value], "timestamp") for value in sent]
        assert array.to_pylist() == [cell.to_pylist()[0] for cell, _ in alone]
        assert unfit == {row: value for row, value in enumerate(sent) if alone[row][1]}
        assert array.type == ARROW_TYPES["timestamp"]

    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            pytest.param("2026-06-03T13:18:06.370000+00:00", MOMENT, id="offset zero"),
            pytest.param("2026-06-03T13:18:06.37Z", MOMENT, id="Z"),
            pytest.param("2026-06-03T13:18:06.370000", MOMENT, id="no zone is UTC"),
            pytest.param("2026-06-03 13:18:06.370000", MOMENT, id="space instead of T"),
            pytest.param("2026-06-03T15:18:06.370000+02:00", MOMENT, id="east of Greenwich"),
            pytest.param("2026-06-03T08:18:06.370000-0500", MOMENT, id="west, no colon"),
            pytest.param("2026-06-03T13:18:06.370000123Z", MOMENT, id="nanoseconds"),
            pytest.param(1780492686.37, MOMENT, id="Unix seconds"),
            pytest.param(1780492686370, MOMENT, id="Unix milliseconds"),
            pytest.param(
                "Wed, 03 Jun 2026 13:18:06 GMT", MOMENT.replace(microsecond=0), id="RFC 1123"
            ),
            pytest.param(
                "Wed, 03 Jun 2026 15:18:06 +0200", MOMENT.replace(microsecond=0), id="RFC 2822"
            ),
            pytest.param("2026-06-03", datetime(2026, 6, 3, tzinfo=UTC), id="date"),
            pytest.param("", None, id="empty"),
            pytest.param(None, None, id="null"),
        ],
    )
    def test_every_format_is_converted_to_utc(self, sent: Any, expected: datetime | None) -> None:
        assert parse_timestamp(sent) == expected
        assert column([sent], "timestamp")[0].to_pylist() == [expected]
        assert column([sent, "2026-01-01T00:00:00Z", 0], "timestamp")[0][0].as_py() == expected

    @pytest.mark.parametrize(
        "garbage",
        [
            "soon",
            "Wed, 31 Jun 2026 13:18:06 GMT",
            "Wed, 03 Jun 2026 13:18:60 GMT",
            "Wed, 03 Jun 2026 13:18:06 CEST",
            "Wed, 03 Jun 2026 13:18:06 GMT or so",
            "2026-02-30T00:00:00Z",
            "2026-06-03T13:18:06+25:00",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-12:00",
            1780492686370000000,
            True,
            float("inf"),
            ["2026-06-03"],
            {},
        ],
        ids=repr,
    )
    def test_invalid_values_are_returned(self, garbage: Any) -> None:
        array, unfit = column([None, garbage], "timestamp")
        assert array.to_pylist() == [None, None]
        assert unfit == {1: garbage}


class TestNumber:
    @pytest.mark.parametrize(
        ("sent", "expected"),
        [(3, 3.0), (3.7, 3.7), ("3.7", 3.7), (" -1e3 ", -1000.0), (".5", 0.5), ("", None)],
        ids=repr,
    )
    def test_is_accepted(self, sent: Any, expected: float | None) -> None:
        assert number(sent) == expected

    @pytest.mark.parametrize(
        "sent",
        [True, "1_000", "nan", "inf", "1e999", float("nan"), "three", [1], 2**53 + 1, 10**400],
        ids=lambda sent: repr(sent)[:20],
    )
    def test_is_rejected(self, sent: Any) -> None:
        with pytest.raises(ValueError, match="not a"):
            number(sent)


class TestInteger:
    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            (743916318, 743916318),
            (2**63 - 1, 2**63 - 1),
            (-(2**63), -(2**63)),
            (str(2**63 - 1), 2**63 - 1),
            ("3.0", 3),
            (3.0, 3),
            ("", None),
            (None, None),
        ],
        ids=repr,
    )
    def test_is_accepted(self, sent: Any, expected: int | None) -> None:
        assert integer(sent) == expected
        assert column([sent], "bigint")[0].to_pylist() == [expected]

    @pytest.mark.parametrize(
        "sent",
        [2**63, str(2**63), 10**400, "1" * 5_000, 3.7, "3.7", True, "7th", [7], {}],
        ids=lambda sent: repr(sent)[:20],
    )
    def test_is_returned(self, sent: Any) -> None:
        assert column([1, sent], "bigint") == (pa.array([1, None], pa.int64()), {1: sent})


class TestBoolean:
    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            (True, True),
            (False, False),
            (1, True),
            (0, False),
            ("true", True),
            (" False ", False),
            ("", None),
            (None, None),
        ],
        ids=repr,
    )
    def test_is_accepted(self, sent: Any, expected: bool | None) -> None:
        assert boolean(sent) is expected

    @pytest.mark.parametrize("sent", ["yes", 2, [], {"is": True}], ids=repr)
    def test_is_rejected(self, sent: Any) -> None:
        with pytest.raises(ValueError, match="not a"):
            boolean(sent)


class TestText:
    @pytest.mark.parametrize(
        ("sent", "expected"),
        [
            ("", None),
            (None, None),
            (" ", " "),
            ("שלום 👋🏽", "שלום 👋🏽"),
            (7, "7"),
            (False, "false"),
            ([], "[]"),
            ({"ä": [1.5, None]}, '{"ä":[1.5,null]}'),
            ([2**70, "é"], '[1180591620717411303424,"é"]'),
        ],
        ids=repr,
    )
    def test_any_value_becomes_text(self, sent: Any, expected: str | None) -> None:
        assert text(sent) == expected
        assert column([sent, "x"], "text") == (pa.array([expected, "x"]), {})

    def test_a_megabyte_is_unchanged(self) -> None:
        long = "🗣 word " * 150_000
        assert column([long, None], "text")[0].to_pylist() == [long, None]

    def test_json_nested_deeper_than_orjson_supports(self) -> None:
        nested: dict[str, Any] = {}
        for _ in range(300):
            nested = {"a": nested}
        assert dumps(nested).count("{") == 301


def test_json_columns_accept_all_values_but_null_and_empty_text() -> None:
    sent: list[Any] = [None, "", "x", 0, False, [], {"a": None}]
    assert column(sent, "json") == (
        pa.array([None, None, '"x"', "0", "false", "[]", '{"a":null}']),
        {},
    )


# sizes on both sides of 53 and 64 bits, and times in every known format
times = st.datetimes(
    datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.sampled_from([UTC, None])
)
written_times = st.one_of(
    times.map(datetime.isoformat),
    times.map(lambda moment: moment.replace(tzinfo=None).isoformat() + "Z"),
    times.map(
        lambda moment: moment.replace(tzinfo=timezone(timedelta(hours=2))).isoformat(
            timespec="milliseconds"
        )
    ),
    times.map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    st.from_regex(r"[A-Z][a-z]{2}, [0-3]\d (Feb|Jun) (19|20)\d\d [0-2]\d:[0-6]\d:[0-6]\d GMT\Z"),
    st.from_regex(r"(0000|2026)-[01]\d-[0-3]\d([T ][0-2]\d:[0-6]\d(:[0-6]\d(\.\d{1,9})?)?Z?)?\Z"),
)
numbers = st.one_of(
    st.integers(-(2**66), 2**66),
    st.integers(-3, 3),
    st.floats(allow_nan=False),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    numbers.map(str),
    written_times,
    st.text(max_size=5),
    st.sampled_from(["true", "False", "", "1_000", "nan"]),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.booleans(), max_size=2),
)
cells = st.one_of(
    # equal types, for the fast path, and all types mixed
    st.lists(written_times | st.none()),
    st.lists(st.integers(-(2**66), 2**66) | st.none()),
    st.lists(st.floats(allow_nan=False) | st.integers(-(2**66), 2**66)),
    st.lists(st.floats(allow_nan=False) | st.booleans()),
    st.lists(st.booleans() | st.none()),
    st.lists(st.text(max_size=5) | st.none()),
    st.lists(scalars),
)


@pytest.mark.parametrize("column_type", [name for name in COLUMN_TYPES if name != "json"])
@given(sent=cells)
@example(sent=[1.5, True])
@example(sent=["Wed, 31 Jun 2026 13:18:06 GMT"])
@example(sent=["0000-01-01T00:00:00Z"])
@example(sent=[2**53 + 1, 0.5])
def test_by_column_and_by_cell_agree(column_type: ColumnType, sent: list[Any]) -> None:
    array, unfit = column(sent, column_type)
    assert array.type == ARROW_TYPES[column_type]
    by_cell, by_cell_unfit = values.cells(sent, column_type)
    assert array.to_pylist() == by_cell.to_pylist()
    assert unfit == by_cell_unfit


@pytest.mark.parametrize("column_type", COLUMN_TYPES)
@given(sent=st.lists(scalars))
def test_each_value_is_in_the_column_or_returned(column_type: ColumnType, sent: list[Any]) -> None:
    array, unfit = column(sent, column_type)
    held = array.to_pylist()
    assert len(held) == len(sent)
    for row, value in enumerate(sent):
        if value in (None, ""):
            assert held[row] is None
            assert row not in unfit
        else:
            assert (held[row] is None) == (row in unfit)
            assert row not in unfit or unfit[row] is value
