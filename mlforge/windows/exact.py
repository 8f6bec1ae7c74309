"""Sums without rounding: numbers as whole multiples of a unit, in 128-bit integers.

Differences of running sums are the fastest way to a sum over a window, and in floating point a wrong one: an
amount of 1e16 that has long left the window still eats the cents of those in it. In integers nothing is lost, and
the order of addition makes no difference, so the same events give the same bits on every machine.
"""

import math
from dataclasses import dataclass
from typing import cast

import polars as pl


@dataclass(frozen=True, slots=True)
class Part:
    """A column, or those of its values that one unit can hold, as `values * unit`."""

    values: pl.Expr
    unit: float


def number(column: str, dtype: pl.DataType) -> Part:
    """A column of numbers as it is, without a rounding: integers with a unit, or floats with the unit 1.

    >>> number("x", pl.Decimal(10, 2)).unit
    0.01
    """
    if isinstance(dtype, pl.Decimal):
        return Part(pl.col(column).to_physical().cast(pl.Int128), 10.0**-dtype.scale)
    return Part(pl.col(column).cast(pl.Float64 if dtype.is_float() else pl.Int128), 1.0)


def parts(column: str, values: pl.Series) -> list[Part]:
    """Splits a column of numbers (finite, nulls allowed) into parts whose sums cannot overflow 128 bits.

    Integers, booleans and decimals are one part. Floats are one where the smallest value is within about 2**50 of
    the largest, otherwise one for each such range of magnitudes; bits below 2**-1000 are dropped.

    >>> len(parts("x", pl.Series([1.0, 1e-9]))), len(parts("x", pl.Series([1.0, 1e-30])))
    (1, 2)
    """
    whole = number(column, values.dtype)
    if not values.dtype.is_float():
        return [Part(whole.values.fill_null(0), whole.unit)]
    spare = len(values).bit_length()
    filled = whole.values.fill_null(0.0)
    magnitudes = values.cast(pl.Float64).abs()
    found: list[Part] = []
    ceiling = math.inf
    while top := cast("float", magnitudes.max() or 0.0):
        shift = min(126 - spare - math.frexp(top)[1], 1000)
        # A double of this size or more is a whole multiple of 2**-shift: its last bit is 52 below its first.
        floor = 2.0 ** (52 - shift) if shift < 1000 else 0.0
        magnitudes = magnitudes.filter(magnitudes < floor)
        inside = filled if ceiling == math.inf else pl.when(filled.abs() < ceiling).then(filled).otherwise(0.0)
        if magnitudes.max():
            inside = pl.when(filled.abs() >= floor).then(inside).otherwise(0.0)
        found.append(Part((inside * 2.0**shift).cast(pl.Int128), 2.0**-shift))
        ceiling = floor
    return found
