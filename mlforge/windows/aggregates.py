"""How each aggregation is computed over spans of tiles.

A column's leaves are what a tile keeps of it. count, sum and mean come from differences of exact running totals,
first and last from the nearest tile with a value, min and max from a sparse table, std and var from a segment
tree. n_unique and median need the events: n_unique counts values that come into and go out of sight, median is
Polars' own.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce

import polars as pl

from mlforge.errors import DataError
from mlforge.metrics import Output
from mlforge.windows.exact import Part, number, parts
from mlforge.windows.folds import extreme
from mlforge.windows.moments import Moments

NUMBERS_ONLY = frozenset({"sum", "mean", "std", "var", "median"})
MOMENTS = frozenset({"std", "var"})
ORDERED = frozenset({"first", "last"})
UNTILED = frozenset({"n_unique", "median"})


@dataclass(frozen=True, slots=True)
class Spans:
    """For each change point the tiles inside one window, as row numbers: `start <= row < stop`."""

    start: pl.Series
    stop: pl.Series


class Column:
    """One aggregated column of the events: its leaves, and its aggregates over spans of tiles."""

    def __init__(self, name: str, values: pl.Series, wanted: AbstractSet[str]) -> None:
        self.name = name
        self.dtype = values.dtype
        self.wanted = wanted
        self._parts: list[Part] = parts(name, values) if wanted & {"sum", "mean"} else []
        self.moments = Moments.of(name, values) if wanted & MOMENTS else []

    @property
    def leaves(self) -> list[pl.Expr]:
        """What a tile keeps of the column, as expressions to group by; `row` numbers the events in time order."""
        column = pl.col(self.name)
        present = pl.when(column.is_not_null()).then("row")
        found = [column.count().cast(pl.Int64).alias(f"{self.name}.count")]
        found += [p.values.sum().alias(f"{self.name}.part{i}") for i, p in enumerate(self._parts)]
        found += [getattr(column, a)().alias(f"{self.name}.{a}") for a in ("min", "max") if a in self.wanted]
        if "first" in self.wanted:
            found.append(present.min().alias(f"{self.name}.first"))
        if "last" in self.wanted:
            found.append(present.max().alias(f"{self.name}.last"))
        return found

    def over(
        self, tiles: pl.DataFrame, spans: Spans, values: pl.Series, outputs: Mapping[str, Output]
    ) -> dict[str, pl.Series]:
        """The aggregates over each span that outputs ask for, by aggregation; not n_unique and median."""
        wanted = outputs.keys()
        counts = _total(tiles[f"{self.name}.count"], spans)
        found = {"count": counts}
        if wanted & {"sum", "mean"}:
            found |= self._sums(tiles, spans, counts, outputs.get("sum"))
        for end, pick in (("min", pl.min_horizontal), ("max", pl.max_horizontal)):
            if end in wanted:
                found[end] = extreme(tiles[f"{self.name}.{end}"], spans.start, spans.stop, pick)
        if wanted & MOMENTS:
            var, std = zip(*(moments.over(tiles, spans.start, spans.stop) for moments in self.moments), strict=True)
            # Where squares have left the range of a double, the root may still be in it.
            found |= {"var": var[0], "std": reduce(pl.Series.fill_null, std)}
        if "first" in wanted:
            nearest = tiles[f"{self.name}.first"].fill_null(strategy="backward")
            found["first"] = values.gather(nearest.gather(_where(counts > 0, spans.start)))
        if "last" in wanted:
            nearest = tiles[f"{self.name}.last"].fill_null(strategy="forward")
            found["last"] = values.gather(nearest.gather(_where(counts > 0, spans.stop - 1)))
        return {aggregation: _finite(series) for aggregation, series in found.items()}

    def _sums(
        self, tiles: pl.DataFrame, spans: Spans, counts: pl.Series, output: Output | None
    ) -> dict[str, pl.Series]:
        totals = [_total(tiles[f"{self.name}.part{i}"], spans) for i in range(len(self._parts))]
        # Far below the largest double, since the mean of what a double can just hold is one, and the sum is not.
        mean = self._joined(totals, len(counts), 2.0**-64) / counts * 2.0**64
        found = {"mean": _where(counts > 0, mean)}
        if output is None:
            return found
        if self.dtype.is_float():
            return found | {"sum": self._joined(totals, len(counts), 1.0).cast(self.dtype)}
        if isinstance(self.dtype, pl.Decimal):
            unit = pl.Series([Decimal(1).scaleb(-self.dtype.scale)])
            whole = totals[0].cast(pl.Decimal(38, 0), strict=False)
            found["sum"] = (whole * unit).cast(pl.Decimal(38, self.dtype.scale))
        else:
            found["sum"] = totals[0].cast(pl.Int64, strict=False)
        if (lost := found["sum"].is_null()).any():
            raise DataError(
                f"{output.name}: the sum {totals[0].filter(lost)[0]} does not fit {found['sum'].dtype}: "
                f"cast column {output.column!r} to Float64 in the feature's function."
            )
        return found

    def _joined(self, totals: list[pl.Series], length: int, scale: float) -> pl.Series:
        """The parts' totals together, times a power of two.

        Knuth's TwoSum keeps what each addition loses, so that it makes no difference how the column, with what else
        is in it, was split into parts. A column of nothing but nulls and zeros has no part.
        """
        if len(totals) == 1:
            return totals[0].cast(pl.Float64) * (self._parts[0].unit * scale)
        high = low = pl.zeros(length, dtype=pl.Float64, eager=True)
        for total, part in zip(totals, self._parts, strict=True):
            rounded = total.cast(pl.Float64)
            rest = (total - rounded.cast(pl.Int128)).cast(pl.Float64) * (part.unit * scale)
            term = rounded * (part.unit * scale)
            both = high + term
            shared = both - high
            low = low + rest + ((high - (both - shared)) + (term - shared))
            high = both
        return high + low


def tiles_of(events: pl.DataFrame, by: list[str], columns: Iterable[Column]) -> pl.DataFrame:
    """What each group of events keeps of columns, sorted by what they are grouped by.

    Args:
        events: The columns, those of `by`, and `row`, which numbers the events in time order.
        by: What makes a tile.
        columns: What is kept.
    """
    columns = list(columns)
    leaves = [leaf for column in columns for leaf in column.leaves]
    tiles = events.lazy().group_by(by).agg(leaves).collect(engine="streaming").sort(by)
    for moments in (moments for column in columns for moments in column.moments):
        tiles = tiles.join(moments.of_tiles(events, by), on=by, how="left", maintain_order="left")
    return tiles


def n_unique(
    events: pl.DataFrame, name: str, points: pl.DataFrame, enter: pl.Expr, leave: pl.Expr, window: int
) -> pl.Series:
    """The number of different values in the window at each change point.

    A value comes into sight when an event brings it and the one before has left, and goes out of sight when an
    event leaves and the next one has not come: the number in sight is the running difference of the two.

    Args:
        events: `entity`, `at` (the end of the tile) and the column.
        name: The column.
        points: `entity` and `at` of the change points, sorted.
        enter: The change point at which an event enters, from `at`.
        leave: The one at which it leaves the window.
        window: The length of the window in microseconds.
    """
    seen = events.select("entity", name, "at").drop_nulls(name).unique().sort("entity", name, "at")
    same = pl.struct("entity", name).rle_id()
    gap = (pl.col("at") - pl.col("at").shift(1) >= window) | (same != same.shift(1))
    seen = seen.with_columns(new=gap.fill_null(value=True))
    seen = seen.with_columns(gone=pl.col("new").shift(-1, fill_value=True))
    comes = seen.filter("new").select("entity", at=enter, change=pl.lit(1, pl.Int64))
    goes = seen.filter("gone").select("entity", at=leave, change=pl.lit(-1, pl.Int64))
    changes = pl.concat([comes, goes]).group_by("entity", "at").agg(pl.col("change").sum())
    joined = points.join(changes, on=["entity", "at"], how="left", maintain_order="left")
    return joined["change"].fill_null(0).cum_sum()


def median(events: pl.DataFrame, name: str, points: pl.DataFrame, window: int) -> pl.Series:
    """The median of the values in the window at each change point; arguments as for `n_unique`.

    Polars finds the ranks of the two values in the middle, so that what is halved is their exact sum.
    """
    exact = number(name, events.schema[name])
    values = events.select("entity", "at", value=exact.values, point=False).drop_nulls("value")
    ranked = values["value"].unique().sort()
    values = values.with_columns(rank=pl.col("value").rank("dense").cast(pl.Float64) - 1).drop("value")
    asked = points.select("entity", "at", point=True, rank=pl.lit(None, pl.Float64))
    both = pl.concat([values, asked]).sort("entity", "at", "point")
    middle = [
        pl.col("rank")
        .rolling_quantile_by("at", f"{window}i", quantile=0.5, interpolation=side)
        .over("entity")
        .alias(side)
        for side in ("lower", "higher")
    ]
    lower, higher = both.with_columns(middle).filter("point").select("lower", "higher").cast(pl.Int64)
    if ranked.dtype == pl.Int128:
        halves = (ranked.gather(lower) + ranked.gather(higher)).cast(pl.Float64) / 2
    else:
        halves = ranked.gather(lower) / 2 + ranked.gather(higher) / 2
    return halves * exact.unit


def _total(leaves: pl.Series, spans: Spans) -> pl.Series:
    running = pl.concat([pl.Series(leaves.name, [0], leaves.dtype), leaves.cum_sum()])
    return running.gather(spans.stop) - running.gather(spans.start)


def _where(condition: pl.Series, values: pl.Series) -> pl.Series:
    return pl.select(pl.when(condition).then(values)).to_series()


def _finite(values: pl.Series) -> pl.Series:
    return _where(values.is_finite(), values) if values.dtype.is_float() else values
