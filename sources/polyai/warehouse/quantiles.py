"""Quantiles of groups for dialects that have no aggregate function for them, such as MySQL's."""

from __future__ import annotations

from sqlglot import exp, maybe_parse

_RANKED = "ranked"

_BETWEEN = """(
max(CASE WHEN {rank} <= {place} AND {rank} > {place} - 1 THEN {value} END)
+ (
  max(CASE WHEN {rank} >= {place} AND {rank} < {place} + 1 THEN {value} END)
  - max(CASE WHEN {rank} <= {place} AND {rank} > {place} - 1 THEN {value} END)
) * max(CASE WHEN {rank} <= {place} AND {rank} > {place} - 1 THEN {place} - {rank} END)
)"""
"""Value at a place, from 0, by linear interpolation between the rows before and after it."""


def rank_for_quantiles(tree: exp.Expr) -> None:
    """Replaces the quantiles of a query by maxima over ranked rows; changes the tree.

    The rows of each group are numbered by the value first, NULLs last. A quantile lies between the
    two rows around its place, as `quantile_cont` and `PERCENTILE_CONT` define it.
    """
    selects = {id(found.parent_select): found.parent_select for found in _quantiles(tree)}
    for select in selects.values():
        if select is not None:
            _rank(select)


def _quantiles(tree: exp.Expr) -> list[exp.PercentileCont]:
    return list(tree.find_all(exp.PercentileCont))


def _rank(select: exp.Select) -> None:
    group = select.args.get("group")
    keys = [key.copy() for key in group.expressions] if group else []
    inner = exp.Select()
    for part in ("from_", "joins", "where"):
        if (found := select.args.get(part)) is not None:
            inner.set(part, found)
            select.set(part, None)
    names: dict[str, str] = {}
    for quantile in _quantiles(select):
        _replace(quantile, keys, inner, names)
    # what remains reads columns of the ranked rows
    for column in [*select.find_all(exp.Column)]:
        if column.table == _RANKED:
            continue
        if isinstance(column.parent, exp.Select):
            # the column keeps its name
            column.replace(exp.alias_(_inner(column, inner, names), column.name))
        else:
            column.replace(_inner(column, inner, names))
    select.set("from_", exp.From(this=inner.subquery(_RANKED, copy=False)))


def _replace(
    quantile: exp.PercentileCont, keys: list[exp.Expr], inner: exp.Select, names: dict[str, str]
) -> None:
    """Replaces a quantile by maxima over the ranked rows, which get its value and rank."""
    value = quantile.this.sql()
    if f"quantile {value}" not in names:
        name = names[f"quantile {value}"] = f"c{len(names)}"
        within = f"PARTITION BY {', '.join(key.sql() for key in keys)}" if keys else ""
        inner.select(
            f"{value} AS {name}",
            f"row_number() OVER ({within} ORDER BY CASE WHEN {value} IS NULL THEN 1 ELSE 0 END, "
            f"{value}) - 1 AS {name}_rank",
            f"count({value}) OVER ({within}) - 1 AS {name}_last",
            copy=False,
        )
    name = f"{_RANKED}.{names[f'quantile {value}']}"
    quantile.replace(
        maybe_parse(
            _BETWEEN.format(
                value=name,
                rank=f"{name}_rank",
                place=f"({quantile.expression.sql()} * {name}_last)",
            )
        )
    )


def _inner(column: exp.Column, inner: exp.Select, names: dict[str, str]) -> exp.Column:
    """Returns the column of the ranked rows for a column of the query."""
    key = column.sql()
    if key not in names:
        names[key] = f"c{len(names)}"
        inner.select(exp.alias_(column.copy(), names[key]), copy=False)
    return exp.column(names[key], _RANKED)
