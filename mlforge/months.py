"""The months by which a table is partitioned: what a row belongs to, and what is replaced as a whole."""

from collections.abc import Collection
from datetime import datetime, timedelta

import polars as pl

from mlforge.span import Span

# The physical partition column: predicates on it are the only ones under which writers of other months do not clash.
MONTH = "mlforge_month"
# A snapshot has no months; its table is partitioned all the same, so that a feature can become one and cease to be.
TIMELESS = "all"


def month_of(instant: datetime) -> str:
    """The month of an instant.

    >>> month_of(datetime(2026, 1, 31))
    '2026-01'
    """
    return f"{instant.year:04}-{instant.month:02}"


def month_key(timestamp: str | None) -> pl.Expr:
    """What the rows of a month have in common, and no others; `month_name` of it is the month.

    It is not the name, since making a text of every row takes longer than all else that is done with them.
    """
    return pl.lit(TIMELESS) if timestamp is None else pl.col(timestamp).dt.truncate("1mo")


def month_name(key: str | datetime) -> str:
    """The month of a `month_key`."""
    return key if isinstance(key, str) else month_of(key)


def month_text(column: str) -> pl.Expr:
    """The months of a column of `month_key`s that are instants.

    >>> pl.select(when=datetime(2026, 1, 1)).select(month_text("when")).item()
    '2026-01'
    """
    return pl.col(column).dt.strftime("%Y-%m")


def by_month(rows: pl.DataFrame, timestamp: str | None) -> dict[str, pl.DataFrame]:
    """The rows of every month in which there are some, in their order.

    Args:
        rows: Any rows.
        timestamp: The column with their time, UTC; None: they have none.
    """
    keyed = rows.with_columns(month_key(timestamp).alias(MONTH))
    parts = keyed.partition_by(MONTH, include_key=False, as_dict=True)
    return {month_name(key): part for (key,), part in parts.items()}


def month_span(months: Collection[str]) -> Span:
    """From the beginning of the first of some months to the end of the last."""
    start, last = (datetime.fromisoformat(f"{month}-01T00:00:00+00:00") for month in (min(months), max(months)))
    return Span(start=start, end=(last + timedelta(days=31)).replace(day=1))
