"""Rows in files that no commit names yet, and where a build puts what does not fit into memory."""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import polars as pl

from mlforge.files import File, Folder, file_name
from mlforge.months import MONTH, by_month
from mlforge.rows import Rows, contents, row_hash, saved


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
        """What is in one file after the other."""
        for file in self.stage.files:
            yield pl.read_parquet(f"{self.stage.folder.path}/{file.name}", hive_partitioning=False)

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
            self.stage.copy(rows.select(list(self.schema)), month)
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
        """Writes rows, the first or further ones, to a file a month."""
        parts = by_month(rows, self.timestamp)
        for file in saved(self.folder, parts):
            hashed = parts[file.month].select(row_hash(rows.columns).sum())
            self.files.append(replace(file, content=int(hashed.item())))

    def copy(self, rows: pl.LazyFrame, month: str) -> None:
        """Writes rows of one month to a file, without holding them in memory; no rows, no file."""
        name = file_name(month)
        size = self.folder.write(rows, name)
        if self.folder.is_local:
            rows = pl.scan_parquet(f"{self.folder.path}/{name}", glob=False, hive_partitioning=False)
        found = contents(rows, None).collect(engine="streaming")
        if found.is_empty():
            self.folder.delete(name)
        else:
            _, content, count = found.row(0)
            self.files.append(File(name=name, month=month, size=size, rows=count, content=content))

    def copied(self, rows: pl.LazyFrame) -> str:
        """Where there is a copy of rows now, which is never published."""
        self._others.append(name := f"{uuid4()}.parquet")
        self.folder.write(rows, name)
        return f"{self.folder.path}/{name}"

    def release(self, months: Collection[str] | None) -> list[File]:
        """Lets go of the files of some months (None: all), and deletes the others."""
        # Whatever becomes of the commit: where its answer was lost, it may name them.
        released = [file for file in self.files if months is None or file.month in months]
        others, self.files = [file for file in self.files if file not in released], []
        for file in others:
            self.folder.delete(file.name)
        return released

    def discard(self) -> None:
        """Deletes what is there and was not released."""
        names = [*(file.name for file in self.files), *self._others]
        self.files, self._others = [], []
        for name in names:
            self.folder.delete(name)


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
        self.shared = Stage(table, timestamp)
        self.local = self.shared if table.is_local else Stage(Folder(path=f"{scratch}/rows"), timestamp)

    @property
    def scratch(self) -> Path:
        """A local folder."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        return self._scratch

    def clear(self) -> None:
        """Takes away what is there and was not published."""
        self.shared.discard()
        self.local.discard()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def __enter__(self) -> Self:
        # Also what a build has left that was killed.
        self.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.clear()
