"""Entity diagrams: they show every table, and keys and relations hold in a warehouse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from command import query
from loaded import put_loaded
from polyai import open_pipeline
from polyai.sandbox import SandboxConfig
from polyai.tables import registry
from polyai.tables.registry import key_of
from polyai.views import PIPELINE_NAME, create_views
from polyai.views.definitions import views
from schemas.generate.entities import entities
from schemas.generate.relations import Relation, table_relations, view_relations

pytestmark = pytest.mark.load

SCHEMAS = Path(__file__).parent.parent / "schemas"
DIAGRAM = re.compile(r"^```mermaid\nerDiagram\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
RELATION = re.compile(r' {4}(\w+) (?:\|\||\|o)--o\{ (\w+) : "(?:\w+, )*\w+"')
ATTRIBUTE = re.compile(r" {8}[a-z]+ \w+(?: PK| FK| PK, FK)?")
LOADED = {"conversations", "turns"} | {table.name for table in registry.tables() if table.is_child}


@pytest.fixture
def warehouse(own_folder: Path) -> Path:
    put_loaded(SandboxConfig(conversations=60))
    assert not create_views(open_pipeline(name=PIPELINE_NAME)).failed
    return own_folder


def test_generated_file_is_current() -> None:
    kept = (SCHEMAS / "entities.md").read_text(encoding="utf-8")
    assert kept == entities(), "run `python -m schemas.generate` and look at the diff"


def test_every_table_is_in_one_diagram_with_its_key() -> None:
    diagrams = DIAGRAM.findall(entities())
    boxes = re.findall(r"^ {4}(\w+) \{\n(.*?)^ {4}\}$", "".join(diagrams), re.MULTILINE | re.DOTALL)
    assert sorted(name for name, _ in boxes) == sorted(table.name for table in registry.tables())
    keys = {name: re.findall(r"(\w+) PK", box) for name, box in boxes}
    assert keys == {table.name: list(key_of(table)) for table in registry.tables()}
    for diagram in diagrams:
        for line in diagram.splitlines():
            known = RELATION.fullmatch(line) or ATTRIBUTE.fullmatch(line)
            assert known or re.fullmatch(r" {4}(\w+ \{|\})", line), line


def test_every_table_but_three_references_the_key_of_another_one() -> None:
    relations = list(table_relations())
    keys = {table.name: key_of(table) for table in registry.tables()}
    assert keys.keys() - {relation.child for relation in relations} == {
        "agents",
        "archives",
        "sync_runs",
    }
    for relation in relations:
        assert relation.columns == keys[relation.parent]


@pytest.mark.slow
@pytest.mark.usefixtures("warehouse")
def test_keys_and_relations_hold() -> None:
    for table in registry.tables():
        if table.name in LOADED:
            _assert_key(table.name, key_of(table))
    for relation in table_relations():
        if relation.is_sure and relation.child in LOADED:
            assert _without_parent(relation) == 0, relation
    for view in views().values():
        _assert_key(view.name, view.key)
        for relation in view_relations(view):
            assert relation.columns == views()[relation.parent].key
            assert _without_parent(relation) == 0, relation


def _assert_key(name: str, key: tuple[str, ...]) -> None:
    columns = ", ".join(key)
    ((rows, keys, nulls),) = query(
        f"SELECT count(*), count(DISTINCT ({columns or '0'})), "
        f"count(*) FILTER (WHERE {' OR '.join(f'{column} IS NULL' for column in key) or 'FALSE'}) "
        f"FROM polyai.{name}"
    )
    assert (rows, nulls) == (keys, 0), name


def _without_parent(relation: Relation) -> object:
    ((count,),) = query(
        f"SELECT count(*) FROM polyai.{relation.child} "
        f"ANTI JOIN polyai.{relation.parent} USING ({', '.join(relation.columns)})"
    )
    return count
