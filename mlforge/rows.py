"""The rows of a history before they are published: wherever they are, and those in memory."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence

import polars as pl

from mlforge import progress
from mlforge.files import File, Folder, file_name
from mlforge.months import MONTH, by_month, month_key, month_text


class Rows(ABC):
    """Keys, timestamp and feature columns; no two rows have the same keys and timestamp.

    Args:
        schema: The columns and their dtypes.
        timestamp: The column with their time, UTC; None: they have none.
    """

    def __init__(self, schema: Mapping[str, pl.DataType], timestamp: str | None) -> None:
        self.schema = schema
        self.timestamp = timestamp

    @property
    @abstractmethod
    def height(self) -> int:
        """How many there are."""

    @abstractmethod
    def batches(self) -> Iterator[pl.DataFrame]:
        """All of them, some at a time."""

    @abstractmethod
    def contents(self) -> pl.DataFrame:
        """Of every month in which there are some how many (`rows`) and the sum of their hashes (`hash`)."""

    @abstractmethod
    def beside(self, others: Mapping[str, pl.LazyFrame], index: Sequence[str]) -> "Rows":
        """With further rows.

        Args:
            others: By month.
            index: What tells rows apart.
        """

    @abstractmethod
    def placed(self, folder: Folder, months: Collection[str] | None = None) -> list[File] | None:
        """Makes them files of a folder, which a commit may name from now on; all or none.

        Args:
            folder: Where.
            months: Only the rows of these; None: all.

        Returns:
            None where they cannot be: in a bucket in which they are not yet.

        Raises:
            OSError: A file cannot be written.
        """


class RowsInMemory(Rows):
    """Rows in a frame, sorted by keys and timestamp."""

    def __init__(self, frame: pl.DataFrame, timestamp: str | None) -> None:
        super().__init__(frame.schema, timestamp)
        self.frame = frame

    @property
    def height(self) -> int:
        """How many there are."""
        return self.frame.height

    def batches(self) -> Iterator[pl.DataFrame]:
        """The frame."""
        yield self.frame

    def contents(self) -> pl.DataFrame:
        """As the class says, all in one pass."""
        return contents(self.frame.lazy(), self.timestamp).collect(engine="streaming")

    def beside(self, others: Mapping[str, pl.LazyFrame], index: Sequence[str]) -> "RowsInMemory":
        """In one frame with the others, sorted."""
        kept = [rows.select(self.frame.columns) for rows in others.values()]
        found = pl.concat([self.frame.clear().lazy(), *kept]).collect(engine="streaming")
        return RowsInMemory(pl.concat([found, self.frame]).sort(index), self.timestamp)

    def placed(self, folder: Folder, months: Collection[str] | None = None) -> list[File] | None:
        """One file a month."""
        if not folder.is_local:
            return None
        parts = by_month(self.frame, self.timestamp)
        wanted = {month: part for month, part in parts.items() if months is None or month in months}
        return saved(folder, wanted)


def contents(rows: pl.LazyFrame, timestamp: str | None) -> pl.LazyFrame:
    """Of every month in which there are rows how many (`rows`) and the sum of their hashes (`hash`)."""
    columns = rows.collect_schema().names()
    keyed = rows.group_by(month_key(timestamp).alias(MONTH))
    found = keyed.agg(row_hash(columns).sum().alias("hash"), pl.len().alias("rows"))
    return found if timestamp is None else found.with_columns(month_text(MONTH))


def row_hash(columns: Sequence[str]) -> pl.Expr:
    """A 64-bit hash of a row, the same for equal rows in processes with one version of Polars; it is never stored."""
    return pl.struct(sorted(columns)).hash()


def saved(folder: Folder, months: Mapping[str, pl.DataFrame]) -> list[File]:
    """The rows of every month in a file of its own: all of them, or none."""
    found: list[File] = []
    try:
        for month, rows in months.items():
            name = file_name(month)
            size = folder.write(rows.lazy(), name)
            found.append(File(name=name, month=month, size=size, rows=rows.height))
            progress.advance("publishing", rows.height)
    except BaseException:
        for file in found:
            folder.delete(file.name)
        raise
    return found
