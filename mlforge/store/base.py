"""The offline store: one Delta table per feature, opened at a version and committed against exactly that version."""

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from mlforge.delta import Table
from mlforge.errors import StoreError
from mlforge.store.record import BuildRecord
from mlforge.store.snapshot import MONTH, Snapshot, month_expr

# Without it Delta forgets versions after 30 days.
KEEP_HISTORY = {"delta.logRetentionDuration": "interval 36500 days"}


class ConflictError(StoreError):
    """Somebody else committed to the table since it was opened; nothing was written."""


def _newest_record(table: DeltaTable) -> BuildRecord | None:
    """The newest of mlforge's commits up to the table's version; others, such as an OPTIMIZE, may have come after."""
    commits = table.version() + 1
    for limit in (min(10, commits), commits):
        # delta-rs gives that many up to the version it loaded, and before these all that came later.
        for commit in table.history(limit)[-limit:]:
            if (record := BuildRecord.from_commit(commit)) is not None:
                return record
    return None


class Store:
    """Feature tables below one location; `LocalStore` for a folder."""

    def __init__(self, location: str, storage_options: Mapping[str, str] | None = None) -> None:
        self._location = location.rstrip("/")
        self._storage_options = dict(storage_options or {})

    def table_uri(self, feature_name: str) -> str:
        """Where the Delta table of a feature is, for DuckDB, Spark, pandas and whatever else reads Delta."""
        return f"{self._location}/{feature_name}"

    def _address(self, feature_name: str) -> str:
        """The location of a table as delta-rs wants it."""
        return self.table_uri(feature_name)

    def building(self, feature_name: str) -> AbstractContextManager[None]:
        """Held while a feature is built: builds of one feature queue here where the location has a lock to offer."""
        return nullcontext()

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
            options = self._storage_options or None
            table = Table(self._address(feature_name), version=version, storage_options=options)
            record = _newest_record(table)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError, StoreError) as error:
            raise StoreError(f"The table {uri!r} of feature {feature_name!r} cannot be read: {error}") from error
        if record is None:
            raise StoreError(
                f"{uri!r} is a Delta table that mlforge did not write: move it, or use another store path."
            )
        return self._snapshot(feature_name, table, record)

    def replace(
        self,
        feature_name: str,
        rows: pl.DataFrame,
        record: BuildRecord,
        onto: Snapshot | None,
        months: Collection[str] | None = None,
    ) -> Snapshot:
        """Replaces the rows of a table in one commit, or makes the table, unless somebody was faster.

        Args:
            feature_name: The feature.
            rows: What `Computed.rows` describes.
            record: The commit's metadata.
            onto: The version that the rows were made for: the commit is the next one or none. None: no table yet.
            months: The months in which the rows differ from those of `onto`: the others keep their files. None: all.

        Returns:
            The table at the new version.

        Raises:
            ConflictError: There is a newer version than `onto`; the table is as it was.
            StoreError: The location cannot be written.
        """
        uri = self.table_uri(feature_name)
        # With no retries delta-rs never rebases: a commit that others have overtaken fails instead of mixing rows.
        commit = CommitProperties(custom_metadata=record.to_metadata(), max_commit_retries=0)
        version = 0 if onto is None else onto.delta_version
        options = self._storage_options or None
        # Loaded anew: a write moves the table that it is given on to the version that it makes.
        address = self._address(feature_name)
        target = address if onto is None else Table(address, version=version, storage_options=options)
        written = rows.with_columns(month_expr(record.timestamp).alias(MONTH))
        shared: dict[str, Any] = {
            "partition_by": [MONTH],
            "configuration": KEEP_HISTORY,
            "storage_options": options,
            "commit_properties": commit,
        }
        try:
            if onto is None:
                write_deltalake(target, written, mode="error", **shared)
            elif months:
                written = written.filter(pl.col(MONTH).is_in(list(months)))
                named = ", ".join(f"'{month}'" for month in sorted(months))
                write_deltalake(target, written, mode="overwrite", predicate=f"{MONTH} IN ({named})", **shared)
            else:
                write_deltalake(target, written, mode="overwrite", schema_mode="overwrite", **shared)
        except CommitFailedError as error:
            raise ConflictError(f"Somebody else committed to {uri!r} at the same time.") from error
        except (DeltaError, OSError) as error:
            if onto is None and DeltaTable.is_deltatable(address, options):
                raise ConflictError(f"Somebody else made {uri!r} at the same time.") from error
            raise StoreError(f"The table {uri!r} of feature {feature_name!r} cannot be written: {error}") from error
        made = 0 if onto is None else version + 1
        table = Table(address, version=made, storage_options=options)
        return self._snapshot(feature_name, table, record)

    def _snapshot(self, feature_name: str, table: DeltaTable, record: BuildRecord) -> Snapshot:
        return Snapshot(
            feature_name=feature_name,
            table=table,
            record=record,
            location=self.table_uri(feature_name),
            schema=pl.scan_delta(table).drop(MONTH).collect_schema(),
        )
