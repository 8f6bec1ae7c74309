"""The table of storable types, row by row: written to a real Delta table and read back."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

import mlforge as mlf
from mlforge import Definitions
from mlforge.build import BuildReport
from mlforge.errors import DataError
from mlforge.storable import storable
from mlforge.store import LocalStore

UTC_TIME = pl.Datetime("us", "UTC")
KOLKATA = ZoneInfo("Asia/Kolkata")
NOON = datetime(2026, 1, 31, 12)


class Frame(mlf.Source):
    """A frame in memory."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self.frame = frame

    def scan(self) -> pl.LazyFrame:
        return self.frame.lazy()


def build(frame: pl.DataFrame, folder: Path, keys: Sequence[str] = ("k",)) -> tuple[BuildReport, pl.DataFrame]:
    feature = mlf.feature(keys=list(keys), source=Frame(frame), name="typed")(lambda df: df)
    store = LocalStore(folder / "store")
    (report,) = Definitions(features=[feature], store=store).build(force=True)
    snapshot = store.open("typed")
    assert snapshot is not None
    return report, snapshot.at(NOON.replace(tzinfo=UTC))


def column(values: Sequence[Any], dtype: Any) -> pl.DataFrame:
    return pl.DataFrame({"k": range(len(values)), "v": pl.Series(values, dtype=dtype)})


SIGNED = {pl.Int8: 8, pl.Int16: 16, pl.Int32: 32, pl.Int64: 64}
UNSIGNED = {pl.UInt8: 8, pl.UInt16: 16, pl.UInt32: 32, pl.UInt64: 63}
KEPT = [
    ([None, "", "späße 🎈\x00"], pl.String, pl.String),
    ([None, True, False], pl.Boolean, pl.Boolean),
    *(([None, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1], dtype, pl.Int64) for dtype, bits in SIGNED.items()),
    *(([None, 0, 2**bits - 1], dtype, pl.Int64) for dtype, bits in UNSIGNED.items()),
    ([None, 1.5, -0.0, 1e300, 5e-324], pl.Float64, pl.Float64),
    ([None, 1.5, 3.4e38], pl.Float32, pl.Float32),
    ([None, date(1, 1, 1), date(1969, 12, 31), date(9999, 12, 31)], pl.Date, pl.Date),
    ([None, Decimal("0.10"), Decimal("-99999999.99")], pl.Decimal(10, 2), pl.Decimal(10, 2)),
    ([None, Decimal(10**37)], pl.Decimal(38, 0), pl.Decimal(38, 0)),
    ([None, "b", "a"], pl.Categorical, pl.String),
    ([None, "b", "a"], pl.Enum(["b", "a"]), pl.String),
    ([None, [], [None, "x"]], pl.List(pl.String), pl.List(pl.String)),
    ([None, [1, None]], pl.List(pl.UInt8), pl.List(pl.Int64)),
    ([None, [1, 2]], pl.Array(pl.Int16, 2), pl.List(pl.Int64)),
    ([None, [[1, 2], [3, 4]]], pl.Array(pl.Int16, (2, 2)), pl.List(pl.List(pl.Int64))),
    ([None, {"x": None, "y": ["a"]}], pl.Struct({"x": pl.Int64, "y": pl.List(pl.String)}), None),
    ([None, [{"x": 1.0}, None]], pl.List(pl.Struct({"x": pl.Float64})), None),
]


@pytest.mark.parametrize(("values", "dtype", "stored"), KEPT, ids=lambda item: str(item) if item is not None else "")
def test_values_are_intact_after_a_build(values: list[Any], dtype: Any, stored: Any, tmp_path: Path) -> None:
    _, rows = build(column(values, dtype), tmp_path)
    assert rows.schema["v"] == (dtype if stored is None else stored)
    assert rows["v"].to_list() == pl.Series(values, dtype=dtype).to_list()


@pytest.mark.parametrize(("values", "dtype", "stored"), KEPT, ids=lambda item: str(item) if item is not None else "")
def test_the_same_values_again_are_unchanged(values: list[Any], dtype: Any, stored: Any, tmp_path: Path) -> None:
    build(column(values, dtype), tmp_path)
    report, _ = build(column(values, dtype), tmp_path)
    assert (report.outcome, report.version) == ("unchanged", "1.0.0")


@pytest.mark.parametrize("dtype", [pl.Float32, pl.Float64])
def test_what_is_not_finite_is_null_also_inside(dtype: Any, tmp_path: Path) -> None:
    strange = [float("nan"), float("inf"), float("-inf"), 1.0]
    frame = column(strange, dtype).with_columns(
        inside=pl.Series([[item] for item in strange], dtype=pl.List(dtype)),
        field=pl.struct(x="v"),
    )
    _, rows = build(frame, tmp_path)
    assert rows["v"].to_list() == [None, None, None, 1.0]
    assert rows["inside"].to_list() == [[None], [None], [None], [1.0]]
    assert rows["field"].to_list() == [{"x": None}, {"x": None}, {"x": None}, {"x": 1.0}]


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Kolkata"])
def test_every_datetime_becomes_microseconds_in_utc(unit: Any, zone: str | None, tmp_path: Path) -> None:
    dtype = pl.Datetime(unit, zone)
    times = [None, NOON, datetime(1900, 1, 1, 0, 0, 0, 1000)]
    own = pl.Series(times, dtype=pl.Datetime("us")).cast(pl.Datetime(unit)).dt.replace_time_zone(zone)
    frame = pl.DataFrame({"k": range(3), "v": own, "inside": [[item] for item in own]}, schema_overrides={
        "inside": pl.List(dtype)
    })  # fmt: skip
    _, rows = build(frame, tmp_path)
    assert rows.schema["v"] == UTC_TIME
    assert rows.schema["inside"] == pl.List(UTC_TIME)
    meant = [None if item is None else item.replace(tzinfo=ZoneInfo(zone or "UTC")).astimezone(UTC) for item in times]
    assert rows["v"].to_list() == meant
    assert rows["inside"].to_list() == [[item] for item in meant]


def test_nanoseconds_are_rounded_down_also_before_1970(tmp_path: Path) -> None:
    values = pl.Series([1_999, 1_000, 999, 0, -1, -1_000, -1_001]).cast(pl.Datetime("ns"))
    _, rows = build(pl.DataFrame({"k": range(7), "v": values}), tmp_path)
    assert rows["v"].to_physical().to_list() == [1, 1, 0, 0, -1, -1, -2]


REFUSED: list[tuple[list[Any], Any, str]] = [
    ([time(12)], pl.Time, "column 'v' is Time, which no store can hold: use .cast(pl.String)"),
    ([timedelta(1)], pl.Duration, "column 'v' is Duration(time_unit='us'), which no store can hold: use .dt.total"),
    ([b"x"], pl.Binary, "column 'v' is Binary, which no store can hold: use .bin.encode('hex')"),
    ([1], pl.Int128, "column 'v' is Int128, which no store can hold: use .cast(pl.Int64) or cast(pl.Decimal(38, 0))"),
    ([1], pl.UInt128, "column 'v' is UInt128, which no store can hold: use .cast("),
    ([1.0], pl.Float16, "column 'v' is Float16, which no store can hold: use .cast(pl.Float32)"),
    ([...], pl.Object, "column 'v' is Object"),
    ([None], pl.Null, "column 'v' is Null, which no store can hold: use .cast(pl.Float64)"),
    ([[b"x"]], pl.List(pl.Binary), "column 'v' is Binary"),
    ([[]], pl.List(pl.Null), "column 'v' is Null"),
    ([{"x": time(12)}], pl.Struct({"x": pl.Time}), "column 'v' is Time"),
    ([{}], pl.Struct({}), "column 'v' is Struct"),
    ([2**63], pl.UInt64, "column 'v' holds 9223372036854775808, which is beyond Int64: cast it to Float64 or String"),
    ([[2**63]], pl.List(pl.UInt64), "beyond Int64"),
    ([{"x": 2**64 - 1}], pl.Struct({"x": pl.UInt64}), "beyond Int64"),
]


@pytest.mark.parametrize(("values", "dtype", "says"), REFUSED, ids=lambda item: str(item)[:40])
def test_what_no_store_can_hold_is_refused_with_the_cast(
    values: list[Any], dtype: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        build(column(values, dtype), tmp_path)
    assert "Feature 'typed'" in str(caught.value)
    assert says in str(caught.value)
    assert not (tmp_path / "store" / "typed").exists()


def test_an_instant_beyond_microseconds_is_refused(tmp_path: Path) -> None:
    far = pl.Series([1_700_000_000_000_000_000]).cast(pl.Datetime("ms"))
    with pytest.raises(DataError, match="column 'v' holds an instant 1700000000000000000 milliseconds from 1970"):
        build(pl.DataFrame({"k": [1], "v": far}), tmp_path)


@pytest.mark.parametrize(
    ("keys", "dtype", "stored"),
    [
        (["a", "b"], pl.String, ["a", "b"]),
        (["a", "b"], pl.Categorical, ["a", "b"]),
        ([1, 2], pl.UInt8, [1, 2]),
        ([False, True], pl.Boolean, [False, True]),
        ([date(2026, 1, 1), date(2026, 1, 2)], pl.Date, [date(2026, 1, 1), date(2026, 1, 2)]),
        (
            [NOON, NOON + timedelta(1)],
            pl.Datetime("ms"),
            [datetime(2026, 1, 31, 12, tzinfo=UTC), datetime(2026, 2, 1, 12, tzinfo=UTC)],
        ),
    ],
)
def test_keys_are_strings_integers_booleans_dates_and_datetimes(
    keys: list[Any], dtype: Any, stored: list[Any], tmp_path: Path
) -> None:
    _, rows = build(pl.DataFrame({"k": pl.Series(keys, dtype=dtype), "v": [1, 2]}), tmp_path)
    assert rows["k"].to_list() == stored


@pytest.mark.parametrize(
    ("keys", "dtype"),
    [
        ([1.0], pl.Float64),
        ([1.0], pl.Float32),
        ([Decimal(1)], pl.Decimal(10, 0)),
        ([["a"]], pl.List(pl.String)),
        ([{"x": 1}], pl.Struct({"x": pl.Int64})),
    ],
)
def test_other_keys_are_refused_with_the_cast(keys: list[Any], dtype: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the key column 'k' is .*: a key is a string, an integer") as caught:
        build(pl.DataFrame({"k": pl.Series(keys, dtype=dtype), "v": [1]}), tmp_path)
    assert ".cast(pl.Int64)" in str(caught.value)
    assert not (tmp_path / "store" / "typed").exists()


@pytest.mark.parametrize("name", ["^a.$", "*", "x\0y", ""])
def test_a_name_that_is_read_as_something_else_is_refused(name: str) -> None:
    for frame in (pl.DataFrame({name: [1]}), pl.DataFrame({"v": [[{name: 1}]]})):
        with pytest.raises(DataError, match="cannot be the name of a column"):
            storable(frame, feature="f")


def test_names_that_differ_in_case_only_are_refused() -> None:
    with pytest.raises(DataError, match="'a' and 'A' differ in case only"):
        storable(pl.DataFrame({"a": [1], "A": [2]}), feature="f")
