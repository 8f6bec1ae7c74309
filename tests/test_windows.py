"""The windows against the oracle, on events that Hypothesis makes up."""

import math
import random
import struct
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise
from typing import Any, get_args

import polars as pl
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from mlforge.errors import DataError
from mlforge.metrics import Aggregation, Rolling
from mlforge.windows import change_points
from oracle import EPOCH, agrees, boundary, duration, instant, value_at

DAY = 86_400_000_000
EVERY: tuple[Aggregation, ...] = get_args(Aggregation)
ORDERED: tuple[Aggregation, ...] = ("count", "n_unique", "first", "last", "min", "max")
UTC_TIME = pl.Datetime("us", "UTC")


TIMES = pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.slow)])


def for_all(strategy: st.SearchStrategy[Any], check: Callable[[Any], None], number: int) -> None:
    unhurried = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    thorough = settings(deadline=None, max_examples=number, suppress_health_check=unhurried)
    thorough(given(strategy)(check))()


@dataclass(frozen=True, kw_only=True)
class Case:
    """Events and what is asked of them. The columns of a row are those of keys, the time, those of columns."""

    rows: list[tuple[Any, ...]]
    columns: Mapping[str, Any]
    metrics: Sequence[Rolling]
    interval: str | None = None
    keys: Mapping[str, Any] = field(default_factory=lambda: {"user": pl.String})
    timestamp: str = "at"

    @property
    def frame(self) -> pl.DataFrame:
        raw = {**self.keys, self.timestamp: pl.Int64, **self.columns}
        frame = pl.DataFrame(self.rows, schema=raw, orient="row")
        return frame.with_columns(frame.get_column(self.timestamp).cast(UTC_TIME))

    @property
    def events(self) -> list[dict[str, Any]]:
        names = [*self.keys, self.timestamp, *self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]

    @property
    def entities(self) -> list[tuple[Any, ...]]:
        return sorted({row[: len(self.keys)] for row in self.rows})

    def times(self, entity: tuple[Any, ...]) -> list[int]:
        return sorted(row[len(entity)] for row in self.rows if row[: len(entity)] == entity)

    def instants(self, entity: tuple[Any, ...]) -> set[int]:
        """Where a value can change: the first boundaries after an event and after it has left a window."""
        lengths = [0, *(duration(window) for metric in self.metrics for window in metric.windows)]
        step = duration(self.interval) if self.interval else 1
        return {boundary(e + length, self.interval) + step for e in self.times(entity) for length in lengths}

    def computed(self, frame: pl.DataFrame | None = None) -> pl.DataFrame:
        return change_points(
            self.frame if frame is None else frame,
            keys=list(self.keys),
            timestamp=self.timestamp,
            interval=self.interval,
            metrics=self.metrics,
        )

    def expected(self, entity: tuple[Any, ...], t: int) -> dict[str, Any] | None:
        value: dict[str, Any] = {}
        for metric in self.metrics:
            part = value_at(
                self.events,
                dict(zip(self.keys, entity, strict=True)),
                t,
                timestamp=self.timestamp,
                interval=self.interval,
                windows=metric.windows,
                aggregations=metric.aggregations,
            )
            if part is None:
                return None
            value |= part
        return value


class Answers:
    """The newest row at or before an instant, looked up in the change points."""

    def __init__(self, case: Case, frame: pl.DataFrame) -> None:
        self.names = frame.columns[len(case.keys) + 1 :]
        self.times: dict[tuple[Any, ...], list[int]] = {}
        self.values: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        for row in frame.with_columns(frame.get_column(case.timestamp).cast(pl.Int64)).iter_rows():
            entity, time, values = row[: len(case.keys)], row[len(case.keys)], row[len(case.keys) + 1 :]
            self.times.setdefault(entity, []).append(time)
            self.values.setdefault(entity, []).append(values)

    def at(self, entity: tuple[Any, ...], t: int) -> dict[str, Any] | None:
        position = bisect_right(self.times.get(entity, []), t)
        return dict(zip(self.names, self.values[entity][position - 1], strict=True)) if position else None


def outputs(case: Case) -> dict[str, tuple[str, Any]]:
    """The aggregation and the dtype of the column, by the name of the output."""
    return {
        output.name: (output.aggregation, case.columns[output.column])
        for metric in case.metrics
        for output in metric.outputs
    }


def is_right(actual: Any, expected: Any, aggregation: str, dtype: Any) -> bool:
    if aggregation in ("min", "max", "first", "last"):
        return type(actual) is type(expected) and bool(actual == expected)
    if aggregation == "sum" and dtype == pl.Float32 and isinstance(expected, float):
        try:
            (single,) = struct.unpack("f", struct.pack("f", expected))
        except OverflowError:
            return actual is None
        rounding = 2**-23 * abs(single) + 1e-9
        return isinstance(actual, float) and abs(actual - single) <= rounding
    return agrees(actual, expected)


def has_the_right_form(case: Case, frame: pl.DataFrame) -> None:
    order = [*case.keys, case.timestamp]
    assert frame.columns == order + [name for metric in case.metrics for name in metric.columns]
    instants = frame[order].rows()
    assert instants == sorted(set(instants)), "sorted, no instant twice"
    for entity in case.entities:
        superfluous = set(Answers(case, frame).times[entity]) - case.instants(entity)
        assert not superfluous, f"{entity}: rows where nothing can change: {sorted(superfluous)}"


def is_what_the_oracle_says(case: Case) -> None:
    """Probes every change point, every event, the middles between them, and long before and after."""
    frame = case.computed()
    has_the_right_form(case, frame)
    answers, kinds = Answers(case, frame), outputs(case)
    assert set(answers.times) == set(case.entities)
    for entity in case.entities:
        expected = cache(lambda end, entity=entity: case.expected(entity, end))
        exact = sorted({*case.times(entity), *case.instants(entity), *answers.times[entity]})
        middles = [(a + b) // 2 for a, b in pairwise(exact)]
        far = [exact[0] - 3650 * DAY, exact[-1] + 3650 * DAY]
        for t in sorted({*(e + off for e in exact for off in (-1, 0, 1)), *middles, *far}):
            actual, wanted = answers.at(entity, t), expected(boundary(t, case.interval))
            if actual is None or wanted is None:
                assert actual is wanted is None, f"{entity} at {t}: {actual}, not {wanted}"
                continue
            assert actual.keys() == wanted.keys()
            for name, (aggregation, dtype) in kinds.items():
                assert is_right(actual[name], wanted[name], aggregation, dtype), (
                    f"{name} of {entity} at {t}: {actual[name]!r}, not {wanted[name]!r}"
                )


def bits(frame: pl.DataFrame) -> str:
    """The frame with every bit of its floats: `repr` tells 0.0 from -0.0."""
    return f"{frame.schema}{frame.rows()!r}"


SPREAD = "^.*__(std|var)__.*$"
INTERVALS = [None, "1s", "7s", "1m", "90m", "1h", "1d", "2d", "7d", "30d", "1w", "2w", "3w"]
WINDOWS = ["1s", "5s", "1h", "36h", "1d", "24h", "3d", "7d", "10d", "30d", "90d", "1w", "4w"]
BASES = [0, -1, 4 * DAY, -10 * DAY, -2_100_000_000_000_000, 1_700_000_000_123_456, 4_102_444_800_000_000]
LAYOUTS: list[tuple[dict[str, Any], list[tuple[Any, ...]]]] = [
    ({"user": pl.String}, [("a",)]),
    ({"user": pl.String}, [("a",), ("b",), ("",)]),
    ({"user": pl.String, "shop": pl.Int64}, [("a", 1), ("a", 2), ("b", 1)]),
    ({"day": pl.Date, "member": pl.Boolean}, [(date(2026, 1, 1), True), (date(1969, 1, 1), False)]),
]


@st.composite
def event_times(draw: st.DrawFn, interval: str | None, windows: Sequence[str]) -> list[int]:
    """On boundaries of the interval and the windows, next to them and anywhere; close together and far apart."""
    lengths = [duration(window) for window in windows] + ([duration(interval)] if interval else [])
    steps = [*lengths, math.gcd(*lengths), 1]
    base = boundary(draw(st.sampled_from(BASES)), interval) + draw(st.sampled_from([0, 0, -1, 12_345]))
    time = st.builds(
        lambda step, times, jitter: base + step * times + jitter,
        st.sampled_from(steps),
        st.one_of(st.integers(0, 4), st.integers(-3, 40)),
        st.one_of(st.sampled_from([0, 0, -1, 1]), st.integers(0, max(steps))),
    )
    few = draw(st.lists(time, min_size=1, max_size=4))
    number = draw(st.sampled_from([0, 1, 2, 3, 5, 8, 12]))
    return draw(st.lists(st.one_of(st.sampled_from(few), time), min_size=number, max_size=number))


@st.composite
def cases(
    draw: st.DrawFn,
    columns: Mapping[str, tuple[Any, st.SearchStrategy[Any]]],
    aggregations: Mapping[str, Sequence[Aggregation]],
    min_events: int = 0,
) -> Case:
    keys, entities = draw(st.sampled_from(LAYOUTS))
    interval = draw(st.sampled_from(INTERVALS))
    windows = draw(st.lists(st.sampled_from(WINDOWS), min_size=1, max_size=3, unique=True))
    times = draw(event_times(interval, windows))
    assume(len(times) >= min_events)
    values = st.tuples(*(st.one_of(strategy, strategy, st.none()) for _, strategy in columns.values()))
    return Case(
        rows=[(*draw(st.sampled_from(entities)), time, *draw(values)) for time in times],
        columns={name: dtype for name, (dtype, _) in columns.items()},
        metrics=[Rolling(windows=windows, aggregations=aggregations)],
        interval=interval,
        keys=keys,
    )


def single(value: float) -> float:
    """The nearest Float32."""
    (nearest,) = struct.unpack("f", struct.pack("f", value))
    return float(nearest)


tenths = st.integers(-50, 50).map(lambda number: number / 10)
around_1e9 = tenths.map(lambda number: 1e9 + number)
# Several families, so that the numbers of one case are alike and a failure says which kind of number it is.
FLOATS: dict[str, st.SearchStrategy[float]] = {
    "small": st.one_of(tenths, st.just(-0.0)),
    "around 1e9": around_1e9,
    "close together at 1e9": st.integers(0, 9).map(lambda ulps: 1e9 + ulps * 2**-23),
    "level shifts between 0 and 1e9": st.one_of(tenths, around_1e9),
    "cancelling": st.one_of(tenths, around_1e9, around_1e9.map(lambda number: -number)),
    "huge": tenths.map(lambda number: number * 1e300),
    "tiny": tenths.map(lambda number: number * 1e-300),
}
UNRELATED_FLOATS: dict[str, st.SearchStrategy[float]] = {
    "huge beside small": st.one_of(tenths, st.sampled_from([1e300, -1e300, 1e16, -1e16])),
    "near the largest": st.sampled_from([1.7e308, -1.7e308, 1e308, 1.0]),
    "any": st.floats(allow_nan=False, allow_infinity=False),
}
INTEGERS: dict[str, st.SearchStrategy[int]] = {
    "small": st.integers(-5, 5),
    "around 10**9": st.one_of(st.integers(-5, 5), st.integers(10**9 - 5, 10**9 + 5)),
    "beyond 2**53": st.integers(-(2**59), 2**59),
    "close together beyond 2**53": st.integers(2**59 - 9, 2**59),
}
DTYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (pl.String, st.sampled_from(["", "a", "B", "é", "\N{GRINNING FACE}", "\uffff"])),
    "flag": (pl.Boolean, st.booleans()),
    "born": (pl.Date, st.sampled_from([date(1969, 12, 31), date(1970, 1, 1), date(2026, 2, 28)])),
    "seen": (UTC_TIME, st.sampled_from([EPOCH, EPOCH + timedelta(microseconds=1), EPOCH - timedelta(days=9)])),
    "price": (pl.Decimal(12, 2), st.integers(-300, 300).map(lambda cents: Decimal(cents).scaleb(-2))),
    "ratio": (pl.Float32, st.one_of(tenths, around_1e9).map(single)),
    "pieces": (pl.Int64, st.integers(-2, 2)),
}
ASKED_OF_DTYPES: dict[str, Sequence[Aggregation]] = {
    "price": EVERY,
    "text": ORDERED,
    "seen": ORDERED,
    "flag": [*ORDERED, "sum", "mean"],
    "born": ORDERED,
    "pieces": EVERY,
    "ratio": EVERY,
}


def number_cases(family: str) -> st.SearchStrategy[Case]:
    values = (FLOATS | UNRELATED_FLOATS)[family]
    return cases({"x": (pl.Float64, values)}, {"x": EVERY})


def integer_cases(family: str) -> st.SearchStrategy[Case]:
    return cases({"n": (pl.Int64, INTEGERS[family])}, {"n": EVERY})


def mixed_cases(min_events: int = 0) -> st.SearchStrategy[Case]:
    values = st.one_of(*FLOATS.values(), *UNRELATED_FLOATS.values())
    columns = {"y": (pl.Int64, st.integers(0, 2)), "x": (pl.Float64, values), "z": DTYPES["text"]}
    asked: dict[str, Sequence[Aggregation]] = {"x": EVERY, "y": ["sum", "last"], "z": ["first"]}
    return cases(columns, asked, min_events)


@TIMES
@pytest.mark.parametrize("family", [*FLOATS, *UNRELATED_FLOATS])
def test_floats_agree_with_exact_arithmetic(family: str, times: int) -> None:
    for_all(number_cases(family), is_what_the_oracle_says, 15 * times)


@TIMES
@pytest.mark.parametrize("family", INTEGERS)
def test_integers_agree_with_exact_arithmetic(family: str, times: int) -> None:
    for_all(integer_cases(family), is_what_the_oracle_says, 15 * times)


@TIMES
def test_every_dtype_agrees_with_exact_arithmetic(times: int) -> None:
    for_all(cases(DTYPES, ASKED_OF_DTYPES), is_what_the_oracle_says, 20 * times)


def the_future_changes_nothing(case: Case) -> None:
    """Cuts at every event's own time: all rows up to there stay as they were.

    In every bit, but for std and var: these are merged in an order that depends on how many rows other entities have.
    """
    whole = case.computed()
    for cut in {time for entity in case.entities for time in case.times(entity)}:
        instant = pl.lit(cut).cast(UTC_TIME)
        known = pl.col(case.timestamp) <= instant
        past = case.computed(case.frame.filter(pl.col(case.timestamp) < instant)).filter(known)
        still = whole.filter(known)
        assert bits(past.select(pl.exclude(SPREAD))) == bits(still.select(pl.exclude(SPREAD))), f"cut at {cut}"
        assert_frame_equal(past.select(pl.col(SPREAD)), still.select(pl.col(SPREAD)), rel_tol=1e-12, abs_tol=0)


def row_order_does_not_matter(case: Case) -> None:
    expected = bits(case.computed())
    for rows in (case.frame.reverse(), case.frame.sample(fraction=1.0, shuffle=True, seed=len(case.rows))):
        assert bits(case.computed(rows)) == expected


@TIMES
def test_events_at_or_after_an_instant_never_change_a_value_at_it(times: int) -> None:
    for_all(mixed_cases(min_events=1), the_future_changes_nothing, 12 * times)


@pytest.mark.parametrize("later", [1e3, 1e16, 1e27, 1e160, 1e300, 1.7e308, 5e-324])
@pytest.mark.parametrize("user", ["a", "b"])
def test_a_later_number_of_any_size_of_anybody_changes_no_bit(user: str, later: float) -> None:
    rows = [("a", 60, 1.0), ("a", 120, 5.155053357324099e16), ("a", 160, 3.2)]
    rows += [("a", 9 * DAY, 0.0), ("a", 9 * DAY, -3.7), (user, 99 * DAY, later)]
    metric = Rolling(windows=["1d"], aggregations={"x": EVERY})
    the_future_changes_nothing(Case(rows=rows, columns={"x": pl.Float64}, metrics=[metric]))


@TIMES
def test_the_order_of_the_rows_does_not_matter(times: int) -> None:
    for_all(mixed_cases(min_events=2), row_order_does_not_matter, 20 * times)


def an_overflow_is_an_error(case: Case) -> None:
    """An error names one of the sums that are too large at some instant, and without such a sum there is none."""
    beyond = set()
    for metric in case.metrics:
        for window in metric.windows:
            alone = Rolling(windows=[window], aggregations=metric.aggregations)
            one = replace(case, metrics=[alone])
            for entity in case.entities:
                for t in one.instants(entity):
                    try:
                        one.expected(entity, t)
                    except OverflowError as error:
                        beyond.add(str(error))
    if not beyond:
        is_what_the_oracle_says(case)
        return
    with pytest.raises(DataError) as caught:
        case.computed()
    assert any(name in str(caught.value) for name in beyond), f"{caught.value} names none of {beyond}"


near_the_end = st.sampled_from([2**63 - 1, 2**62, 2**62 - 1, -(2**62), -(2**63), 1, -1, 0])
LARGE = cases({"n": (pl.Int64, near_the_end)}, {"n": ["sum", "count", "min", "max", "n_unique", "last"]})


@TIMES
def test_an_integer_sum_beyond_int64_is_an_error_that_names_the_column(times: int) -> None:
    for_all(LARGE, an_overflow_is_an_error, 40 * times)


def test_only_a_sum_can_overflow() -> None:
    asked: dict[str, Sequence[Aggregation]] = {"n": [name for name in EVERY if name != "sum"]}
    rows = [("a", 0, 2**63 - 1), ("a", 0, 2**63 - 1), ("a", 1, -(2**63)), ("a", 2, -(2**63))]
    metric = Rolling(windows=["1d"], aggregations=asked)
    is_what_the_oracle_says(Case(rows=rows[:2], columns={"n": pl.Int64}, metrics=[metric]))
    is_what_the_oracle_says(Case(rows=rows, columns={"n": pl.Int64}, metrics=[metric]))


def test_a_sum_within_int64_is_no_error_though_the_sums_on_the_way_to_it_are_beyond() -> None:
    # Three entities and a long time: running totals over the frame, or over all time, pass 2**63.
    rows = [(user, 10 * DAY * number, 2**62) for user in "abc" for number in range(5)]
    # In the order of ties the two large ones come last, in that of time they come first.
    rows += [("d", 0, 2**63 - 1), ("d", 0, -5), ("e", 0, 2**62), ("e", 0, 2**62), ("e", 0, -(2**62))]
    metric = Rolling(windows=["5d", "1d"], aggregations={"n": ["sum"]})
    for interval in (None, "1d", "20d"):
        case = Case(rows=rows, columns={"n": pl.Int64}, metrics=[metric], interval=interval)
        an_overflow_is_an_error(case)


@pytest.mark.parametrize(
    ("dtype", "values", "aggregations"),
    [
        (pl.Float64, [1.0, 0.0, 1.0, None], EVERY),
        (pl.Float32, [1.0, 0.0, 1.0, None], EVERY),
        (pl.Int64, [1, 0, 1, None], EVERY),
        (pl.Decimal(12, 2), [Decimal("1.50"), Decimal(0), None], EVERY),
        (pl.Boolean, [True, False, True, None], [*ORDERED, "sum", "mean"]),
        (pl.String, ["b", "a", None], ORDERED),
        (pl.Date, [date(1970, 1, 1), None], ORDERED),
        (UTC_TIME, [EPOCH, None], ORDERED),
    ],
    ids=lambda given: str(given) if isinstance(given, pl.DataType | type) else "",
)
def test_the_dtypes_are_the_same_with_and_without_events(
    dtype: Any, values: list[Any], aggregations: Sequence[Aggregation]
) -> None:
    keys = {"user": pl.String, "shop": pl.Int64, "member": pl.Boolean, "day": pl.Date}
    wanted: dict[str, Any] = {**keys, "at": UTC_TIME}
    for name in aggregations:
        wanted |= dict.fromkeys((f"x__{name}__1d", f"x__{name}__2d"), dtype_of(name, dtype))
    rows = [("a", 1, True, date(2026, 1, 1), EPOCH, value) for value in values]
    frame = pl.DataFrame(rows, schema={**keys, "at": UTC_TIME, "x": dtype}, orient="row")
    all_null = frame.with_columns(pl.lit(None, dtype).alias("x"))
    metrics = [Rolling(windows=["1d", "2d"], aggregations={"x": aggregations})]
    for interval in (None, "1d", "1w"):
        for events in (frame, frame.clear(), frame.head(1), frame.tail(1), all_null):
            result = change_points(events, keys=list(keys), timestamp="at", interval=interval, metrics=metrics)
            assert result.schema == pl.Schema(wanted)
            assert result.is_empty() == events.is_empty()


def dtype_of(aggregation: str, dtype: Any) -> Any:
    if aggregation in ("count", "n_unique"):
        return pl.Int64
    if aggregation in ("mean", "std", "var", "median"):
        return pl.Float64
    if aggregation == "sum" and dtype == pl.Boolean:
        return pl.Int64
    return pl.Decimal(38, dtype.scale) if aggregation == "sum" and dtype == pl.Decimal else dtype


def values_of(case: Case, output: str) -> list[tuple[int, Any]]:
    frame = case.computed()
    return list(zip(frame[case.timestamp].cast(pl.Int64).to_list(), frame[output].to_list(), strict=True))


def sum_case(rows: list[tuple[Any, ...]], interval: str | None = None, windows: Sequence[str] = ("1d",)) -> Case:
    metric = Rolling(windows=windows, aggregations={"x": ["sum"]})
    return Case(rows=rows, columns={"x": pl.Float64}, metrics=[metric], interval=interval)


def test_a_window_empties_when_no_new_event_comes_and_its_sum_is_exactly_zero() -> None:
    # Running totals would leave 0.1 + 0.2 - 0.3 = 5.6e-17, or 0.3 lost beside 1e16.
    rows = [("a", 0, 0.1), ("a", 1, 0.2), ("a", 2, 1e16), ("a", 3, 0.3)]
    assert values_of(sum_case(rows), "x__sum__1d")[-1] == (DAY + 4, 0.0)
    assert values_of(sum_case(rows), "x__sum__1d")[-2] == (DAY + 3, 0.3)
    assert values_of(sum_case(rows, "1d"), "x__sum__1d")[-1] == (2 * DAY, 0.0)


def test_an_event_without_a_value_makes_its_entity_visible() -> None:
    assert values_of(sum_case([("a", 0, None)], "1d"), "x__sum__1d")[0] == (DAY, 0.0)


def test_a_week_begins_on_monday_and_seven_days_on_thursday() -> None:
    tuesday = instant(datetime(2026, 1, 27, 12))
    for interval, first in (("1w", datetime(2026, 2, 2)), ("7d", datetime(2026, 1, 29))):
        assert values_of(sum_case([("a", tuesday, 1.0)], interval), "x__sum__1d")[0][0] == instant(first)


def test_an_event_that_no_boundary_sees_in_its_window_still_makes_its_entity_visible() -> None:
    # With an interval of 30 days and a window of one, an event of the tenth day is gone at the next boundary.
    assert values_of(sum_case([("a", 9 * DAY, 1.0)], "30d"), "x__sum__1d") == [(30 * DAY, 0.0)]


@pytest.mark.parametrize(("order", "first", "last"), [(["x", "y"], 5, 4), (["y", "x"], 4, 5), (["y", "z", "x"], 4, 5)])
def test_ties_go_by_the_columns_as_they_stand_in_the_frame_not_in_the_metrics(
    order: list[str], first: int, last: int
) -> None:
    events = [{"x": 1, "y": 5, "z": 0}, {"x": 2, "y": 4, "z": 0}]
    case = Case(
        rows=[("a", 0, *(event[name] for name in order)) for event in events],
        columns=dict.fromkeys(order, pl.Int64),
        metrics=[
            Rolling(windows=["1d"], aggregations={"y": ["first"]}),
            Rolling(windows=["2d"], aggregations={name: ["last"] for name in ("y", "x", "z") if name in order}),
        ],
    )
    assert values_of(case, "y__first__1d")[0] == (1, first)
    assert values_of(case, "y__last__2d")[0] == (1, last)
    is_what_the_oracle_says(case)


def test_in_ties_nulls_come_first_and_are_passed_over() -> None:
    rows = [("a", 0, 0, 2), ("a", 0, None, 1), ("a", 0, 0, None), ("a", 0, 3, None)]
    metric = Rolling(windows=["1d"], aggregations={"x": ["first", "last"], "y": ["first", "last"]})
    case = Case(rows=rows, columns={"x": pl.Int64, "y": pl.Int64}, metrics=[metric])
    assert case.computed().row(0)[2:] == (0, 3, 1, 2)


def test_equal_events_all_count() -> None:
    assert values_of(sum_case([("a", 0, 2.0)] * 3), "x__sum__1d") == [(1, 6.0), (DAY + 1, 0.0)]


def test_several_metrics_with_windows_that_are_equally_long_stand_side_by_side() -> None:
    rows = [("a", day * DAY + day % 2, float(day), day) for day in (0, 1, 1, 2, 6, 7, 8, 40)]
    metrics = [
        Rolling(windows=["7d", "1w", "168h"], aggregations={"x": ["sum", "last"], "n": ["count"]}),
        Rolling(windows=["1d"], aggregations={"x": ["sum"]}),
        Rolling(windows=["24h", "2w"], aggregations={"n": ["median", "sum"], "x": ["n_unique"]}),
    ]
    for interval in (None, "1d", "1w", "5d", "60s"):
        case = Case(rows=rows, columns={"x": pl.Float64, "n": pl.Int64}, metrics=metrics, interval=interval)
        is_what_the_oracle_says(case)


def test_there_may_be_hundreds_of_windows() -> None:
    case = sum_case([("a", 0, 1.0), ("a", DAY, 2.0)], "1d", [f"{days}d" for days in range(1, 301)])
    is_what_the_oracle_says(case)


@pytest.mark.parametrize(
    ("key", "timestamp", "column"),
    [
        ("tile", "window", "value"),
        ("window", "time", "tile"),
        ("index", "timestamp", "count"),
        ("start", "end", "len"),
        ("key", "ts", "literal"),
        ("entity", "at", "row"),
        ("b", "t", "e"),
        ("__key", "__at", "__b"),
        ("time", "event", "timestamp"),
        ("x__sum__2d", "date", "x"),
        ("a b", "a.b", '\N{GREEK SMALL LETTER ALPHA}, "b"'),
    ],
)
def test_no_name_of_a_column_is_special(key: str, timestamp: str, column: str) -> None:
    case = Case(
        rows=[("a", 0, 1.5), ("a", 2 * DAY, 2.5), ("b", 5, None), ("a", 2 * DAY, -1.0)],
        columns={column: pl.Float64},
        metrics=[Rolling(windows=["1d", "3d"], aggregations={column: EVERY})],
        keys={key: pl.String},
        timestamp=timestamp,
    )
    is_what_the_oracle_says(case)


@pytest.mark.parametrize("interval", [None, "1h", "1d"])
def test_nothing_drifts_over_twenty_thousand_events(interval: str | None) -> None:
    numbers = random.Random(7)
    times = sorted(numbers.randrange(0, 40 * DAY) for _ in range(20_000))
    values = [numbers.gauss(0, 1) + (1e9 if time // (3 * DAY) % 2 else 0.0) for time in times]
    case = Case(
        rows=[("a", time, value) for time, value in zip(times, values, strict=True)],
        columns={"x": pl.Float64},
        metrics=[Rolling(windows=["1h", "1d"], aggregations={"x": EVERY})],
        interval=interval,
    )
    answers, kinds = Answers(case, case.computed()), outputs(case)
    for t in [*numbers.sample(times, 6), *(day * DAY + 3_600_000_000 for day in (6, 7, 39))]:
        end = boundary(t, interval)
        nearby = [row for row in case.rows if end - 2 * DAY <= row[1] < end]
        actual, wanted = answers.at(("a",), t), replace(case, rows=nearby).expected(("a",), t)
        assert actual is not None
        assert wanted is not None
        for name, (aggregation, dtype) in kinds.items():
            assert is_right(actual[name], wanted[name], aggregation, dtype), (
                f"{name} at {t}: {actual[name]!r}, not {wanted[name]!r}"
            )


def test_the_events_are_left_as_they_were() -> None:
    case = sum_case([("b", 5, 1.0), ("a", 7, None), ("a", 3, 2.0)])
    frame = case.frame
    case.computed(frame)
    assert frame.equals(case.frame)
