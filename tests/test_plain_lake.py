"""Loads into dlt's `filesystem` destination, which show why it is refused.

The conversation is loaded with two turns, and then with one: a warehouse has to keep one.
Delta tables need `pip install deltalake`:

    python -m pytest -m matrix tests/test_plain_lake.py
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import pyarrow.parquet as pq
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from polyai.tables.registry import key_of
from polyai.tables.turns import TURNS
from polyai.warehouse.capabilities import DESTINATIONS

pytestmark = [pytest.mark.process, pytest.mark.slow]

Turns = list[tuple[int, str]]
"""Index and text of each turn."""


def load(folder: Path, texts: list[str], strategy: str, table_format: Any = None) -> None:
    """Loads a conversation with one turn per text, by the keys of the table `turns`."""
    merge: Any = {"disposition": "merge", "strategy": strategy}

    @dlt.resource(
        name=TURNS.name,
        write_disposition=merge,
        primary_key=list(key_of(TURNS)),
        merge_key=list(TURNS.merge_key),
        table_format=table_format,
    )
    def turns() -> Iterator[dict[str, Any]]:
        key = {"agent_id": "PROJECT-1", "conversation_id": "CONV-1"}
        for index, text in enumerate(texts):
            yield {**key, "turn_index": index, "user_input": text}

    pipeline = dlt.pipeline(
        "plain",
        pipelines_dir=str(folder / "pipelines"),
        destination=dlt.destinations.filesystem(str(folder / "lake")),
        dataset_name="polyai",
    )
    assert not pipeline.run(turns(), loader_file_format="parquet").has_failed_jobs


def pairs(rows: list[dict[str, Any]]) -> Turns:
    return sorted((row["turn_index"], row["user_input"]) for row in rows)


def test_parquet_files_have_the_rows_of_both_loads(tmp_path: Path) -> None:
    for texts in (["old", "old"], ["new"]):
        load(tmp_path, texts, "delete-insert")
    files = (tmp_path / "lake" / "polyai" / "turns").glob("*.parquet")
    rows = [row for path in files for row in pq.ParquetFile(path).read().to_pylist()]
    assert pairs(rows) == [(0, "new"), (0, "old"), (1, "old")]


@pytest.mark.matrix
def test_delta_tables_keep_the_turn_that_is_gone(tmp_path: Path) -> None:
    deltalake = pytest.importorskip("deltalake")
    with pytest.raises(PipelineStepFailed, match="delete-insert"):
        load(tmp_path / "replaced", ["old"], "delete-insert", "delta")
    for texts in (["old", "old"], ["new"]):
        load(tmp_path, texts, "upsert", "delta")
    table = deltalake.DeltaTable(str(tmp_path / "lake" / "polyai" / "turns"))
    assert pairs(table.to_pyarrow_table().to_pylist()) == [(0, "new"), (1, "old")]


@pytest.mark.parametrize("table_format", ["delta", "iceberg"])
def test_dlt_declares_no_strategy_that_deletes(table_format: Any) -> None:
    capabilities = dlt.destinations.filesystem("lake").capabilities()
    assert capabilities.merge_strategies_selector is not None
    declared = capabilities.merge_strategies_selector(
        capabilities.supported_merge_strategies, table_schema={"table_format": table_format}
    )
    assert "delete-insert" not in declared
    assert "publish_to" in DESTINATIONS["filesystem"].alternative
