"""From events to change points: one row at every instant at which a rolling aggregate can change.

Time is cut into tiles, the longest pieces that the interval and every window are whole numbers of. An event at `e`
belongs to the tile that ends at `b`, the first end after `e`. The tile enters every window at `b` and leaves a
window of length `w` at `b + w`, both rounded up to the interval: these instants are the change points. At each of
them the tiles inside a window are a run of the entity's tiles in time order, so a window is a span of row numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import TypeVar

import polars as pl

from mlforge.duration import microseconds, origin
from mlforge.errors import DataError
from mlforge.metrics import Output, Rolling
from mlforge.windows.aggregates import (
    NUMBERS_ONLY,
    ORDERED,
    UNTILED,
    Column,
    Spans,
    median,
    n_unique,
    tiles_of,
)
from mlforge.windows.plain import Plain

# Raised whenever the same events would give other values than before, so that every table is built again.
ALGORITHM = 1


Instant = TypeVar("Instant", pl.Expr, int)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where windows can begin and end; instants are microseconds since the Unix epoch.

    Attributes:
        start: What multiples of the interval are counted from.
        step: The interval; without one a microsecond, the clock's resolution.
        tile: The longest length that the interval and every window are whole numbers of.
    """

    start: int
    step: int
    tile: int

    @classmethod
    def of(cls, interval: str | None, windows: Sequence[str]) -> "Grid":
        """The grid of a feature with this interval and these windows."""
        step = microseconds(interval) if interval else 1
        tile = reduce(gcd, map(microseconds, windows), step)
        return cls(start=origin(interval) if interval else 0, step=step, tile=tile)

    def tile_end(self, instant: pl.Expr) -> pl.Expr:
        """The end of the tile that an instant lies in: the first one after it."""
        return (instant - self.start) // self.tile * self.tile + (self.tile + self.start)

    def up(self, instant: Instant) -> Instant:
        """The first multiple of the interval at or after an instant."""
        return (instant - self.start + (self.step - 1)) // self.step * self.step + self.start


def change_points(
    events: pl.DataFrame,
    *,
    keys: Sequence[str],
    timestamp: str,
    interval: str | None,
    metrics: Sequence[Rolling],
) -> pl.DataFrame:
    """The history of a windowed feature; the value at `t` is the newest row with `timestamp <= t`.

    Args:
        events: One row an event: keys and timestamp without nulls, the timestamp `Datetime("us", "UTC")`; floats
            are finite or null. The order of the remaining columns is what breaks ties in time, nulls first.
        keys: The entity key columns.
        timestamp: The column of the event times.
        interval: What the ends of windows are multiples of; None: every instant.
        metrics: What is computed.

    Returns:
        The keys, the timestamp from when on a row holds, and the columns of the metrics, sorted by keys and
        timestamp, which together are unique. The order of the events makes no difference.

    Raises:
        DataError: An aggregation does not fit the dtype of its column, or a sum does not fit its own.
    """
    outputs = [output for metric in metrics for output in metric.outputs]
    windows = {output.window: microseconds(output.window) for output in outputs}
    grid = Grid.of(interval, list(windows))
    wanted = wanted_columns(outputs, events.schema)

    plain = Plain(events, keys, {timestamp: "at"}, wanted)
    events = plain.frame
    if any(aggregations & ORDERED for aggregations in wanted.values()):
        events = events.sort("at", *plain.ties, nulls_last=False)
    events = events.with_columns(at=grid.tile_end(pl.col("at").to_physical()))
    columns = {
        name: Column(alias, events[alias], wanted[name]) for name, alias in plain.columns.items() if name in wanted
    }
    tiles = tiles_of(events.with_row_index("row"), [*plain.keys, "at"], columns.values())
    tiles = tiles.with_columns(entity=pl.struct(plain.keys).rle_id())
    entities = tiles.group_by("entity", maintain_order=True).agg(pl.col(*plain.keys).first())
    moves = _moves(tiles, grid, windows)
    points = moves.select("entity", "at")
    if any(aggregations & UNTILED for aggregations in wanted.values()):
        events = events.join(entities, on=plain.keys, maintain_order="left")

    values: dict[str, pl.Series] = {}
    for (name, window), group in grouped(outputs).items():
        column, length = columns[name], windows[window]
        found = column.over(tiles, Spans(start=moves[window], stop=moves["entered"]), events[column.name], group)
        if "n_unique" in group:
            leave = grid.up(pl.col("at") + length)
            found["n_unique"] = n_unique(events, column.name, points, grid.up(pl.col("at")), leave, length)
        if "median" in group:
            found["median"] = median(events, column.name, points, length)
        values |= {output.name: found[aggregation] for aggregation, output in group.items()}

    return plain.named(timestamp, points, entities, values, outputs)


def wanted_columns(outputs: Sequence[Output], schema: pl.Schema) -> dict[str, set[str]]:
    """For every aggregated column its aggregations.

    Raises:
        DataError: One does not fit the dtype of its column.
    """
    wanted: dict[str, set[str]] = {}
    for output in outputs:
        dtype = schema[output.column]
        number = dtype.is_numeric() or dtype == pl.Boolean
        if (output.aggregation in NUMBERS_ONLY and not number) or dtype.is_nested():
            raise DataError(
                f"{output.name}: {output.aggregation} of column {output.column!r}, which is {dtype}: cast it in the "
                f"function (a column of a CSV file is text where one of its values is no number)."
            )
        wanted.setdefault(output.column, set()).add(output.aggregation)
    return wanted


def grouped(outputs: Sequence[Output]) -> dict[tuple[str, str], dict[str, Output]]:
    """The outputs by column and window, and there by aggregation."""
    groups: dict[tuple[str, str], dict[str, Output]] = {}
    for output in outputs:
        groups.setdefault((output.column, output.window), {})[output.aggregation] = output
    return groups


def _moves(tiles: pl.DataFrame, grid: Grid, windows: Mapping[str, int]) -> pl.DataFrame:
    """The change points, sorted, and how many tiles have entered and have left each window by then.

    The counts run on over all entities: every tile leaves before the next entity begins, so they are at the same
    time the row numbers in `tiles` at which a window starts and stops.
    """
    shifts = {"entered": 0, **windows}
    order = (pl.col("entity").cast(pl.Int128) * 2**64 + pl.col("at")).alias("order")
    moves = [
        tiles.select("entity", at=grid.up(pl.col("at") + shift), move=pl.lit(i, pl.UInt16)).with_columns(order)
        for i, shift in enumerate(shifts.values())
    ]
    # Each is in order already, so they are merged, not sorted.
    merged = reduce(lambda a, b: a.merge_sorted(b, key="order"), [move.set_sorted("order") for move in moves])
    last = pl.col("order") != pl.col("order").shift(-1, fill_value=-(2**127))
    counts = [(pl.col("move") == i).cast(pl.Int64).cum_sum().alias(name) for i, name in enumerate(shifts)]
    return merged.select("entity", "at", *counts, last=last).filter("last").drop("last")
