"""Training sets: labels with the feature values that held at their times."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
from deltalake.exceptions import DeltaError

from mlforge.duration import MICROSECONDS
from mlforge.errors import DataError, RequestError, did_you_mean, one_line
from mlforge.features import RESERVED
from mlforge.instant import INSTANT
from mlforge.online.keys import key_text_expr
from mlforge.references import Schema, named, selected
from mlforge.source import FileSource, hidden, without_credentials
from mlforge.store.snapshot import Snapshot

_ROW, _TIME = f"{RESERVED}row", f"{RESERVED}time"
# To look for the entities of the labels first costs less than to sort all rows where there are so many to a label.
ROWS_TO_A_LABEL = 50
# Two thousand years, in microseconds.
FAR = 730_500 * MICROSECONDS["d"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What is taken from the history of a feature.

    Attributes:
        snapshot: The history, at a version.
        columns: Which of its columns; None: all.
    """

    snapshot: Snapshot
    columns: Sequence[str] | None


def as_labels(
    entity_df: pl.DataFrame | pl.LazyFrame | str | Path, tables: Sequence[Table], *, lazy: bool
) -> pl.DataFrame | pl.LazyFrame:
    """Labels as a frame, whatever they are given as.

    Args:
        entity_df: A frame, a lazy one, or the path of one.
        tables: The features that they are for: keys that are text there are text in a CSV file as well.
        lazy: Whether to leave those unread that are not read yet.

    Raises:
        RequestError: They are neither a frame nor a path.
        DataError: The path leads nowhere, or they cannot be read.
    """
    if isinstance(entity_df, pl.DataFrame):
        return entity_df
    if not isinstance(entity_df, pl.LazyFrame | str | Path):
        kind = type(entity_df)
        raise RequestError(
            f"The labels are of the type {kind.__module__}.{kind.__qualname__}: write a polars.DataFrame, as in "
            f"pl.from_pandas(labels) or pl.DataFrame(labels), a LazyFrame or a path."
        )
    where = "" if isinstance(entity_df, pl.LazyFrame) else f" in {without_credentials(str(entity_df))!r}"
    try:
        texts = {name for table in tables for name, dtype in table.snapshot.key_schema.items() if dtype == pl.String}
        frame = entity_df if isinstance(entity_df, pl.LazyFrame) else FileSource(entity_df, texts=texts).scan()
        # A file that is none is noticed here.
        frame.collect_schema()
        return frame if lazy else frame.collect(engine="streaming")
    except DataError as error:
        # A path of labels is no source.
        raise DataError(f"The labels cannot be read: {str(error).replace('source', 'path', 1)}") from None
    except (OSError, DeltaError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        # Hidden first: what is cut off in the middle is no longer found.
        text = str(error) if isinstance(entity_df, pl.LazyFrame) else hidden(str(error), FileSource(entity_df))
        why = one_line(text)
        raise DataError(f"The labels{where} cannot be read: {why}") from None


def training_frame(
    tables: Sequence[Table],
    labels: pl.DataFrame | pl.LazyFrame,
    *,
    timestamp: str | None,
    as_of: datetime,
    prefix: bool = False,
) -> pl.LazyFrame:
    """The labels with, for each, the feature values that held at its time.

    Args:
        tables: What is joined.
        labels: One row a label: the features' keys, the timestamp, and whatever else. Keys match by their text, so
            that 123 and "123" are one entity whatever the dtypes.
        timestamp: The column with the labels' times; None: every label gets the value at `as_of`.
        as_of: What is used where there is no timestamp.
        prefix: Whether feature columns begin with the feature's name, as `user_spend__amount__sum__7d`.

    Returns:
        Every label, in its order and with all its columns, and the feature columns: null for an entity that is not
        visible at that time, or where a key or the time is null. Nothing is read before it is collected.

    Raises:
        RequestError: A column is missing, clashes, has a reserved name, or a dtype that cannot be a key or a time.
    """
    schema = labels.collect_schema()
    if reserved := [name for name in schema if name.startswith(RESERVED)]:
        raise RequestError(
            f"The labels have a column {reserved[0]!r}: rename it, names with {RESERVED!r} are reserved."
        )
    if timestamp is not None and timestamp not in schema:
        raise RequestError(f"The labels have no column {timestamp!r}{did_you_mean(timestamp, schema)}")
    count = len(labels) if isinstance(labels, pl.DataFrame) else None
    rows = labels.lazy().with_row_index(_ROW).with_columns(_label_times(schema, timestamp, as_of).alias(_TIME))
    if count is None:
        # Made once, since rows may come in another order each time, and would get the values of each other.
        rows = rows.cache()
    result, taken = rows, set(schema)
    for table in tables:
        found, columns = _found(table, rows, schema, count)
        names = named(table.snapshot.feature_name, columns, prefix=prefix)
        if clash := sorted(taken & set(names.values())):
            raise RequestError(
                f"Column {clash[0]!r} of feature {table.snapshot.feature_name!r} is in the labels or another feature "
                f"already: say prefix=True, or rename it."
            )
        taken |= set(names.values())
        found = found.select(_ROW, *(pl.col(column).alias(alias) for column, alias in names.items()))
        result = result.join(found, on=_ROW, how="left", maintain_order="left")
    return result.drop(_ROW, _TIME)


def collected(frame: pl.LazyFrame, tables: Sequence[Table]) -> pl.DataFrame:
    """What `training_frame` has made, collected.

    Raises:
        StoreError: A table is damaged, or the files of its version were vacuumed.
    """
    try:
        return frame.collect(engine="streaming")
    except (OSError, pl.exceptions.ComputeError, pl.exceptions.PanicException):
        for table in tables:
            # Raises, if it is the one: reads all of it and holds nothing.
            table.snapshot.collect(table.snapshot.scan().select(pl.all().null_count()))
        raise


def _found(table: Table, labels: pl.LazyFrame, schema: pl.Schema, count: int | None) -> tuple[pl.LazyFrame, Schema]:
    """For every label without nulls its row and its values; and which columns these are.

    Args:
        table: What is looked up.
        labels: The labels, with their rows and times.
        schema: The schema in which they were given.
        count: How many there are, where that is known.
    """
    snapshot = table.snapshot
    name, keys = snapshot.feature_name, snapshot.record.keys
    columns = selected(name, snapshot.value_schema, table.columns)
    if missing := [key for key in keys if key not in schema]:
        raise RequestError(f"The labels have no column {missing[0]!r}, which is a key of feature {name!r}.")
    pairs = [_same_keys(key, schema[key], snapshot.schema[key], number) for number, key in enumerate(keys)]
    by = [f"{RESERVED}key{number}" for number in range(len(keys))]
    asked = labels.select(_ROW, _TIME, *(label for label, _ in pairs)).drop_nulls()
    values = snapshot.scan().with_columns(*(stored for _, stored in pairs))
    if snapshot.record.timestamp is None:
        return asked.join(values.select(*by, *columns), on=by, how="left"), columns
    values = values.select(*by, *columns, pl.col(snapshot.record.timestamp).alias(_TIME))
    if count is not None and count * ROWS_TO_A_LABEL < snapshot.record.rows:
        values = values.join(asked.select(by).unique(), on=by, how="semi")
    # A row that is as old as it may be at most holds no longer.
    longest = None if snapshot.record.max_age is None else timedelta(microseconds=snapshot.record.max_age - 1)
    asked, values = asked.sort(_TIME), values.sort(_TIME)
    return asked.join_asof(values, on=_TIME, by=by, tolerance=longest, check_sortedness=False), columns


def _label_times(schema: pl.Schema, timestamp: str | None, as_of: datetime) -> pl.Expr:
    if timestamp is None:
        return pl.lit(as_of, INSTANT)
    dtype = schema[timestamp]
    if not isinstance(dtype, pl.Date | pl.Datetime):
        raise RequestError(f"The labels' column {timestamp!r} is {dtype}, not a datetime or date: convert it first.")
    # As integers: naive instants are UTC, and what is so far out that Polars panics is before or after all events.
    number = pl.col(timestamp).to_physical().cast(pl.Int64)
    if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ns":
        return (number // 1000).cast(INSTANT)
    unit = {"ms": 1000, "us": 1}[dtype.time_unit] if isinstance(dtype, pl.Datetime) else MICROSECONDS["d"]
    return (number.clip(-FAR // unit, FAR // unit) * unit).cast(INSTANT)


def _same_keys(key: str, label: pl.DataType, stored: pl.DataType, number: int) -> tuple[pl.Expr, pl.Expr]:
    """A key of the labels and of the table in forms that are equal where their texts are."""
    alias = f"{RESERVED}key{number}"
    if label in (stored, pl.Null) or (label.is_integer() and stored == pl.Int64):
        return pl.col(key).cast(stored, strict=False).alias(alias), pl.col(key).alias(alias)
    return key_text_expr(key, label).alias(alias), key_text_expr(key, stored).alias(alias)
