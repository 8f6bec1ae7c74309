"""The Parquet files of a table, which are nothing to its readers before a commit names them."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
from deltalake.transaction import AddAction

from mlforge.errors import one_line
from mlforge.months import MONTH

# The options whose values may be shown; all others may be secret.
SHOWN = re.compile(r"region|endpoint|url|allow|account_name|bucket|timeout|retries", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Where the files of a table are.

    Attributes:
        path: A local folder, or the URL of one in a bucket.
        options: Delta's storage options, for a bucket.
    """

    path: str
    options: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"Folder({self.path!r})"

    @property
    def is_local(self) -> bool:
        """Whether it is not in a bucket."""
        return "://" not in self.path

    def write(self, rows: pl.LazyFrame, name: str) -> int:
        """Writes rows to a file, without holding them in memory; in a folder all of them or no file.

        Returns:
            How many bytes it has.

        Raises:
            OSError: It cannot be written.
        """
        if not self.is_local:
            self._sink(rows, f"{self.path}/{name}")
            # Polars does not say it.
            return int(self._bucket().get_file_info(name).size)
        file = Path(self.path, name)
        try:
            # By Polars, which takes a third of the time that delta-rs does.
            self._sink(rows, file)
            return file.stat().st_size
        except BaseException:
            file.unlink(missing_ok=True)
            raise

    def scan(self, name: str) -> pl.LazyFrame:
        """The rows of a file."""
        return scan(f"{self.path}/{name}", self._storage_options)

    def delete(self, name: str) -> None:
        """Takes a file away, if it is there."""
        if self.is_local:
            Path(self.path, name).unlink(missing_ok=True)
        else:
            self._bucket().delete_file(name)

    def _sink(self, rows: pl.LazyFrame, file: str | Path) -> None:
        rows.sink_parquet(file, compression="snappy", mkdir=self.is_local, storage_options=self._storage_options)

    @property
    def _storage_options(self) -> dict[str, str] | None:
        return dict(self.options) if self.options else None

    def _bucket(self) -> Any:
        # Needs PyArrow, as whoever writes there has: the tasks of Spark.
        from deltalake.fs import DeltaStorageHandler
        from pyarrow.fs import PyFileSystem

        return PyFileSystem(DeltaStorageHandler(self.path, dict(self.options or {})))


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file of some rows of one month.

    Attributes:
        name: Below the folder.
        month: As `months` names it.
        size: In bytes.
        rows: How many rows.
        content: The sum of the hashes of the rows, see `rows.row_hash`.
    """

    name: str
    month: str
    size: int
    rows: int
    content: int = 0

    def added(self) -> AddAction:
        """What a commit says of it."""
        return AddAction(
            path=self.name,
            size=self.size,
            partition_values={MONTH: self.month},
            modification_time=round(time.time() * 1000),
            data_change=True,
            stats=json.dumps({"numRecords": self.rows}),
        )


def file_name(month: str) -> str:
    """A name that no other file has."""
    return f"{MONTH}={month}/{uuid4()}.parquet"


def scan(file: str, options: Mapping[str, str] | None = None) -> pl.LazyFrame:
    """The rows of a Parquet file, whose name is no pattern, and says nothing of what is in it.

    Args:
        file: Its path or URL.
        options: Delta's storage options.
    """
    return pl.scan_parquet(file, glob=False, hive_partitioning=False, storage_options=dict(options or {}) or None)


def in_batches(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """The rows, some at a time, for whoever only hands them on."""
    return iter(rows.collect_batches(chunk_size=200_000))


def cause(error: Exception, options: Mapping[str, str] | None) -> str:
    """What a library says of a folder, in one line and without the options that may be secret."""
    # The cause comes last, in a tree with colours; of what a provider answers, it is its message.
    text = re.sub(r"\x1b\[\d+m", "", str(error))
    answer = re.search("<Message>([^<]*)</Message>", text)
    text = answer[1] if answer else text.strip().rpartition("\u21b3")[2].strip()
    for name, value in (options or {}).items():
        if value and not SHOWN.search(name):
            text = text.replace(value, "***")
    return one_line(text)
