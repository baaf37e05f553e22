"""DuckLake destination with one DuckDB per process, and one transaction per load package.

dlt attaches the lake anew for each client, which takes half a second of the processor, and merges
table by table through a staging dataset, with a commit for each statement. Here all clients of a
process are sessions of one DuckDB, and a reader sees all of a package or nothing of it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import dlt
import duckdb
from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.common.schema import Schema
from dlt.destinations import ducklake
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.impl.duckdb.configuration import DuckDbConnectionPool
from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
from dlt.destinations.impl.ducklake.configuration import (
    DuckLakeClientConfiguration,
    DuckLakeCredentials,
)
from dlt.destinations.impl.ducklake.ducklake import DuckLakeClient
from dlt.destinations.impl.ducklake.sql_client import DuckLakeSqlClient

from ..errors import DestinationError
from .clients import sql_client
from .duckdb_destination import DuckDbMerge
from .ducklake import DUCKLAKE, OTHER_PLACE, catalog_file, is_absent, lake_places, other_place
from .errors import destination_errors
from .packages import in_parquet
from .resolved_once import ResolvedOnce

_OF_FILES: dict[tuple[Path, str], _Sessions] = {}
"""Sessions of lakes whose catalogs are DuckDB files, by file and name of the lake."""


_LISTED = frozenset({"s3", "s3a"})
"""Protocols of stores whose buckets are checked."""

_NO_CATALOG = "creating a new DuckLake is explicitly disabled"
"""DuckLake's message for a database without a catalog."""


class _Sessions(DuckDbConnectionPool):
    """Sessions of one DuckDB in which the lake is attached once.

    It stays open for as long as there is a client; with a catalog in a DuckDB file, only while
    there is a session, so that another process can open the file.
    """

    def __init__(self, credentials: DuckLakeCredentials) -> None:
        super().__init__(credentials)
        self.opening = threading.Lock()
        self._stays_open = credentials.catalog.drivername != "duckdb"

    def return_conn(self, borrowed_conn: duckdb.DuckDBPyConnection) -> int:
        if not self._stays_open:
            return super().return_conn(borrowed_conn)
        # not counted, so that the last one does not close the database
        borrowed_conn.close()
        return self._conn_borrows

    def renew(self) -> None:
        """Gives later sessions a new DuckDB; the old one is closed with its last session."""
        if self._stays_open:
            with self._conn_lock:
                self._conn_borrows = 0
                self._close_conn()

    def _close_conn(self) -> None:
        if self._conn is not None and not self._stays_open:
            # a catalog in a DuckDB file has to be detached before its connection is closed
            name = self.credentials.ducklake_name  # type: ignore[attr-defined]
            with suppress(duckdb.Error):
                self._conn.execute(f"DETACH DATABASE IF EXISTS {name}")
        super()._close_conn()


class LakeClient(DuckLakeSqlClient):
    """dlt's SQL client, which leaves the lake attached.

    Attributes:
        creates_catalog: Create the catalog if there is none. It keeps the place of the files that
            is set then, so a client that only reads must not create it.
    """

    creates_catalog = True
    _is_new = False

    def open_connection(self) -> duckdb.DuckDBPyConnection:
        sessions: Any = self.credentials.conn_pool
        # one at a time, because each creates the secret of the bucket again
        with sessions.opening:
            try:
                return self._open_or_create()
            except (DestinationError, DatabaseUndefinedRelation):
                raise
            except Exception:
                # the catalog's server may have been restarted since it was attached
                sessions.renew()
                return self._open_or_create()

    def _open_or_create(self) -> duckdb.DuckDBPyConnection:
        self._is_new = False
        with suppress(DatabaseUndefinedRelation):
            return self._open()
        if not self.creates_catalog:
            raise _no_catalog(self.credentials)
        self.check_bucket()
        self._is_new = True
        return self._open()

    def _open(self) -> duckdb.DuckDBPyConnection:
        """Attaches the lake.

        Raises:
            DatabaseUndefinedRelation: There is no catalog, and this client does not create it.
            DestinationError: The catalog has another place of the files.
        """
        if not self._is_new and is_absent(self.credentials):
            # otherwise DuckDB leaves an empty file
            raise _no_catalog(self.credentials)
        try:
            return super().open_connection()
        except Exception as error:
            message = str(error)
            if _NO_CATALOG not in message and not OTHER_PLACE.search(message):
                raise
        if (found := OTHER_PLACE.search(message)) is not None:
            raise DestinationError(other_place(self.credentials, found[1]))
        raise _no_catalog(self.credentials)

    @property
    def attach_statement(self) -> str:
        statement = super().attach_statement
        if self._is_new:
            return statement
        return f"{statement.removesuffix(')')}, CREATE_IF_NOT_EXISTS false)"

    def check_bucket(self) -> None:
        """Checks that the bucket of the files exists; no-op for folders and stores other than S3.

        Raises:
            DestinationError: It does not exist or cannot be reached.
        """
        storage = self.credentials.storage
        if storage.protocol not in _LISTED:
            return
        DuckDbSqlClient.open_connection(self)
        url = str(storage.bucket_url)
        try:
            self.create_secret(url, storage.credentials)
            # one request, which finds nothing
            self._conn.execute("SELECT * FROM glob(?)", [f"{url.rstrip('/')}/.none*"])
        except duckdb.Error as error:
            reason = str(error)
        else:
            return
        finally:
            self.close_connection()
        if "NoSuchBucket" in reason:
            bucket = url.partition("://")[2].partition("/")[0]
            raise DestinationError(f"files of the lake in {url}: bucket {bucket} does not exist")
        # permission to write into one folder need not include listing the bucket
        if "HTTP 403" not in reason:
            line = reason.partition("\n")[0]
            raise DestinationError(f"files of the lake in {url} cannot be reached: {line}")

    def close_connection(self) -> None:
        if self._conn is not None:
            with suppress(duckdb.Error):
                self._conn.execute("ROLLBACK")
        DuckDbSqlClient.close_connection(self)


class PackageClient(DuckDbMerge, DuckLakeClient):
    """dlt's client, which merges all files of a package when the package is complete."""

    def __init__(
        self,
        schema: Schema,
        config: DuckLakeClientConfiguration,
        capabilities: DestinationCapabilitiesContext,
    ) -> None:
        super().__init__(schema, config, capabilities)
        known = self.sql_client
        self.sql_client = LakeClient(
            known.dataset_name,
            known.staging_dataset_name,
            config.credentials,
            capabilities,
            override_data_path=config.override_data_path,
            automatic_migration=config.automatic_migration,
        )


class PackageDuckLake(ResolvedOnce, ducklake):
    """dlt's DuckLake destination for the time of a run: one transaction per load package.

    Attributes:
        merges_packages: See `merges_without_staging`.
    """

    merges_packages = True

    @property
    def client_class(self) -> type[PackageClient]:
        return PackageClient

    def _raw_capabilities(self) -> DestinationCapabilitiesContext:
        return in_parquet(super()._raw_capabilities())

    @property
    def destination_type(self) -> str:
        """Type by which pipelines and their stored state know dlt's own destination."""
        return DUCKLAKE


def check_files(pipeline: dlt.Pipeline) -> None:
    """Checks that the bucket of a lake exists; see `LakeClient.check_bucket`.

    Raises:
        DestinationError: It does not exist or cannot be reached.
    """
    client: Any = sql_client(pipeline)
    if isinstance(client, LakeClient):
        with destination_errors():
            client.check_bucket()


def without_creation(client: Any) -> Any:
    """Lets the client of a lake create no catalog, so that its tables do not exist either.

    Args:
        client: SQL client of any destination; others than lakes stay as they are.
    """
    if isinstance(client, LakeClient):
        client.creates_catalog = False
    return client


def _no_catalog(credentials: DuckLakeCredentials) -> DatabaseUndefinedRelation:
    message = (
        f"there is no DuckLake yet, {lake_places(credentials)}: polyai-warehouse load creates it"
    )
    return DatabaseUndefinedRelation(ValueError(message))


def shared_lake(destination: Any, config: DuckLakeClientConfiguration) -> PackageDuckLake:
    """Returns the destination of this module for dlt's own one.

    Args:
        destination: dlt's destination.
        config: Its resolved configuration, whose credentials are changed.
    """
    credentials = config.credentials
    credentials.conn_pool = _sessions(credentials)
    parameters = {**destination.config_params, "credentials": credentials}
    parameters["destination_name"] = destination.destination_name
    return PackageDuckLake(**parameters)


def _sessions(credentials: DuckLakeCredentials) -> _Sessions:
    """Returns the sessions of a lake: a process can attach a catalog in a DuckDB file only once."""
    if credentials.catalog.drivername != "duckdb":
        return _Sessions(credentials)
    file = catalog_file(credentials)
    return _OF_FILES.setdefault((file, credentials.ducklake_name), _Sessions(credentials))
