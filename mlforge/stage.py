"""Rows in files that no commit names yet, and where a build puts what does not fit into memory."""

import fcntl
import shutil
import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Self
from uuid import uuid4

import polars as pl

from mlforge.errors import StoreError
from mlforge.files import File, Folder, cause, file_name, in_batches
from mlforge.months import MONTH, by_month
from mlforge.rows import Rows, contents, row_hash, saved

LOCK = "lock"
# Before each attempt to delete a folder: where Polars was interrupted, its threads may still put a file into it.
PAUSES = (0, 0.05, 0.1, 0.2, 0.4, 0.8)


class RowsInFiles(Rows):
    """Rows in files of a stage."""

    def __init__(self, stage: "Stage", schema: Mapping[str, pl.DataType]) -> None:
        super().__init__(schema, stage.timestamp)
        self.stage = stage

    @property
    def height(self) -> int:
        """How many there are."""
        return sum(file.rows for file in self.stage.files)

    def batches(self) -> Iterator[pl.DataFrame]:
        """Some rows of one file after the other."""
        for file in self.stage.files:
            yield from in_batches(self.stage.folder.scan(file.name))

    def contents(self) -> pl.DataFrame:
        """As it was told when the files were written."""
        found = pl.DataFrame(
            [(file.month, file.content, file.rows) for file in self.stage.files],
            schema={MONTH: pl.String, "hash": pl.UInt64, "rows": pl.UInt32},
            orient="row",
        )
        return found.group_by(MONTH).agg(pl.col("hash", "rows").sum())

    def beside(self, others: Mapping[str, pl.LazyFrame], index: Sequence[str]) -> "RowsInFiles":
        """With a further file for every month."""
        for month, rows in others.items():
            self.stage.add_month(rows.select(list(self.schema)), month)
        return self

    def placed(self, folder: Folder, months: Collection[str] | None = None) -> list[File] | None:
        """The files where they are, if they are there; those of other months are taken away."""
        return self.stage.release(months) if self.stage.folder == folder else None


class Stage:
    """Files that are written before it is known whether they are published.

    Args:
        folder: Where.
        timestamp: The column with the rows' time, UTC; None: they have none.

    Attributes:
        files: Those that are there and not released.
    """

    def __init__(self, folder: Folder, timestamp: str | None) -> None:
        self.folder = folder
        self.timestamp = timestamp
        self.files: list[File] = []
        self._others: list[str] = []

    def write(self, rows: pl.DataFrame) -> None:
        """Writes rows, the first or further ones, to a file a month.

        Raises:
            StoreError: They cannot be written; none are.
        """
        parts = by_month(rows, self.timestamp)
        with self._writing():
            for file in saved(self.folder, parts):
                hashed = parts[file.month].select(row_hash(rows.columns).sum())
                self.files.append(replace(file, content=int(hashed.item())))

    def add_month(self, rows: pl.LazyFrame, month: str) -> None:
        """Writes rows of one month to a file, without holding them in memory; no rows, no file.

        Raises:
            StoreError: As for `write`.
        """
        name = file_name(month)
        with self._writing():
            size = self.folder.write(rows, name)
        found = contents(self.folder.scan(name), None).collect(engine="streaming")
        if found.is_empty():
            self.folder.delete(name)
        else:
            _, content, count = found.row(0)
            self.files.append(File(name=name, month=month, size=size, rows=count, content=content))

    def put_aside(self, rows: pl.LazyFrame) -> str:
        """Writes rows to a file that is never published; its path or URL."""
        self._others.append(name := f"{uuid4()}.parquet")
        self.folder.write(rows, name)
        return f"{self.folder.path}/{name}"

    def release(self, months: Collection[str] | None) -> list[File]:
        """Lets go of the files of some months (None: all), and deletes the others."""
        # Whatever becomes of the commit: where its answer was lost, it may name them.
        released = [file for file in self.files if months is None or file.month in months]
        self.files = [] if months is None else [file for file in self.files if file.month not in months]
        self.discard()
        return released

    def discard(self) -> None:
        """Deletes what is there and was not released."""
        names = [*(file.name for file in self.files), *self._others]
        self.files, self._others = [], []
        for name in names:
            # What cannot be deleted is nothing to the table, and goes at a vacuum.
            with suppress(OSError):
                self.folder.delete(name)

    @contextmanager
    def _writing(self) -> Generator[None]:
        try:
            yield
        except (OSError, pl.exceptions.PolarsError) as error:
            why = cause(error, self.folder.options).rstrip(".")
            raise StoreError(f"{self.folder.path!r} cannot be written: {why}.") from None


class Workplace:
    """Where one build may put what does not fit into memory; a context manager.

    What was not published is gone at its end.

    Args:
        scratch: A local folder that nobody else uses; it is made when it is asked for, and deleted.
        table: Where the files of the table are.
        timestamp: The column with the rows' time, UTC; None: they have none.

    Attributes:
        shared: A stage where the table is, which other machines reach if that is in a bucket or on a shared disk.
        local: A stage that this machine writes: the same one where the table is in a folder.
    """

    def __init__(self, scratch: Path, table: Folder, timestamp: str | None) -> None:
        self._scratch = scratch
        self._lock: IO[str] | None = None
        self.shared = Stage(table, timestamp)
        self.local = self.shared if table.is_local else Stage(Folder(path=f"{scratch}/rows"), timestamp)

    @property
    def scratch(self) -> Path:
        """A local folder."""
        if self._lock is None:
            self._scratch.mkdir(parents=True, exist_ok=True)
            # What others see that it is in use.
            self._lock = (self._scratch / LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self._scratch

    def clear(self) -> None:
        """Takes away what is there and was not published."""
        self.shared.discard()
        self.local.discard()
        for pause in PAUSES:
            time.sleep(pause)
            shutil.rmtree(self._scratch, ignore_errors=True)
            if not self._scratch.exists():
                break
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()


def clear_left(scratch: Path) -> None:
    """Takes away a scratch folder that nobody uses any more: its lock ends with its process."""
    try:
        lock = (scratch / LOCK).open("r+")
    except OSError:
        # It is just made, or just deleted.
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        shutil.rmtree(scratch, ignore_errors=True)
