"""The value of a feature at an instant by brute force: section 3 of the design, sentence by sentence.

Plain Python and exact arithmetic; it shares no code with mlforge, not even the parser of durations. A row is a
dict, an entity the dict of its keys, a time a datetime (naive is UTC) or whole microseconds since 1970.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

Row = Mapping[str, Any]

UNITS = {"s": 10**6, "m": 60 * 10**6, "h": 3_600 * 10**6, "d": 86_400 * 10**6, "w": 604_800 * 10**6}
MONDAY = datetime(1970, 1, 5, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZERO = Fraction(0)


def duration(text: str) -> int:
    """`7d` in microseconds."""
    return int(text[:-1]) * UNITS[text[-1]]


def instant(time: int | datetime) -> int:
    """A time in microseconds since the Unix epoch; a naive one is UTC."""
    if isinstance(time, int):
        return time
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - EPOCH) // timedelta(microseconds=1)


def boundary(t: int | datetime, interval: str | None) -> int:
    """B: the last multiple of the interval at or before t; t itself without an interval."""
    if interval is None:
        return instant(t)
    origin = instant(MONDAY if interval.endswith("w") else EPOCH)
    return instant(t) - (instant(t) - origin) % duration(interval)


def value_at(
    events: Iterable[Row],
    entity: Row,
    t: int | datetime,
    *,
    timestamp: str,
    interval: str | None,
    windows: Sequence[str],
    aggregations: Mapping[str, Sequence[str]],
    available_at: str | None = None,
) -> dict[str, Any] | None:
    """The value of a windowed feature (one `Rolling`) at t; None while the entity is not visible.

    Raises:
        OverflowError: An integer sum is beyond Int64; the text is the name of the output column.
    """
    end = boundary(t, interval)
    known = rows_of(events, entity, timestamp, available_at)
    past = [event for event in known if instant(event[timestamp]) < end]
    if available_at is not None:
        past = [event for event in past if instant(event[available_at]) < end]
    if not past:
        return None
    value = {}
    for column, names in aggregations.items():
        for name in names:
            for window in windows:
                begin = end - duration(window)
                inside = [event[column] for event in past if begin <= instant(event[timestamp])]
                result = aggregate(name, [item for item in inside if item is not None])
                output = f"{column}__{name}__{window}"
                if name == "sum" and isinstance(result, int) and not -(2**63) <= result < 2**63:
                    raise OverflowError(output)
                value[output] = result
    return value


def value_of_timestamped(
    rows: Iterable[Row], entity: Row, t: int | datetime, *, timestamp: str, max_age: str | None = None
) -> dict[str, Any] | None:
    """The newest row at or before t, while t < its time + max_age; of rows at the same time the last in tie order."""
    past = [row for row in rows_of(rows, entity, timestamp) if instant(row[timestamp]) <= instant(t)]
    if past and max_age is not None and instant(t) >= instant(past[-1][timestamp]) + duration(max_age):
        return None
    return without(past[-1], [*entity, timestamp]) if past else None


def value_of_snapshot(rows: Iterable[Row], entity: Row) -> dict[str, Any] | None:
    """The one row of the entity, at every instant.

    Raises:
        ValueError: The entity has two rows.
    """
    own = rows_of(rows, entity, None)
    if len(own) > 1:
        raise ValueError(f"{len(own)} rows for {dict(entity)}")
    return without(own[0], entity) if own else None


def rows_of(rows: Iterable[Row], entity: Row, timestamp: str | None, available_at: str | None = None) -> list[Row]:
    """The entity's rows by time; ties by when they are known, then by the other columns, left to right, nulls first."""

    def order(row: Row) -> Any:
        time = instant(row[timestamp]) if timestamp else 0
        known = max(time, instant(row[available_at])) if available_at else 0
        rest = without(row, [*entity, timestamp, available_at]).values()
        return time, known, [(item is not None, item) for item in rest]

    own = (row for row in rows if all(row[key] == item for key, item in entity.items()))
    timed = (row for row in own if timestamp is None or row[timestamp] is not None)
    return sorted(({name: finite(item) for name, item in row.items()} for row in timed), key=order)


def aggregate(name: str, values: list[Any]) -> Any:
    """An aggregate of values that are not null, in the order of their events."""
    if name == "count":
        return len(values)
    if name == "n_unique":
        return len(set(values))
    if name == "sum":
        return total(values)
    if not values:
        return None
    if name in ("min", "max", "first", "last"):
        return {"min": min(values), "max": max(values), "first": values[0], "last": values[-1]}[name]
    exact = list(map(Fraction, values))
    mean = sum(exact, ZERO) / len(exact)
    if name == "mean":
        return nearest_float(mean)
    if name == "median":
        ranked = sorted(exact)
        return nearest_float((ranked[(len(ranked) - 1) // 2] + ranked[len(ranked) // 2]) / 2)
    if len(exact) == 1:
        return None
    variance = sum(((item - mean) ** 2 for item in exact), ZERO) / (len(exact) - 1)
    return nearest_float({"var": variance, "std": square_root(variance)}[name])


def total(values: list[Any]) -> int | float | Decimal | None:
    """The sum: exact for integers, booleans and decimals; of nothing it is 0, which must be met exactly."""
    if values and isinstance(values[0], float):
        return nearest_float(sum(map(Fraction, values), ZERO))
    with localcontext(prec=200):
        result: int | Decimal = sum(values)
        return result


def square_root(exact: Fraction) -> Fraction:
    """The square root to 60 digits."""
    with localcontext(prec=60):
        return Fraction((Decimal(exact.numerator) / Decimal(exact.denominator)).sqrt())


def nearest_float(exact: Fraction) -> float | None:
    """The nearest float, or None where that is not finite."""
    try:
        return float(exact)
    except OverflowError:
        return None


def finite(item: Any) -> Any:
    """NaN and infinities count as null on input."""
    return None if isinstance(item, float) and not math.isfinite(item) else item


def without(row: Row, names: Iterable[str | None]) -> dict[str, Any]:
    """The row's other columns, left to right."""
    left_out = set(names)
    return {name: item for name, item in row.items() if name not in left_out}


def agrees(actual: Any, expected: Any) -> bool:
    """Whether a value is the oracle's: floats to 1e-9 relative, absolute below 1; everything else exactly."""
    if actual is None or expected is None:
        return actual is expected
    if isinstance(expected, float):
        return isinstance(actual, float) and abs(actual - expected) <= 1e-9 * max(1.0, abs(expected))
    return isinstance(actual, bool) == isinstance(expected, bool) and bool(actual == expected)
