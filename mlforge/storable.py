"""The one table of dtypes: what a column becomes before anything is computed from it or written.

| of the function's result          | in the stores                                  |
|-----------------------------------|------------------------------------------------|
| String, Boolean, Int64, Date, Decimal | itself                                     |
| Float32, Float64                  | itself, NaN and infinities null                |
| Categorical, Enum                 | String                                         |
| smaller and unsigned integers     | Int64; a value beyond it is an error           |
| Datetime                          | `Datetime("us", "UTC")`; naive is taken as UTC |
| List, Array                       | List of the above                              |
| Struct                            | Struct of the above                            |
| Time, Duration, Binary, Int128, Float16, Object, Null, ... | an error that names the cast   |
"""

from collections.abc import Mapping

import polars as pl
from polars.datatypes import DataTypeClass

from mlforge.errors import DataError
from mlforge.instant import INSTANT

_CASTS = {
    pl.Time: "cast(pl.String), or seconds since midnight as an integer",
    pl.Duration: "dt.total_seconds()",
    pl.Binary: "bin.encode('hex')",
    pl.Int128: "cast(pl.Int64) or cast(pl.Decimal(38, 0))",
    pl.Float16: "cast(pl.Float32)",
    pl.Null: "cast(pl.Float64), or the type that its values would have",
}
# In milliseconds, what microseconds in 64 bits can hold.
_MOST = (2**63 - 1) // 1000


def storable(frame: pl.DataFrame, *, feature: str) -> pl.DataFrame:
    """A frame with every column in the form in which the stores hold it.

    Raises:
        DataError: A column has a name or a dtype that no store can hold, or a value too large for Int64.
    """
    _require_names(frame.schema, f"Feature {feature!r}")
    for name, dtype in frame.schema.items():
        if dtype == pl.UInt64 and (beyond := frame[name].filter(frame[name] > 2**63 - 1)).len():
            raise DataError(
                f"Feature {feature!r}: column {name!r} holds {beyond[0]}, which is beyond Int64: "
                f"cast it to Float64 or String in the function."
            )
        if isinstance(dtype, pl.Datetime) and dtype.time_unit == "ms":
            since = frame[name].to_physical()
            # Polars panics where it cannot show the value that does not fit.
            if (beyond := since.filter(~since.is_between(-_MOST, _MOST))).len():
                raise DataError(
                    f"Feature {feature!r}: column {name!r} holds an instant {beyond[0]} milliseconds from 1970: is its "
                    f"unit seconds, milliseconds or microseconds?"
                )
    expressions = [
        expression(pl.col(name), dtype, f"Feature {feature!r}: column {name!r}").alias(name)
        for name, dtype in frame.schema.items()
    ]
    try:
        return frame.select(expressions)
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(f"Feature {feature!r}: a value inside a list or struct is beyond Int64: {error}") from error


def _require_names(schema: Mapping[str, pl.DataType], what: str) -> None:
    """Refuses the names of columns and of fields with which Polars, Arrow or Delta do something else than hold them."""
    folded: dict[str, str] = {}
    for name, dtype in schema.items():
        if not name or not name.isprintable():
            raise DataError(f"{what}: {name!r} cannot be the name of a column: write printable characters.")
        if name == "*" or (name.startswith("^") and name.endswith("$")):
            raise DataError(f"{what}: {name!r} cannot be the name of a column: Polars takes it for a pattern.")
        if (other := folded.setdefault(name.casefold(), name)) != name:
            raise DataError(f"{what}: {other!r} and {name!r} differ in case only, which Delta takes for the same name.")
        inner = dtype
        while isinstance(inner, pl.List | pl.Array):
            inner = instance(inner.inner)
        if isinstance(inner, pl.Struct):
            _require_names({field.name: instance(field.dtype) for field in inner.fields}, f"{what}: {name!r}")


def expression(column: pl.Expr, dtype: pl.DataType, what: str) -> pl.Expr:
    """A column in the form in which the stores hold it.

    Args:
        column: The column.
        dtype: Its dtype.
        what: What it is called in an error.

    Raises:
        DataError: No store can hold it.
    """
    if dtype in (pl.String, pl.Boolean, pl.Int64, pl.Date) or isinstance(dtype, pl.Decimal):
        return column
    if dtype in (pl.Float32, pl.Float64):
        return pl.when(column.is_finite()).then(column)
    if isinstance(dtype, pl.Categorical | pl.Enum):
        return column.cast(pl.String)
    if dtype.is_integer() and dtype not in (pl.Int128, pl.UInt128):
        return column.cast(pl.Int64)
    if isinstance(dtype, pl.Datetime):
        return utc(column, dtype)
    if isinstance(dtype, pl.List):
        return column.list.eval(expression(pl.element(), instance(dtype.inner), what))
    if isinstance(dtype, pl.Array):
        return expression(column.arr.to_list(), pl.List(instance(dtype.inner)), what)
    if isinstance(dtype, pl.Struct) and dtype.fields:
        fields = [expression(column.struct.field(f.name), instance(f.dtype), what).alias(f.name) for f in dtype.fields]
        return pl.when(column.is_not_null()).then(pl.struct(fields))
    cast = next((text for refused, text in _CASTS.items() if dtype == refused), "cast(pl.String)")
    raise DataError(f"{what} is {dtype}, which no store can hold: use .{cast} in the function.")


def utc(column: pl.Expr, dtype: pl.Datetime) -> pl.Expr:
    """An instant in microseconds, UTC: the naive are taken as UTC, nanoseconds are rounded down.

    >>> pl.select(utc(pl.lit(-1).cast(pl.Datetime("ns")), pl.Datetime("ns"))).item().isoformat()
    '1969-12-31T23:59:59.999999+00:00'
    """
    if dtype.time_unit == "ns":
        return (column.to_physical() // 1000).cast(INSTANT)
    instant = column.cast(pl.Datetime("us", dtype.time_zone))
    return instant.dt.convert_time_zone("UTC") if dtype.time_zone else instant.dt.replace_time_zone("UTC")


def instance(dtype: pl.DataType | DataTypeClass) -> pl.DataType:
    """The dtype inside a nested one, which Polars may give as a class."""
    return dtype if isinstance(dtype, pl.DataType) else dtype()
