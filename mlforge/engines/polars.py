"""The engine that runs features in Polars on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mlforge import verdicts, windows
from mlforge.engines import base
from mlforge.engines.base import Computed
from mlforge.errors import DataError, DefinitionError, one_line
from mlforge.features import RESERVED, Feature, Frame
from mlforge.instant import INSTANT
from mlforge.source import Source, hidden
from mlforge.span import Span, needed, touched
from mlforge.storable import storable
from mlforge.verdicts import CheckResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a feature's function returned, checked.

    Attributes:
        events: One row an event, or an entity: keys and timestamp without nulls, columns in storable dtypes.
        left_out: How many rows had no key or no timestamp.
        checks: The verdicts.
    """

    events: pl.DataFrame
    left_out: int
    checks: Sequence[CheckResult]


def compute(feature: Feature, source: Source, part: Span | None = None) -> Computed:
    """Runs a feature's function over its source, its checks over the result, and its windows over the events.

    Args:
        feature: The feature.
        source: What it reads.
        part: Only the rows that can change where these events do are computed, from no more of the source than that
            needs; only these events are checked. None: all.

    Raises:
        DefinitionError: The result is no frame or does not have the columns that the definition names.
        DataError: The source is missing, or, without a part, empty, or the data is not what the definition says.
    """
    loaded = load(feature, source, part)
    rows = history(feature, loaded.events)
    if part is not None and feature.timestamp is not None:
        rows = rows.filter(touched(feature, part).holds(feature.timestamp))
    return Computed(rows=rows, left_out=loaded.left_out, checks=loaded.checks)


def load(feature: Feature, source: Source, part: Span | None = None, *, checked: bool = True) -> Loaded:
    """The first half of `compute`: the function, the checks unless they are not asked for, the events as they count."""
    frame = _run(feature, source, None if part is None else needed(feature, part))
    base.require_columns(feature, frame.schema)
    if frame.is_empty() and part is None:
        raise DataError(f"Feature {feature.name!r} has no data: the function returned no rows (source: {source!r}).")
    asked = frame if part is None else _within(frame, feature, part)
    results = verdicts.run(feature.checks, asked, feature=feature.name) if checked else []
    present = storable(frame.drop(base.only_checked(feature, frame.schema)), feature=feature.name)
    base.require_dtypes(feature, present.schema)
    present = present.drop_nulls([*feature.keys, *base.times(feature)])
    left_out = len(frame) - len(present)
    if present.is_empty() and part is None:
        raise DataError(
            f"Feature {feature.name!r} has no data: each of its {left_out} rows lacks one of {feature.index} "
            f"(source: {source!r})."
        )
    if feature.timestamp:
        base.require_years(feature, present)
        present = present.with_columns(pl.col(base.times(feature)).cast(INSTANT))
    return Loaded(events=present, left_out=left_out, checks=results)


def _run(feature: Feature, source: Source, span: Span | None) -> pl.DataFrame:
    """What the function returns, collected; what it raises passes through with the feature's name in a note."""
    scanned = source.scan()
    if not isinstance(scanned, pl.LazyFrame):
        raise DefinitionError(f"scan() of {source!r} returns {type(scanned).__name__}, not a LazyFrame.")
    try:
        result = feature.function(scanned)
        if isinstance(result, pl.LazyFrame):
            return _collected(feature, source, result, span)
    except BaseException as error:
        if isinstance(error, OSError | pl.exceptions.PolarsError) and hidden(str(error), source) != str(error):
            raise _failed(feature, source, error) from None
        if not isinstance(error, DataError):
            error.add_note(f"This happened while running feature {feature.name!r}, which reads {source!r}.")
        raise
    if not isinstance(result, pl.DataFrame):
        raise DefinitionError(
            f"Feature {feature.name!r}: the function returns {type(result).__name__}, not a LazyFrame or DataFrame."
        )
    return result if span is None else _within(result, feature, span)


def _collected(feature: Feature, source: Source, frame: pl.LazyFrame, span: Span | None) -> pl.DataFrame:
    try:
        return (frame if span is None else _within(frame, feature, span)).collect(engine="streaming")
    except (OSError, pl.exceptions.PolarsError) as error:
        # The function has only made the plan: a traceback would not lead there, but show what is hidden here.
        raise _failed(feature, source, error) from None


def _failed(feature: Feature, source: Source, error: Exception) -> DataError:
    """What Polars or a store of files says of a feature, in one line and without what is hidden of its source."""
    return DataError(f"Feature {feature.name!r}, which reads {source!r}: {one_line(hidden(str(error), source))}")


def _within(frame: Frame, feature: Feature, span: Span) -> Any:
    """The rows of a span: where the frame is lazy, Polars leaves out what files hold besides."""
    timestamp = feature.timestamp
    schema = frame.collect_schema()
    if timestamp is None or timestamp not in schema:
        return frame
    return frame.filter(span.holds(timestamp, schema[timestamp]))


def history(feature: Feature, events: pl.DataFrame) -> pl.DataFrame:
    """The second half of `compute`: the rows that follow from the events; of windows, the change points."""
    if feature.timestamp is None:
        base.require_unique_keys(feature, events)
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
