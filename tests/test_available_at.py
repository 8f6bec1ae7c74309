"""Events that become known later than they happen count from then on, and leave by when they happened."""

import datetime as dt
import re
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlforge as mlf
from mlforge import DataError, DefinitionError, Definitions
from mlforge.store import LocalStore
from mlforge.windows import change_points, late, late_change_points
from oracle import agrees, boundary, instant, value_at

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
TICK = dt.timedelta(microseconds=1)
EVERYTHING = ["count", "sum", "mean", "min", "max", "std", "var", "median", "n_unique", "first", "last"]
HOURS = st.integers(0, 4 * 40).map(lambda quarter: quarter / 4)
ROWS = st.lists(
    st.tuples(
        st.integers(0, 1),
        HOURS,
        st.none() | HOURS.map(lambda hours: hours / 2) | st.just(0.0),
        st.none() | st.integers(-3, 3),
        st.none() | st.floats(-1e6, 1e6),
    ),
    min_size=1,
    max_size=12,
)


def events_of(rows: list[Any]) -> list[dict[str, Any]]:
    """Events with the hour they happened, and how many hours later they were known."""
    return [
        {"user": user, "ts": START + at * HOUR, "seen": START + (at + (late or 0)) * HOUR, "n": n, "x": x}
        for user, at, late, n, x in rows
    ]


def frame_of(events: list[dict[str, Any]]) -> pl.DataFrame:
    time = pl.Datetime("us", "UTC")
    schema = {"user": pl.Int64, "ts": time, "seen": time, "n": pl.Int64, "x": pl.Float64}
    return pl.DataFrame(events, schema=schema)


@settings(max_examples=50, deadline=None)
@given(
    rows=ROWS,
    interval=st.sampled_from([None, "1h", "5h", "1d"]),
    windows=st.sampled_from([["1h"], ["7h"], ["3h", "1d"]]),
    asked=st.lists(HOURS, min_size=1, max_size=4),
    at_once=st.sampled_from([1, 4_000_000]),
)
def test_values_agree_with_the_oracle_at_every_instant(
    rows: list[Any], interval: str | None, windows: list[str], asked: list[float], at_once: int
) -> None:
    events = events_of(rows)
    aggregations = {"n": EVERYTHING, "x": EVERYTHING}
    metrics = [mlf.Rolling(windows=windows, aggregations=aggregations)]
    before, late.AT_ONCE = late.AT_ONCE, at_once
    try:
        points = late_change_points(
            frame_of(events), keys=["user"], timestamp="ts", available_at="seen", interval=interval, metrics=metrics
        )
    finally:
        late.AT_ONCE = before
    assert points.equals(points.unique(["user", "ts"]).sort("user", "ts"))
    moments = {START + hours * HOUR for hours in asked}
    # Where something changes, and just before.
    moments |= {moment + step for moment in points["ts"] for step in (dt.timedelta(), -TICK)}
    for user in (0, 1):
        own = points.filter(user=user)
        for moment in moments:
            wanted = value_at(
                events,
                {"user": user},
                moment,
                timestamp="ts",
                interval=interval,
                windows=windows,
                aggregations=aggregations,
                available_at="seen",
            )
            held = own.filter(pl.col("ts") <= moment).tail(1).drop("user", "ts").to_dicts()
            assert bool(held) == (wanted is not None)
            if wanted is not None:
                assert held[0].keys() == wanted.keys()
                assert all(agrees(held[0][name], value) for name, value in wanted.items()), (moment, held[0], wanted)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, interval=st.sampled_from([None, "1h", "1d"]))
def test_events_that_are_known_at_once_give_the_rows_of_ordinary_windows(rows: list[Any], interval: str | None) -> None:
    frame = frame_of(events_of([(user, at, 0.0, n, x) for user, at, _, n, x in rows]))
    metrics = [
        mlf.Rolling(
            windows=["3h", "1d"], aggregations={"n": [name for name in EVERYTHING if name not in ("std", "var")]}
        )
    ]
    arguments: dict[str, Any] = {"keys": ["user"], "timestamp": "ts", "interval": interval, "metrics": metrics}
    wanted = change_points(frame.drop("seen"), **arguments)
    assert late_change_points(frame, available_at="seen", **arguments).equals(wanted)


def build(folder: Path, events: list[dict[str, Any]], **arguments: Any) -> Definitions:
    frame_of(events).write_parquet(folder / "events.parquet")
    options = {"keys": ["user"], "source": folder / "events.parquet", "timestamp": "ts", "available_at": "seen"}
    shop = mlf.feature(**options | arguments, name="shop")(lambda df: df.select("user", "ts", "seen", "n"))
    definitions = Definitions("a", features=[shop], store=LocalStore(folder / "store"))
    definitions.build()
    return definitions


def test_no_events_give_no_rows_of_the_same_columns() -> None:
    metrics = [mlf.Rolling(windows=["3h", "1d"], aggregations={"n": EVERYTHING, "x": EVERYTHING})]
    arguments: dict[str, Any] = {"keys": ["user"], "timestamp": "ts", "interval": "1h", "metrics": metrics}
    none = frame_of([])
    assert late_change_points(none, available_at="seen", **arguments).equals(
        change_points(none.drop("seen"), **arguments)
    )


def test_a_feature_with_late_events_is_validated(tmp_path: Path) -> None:
    metrics = [mlf.Rolling(windows=["2d"], aggregations={"n": ["sum"]})]
    (report,) = build(tmp_path, events_of([(1, 0, 0.0, 5, None)]), metrics=metrics).validate()
    assert (report.rows, report.problem, report.passed) == (1, "", True)


def test_late_data_does_not_leak_into_training_sets(tmp_path: Path) -> None:
    events = events_of([(1, 0, 0.0, 5, None), (1, 1, 30.0, 7, None)])
    metrics = [mlf.Rolling(windows=["2d"], aggregations={"n": ["sum"]})]
    shop = build(tmp_path, events, interval="1h", metrics=metrics)
    labels = pl.DataFrame({"user": [1] * 4, "at": [START + hours * HOUR for hours in (2, 31, 32, 60)]})
    assert shop.get_training_data(["shop"], labels, "at")["n__sum__2d"].to_list() == [5, 5, 12, 0]
    (report,) = shop.build(start=START, end=START + HOUR, force=True)
    assert report.reason == "any event may have become available"


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, asked=st.lists(HOURS, min_size=1, max_size=5))
def test_of_rows_with_a_timestamp_a_late_older_one_never_becomes_the_newest(
    rows: list[Any], asked: list[float]
) -> None:
    # One row for each instant, so that there are no ties.
    events = list({(event["user"], event["ts"]): event for event in events_of(rows)}.values())
    with tempfile.TemporaryDirectory() as folder:
        shop = build(Path(folder), events)
        times = [START + hours * HOUR for hours in asked] + [event["seen"] for event in events]
        labels = pl.DataFrame({"user": [user for user in (0, 1) for _ in times], "at": times * 2})
        found = shop.get_training_data(["shop"], labels, "at")
    for user, at, n in found.iter_rows():
        known = [event for event in events if event["user"] == user and max(event["ts"], event["seen"]) <= at]
        newest = max(known, key=lambda event: event["ts"], default={"n": None})
        assert n == newest["n"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"timestamp": None}, "available_at is about when events are known: say timestamp=..., when they happen"),
        ({"max_age": "1d"}, "max_age and available_at cannot be together yet: leave one of them out"),
        ({"available_at": "ts"}, "available_at names the timestamp, 'ts': it is a column of its own"),
        ({"available_at": "user"}, "available_at names a key, 'user': it is a column of its own"),
        ({"available_at": ""}, "'' is no column name"),
        ({"available_at": 3}, "3 is no column name"),
        ({"available_at": "mlforge_x"}, "'mlforge_x' is no column name (one that begins with 'mlforge_' is reserved)"),
    ],
)
def test_a_time_of_availability_that_means_nothing_is_refused(arguments: dict[str, Any], says: str) -> None:
    options = {"keys": ["user"], "source": "x.parquet", "timestamp": "ts", "available_at": "seen", "name": "shop"}
    with pytest.raises(DefinitionError, match=re.escape(f"Feature 'shop': {says}")):
        mlf.feature(**options | arguments)(lambda df: df)


def test_a_time_of_availability_that_is_none_is_named(tmp_path: Path) -> None:
    events = events_of([(1, 0, 0.0, 5, None)])
    with pytest.raises(DataError, match="'n' is Int64, not a datetime or date"):
        build(tmp_path, events, available_at="n")
    with pytest.raises(DefinitionError, match="the time of availability 'known' is missing"):
        build(tmp_path, events, available_at="known")


def test_the_oracle_knows_what_late_means() -> None:
    events = events_of([(1, 0, 3.0, 5, None)])
    known: dict[str, Any] = {"timestamp": "ts", "interval": "1h", "windows": ["1d"], "aggregations": {"n": ["count"]}}
    at = {hours: value_at(events, {"user": 1}, START + hours * HOUR, available_at="seen", **known) for hours in (3, 4)}
    assert at == {3: None, 4: {"n__count__1d": 1}}
    assert boundary(START, None) == instant(START)
