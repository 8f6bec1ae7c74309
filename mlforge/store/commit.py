"""Commits to a table: the rows of a build become its next version, or, if somebody was faster, nothing does."""

from collections.abc import Collection, Mapping

import polars as pl
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.transaction import create_table_with_add_actions

from mlforge.store.files import write_files
from mlforge.store.months import MONTH, by_month
from mlforge.store.record import BuildRecord

# Without it Delta forgets versions after 30 days.
KEEP_HISTORY = {"delta.logRetentionDuration": "interval 36500 days"}
# The version of Delta's protocol for writers that tables of mlforge have, which asks for nothing but rows.
WRITER_VERSION = 2


def properties(record: BuildRecord) -> CommitProperties:
    """What a commit says about itself, and that it is not to be tried again."""
    # With no retries delta-rs never rebases: a commit that others have overtaken fails instead of mixing rows.
    return CommitProperties(custom_metadata=record.to_metadata(), max_commit_retries=0)


def create(address: str, folder: str, rows: pl.DataFrame, record: BuildRecord, options: dict[str, str] | None) -> None:
    """Makes a table of rows.

    Args:
        address: Its location, as delta-rs wants it.
        folder: Its location, as Polars does.
        rows: Its rows.
        record: The commit's metadata.
        options: Delta's storage options.

    Raises:
        DeltaError: There is a table.
        OSError: The location cannot be written.
    """
    parts = by_month(rows, record.timestamp)
    if "://" in folder:
        write_deltalake(
            address,
            _with_months(rows, parts),
            mode="error",
            partition_by=[MONTH],
            configuration=KEEP_HISTORY,
            storage_options=options,
            commit_properties=properties(record),
        )
        return
    create_table_with_add_actions(
        address,
        _schema(rows),
        write_files(folder, parts),
        mode="error",
        partition_by=MONTH,
        configuration=KEEP_HISTORY,
        storage_options=options,
        commit_properties=properties(record),
    )


def replace(
    table: DeltaTable, folder: str, rows: pl.DataFrame, record: BuildRecord, months: Collection[str] | None
) -> None:
    """Replaces the rows of some months, or all of them, or only the metadata.

    Args:
        table: The table at the version that the rows were made for; delta-rs's own writer moves it on.
        folder: Its location, as Polars wants it.
        rows: Of the months that are replaced all rows, and of others any.
        record: The commit's metadata.
        months: Which ones; None: all.

    Raises:
        CommitFailedError: There is a newer version.
        DeltaError: The table refuses the rows, or cannot be written.
        OSError: The location cannot be written.
    """
    if months is not None and not months:
        table.create_write_transaction([], "append", table.schema(), MONTH, commit_properties=properties(record))
        return
    parts = by_month(rows, record.timestamp)
    new = {month: part for month, part in parts.items() if months is None or month in months}
    if "://" in folder or table.protocol().min_writer_version > WRITER_VERSION:
        _replace_by_delta(table, _with_months(rows, new), record, months)
        return
    table.create_write_transaction(
        [*write_files(folder, new)],
        "overwrite",
        # Of columns that stay, also what others have noted about them.
        _schema(rows) if months is None else table.schema(),
        MONTH,
        None if months is None else [(MONTH, "in", sorted(months))],
        commit_properties=properties(record),
    )


def _replace_by_delta(
    table: DeltaTable, rows: pl.DataFrame, record: BuildRecord, months: Collection[str] | None
) -> None:
    """By delta-rs: in a bucket, and where others have given the table constraints or other features that it heeds."""
    named = ", ".join(f"'{month}'" for month in sorted(months or ()))
    write_deltalake(
        table,
        rows,
        mode="overwrite",
        partition_by=[MONTH],
        schema_mode="overwrite" if months is None else None,
        predicate=f"{MONTH} IN ({named})" if months else None,
        commit_properties=properties(record),
    )


def _with_months(rows: pl.DataFrame, parts: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The rows of some months, each with its month; the columns are those of `rows`."""
    return pl.concat(
        part.with_columns(pl.lit(month).alias(MONTH)) for month, part in [("", rows.clear()), *parts.items()]
    )


def _schema(rows: pl.DataFrame) -> DeltaSchema:
    return DeltaSchema.from_arrow(pl.Schema([*rows.schema.items(), (MONTH, pl.String)]))
