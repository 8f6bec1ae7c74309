"""Features that see the future are found, whatever they do for it; others are not."""

import datetime as dt
import re
from collections.abc import Callable, Iterable
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlforge as mlf
import oracle
from mlforge import CheckFailedError, DataError, Feature, RequestError, checks
from mlforge.testing import assert_no_leakage, values_at

DAY, HOUR, MICROSECOND = dt.timedelta(days=1), dt.timedelta(hours=1), dt.timedelta(microseconds=1)
START = dt.datetime(2026, 1, 5)
ORDERS = pl.DataFrame(
    {
        "user_id": ["ann", "ann", "ben", "ann", "ben"],
        "ts": [START + hours * HOUR for hours in (9, 66, 84, 103, 143)],
        "amount": [1.5, 2.0, 4.0, 8.0, 16.0],
    }
)
SUMS: dict[str, Any] = {
    "metrics": [mlf.Rolling(windows=["2d", "7d"], aggregations={"amount": ["sum", "mean", "std", "median", "last"]})]
}
KINDS: dict[str, dict[str, Any]] = {
    "newest row": {},
    "newest row while it is young": {"max_age": "2d"},
    "windows": SUMS,
    "windows by the day": {**SUMS, "interval": "1d"},
    "windows by the week": {**SUMS, "interval": "1w"},
}


def made(function: Callable[[Any], Any], **how: Any) -> Feature:
    how = {"keys": ["user_id"], "source": "orders.parquet", "timestamp": "ts", "name": "spend", **how}
    return mlf.feature(**how)(function)


def plain(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.select("user_id", "ts", "amount")


def sees_the_next_row(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.sort("ts").with_columns(pl.col("amount").shift(-1).over("user_id"))


def sees_the_greatest(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.with_columns(pl.col("amount").max().over("user_id"))


def sees_the_mean_of_all(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.with_columns(pl.col("amount") - pl.col("amount").mean())


def sees_whether_somebody_comes_back(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.filter(pl.len().over("user_id") > 2)


def sees_only_the_last(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.sort("ts").group_by("user_id").last()


def sees_the_rank(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.with_columns(pl.col("amount").rank(descending=True))


def sees_what_fills_the_gap(df: pl.LazyFrame) -> pl.LazyFrame:
    gaps = pl.when(pl.col("amount") == 2).then(None).otherwise(pl.col("amount"))
    return df.sort("ts").with_columns(amount=gaps.backward_fill().over("user_id"))


def moves_to_the_week(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.with_columns(pl.col("ts").dt.truncate("1w"))


def moves_by_two_days(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.with_columns(pl.col("ts").dt.offset_by("-2d"))


LEAKY = [
    sees_the_next_row,
    sees_the_greatest,
    sees_the_mean_of_all,
    sees_whether_somebody_comes_back,
    sees_only_the_last,
    sees_the_rank,
    sees_what_fills_the_gap,
    moves_by_two_days,
]


def looks_back(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.sort("ts").with_columns(pl.col("amount").diff().over("user_id").fill_null(0.0))


def counts_up(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.sort("ts").with_columns(pl.col("amount").cum_sum().over("user_id"))


def waits_a_day(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.with_columns(pl.col("ts").dt.offset_by("1d"))


def leaves_out_small_ones(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.filter(pl.col("amount") > 3)


def is_no_plan(df: pl.LazyFrame) -> pl.DataFrame:
    return df.collect().select("user_id", "ts", "amount")


CORRECT = [plain, looks_back, counts_up, waits_a_day, leaves_out_small_ones, is_no_plan]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "windows by the week"])
@pytest.mark.parametrize("function", LEAKY, ids=lambda function: function.__name__)
def test_a_function_that_sees_later_rows_fails(function: Any, kind: str) -> None:
    with pytest.raises(AssertionError, match="Feature 'spend' sees the future"):
        assert_no_leakage(made(function, **KINDS[kind]), ORDERS)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "windows by the week"])
@pytest.mark.parametrize("function", CORRECT, ids=lambda function: function.__name__)
def test_a_function_that_does_not_passes(function: Any, kind: str) -> None:
    assert_no_leakage(made(function, **KINDS[kind]), ORDERS)


def test_a_function_that_cannot_run_on_no_events_is_not_asked_to() -> None:
    def by_user(df: pl.LazyFrame) -> pl.DataFrame:
        return pl.concat(df.collect().partition_by("user_id"))

    for how in (SUMS, {**SUMS, "interval": "1d"}, {}):
        assert_no_leakage(made(by_user, **how), ORDERS)


def test_moving_an_event_within_its_interval_is_no_leak() -> None:
    with pytest.raises(AssertionError, match="sees the future: at 2026-01-06T00"):
        assert_no_leakage(made(moves_to_the_week, **KINDS["windows by the day"]), move(ORDERS, -3))
    longer = pl.concat([ORDERS, move(ORDERS, 24 * 7)])
    assert_no_leakage(made(moves_to_the_week, **KINDS["windows by the week"]), longer)
    with pytest.raises(AssertionError):
        assert_no_leakage(made(moves_by_two_days, **KINDS["windows by the week"]), longer)


def move(events: pl.DataFrame, hours: int) -> pl.DataFrame:
    return events.with_columns(pl.col("ts") + hours * HOUR)


def test_the_message_is_the_smallest_example() -> None:
    with pytest.raises(AssertionError) as failed:
        assert_no_leakage(made(sees_the_next_row), ORDERS)
    assert str(failed.value).splitlines() == [
        "Feature 'spend' sees the future: at 2026-01-05T09:00:00Z it depends on an event that was not known by then.",
        "  entity:          user_id='ann'",
        "  with all events: amount=2.0",
        "  without later:   amount=null",
        "  changed by:      user_id='ann' ts=2026-01-07T18:00:00 amount=2.0",
    ]


def test_an_entity_that_only_the_future_has_is_shown() -> None:
    with pytest.raises(AssertionError) as failed:
        assert_no_leakage(made(moves_by_two_days), ORDERS[[0, 2]], at=["2026-01-06T20:00"])
    said = str(failed.value)
    assert "entity:          user_id='ben'" in said
    assert "with all events: amount=4.0" in said
    assert "without later:   no value" in said
    assert "changed by:      user_id='ben' ts=2026-01-08T12:00:00 amount=4.0" in said


def test_an_event_that_changes_a_value_only_together_with_others_is_shown_so() -> None:
    def third(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.with_columns(pl.col("amount") + (pl.len() >= 4))

    with pytest.raises(AssertionError) as failed:
        assert_no_leakage(made(third), ORDERS, at=["2026-01-05T12:00"])
    assert "changed by:      user_id='ben' ts=2026-01-08T12:00:00 amount=4.0, with others before it" in str(
        failed.value
    )


def test_the_events_of_the_entity_itself_are_shown_first() -> None:
    with pytest.raises(AssertionError, match=r"changed by: +user_id='ann' ts=2026-01-09T07:00:00 amount=8.0$"):
        assert_no_leakage(made(sees_the_mean_of_all), ORDERS, at=["2026-01-07T18:00"])


def test_a_rare_leak_is_looked_for_where_times_were_moved() -> None:
    times = [START + n * HOUR + dt.timedelta(minutes=5) for n in range(3000)]
    hours = pl.DataFrame({"ts": times}).with_row_index("amount")
    many = hours.select(pl.lit("ann").alias("user_id"), "ts", pl.col("amount").cast(pl.Float64))

    def one(df: pl.LazyFrame) -> pl.LazyFrame:
        early = pl.col("ts").dt.truncate("3d")
        return df.with_columns(ts=pl.when(pl.col("amount") == 1234).then(early).otherwise("ts"))

    for kind in ("newest row", "windows", "windows by the day"):
        with pytest.raises(AssertionError, match=r"changed by: .* amount=1234.0"):
            assert_no_leakage(made(one, **KINDS[kind]), many)


def test_windows_end_before_the_instant_and_a_row_holds_from_its_own_on() -> None:
    midnight = ORDERS.with_columns(ts=pl.col("ts").dt.truncate("1d"))

    def just_before(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.with_columns(pl.col("ts") - MICROSECOND)

    with pytest.raises(AssertionError, match="at 2026-01-05T00:00:00Z"):
        assert_no_leakage(made(just_before, **KINDS["windows by the day"]), midnight)
    with pytest.raises(AssertionError, match=r"at 2026-01-04T23:59:59\.999999Z"):
        assert_no_leakage(made(just_before), midnight)


def test_a_leak_of_which_nothing_is_left_at_the_next_event_is_found() -> None:
    short = [mlf.Rolling(windows=["1h"], aggregations={"amount": ["sum"]})]
    with pytest.raises(AssertionError, match="sees the future: at 2026-01-05T09"):
        assert_no_leakage(made(sees_the_next_row, metrics=short), ORDERS)


def test_a_row_that_a_later_one_takes_away_is_missed() -> None:
    with pytest.raises(AssertionError, match="with all events: no value"):
        assert_no_leakage(made(sees_only_the_last), ORDERS.filter(user_id="ann"))


def test_no_value_is_another_thing_than_a_value_that_is_null() -> None:
    nulls = ORDERS.with_columns(amount=pl.lit(None, pl.Float64))
    with pytest.raises(AssertionError, match=r"with all events: amount=null\n  without later:   no value"):
        assert_no_leakage(made(moves_by_two_days), nulls)


def test_a_function_runs_some_tens_of_times_however_many_events_there_are() -> None:
    runs: list[int] = []

    def counted(df: pl.LazyFrame) -> pl.LazyFrame:
        runs.append(df.collect().height)
        return plain(df)

    many = pl.concat([move(ORDERS, hours) for hours in range(0, 600, 3)])
    assert_no_leakage(made(counted), many)
    first = list(runs)
    assert 20 <= len(first) <= 33
    assert len(set(first)) >= 20
    runs.clear()
    assert_no_leakage(made(counted), many)
    assert runs == first


def test_last_bits_of_sums_are_no_leak() -> None:
    def in_another_order(df: pl.LazyFrame) -> pl.LazyFrame:
        rows = df.collect()
        error = 1e-12 * len(rows)
        return rows.lazy().with_columns(pl.col("amount") * (1 + error), parts=pl.concat_list(pl.lit(0.1 + error)))

    assert_no_leakage(made(in_another_order), ORDERS)


def test_what_a_list_or_a_struct_holds_counts() -> None:
    def neighbours(df: pl.LazyFrame) -> pl.LazyFrame:
        amounts = pl.col("amount").sum().over("user_id")
        return df.with_columns(pl.struct(one=pl.concat_list(amounts)).alias("amount"))

    with pytest.raises(AssertionError, match=r"with all events: amount=\{'one': "):
        assert_no_leakage(made(neighbours), ORDERS)


def test_columns_that_only_later_events_make_are_no_leak_by_themselves() -> None:
    def a_column_for_each(df: pl.LazyFrame) -> pl.DataFrame:
        rows = df.collect()
        amounts = rows["amount"].unique().sort()
        return rows.with_columns(pl.when(amount=amount).then(1).alias(f"is_{amount}") for amount in amounts)

    assert_no_leakage(made(a_column_for_each), ORDERS)


def test_rows_of_equal_times_hold_together() -> None:
    same = ORDERS.with_columns(ts=pl.col("ts").dt.truncate("1d"))
    twice = pl.concat([same, same.with_columns(pl.col("amount") + 1)])
    for how in KINDS.values():
        if how.get("interval") != "1w":
            assert_no_leakage(made(plain, **how), twice)


def test_rows_without_a_time_or_a_key_are_in_nobodys_future() -> None:
    holes = pl.concat([ORDERS, ORDERS.with_columns(ts=pl.lit(None, pl.Datetime)), ORDERS.with_columns(user_id=None)])
    assert_no_leakage(made(plain), holes)
    # Where the function gives them one, they are there from then on.
    assert_no_leakage(made(lambda df: df.with_columns(pl.col("ts").fill_null(START))), holes)


LATE = ORDERS.with_columns(ingested=pl.col("ts") + pl.Series([0, 50, 0, 100, 1]) * HOUR)


def with_ingested(df: pl.LazyFrame) -> pl.LazyFrame:
    return df.select("user_id", "ts", "ingested", "amount")


@pytest.mark.parametrize("kind", ["newest row", "windows", "windows by the day"])
def test_what_is_known_later_counts_later(kind: str) -> None:
    assert_no_leakage(made(with_ingested, available_at="ingested", **KINDS[kind]), LATE)
    assert_no_leakage(made(plain, **KINDS[kind]), LATE)
    with pytest.raises(AssertionError, match=r"changed by: .* ingested=2026-01-09T20:00:00"):
        assert_no_leakage(made(plain, **KINDS[kind]), LATE, available_at="ingested")

    def early(df: pl.LazyFrame) -> pl.LazyFrame:
        return with_ingested(df).with_columns(pl.min_horizontal("ingested", pl.col("ts") + 3 * HOUR))

    with pytest.raises(AssertionError, match="sees the future"):
        assert_no_leakage(made(early, available_at="ingested", **KINDS[kind]), LATE)


def test_times_may_have_other_names_and_dtypes_in_the_events() -> None:
    raw = ORDERS.select("user_id", "amount", at=pl.col("ts").dt.to_string("%Y-%m-%d %H:%M"))
    time = pl.col("at").str.to_datetime("%Y-%m-%d %H:%M")
    good = made(lambda df: df.select("user_id", "amount", ts=time), name="good")
    bad = made(lambda df: df.select("user_id", "amount", ts=time.dt.truncate("1d")), name="bad")
    with pytest.raises(RequestError, match=r"no column 'ts'; .*: say timestamp=\.\.\., the column"):
        assert_no_leakage(good, raw)
    with pytest.raises(RequestError, match="are String, neither datetimes nor dates"):
        assert_no_leakage(good, raw, timestamp="at")
    assert_no_leakage(good, raw, timestamp=time)
    assert_no_leakage(good, raw.lazy(), timestamp=time)
    with pytest.raises(AssertionError, match="'bad' sees the future"):
        assert_no_leakage(bad, raw, timestamp=time)
    zoned = ORDERS.with_columns(pl.col("ts").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"))
    assert_no_leakage(made(plain), zoned)
    assert_no_leakage(made(plain), ORDERS.with_columns(pl.col("ts").dt.cast_time_unit("ms")))
    days = pl.concat([ORDERS.with_columns(pl.col("ts").dt.date())])
    assert_no_leakage(made(plain), days)


def test_a_feature_that_reads_another_one_is_computed_from_the_events_of_that_one() -> None:
    def last(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.with_columns(pl.col("amount") * 2)

    for how in (KINDS["newest row"], KINDS["windows"]):
        assert_no_leakage(made(last, source=made(plain, name="clean"), **how), ORDERS)
        with pytest.raises(AssertionError, match="'spend' sees the future"):
            assert_no_leakage(made(last, source=made(moves_by_two_days, name="clean"), **how), ORDERS)
        with pytest.raises(AssertionError, match="'spend' sees the future"):
            assert_no_leakage(made(moves_by_two_days, source=made(plain, name="clean"), **how), ORDERS)
    late = made(with_ingested, available_at="ingested", name="clean")
    assert_no_leakage(made(plain, source=late), LATE)
    with pytest.raises(AssertionError, match="'spend' sees the future"):
        assert_no_leakage(made(lambda df: df.with_columns(ts=pl.col("ts") - 40 * HOUR), source=late), LATE)


def test_functions_of_duckdb_are_looked_at_as_well() -> None:
    by_day = "SELECT user_id, date_trunc('day', ts) AS ts, sum(amount) AS amount FROM df GROUP BY ALL"

    def daily(df: Any) -> str:
        return by_day

    def later(df: Any) -> Any:
        return df.project("user_id, ts, amount * 2 AS amount")

    with pytest.raises(AssertionError, match="at 2026-01-05T00:00:00Z"):
        assert_no_leakage(made(daily, engine="duckdb"), ORDERS)
    assert_no_leakage(made(later, engine="duckdb"), ORDERS)
    assert_no_leakage(made(later, **KINDS["windows by the day"]), ORDERS, engine="duckdb")
    # As a day of which the windows end at the next midnight it is right.
    assert_no_leakage(made(daily, engine="duckdb", **KINDS["windows by the day"]), ORDERS)


def test_of_a_feature_without_times_nothing_can_be_said() -> None:
    with pytest.raises(RequestError, match="'spend' has no timestamp: its row holds at every instant"):
        assert_no_leakage(made(plain, timestamp=None), ORDERS)


@pytest.mark.parametrize("events", [ORDERS.clear(), ORDERS.head(1)], ids=["none", "one"])
def test_too_few_events_are_no_proof(events: pl.DataFrame) -> None:
    for how in KINDS.values():
        with pytest.raises(RequestError, match="no value at any instant before the last event"):
            assert_no_leakage(made(plain, **how), events)


def test_events_of_one_interval_are_no_proof() -> None:
    with pytest.raises(RequestError, match="no value at any instant before the last event"):
        assert_no_leakage(made(plain, **KINDS["windows by the week"]), ORDERS)


def test_instants_after_all_events_are_no_proof() -> None:
    with pytest.raises(RequestError, match="no value at any instant before the last event"):
        assert_no_leakage(made(sees_the_next_row), ORDERS, at=["2026-02-01"])


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(RequestError, match=r"of the type list: write a polars\.DataFrame"):
        assert_no_leakage(made(plain), ORDERS.to_dicts())  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"at is a list: write at=\['2026-01-06'\]"):
        assert_no_leakage(made(plain), ORDERS, at="2026-01-06")
    with pytest.raises(RequestError, match=r"no column 'ingested'.*say available_at="):
        assert_no_leakage(made(with_ingested, available_at="ingested"), ORDERS)


def test_a_function_that_cannot_do_with_fewer_events_says_how_many_it_had() -> None:
    def needs_four(df: pl.LazyFrame) -> pl.LazyFrame:
        return df.with_columns(pl.col("amount") * df.collect()["amount"][3])

    with pytest.raises(IndexError) as raised:
        assert_no_leakage(made(needs_four), ORDERS)
    assert "It ran on the 1 of 5 events known at 2026-01-05T09:00:00+00:00." in raised.value.__notes__


def test_a_function_that_is_never_the_same_is_not_taken_for_one_that_leaks() -> None:
    numbers = iter(range(10**6))
    with pytest.raises(AssertionError, match="has other values each time it is computed"):
        assert_no_leakage(made(lambda df: df.with_columns(pl.col("amount") + next(numbers))), ORDERS)


Event = dict[str, Any]
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": st.sampled_from(["ann", "ben"]),
            "hour": st.integers(0, 80),
            "delay": st.integers(0, 30),
            "amount": st.integers(-3, 3),
        }
    ),
    min_size=1,
    max_size=6,
)
HOW: dict[str, dict[str, Any]] = {
    "newest row": {},
    "young row": {"max_age": "1d"},
    "windows": {"windows": ["2h"], "interval": None},
    "windows by hours": {"windows": ["1d"], "interval": "6h"},
    "windows by days": {"windows": ["1d"], "interval": "1d"},
}


def held(events: Iterable[Event], t: dt.datetime, how: dict[str, Any]) -> list[Any]:
    """What the oracle says of both entities."""
    rows = list(events)
    found = []
    for user in ("ann", "ben"):
        if "windows" in how:
            what: Any = {"timestamp": "ts", "aggregations": {"amount": ["sum", "count"]}, **how}
            found.append(oracle.value_at(rows, {"user_id": user}, t, **what))
        else:
            found.append(oracle.value_of_timestamped(rows, {"user_id": user}, t, timestamp="ts", **how))
    return found


@pytest.mark.parametrize("kind", HOW)
@settings(max_examples=25)
@given(drawn=EVENTS, moved=st.integers(-30, 10), late=st.booleans())
def test_a_leak_is_found_where_there_is_one_and_only_there(
    kind: str, drawn: list[Event], moved: int, late: bool
) -> None:
    """Every event is moved; of so few every instant at which something changes is looked at."""
    how = HOW[kind]
    events = [
        {"user_id": each["user_id"], "ts": START + each["hour"] * HOUR, "amount": each["amount"]} for each in drawn
    ]
    known = [each["ts"] + late * delay["delay"] * HOUR for each, delay in zip(events, drawn, strict=True)]
    metrics = (
        [mlf.Rolling(windows=how["windows"], aggregations={"amount": ["sum", "count"]})] if "windows" in how else []
    )
    rest = {name: value for name, value in how.items() if name != "windows"}
    feature = made(lambda df: df.select("user_id", pl.col("ts") + moved * HOUR, "amount"), metrics=metrics, **rest)
    frame = pl.DataFrame(events).with_columns(known=pl.Series(known))

    everything = [{**each, "ts": each["ts"] + moved * HOUR} for each in events]
    leaks = any(
        held(everything, t, how)
        != held((row for row, at in zip(everything, known, strict=True) if at < t or (not metrics and at == t)), t, how)
        for hour in range(-40, 130)
        for t in (START + hour * HOUR, START + hour * HOUR + MICROSECOND)
    )
    try:
        assert_no_leakage(feature, frame, available_at="known")
    except RequestError:
        # Nothing has a value before the last event.
        found = False
    except AssertionError:
        found = True
    else:
        found = False
    assert found == leaks


@pytest.mark.parametrize("kind", HOW)
@settings(max_examples=25)
@given(drawn=EVENTS, hour=st.integers(-5, 130))
def test_values_are_those_of_the_oracle(kind: str, drawn: list[Event], hour: int) -> None:
    how = HOW[kind]
    events = [
        {"user_id": each["user_id"], "ts": START + each["hour"] * HOUR, "amount": each["amount"]} for each in drawn
    ]
    metrics = (
        [mlf.Rolling(windows=how["windows"], aggregations={"amount": ["sum", "count"]})] if "windows" in how else []
    )
    rest = {name: value for name, value in how.items() if name != "windows"}
    found = values_at(made(plain, metrics=metrics, **rest), pl.DataFrame(events), at=START + hour * HOUR)
    expected = zip(("ann", "ben"), held(events, START + hour * HOUR, how), strict=True)
    assert found.to_dicts() == [{"user_id": user, **values} for user, values in expected if values is not None]


def test_values_of_a_feature_without_times_are_its_rows() -> None:
    rows = ORDERS.filter(pl.col("ts") < dt.datetime(2026, 1, 6)).drop("ts")
    assert values_at(made(lambda df: df, timestamp=None), rows).to_dicts() == [{"user_id": "ann", "amount": 1.5}]
    with pytest.raises(DataError, match="one row an entity"):
        values_at(made(lambda df: df.drop("ts"), timestamp=None), ORDERS)


def test_a_row_holds_until_its_age_is_reached() -> None:
    feature = made(plain, max_age="2d")
    assert len(values_at(feature, ORDERS.head(1), at=START + 57 * HOUR - MICROSECOND)) == 1
    assert values_at(feature, ORDERS.head(1), at=START + 57 * HOUR).is_empty()


def test_values_are_of_now_unless_an_instant_is_named() -> None:
    feature = made(plain, max_age="2d")
    assert values_at(feature, ORDERS).is_empty()
    assert values_at(feature, ORDERS.lazy(), at=START + 10 * HOUR).columns == ["user_id", "amount"]


def test_values_are_refused_where_a_build_would_refuse_them() -> None:
    feature = made(plain, checks={"amount is small": checks.between("amount", 0, 10)})
    with pytest.raises(CheckFailedError, match="amount is small"):
        values_at(feature, ORDERS, at="2026-01-06")
    with pytest.raises(CheckFailedError, match="amount is small"):
        values_at(made(plain, name="reader", source=feature), ORDERS, at="2026-01-06")
    with pytest.raises(DataError, match=re.escape("'spend' has no data")):
        values_at(made(plain), ORDERS.clear())
    # That is no matter of leakage.
    assert_no_leakage(feature, ORDERS)
