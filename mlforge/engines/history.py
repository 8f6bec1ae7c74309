"""From what a feature's function returned to its history, on whichever machine and for whichever entities."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from mlforge import windows
from mlforge.engines import shape
from mlforge.errors import DataError
from mlforge.features import RESERVED, Feature
from mlforge.instant import INSTANT
from mlforge.span import Span, touched
from mlforge.storable import storable


def settled(feature: Feature, frame: pl.DataFrame) -> pl.DataFrame:
    """The events as they count, without rows that have no key or no timestamp.

    Args:
        feature: The feature.
        frame: What its function returned, of which the columns are known to be right.

    Returns:
        Keys and timestamp without nulls, columns in storable dtypes, without what is there for checks only.

    Raises:
        DataError: A dtype or a value is none that can be stored, or an event is in a year that cannot be meant.
    """
    present = storable(frame.drop(shape.only_checked(feature, frame.schema)), feature=feature.name)
    shape.require_dtypes(feature, present.schema)
    present = present.drop_nulls([*feature.keys, *shape.times(feature)])
    if feature.timestamp:
        shape.require_years(feature, present)
        present = present.with_columns(pl.col(shape.times(feature)).cast(INSTANT))
    return present


def history(feature: Feature, events: pl.DataFrame, part: Span | None = None) -> pl.DataFrame:
    """The rows that follow from the events, sorted by keys and timestamp; of windows, the change points.

    Args:
        feature: The feature.
        events: What `settled` gives, of all entities or of some.
        part: Only the rows that these events can change; None: all.

    Raises:
        DataError: Two rows are of one entity of a snapshot, an aggregation does not fit its column, or a sum its dtype.
    """
    rows = _rows(feature, events)
    if part is None or feature.timestamp is None:
        return rows
    return rows.filter(touched(feature, part).holds(feature.timestamp))


def _rows(feature: Feature, events: pl.DataFrame) -> pl.DataFrame:
    if feature.timestamp is None:
        shape.require_unique_keys(feature, events)
        return events.select(*feature.keys, pl.exclude(feature.keys)).sort(feature.keys)
    if feature.metrics:
        return _change_points(feature, feature.timestamp, events)
    rest = [name for name in events.columns if name not in (*feature.index, feature.available_at)]
    if feature.available_at is not None:
        events = _known_rows(feature, feature.timestamp, events, rest)
    # Of rows at the same instant the last holds; by value, since the order of a source does not survive a shuffle.
    return _last(events.select(*feature.index, *rest).sort(*feature.index, *rest), feature.index)


def _change_points(feature: Feature, timestamp: str, events: pl.DataFrame) -> pl.DataFrame:
    known: dict[str, Any] = {
        "keys": feature.keys,
        "timestamp": timestamp,
        "interval": feature.interval,
        "metrics": feature.metrics,
    }
    try:
        if feature.available_at is None:
            return windows.change_points(events, **known)
        return windows.late_change_points(events, available_at=feature.available_at, **known)
    except DataError as error:
        raise DataError(f"Feature {feature.name!r}: {error}") from None


def _known_rows(feature: Feature, timestamp: str, rows: pl.DataFrame, rest: list[str]) -> pl.DataFrame:
    """The rows from when on they are known, without those that were older then than one that was known before."""
    known = f"{RESERVED}known"
    from_then = pl.max_horizontal(timestamp, feature.available_at).alias(known)
    ordered = rows.with_columns(from_then).sort(*feature.keys, known, timestamp, *rest)
    newest = pl.col(timestamp) == pl.col(timestamp).cum_max().over(feature.keys)
    return _last(ordered.filter(newest), [*feature.keys, known]).with_columns(pl.col(known).alias(timestamp))


def _last(ordered: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Of rows that are sorted by some columns, of which none is null, the last one of each group of these."""
    # By their neighbours: `unique` takes twice as long as the sort.
    return ordered.filter(pl.any_horizontal(pl.col(name) != pl.col(name).shift(-1) for name in by).fill_null(True))
