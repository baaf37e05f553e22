"""Documents about the cookbook: one page to read, and a SQL file per recipe and dialect."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from polyai.cookbook.recipes import Recipe, recipes

from .document import COMMAND, grid, put
from .sql_types import DIALECTS

_INTRODUCTION = f"""\
# Cookbook

Generated from `sources/polyai/cookbook/` by `{COMMAND}`.
The queries read the views, which each load creates. The queries on this
page are for DuckDB; the files in `cookbook/` are for DuckDB and PostgreSQL, and run unchanged:

```sh
duckdb -readonly polyai.duckdb < schemas/cookbook/duckdb/16_complete_and_fresh.sql
psql "$POSTGRES_URL" -f schemas/cookbook/postgres/16_complete_and_fresh.sql
```

- Periods end with the newest conversation in the warehouse, so that a late load never makes a
  result empty; recipe 16 shows whether a load is late. For periods that end today, replace
  `(SELECT max(last_local_date) FROM polyai.dim_agents)` by `CURRENT_DATE`. The newest day is
  usually not over yet, and counts as a whole day.
- Dates and hours are in the reporting time zone; columns that end in `_at` are in UTC.
- Rates are sums divided by sums. Never average a rate over days, variants or agents.
- NULL means unknown, or a rate whose denominator is 0. `count(x)` and `avg(x)` skip it.
- PolyScores have two scales, 1-5 and 0-10, given in `poly_score_scale`. Never mix them.
- `environment = 'live'` excludes tests.
- If your dataset has another name, replace `polyai.` by it.
"""


def write(folder: Path) -> None:
    """Writes `cookbook.md` and `cookbook/{dialect}/{recipe}.sql`; deletes older files."""
    put(folder, documents(), instead_of="cookbook/*/*.sql")


def documents() -> Iterator[tuple[str, str]]:
    """Yields the path of each file within the folder, and its text."""
    contents = "".join(f"- [{_heading(it)}](#{_anchor(_heading(it))})\n" for it in recipes())
    yield "cookbook.md", "\n".join([_INTRODUCTION, contents, *map(_section, recipes())])
    for dialect in DIALECTS:
        for recipe in recipes():
            yield f"cookbook/{dialect}/{recipe.name}.sql", recipe.file(dialect)


def _heading(recipe: Recipe) -> str:
    return f"{recipe.number}. {recipe.question}"


def _anchor(heading: str) -> str:
    """Returns the anchor that GitHub and GitLab give to a heading."""
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
