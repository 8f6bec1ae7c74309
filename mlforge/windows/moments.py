"""Sample variance and standard deviation of spans of tiles, at any offset and any magnitude.

A tile keeps its count, one of its values as an anchor, the mean above the anchor, and the sum of squared deviations.
Everything is relative to a value that was there, so an offset of 1e9 costs no digits; merging only adds what is
positive, so nothing is cancelled.
"""

import math
from dataclasses import dataclass
from typing import cast

import polars as pl

from mlforge.windows.exact import Part, number
from mlforge.windows.folds import fold

STATE = ("n", "anchor", "mean", "squares")


@dataclass(frozen=True, slots=True)
class Moments:
    """The moments of one column, taken of its values in one unit; `label` names the columns in the tiles."""

    label: str
    column: str
    part: Part

    @classmethod
    def of(cls, column: str, values: pl.Series) -> "list[Moments]":
        """In the column's own unit, and where squares could leave the range of a double in a larger one as well."""
        whole = number(column, values.dtype)
        found = [cls(f"{column}.own", column, whole)]
        if values.dtype.is_float():
            top = cast("float", values.cast(pl.Float64).abs().max() or 0.0)
            if (above := math.frexp(top)[1] - 500) > 0:
                found.append(cls(f"{column}.large", column, Part(whole.values * 2.0**-above, 2.0**above)))
        return found

    def of_tiles(self, events: pl.DataFrame, by: list[str]) -> pl.DataFrame:
        """The state of every tile that has a value, with the columns of `by`.

        The events are sorted by value first, so that their order makes no difference to the last bit.
        """
        value, anchor = pl.col(self.column), f"{self.label}.anchor"
        values = events.select(*by, self.part.values).drop_nulls(self.column).sort(self.column)
        counted = values.group_by(by).agg(pl.len().cast(pl.Float64).alias(f"{self.label}.n"), value.min().alias(anchor))
        above = values.join(counted, on=by, maintain_order="left").with_columns(
            (value - pl.col(anchor)).cast(pl.Float64)
        )
        spread = above.group_by(by).agg(
            value.mean().alias(f"{self.label}.mean"), (value.var(ddof=0) * pl.len()).alias(f"{self.label}.squares")
        )
        return counted.join(spread, on=by)

    def over(self, tiles: pl.DataFrame, start: pl.Series, stop: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Variance and standard deviation of each span of tiles; null for less than two values or beyond a double."""
        leaves = tiles.select(pl.col(f"{self.label}.{name}").alias(name) for name in STATE)
        variance = pl.when(pl.col("n") > 1).then(pl.col("squares") / (pl.col("n") - 1))
        found = fold(leaves, start, stop, _merge).select(
            var=variance * self.part.unit * self.part.unit, std=variance.sqrt() * self.part.unit
        )
        var, std = found.select(pl.when(pl.all().is_finite()).then(pl.all()))
        return var, std


def _merge(a: pl.DataFrame, b: pl.DataFrame) -> pl.DataFrame:
    """The update of Chan, Golub and LeVeque (1979), with each mean kept relative to an anchor among the values."""
    n, n_b = pl.col("n"), pl.col("n_b")
    apart = (pl.col("anchor_b") - pl.col("anchor")).cast(pl.Float64) + (pl.col("mean_b") - pl.col("mean"))
    merged = {
        "n": n + n_b,
        "anchor": pl.col("anchor"),
        "mean": pl.col("mean") + apart * (n_b / (n + n_b)),
        "squares": pl.col("squares") + pl.col("squares_b") + apart * apart * (n * n_b / (n + n_b)),
    }
    return a.hstack(b.select(pl.all().name.suffix("_b"))).select(
        pl.when(n.is_null())
        .then(pl.col(f"{name}_b"))
        .when(n_b.is_null())
        .then(pl.col(name))
        .otherwise(both)
        .alias(name)
        for name, both in merged.items()
    )
