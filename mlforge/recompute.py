"""The value of one entity at an instant once more, from its own rows alone and in plain Python.

It shares no code with the windows that a build computes, and its arithmetic is exact: what agrees with it is right.
"""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import polars as pl

from mlforge.duration import microseconds, origin
from mlforge.engines.shape import times
from mlforge.errors import DataError
from mlforge.features import Feature
from mlforge.instant import EPOCH

# How many rows before and after the one that holds are kept.
NEIGHBOURS = 3
_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - EPOCH) // _MICROSECOND
_EXACT = {
    "mean": statistics.mean,
    "median": statistics.median,
    "var": statistics.variance,
    "std": statistics.stdev,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The window of a column: it holds the events with `start <= time < end`, of which there are so many."""

    length: str
    start: datetime
    end: datetime
    events: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recomputed:
    """What follows from the source as it is today.

    Attributes:
        values: The values by column; None where the entity has none at the instant.
        boundary: Where the windows end, which is at or before the instant; None without windows.
        windows: The window of each column; empty without windows.
        rows: What the function returns for the entity, in the order in which it counts: the events in the longest
            window; without windows the rows around the instant, those that are known later last; of a snapshot all.
        holds: Which of these rows holds at the instant, counted from 0; None with windows, or where none does.
    """

    values: Mapping[str, Any] | None
    boundary: datetime | None = None
    windows: Mapping[str, Window] = field(default_factory=dict)
    rows: pl.DataFrame
    holds: int | None = None


def recompute(feature: Feature, rows: pl.DataFrame, at: datetime) -> Recomputed:
    """The value of an entity at an instant.

    Args:
        feature: The feature.
        rows: What its function returns for the entity, as an engine loads it.
        at: The instant, UTC-aware.

    Raises:
        DataError: An integer sum does not fit Int64.
    """
    if feature.timestamp is None:
        # Two rows are none: a build refuses them.
        return _held(feature, rows, 0 if len(rows) == 1 else None)
    rows = rows.select(*feature.index, pl.exclude(feature.index))
    ties = [name for name in rows.columns if name not in (*feature.index, feature.available_at)]
    known = pl.max_horizontal(times(feature))
    if feature.metrics:
        return _windowed(feature, rows.sort(feature.timestamp, known, *ties), at)
    past = rows.filter(known <= at).sort(feature.timestamp, known, *ties)
    later = rows.filter(known > at).sort(known, feature.timestamp, *ties)
    around = pl.concat([past.tail(NEIGHBOURS + 1), later.head(NEIGHBOURS)])
    holds = around.height - min(later.height, NEIGHBOURS) - 1 if past.height else None
    if holds is not None and feature.max_age is not None:
        age = at - around[feature.timestamp][holds]
        holds = holds if age // _MICROSECOND < microseconds(feature.max_age) else None
    return _held(feature, around, holds)


def _held(feature: Feature, rows: pl.DataFrame, holds: int | None) -> Recomputed:
    columns = rows.drop([*feature.keys, *times(feature)])
    values = None if holds is None else columns.row(holds, named=True)
    return Recomputed(values=values, rows=rows, holds=holds)


def _windowed(feature: Feature, events: pl.DataFrame, at: datetime) -> Recomputed:
    lengths = {output.window: microseconds(output.window) for output in feature.outputs}
    first, step = (origin(feature.interval), microseconds(feature.interval)) if feature.interval else (0, 1)
    moment = (at - EPOCH) // _MICROSECOND
    end = moment - (moment - first) % step
    past = events.filter(pl.col(name).to_physical() < end for name in times(feature))
    time = pl.col(str(feature.timestamp)).to_physical()
    inside = {window: past.filter(time >= end - length) for window, length in lengths.items()}
    values: dict[str, Any] = {}
    windows: dict[str, Window] = {}
    for output in feature.outputs:
        held, start = inside[output.window], end - lengths[output.window]
        column = held[output.column]
        value = aggregate(output.aggregation, column.drop_nulls().to_list(), column.dtype)
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise DataError(
                f"Feature {feature.name!r}: {output.name}: the sum {value} does not fit Int64: cast column "
                f"{output.column!r} to Float64 in the feature's function."
            )
        values[output.name] = value
        windows[output.name] = Window(length=output.window, start=_instant(start), end=_instant(end), events=len(held))
    return Recomputed(
        values=None if past.is_empty() else values,
        boundary=_instant(end),
        windows=windows,
        rows=inside[max(lengths, key=lengths.__getitem__)],
    )


def aggregate(name: str, values: list[Any], dtype: pl.DataType) -> Any:
    """An aggregate of values that are not null, in the order of their events.

    >>> aggregate("sum", [1e16, 1.0, -1e16], pl.Float64())
    1.0
    >>> aggregate("std", [7], pl.Int64()) is None
    True
    """
    try:
        return _aggregate(name, values, dtype)
    except OverflowError:
        # It is beyond the largest float, and a build stores what is not finite as null.
        return None


def _aggregate(name: str, values: list[Any], dtype: pl.DataType) -> Any:
    if name == "count":
        return len(values)
    if name == "n_unique":
        return len(set(values))
    if name == "sum":
        return _sum(values, dtype)
    if not values or (len(values) == 1 and name in ("std", "var")):
        return None
    if name in _EXACT:
        return float(_EXACT[name]([Fraction(value) for value in values]))
    return {"min": min(values), "max": max(values), "first": values[0], "last": values[-1]}[name]


def _sum(values: list[Any], dtype: pl.DataType) -> Any:
    if dtype.is_float():
        total = float(sum(map(Fraction, values), Fraction()))
        rounded = pl.Series([total], dtype=dtype)[0]
        return rounded if math.isfinite(rounded) else None
    with localcontext(prec=100):
        return sum(values, Decimal(0).scaleb(-dtype.scale) if isinstance(dtype, pl.Decimal) else 0)


def _instant(since_epoch: int) -> datetime:
    # A window may begin before the year 1, where no event is.
    return EPOCH + timedelta(microseconds=max(since_epoch, _FIRST))
