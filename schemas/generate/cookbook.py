"""What is kept of the cookbook in the repository: one page to read, and files to run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from polyai.cookbook.recipes import Recipe, recipes

from .dictionary import COMMAND, grid, put
from .views import DIALECTS

_INTRODUCTION = f"""\
# Cookbook

Generated from `sources/polyai/cookbook/` by `{COMMAND}`.
The queries read the views: make them once with `polyai-warehouse views`. They run as they stand,
here in DuckDB's words; the files in `cookbook/` have them for DuckDB and for PostgreSQL:

```sh
duckdb -readonly polyai.duckdb < schemas/cookbook/duckdb/16_complete_and_fresh.sql
psql "$POSTGRES_URL" -f schemas/cookbook/postgres/16_complete_and_fresh.sql
```

- Periods end with the newest conversation that the warehouse holds, so an answer is never empty
  because a load is late; `16` tells whether it is. Put `CURRENT_DATE` in the place of
  `(SELECT max(last_local_date) FROM polyai.dim_agents)` for periods that end today. The newest day
  is seldom over, and counts as a day all the same.
- Dates and hours are those of the reporting time zone; columns that end in `_at` are UTC.
- Rates are sums divided by sums. Never average a rate over days, variants or agents.
- NULL means not known, and a rate of nothing: it is not 0. `count(x)` and `avg(x)` leave it out.
- PolyScores have two scales, 1-5 and 0-10, told by `poly_score_scale`. Never mix them.
- `environment = 'live'` leaves tests out.
- A dataset of another name: put it in the place of `polyai.`.
"""


def write(folder: Path) -> None:
    """Writes `cookbook.md` and `cookbook/{dialect}/{recipe}.sql` into a folder; older files go."""
    put(folder, documents(), instead_of="cookbook/*/*.sql")


def documents() -> Iterator[tuple[str, str]]:
    """Each file's path within the folder, and its text."""
    contents = "".join(f"- [{_heading(it)}](#{_anchor(_heading(it))})\n" for it in recipes())
    yield "cookbook.md", "\n".join([_INTRODUCTION, contents, *map(_section, recipes())])
    for dialect in DIALECTS:
        for recipe in recipes():
            yield f"cookbook/{dialect}/{recipe.name}.sql", recipe.file(dialect)


def _heading(recipe: Recipe) -> str:
    return f"{recipe.number}. {recipe.question}"


def _anchor(heading: str) -> str:
    """What GitHub and GitLab make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _section(recipe: Recipe) -> str:
    remarks = "".join(f"{remark}\n\n" for remark in recipe.remarks)
    rows = [(f"`{name}`", meaning) for name, meaning in recipe.columns.items()]
    table = grid(("column", "meaning"), rows)
    links = ", ".join(f"[{dialect}](cookbook/{dialect}/{recipe.name}.sql)" for dialect in DIALECTS)
    return (
        f"## {_heading(recipe)}\n\n{remarks}```sql\n{recipe.query}```\n\n"
        f"As a file: {links}.\n\n{table}"
    )
