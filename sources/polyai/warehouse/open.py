"""Opening of pipelines and their destinations."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration.exceptions import (
    ConfigFieldMissingException,
    ConfigurationException,
)
from dlt.common.destination import Destination
from dlt.common.destination.exceptions import (
    InvalidDestinationReference,
    UnknownDestinationModule,
)
from dlt.common.exceptions import DltException
from dlt.common.storages import WithLocalFiles
from dlt.common.storages.exceptions import SchemaNotFoundError

from ..config.settings import check_names
from ..errors import ConfigurationError, first_line
from .capabilities import (
    label_of,
    require_capabilities,
    require_no_staging,
    require_support,
    unknown_destination,
    variable_of,
)
from .clients import sql_client
from .dataset import DATASETS, MAIN, loaded_schemas, schema_of
from .drivers import drivers_required
from .duckdb_destination import DUCKDB
from .duckdb_file import READERS_SECONDS, duckdb_path, kept_open, shared_duckdb
from .ducklake import DUCKLAKE, check_lake, check_storage_name, places
from .ducklake_destination import shared_lake
from .earlier_tables import require_current_tables
from .errors import destination_errors, is_conflict, is_driver_error
from .packages import SQLALCHEMY
from .retry import retry
from .working_directory import lock_on, remove_partial_state, remove_state

PIPELINE_NAME = "polyai"
BACKFILL_PIPELINE = "polyai_backfill"
"""Prefix of the names of the pipelines that load slices; a number follows."""

DATASET_NAME = "polyai"

_MISSING_FIELDS = re.compile(
    r"(?:missing field\(s\)|Missing \d+ field\(s\)[^:]*): (?!.*Union [2-9])(.+)"
)
"""Line of dlt's message about missing settings; of several ways to log in, of the first one."""

_NAME = re.compile(r"`(\w+)`")

_DUCKDBS = (DUCKDB, DUCKLAKE)

_DUCKDB_LOAD_WORKERS = 1
"""Tables loaded concurrently. Each takes memory, and DuckDB loads them one by one anyway; on
DuckLake each would start a DuckDB of its own, which takes a second."""


def open_pipeline(
    destination: str | Destination[Any, Any] | None = None,
    dataset: str | None = None,
    pipelines_dir: str | Path | None = None,
    name: str = PIPELINE_NAME,
    *,
    wait_seconds: float = READERS_SECONDS,
) -> dlt.Pipeline:
    """Returns the dlt pipeline that loads the warehouse, without connecting to the destination.

    The DuckDB file is `polyai.duckdb` in the current folder unless dlt's configuration sets another
    one; a path that dlt's working directory remembers is not followed, because a copied or moved
    folder has it from the original. DuckDB names a database after its file, and rejects
    `polyai.conversations` as ambiguous if both the database and a schema are named `polyai`.
    Therefore the tables of a new file are in the `main` schema if the file has the dataset's name,
    and `polyai.conversations` works there too. In every other file the schema is the dataset. A
    file that was renamed keeps its schema; see `schema_of`.

    Args:
        destination: dlt's name of a destination, or one of `dlt.destinations`; dlt's setting
            `destination_type` by default, else `duckdb`.
        dataset: Name of the dataset, `polyai` by default.
        pipelines_dir: Working directory, `.dlt/pipelines` by default, so that two folders with
            a warehouse each never load each other's pending packages.
        name: Name of the pipeline and of its working directory.
        wait_seconds: Time to wait for another process that is writing the DuckDB file.

    Raises:
        ConfigurationError: The destination is unknown, not configured, or refused; or its driver is
            not installed; or a setting is unknown; or a DuckDB file has two datasets of ours.
    """
    check_names()
    folder = working_folder(pipelines_dir)
    folder.mkdir(parents=True, exist_ok=True)

    def opened() -> dlt.Pipeline:
        remove_partial_state(folder / name)
        return _open(destination, dataset or DATASET_NAME, folder, name, wait_seconds)

    # dlt empties a new working directory, even if another process has just created it
    with lock_on(folder / "opening.lock"):
        return retry(opened, retry_if=_was_emptied)


def _was_emptied(error: Exception) -> bool:
    """Whether another run emptied the working directory, since the warehouse was deleted."""
    return isinstance(error.__cause__, SchemaNotFoundError)


def _open(
    destination: str | Destination[Any, Any] | None,
    dataset: str,
    folder: Path,
    name: str,
    wait_seconds: float,
) -> dlt.Pipeline:
    # a signal ends a run between two conversations, not in the middle of a dlt step
    dlt.config["runtime.intercept_signals"] = False
    # otherwise dlt keeps a copy of every conversation beside the warehouse
    dlt.config["load.delete_completed_jobs"] = True
    requested = destination or dlt.config.get("destination_type", str) or "duckdb"
    try:
        requested = _in_current_folder(requested)
        # without a dataset: dlt stores its name in the working directory, and a concurrent run
        # reads it from there, so a wrong name must not be there even for a moment
        pipeline = dlt.pipeline(name, pipelines_dir=str(folder), destination=requested)
        resolved, dataset = _resolve(pipeline, dataset, wait_seconds)
        return dlt.pipeline(
            name, pipelines_dir=str(folder), destination=resolved, dataset_name=dataset
        )
    except (DltException, ConfigurationException, ImportError) as error:
        raise ConfigurationError(f"destination: {first_line(error)}") from error


def _resolve(
    pipeline: dlt.Pipeline, dataset: str, wait_seconds: float
) -> tuple[Destination[Any, Any], str]:
    """Resolves the destination from dlt's configuration, and the name of its dataset."""
    destination, kind = pipeline.destination, pipeline.destination.destination_type
    support = require_support(pipeline)
    require_no_staging(pipeline)
    if kind == DUCKLAKE:
        check_storage_name(pipeline)
    with drivers_required(label_of(pipeline), support.packages):
        client = _client(pipeline)
    require_capabilities(pipeline, client.capabilities)
    config = client.config
    if kind in _DUCKDBS and dlt.config.get("load.workers") is None:
        dlt.config["load.workers"] = _DUCKDB_LOAD_WORKERS
    if kind == SQLALCHEMY:
        # imports SQLAlchemy, which others need not have
        from .sqlalchemy_destination import in_packages

        return in_packages(destination, config), _schema_name(client, dataset)
    if kind == DUCKLAKE:
        check_lake(pipeline, config)
        return shared_lake(destination, config), _schema_name(client, dataset)
    if kind != DUCKDB:
        return destination, _schema_name(client, dataset)
    duckdb, database = shared_duckdb(pipeline, config.credentials, f"{PIPELINE_NAME}.duckdb")
    if dataset != database.stem:
        dataset = _schema_name(client, dataset)
    loaded = loaded_schemas(database, wait_seconds)
    schema = schema_of(dataset, database, loaded or frozenset(), default=DATASET_NAME)
    if loaded is not None and schema not in loaded:
        # dlt takes `main`, which every file has, for a dataset with all tables that it remembers
        remove_state(Path(pipeline.working_dir))
    return duckdb, schema


def _schema_name(client: Any, dataset: str) -> str:
    """Returns the name of a dataset in the destination, such as `my_calls` for `my-calls`.

    dlt would warn of each use of another one, and our own SQL would not find its tables.
    """
    if not client.config.enable_dataset_name_normalization:
        return dataset
    name: str = client.schema.naming.normalize_table_identifier(dataset)
    return name


def _client(pipeline: dlt.Pipeline) -> Any:
    """Returns a client of the destination, which has its configuration, and is not connected."""
    try:
        return pipeline.destination_client()
    except ConfigFieldMissingException as error:
        # the last such line is of the innermost section, whose fields have no fields themselves
        *_, fields = _MISSING_FIELDS.findall(str(error))
        names = ", ".join(_NAME.findall(fields))
        raise ConfigurationError(
            f"destination: {label_of(pipeline)} is not configured: it lacks {names}. Set "
            f"{variable_of(pipeline)}, or dlt's settings of the destination; "
            "pipelines/destinations.md has an example"
        ) from error
    except (DltException, ConfigurationException, ImportError):
        raise
    except Exception as error:
        # dlt does not wrap what a driver, or a value of the wrong type, raises
        if not (isinstance(error, (TypeError, ValueError)) or is_driver_error(error)):
            raise
        raise ConfigurationError(
            f"destination: {label_of(pipeline)} is not configured as dlt expects: "
            f"{first_line(error)}. Correct {variable_of(pipeline)}, or dlt's settings of the "
            "destination; pipelines/destinations.md has an example"
        ) from error


def _in_current_folder(reference: str | Destination[Any, Any]) -> Destination[Any, Any]:
    """Returns a destination whose relative paths start from the current folder.

    Otherwise they start from the folder in which dlt created its working directory (`initial_cwd`),
    or follow the path that older versions of dlt stored there (`duckdb_database`).
    """
    try:
        destination: Any = Destination.from_reference(reference)
    except (UnknownDestinationModule, InvalidDestinationReference) as error:
        raise unknown_destination(str(reference)) from error
    if issubclass(destination.spec, WithLocalFiles):
        folder = Path(dlt.current.run_context().local_dir).resolve()
        # empty rather than None, which dlt would replace with what it remembers
        destination.config_params.update(local_dir=str(folder), legacy_db_path="")
    made: Destination[Any, Any] = destination
    return made


def working_folder(pipelines_dir: str | Path | None = None) -> Path:
    """Folder of dlt's working directories, `.dlt/pipelines` by default."""
    return Path(pipelines_dir or Path(".dlt", "pipelines")).resolve()


def connect(pipeline: dlt.Pipeline) -> None:
    """Opens the destination, and restores from it the state that dlt needs to continue.

    Retries conflicts: runs that begin together in an empty destination interfere with each other,
    since DuckLake creates its catalog when it is first opened.

    Raises:
        ConfigurationError: It has tables of version 0.1 that cannot be upgraded.
        DestinationError: The destination cannot be opened.
    """
    dataset = pipeline.dataset_name

    def restore() -> None:
        nonlocal dataset
        with destination_errors(), kept_open(pipeline):
            pipeline.dataset_name = dataset = _checked_dataset(pipeline)
            if pipeline.destination.destination_type == SQLALCHEMY:
                require_current_tables(pipeline)
            pipeline.sync_destination()

    retry(restore, retry_if=is_conflict)
    # dlt restores the dataset from the working directory as well, where another run may have
    # stored a different one since
    pipeline.dataset_name = dataset


def _checked_dataset(pipeline: dlt.Pipeline) -> str:
    """Returns the dataset of an open destination, in case the file was locked before."""
    dataset = pipeline.dataset_name
    database = duckdb_path(pipeline)
    if database is None:
        return dataset
    with sql_client(pipeline) as client:
        found = frozenset(name for (name,) in client.execute_sql(DATASETS) or ())
    name = database.stem if dataset == MAIN else dataset
    if dataset in found and name != DATASET_NAME:
        return dataset
    return schema_of(name, database, found, default=DATASET_NAME)


@contextmanager
def owner_only() -> Iterator[None]:
    """Creates files and folders with access for their owner only, within the block."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def destination_label(pipeline: dlt.Pipeline) -> str:
    """Describes a pipeline's destination and dataset for messages."""
    name, dataset = str(pipeline.destination.destination_name), pipeline.dataset_name
    config: Any = pipeline.destination_client().config
    if pipeline.destination.destination_type == DUCKLAKE:
        return f"{name}, {places(config)}, dataset {dataset}"
    if not (database := getattr(config.credentials, "database", None)):
        return f"{name}, dataset {dataset}"
    # see `open_pipeline` for files with the dataset's name
    dataset = Path(database).stem if dataset == "main" else dataset
    return f"{name} {database}, dataset {dataset}"
