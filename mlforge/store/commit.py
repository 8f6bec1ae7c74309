"""Commits to a table: the rows of a build become its next version, or, if somebody was faster, nothing does."""

from collections.abc import Collection, Iterator, Mapping

import polars as pl
from arro3.core import RecordBatch, RecordBatchReader, Table
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake import Schema as DeltaSchema
from deltalake.transaction import create_table_with_add_actions

from mlforge import progress
from mlforge.files import Folder
from mlforge.months import MONTH, by_month
from mlforge.rows import Rows
from mlforge.store.record import BuildRecord

# Without it Delta forgets versions after 30 days.
KEEP_HISTORY = {"delta.logRetentionDuration": "interval 36500 days"}
# The version of Delta's protocol for writers that tables of mlforge have, which asks for nothing but rows.
WRITER_VERSION = 2


def properties(record: BuildRecord) -> CommitProperties:
    """What a commit says about itself, and that it is not to be tried again."""
    # With no retries delta-rs never rebases: a commit that others have overtaken fails instead of mixing rows.
    return CommitProperties(custom_metadata=record.to_metadata(), max_commit_retries=0)


def create(address: str, folder: Folder, rows: Rows, record: BuildRecord) -> None:
    """Makes a table of rows.

    Args:
        address: Its location, as delta-rs wants it.
        folder: Its location, as Polars does.
        rows: Its rows.
        record: The commit's metadata.

    Raises:
        DeltaError: There is a table.
        OSError: The location cannot be written.
    """
    options = dict(folder.options) if folder.options else None
    files = rows.placed(folder)
    if files is None:
        write_deltalake(
            address,
            _stream(rows),
            mode="error",
            partition_by=[MONTH],
            configuration=KEEP_HISTORY,
            storage_options=options,
            commit_properties=properties(record),
        )
        return
    create_table_with_add_actions(
        address,
        _schema(rows.schema),
        [file.added() for file in files],
        mode="error",
        partition_by=MONTH,
        configuration=KEEP_HISTORY,
        storage_options=options,
        commit_properties=properties(record),
    )


def replace(table: DeltaTable, folder: Folder, rows: Rows, record: BuildRecord, months: Collection[str] | None) -> None:
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
    plain = table.protocol().min_writer_version <= WRITER_VERSION
    files = rows.placed(folder, months) if plain else None
    if files is None:
        _replace_by_delta(table, rows, record, months)
        return
    table.create_write_transaction(
        [file.added() for file in files],
        "overwrite",
        # Of columns that stay, also what others have noted about them.
        _schema(rows.schema) if months is None else table.schema(),
        MONTH,
        None if months is None else [(MONTH, "in", sorted(months))],
        commit_properties=properties(record),
    )


def _replace_by_delta(table: DeltaTable, rows: Rows, record: BuildRecord, months: Collection[str] | None) -> None:
    """By delta-rs: in a bucket, and where others have given the table constraints or other features that it heeds."""
    named = ", ".join(f"'{month}'" for month in sorted(months or ()))
    write_deltalake(
        table,
        _stream(rows, months),
        mode="overwrite",
        partition_by=[MONTH],
        schema_mode="overwrite" if months is None else None,
        predicate=f"{MONTH} IN ({named})" if months else None,
        commit_properties=properties(record),
    )


def _stream(rows: Rows, months: Collection[str] | None = None) -> RecordBatchReader:
    """The rows of some months (None: all), each with its month, a batch at a time."""
    empty = pl.DataFrame(schema={**rows.schema, MONTH: pl.String})

    def batches() -> Iterator[RecordBatch]:
        for batch in rows.batches():
            for month, part in by_month(batch, rows.timestamp).items():
                if months is None or month in months:
                    named = part.with_columns(pl.lit(month).alias(MONTH)).select(empty.columns)
                    yield from Table.from_arrow(named).to_batches()
                    progress.advance("publishing", part.height)

    return RecordBatchReader.from_batches(Table.from_arrow(empty).schema, batches())


def _schema(columns: Mapping[str, pl.DataType]) -> DeltaSchema:
    return DeltaSchema.from_arrow(pl.Schema([*columns.items(), (MONTH, pl.String)]))
