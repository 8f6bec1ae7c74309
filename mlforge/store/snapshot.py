"""A feature's table at one version: its history, and the rows that hold at an instant."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl
from deltalake import DeltaTable

from mlforge.errors import StoreError
from mlforge.instant import INSTANT
from mlforge.store.record import BuildRecord

# The physical partition column: predicates on it are the only ones under which writers of other months do not clash.
MONTH = "mlforge_month"
# A snapshot has no months; its table is partitioned all the same, so that a feature can become one and cease to be.
TIMELESS = "all"


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

    @property
    def files(self) -> dict[str, frozenset[str]]:
        """The files of every month in which there are rows (a feature without times has one, `all`)."""
        actions = pl.DataFrame(self.table.get_add_actions(flatten=True)).select("path", f"partition.{MONTH}")
        found: dict[str, set[str]] = {}
        for path, month in actions.iter_rows():
            found.setdefault(month, set()).add(path)
        return {month: frozenset(paths) for month, paths in found.items()}

    @property
    def content(self) -> str:
        """A text that no other rows share: 16 hex digits over the names of the files, which are never used twice.

        A version number does not do: where the folder was restored from a copy, it may be given once more.
        """
        names = sorted(path for paths in self.files.values() for path in paths)
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

    @property
    def rows_by_month(self) -> dict[str, int]:
        """How many rows every month has."""
        actions = pl.DataFrame(self.table.get_add_actions(flatten=True)).select(f"partition.{MONTH}", "num_records")
        return dict(actions.group_by(f"partition.{MONTH}").sum().iter_rows())

    def differing_months(self, rows: pl.DataFrame) -> frozenset[str] | None:
        """The months in which other rows are stored than these.

        Rows are told apart by 64-bit hashes of all their columns, which leaves out reading them in order.

        Args:
            rows: Keys, timestamp and feature columns of the whole history, in any order.

        Returns:
            None where the columns or the timestamp differ, so that no month can stay as it is.
        """
        if dict(self.schema) != dict(rows.schema):
            return None
        month = month_expr(self.record.timestamp)
        content = [row_hash(rows.columns).sum().alias("hash"), pl.len().alias("rows")]
        new = rows.lazy().group_by(month.alias(MONTH)).agg(content).collect(engine="streaming")
        old = self.collect(pl.scan_delta(self.table).group_by(MONTH).agg(content))
        both = new.join(old, on=MONTH, how="full", coalesce=True)
        same = pl.col("hash").eq_missing(pl.col("hash_right")) & pl.col("rows").eq_missing(pl.col("rows_right"))
        return frozenset(both.filter(~same)[MONTH])

    def scan(
        self,
        *,
        after: datetime | None = None,
        until: datetime | None = None,
        months: Collection[str] | None = None,
    ) -> pl.LazyFrame:
        """The history, or a part of it: keys, timestamp, feature columns; in no order.

        Args:
            after: Only rows later than this; UTC-aware, as is `until`.
            until: Only rows at this instant or earlier.
            months: Only rows of these months, as `files` names them.
        """
        rows, timestamp, month = pl.scan_delta(self.table), self.record.timestamp, pl.col(MONTH)
        # Also by month, since that leaves out whole files.
        if timestamp is not None and after is not None:
            rows = rows.filter(month >= _month(after), pl.col(timestamp) > pl.lit(after, INSTANT))
        if timestamp is not None and until is not None:
            rows = rows.filter(month <= _month(until), pl.col(timestamp) <= pl.lit(until, INSTANT))
        if months is not None:
            rows = rows.filter(month.is_in(list(months)))
        return rows.drop(MONTH)

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

    def at(self, instant: datetime, entities: pl.DataFrame | None = None) -> pl.DataFrame:
        """For every entity that is visible at an instant its newest row at or before it, sorted by keys.

        Args:
            instant: UTC-aware.
            entities: The keys of some entities, each once, in their stored dtypes; None: all entities.

        Returns:
            Keys, timestamp, feature columns; a snapshot's rows are the same at every instant.
        """
        keys = list(self.record.keys)
        if self.record.timestamp is None or entities is None:
            rows = self.scan(until=instant)
            rows = rows if entities is None else rows.join(entities.lazy(), on=keys, how="semi")
            return self.collect(self._newest(rows).sort(keys))
        found, missing = [], entities
        # The newest months have nearly all of them.
        for month in sorted(self.files, reverse=True):
            if missing.is_empty():
                break
            rows = self.scan(until=instant, months=[month]).join(missing.lazy(), on=keys, how="semi")
            found.append(self.collect(self._newest(rows)))
            missing = missing.join(found[-1], on=keys, how="anti")
        return pl.concat([pl.DataFrame(schema=self.schema), *found]).sort(keys)

    def next_change(self, instant: datetime) -> datetime | None:
        """The first instant after this one at which a stored row begins to hold; None where there is none."""
        if (timestamp := self.record.timestamp) is None:
            return None
        found = self.collect(self.scan(after=instant).select(pl.col(timestamp).min())).item()
        return found if isinstance(found, datetime) else None

    def _newest(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        if (timestamp := self.record.timestamp) is None:
            return rows
        newest = rows.group_by(self.record.keys).agg(pl.col(timestamp).max())
        return rows.join(newest, on=self.record.index, how="semi")


def month_expr(timestamp: str | None) -> pl.Expr:
    """The partition that a row belongs to."""
    return pl.lit(TIMELESS) if timestamp is None else pl.col(timestamp).dt.strftime("%Y-%m")


def row_hash(columns: Sequence[str]) -> pl.Expr:
    """A 64-bit hash of a row, the same for equal rows within a process; it is never stored."""
    return pl.struct(columns).hash()


def _month(instant: datetime) -> str:
    return f"{instant.year:04}-{instant.month:02}"
