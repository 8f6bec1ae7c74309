"""What every engine computes is what the oracle says, and to the last row what plain Polars computes."""

import dataclasses
import datetime as dt
import itertools
import math
import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import polars.selectors as cs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import mlforge as mlf
from engines import PLAIN, SPARK, WAYS, Computed, Frame, Way
from mlforge import CheckFailedError, DataError, checks
from mlforge.span import Span, touched
from mlforge.store import LocalStore
from oracle import agrees, instant, value_at, value_of_snapshot, value_of_timestamped
from sparks import local_session
from test_windows import ASKED_OF_DTYPES, DTYPES, EVERY, Case, cases, is_what_the_oracle_says, mixed_cases

EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
OTHERS = [way for way in WAYS.values() if way is not PLAIN]
ON_SPARK = pytest.param(SPARK, marks=pytest.mark.slow, id="spark")
# What is the same on Spark as well; the rest is in test_spark.py.
SPARK_TOO = pytest.mark.parametrize("way", [*(pytest.param(way, id=name) for name, way in WAYS.items()), ON_SPARK])
OTHERS_AND_SPARK = pytest.mark.parametrize("way", [*OTHERS, ON_SPARK])
UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
TIME = pl.Datetime("us", "UTC")
# Merged in an order that depends on how many rows other entities have.
INEXACT = "^.*__(sum|mean|std|var)__.*$"
EVERYTHING = [mlf.Rolling(windows=["1d", "9d"], aggregations={"x": EVERY})]
EVENTS = pl.DataFrame(
    {
        "user": ["a", "b", "a", "c", "b", "a", "d", "e"],
        "ts": [START + day * DAY for day in (0.5, 1, 2.25, 3, 40.75, 61.5, 62, 63)],
        "x": [1.5, -2.0, 0.25, None, 8.0, 3.5, 0.0, 7.0],
        "n": [1, 2, 3, 4, 5, 6, 7, 8],
    }
)


@pytest.fixture(scope="module")
def _session() -> Iterator[None]:
    with local_session():
        yield


@pytest.fixture(autouse=True)
def _on_spark(request: pytest.FixtureRequest) -> None:
    """A session for what runs on Spark, and only for that."""
    if request.node.callspec.params.get("way") is SPARK if hasattr(request.node, "callspec") else False:
        request.getfixturevalue("_session")


def equal(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    """The same rows, bit by bit but for sums and what is divided by them: these to 12 digits."""
    assert found.schema == wanted.schema
    exact = pl.exclude(INEXACT)
    assert repr(found.select(exact).rows()) == repr(wanted.select(exact).rows())
    assert_frame_equal(found.select(pl.col(INEXACT)), wanted.select(pl.col(INEXACT)), rel_tol=1e-12, abs_tol=1e-12)


def as_plain(way: Way, source: Any, part: Span | None = None, **feature: Any) -> Computed:
    """What a way computes, which is what plain Polars does."""
    found = way.compute(way.feature(source, **feature), part)
    wanted = PLAIN.compute(PLAIN.feature(source, **feature), part)
    equal(found.rows, wanted.rows)
    assert found.left_out == wanted.left_out
    assert found.checks == wanted.checks
    return found


def error_of(way: Way, source: Any, **feature: Any) -> str:
    with pytest.raises(mlf.MlforgeError) as caught:
        way.compute(way.feature(source, **feature))
    return f"{type(caught.value).__name__}: {caught.value}"


@dataclass(frozen=True, kw_only=True)
class OfWay(Case):
    """Events and what is asked of them, which is computed in a way."""

    way: Way

    @classmethod
    def of(cls, case: Case, way: Way) -> "OfWay":
        return cls(way=way, **{field.name: getattr(case, field.name) for field in dataclasses.fields(Case)})

    def computed(self, frame: pl.DataFrame | None = None) -> pl.DataFrame:
        asked = {
            "keys": list(self.keys),
            "timestamp": self.timestamp,
            "interval": self.interval,
            "metrics": self.metrics,
        }
        return as_plain(self.way, Frame(self.frame if frame is None else frame), **asked).rows


@SPARK_TOO
@pytest.mark.parametrize(
    "strategy", [mixed_cases(1), cases(DTYPES, ASKED_OF_DTYPES, 1)], ids=["numbers", "every dtype"]
)
@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_windows_are_what_the_oracle_says(way: Way, strategy: st.SearchStrategy[Case], times: int) -> None:
    few = settings(
        deadline=None, max_examples=4 * (times if way is not SPARK else min(times, 4)), suppress_health_check=UNHURRIED
    )
    few(given(strategy)(lambda case: is_what_the_oracle_says(OfWay.of(case, way))))()


VALUES = st.none() | st.sampled_from([0.5, -1.0, 1e300, math.nan, math.inf, -math.inf])
TIMED = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.none() | st.integers(0, 9), VALUES, st.none() | st.integers(0, 2)),
    min_size=1,
    max_size=12,
)
SCHEMA = {"user": pl.String, "ts": TIME, "x": pl.Float64, "n": pl.Int64}


def rows_of(timed: list[Any]) -> list[dict[str, Any]]:
    return [
        {"user": user, "ts": None if day is None else START + day * DAY, "x": x, "n": n} for user, day, x, n in timed
    ]


@SPARK_TOO
@settings(deadline=None, max_examples=5, suppress_health_check=UNHURRIED)
@given(timed=TIMED, max_age=st.sampled_from([None, "1d", "36h"]))
def test_rows_with_a_timestamp_are_what_the_oracle_says(way: Way, timed: list[Any], max_age: str | None) -> None:
    rows = rows_of(timed)
    known = [row for row in rows if row["user"] is not None and row["ts"] is not None]
    asked = {"timestamp": "ts", "max_age": max_age}
    source = Frame(pl.DataFrame(rows, schema=SCHEMA))
    if not known:
        assert error_of(way, source, **asked) == error_of(PLAIN, source, **asked)
        return
    assert as_plain(way, source, **asked).left_out == len(rows) - len(known)
    moments = [(user, START + quarter * DAY / 4) for user in ("a", "b") for quarter in range(-1, 48, 3)]
    labels = pl.DataFrame(moments, schema={"user": pl.String, "at": TIME}, orient="row")
    with tempfile.TemporaryDirectory() as folder, way.applied():
        project = way.project(Path(folder), way.feature(source, **asked))
        (report,) = project.build()
        assert (report.version, report.left_out) == ("1.0.0", len(rows) - len(known))
        found = project.get_training_data(["f"], labels, timestamp="at")
    for row in found.iter_rows(named=True):
        wanted = value_of_timestamped(known, {"user": row["user"]}, row["at"], timestamp="ts", max_age=max_age)
        assert {"x": row["x"], "n": row["n"]} == (wanted or {"x": None, "n": None})


LATE = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 40), st.none() | st.integers(0, 40), st.none() | st.integers(-3, 3)),
    min_size=1,
    max_size=8,
)


@SPARK_TOO
@settings(deadline=None, max_examples=5, suppress_health_check=UNHURRIED)
@given(events=LATE, interval=st.sampled_from([None, "5h", "1d"]))
def test_events_that_are_known_later_count_as_the_oracle_says(
    way: Way, events: list[Any], interval: str | None
) -> None:
    hour = dt.timedelta(hours=1)
    rows = [
        {"user": user, "ts": START + at * hour, "seen": START + (at + (late or 0)) * hour, "x": x}
        for user, at, late, x in events
    ]
    asked = {"timestamp": "ts", "available_at": "seen", "interval": interval}
    windows, aggregations = ["7h", "1d"], {"x": ["sum", "count", "last"]}
    source = Frame(pl.DataFrame(rows, schema={"user": pl.Int64, "ts": TIME, "seen": TIME, "x": pl.Int64}))
    metrics = [mlf.Rolling(windows=windows, aggregations=aggregations)]
    found = as_plain(way, source, metrics=metrics, **asked).rows
    for user, row in itertools.product((0, 1), range(0, 120, 7)):
        moment = START + row * hour + dt.timedelta(microseconds=row % 2)
        held = found.filter((pl.col("user") == user) & (pl.col("ts") <= moment)).tail(1).drop("user", "ts").to_dicts()
        wanted = value_at(
            rows,
            {"user": user},
            moment,
            timestamp="ts",
            interval=interval,
            windows=windows,
            aggregations=aggregations,
            available_at="seen",
        )
        assert held == ([] if wanted is None else [wanted])
    as_plain(way, source, timestamp="ts", available_at="seen")


@SPARK_TOO
def test_a_snapshot_is_what_the_oracle_says(way: Way) -> None:
    rows = [{"user": user, "x": x, "n": n} for user, x, n in [("a", 1.5, 1), ("b", math.nan, None), (None, 2.0, 3)]]
    found = as_plain(way, Frame(pl.DataFrame(rows)))
    assert found.left_out == 1
    assert found.rows["user"].to_list() == ["a", "b"]
    for row in found.rows.to_dicts():
        user = row.pop("user")
        assert row == value_of_snapshot(rows, {"user": user})


@SPARK_TOO
def test_two_rows_for_an_entity_of_a_snapshot_are_an_error(way: Way) -> None:
    # Two entities, since each shard only knows its own.
    twice = Frame(pl.DataFrame({"user": ["a", "b", "b"], "x": [1, 2, 3]}))
    assert error_of(way, twice) == error_of(PLAIN, twice)
    assert "1 entities have more ({'user': 'b'})" in error_of(way, twice)


COLUMNS: Mapping[str, pl.Series] = {
    "text": pl.Series(["é", None, "", "a"]),
    "flag": pl.Series([True, None, False, True]),
    "small": pl.Series([-128, None, 127, 0], dtype=pl.Int8),
    "unsigned": pl.Series([0, None, 2**63 - 1, 4], dtype=pl.UInt64),
    "single": pl.Series([0.1, None, math.nan, -0.0], dtype=pl.Float32),
    "double": pl.Series([0.1, None, -math.inf, -0.0]),
    "price": pl.Series([Decimal("1.25"), None, Decimal("-0.01"), Decimal(0)], dtype=pl.Decimal(12, 2)),
    "wide": pl.Series([Decimal("1.25"), None, Decimal(10**35), Decimal(0)], dtype=pl.Decimal(38, 2)),
    "born": pl.Series([dt.date(1969, 12, 31), None, dt.date(2026, 2, 28), dt.date(1, 1, 1)]),
    "milliseconds": pl.Series([START, None, START, START], dtype=pl.Datetime("ms")),
    "nanoseconds": pl.Series([-1, None, 1001, 10**18 + 999]).cast(pl.Datetime("ns")),
    "zoned": pl.Series([START, None, START, START], dtype=pl.Datetime("us", "Asia/Kolkata")),
    "category": pl.Series(["b", None, "a", "b"], dtype=pl.Categorical),
    "enum": pl.Series(["b", None, "a", "b"], dtype=pl.Enum(["b", "a"])),
    "list": pl.Series([[1, None], None, [], [2]]),
    "array": pl.Series([[1, 2], None, [None, 4], [5, 6]], dtype=pl.Array(pl.Int16, 2)),
    "struct": pl.Series([{"p": 1, "q": "x"}, {"p": None, "q": None}, None, {"p": 2, "q": ""}]),
    "nested": pl.Series([[{"p": 0.5}], None, [], [{"p": math.nan}]]),
    "a b": pl.Series([1, None, 2, 3]),
    'quo"te': pl.Series(["'", None, '"', "\\"]),
}


@SPARK_TOO
def test_every_dtype_arrives_as_it_is_stored(way: Way) -> None:
    source = Frame(pl.DataFrame({"user": ["a", "b", "c", "d"], "ts": START, **COLUMNS}))
    as_plain(way, source, timestamp="ts")


@SPARK_TOO
@pytest.mark.parametrize(
    "times", [pl.Date(), pl.Datetime("ms"), pl.Datetime("ns"), pl.Datetime("us", "America/New_York")], ids=str
)
def test_the_times_of_events_may_have_any_unit(way: Way, times: pl.DataType) -> None:
    zone = getattr(times, "time_zone", None)
    moments = pl.col("ts").dt.convert_time_zone(zone) if zone else pl.col("ts").dt.replace_time_zone(None)
    source = Frame(EVENTS.with_columns(moments.cast(times)))
    as_plain(way, source, timestamp="ts", metrics=EVERYTHING, columns='"user", ts, x')
    as_plain(way, source, timestamp="ts")


KEYS = {"user": pl.String, "shop": pl.Int32, "day": pl.Date, "member": pl.Boolean, "since": pl.Datetime("ms")}


@SPARK_TOO
@pytest.mark.parametrize("keys", [["user", "shop"], ["day"], ["member", "day"], ["since", "shop"], list(KEYS)], ids=str)
def test_entities_may_have_several_keys_of_any_kind_and_none_is_left_out_and_counted(way: Way, keys: list[str]) -> None:
    numbers = random.Random(5)
    rows = [
        (
            numbers.choice(["a", "b", None]),
            numbers.choice([1, 2, None]),
            numbers.choice([dt.date(2026, 1, 1), dt.date(2026, 1, 2), None]),
            numbers.choice([True, False, None]),
            numbers.choice([dt.datetime(2020, 1, 1), None]),
            numbers.choice([START, START + DAY, START + 1.5 * DAY, None]),
            numbers.choice([1.0, 2.0, None]),
        )
        for _ in range(30)
    ]
    frame = pl.DataFrame(rows, schema={**KEYS, "ts": TIME, "x": pl.Float64}, orient="row")
    columns = ", ".join(f'"{name}"' for name in (*keys, "ts", "x"))
    asked = {"keys": keys, "timestamp": "ts", "columns": columns}
    left_out = len(frame) - len(frame.drop_nulls([*keys, "ts"]))
    assert as_plain(way, Frame(frame), **asked).left_out == left_out > 0
    assert as_plain(way, Frame(frame), metrics=EVERYTHING, interval="1w", **asked).left_out == left_out


@EVERY_WAY
def test_columns_are_selected_and_made_and_rows_left_out_by_the_function(way: Way) -> None:
    columns = "\"user\", ts, x * 2 AS x, n % 2 = 0 AS even, 'a' AS kind"
    rows = as_plain(way, Frame(EVENTS), timestamp="ts", columns=columns, condition="n > 2 AND x IS NOT NULL").rows
    assert rows["x"].to_list() == [0.5, 7.0, 16.0, 0.0, 14.0]
    assert rows["even"].to_list() == [False, True, False, False, True]


@SPARK_TOO
@pytest.mark.parametrize("more", [{}, {"timestamp": "ts"}, {"timestamp": "ts", "metrics": EVERYTHING}], ids=str)
def test_a_function_that_returns_nothing_is_an_error(way: Way, more: dict[str, Any]) -> None:
    source = Frame(EVENTS.select("user", "ts", "x"))
    said = error_of(way, source, condition="x > 100", **more)
    assert said == error_of(PLAIN, source, condition="x > 100", **more)
    assert "has no data: the function returned no rows" in said
    only_null = Frame(EVENTS.select(pl.lit(None, pl.String).alias("user"), "ts", "x"))
    assert error_of(way, only_null, **more) == error_of(PLAIN, only_null, **more)


@EVERY_WAY
def test_what_cannot_be_computed_is_the_same_error(way: Way) -> None:
    sums = [mlf.Rolling(windows=["9d"], aggregations={"x": ["sum"]})]
    cases: list[tuple[Any, dict[str, Any]]] = [
        (EVENTS.with_columns(x=pl.lit(2**62)), {"timestamp": "ts", "metrics": sums, "columns": '"user", ts, x'}),
        (EVENTS.with_columns(x=pl.lit("text")), {"timestamp": "ts", "metrics": sums, "columns": '"user", ts, x'}),
        # One event, since a shard tells of its own.
        (EVENTS[:1].with_columns(ts=pl.lit(dt.datetime(1850, 1, 1))), {"timestamp": "ts"}),
        (EVENTS.with_columns(ts=pl.lit(5)), {"timestamp": "ts"}),
        (EVENTS.with_columns(x=pl.lit(2**64 - 1, pl.UInt64)), {"timestamp": "ts"}),
        (EVENTS.with_columns(user=pl.lit(0.5)), {"timestamp": "ts"}),
        (EVENTS.drop("x"), {"timestamp": "ts", "metrics": sums}),
        (EVENTS, {"timestamp": "ts", "metrics": sums}),
        (EVENTS.select("user"), {}),
    ]
    for frame, asked in cases:
        assert error_of(way, Frame(frame), **asked) == error_of(PLAIN, Frame(frame), **asked)


CHECKS: dict[str, mlf.Check] = {
    "of a row": mlf.Check(pl.col("x") > 0, severity="warn"),
    "of two columns": mlf.Check((pl.col("x") < pl.col("n")) | (pl.col("user") == "b"), severity="warn"),
    "unique": checks.unique("user", severity="warn"),
    "unique in two": checks.unique("user", "x", severity="warn"),
    "not null": checks.not_null("x", "n", severity="warn"),
    "between": checks.between("x", 0, 5, severity="warn"),
    "known": checks.is_in("user", ["a", "b"], severity="warn"),
    "text": checks.matches("user", "[a-c]", severity="warn"),
    "mean": mlf.Check(pl.col("x").mean() > 0, severity="warn"),
    "mean that fails": mlf.Check(pl.col("x").mean() > 100, severity="warn"),
    "sorted": mlf.Check(pl.col("ts").is_sorted(), severity="warn"),
    "not sorted": mlf.Check(pl.col("n").is_sorted(descending=True), severity="warn"),
    "grows": mlf.Check(pl.col("n").diff() > 0, severity="warn"),
    "first": mlf.Check(pl.col("user").is_first_distinct(), severity="warn"),
    "of each user": mlf.Check(pl.col("n").max().over("user") < 6, severity="warn"),
    "enough": mlf.Check(pl.len() > 5, severity="warn"),
    "too many": mlf.Check(pl.len() < 5, severity="warn"),
    "all columns": mlf.Check(pl.all_horizontal(pl.all().is_not_null()), severity="warn"),
    "all numbers": mlf.Check(pl.all_horizontal(cs.numeric() > 0), severity="warn"),
    "all means": mlf.Check(pl.all_horizontal(cs.numeric().mean() > 1), severity="warn"),
    "dates": checks.between("ts", "2026-01-02", "2026-02-01", severity="warn"),
    "numbers of another kind": checks.is_in("n", [1.0, 2.5], severity="warn"),
    "nothing": mlf.Check(pl.lit(None, pl.Boolean), severity="warn"),
    "cumulative": mlf.Check(pl.col("n").cum_sum() < 9, severity="warn"),
}


@EVERY_WAY
@pytest.mark.parametrize("order", ["as it is", "shuffled"])
def test_checks_find_the_same_rows_in_the_same_order(way: Way, order: str) -> None:
    frame = (
        pl.concat([EVENTS] * 5)
        if order == "as it is"
        else pl.concat([EVENTS] * 5).sample(fraction=1, shuffle=True, seed=3)
    )
    found = as_plain(way, Frame(frame), timestamp="ts", checks=CHECKS)
    failed = {check.name for check in found.checks if not check.passed}
    assert {"of a row", "unique", "mean that fails", "not sorted", "grows", "first", "cumulative"} <= failed
    assert "mean" not in failed


@EVERY_WAY
@pytest.mark.parametrize("condition", ["x > 100", "n > 7"], ids=["of no row", "of one row"])
def test_checks_of_hardly_any_rows_find_the_same(way: Way, condition: str) -> None:
    # An error comes of no rows, but checks are first; a part may have none of them.
    part = Span(start=START, end=START + DAY)
    asked = {"timestamp": "ts", "checks": CHECKS, "condition": condition}
    found = as_plain(way, Frame(EVENTS), part, **asked)
    assert {check.rows for check in found.checks} == {0}


@EVERY_WAY
def test_a_check_that_fails_keeps_the_rows_from_being_published(way: Way, tmp_path: Path) -> None:
    asked = {"timestamp": "ts", "checks": {"small": pl.col("x") < 3, "grows": pl.col("n").diff() > 0}}
    said = error_of(way, Frame(EVENTS.reverse()), **asked)
    assert said == error_of(PLAIN, Frame(EVENTS.reverse()), **asked)
    project = way.project(tmp_path, way.feature(Frame(EVENTS), **asked))
    with way.applied(), pytest.raises(CheckFailedError):
        project.build()
    assert LocalStore(tmp_path).open("f") is None


@EVERY_WAY
@pytest.mark.parametrize("check", [pl.col("gone") > 0, pl.col("x") + 1, pl.col("user") > 0], ids=str)
def test_a_check_that_cannot_be_evaluated_is_the_same_error(way: Way, check: pl.Expr) -> None:
    asked = {"timestamp": "ts", "checks": {"c": check}}
    assert error_of(way, Frame(EVENTS), **asked) == error_of(PLAIN, Frame(EVENTS), **asked)


QUARTERS = st.integers(0, 4 * 90).map(lambda quarter: quarter / 4)
MANY = st.lists(st.tuples(st.integers(0, 2), QUARTERS, st.integers(0, 3)), min_size=1, max_size=12)


def write(folder: Path, events: list[tuple[int, float, int]], times: pl.DataType) -> Path:
    rows = [{"user": user, "ts": START + day * DAY, "x": x} for user, day, x in events]
    frame = pl.DataFrame(rows, schema={"user": pl.Int64, "ts": TIME, "x": pl.Int64}).sort("ts")
    naive = pl.col("ts").dt.replace_time_zone(None).cast(times)
    frame.with_columns(naive).write_parquet(folder / "events.parquet", row_group_size=2)
    return folder / "events.parquet"


@OTHERS_AND_SPARK
@settings(deadline=None, max_examples=4, suppress_health_check=UNHURRIED)
@given(
    before=MANY,
    after=MANY,
    cuts=st.lists(QUARTERS, max_size=2),
    interval=st.sampled_from([None, "6h", "1d", "1w"]),
    windows=st.sampled_from([(), ("6h",), ("1d", "35d")]),
    times=st.sampled_from([pl.Datetime("us"), pl.Date(), pl.Datetime("ms")]),
    seed=st.integers(0, 99),
)
def test_builds_of_parts_in_any_order_leave_the_table_of_one_build_of_all(
    way: Way,
    before: list[Any],
    after: list[Any],
    cuts: list[float],
    interval: str | None,
    windows: tuple[str, ...],
    times: pl.DataType,
    seed: int,
) -> None:
    metrics = [mlf.Rolling(windows=list(windows), aggregations={"x": EVERY})] if windows else []
    asked = {"timestamp": "ts", "metrics": metrics, "interval": interval if windows else None}
    with tempfile.TemporaryDirectory() as name, way.applied():
        folder = Path(name)
        source = write(folder, before, times)
        project = way.project(folder / "parts", way.feature(source, **asked))
        project.build()
        write(folder, after, times)
        edges = [-1.0, *sorted(set(cuts)), 92.0]
        parts = list(itertools.pairwise(edges))
        random.Random(seed).shuffle(parts)
        for start, end in parts:
            (report,) = project.build(start=START + start * DAY, end=START + end * DAY)
            assert not report.reason
        PLAIN.project(folder / "whole", PLAIN.feature(source, **asked)).build()
        found, wanted = (LocalStore(folder / store).open("f") for store in ("parts", "whole"))
        assert found is not None
        assert wanted is not None
        equal(found.scan().collect().sort("user", "ts"), wanted.scan().collect().sort("user", "ts"))
        assert found.record.rows == wanted.record.rows == found.row_count


TIMES_OF_PARTS = [
    pl.Date(),
    pl.Datetime("ms"),
    pl.Datetime("us"),
    pl.Datetime("ns"),
    pl.Datetime("us", "UTC"),
    pl.Datetime("ns", "UTC"),
    pl.Datetime("ms", "Asia/Kolkata"),
]


@SPARK_TOO
@pytest.mark.parametrize("times", TIMES_OF_PARTS, ids=str)
@pytest.mark.parametrize("windows", [[], ["3d"]], ids=["rows", "windows"])
def test_parts_are_cut_where_they_are_whatever_times_count_in(
    way: Way, times: pl.DataType, windows: list[str], tmp_path: Path
) -> None:
    zone = getattr(times, "time_zone", None)
    days = [0.0, 1.0, 1.5, 1.500000001, 1.99999999, 2.0, 2.25, 7.0]
    frame = pl.DataFrame({"user": 1, "ts": [START + day * DAY for day in days], "x": range(len(days))})
    moments = pl.col("ts").dt.convert_time_zone(zone) if zone else pl.col("ts").dt.replace_time_zone(None)
    frame = frame.with_columns(moments.cast(times)).unique(["user", "ts"], keep="last", maintain_order=True)
    frame.write_parquet(tmp_path / "events.parquet", row_group_size=1)
    metrics = [mlf.Rolling(windows=windows, aggregations={"x": ["sum"]})] if windows else []
    feature = way.feature(tmp_path / "events.parquet", timestamp="ts", metrics=metrics)
    whole = PLAIN.compute(PLAIN.feature(tmp_path / "events.parquet", timestamp="ts", metrics=metrics)).rows
    # Within a day, a millisecond and a microsecond, at events, and around all.
    for start, end in [(-1.0, 1.25), (1.25, 1.5), (1.5, 1.5000000005), (1.5000000005, 8.0)]:
        part = Span(start=START + start * DAY, end=START + end * DAY)
        assert way.compute(feature, part).rows.equals(whole.filter(touched(feature, part).holds("ts"))), (start, end)


@EVERY_WAY
@pytest.mark.parametrize("other", WAYS.values(), ids=WAYS)
def test_a_feature_may_read_one_of_any_engine(way: Way, other: Way, tmp_path: Path) -> None:
    EVENTS.write_parquet(tmp_path / "events.parquet")
    base = other.feature(tmp_path / "events.parquet", timestamp="ts", name="base", condition="n < 8")
    derived = way.feature(base, timestamp="ts", columns='"user", ts, n * 10 AS n', metrics=[], name="derived")
    with way.applied():
        project = way.project(tmp_path, base, derived)
        reports = project.build()
        assert [report.version for report in reports] == ["1.0.0", "1.0.0"]
        assert [report.outcome for report in project.build()] == ["skipped", "skipped"]
        assert all(report.passed for report in project.validate())
    found = LocalStore(tmp_path).require("derived").scan().collect().sort("ts")
    assert found["n"].to_list() == [10, 20, 30, 40, 50, 60, 70]
    assert found.schema["ts"] == TIME


@EVERY_WAY
@pytest.mark.parametrize("kind", ["csv", "ndjson", "delta", "parquet", "several", "glob"])
def test_sources_of_every_kind_have_the_same_columns_and_rows(way: Way, kind: str, tmp_path: Path) -> None:
    # A folder whose name is a pattern, and looks like a partition.
    folder = tmp_path / "day=1" / "it's [ab]*"
    folder.mkdir(parents=True)
    frame = EVENTS.with_columns(pl.col("ts").dt.replace_time_zone(None), day=pl.col("ts").dt.date(), code=pl.lit("001"))
    source: Any = folder / f"events.{kind}"
    match kind:
        case "csv":
            frame.write_csv(source)
        case "ndjson":
            frame.with_columns(pl.col("ts", "day").cast(pl.String)).write_ndjson(source)
        case "delta":
            # Polars takes no brackets there.
            source = tmp_path / "events"
            frame.write_delta(source)
        case "parquet":
            frame.write_parquet(source)
            # What the pattern would find, were it one.
            decoy = folder.with_name("it's a decoy")
            decoy.mkdir()
            frame[:2].write_parquet(decoy / source.name)
        case _:
            source = [folder / "b.parquet", folder / "a.parquet"]
            frame[:3].write_parquet(source[0])
            frame[3:].write_parquet(source[1])
            source = source if kind == "several" else str(tmp_path / "day=1" / "*" / "?.parquet")
    same = {"in order": mlf.Check(pl.col("n").is_sorted(), severity="warn")}
    asked = {"timestamp": "ts"} if kind != "ndjson" else {"keys": ["user", "n"]}
    found = as_plain(way, source, checks=same, **asked)
    assert found.checks[0].passed == (kind != "glob")
    assert len(found.rows) == len(EVENTS)
    assert set(found.rows.columns) == set(frame.columns)


@EVERY_WAY
def test_files_that_do_not_go_together_are_the_same_error(way: Way, tmp_path: Path) -> None:
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    EVENTS.write_parquet(files[0])
    EVENTS.with_columns(pl.col("n").cast(pl.Float64)).write_parquet(files[1])
    assert "DataError" in error_of(way, files, timestamp="ts")
    EVENTS.select(reversed(EVENTS.columns)).write_parquet(files[1])
    assert "DataError" in error_of(way, files, timestamp="ts")
    assert "does not exist" in error_of(way, tmp_path / "c.parquet", timestamp="ts")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and nothing else")
    assert "DataError: Feature 'f', which reads FileSource(" in error_of(way, tmp_path / "c.parquet", timestamp="ts")
    assert "\n" not in error_of(way, tmp_path / "c.parquet", timestamp="ts")


@EVERY_WAY
def test_versions_are_numbered_by_what_has_changed(way: Way, tmp_path: Path) -> None:
    source = tmp_path / "events.parquet"
    EVENTS.write_parquet(source)

    def built(**more: Any) -> tuple[str, str]:
        options = {"force": more.pop("force", False)}
        with way.applied():
            (report,) = way.project(tmp_path / "store", way.feature(source, timestamp="ts", **more)).build(**options)
        return report.outcome, report.version

    assert built() == ("built", "1.0.0")
    assert built() == ("skipped", "1.0.0")
    assert built(force=True) == ("unchanged", "1.0.0")
    EVENTS.with_columns(n=pl.col("n") + 1).write_parquet(source)
    assert built() == ("built", "1.0.1")
    assert built(columns="*, n AS m")[1] == "1.1.0"
    assert built(columns='"user", ts, n')[1] == "2.0.0"


def test_which_engine_computes_a_feature_is_no_part_of_its_definition(tmp_path: Path) -> None:
    source = tmp_path / "events.parquet"
    EVENTS.write_parquet(source)

    def same(df: Any) -> Any:
        return df

    outcomes = []
    for way in WAYS.values():
        feature = mlf.feature(keys=["user"], source=source, timestamp="ts", engine=way.engine)(same)
        with way.applied():
            outcomes += [report.outcome for report in way.project(tmp_path / "store", feature).build(force=True)]
    assert outcomes == ["built", "unchanged", "unchanged", "unchanged"]


@EVERY_WAY
def test_what_a_function_raises_passes_through_with_a_note(way: Way, tmp_path: Path) -> None:
    def broken(df: Any) -> Any:
        raise LookupError("the function's own")

    feature = mlf.feature(keys=["user"], source=Frame(EVENTS), timestamp="ts", engine=way.engine)(broken)
    with pytest.raises(LookupError, match="the function's own") as caught:
        way.project(tmp_path, feature).build()
    assert any("This happened while running feature 'broken', which reads " in note for note in caught.value.__notes__)
    (report,) = way.project(tmp_path, feature).validate()
    assert report.problem.startswith("LookupError: the function's own")


@EVERY_WAY
def test_a_function_that_returns_something_else_is_an_error_that_says_what(way: Way) -> None:
    feature = mlf.feature(keys=["user"], source=Frame(EVENTS), name="f", engine=way.engine)(lambda df: 5)
    with pytest.raises(mlf.DefinitionError, match="Feature 'f': the function returns int, not a "):
        way.compute(feature)


@EVERY_WAY
def test_what_fails_while_the_function_s_plan_is_done_is_an_error_of_the_data_in_one_line(way: Way) -> None:
    said = error_of(way, Frame(EVENTS), columns='"user", ts, CAST("user" AS DOUBLE) AS x', timestamp="ts")
    assert "DataError: Feature 'f', which reads " in said
    assert "conver" in said
    assert "\n" not in said


@EVERY_WAY
def test_values_can_be_explained_and_inspected(way: Way, tmp_path: Path) -> None:
    columns = '"user", ts, x'
    feature = way.feature(Frame(EVENTS), timestamp="ts", metrics=EVERYTHING, columns=columns)
    with way.applied():
        project = way.project(tmp_path, feature)
        project.build()
    found = project.explain("f", {"user": "a"}, at=START + 3 * DAY)
    assert found.recomputed.values is not None
    assert found.recomputed.values["x__count__9d"] == 2
    assert not found.differing
    assert project.inspect("f", at=START + 3 * DAY).built is not None


def test_the_ways_are_told_apart() -> None:
    """Many shards are many, and a source in memory agrees with the oracle's rows."""
    seen: list[int] = []
    from mlforge.engines import base

    whole = base.settled
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "settled", lambda feature, frame: (seen.append(len(frame)), whole(feature, frame))[1])
        for way in WAYS.values():
            seen.clear()
            way.compute(way.feature(Frame(EVENTS), timestamp="ts"))
            assert (len(seen) > 2) == way.sharded, way
            assert sum(seen) == len(EVENTS)
    assert agrees(instant(START), instant(dt.datetime(2026, 1, 1)))
    assert issubclass(CheckFailedError, DataError)
