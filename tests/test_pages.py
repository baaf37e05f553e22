"""Streaming parser of pages: the result equals that of a whole body, or is an error."""

from __future__ import annotations

import json
import random
import re
import tracemalloc
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from polyai.api.decoding import NotAcceptedError, decode, encode
from polyai.api.page_stream import READ_BYTES, Document, Spool, read_page, row_hash

pytestmark = pytest.mark.unit

LIST = "conversations"
NUMBERS = (
    *("-0", "-0.0", "0.5", "1e5", "1E+5", "-1.25e-7", "1e400", "-1E+400", "NaN", "-Infinity"),
    *(str(2**63), str(2**64 - 1), str(2**64), str(-(2**63) - 1), "9" * 400, "9" * 5_000),
)

# also halves of surrogate pairs and U+0000; # marks a number that is written unchanged
texts = st.text(st.characters(exclude_categories=(), exclude_characters="#"), max_size=12)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    texts,
    st.sampled_from([f"#{number}#" for number in NUMBERS]),
    st.sampled_from(["😀 é ß 漢", "\ud83d", "a\0b", "\\u0000", '"}],{[', "\\"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts, values, max_size=5)
top_keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="#\0"), max_size=5)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A page in any valid JSON notation."""
    members: list[tuple[str, Any]] = list(
        draw(st.dictionaries(top_keys.filter(lambda key: key != LIST), values, max_size=4)).items()
    )
    if draw(st.booleans()):
        members.append(("nested", deep(draw(st.integers(1, 300)))))
    members.append((LIST, draw(st.lists(objects, max_size=6))))
    written = json.dumps(
        dict(draw(st.permutations(members))),
        ensure_ascii=True,
        indent=draw(st.sampled_from([None, 0, 3, "\t"])),
        separators=draw(st.sampled_from([(",", ":"), (" ,\r\n", "\t: ")])),
    )
    written = re.sub(r'"#([^#"]*)#"', r"\1", written)
    if draw(st.booleans()):
        # plain characters, except those that have to be escaped
        written = re.sub(r"\\u([4-9a-c]...)", lambda m: chr(int(m[1], 16)), written)
    space = st.text(st.sampled_from(" \t\r\n"), max_size=3)
    return (draw(space) + written + draw(space)).encode()


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"down": value}
    return value


def cut(body: bytes, places: Sequence[int]) -> Iterator[bytes]:
    """The body in chunks, some of them empty."""
    start = 0
    for place in sorted(place % (len(body) + 1) for place in places):
        yield body[start:place]
        start = place
    yield body[start:]


def read(chunks: Iterator[bytes]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    items: list[dict[str, Any]] = []
    rest = read_page(chunks, LIST, items.append, refuse)
    return rest, items


def refuse(row_hash: str, reason: str) -> None:
    pytest.fail(f"a valid item was rejected: {reason}")


def rejected(
    chunks: Iterator[bytes], **options: Any
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, str]]:
    """The other fields, the items, and reasons of rejected items by hash."""
    items, reasons = list[dict[str, Any]](), dict[str, str]()
    rest = read_page(chunks, LIST, items.append, reasons.__setitem__, **options)
    return rest, items, reasons


def canonical(value: Any) -> str:
    """Canonical JSON, which distinguishes 1, 1.0 and true."""
    return encode(value, sort_keys=True, digits=False).decode()


def check_page(body: bytes, places: Sequence[int]) -> None:
    whole = decode(body)
    spool, documents = Spool(), list[Document]()
    rest, items = read(cut(body, places))
    documents = [spool.put(encode(item)) for item in items]
    assert canonical(items) == canonical(whole.pop(LIST))
    assert canonical(rest) == canonical(whole)
    assert canonical([document.read() for document in documents]) == canonical(items)


pages_in_chunks = given(bodies(), st.lists(st.integers(0, 100_000), max_size=40))


@examples(100)
@pages_in_chunks
def test_a_page_in_chunks_equals_the_whole_page(body: bytes, places: list[int]) -> None:
    check_page(body, places)


@examples(50)
@given(bodies())
def test_a_page_byte_by_byte(body: bytes) -> None:
    check_page(body, range(len(body)))


@examples(100)
@given(bodies(), st.integers(0), st.lists(st.integers(0, 100_000), max_size=5))
def test_an_incomplete_page_is_an_error(body: bytes, end: int, places: list[int]) -> None:
    whole = body.rstrip()
    with pytest.raises(NotAcceptedError):
        read(cut(whole[: end % len(whole)], places))


WHOLE = [
    b'{"conversations": [{"id": "a", "n": 1.5e+3}, {"id": "\\ud83d\\ude00"}], "cursor": "x"}',
    '{"n": 12.5, "cursor": null, "t": true, "conversations": [{"text": "é 漢 😀"}, {}]}'.encode(),
    b'{"conversations":[]}',
    b'\n{ "conversations" : [ { "a" : [ [ ] , { } , -0.5 , "]}" ] } ] }',
]


@pytest.mark.parametrize("body", WHOLE, ids=["escapes", "list last", "empty", "spaces"])
def test_no_prefix_of_a_page_is_accepted(body: bytes) -> None:
    check_page(body, [])
    for end in range(len(body)):
        begun = body[:end]
        for pieces in (range(0), range(end // 2, end // 2 + 1), range(end)):
            with pytest.raises(NotAcceptedError):
                read(cut(begun, pieces))


@pytest.mark.parametrize("number", ["15", "1.5", "-1.5", "1e5", "1E+5", "1.25e-10", "-Infinity"])
@pytest.mark.parametrize("is_last", [False, True])
def test_a_number_split_between_chunks(number: str, is_last: bool) -> None:
    members = [f'"n": {number}', '"conversations": []']
    body = f"{{{', '.join(members[::-1] if is_last else members)}}}".encode()
    for place in range(len(body)):
        check_page(body, [place])
        check_page(body, [place, place + 1])


@pytest.mark.parametrize(
    "trailing", [b"x", b"}", b",", b"]", b"{}", b"\0", b" null", b"\xff", b"0"]
)
@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "later"])
def test_trailing_bytes_are_rejected(trailing: bytes, is_late: bool) -> None:
    for body in WHOLE:
        with pytest.raises(NotAcceptedError):
            read(cut(body + trailing, [len(body)] * is_late))
        assert read(cut(body + b" \r\n\t", [len(body)] * is_late))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is incomplete"),
        (b"  ", "is incomplete"),
        (b"<html>Bad gateway</html>", "is not JSON"),
        (b"null", "is not JSON"),
        (b"[]", "is not JSON"),
        (b'[{"conversations": []}]', "is not JSON"),
        (b'"conversations"', "is not JSON"),
        (b"{}", "no list of conversations"),
        (b'{"cursor": null}', "no list of conversations"),
        (b'{"conversations": null}', "no list of conversations"),
        (b'{"conversations": {"a": {}}}', "no list of conversations"),
        (b'{"data": {"conversations": []}}', "no list of conversations"),
        (b'{"success": false, "error": "no"}', "the request failed"),
        (b'{"success": false, "conversations": []}', "the request failed"),
        (b'{"conversations": [], "success": false}', "the request failed"),
        (b'{"conversations": [{}],}', "is not JSON"),
        (b'{"conversations": [{},]}', "is not JSON"),
        (b'{"conversations": [,{}]}', "is not JSON"),
        (b'{"conversations": [{} {}]}', "is not JSON"),
        (b'{"conversations": [{}}', "is not JSON"),
        (b'{"conversations" [{}]}', "is not JSON"),
        (b"{conversations: [{}]}", "is not JSON"),
        (b'{1: 2, "conversations": [{}]}', "is not JSON"),
        (b'{"conversations": [{"a": 1e}]}', "is not JSON"),
        (b'{"conversations": [{"a": "\xff"}]}', "is not JSON"),
        (b'{"conversations": [{"a": "\n"}]}', "is not JSON"),
    ],
    ids=lambda given: repr(given)[:60],
)
def test_other_answers_are_rejected(body: bytes, words: str) -> None:
    for places in (range(0), range(len(body))):
        with pytest.raises(NotAcceptedError, match=words):
            read(cut(body, places))


BAD_ITEMS = {
    "a number": (b"17", "is not an object"),
    "null": (b"null", "is not an object"),
    "a list": (b'[{"id": 1}]', "is not an object"),
    "too deep": (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "is nested too deeply"),
    "too long": (b'{"t":"' + b'\\\\\\"]}' * 300 + b'"}', "is longer than 900 characters"),
    "a long list": (b"[" + b"1," * 900 + b"1]", "is longer than 900 characters"),
    "a long text": (b'"' + b"\\\\" * 900 + b'"', "is longer than 900 characters"),
}


@pytest.mark.parametrize(("item", "reason"), BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_a_bad_item_costs_only_itself(item: bytes, reason: str, chunk: int) -> None:
    body = b'{"conversations": [{"id": "a"}, ' + item + b', {"id": "b"}], "cursor": "next"}'
    pieces = range(chunk, len(body), chunk)
    max_item = 900 if "longer" in reason else 100_000
    rest, items, reasons = rejected(cut(body, pieces), max_item=max_item)
    assert (rest, items) == ({"cursor": "next"}, [{"id": "a"}, {"id": "b"}])
    assert list(reasons.values()) == [reason]
    # its key does not depend on how the page arrived
    assert reasons == rejected(cut(body, []), max_item=max_item)[2]


def test_a_page_that_ends_within_a_bad_item_is_incomplete() -> None:
    for item, _ in BAD_ITEMS.values():
        with pytest.raises(NotAcceptedError):
            rejected(cut(b'{"conversations": [' + item[:-1], []), max_item=900)


def test_an_endless_item_is_never_in_memory() -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"conversations": [{"id": "a", "text": "'
        for _ in range(500):
            yield b"x" * 100_000
        yield b'"}, {"id": "b"}]}'

    tracemalloc.start()
    try:
        _, items, reasons = rejected(chunks(), max_item=MEGABYTE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert items == [{"id": "b"}]
    assert len(reasons) == 1
    assert peak < 6 * MEGABYTE


def test_numbers_keep_their_digits() -> None:
    digits = [*NUMBERS[:5], "1.10", "89441234567890123456", "0.12345678901234567890123", "1e400"]
    written = f'{{"n":[{",".join(digits)}]}}'.encode()
    assert encode(decode(written)) == written
    page = b'{"conversations":[' + written + b"]}"
    _, (item,) = read(cut(page, range(len(page))))
    assert encode(item) == written


def test_a_row_hash_does_not_depend_on_the_notation_of_a_number() -> None:
    assert row_hash(decode(b'{"n": 1.10}')) == row_hash({"n": 1.1})


@pytest.mark.parametrize("levels", [250, 300, 900])
def test_any_depth_is_encoded(levels: int) -> None:
    written = b'{"a":[' * levels + b"1.10" + b"]}" * levels
    value: Any = decode(b"1.10 ")
    for _ in range(levels):
        value = {"a": [value]}
    assert encode(value) == written


def test_an_item_is_delivered_as_soon_as_it_is_complete() -> None:
    taken: list[Any] = []

    def chunks() -> Iterator[bytes]:
        yield b'{"conversations": [{"id": 1}, {"id": '
        assert taken == [{"id": 1}]
        yield b"2}, "
        assert taken == [{"id": 1}]
        yield b'{"id": 3}, {"id"'
        assert taken == [{"id": 1}, {"id": 2}, {"id": 3}]
        yield b": 4}]}"

    read_page(chunks(), LIST, taken.append, refuse)
    assert len(taken) == 4


MEGABYTE = 2**20


def long_page(items: int, item_bytes: int, chunk: int = READ_BYTES) -> Iterator[bytes]:
    """A long page, produced chunk by chunk."""
    turn = {"user_input": "é" * (item_bytes // 32), "latency": 1.5, "is_ood": False}
    item = json.dumps({"id": "CA1", "turns": [turn] * 16}, ensure_ascii=False).encode()
    waiting = b'{"conversations": ['
    for number in range(items):
        waiting += item if number == 0 else b"," + item
        whole = len(waiting) // chunk * chunk
        yield from (waiting[start : start + chunk] for start in range(0, whole, chunk))
        waiting = waiting[whole:]
    yield waiting + b'], "cursor": "next"}'


def test_a_page_of_200_megabytes_is_never_in_memory() -> None:
    spool, documents = Spool(), list[Document]()
    received = 0

    def counted(chunks: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal received
        for chunk in chunks:
            received += len(chunk)
            yield chunk

    tracemalloc.start()
    try:
        page = counted(long_page(1_000, 200_000))
        rest = read_page(page, LIST, lambda item: documents.append(spool.put(encode(item))), refuse)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert received > 190 * MEGABYTE
    assert peak < 6 * MEGABYTE
    assert (len(documents), rest) == (1_000, {"cursor": "next"})
    assert spool.length > 185 * MEGABYTE
    assert documents[-1].read()["id"] == "CA1"


class Work:
    """Counters of decoding attempts and decoded characters."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tries = self.failures = self.characters = 0
        decoded = json.JSONDecoder.raw_decode

        def counted(decoder: json.JSONDecoder, text: str, start: int = 0) -> tuple[Any, int]:
            self.tries += 1
            try:
                value, end = decoded(decoder, text, start)
            except json.JSONDecodeError:
                self.failures += 1
                self.characters += len(text) - start
                raise
            self.characters += end - start
            return value, end

        monkeypatch.setattr(json.JSONDecoder, "raw_decode", counted)


@pytest.mark.parametrize("chunk", [1_000, READ_BYTES])
def test_a_huge_conversation_is_parsed_a_few_times_only(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    work = Work(monkeypatch)
    size = 16 * MEGABYTE
    _, items = read(long_page(1, size, chunk))
    assert len(items) == 1
    assert work.failures <= (size // chunk).bit_length() + 2
    assert work.characters < 4 * size


@pytest.mark.parametrize("chunk", [64, 1_000, READ_BYTES])
@pytest.mark.parametrize(("items", "size"), [(4_000, 1_000), (40, 100_000)])
def test_each_byte_is_decoded_a_few_times_at_most(
    monkeypatch: pytest.MonkeyPatch, chunk: int, items: int, size: int
) -> None:
    work = Work(monkeypatch)
    read(long_page(items, size, chunk))
    assert work.characters < 4 * items * size
    assert work.tries < items * 14


def test_documents_of_one_spool_are_separate() -> None:
    spool = Spool()
    rows = [{"id": f"CA{n}", "text": "é" * n} for n in range(50)]
    documents = []
    for number, row in enumerate(rows):
        documents.append(spool.put(encode(row)))
        assert documents[number // 2].read() == rows[number // 2]
    random.Random(1).shuffle(order := list(range(50)))
    assert [documents[n].read() for n in order] == [rows[n] for n in order]
    assert spool.length == sum(document.length for document in documents)


clean_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
small = st.none() | st.booleans() | st.integers(-1, 1) | st.floats(-1, 1) | st.sampled_from("ab")
rows = st.dictionaries(
    st.sampled_from("abc") | clean_texts,
    st.recursive(
        small | clean_texts,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)


def filled(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def in_another_order(value: Any) -> Any:
    if isinstance(value, list):
        return [in_another_order(item) for item in value]
    if isinstance(value, dict):
        return {name: in_another_order(value[name]) for name in reversed(value)}
    return value


@given(rows, st.lists(clean_texts, max_size=3))
def test_a_row_hash_ignores_nulls_and_the_order_of_keys(
    row: dict[str, Any], more: list[str]
) -> None:
    nulls = dict.fromkeys([name for name in more if name not in row])
    assert row_hash(row) == row_hash(in_another_order(row)) == row_hash(nulls | row)
    assert row_hash(row) == row_hash(filled(row))


@examples(200)
@given(rows, rows)
def test_rows_with_equal_hashes_are_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    are_equal = canonical(filled(one)) == canonical(filled(other))
    assert (row_hash(one) == row_hash(other)) is are_equal


@given(row=rows, data=st.data())
def test_a_row_hash_detects_each_change(row: dict[str, Any], data: st.DataObject) -> None:
    changed = json.loads(json.dumps(row))
    name = data.draw(st.sampled_from([*row, "new"]))
    place = changed
    while isinstance(place.get(name), dict) and place[name]:
        place = place[name]
        name = data.draw(st.sampled_from(list(place)))
    was = place.get(name)
    place[name] = data.draw(values_but(was))
    assert row_hash(changed) != row_hash(row)


def values_but(was: Any) -> st.SearchStrategy[Any]:
    """Any other value that is not null."""
    others = st.integers(5, 9) | st.sampled_from(["new", "", [], {}, [None], 0, 0.0, False, True])
    return others.filter(lambda value: canonical(value) != canonical(was))


def test_rows_that_orjson_cannot_encode_have_a_hash() -> None:
    row = {"id": "a", "deep": deep(300), "half": "\ud800", "large": 2**70}
    assert row_hash(row) == row_hash(in_another_order(row))
    assert row_hash(row) != row_hash({**row, "large": 2**71})
    assert row_hash(row) != row_hash({**row, "deep": deep(301)})
    assert decode(encode(row))["half"] == "\ufffd"
