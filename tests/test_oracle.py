"""The oracle against numbers worked out by hand, which stand in the tests."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from oracle import agrees, boundary, instant, value_at, value_of_snapshot, value_of_timestamped

DAY = 86_400_000_000
ALL = ["count", "sum", "mean", "min", "max", "std", "var", "median", "n_unique", "first", "last"]


def event(t: int, x: Any = None, user: str = "a", **rest: Any) -> dict[str, Any]:
    return {"user": user, "t": t, "x": x, **rest}


def at(events: list[dict[str, Any]], t: int, *, interval: str | None = "1d", **changes: Any) -> Any:
    given: dict[str, Any] = {"windows": ["2d"], "aggregations": {"x": ["sum"]}} | changes
    return value_at(events, {"user": "a"}, t, timestamp="t", interval=interval, **given)


def test_all_eleven_aggregates_of_four_values() -> None:
    # 4, 2, 2 and 8 in the order of time: the mean is 16 / 4 = 4, the deviations are 0, -2, -2 and 4, their
    # squares add up to 24, so var = 24 / 3 = 8 and std = 2.828427...; in the middle of 2, 2, 4, 8 are 2 and 4.
    events = [
        event(10, 4.0),
        event(40, 8.0),
        event(20, 2.0),
        event(30, 2.0),
        event(15, None),
        event(16, 9.0, "b"),
    ]
    expected = [4, 16.0, 4.0, 2.0, 8.0, 2.8284271247461903, 8.0, 3.0, 3, 4.0, 8.0]
    assert list(at(events, DAY, aggregations={"x": ALL}).values()) == expected


def test_an_event_enters_at_the_next_boundary_and_leaves_when_the_window_has_passed() -> None:
    events = [event(DAY, 5)]
    assert at(events, 2 * DAY - 1) is None
    assert at(events, 2 * DAY) == {"x__sum__2d": 5}
    assert at(events, 4 * DAY - 1) == {"x__sum__2d": 5}  # B = 3 days, the window begins at 1 day: inside.
    assert at(events, 4 * DAY) == {"x__sum__2d": 0}
    assert at(events, 4000 * DAY, aggregations={"x": ["count", "n_unique", "mean", "last"]}) == {
        "x__count__2d": 0,
        "x__n_unique__2d": 0,
        "x__mean__2d": None,
        "x__last__2d": None,
    }


def test_without_an_interval_an_event_does_not_see_itself_and_leaves_a_microsecond_late() -> None:
    events = [event(100, 5)]
    assert at(events, 100, interval=None) is None
    assert at(events, 101, interval=None) == {"x__sum__2d": 5}
    assert at(events, 100 + 2 * DAY, interval=None) == {"x__sum__2d": 5}
    assert at(events, 101 + 2 * DAY, interval=None) == {"x__sum__2d": 0}


def test_boundaries_are_rounded_down_before_1970_too_and_weeks_begin_on_mondays() -> None:
    assert boundary(-1, "1d") == -DAY
    assert boundary(-DAY, "1d") == -DAY
    assert boundary(10 * DAY, "7d") == 7 * DAY
    assert boundary(10 * DAY, "1w") == 4 * DAY  # Monday 1970-01-05; the next is 1970-01-12.
    assert boundary(3 * DAY, "1w") == -3 * DAY  # Monday 1969-12-29.
    assert boundary(datetime(2026, 1, 31, 15), "1w") == instant(datetime(2026, 1, 26))
    assert boundary(17 * DAY, "2w") == 4 * DAY


def test_naive_times_are_utc_and_other_zones_are_converted() -> None:
    assert instant(datetime(1970, 1, 2)) == instant(datetime(1970, 1, 2, tzinfo=UTC)) == DAY
    assert instant(datetime(1970, 1, 2, tzinfo=timezone(timedelta(hours=1)))) == DAY - 3_600_000_000


def test_ties_go_by_the_remaining_columns_from_the_left_with_nulls_first() -> None:
    # At one time (x, y) = (1, 5), (null, 7), (1, null): in order (null, 7), (1, null), (1, 5).
    events = [event(0, 1, y=5), event(0, None, y=7), event(0, 1, y=None)]
    value = at(events, DAY, aggregations={"y": ["first", "last"], "x": ["first"]})
    assert value == {"y__first__2d": 7, "y__last__2d": 5, "x__first__2d": 1}


def test_an_entity_is_visible_by_an_event_without_a_value() -> None:
    assert at([event(0, None)], DAY, aggregations={"x": ["count", "sum", "max"]}) == {
        "x__count__2d": 0,
        "x__sum__2d": 0,
        "x__max__2d": None,
    }


def test_a_sample_of_one_has_no_deviation() -> None:
    assert at([event(0, 3)], DAY, aggregations={"x": ["std", "var", "mean"]}) == {
        "x__std__2d": None,
        "x__var__2d": None,
        "x__mean__2d": 3.0,
    }


def test_arithmetic_is_exact() -> None:
    # The mean of 1e9 + 0.25 and 1e9 + 0.75 is 1e9 + 0.5, the deviations are 1/4: var = 2 / 16 = 0.125.
    events = [event(0, 1e9 + 0.25), event(0, 1e9 + 0.75)]
    assert at(events, DAY, aggregations={"x": ["mean", "var"]}) == {
        "x__mean__2d": 1e9 + 0.5,
        "x__var__2d": 0.125,
    }
    assert at([event(0, 1e300), event(0, 1.0), event(0, -1e300)], DAY) == {"x__sum__2d": 1.0}
    # The sum is beyond a float and the variance of 0 and 1e300 is 5e599; their deviation is 1e300 / sqrt(2).
    assert at([event(0, 1e308), event(0, 1e308)], DAY) == {"x__sum__2d": None}
    spread = at([event(0, 0.0), event(0, 1e300)], DAY, aggregations={"x": ["var", "std"]})
    assert spread == {"x__var__2d": None, "x__std__2d": pytest.approx(7.071067811865475e299)}
    assert at([event(0, Decimal("0.1")), event(0, Decimal("0.2"))], DAY) == {"x__sum__2d": Decimal("0.3")}
    assert at([event(0, True), event(0, True)], DAY) == {"x__sum__2d": 2}


def test_nan_and_infinities_are_nulls() -> None:
    events = [event(0, float("nan")), event(0, float("-inf")), event(0, 2.0)]
    assert at(events, DAY, aggregations={"x": ["count", "min"]}) == {"x__count__2d": 1, "x__min__2d": 2.0}


def test_an_integer_sum_beyond_int64_is_an_error_but_the_last_one_within_is_not() -> None:
    assert at([event(0, 2**62), event(0, 2**62 - 1)], DAY) == {"x__sum__2d": 2**63 - 1}
    assert at([event(0, -(2**62)), event(0, -(2**62))], DAY) == {"x__sum__2d": -(2**63)}
    with pytest.raises(OverflowError, match="x__sum__2d"):
        at([event(0, 2**62), event(0, 2**62)], DAY)


def test_a_timestamped_feature_gives_the_newest_row_and_a_snapshot_its_only_one() -> None:
    rows = [event(5, 1, y=2), event(5, 1, y=9), event(5, None, y=99), event(7, 3, y=0)]
    assert value_of_timestamped(rows, {"user": "a"}, 4, timestamp="t") is None
    assert value_of_timestamped(rows, {"user": "a"}, 5, timestamp="t") == {"x": 1, "y": 9}
    assert value_of_timestamped(rows, {"user": "a"}, 7, timestamp="t") == {"x": 3, "y": 0}
    assert value_of_snapshot([{"user": "a", "x": 1}], {"user": "a"}) == {"x": 1}
    assert value_of_snapshot([{"user": "a", "x": 1}], {"user": "b"}) is None
    with pytest.raises(ValueError, match="2 rows"):
        value_of_snapshot([{"user": "a", "x": 1}, {"user": "a", "x": 1}], {"user": "a"})


def test_agreement_is_relative_above_one_absolute_below_and_exact_for_everything_but_floats() -> None:
    assert agrees(2e9 + 1.9, 2e9)
    assert not agrees(2e9 + 2.1, 2e9)
    assert agrees(1e-300 + 9e-10, 1e-300)
    assert not agrees(1.1e-9, 0.0)
    assert agrees(0.0, 0)
    assert not agrees(1e-17, 0)
    assert agrees(None, None)
    assert not agrees(None, 0)
    assert not agrees(0.0, None)
    assert not agrees(float("nan"), None)
    assert not agrees(float("nan"), 1.0)
    assert not agrees(float("inf"), 1e308)
    assert not agrees(True, 1)
    assert not agrees(Decimal("1.5"), 1.5)
