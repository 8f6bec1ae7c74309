"""The offline store: one Delta table per feature, opened at a version and committed against exactly that version."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from mlforge.delta import Table
from mlforge.errors import StoreError
from mlforge.instant import INSTANT
from mlforge.store.record import BuildRecord

# The physical partition column: predicates on it are the only ones under which writers of other months do not clash.
MONTH = "mlforge_month"
# A snapshot has no months; its table is partitioned all the same, so that a feature can become one and cease to be.
TIMELESS = "all"
# Without it Delta forgets versions after 30 days.
KEEP_HISTORY = {"delta.logRetentionDuration": "interval 36500 days"}


class ConflictError(StoreError):
    """Somebody else committed to the table since it was opened; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A feature's table at one version; immutable, whatever is committed later.

    Attributes:
        feature_name: The feature.
        table: The Delta table, loaded at the version.
        record: The newest metadata of mlforge at the version.
        location: Where the table is.
        schema: The stored columns and their dtypes: keys, timestamp, feature columns.
    """

    feature_name: str
    table: DeltaTable
    record: BuildRecord
    location: str
    schema: Mapping[str, pl.DataType]

    @property
    def delta_version(self) -> int:
        """The version of the Delta table."""
        return self.table.version()

    @property
    def version(self) -> str:
        """The version of the feature, MAJOR.MINOR.PATCH."""
        return self.record.version(self.delta_version)

    @property
    def table_id(self) -> str:
        """The id of the Delta table, which a table that was deleted and made again does not share."""
        return str(self.table.metadata().id)

    @property
    def value_schema(self) -> dict[str, pl.DataType]:
        """The feature columns and their dtypes."""
        return {name: dtype for name, dtype in self.schema.items() if name not in self.record.index}

    def scan(self) -> pl.LazyFrame:
        """The whole history: keys, timestamp, feature columns; in no order."""
        return _scan(self.table)

    def collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """What was made of `scan`, collected.

        Raises:
            StoreError: A file of the table cannot be read.
        """
        try:
            return rows.collect(engine="streaming")
        except (OSError, pl.exceptions.ComputeError, pl.exceptions.PanicException) as error:
            raise StoreError(
                f"The table {self.location!r} of feature {self.feature_name!r} is damaged: {error}. Restore its "
                f"files, or delete the whole folder and build the feature again."
            ) from error

    def at(self, instant: datetime) -> pl.DataFrame:
        """For every entity that is visible at an instant its newest row at or before it, sorted by keys.

        Args:
            instant: UTC-aware.

        Returns:
            Keys, timestamp, feature columns; a snapshot's rows are the same at every instant.
        """
        timestamp = self.record.timestamp
        rows = self.scan()
        if timestamp is not None:
            rows = rows.filter(pl.col(timestamp) <= pl.lit(instant, INSTANT))
            newest = rows.group_by(self.record.keys).agg(pl.col(timestamp).max())
            rows = rows.join(newest, on=self.record.index, how="semi")
        return self.collect(rows.sort(self.record.keys))

    def next_change(self, instant: datetime) -> datetime | None:
        """The first instant after this one at which a stored row begins to hold; None where there is none."""
        if (timestamp := self.record.timestamp) is None:
            return None
        later = self.scan().filter(pl.col(timestamp) > pl.lit(instant, INSTANT))
        found = self.collect(later.select(pl.col(timestamp).min())).item()
        return found if isinstance(found, datetime) else None


def _scan(table: DeltaTable) -> pl.LazyFrame:
    return pl.scan_delta(table).drop(MONTH)


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

    def replace(self, feature_name: str, rows: pl.DataFrame, record: BuildRecord, onto: Snapshot | None) -> Snapshot:
        """Replaces all rows of a table in one commit, or makes the table, unless somebody was faster.

        Args:
            feature_name: The feature.
            rows: What `Computed.rows` describes.
            record: The commit's metadata.
            onto: The version that the rows were made for: the commit is the next one or none. None: no table yet.

        Returns:
            The table at the new version.

        Raises:
            ConflictError: There is a newer version than `onto`; the table is as it was.
            StoreError: The location cannot be written.
        """
        uri = self.table_uri(feature_name)
        months = pl.lit(TIMELESS) if record.timestamp is None else pl.col(record.timestamp).dt.strftime("%Y-%m")
        # With no retries delta-rs never rebases: a commit that others have overtaken fails instead of mixing rows.
        commit = CommitProperties(custom_metadata=record.to_metadata(), max_commit_retries=0)
        version = 0 if onto is None else onto.delta_version
        options = self._storage_options or None
        # Loaded anew: a write moves the table that it is given on to the version that it makes.
        address = self._address(feature_name)
        target = address if onto is None else Table(address, version=version, storage_options=options)
        written = rows.with_columns(months.alias(MONTH))
        shared: dict[str, Any] = {
            "partition_by": [MONTH],
            "configuration": KEEP_HISTORY,
            "storage_options": options,
            "commit_properties": commit,
        }
        try:
            if onto is None:
                write_deltalake(target, written, mode="error", **shared)
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
            schema=_scan(table).collect_schema(),
        )
