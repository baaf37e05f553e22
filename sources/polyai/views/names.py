"""Names beside ids: columns that every view with an id of agent, variant or deployment gets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlglot import exp

from ..tables.declaration import Table
from ..tables.names import AGENTS, DEPLOYMENTS, VARIANTS

PER_CONVERSATION = "conversations_local"
"""View that reads nothing but conversations, so that it is fast: it gets no names. Its own ones are
those that the API sent with the conversation."""

_IDS = "ids"


@dataclass(frozen=True)
class Names:
    """Names of one kind of id.

    Attributes:
        table: Table with one row per id; its merge key is the id.
        columns: Columns of the table by their name in views.
    """

    table: Table
    columns: Mapping[str, str]


NAMES = (
    Names(AGENTS, {"agent_name": "agent_name"}),
    Names(VARIANTS, {"variant_name": "variant_name"}),
    Names(
        DEPLOYMENTS,
        {
            "deployment_version": "version",
            "deployed_at": "created_at",
            "deployed_by": "created_by",
            "deployment_message": "message",
        },
    ),
)
"""Names in the order of their columns."""


def with_names(query: exp.Select, reads: Collection[str]) -> exp.Select:
    """Returns the query of a view with the names of its ids as last columns.

    Names are joined to the rows of the view, after they are grouped: no row is added or lost, and
    filters are pushed down as before. A name that the view selects keeps its place. If it is the
    conversation's own, it only fills in where the table has no name.

    Args:
        query: The query, part of the result.
        reads: Tables and views that it reads.
    """
    selected = [column.alias_or_name for column in query.selects]
    columns: dict[str, exp.Expr] = {name: exp.column(name, _IDS) for name in selected}
    joined: list[Table] = []
    for names in NAMES:
        table = names.table
        has_own = PER_CONVERSATION in reads
        wanted = [name for name in names.columns if has_own or name not in columns]
        if table.name in reads or not wanted or not columns.keys() >= set(table.merge_key):
            continue
        joined.append(table)
        for name in wanted:
            known: exp.Expr = exp.column(names.columns[name], table.name)
            if name in columns:
                known = exp.func("coalesce", known, columns[name])
            columns[name] = known
    return _joined(query, columns, joined) if joined else query


def _joined(
    query: exp.Select, columns: Mapping[str, exp.Expr], tables: Collection[Table]
) -> exp.Select:
    """Returns a query of these columns over a query and tables of names."""
    common = query.ctes[0].parent if query.ctes else None
    place = str(common.arg_key) if common else ""
    if common:
        common.pop()
    result = exp.select(
        *(
            column if column.output_name == name else exp.alias_(column, name)
            for name, column in columns.items()
        )
    ).from_(query.subquery(_IDS, copy=False), copy=False)
    for table in tables:
        result.join(
            exp.to_table(table.name).as_(table.name),
            on=[exp.column(key, table.name).eq(exp.column(key, _IDS)) for key in table.merge_key],
            join_type="left",
            copy=False,
        )
    if common:
        result.set(place, common)
    return result
