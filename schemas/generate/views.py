"""Documents about the views: their dictionary, and their SQL in each dialect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from polyai.config.time_zones import DEFAULT_ZONE
from polyai.views.definitions import View, views
from polyai.views.statements import Statements, with_header

from .document import COMMAND, grid, put
from .sql_types import DIALECTS, VIEW_TYPES

_INTRODUCTION = f"""\
# Views

Generated from `sources/polyai/views/` by `{COMMAND}`.
`polyai-warehouse views` creates them. The SQL in `views/` is rendered for a dataset `polyai` and
the time zone {DEFAULT_ZONE}.

- A local date is the day in the reporting time zone on which a conversation began, also for events
  of the conversation after midnight.
- Daily views have no row for a day without data: join `dim_dates` to include such days.
- Filter on `local_date`, `agent_id` or the key of a conversation: these filters are pushed down to
  the tables, so that other rows are not read.
- Names stand beside the ids of agents, variants and deployments in every view but
  `conversations_local`. They are NULL if the key may not read them. A name in a daily view is the
  current one.
"""


def write(folder: Path) -> None:
    """Writes `views.md` and `views/{dialect}/{view}.sql`; deletes older files."""
    put(folder, documents(), instead_of="views/*/*.sql")


def documents() -> Iterator[tuple[str, str]]:
    """Yields the path of each file within the folder, and its text."""
    yield "views.md", "\n".join([_INTRODUCTION, *map(_section, views().values())])
    for dialect in DIALECTS:
        # without a fingerprint, which also depends on the version of sqlglot
        statements = Statements(dialect, lambda name: f"polyai.{name}", DEFAULT_ZONE)
        for view in views().values():
            yield f"views/{dialect}/{view.name}.sql", with_header(view, statements)


def _section(view: View) -> str:
    rows = [
        (f"`{field.name}`", f"`{VIEW_TYPES[field.type]}`", field.unit, field.meaning)
        for field in view.fields
    ]
    table = grid(("column", "type", "unit", "meaning"), rows)
    remarks = "".join(f"{remark}\n\n" for remark in view.remarks)
    return f"## {view.name}\n\n{view.grain}\n\n*{view.question}*\n\n{remarks}{table}"
