"""Feature values as JSON text and back: the one format of a value in an online store.

A value is one flat JSON object of the feature's columns. Floats stand in shortest round-trip form, NaN and
infinities as null, whole numbers exactly, decimals as strings with all their digits, dates as `2026-01-31`,
datetimes as `2026-01-31T12:00:00.000000Z`, lists and structs nested. `encode` (from Python) and `encode_expr` (a
whole frame) write the same text for the same values.
"""

import contextlib
import datetime as dt
import numbers
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson
import polars as pl

from mlforge.errors import DataError, RequestError, StoreError
from mlforge.instant import INSTANT
from mlforge.online.keys import DATE_TEXT, UTC_TEXT, utc_text
from mlforge.storable import instance

# Raised whenever the text of a value changes: what was written with another number is written anew.
CODEC_VERSION = 1


_PLAIN = {
    "Int64": pl.Int64(),
    "Float64": pl.Float64(),
    "Float32": pl.Float32(),
    "String": pl.String(),
    "Boolean": pl.Boolean(),
    "Date": pl.Date(),
    "Datetime": INSTANT,
}
# What orjson gives for a value of a dtype; everything else there is a misfit.
_TYPES: dict[pl.DataType, frozenset[type]] = {
    pl.Int64(): frozenset({int, type(None)}),
    pl.Float64(): frozenset({float, int, type(None)}),
    pl.Float32(): frozenset({float, int, type(None)}),
    pl.String(): frozenset({str, type(None)}),
    pl.Boolean(): frozenset({bool, type(None)}),
}
_TEXT = frozenset({str, type(None)})
# Up to here a frame is made faster of its rows than of its columns.
FEW_ROWS = 100


class DamagedValueError(StoreError):
    """What is stored for an entity is no value at all."""


class SchemaMismatchError(StoreError):
    """A stored value does not fit the schema it is read with.

    Whoever cached the schema fetches it again and tries once more: a rebuild may have changed it in between. If it
    still does not fit, the store holds something that mlforge did not put there.
    """


def encode(values: Mapping[str, Any]) -> bytes:
    """The values of one entity as JSON text in UTF-8.

    >>> encode({"amount__sum__7d": 1500.0, "amount__mean__7d": float("nan")})
    b'{"amount__sum__7d":1500.0,"amount__mean__7d":null}'

    Raises:
        RequestError: A value is of a type that no feature column can have; the message names the column.
    """
    plain = {_name(column): _plain(column, value) for column, value in values.items()}
    try:
        return orjson.dumps(plain)
    except TypeError:
        for column, value in plain.items():
            try:
                orjson.dumps({column: value})
            except TypeError as error:
                raise RequestError(f"Column {column!r} holds a value that JSON cannot: {error}.") from None
        raise


def encode_expr(schema: Mapping[str, pl.DataType]) -> pl.Expr:
    """`encode` for every row of a frame, as a String expression; the columns stand in the schema's order."""
    if not schema:
        return pl.lit("{}")
    fields = [_wire(pl.col(name), dtype).alias(name) for name, dtype in pl.Schema(schema).items()]
    return pl.struct(fields).struct.json_encode()


def decode(payload: bytes | str, *, what: str) -> dict[str, Any]:
    """The values in a stored JSON text; dates, datetimes and decimals stay text.

    Args:
        payload: What the store holds.
        what: What to call it in an error: the Redis key.

    Raises:
        DamagedValueError: It is not a JSON object. Damaged is never the same as missing.
    """
    try:
        values = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise DamagedValueError(f"{what} holds no JSON ({error}): build the feature online again.") from None
    if not isinstance(values, dict):
        raise DamagedValueError(f"{what} holds no JSON object but {values!r}: build the feature online again.")
    return values


def parsed(payloads: Sequence[bytes | None]) -> list[Any]:
    """The values in many stored texts, None where there is none; if one text is damaged, all texts as they are."""
    present = [payload for payload in payloads if payload is not None]
    try:
        # One parse for all of them is faster.
        rows: list[Any] = orjson.loads(b"[%b]" % b",".join(present))
    except orjson.JSONDecodeError:
        return list(payloads)
    if len(rows) != len(present) or not {dict}.issuperset(map(type, rows)):
        return list(payloads)
    if len(present) == len(payloads):
        return rows
    found = iter(rows)
    return [None if payload is None else next(found) for payload in payloads]


def decode_all(payloads: Sequence[Any], *, what: Iterable[str]) -> list[dict[str, Any] | None]:
    """`decode` for many texts at once; None where there is none.

    Args:
        payloads: What the store holds, or what `parsed` has made of it.
        what: What to call each of them in an error: the Redis keys.

    Raises:
        DamagedValueError: One of them is not a JSON object; the message says which.
    """
    kinds = set(map(type, payloads))
    rows = parsed(payloads) if bytes in kinds and dict not in kinds else list(payloads)
    if bytes not in kinds or bytes not in set(map(type, rows)):
        return rows
    return [decode(row, what=key) if isinstance(row, bytes) else row for row, key in zip(rows, what, strict=True)]


def to_frame(values: Sequence[Mapping[str, Any] | None], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Decoded values as a frame in the offline dtypes, one row each; None gives a row of nulls.

    Raises:
        SchemaMismatchError: A value has other columns than the schema, or one of another type.
    """
    return pl.DataFrame(to_columns(values, schema)) if schema or any(values) else pl.DataFrame(height=len(values))


def to_columns(
    values: Sequence[Mapping[str, Any] | None], schema: Mapping[str, pl.DataType], *, lenient: bool = False
) -> list[pl.Series]:
    """The columns of `to_frame`, in the order of the schema.

    Args:
        values: The values of one entity each.
        schema: The columns and their dtypes.
        lenient: Take a column that a value lacks as null, and leave out those that the schema does not have.

    Raises:
        SchemaMismatchError: As for `to_frame`.
    """
    nulls = dict.fromkeys(schema)
    rows = [nulls if row is None else row for row in values]
    if lenient:
        rows = [{name: row.get(name) for name in schema} for row in rows]
    try:
        columns = [(name, [row[name] for row in rows]) for name in schema]
    except KeyError:
        raise _other_columns(rows, schema) from None
    if not {len(schema)}.issuperset(map(len, rows)):
        raise _other_columns(rows, schema)
    if len(rows) <= FEW_ROWS and all(_by_row(items, schema[name]) for name, items in columns):
        # A number that is too large is said better below.
        with contextlib.suppress(pl.exceptions.PolarsError):
            return pl.DataFrame(rows, schema=schema).get_columns()
    return [_series(name, items, schema[name]) for name, items in columns]


def schema_to_json(schema: Mapping[str, pl.DataType]) -> str:
    """Column names and dtypes as the JSON text that the status holds.

    >>> schema_to_json({"amount__sum__7d": pl.Float64(), "tags": pl.List(pl.String())})
    '{"amount__sum__7d":"Float64","tags":["List","String"]}'

    Raises:
        DataError: A column has a dtype that no store holds.
    """
    return orjson.dumps({name: _described(name, dtype) for name, dtype in pl.Schema(schema).items()}).decode()


def schema_from_json(text: str | bytes) -> dict[str, pl.DataType]:
    """The schema that `schema_to_json` wrote.

    Raises:
        StoreError: The text is no such schema.
    """
    try:
        return {name: _dtype(described) for name, described in orjson.loads(text).items()}
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError, LookupError) as error:
        raise StoreError(f"{text!r} is not a schema that this release reads ({error}).") from None


def _name(column: Any) -> str:
    if not isinstance(column, str):
        raise RequestError(f"{column!r} cannot be a column: names are strings.")
    return column


def _plain(column: str, value: Any) -> Any:
    kind = type(value)
    if kind is str or kind is float or kind is bool or value is None:
        return value
    if isinstance(value, numbers.Integral):
        number = int(value)
        if not -(2**63) <= number < 2**63:
            raise RequestError(f"Column {column!r} holds {number}, which is beyond 64 bits.")
        return number
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else None
    if isinstance(value, dt.datetime):
        return utc_text(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [_plain(column, item) for item in value]
    if isinstance(value, Mapping):
        return {_name(field): _plain(column, item) for field, item in value.items()}
    raise RequestError(
        f"Column {column!r} holds {value!r} ({kind.__name__}), which an online store cannot hold: "
        "use a number, a string, a boolean, a date, a datetime, a Decimal, or lists and dicts of these."
    )


def _wire(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Cast so that `struct.json_encode` writes what `encode` writes: it has other texts for some dtypes."""
    if isinstance(dtype, pl.Float32):
        # Its own shortest digits are fewer: 0.1 would not be the number that the training frame shows.
        return value.cast(pl.Float64)
    if isinstance(dtype, pl.Datetime):
        utc = value if dtype.time_zone is None else value.dt.convert_time_zone("UTC")
        return utc.dt.strftime(UTC_TEXT)
    if isinstance(dtype, pl.Date):
        return value.dt.strftime(DATE_TEXT)
    if isinstance(dtype, pl.List) and _needs_cast(dtype):
        return value.list.eval(_wire(pl.element(), instance(dtype.inner)))
    if isinstance(dtype, pl.Struct) and _needs_cast(dtype):
        # Not with_fields: Polars mixes up the fields of structs in structs.
        fields = [
            _wire(value.struct.field(field.name), instance(field.dtype)).alias(field.name) for field in dtype.fields
        ]
        return pl.when(value.is_not_null()).then(pl.struct(fields))
    return value


def _needs_cast(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List):
        return _needs_cast(instance(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return any(_needs_cast(instance(field.dtype)) for field in dtype.fields)
    return isinstance(dtype, pl.Float32 | pl.Datetime | pl.Date)


def _by_row(items: list[Any], dtype: pl.DataType) -> bool:
    """Whether Polars makes of dicts with these items exactly what `_series` makes."""
    return dtype != pl.Float32 and _TYPES.get(dtype, frozenset()).issuperset(map(type, items))


def _series(name: str, items: list[Any], dtype: pl.DataType) -> pl.Series:
    allowed = _TYPES.get(dtype, _TEXT)
    if isinstance(dtype, pl.List):
        return _list_series(name, items, dtype)
    if isinstance(dtype, pl.Struct):
        return _struct_series(name, items, dtype)
    if not allowed.issuperset(map(type, items)):
        odd = next(item for item in items if type(item) not in allowed)
        raise _misfit(name, odd, dtype)
    try:
        if dtype in _TYPES:
            return _numbers(name, items, dtype)
        return _from_text(pl.Series(name, items, dtype=pl.String), dtype)
    except (pl.exceptions.PolarsError, TypeError, OverflowError):
        raise _misfit(name, items, dtype) from None


def _numbers(name: str, items: list[Any], dtype: pl.DataType) -> pl.Series:
    if dtype != pl.Float32:
        return pl.Series(name, items, dtype=dtype)
    series = pl.Series(name, items, dtype=pl.Float64).cast(dtype)
    if series.is_infinite().any():
        raise OverflowError
    return series


def _from_text(text: pl.Series, dtype: pl.DataType) -> pl.Series:
    if isinstance(dtype, pl.Date):
        return text.str.to_date(DATE_TEXT)
    if isinstance(dtype, pl.Decimal):
        # Polars would round digits away that do not fit.
        if not text.str.contains(rf"^-?[0-9]+(\.[0-9]{{0,{dtype.scale}}}0*)?$").all():
            raise OverflowError
        return text.cast(dtype)
    if dtype == INSTANT:
        return text.str.to_datetime(UTC_TEXT, time_unit="us").dt.replace_time_zone("UTC")
    raise DataError(f"Column {text.name!r} is {dtype}, which no store holds.")


def _list_series(name: str, items: list[Any], dtype: pl.List) -> pl.Series:
    odd = [item for item in items if not (item is None or isinstance(item, list))]
    if odd:
        raise _misfit(name, odd[0], dtype)
    flat = [element for item in items if item is not None for element in item]
    elements = iter(_series(name, flat, instance(dtype.inner)).to_list())
    lists = [None if item is None else [next(elements) for _ in item] for item in items]
    return pl.Series(name, lists, dtype=dtype)


def _struct_series(name: str, items: list[Any], dtype: pl.Struct) -> pl.Series:
    names = {field.name for field in dtype.fields}
    for item in items:
        if item is not None and not (isinstance(item, dict) and item.keys() == names):
            raise _misfit(name, item, dtype)
    fields = []
    for field in dtype.fields:
        values = [None if item is None else item[field.name] for item in items]
        fields.append(_series(f"{name}.{field.name}", values, instance(field.dtype)).alias(field.name))
    present = pl.lit(pl.Series([item is not None for item in items], dtype=pl.Boolean))
    structs = pl.lit(pl.DataFrame(fields).to_struct())
    return pl.select(pl.when(present).then(structs).alias(name)).to_series()


def _other_columns(rows: Sequence[Mapping[str, Any]], schema: Mapping[str, pl.DataType]) -> SchemaMismatchError:
    odd = next(row.keys() ^ schema.keys() for row in rows if row.keys() != schema.keys())
    return SchemaMismatchError(f"A stored value and its schema differ in {', '.join(map(repr, sorted(odd)))}.")


def _misfit(name: str, value: Any, dtype: pl.DataType) -> SchemaMismatchError:
    shown = repr(value)
    shown = shown if len(shown) <= 100 else shown[:97] + "..."
    return SchemaMismatchError(f"Column {name!r} is {dtype}, but the store holds {shown} for it.")


def _described(name: str, dtype: pl.DataType) -> Any:
    if isinstance(dtype, pl.List):
        return ["List", _described(name, instance(dtype.inner))]
    if isinstance(dtype, pl.Struct):
        return ["Struct", {field.name: _described(name, instance(field.dtype)) for field in dtype.fields}]
    if isinstance(dtype, pl.Decimal):
        return ["Decimal", dtype.precision, dtype.scale]
    for text, plain in _PLAIN.items():
        if plain == dtype:
            return text
    raise DataError(f"Column {name!r} is {dtype}, which no store holds: cast it in the feature's function.")


def _dtype(described: Any) -> pl.DataType:
    if isinstance(described, str):
        return _PLAIN[described]
    kind, *arguments = described
    if kind == "List":
        return pl.List(_dtype(arguments[0]))
    if kind == "Struct":
        return pl.Struct({field: _dtype(inner) for field, inner in arguments[0].items()})
    if kind == "Decimal":
        return pl.Decimal(*arguments)
    raise ValueError(f"unknown dtype {kind!r}")
