"""A feature's table at one version: its history, and the rows that hold at an instant."""

import hashlib
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from mlforge.errors import StoreError, one_line
from mlforge.instant import INSTANT
from mlforge.months import MONTH, month_of
from mlforge.rows import Rows, contents
from mlforge.span import Span
from mlforge.store.record import BuildRecord

# What files of others may have otherwise, and means the same.
_CASTS = pl.ScanCastOptions(
    datetime_cast=["nanosecond-downcast", "millisecond-upcast", "convert-timezone"],
    integer_cast="upcast",
    float_cast="upcast",
    missing_struct_fields="insert",
    extra_struct_fields="ignore",
)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A feature's table at one version; immutable, whatever is committed later.

    Attributes:
        feature_name: The feature.
        table: The Delta table, loaded at the version.
        record: The newest metadata of mlforge at the version.
        location: Where the table is.
        schema: The stored columns and their dtypes: keys, timestamp, feature columns.
        options: Delta's storage options.
        why: What another library says of the table, in one line and without what is secret.
    """

    feature_name: str
    table: DeltaTable
    record: BuildRecord
    location: str
    schema: Mapping[str, pl.DataType]
    options: dict[str, str] | None = field(default=None, repr=False)
    why: Callable[[Exception], str] = field(default=one_line, repr=False)

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
    def key_schema(self) -> dict[str, pl.DataType]:
        """The key columns and their dtypes."""
        return {name: self.schema[name] for name in self.record.keys}

    @cached_property
    def files(self) -> dict[str, frozenset[str]]:
        """The files of every month in which there are rows (a feature without times has one, `all`)."""
        found: dict[str, set[str]] = {}
        for path, month in self._files.select("path", MONTH).iter_rows():
            found.setdefault(month, set()).add(path)
        return {month: frozenset(paths) for month, paths in found.items()}

    @cached_property
    def content(self) -> str:
        """A text that no other rows share: 16 hex digits over the names of the files, which are never used twice.

        A version number does not do: where the folder was restored from a copy, it may be given once more.
        """
        names = sorted(path for paths in self.files.values() for path in paths)
        return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

    @property
    def rows_by_month(self) -> dict[str, int]:
        """How many rows every month has."""
        return dict(self._files.group_by(MONTH).agg(pl.col("num_records").sum()).iter_rows())

    @property
    def row_count(self) -> int:
        """How many rows there are; where others have committed, not always what the record says."""
        return int(self._files["num_records"].sum())

    def following(self, schema: Mapping[str, pl.DataType], definition_hash: str) -> tuple[int, int, int]:
        """MAJOR, MINOR and `base` of the next commit: whether columns went away, were added, or the definition changed.

        Args:
            schema: Its stored columns.
            definition_hash: Its definition's.
        """
        old = self.record
        if any(schema.get(name) != dtype for name, dtype in self.schema.items()):
            return old.major + 1, 0, self.delta_version + 1
        if schema.keys() != self.schema.keys() or old.definition_hash != definition_hash:
            return old.major, old.minor + 1, self.delta_version + 1
        return old.major, old.minor, old.base

    def differing_months(self, rows: Rows, among: Collection[str] | None = None) -> frozenset[str] | None:
        """The months in which other rows are stored than these.

        Rows are told apart by 64-bit hashes of all their columns, which leaves out reading them in order.

        Args:
            rows: The whole history.
            among: The rows are all those of these months, and only these are compared. None: of all months.

        Returns:
            None where the columns or the timestamp differ, so that no month can stay as it is.
        """
        if dict(self.schema) != dict(rows.schema):
            return None
        new, old = rows.contents(), self.collect(contents(self.scan(months=among), self.record.timestamp))
        both = new.join(old, on=MONTH, how="full", coalesce=True)
        same = pl.col("hash").eq_missing(pl.col("hash_right")) & pl.col("rows").eq_missing(pl.col("rows_right"))
        return frozenset(both.filter(~same)[MONTH])

    def spliced(self, rows: Rows, span: Span) -> tuple[Rows, frozenset[str]]:
        """These rows in place of those in a span of time, with all others of the months that it touches.

        Args:
            rows: In the span.
            span: Where rows are replaced.

        Returns:
            All rows of those months; and those of the months in which there were rows.
        """
        timestamp = str(self.record.timestamp)
        last = None if span.end is None else month_of(span.end)
        months = {month for month in self.files if month_of(span.start) <= month and (last is None or month <= last)}
        kept = {month: self.scan(months=[month]).filter(~span.holds(timestamp)) for month in sorted(months)}
        with self._reading():
            return rows.beside(kept, self.record.index), frozenset(months)

    def newest(self, until: datetime | None = None) -> datetime | None:
        """The time of the newest row, or of that at or before an instant (UTC-aware); None without times or rows."""
        if (timestamp := self.record.timestamp) is None:
            return None
        # Mostly one month is read for it.
        for month in sorted(self.files, reverse=True):
            rows = self.scan(until=until, months=[month])
            found = self.collect(rows.select(pl.col(timestamp).max())).item()
            if isinstance(found, datetime):
                return found
        return None

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

        Raises:
            StoreError: A file with these rows is gone or cut short; it can only be told of a local one.
        """
        timestamp, month = self.record.timestamp, pl.col(MONTH)
        within, held = [], []
        if timestamp is not None and after is not None:
            within.append(month >= month_of(after))
            held.append(pl.col(timestamp) > pl.lit(after, INSTANT))
        if timestamp is not None and until is not None:
            within.append(month <= month_of(until))
            held.append(pl.col(timestamp) <= pl.lit(until, INSTANT))
        if months is not None:
            within.append(month.is_in(list(months)))
        files = self._files.filter(*within)
        self._require(files)
        if self.table.protocol().min_reader_version > 1:
            # Others have upgraded the table: files may have rows that are deleted.
            return pl.scan_delta(self.table).filter(*within, *held).drop(MONTH)
        if files.is_empty():
            return pl.LazyFrame(schema=self.schema)
        # Not by `scan_delta`, which first imports pyarrow, for an eighth of a second.
        paths = [f"{self.location}/{path}" for path in files["path"]]
        found = pl.scan_parquet(
            paths,
            schema=self.schema,
            glob=False,
            hive_partitioning=False,
            # What others write may lack columns, which are null then, and have times in other units.
            missing_columns="insert",
            extra_columns="ignore",
            cast_options=_CASTS,
            storage_options=self.options,
        )
        return found.filter(*held)

    def parquet_files(self) -> list[str] | None:
        """The files whose rows are the history; None where others have upgraded the table, so that rows are deleted."""
        if self.table.protocol().min_reader_version > 1:
            return None
        self._require(self._files)
        return [f"{self.location}/{path}" for path in self._files["path"]]

    def collect(self, rows: pl.LazyFrame) -> pl.DataFrame:
        """What was made of `scan`, collected.

        Raises:
            StoreError: A file of the table cannot be read.
        """
        with self._reading():
            return rows.collect(engine="streaming")

    def at(self, instant: datetime, entities: pl.DataFrame | pl.Expr | None = None) -> pl.DataFrame:
        """For every entity that is visible at an instant its newest row at or before it, if it still holds.

        Of some entities the newest months are read first, so that memory is only taken for rows that may be the newest.

        Args:
            instant: UTC-aware.
            entities: Some entities: their keys, each once, in their stored dtypes, or a condition on the key columns;
                None: all entities.

        Returns:
            Keys, timestamp, feature columns, sorted by keys; a snapshot's rows are the same at every instant.
        """
        keys, after = list(self.record.keys), self.outlived(instant)
        if self.record.timestamp is None or entities is None:
            rows = _among(self.scan(after=after, until=instant), entities, keys)
            return self.collect(self._newest(rows).sort(keys))
        found: list[pl.DataFrame] = []
        for month in sorted(self.files, reverse=True):
            if isinstance(entities, pl.DataFrame) and entities.is_empty():
                break
            rows = _among(self.scan(after=after, until=instant, months=[month]), entities, keys)
            if isinstance(entities, pl.Expr) and found:
                rows = rows.join(pl.concat(part.select(keys) for part in found).lazy(), on=keys, how="anti")
            found.append(self.collect(self._newest(rows)))
            if isinstance(entities, pl.DataFrame):
                entities = entities.join(found[-1], on=keys, how="anti")
        return pl.concat([pl.DataFrame(schema=self.schema), *found]).sort(keys)

    def outlived(self, instant: datetime) -> datetime | None:
        """Rows up to this time have held for as long as they may; None where they hold until the next one."""
        if self.record.max_age is None:
            return None
        try:
            return instant - timedelta(microseconds=self.record.max_age)
        except OverflowError:
            # Before the year 1 there is nothing.
            return datetime.min.replace(tzinfo=instant.tzinfo)

    def next_change(self, instant: datetime) -> datetime | None:
        """The first instant after this one at which a row may begin to hold or cease to; None where there is none."""
        if (timestamp := self.record.timestamp) is None:
            return None
        first = pl.col(timestamp).min()
        begins = self.collect(self.scan(after=instant).select(first)).item()
        if (after := self.outlived(instant)) is None:
            return begins if isinstance(begins, datetime) else None
        oldest = self.collect(self.scan(after=after, until=instant).select(first)).item()
        ceases = None if oldest is None else oldest + (instant - after)
        return min((moment for moment in (begins, ceases) if moment is not None), default=None)

    @contextmanager
    def _reading(self) -> Generator[None]:
        try:
            yield
        except (OSError, pl.exceptions.ComputeError, pl.exceptions.PanicException) as error:
            raise self._damaged(self.why(error)) from error

    @cached_property
    def _files(self) -> pl.DataFrame:
        """The files: `path`, `size_bytes`, `num_records`, month."""
        files = pl.DataFrame(self.table.get_add_actions(flatten=True))
        return files.select("path", "size_bytes", "num_records", pl.col(f"partition.{MONTH}").alias(MONTH))

    def _require(self, files: pl.DataFrame) -> None:
        # Not left to Polars: of a file that is cut short it prints a stack that no caller can catch.
        if "://" in self.location:
            return
        for path, size in files.select("path", "size_bytes").iter_rows():
            try:
                there = Path(self.location, path).stat().st_size
            except OSError as error:
                raise self._damaged(f"{path}: {error.strerror}") from None
            if there != size:
                raise self._damaged(f"{path} has {there} bytes instead of {size}")

    def _damaged(self, what: str) -> StoreError:
        name, newest = self.feature_name, True
        with suppress(DeltaError, OSError):
            # Those that came later are given as well.
            newest = len(self.table.history(1)) == 1
        way_out = (
            f"restore the file from a copy, or build all of the feature with `mlforge build --features {name} --force`"
            if newest
            else f"`mlforge versions {name}` shows which ones can be, since a vacuum deletes what only old ones need"
        )
        return StoreError(
            f"Version {self.version} of feature {name!r} cannot be read from the table {self.location!r} ({what}): "
            f"{way_out}."
        )

    def _newest(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        if (timestamp := self.record.timestamp) is None:
            return rows
        newest = rows.group_by(self.record.keys).agg(pl.col(timestamp).max())
        return rows.join(newest, on=self.record.index, how="semi")


def _among(rows: pl.LazyFrame, entities: pl.DataFrame | pl.Expr | None, keys: list[str]) -> pl.LazyFrame:
    if entities is None:
        return rows
    if isinstance(entities, pl.Expr):
        return rows.filter(entities)
    return rows.join(entities.lazy(), on=keys, how="semi")
