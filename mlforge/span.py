"""Spans of time: which events a build is about, which it needs for that, and which rows can change."""

import datetime as dt
from dataclasses import dataclass
from zoneinfo import ZoneInfo

import polars as pl

from mlforge.duration import microseconds
from mlforge.errors import RequestError
from mlforge.features import Feature
from mlforge.instant import EPOCH, INSTANT
from mlforge.windows import Grid

_MICROSECOND = dt.timedelta(microseconds=1)
# No event is outside of these: `engines.shape.require_years`.
_FIRST, _LAST = dt.datetime(1900, 1, 1, tzinfo=dt.UTC), dt.datetime(2201, 1, 1, tzinfo=dt.UTC)
# What Polars can say in nanoseconds.
_FIRST_NS, _LAST_NS = dt.datetime(1678, 1, 1, tzinfo=dt.UTC), dt.datetime(2262, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The instants from `start` on that are before `end`; what lies where no event can be is cut off.

    Attributes:
        start: UTC-aware.
        end: UTC-aware; None: there is no end.
    """

    start: dt.datetime
    end: dt.datetime | None = None

    def __post_init__(self) -> None:
        if self.end is not None and self.end <= self.start:
            raise RequestError(f"The end, {self.end.isoformat()}, is not after the start, {self.start.isoformat()}.")
        object.__setattr__(self, "start", min(max(self.start, _FIRST), _LAST))
        end = None if self.end is None or self.end > _LAST else max(self.end, _FIRST + _MICROSECOND)
        object.__setattr__(self, "end", end)

    def holds(self, column: str, dtype: pl.DataType = INSTANT) -> pl.Expr:
        """Whether the instants in a column are in the span, as a condition that a reader of files can use.

        Where a column counts in days or milliseconds, what lies around the edges is held as well. Dtypes that are no
        instants are not looked at: all of them is held.
        """
        if not isinstance(dtype, pl.Date | pl.Datetime):
            return pl.lit(value=True)
        outer = self.rounded(_unit(dtype))
        inside = pl.col(column) >= _literal(outer.start, dtype)
        return inside if outer.end is None else inside & (pl.col(column) < _literal(outer.end, dtype))

    def rounded(self, unit: dt.timedelta) -> "Span":
        """The smallest span around this one of which the start and the end are multiples of a unit since 1970.

        >>> day = Span(start=dt.datetime(2026, 1, 1, 9, tzinfo=dt.UTC), end=dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
        >>> str(day.rounded(dt.timedelta(days=1)).start)
        '2026-01-01 00:00:00+00:00'
        """
        start = EPOCH + (self.start - EPOCH) // unit * unit
        return Span(start=start, end=None if self.end is None else EPOCH - (EPOCH - self.end) // unit * unit)


def needed(feature: Feature, events: Span) -> Span:
    """The events from which the rows follow that change where these events do.

    A row is the events of its windows, and there may be a row because an event left a window, up to an interval before.
    """
    if not feature.metrics:
        return events
    end = touched(feature, events).end
    return Span(start=events.start - _longest(feature) - _step(feature), end=end)


def touched(feature: Feature, events: Span) -> Span:
    """Where the rows are that can change where these events do: until the last of them has left its longest window."""
    if not feature.metrics or events.end is None:
        return events
    grid = Grid.of(feature.interval, [output.window for output in feature.outputs])
    last = grid.up((events.end + _longest(feature) - EPOCH) // _MICROSECOND)
    # The rows at that instant as well.
    return Span(start=events.start, end=EPOCH + (last + 1) * _MICROSECOND)


def last_event(feature: Feature, newest_row: dt.datetime) -> dt.datetime:
    """An instant at or shortly before the last event of a history, from the time of its newest row."""
    return newest_row - _longest(feature) - _step(feature) if feature.metrics else newest_row


def _longest(feature: Feature) -> dt.timedelta:
    return max(dt.timedelta(microseconds=microseconds(output.window)) for output in feature.outputs)


def _step(feature: Feature) -> dt.timedelta:
    return dt.timedelta(microseconds=microseconds(feature.interval)) if feature.interval else _MICROSECOND


def _unit(dtype: pl.Date | pl.Datetime) -> dt.timedelta:
    """What a column counts in, or a microsecond where that is less."""
    if isinstance(dtype, pl.Date):
        return dt.timedelta(days=1)
    return dt.timedelta(milliseconds=1) if dtype.time_unit == "ms" else _MICROSECOND


def _literal(instant: dt.datetime, dtype: pl.Date | pl.Datetime) -> pl.Expr:
    """An instant as a value of a column."""
    if isinstance(dtype, pl.Date):
        return pl.lit(instant.date())
    if dtype.time_unit == "ns":
        instant = min(max(instant, _FIRST_NS), _LAST_NS)
    zone = None if dtype.time_zone is None else ZoneInfo(dtype.time_zone)
    return pl.lit(instant.astimezone(zone) if zone else instant.replace(tzinfo=None), dtype)
