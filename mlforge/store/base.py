"""The offline store: one Delta table per feature, opened at a version and committed against exactly that version."""

import tempfile
from collections.abc import Collection, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from glob import escape
from pathlib import Path
from uuid import uuid4

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from mlforge.delta import Table
from mlforge.errors import RequestError, StoreError, one_line
from mlforge.files import Folder
from mlforge.months import MONTH
from mlforge.rows import Rows
from mlforge.stage import Workplace
from mlforge.store import commit
from mlforge.store.history import Version, find, newest_record, versions
from mlforge.store.record import BuildRecord
from mlforge.store.snapshot import Snapshot


class ConflictError(StoreError):
    """Somebody else committed to the table since it was opened; nothing was written."""


class Store:
    """Feature tables below one location; `LocalStore` for a folder."""

    def __init__(self, location: str, storage_options: Mapping[str, str] | None = None) -> None:
        self._location = location.rstrip("/")
        self._options = dict(storage_options) if storage_options else None

    def table_uri(self, feature_name: str) -> str:
        """Where the Delta table of a feature is, for DuckDB, Spark, pandas and whatever else reads Delta."""
        return f"{self._location}/{feature_name}"

    def _address(self, feature_name: str) -> str:
        """The location of a table as delta-rs wants it."""
        return self.table_uri(feature_name)

    def _table(self, feature_name: str, version: int | None = None) -> Table:
        return Table(self._address(feature_name), version=version, storage_options=self._options)

    def _folder(self, feature_name: str) -> Folder:
        """The location of a table as Polars wants it."""
        return Folder(path=self.table_uri(feature_name), options=self._options)

    def building(self, feature_name: str) -> AbstractContextManager[None]:
        """Held while a feature is built: builds of one feature queue here where the location has a lock to offer."""
        return nullcontext()

    def workplace(self, feature_name: str, timestamp: str | None) -> Workplace:
        """Where a build of a feature may put what does not fit into memory: here, wherever the table is.

        Args:
            feature_name: The feature.
            timestamp: The column with the rows' time; None: they have none.
        """
        scratch = Path(tempfile.gettempdir(), f"mlforge-{uuid4()}")
        return Workplace(scratch, self._folder(feature_name), timestamp)

    def open(self, feature_name: str, version: int | None = None) -> Snapshot | None:
        """A feature's table; None where it has not been built.

        Args:
            feature_name: The feature.
            version: Which version of the Delta table; the newest one by default.

        Raises:
            StoreError: The table is damaged, cannot be read, has no such version, or was not written by mlforge.
        """
        uri = self.table_uri(feature_name)
        try:
            table = self._table(feature_name, version)
            record = newest_record(table)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError, StoreError) as error:
            raise self._unreadable(feature_name, error) from error
        if record is None:
            raise StoreError(
                f"{uri!r} is a Delta table that mlforge did not write: move it, or use another store path."
            )
        return self._snapshot(feature_name, table, record)

    def require(self, feature_name: str) -> Snapshot:
        """A feature's table at its newest version.

        Raises:
            RequestError: The feature has not been built.
            StoreError: As for `open`.
        """
        snapshot = self.open(feature_name)
        if snapshot is None:
            hint = ""
            if self._has_files(feature_name):
                hint = (
                    f" Its folder {self.table_uri(feature_name)!r} has files and no log, as a first build that was "
                    f"killed leaves it; if the log was lost, restore _delta_log from a copy instead."
                )
            raise RequestError(
                f"Feature {feature_name!r} has not been built: run `mlforge build --features {feature_name}`.{hint}"
            )
        return snapshot

    def versions(self, feature_name: str) -> list[Version]:
        """The versions of a feature, the newest first: every commit to its table, also those of others.

        Raises:
            RequestError: The feature has not been built.
            StoreError: The table is damaged or cannot be read.
        """
        found = self._versions(feature_name)
        incomplete = self._incomplete(feature_name)
        if incomplete is None:
            return found
        return [replace(each, readable=each.delta_version not in incomplete) for each in found]

    def _versions(self, feature_name: str) -> list[Version]:
        table = self.require(feature_name).table
        try:
            return versions(table)
        except (DeltaError, OSError, StoreError) as error:
            raise self._unreadable(feature_name, error) from error

    def open_version(self, feature_name: str, version: str) -> Snapshot:
        """A feature's table at a version; where its files were vacuumed, it opens, and reading it is an error.

        Args:
            feature_name: The feature.
            version: MAJOR.MINOR.PATCH.

        Raises:
            RequestError: The feature has not been built, or has no such version; the message names some near it.
            StoreError: The table is damaged or cannot be read.
        """
        snapshot = self.open(feature_name, find(version, self._versions(feature_name), feature_name).delta_version)
        if snapshot is None:
            raise StoreError(f"The table {self.table_uri(feature_name)!r} of feature {feature_name!r} has gone away.")
        return snapshot

    def replace(
        self,
        feature_name: str,
        rows: Rows,
        record: BuildRecord,
        onto: Snapshot | None,
        months: Collection[str] | None = None,
    ) -> Snapshot:
        """Replaces the rows of a table in one commit, or makes the table, unless somebody was faster.

        Args:
            feature_name: The feature.
            rows: Of the months that are replaced all, and of others any.
            record: The commit's metadata.
            onto: The version that the rows were made for: the commit is the next one or none. None: no table yet.
            months: The months in which the rows differ from those of `onto`: the others keep their files. None: all. No
                months: only the metadata are new.

        Returns:
            The table at the new version.

        Raises:
            ConflictError: There is a newer version than `onto`; the table is as it was.
            StoreError: The location cannot be written.
        """
        folder = self._folder(feature_name)
        with self._writing(feature_name, onto):
            if onto is None:
                commit.create(self._address(feature_name), folder, rows, record)
            else:
                # Loaded anew, since it may be moved on to the version that is made.
                commit.replace(self._table(feature_name, onto.delta_version), folder, rows, record, months)
            version = 0 if onto is None else onto.delta_version + 1
            return self._snapshot(feature_name, self._table(feature_name, version), record)

    def restore(self, earlier: Snapshot, record: BuildRecord, onto: Snapshot) -> Snapshot:
        """Makes the next version of a table of the files of an earlier one, unless somebody was faster.

        Args:
            earlier: The version whose rows and columns come back.
            record: The commit's metadata.
            onto: The newest version: the commit is the next one or none.

        Returns:
            The table at the new version.

        Raises:
            ConflictError: There is a newer version than `onto`; the table is as it was.
            StoreError: A file of the earlier version is gone, or the location cannot be written.
        """
        name = onto.feature_name
        with self._writing(name, onto):
            table = self._table(name, onto.delta_version)
            table.restore(earlier.delta_version, commit_properties=commit.properties(record))
            return self._snapshot(name, table, record)

    def sizes(self, feature_name: str) -> dict[str, int]:
        """The files that versions of a table have, and how many bytes each has, whether or not they are still there."""
        log = f"{escape(self.table_uri(feature_name))}/_delta_log/*.json"
        schema = {"add": pl.Struct({"path": pl.String, "size": pl.Int64})}
        added = pl.scan_ndjson(log, schema=schema, storage_options=self._options)
        return dict(added.select(pl.col("add").struct.unnest()).drop_nulls().collect().iter_rows())

    def _incomplete(self, feature_name: str) -> Collection[int] | None:
        """The Delta versions that lack files; None where that cannot be told cheaply."""
        return None

    def _why(self, error: Exception) -> str:
        """What another library says, in one line and without what is secret."""
        return one_line(error)

    def _has_files(self, feature_name: str) -> bool:
        """Whether there are files where a table would be."""
        return False

    @contextmanager
    def _writing(self, feature_name: str, onto: Snapshot | None) -> Generator[None]:
        """Says in one line why a commit after `onto`, or the first one, could not be made."""
        uri = self.table_uri(feature_name)
        try:
            yield
        except (DeltaError, OSError, pl.exceptions.PolarsError) as error:
            made = onto is None and DeltaTable.is_deltatable(self._address(feature_name), self._options)
            if made or isinstance(error, CommitFailedError):
                raise ConflictError(f"Somebody else committed to {uri!r} at the same time.") from error
            raise StoreError(
                f"The table {uri!r} of feature {feature_name!r} cannot be written: {self._why(error)}"
            ) from error

    def _unreadable(self, feature_name: str, error: Exception) -> StoreError:
        why = self._why(error).rstrip(".")
        return StoreError(
            f"The table {self.table_uri(feature_name)!r} of feature {feature_name!r} cannot be read: {why}. If its log "
            f"is damaged, restore it from a copy, or delete the whole folder and build the feature again."
        )

    def _snapshot(self, feature_name: str, table: DeltaTable, record: BuildRecord) -> Snapshot:
        return Snapshot(
            feature_name=feature_name,
            table=table,
            record=record,
            location=self.table_uri(feature_name),
            schema=_schema(table),
            options=self._options,
            why=self._why,
        )


def _schema(table: DeltaTable) -> dict[str, pl.DataType]:
    """The stored columns; not from a scan, which would first have Polars import pyarrow."""
    return {name: dtype for name, dtype in pl.Schema(table.schema().to_arrow()).items() if name != MONTH}
