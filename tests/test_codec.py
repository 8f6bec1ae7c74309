import datetime as dt
import fractions
import json
import math
import uuid
from collections.abc import Mapping
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mlforge.errors import DataError, RequestError, StoreError
from mlforge.online.codec import (
    SchemaMismatchError,
    decode,
    decode_all,
    encode,
    encode_expr,
    schema_from_json,
    schema_to_json,
    to_columns,
    to_frame,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "docs" / "reference" / "value-vectors.json").read_text())
INSTANT = pl.Datetime("us", "UTC")

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
# What Polars takes for a pattern is refused before it gets here, by mlforge.storable.
column_names = text.filter(lambda name: name != "*" and not (name.startswith("^") and name.endswith("$")))
instants = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30), timezones=st.just(dt.UTC))
scalars: list[tuple[pl.DataType, st.SearchStrategy[Any]]] = [
    (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    (pl.Float64(), st.floats()),
    (pl.Float32(), st.floats(width=32)),
    (pl.String(), text),
    (pl.Boolean(), st.booleans()),
    (pl.Date(), st.dates()),
    (INSTANT, instants),
    (pl.Decimal(38, 5), st.integers(-(10**38) + 1, 10**38 - 1).map(lambda i: Decimal(i).scaleb(-5, Context(prec=38)))),
]


def nested(inner: tuple[pl.DataType, st.SearchStrategy[Any]]) -> list[tuple[pl.DataType, st.SearchStrategy[Any]]]:
    dtype, values = inner
    items = st.none() | values
    structs = st.fixed_dictionaries({"x": items, "é y": st.none() | st.lists(items, max_size=2)})
    struct = pl.Struct({"x": dtype, "é y": pl.List(dtype)})
    outer = st.fixed_dictionaries({"in": st.none() | structs, "x": items})
    return [
        inner,
        (pl.List(dtype), st.lists(items, max_size=3)),
        (pl.List(pl.List(dtype)), st.lists(st.none() | st.lists(items, max_size=2), max_size=2)),
        (struct, structs),
        (pl.List(struct), st.lists(st.none() | structs, max_size=2)),
        (pl.Struct({"in": struct, "x": dtype}), outer),
    ]


storable = st.sampled_from([pair for scalar in scalars for pair in nested(scalar)])


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    """Up to four rows of up to three columns of any storable dtypes."""
    kinds = draw(st.lists(storable, min_size=1, max_size=3))
    height = draw(st.integers(0, 4))
    names = draw(st.lists(column_names, min_size=len(kinds), max_size=len(kinds), unique=True))
    data = [
        pl.Series(name, draw(st.lists(st.none() | values, min_size=height, max_size=height)), dtype=dtype)
        for name, (dtype, values) in zip(names, kinds, strict=True)
    ]
    return pl.DataFrame(data)


def encoded(frame: pl.DataFrame) -> list[str]:
    return frame.select(encode_expr(frame.schema)).to_series().to_list()


def finite(value: Any) -> Any:
    """The same without NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [finite(item) for item in value]
    return {name: finite(item) for name, item in value.items()} if isinstance(value, dict) else value


def bits(value: Any) -> Any:
    """Equal only where the sign of zero is, too."""
    return repr(value)


@given(frames())
def test_any_frame_comes_back_exactly_and_reads_as_a_row_by_row_write(frame: pl.DataFrame) -> None:
    rows = frame.to_dicts()
    texts = encoded(frame)
    assert texts == [encode(row).decode() for row in rows]
    back = to_frame([decode(text, what="key") for text in texts], frame.schema)
    assert back.schema == frame.schema
    assert list(map(bits, back.to_dicts())) == [bits(finite(row)) for row in rows]
    assert schema_from_json(schema_to_json(frame.schema)) == dict(frame.schema)


def golden_value(value: Any, dtype: pl.DataType) -> Any:
    if value is None:
        return None
    if isinstance(dtype, pl.List):
        return [golden_value(item, dtype.inner) for item in value]
    if isinstance(dtype, pl.Struct):
        return {field.name: golden_value(value[field.name], field.dtype) for field in dtype.fields}
    if isinstance(dtype, pl.Date):
        return dt.date.fromisoformat(value)
    if isinstance(dtype, pl.Datetime):
        return dt.datetime.fromisoformat(value)
    if isinstance(dtype, pl.Decimal):
        return Decimal(value)
    return float(value) if isinstance(dtype, pl.Float32 | pl.Float64) else value


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: ascii(case["json"])[:40])
def test_golden_values_hold(case: dict[str, Any]) -> None:
    schema = schema_from_json(json.dumps(case["schema"]))
    assert json.loads(schema_to_json(schema)) == case["schema"]
    values = {name: golden_value(value, schema[name]) for name, value in case["values"].items()}
    frame = pl.DataFrame([values], schema=schema) if schema else pl.DataFrame(height=1)
    assert encode(frame.row(0, named=True)).decode() == case["json"]
    assert encoded(frame.with_columns(_=pl.lit(1)).select("_", *schema).drop("_") if schema else frame) == [
        case["json"]
    ]
    assert to_frame([decode(case["json"], what="key")], schema).schema == pl.Schema(schema)


def test_a_missing_entity_is_a_row_of_nulls() -> None:
    schema = {"a": pl.Int64(), "l": pl.List(pl.String()), "s": pl.Struct({"d": pl.Date()})}
    found = {"a": 1, "l": ["x"], "s": {"d": "2026-01-31"}}
    frame = to_frame([None, found, None], schema)
    want = [
        {"a": 1, "l": ["x"], "s": {"d": dt.date(2026, 1, 31)}} if i == 1 else dict.fromkeys(schema) for i in range(3)
    ]
    assert_frame_equal(frame, pl.DataFrame(want, schema=schema))
    assert to_frame([None, {}], {}).height == 2


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (Decimal("1E+2"), "100"),
        (Decimal("NaN"), None),
        (Decimal("-1.50"), "-1.50"),
        (fractions.Fraction(1, 2), 0.5),
        ((1, 2), [1, 2]),
        (dt.datetime(2026, 1, 31, 12), "2026-01-31T12:00:00.000000Z"),
        (dt.datetime(2026, 1, 31, 13, tzinfo=dt.timezone(dt.timedelta(hours=1))), "2026-01-31T12:00:00.000000Z"),
        ({"a": [float("inf")]}, {"a": [None]}),
    ],
    ids=repr,
)
def test_python_values_have_one_text(value: Any, want: Any) -> None:
    assert decode(encode({"x": value}), what="key") == {"x": want}


@pytest.mark.parametrize(
    "value",
    [
        b"x",
        [b"x"],
        {"a": b"x"},
        {1: "a"},
        ...,
        uuid.UUID(int=7),
        dt.time(1),
        dt.timedelta(1),
        2**63,
        -(2**63) - 1,
        "\ud800",
    ],
    ids=ascii,
)
def test_what_no_store_holds_is_refused_with_the_name_of_the_column(value: Any) -> None:
    if isinstance(value, dict) and 1 in value:
        with pytest.raises(RequestError, match="names are strings"):
            encode({"amount": value})
        return
    with pytest.raises(RequestError, match="'amount'"):
        encode({"fine": 1, "amount": value})


@pytest.mark.parametrize("payload", [b"", b"{", b"[1]", b"null", b"1.5", b'"x"', b"\xff", b'{"a":NaN}', "{'a':1}"])
def test_damaged_values_are_an_error_that_names_the_key_and_never_missing(payload: bytes | str) -> None:
    with pytest.raises(StoreError, match="mlforge:f:0123 holds no JSON"):
        decode(payload, what="mlforge:f:0123")


DAMAGED = [b"", b"{", b"[1]", b"null", b"1.5", b"\xff", b'{"a":1},{"a":2}', b'{"a":1', b'"a":1}', b",", b"{}]", b"[{}"]


@given(st.lists(st.none() | st.dictionaries(text, st.none() | st.integers(0, 9) | text, max_size=2), max_size=5))
def test_many_values_at_once_are_what_each_is_alone(rows: list[dict[str, Any] | None]) -> None:
    payloads = [None if row is None else encode(row) for row in rows]
    assert decode_all(payloads, what=["key"] * len(rows)) == rows


@given(st.lists(st.sampled_from([None, b"{}", b'{"a":1}', *DAMAGED]), max_size=5))
def test_no_damage_hides_among_many_values_and_none_shifts_them(payloads: list[bytes | None]) -> None:
    keys = [f"mlforge:f:{number:032}" for number in range(len(payloads))]
    damaged = next((key for key, payload in zip(keys, payloads, strict=True) if payload in DAMAGED), None)
    if damaged is None:
        assert decode_all(payloads, what=keys) == [p if p is None else json.loads(p) for p in payloads]
    else:
        with pytest.raises(StoreError, match=f"{damaged} holds no JSON"):
            decode_all(payloads, what=keys)


MISFITS: list[tuple[pl.DataType, Any]] = [
    (pl.Int64(), 1.5),
    (pl.Int64(), 2.0),
    (pl.Int64(), True),
    (pl.Int64(), "1"),
    (pl.Int64(), 2**63),
    (pl.Float64(), "1.5"),
    (pl.Float64(), True),
    (pl.Float32(), 1e300),
    (pl.String(), 1),
    (pl.Boolean(), 1),
    (pl.Boolean(), "true"),
    (pl.Date(), "2026-13-01"),
    (pl.Date(), "2026-01-31T12:00:00.000000Z"),
    (pl.Date(), 1),
    (INSTANT, "2026-01-31"),
    (INSTANT, "2026-01-31T12:00:00.000000"),
    (pl.Decimal(10, 2), "1.125"),
    (pl.Decimal(10, 2), "123456789012"),
    (pl.Decimal(10, 2), "1e2"),
    (pl.Decimal(10, 2), 1.5),
    (pl.List(pl.Int64()), 1),
    (pl.List(pl.Int64()), [1, "x"]),
    (pl.List(pl.Int64()), {"a": 1}),
    (pl.Struct({"a": pl.Int64()}), [1]),
    (pl.Struct({"a": pl.Int64()}), {"b": 1}),
    (pl.Struct({"a": pl.Int64()}), {"a": 1, "b": 1}),
    (pl.Struct({"a": pl.Int64()}), {"a": "x"}),
]


@pytest.mark.parametrize(("dtype", "value"), MISFITS, ids=str)
def test_a_value_that_does_not_fit_the_schema_is_an_error_of_its_own(dtype: pl.DataType, value: Any) -> None:
    with pytest.raises(SchemaMismatchError, match=r"'amount(\.a)?' is .*, but the store holds"):
        to_frame([{"amount": value}, None, {"amount": None}], {"amount": dtype})


@pytest.mark.parametrize(("dtype", "value"), MISFITS, ids=str)
def test_it_is_one_among_many_values_and_with_a_lenient_reader_too(dtype: pl.DataType, value: Any) -> None:
    rows = [{"amount": None}] * 200 + [{"amount": value}]
    with pytest.raises(SchemaMismatchError, match=r"'amount(\.a)?' is .*, but the store holds"):
        to_frame(rows, {"amount": dtype})
    with pytest.raises(SchemaMismatchError, match=r"'amount(\.a)?' is .*, but the store holds"):
        to_columns(rows, {"amount": dtype}, lenient=True)


@pytest.mark.parametrize("row", [{}, {"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "c": 2}])
def test_other_columns_than_the_schema_are_an_error_that_names_them(row: Mapping[str, Any]) -> None:
    with pytest.raises(SchemaMismatchError, match=r"differ in '[abc]'"):
        to_frame([None, row], {"a": pl.Int64(), "b": pl.Int64()})


@pytest.mark.parametrize("many", [1, 200])
def test_a_lenient_reader_fills_in_and_leaves_out_columns(many: int) -> None:
    rows: list[Mapping[str, Any] | None] = [{}, None, {"b": 2.5, "a": 1}, {"c": "x", "a": 3}] * many
    columns = to_columns(rows, {"a": pl.Int64(), "b": pl.Float64()}, lenient=True)
    assert pl.DataFrame(columns).rows() == [(None, None), (None, None), (1, 2.5), (3, None)] * many


@pytest.mark.parametrize("many", [1, 200])
def test_the_order_of_a_values_columns_does_not_matter(many: int) -> None:
    schema = {"a": pl.Int64(), "b": pl.Float64(), "c": pl.String(), "d": pl.Boolean()}
    row = {"d": True, "b": 2, "c": "x", "a": 3}
    assert to_frame([row, None] * many, schema).rows() == [(3, 2.0, "x", True), (None,) * 4] * many


def test_whole_numbers_and_shorter_decimals_fit() -> None:
    schema = {"f": pl.Float64(), "d": pl.Decimal(10, 2)}
    rows = to_frame([{"f": 1, "d": "1.5"}, {"f": 2.5, "d": "1.5000"}], schema).rows()
    assert rows == [(1.0, Decimal("1.50")), (2.5, Decimal("1.50"))]


@pytest.mark.parametrize(
    "dtype", [pl.Time(), pl.Duration(), pl.Binary(), pl.Int32(), pl.Datetime("us"), pl.Null()], ids=str
)
def test_a_dtype_that_no_store_holds_is_refused_by_name(dtype: pl.DataType) -> None:
    with pytest.raises(DataError, match="'amount' is"):
        schema_to_json({"amount": dtype})
    with pytest.raises(DataError, match="'amount' is"):
        schema_to_json({"amount": pl.List(dtype)}) if dtype != pl.Null() else schema_to_json({"amount": dtype})


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a":"Int32"}', '{"a":["Tuple","Int64"]}', '{"a":["List"]}', '{"a":[]}', '{"a":1}']
)
def test_a_schema_of_another_release_is_an_error_that_shows_it(text: str) -> None:
    with pytest.raises(StoreError, match="is not a schema"):
        schema_from_json(text)
