"""Support of dlt's destinations: proven, supported or refused, and the check at opening.

The tables `DESTINATIONS` and `DATABASES` are the one place that knows how far a destination was
tested, whether it keeps leases, and what it needs to be installed. What dlt itself declares, such
as merge strategies, is asked from dlt's capabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal

import dlt
from dlt.common.configuration import inject_section
from dlt.common.configuration.specs.config_section_context import ConfigSectionContext
from dlt.common.destination import Destination
from dlt.common.destination.capabilities import DestinationCapabilitiesContext

from ..config.lookup import without_keys
from ..errors import ConfigurationError
from .drivers import drivers_required

Level = Literal["proven", "supported", "refused"]
"""`proven`: the tests load it and compare every row. `supported`: dlt's capabilities suffice, and
tests render our SQL for its dialect, but do not load it. `refused`: a load would fail, or lose or
duplicate rows."""


@dataclass(frozen=True)
class Support:
    """Support of one destination, or of one database behind dlt's `sqlalchemy`.

    Attributes:
        level: Level of the support.
        reason: How far it was tested; for a refused destination, what it lacks.
        packages: Arguments of `pip install` for dlt's extra and the driver; empty if it needs none.
        has_leases: Each statement changes a row atomically, so that a lease in `load_leases` keeps
            two machines from loading the same agent. Tested on PostgreSQL, DuckDB, DuckLake,
            MariaDB and SQLite; the others according to their documentation.
        alternative: Destination to use instead of a refused one.
        without_views: Views that its dialect cannot express, and that are left out.
    """

    level: Level
    reason: str
    packages: str = ""
    has_leases: bool = False
    alternative: str = ""
    without_views: tuple[str, ...] = ()


_BY_DIALECT = "its SQL is rendered and parsed by tests, but did not run on the service"
_VECTORS = "a vector store cannot replace the rows of a changed conversation"
_T_SQL = "its T-SQL has no boolean values, which our queries use"
_RELATIONAL = "postgres or duckdb"
_LAKE = "ducklake, which keeps Parquet files in a folder or bucket"

DESTINATIONS: Mapping[str, Support] = {
    "duckdb": Support("proven", "the whole test suite loads it", has_leases=True),
    "postgres": Support(
        "proven",
        "tests load a server, and every row equals DuckDB's",
        "'polyai-warehouse[postgres]'",
        has_leases=True,
    ),
    "ducklake": Support(
        "proven",
        "tests load it with its catalog in PostgreSQL, a SQLite file or a DuckDB file, and its "
        "files in a folder or on S3, and every row of tables and views equals DuckDB's",
        "'polyai-warehouse[lake]'",
        has_leases=True,
    ),
    "motherduck": Support(
        "supported",
        "it is DuckDB's SQL, but did not run on the service",
        "'dlt[motherduck]'",
        has_leases=True,
    ),
    "snowflake": Support(
        "supported",
        f"{_BY_DIALECT}; all views had DuckDB's rows on fakesnow, an emulator",
        "'dlt[snowflake]'",
        has_leases=True,
    ),
    "bigquery": Support("supported", _BY_DIALECT, "'dlt[bigquery]'", has_leases=True),
    "databricks": Support("supported", _BY_DIALECT, "'dlt[databricks]'", has_leases=True),
    "redshift": Support("supported", _BY_DIALECT, "'dlt[redshift]'", has_leases=True),
    "sqlalchemy": Support(
        "refused",
        "of SQLAlchemy's databases, only MySQL, MariaDB and SQLite were tried",
        "'dlt[sqlalchemy]'",
        alternative=_RELATIONAL,
    ),
    "clickhouse": Support(
        "refused",
        "its outer joins return empty values in place of NULL, 9 of 19 views fail on chdb, an "
        "embedded ClickHouse, and no load of it was tried",
        "'dlt[clickhouse]'",
        alternative=_RELATIONAL,
    ),
    "mssql": Support("refused", _T_SQL, "'dlt[mssql]'", alternative=_RELATIONAL),
    "synapse": Support("refused", _T_SQL, "'dlt[synapse]'", alternative=_RELATIONAL),
    "fabric": Support("refused", _T_SQL, "'dlt[fabric]'", alternative=_RELATIONAL),
    "athena": Support(
        "refused",
        "it loads through a staging bucket only, merges into Iceberg tables only, and neither was "
        "tried",
        "'dlt[athena]'",
        alternative=_LAKE,
    ),
    "dremio": Support(
        "refused",
        "it loads through a staging bucket only, which was not tried",
        "'dlt[dremio]'",
        alternative=_LAKE,
    ),
    "filesystem": Support(
        "refused",
        "its Parquet files keep the old rows of a changed conversation beside the new ones, and "
        "its Delta tables those that it no longer has, as tests show; for Iceberg tables dlt has "
        "the same strategies only",
        "'dlt[filesystem]'",
        alternative=f"{_LAKE}, or duckdb with publish_to, which writes all tables and views as "
        "Parquet files",
    ),
    "lance": Support("refused", _VECTORS, "'dlt[lance]'", alternative=_RELATIONAL),
    "lancedb": Support("refused", _VECTORS, "'dlt[lancedb]'", alternative=_RELATIONAL),
    "qdrant": Support("refused", _VECTORS, "'dlt[qdrant]'", alternative=_RELATIONAL),
    "weaviate": Support("refused", _VECTORS, "'dlt[weaviate]'", alternative=_RELATIONAL),
    "destination": Support(
        "refused",
        "a function that receives rows cannot be asked which ones it has",
        alternative=f"{_RELATIONAL}, and let the function read from there",
    ),
    "dummy": Support("refused", "it keeps no rows", alternative="duckdb"),
}
"""Support by dlt's name of the destination."""

_MYSQL = Support(
    "proven",
    "tests load a MariaDB server, and every row of tables and views equals DuckDB's",
    "'polyai-warehouse[mysql]'",
    has_leases=True,
)

DATABASES: Mapping[str, Support] = {
    "mysql": replace(_MYSQL, reason=f"{_MYSQL.reason}; MySQL's own server was not tried"),
    "mariadb": _MYSQL,
    "sqlite": Support(
        "proven",
        "tests load a file, and every row of tables and views equals DuckDB's",
        "'polyai-warehouse[mysql]'",
        has_leases=True,
    ),
    "oracle": Support(
        "refused",
        "it takes empty text for NULL, and was not tried",
        "'dlt[sqlalchemy]' oracledb",
        alternative=_RELATIONAL,
    ),
    "postgresql": Support(
        "refused", "dlt has a destination of its own for PostgreSQL", alternative="postgres"
    ),
    "duckdb": Support(
        "refused", "dlt has a destination of its own for DuckDB", alternative="duckdb"
    ),
    "mssql": Support("refused", _T_SQL, alternative=_RELATIONAL),
}
"""Support behind dlt's destination `sqlalchemy`, by SQLAlchemy's name of the database."""

SQLALCHEMY = "sqlalchemy"
"""dlt's name of the destination whose databases differ."""


class RefusedError(ConfigurationError):
    """The destination is refused.

    Attributes:
        name: Its name.
        support: Its support.
    """

    def __init__(self, name: str, support: Support) -> None:
        super().__init__(
            f"destination: {name} is refused: {support.reason}. Use {support.alternative}"
        )
        self.name = name
        self.support = support


_UNKNOWN = Support("refused", "it is not a destination of dlt's", alternative=_RELATIONAL)


def name_of(destination: Destination[Any, Any]) -> str:
    """Returns dlt's name of a destination; of the one that a user's own class extends."""
    classes = type(destination).__mro__
    names = {getattr(dlt.destinations, name, None): name for name in DESTINATIONS}
    found = next((names[known] for known in classes if known in names), None)
    return found or str(destination.destination_name)


def support_of(pipeline: dlt.Pipeline) -> Support:
    """Returns the support of a pipeline's destination, without connecting to it.

    Needs no driver but SQLAlchemy, so that a refused destination is refused before one is
    installed.
    """
    name = name_of(pipeline.destination)
    if name == SQLALCHEMY and (database := database_of(pipeline)):
        return DATABASES.get(database, DESTINATIONS[SQLALCHEMY])
    return DESTINATIONS.get(name, _UNKNOWN)


def database_of(pipeline: dlt.Pipeline) -> str:
    """Returns SQLAlchemy's name of the database behind `sqlalchemy`; empty if none is set."""
    destination = pipeline.destination
    with (
        # SQLAlchemy itself reads the URL
        drivers_required(str(destination.destination_name), _MYSQL.packages),
        inject_section(ConfigSectionContext(pipeline_name=pipeline.pipeline_name)),
    ):
        config: Any = destination.configuration(destination.spec(), accept_partial=True)
    driver = getattr(config.credentials, "drivername", None) or ""
    return str(driver).partition("+")[0]


def label_of(pipeline: dlt.Pipeline) -> str:
    """Returns the name of a destination for messages, with the database behind `sqlalchemy`."""
    name = str(pipeline.destination.destination_name)
    if name_of(pipeline.destination) == SQLALCHEMY and (database := database_of(pipeline)):
        return f"{name} ({database})"
    return name


def require_support(pipeline: dlt.Pipeline) -> Support:
    """Returns the support of a pipeline's destination.

    Raises:
        ConfigurationError: No database of SQLAlchemy is set.
        RefusedError: The destination is refused; the message has the reason and an alternative.
    """
    if name_of(pipeline.destination) == SQLALCHEMY and not database_of(pipeline):
        raise ConfigurationError(
            f"destination: {label_of(pipeline)} has no database: set "
            f"{variable_of(pipeline)} to its URL, such as mysql+pymysql://user:…@host/polyai"
        )
    support = support_of(pipeline)
    if support.level == "refused":
        raise RefusedError(label_of(pipeline), support)
    return support


def require_no_staging(pipeline: dlt.Pipeline) -> None:
    """Checks that no staging destination is set, in which copies of the loaded rows would stay.

    Raises:
        ConfigurationError: One is set.
    """
    if pipeline.staging is not None:
        raise ConfigurationError(
            f"destination: staging through {pipeline.staging.destination_name} is refused: the "
            "conversations would also stay in its files, which forget does not reach. Remove the "
            "setting staging_type: all usable destinations load without it"
        )


def require_capabilities(
    pipeline: dlt.Pipeline, capabilities: DestinationCapabilitiesContext
) -> None:
    """Checks that a destination has what a load needs, as the user has configured it.

    Raises:
        RefusedError: It lacks something.
    """
    if lacking := ", ".join(missing_capabilities(capabilities)):
        reason = f"as it is configured, it lacks {lacking}"
        support = replace(
            support_of(pipeline), level="refused", reason=reason, alternative=_RELATIONAL
        )
        raise RefusedError(label_of(pipeline), support)


def unknown_destination(name: str) -> ConfigurationError:
    """Describes a destination that dlt does not have, with the nearest names."""
    database = DATABASES.get(name)
    if database is not None and database.level == "refused":
        advice = f"use {database.alternative}"
    elif database is not None:
        advice = f"for {name}, use {SQLALCHEMY}, and set DESTINATION__SQLALCHEMY__CREDENTIALS"
    else:
        usable = [one for one, support in DESTINATIONS.items() if support.level != "refused"]
        usable.append(f"{SQLALCHEMY} for MySQL, MariaDB and SQLite")
        found = get_close_matches(name, DESTINATIONS)
        advice = f"did you mean {' or '.join(found)}?" if found else f"use {', '.join(usable)}"
    shown = without_keys(name)
    return ConfigurationError(f"destination: {shown} is not a destination of dlt: {advice}")


def variable_of(pipeline: dlt.Pipeline) -> str:
    """Returns the environment variable with the credentials of a pipeline's destination."""
    return f"DESTINATION__{str(pipeline.destination.destination_name).upper()}__CREDENTIALS"


def advice_without_leases(pipeline: dlt.Pipeline) -> str:
    """Returns what to do where no lease keeps two machines apart; empty where one does."""
    if support_of(pipeline).has_leases:
        return ""
    return (
        f"{label_of(pipeline)} keeps no leases: load from one machine and one working directory at "
        "a time, because nothing stops a second run elsewhere from loading the same agent"
    )


def missing_capabilities(capabilities: DestinationCapabilitiesContext) -> Iterator[str]:
    """Yields what a load needs and dlt does not declare for a destination.

    A changed conversation is replaced by dlt's `delete-insert`, in which a row marked as
    `hard_delete` removes the children that are gone; `upsert` alone would keep them.
    """
    if "delete-insert" not in (capabilities.supported_merge_strategies or ()):
        yield "the merge strategy delete-insert"
    if not capabilities.supported_loader_file_formats:
        yield "loads without a staging bucket"
    if not capabilities.sqlglot_dialect:
        yield "a dialect of SQL"
