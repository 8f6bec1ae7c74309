"""What every engine asks of what a feature's function returned: its columns, its events, its keys."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from mlforge.checks import columns_of
from mlforge.duration import MICROSECONDS
from mlforge.errors import DataError, DefinitionError
from mlforge.features import RESERVED, Feature, Frame
from mlforge.instant import EPOCH
from mlforge.source import Source
from mlforge.span import Span

# Event times outside are nearly always seconds taken for milliseconds, or the like.
FIRST_YEAR, LAST_YEAR = 1900, 2200
# Days from 1970 that are beyond every year that is allowed, and that 64 bits can still count in microseconds.
FAR = 10**7
KEY_DTYPES = (pl.String, pl.Int64, pl.Boolean, pl.Date, pl.Datetime)


def require_columns(feature: Feature, schema: pl.Schema) -> None:
    """Refuses a result whose columns are not those that the definition names.

    Raises:
        DefinitionError: A key, the timestamp or an aggregated column is missing, there is no feature column, a
            windowed feature returns a column that has no value and that no check names, or a name is reserved.
    """
    returned = f"the function returns {', '.join(map(repr, schema)) or 'no column'}"
    aggregated = list(dict.fromkeys(output.column for output in feature.outputs))
    roles = {
        "key column": feature.keys,
        "timestamp": [] if feature.timestamp is None else [feature.timestamp],
        "time of availability": [] if feature.available_at is None else [feature.available_at],
        "aggregated column": aggregated,
    }
    for role, names in roles.items():
        for name in names:
            if name not in schema:
                raise DefinitionError(f"Feature {feature.name!r}: the {role} {name!r} is missing; {returned}.")
    rest = [name for name in schema if name not in {*feature.keys, feature.timestamp, feature.available_at}]
    checked = {column for check in feature.checks.values() for column in columns_of(check)}
    if loose := [name for name in sorted(only_checked(feature, schema)) if name not in checked]:
        raise DefinitionError(
            f"Feature {feature.name!r}: column {loose[0]!r} is not aggregated, so it has no value at an instant: "
            f"aggregate it (for instance with 'last'), name it in a check, or leave it out of what the function gives."
        )
    if not feature.metrics and not rest:
        raise DefinitionError(f"Feature {feature.name!r}: there is no feature column; {returned}.")
    if reserved := [name for name in schema if name.startswith(RESERVED)]:
        raise DefinitionError(f"Feature {feature.name!r}: {reserved[0]!r}: names with {RESERVED!r} are reserved.")


def only_checked(feature: Feature, schema: pl.Schema) -> list[str]:
    """The columns that a windowed feature returns for its checks alone: they have no value at an instant."""
    if not feature.metrics:
        return []
    aggregated = [output.column for output in feature.outputs]
    return [name for name in schema if name not in {*feature.keys, *times(feature), *aggregated}]


def require_dtypes(feature: Feature, schema: pl.Schema) -> None:
    """Refuses keys that cannot name an entity and a timestamp that is none.

    Raises:
        DataError: The message names the column, its dtype and the cast.
    """
    for key in feature.keys:
        if schema[key] not in KEY_DTYPES:
            raise DataError(
                f"Feature {feature.name!r}: the key column {key!r} is {schema[key]}: a key is a string, an integer, a "
                f"Boolean, a date or a datetime, so cast it in the function, as in .cast(pl.Int64)."
            )
    for time in times(feature):
        if schema[time] not in (pl.Datetime, pl.Date):
            raise DataError(
                f"Feature {feature.name!r}: the timestamp {time!r} is {schema[time]}, not a datetime or date: convert "
                f"it in the function, as in .str.to_datetime() or pl.from_epoch(...)."
            )


def times(feature: Feature) -> list[str]:
    """The columns that hold instants: the timestamp, and when an event is known, where these are there."""
    return [name for name in (feature.timestamp, feature.available_at) if name is not None]


def require_events(feature: Feature, source: Source, rows: int, events: int) -> None:
    """Refuses a function that returns nothing.

    Args:
        feature: The feature.
        source: What it read.
        rows: How many rows its function returned.
        events: How many of them have a key and a timestamp.

    Raises:
        DataError: There is none.
    """
    if not rows:
        raise DataError(f"Feature {feature.name!r} has no data: the function returned no rows (source: {source!r}).")
    if not events:
        raise DataError(
            f"Feature {feature.name!r} has no data: each of its {rows} rows lacks one of {feature.index} "
            f"(source: {source!r})."
        )


def within(frame: Frame, feature: Feature, span: Span) -> Any:
    """The rows of a span: where the frame is lazy, Polars leaves out what files hold besides."""
    timestamp = feature.timestamp
    schema = frame.collect_schema()
    if timestamp is None or timestamp not in schema:
        return frame
    return frame.filter(span.holds(timestamp, schema[timestamp]))


def require_years(feature: Feature, events: pl.DataFrame) -> None:
    """Refuses events that cannot be meant.

    Raises:
        DataError: Some are before 1900 or after 2200; the message shows three.
    """
    for column in times(feature):
        # As integers: Polars has no year for instants far out, and panics when asked to write them.
        found = events[column]
        if found.dtype == pl.Date:
            found = found.cast(pl.Int32).cast(pl.Int64).clip(-FAR, FAR) * MICROSECONDS["d"]
        found = found.to_physical()
        first, end = (_since_epoch(datetime(year, 1, 1, tzinfo=UTC)) for year in (FIRST_YEAR, LAST_YEAR + 1))
        strange = found.filter(~found.is_between(first, end, closed="left"))
        if len(strange):
            some = ", ".join(map(_shown, strange.head(3)))
            raise DataError(
                f"Feature {feature.name!r}: {len(strange)} events are not between the years {FIRST_YEAR} and "
                f"{LAST_YEAR} ({some}): is the unit of {column!r} seconds, milliseconds or microseconds?"
            )


def require_unique_keys(feature: Feature, rows: pl.DataFrame) -> None:
    """Refuses two rows for one entity of a snapshot feature.

    Raises:
        DataError: The message shows three of the entities.
    """
    twice = rows.group_by(feature.keys, maintain_order=True).len().filter(pl.col("len") > 1)
    if len(twice):
        some = ", ".join(str(entity) for entity in twice.head(3).drop("len").to_dicts())
        raise DataError(
            f"Feature {feature.name!r} has no timestamp, so one row an entity, but {len(twice)} entities have more "
            f"({some}): aggregate or filter in the function, or name the timestamp."
        )


def _since_epoch(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _shown(microseconds: int) -> str:
    try:
        return f"{EPOCH + timedelta(microseconds=microseconds):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return f"{microseconds} microseconds since 1970"
