"""Parquet files of a chunk, one per table, for destinations that load Parquet as it is."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from .chunk import Batch


class RowsFile(NamedTuple):
    """Parquet file with rows of one table."""

    path: Path
    rows: int


def write_files(
    batches: Iterable[Batch], schemas: dict[str, pa.Schema], folder: Path
) -> dict[str, RowsFile]:
    """Writes the rows of a chunk into one file per table.

    The files are read once, soon, and on this machine: compression would cost more than it saves.

    Args:
        batches: Rows of the chunk.
        schemas: Tables to write, with the columns of their files in order.
        folder: Folder of the files.

    Returns:
        The files by table; none for a table without rows.
    """
    # a run with nothing new does not need it
    import pyarrow.parquet as pq

    files: dict[str, RowsFile] = {}
    with ExitStack() as opened:
        writers: dict[str, pq.ParquetWriter] = {}
        for batch in batches:
            for name, schema in schemas.items():
                rows = batch.tables[name]
                if not rows.num_rows:
                    continue
                path, before = files.get(name, RowsFile(folder / f"{name}.parquet", 0))
                if name not in writers:
                    writers[name] = opened.enter_context(
                        pq.ParquetWriter(path, schema, compression="none", write_statistics=False)
                    )
                writers[name].write_table(rows.select(schema.names))
                files[name] = RowsFile(path, before + rows.num_rows)
    return files
