"""The Parquet files of a table, which are nothing to its readers before a commit names them."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import polars as pl
from deltalake.transaction import AddAction

from mlforge.store.months import MONTH


def write_files(folder: str, months: Mapping[str, pl.DataFrame]) -> list[AddAction]:
    """Writes the rows of every month to a file of its own: all of them, or none.

    Args:
        folder: Where the table is; a local one.
        months: The rows by month.

    Returns:
        What a commit adds.

    Raises:
        OSError: A file cannot be written.
    """
    added: list[AddAction] = []
    for month, rows in months.items():
        path = f"{MONTH}={month}/{uuid4()}.parquet"
        file = Path(folder, path)
        try:
            # By Polars, which takes a third of the time that delta-rs does.
            rows.write_parquet(file, compression="snappy", mkdir=True)
            size = file.stat().st_size
        except BaseException:
            for written in (path, *(action.path for action in added)):
                Path(folder, written).unlink(missing_ok=True)
            raise
        added.append(
            AddAction(
                path=path,
                size=size,
                partition_values={MONTH: month},
                modification_time=round(time.time() * 1000),
                data_change=True,
                stats=json.dumps({"numRecords": rows.height}),
            )
        )
    return added
