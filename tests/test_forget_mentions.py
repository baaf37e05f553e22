"""Mentions of an erased caller in conversations of others: named, never quoted, erased if asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import psycopg2
import pytest

from command import AGENT, KEY, query, run
from erasing import IDS_IN, Company, first_column, open_company
from polyai import open_pipeline, resolve
from polyai.forgetting.mentions import Sought
from polyai.load.run import load
from polyai.shape.redaction import Redaction
from postgres_server import binaries, postgres
from test_redaction_corpus import SPELLINGS

NUMBER = "+442079460018"

SPOKEN = [
    text for text in SPELLINGS if "8" in str(text)[-40:] and "0018" in str(text).replace(" ", "")
    and str(text).lstrip("-") != "79460018"
]  # fmt: skip
"""Spellings of the number that the matcher of `pii` finds."""

OTHERS = ["+442079460019", "call 021 7946 0018 now", "ref 7946 0018", "double oh one eight"]
"""Texts that do not mention it, some of which end alike."""

Execute = Callable[..., Any]


@pytest.fixture
def company() -> Iterator[Company]:
    with open_company() as company:
        yield company


def json_of(text: Any) -> str:
    return json.dumps({"outer": [{"said": text}]})


def json_key(text: Any) -> str:
    return json.dumps({str(text): True})


PLACES: list[tuple[str, str, Callable[[Any], str]]] = [
    ("turns", "user_input", str),
    ("turns", "agent_response", str),
    ("turns", "metadata", json_of),
    ("function_events", "arguments", json_key),
    ("function_events", "logs", json_of),
    ("conversations", "handoff_destination", str),
    ("conversations", "to_number", str),
    ("conversations", "note", str),
    ("conversations", "extra", json_of),
    ("metrics", "value", str),
]


def spread(execute: Execute, loaded: dict[str, list[str]]) -> dict[str, str]:
    """Puts each spelling into a place of a conversation; returns the places by conversation.

    Args:
        execute: Executes a statement with `%s` for parameters.
        loaded: Conversations by table.
    """
    expected: dict[str, str] = {}
    texts = [*SPOKEN, *OTHERS]
    taken: set[str] = set()
    for index, text in enumerate(texts):
        table, column, write = PLACES[index % len(PLACES)]
        name = next(name for name in loaded[table] if name not in taken)
        taken.add(name)
        execute(
            f"UPDATE polyai.{table} SET {column} = %s WHERE agent_id = %s AND conversation_id = %s",
            write(text),
            AGENT,
            name,
        )
        if index < len(SPOKEN):
            expected[name] = f"{table}.{column}"
    return expected


def conversations_by_table(fetch: Callable[[str], list[str]]) -> dict[str, list[str]]:
    found = {}
    for table in {table for table, *_ in PLACES}:
        # with few rows, because each of them gets the text
        found[table] = fetch(
            f"SELECT conversation_id FROM polyai.{table} GROUP BY 1 ORDER BY count(*), 1"
        )
    return found


@pytest.mark.load
@pytest.mark.slow
def test_mentions_are_named_and_erased_if_asked(company: Company) -> None:
    loaded = conversations_by_table(first_column)
    with duckdb.connect("polyai.duckdb") as connection:
        expected = spread(
            lambda sql, *values: connection.execute(sql.replace("%s", "?"), values), loaded
        )
        connection.execute("DELETE FROM polyai.phone_numbers")
    environment = company.environment | {"POLYAI_PHONE_REGION": "GB"}
    own = first_column(f"{IDS_IN}conversations ORDER BY 1")
    caller = next(name for name in own if name not in expected)
    with duckdb.connect("polyai.duckdb") as connection:
        connection.execute(
            "UPDATE polyai.conversations SET direction = 'inbound', from_number = ? "
            "WHERE conversation_id = ?",
            [NUMBER, caller],
        )
    planned = run("forget", "--caller", NUMBER, "--dry-run", "--json", **environment)
    assert planned.returncode == 0, planned.stderr
    (agent,) = json.loads(planned.stdout)["agents"]
    assert agent["conversations"] == [caller]
    assert agent["mentions"] == [
        {"conversation_id": name, "places": [place]} for name, place in sorted(expected.items())
    ]
    shown = run("forget", "--caller", NUMBER, "--dry-run", **environment)
    assert f"{len(expected)} other conversations" in shown.stdout
    assert "0018" not in shown.stdout + planned.stdout

    done = run("forget", "--caller", NUMBER, "--mentions", "--yes", "--json", **environment)
    assert done.returncode == 0, done.stderr
    (agent,) = json.loads(done.stdout)["agents"]
    assert agent["conversations"] == sorted([caller, *expected])
    assert set(first_column(f"{IDS_IN}conversations")) == set(own) - {caller, *expected}
    assert query("SELECT count(*) FROM polyai.forgotten WHERE is_by_caller") == [(1,)]
    alone = run("forget", "--mentions", "--yes", **environment)
    assert alone.returncode == 2
    assert "--caller" in alone.stderr


@pytest.mark.server
@pytest.mark.matrix
@pytest.mark.skipif(
    binaries() is None and not os.environ.get("CI"),
    reason="needs a PostgreSQL server: install the package postgresql",
)
def test_mentions_are_found_in_postgres(
    company: Company,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = resolve(agent_id=AGENT, api_key=KEY, base_url=company.base_url)
    with postgres() as url:
        monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", url)
        load(settings, open_pipeline("postgres"), clock=lambda: company.sandbox.now)
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:

            def fetch(sql: str) -> list[str]:
                cursor.execute(sql)
                return [name for (name,) in cursor.fetchall()]

            expected = spread(
                lambda sql, *values: cursor.execute(sql, values), conversations_by_table(fetch)
            )
            cursor.execute("DELETE FROM polyai.phone_numbers")
        environment = company.environment | {
            "POLYAI_PHONE_REGION": "GB",
            "DESTINATION__POSTGRES__CREDENTIALS": url,
        }
        command = ("forget", "--caller", NUMBER, "--destination", "postgres", "--json")
        planned = run(*command, "--dry-run", **environment)
        # nobody called with it
        assert planned.returncode == 3, planned.stderr
        (agent,) = json.loads(planned.stdout)["agents"]
        assert {one["conversation_id"]: one["places"] for one in agent["mentions"]} == {
            name: [place] for name, place in expected.items()
        }
        done = run(*command, "--mentions", "--yes", **environment)
        (agent,) = json.loads(done.stdout)["agents"]
        assert agent["conversations"] == sorted(expected)
        with psycopg2.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT conversation_id FROM polyai.conversations")
            assert not {name for (name,) in cursor.fetchall()} & expected.keys()


@pytest.mark.unit
def test_hashes_and_names_of_sip_addresses_are_mentions() -> None:
    secret = "pepper of some length"
    hashed = Redaction("hash", secret, "keep", "GB").text("call 020 7946 0018 now")
    assert "0018" not in hashed
    assert Sought(NUMBER, "GB", secret).is_in(hashed)
    assert not Sought(NUMBER, "GB", "another secret!!").is_in(hashed)
    assert not Sought("+442079460019", "GB", secret).is_in(hashed)
    desk = Sought("sip:Desk@pbx.example.com", "GB", "")
    assert desk.is_in("transfer to <desk@PBX.example.com>, please")
    assert not desk.is_in("transfer to desk2@pbx.example.com")
    with duckdb.connect() as connection:
        for one, text in (
            (desk, "to Desk@pbx.example.com"),
            (Sought(NUMBER, "GB", secret), hashed),
            (Sought(NUMBER, "GB", ""), "n=%2B44%2020%207946%200018"),
        ):
            conditions = list(one.conditions("$1", "duckdb"))
            found = [
                connection.execute(
                    f"SELECT {sql.replace('%s', '$2')}", [text, parameter]
                ).fetchone()
                for sql, parameter in conditions
            ]
            assert (True,) in found
