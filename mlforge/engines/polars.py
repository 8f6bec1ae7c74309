"""The engine that runs features in Polars on this machine."""

import polars as pl

from mlforge import checks, windows
from mlforge.engines import base
from mlforge.engines.base import Computed
from mlforge.errors import DataError, DefinitionError
from mlforge.features import Feature
from mlforge.instant import INSTANT
from mlforge.storable import storable


def compute(feature: Feature) -> Computed:
    """Runs a feature's function over its source, its checks over the result, and its windows over the events.

    Raises:
        DefinitionError: The result is no frame or does not have the columns that the definition names.
        DataError: The source is missing or empty, or the data is not what the definition says.
    """
    frame = _run(feature)
    base.require_columns(feature, frame.schema)
    if frame.is_empty():
        raise DataError(
            f"Feature {feature.name!r} has no data: the function returned no rows (source: {feature.source!r})."
        )
    results = checks.run(feature.checks, frame, feature=feature.name)
    present = storable(frame, feature=feature.name)
    base.require_dtypes(feature, present.schema)
    present = present.drop_nulls(feature.index)
    left_out = len(frame) - len(present)
    del frame
    if present.is_empty():
        raise DataError(
            f"Feature {feature.name!r} has no data: each of its {left_out} rows lacks one of {feature.index} "
            f"(source: {feature.source!r})."
        )
    if feature.timestamp:
        base.require_years(feature, present)
        present = present.with_columns(pl.col(feature.timestamp).cast(INSTANT))
    return Computed(rows=_history(feature, present), left_out=left_out, checks=results)


def _run(feature: Feature) -> pl.DataFrame:
    """What the function returns, collected; what it raises passes through with the feature's name in a note."""
    source = feature.source.scan()
    if not isinstance(source, pl.LazyFrame):
        raise DefinitionError(f"scan() of {feature.source!r} returns {type(source).__name__}, not a LazyFrame.")
    try:
        result = feature.function(source)
        if isinstance(result, pl.LazyFrame):
            return _collected(feature, result)
    except BaseException as error:
        if not isinstance(error, DataError):
            error.add_note(f"This happened while running feature {feature.name!r}, which reads {feature.source!r}.")
        raise
    if not isinstance(result, pl.DataFrame):
        raise DefinitionError(
            f"Feature {feature.name!r}: the function returns {type(result).__name__}, not a LazyFrame or DataFrame."
        )
    return result


def _collected(feature: Feature, frame: pl.LazyFrame) -> pl.DataFrame:
    try:
        return frame.collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        # The function has only made the plan: a traceback would not lead there.
        what = str(error).strip().partition("\n")[0]
        raise DataError(f"Feature {feature.name!r}, which reads {feature.source!r}: {what}") from error


def _history(feature: Feature, events: pl.DataFrame) -> pl.DataFrame:
    if feature.timestamp is None:
        base.require_unique_keys(feature, events)
        return events.select(*feature.keys, pl.exclude(feature.keys)).sort(feature.keys)
    if feature.metrics:
        try:
            return windows.change_points(
                events,
                keys=feature.keys,
                timestamp=feature.timestamp,
                interval=feature.interval,
                metrics=feature.metrics,
            )
        except DataError as error:
            raise DataError(f"Feature {feature.name!r}: {error}") from None
    rest = [name for name in events.columns if name not in feature.index]
    # Of rows at the same instant the last holds; by value, since the order of a source does not survive a shuffle.
    return (
        events.select(*feature.index, *rest)
        .sort(*feature.index, *rest)
        .unique(feature.index, keep="last", maintain_order=True)
    )
