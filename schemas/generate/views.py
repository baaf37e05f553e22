"""What is kept of the views in the repository: their dictionary, and their SQL as users see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from polyai.config.time_zones import DEFAULT_ZONE
from polyai.views.definitions import View, views
from polyai.views.wording import Wording, as_shown

from .dictionary import COMMAND, grid, put
from .dictionary import DUCKDB_TYPES as TABLE_TYPES

DIALECTS = ("duckdb", "postgres")
"""What the SQL is shown in, by sqlglot's names."""

DUCKDB_TYPES: Mapping[str, str] = TABLE_TYPES | {"local timestamp": "TIMESTAMP", "date": "DATE"}
"""What DuckDB calls each type of a view's column."""

_INTRODUCTION = f"""\
# Views

Generated from `sources/polyai/views/` by `{COMMAND}`.
`polyai-warehouse views` creates them. The SQL in `views/` is what they are in a dataset `polyai`
and the time zone {DEFAULT_ZONE}.

- A local date is the day in the reporting time zone on which a conversation began, also for what
  happened in it after midnight.
- Daily rows exist where there is something to count: join `dim_dates` to see the other days.
- Filter on `local_date`, `agent_id` or a conversation's key: these reach the tables, so that the
  rest is not read.
"""


def write(folder: Path) -> None:
    """Writes `views.md` and `views/{dialect}/{view}.sql` into a folder; older files go."""
    put(folder, documents(), instead_of="views/*/*.sql")


def documents() -> Iterator[tuple[str, str]]:
    """Each file's path within the folder, and its text."""
    yield "views.md", "\n".join([_INTRODUCTION, *map(_section, views().values())])
    for dialect in DIALECTS:
        wording = Wording(dialect, lambda name: f"polyai.{name}", DEFAULT_ZONE).fingerprinted()
        for view in views().values():
            yield f"views/{dialect}/{view.name}.sql", as_shown(view, wording)


def _section(view: View) -> str:
    rows = [
        (f"`{field.name}`", f"`{DUCKDB_TYPES[field.type]}`", field.unit, field.meaning)
        for field in view.fields
    ]
    table = grid(("column", "type", "unit", "meaning"), rows)
    remarks = "".join(f"{remark}\n\n" for remark in view.remarks)
    return f"## {view.name}\n\n{view.grain}\n\n*{view.question}*\n\n{remarks}{table}"
