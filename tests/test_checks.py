"""Checks: conditions on rows, and their verdicts."""

import datetime as dt
import math
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import mlforge as mlf
from mlforge import checks
from mlforge.checks import Check
from mlforge.definition import definition_hash
from mlforge.errors import CheckFailedError, DataError, DefinitionError
from mlforge.verdicts import require, run, shown

FRAME = pl.DataFrame({"a": [1, 2, None, -4], "b": ["x", "y", "z", "x"]})


def verdict(expression: pl.Expr, frame: pl.DataFrame = FRAME, **arguments: Any) -> Any:
    (result,) = run({"c": Check(expression, **arguments)}, frame, feature="f")
    return result


def test_a_row_passes_where_the_condition_holds_or_is_null() -> None:
    result = verdict(pl.col("a") > 0)
    assert (result.rows, result.failed, result.passed) == (4, 1, False)
    assert result.examples == [{"a": -4, "b": "x"}]
    assert verdict(pl.col("a") > -5).passed


def test_nulls_can_be_refused() -> None:
    assert verdict(pl.col("a").is_not_null()).failed == 1


def test_five_rows_are_shown_at_most() -> None:
    result = verdict(pl.col("n") < 0, pl.DataFrame({"n": range(100)}))
    assert result.failed == 100
    assert [row["n"] for row in result.examples] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("least", "failed"), [(0, 4), (-5, 0)])
def test_an_aggregate_is_one_verdict_on_all_rows(least: int, failed: int) -> None:
    assert verdict(pl.col("a").mean() > least).failed == failed


def test_an_aggregate_that_is_null_passes() -> None:
    assert verdict(pl.col("a").mean() > 0, FRAME.filter(pl.col("b") == "z")).passed


def test_a_window_expression_is_a_condition_on_rows() -> None:
    assert verdict(pl.col("b").is_unique()).failed == 2


def test_no_rows_pass_everything() -> None:
    assert verdict(pl.col("a") > 0, FRAME.clear()).passed


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        (pl.col("c") > 0, "Check 'c' of feature 'f' cannot be evaluated"),
        (pl.col("b") > 0, "Check 'c' of feature 'f' cannot be evaluated"),
        (pl.col("a", "b").is_null(), "Check 'c' of feature 'f' cannot be evaluated"),
        (pl.col("a") + 1, "Check 'c' of feature 'f' gives Int64, not a Boolean for each row"),
        ((pl.col("a") > 0).head(2), "Check 'c' of feature 'f' gives Boolean, not a Boolean for each row"),
    ],
)
def test_an_expression_that_is_no_condition_is_named(expression: pl.Expr, says: str) -> None:
    with pytest.raises(DataError) as caught:
        verdict(expression)
    assert says in str(caught.value)


@pytest.mark.parametrize("value", [True, "a > 0", None])
def test_a_check_is_an_expression(value: Any) -> None:
    with pytest.raises(DefinitionError, match="A check is a Polars expression such as"):
        Check(value)


def test_there_are_two_severities() -> None:
    with pytest.raises(DefinitionError, match="The severity of a check is 'error' or 'warn', not 'fatal'"):
        Check(pl.col("a") > 0, severity="fatal")  # type: ignore[arg-type]


def test_every_failed_check_is_named_with_its_counts_and_an_example() -> None:
    found = run({"up": Check(pl.col("a") > 0), "x": Check(pl.col("b") == "x")}, FRAME, feature="f")
    with pytest.raises(CheckFailedError) as caught:
        require(found, feature="f")
    assert str(caught.value) == (
        "Feature 'f' is not published, since a check failed: "
        "'up': 1 of 4 rows, such as a=-4 b='x'; 'x': 2 of 4 rows, such as b='y' a=2."
    )


def test_large_counts_are_readable() -> None:
    found = run({"up": Check(pl.col("n") > 1_740)}, pl.DataFrame({"n": range(50_005)}), feature="f")
    with pytest.raises(CheckFailedError, match="'up': 1,741 of 50,005 rows, such as n=0"):
        require(found, feature="f")


def test_warnings_and_passed_checks_require_nothing() -> None:
    found = run({"up": Check(pl.col("a") > 0, "warn"), "all": Check(pl.col("a") > -9)}, FRAME, feature="f")
    require(found, feature="f")
    assert [result.passed for result in found] == [False, True]


INSTANTS = st.datetimes(min_value=dt.datetime(1900, 1, 1), max_value=dt.datetime(2200, 1, 1))
KINDS: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "Int64": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "UInt8": (pl.UInt8(), st.integers(0, 255)),
    "Float64": (pl.Float64(), st.floats()),
    "Float32": (pl.Float32(), st.floats(width=32)),
    "String": (pl.String(), st.text()),
    "Boolean": (pl.Boolean(), st.booleans()),
    "Decimal": (pl.Decimal(20, 2), st.decimals(-(10**9), 10**9, places=2)),
    "Date": (pl.Date(), st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1))),
    "naive": (pl.Datetime("us"), INSTANTS),
    "UTC": (pl.Datetime("us", "UTC"), INSTANTS.map(lambda instant: instant.replace(tzinfo=dt.UTC))),
}


@st.composite
def columns(draw: st.DrawFn, kind: str) -> tuple[pl.Series, list[Any]]:
    """A column in which values come up more than once, and what is in it."""
    dtype, values = KINDS[kind]
    pool = draw(st.lists(values, min_size=1, max_size=5))
    held = draw(st.lists(st.none() | st.sampled_from(pool) | values, min_size=1, max_size=10))
    return pl.Series(held, dtype=dtype), held


def finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


@st.composite
def bounds(draw: st.DrawFn, kind: str) -> tuple[Any, Any]:
    """Two values in their order; one of them may be None."""
    values = KINDS[kind][1].filter(finite)
    lower, upper = sorted([draw(values), draw(values)])
    return draw(st.sampled_from([(lower, upper), (lower, None), (None, upper)]))


def fails_where(check: Check, passes: list[bool], **columns: pl.Series) -> None:
    """Asserts that exactly these rows fail."""
    frame = pl.DataFrame({"row": range(len(passes)), **columns})
    (result,) = run({"c": check}, frame, feature="f")
    expected = [row for row, good in enumerate(passes) if not good]
    assert (result.failed, [row["row"] for row in result.examples]) == (len(expected), expected[:5])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(data=st.data())
def test_not_null_finds_what_is_stored_as_null(kind: str, data: st.DataObject) -> None:
    column, held = data.draw(columns(kind))
    there = [value is not None and finite(value) for value in held]
    fails_where(checks.not_null("x"), there, x=column)
    other = [0 if good else None for good in reversed(there)]
    both = [good and value is not None for good, value in zip(there, other, strict=True)]
    fails_where(checks.not_null("y", "x"), both, x=column, y=pl.Series(other, dtype=pl.Int64))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(data=st.data())
def test_unique_finds_every_row_whose_values_are_there_twice_but_for_nulls(kind: str, data: st.DataObject) -> None:
    column, held = data.draw(columns(kind))
    same = [str(value) if value != value else value for value in held]
    times = Counter(same)
    fails_where(checks.unique("x"), [value is None or times[value] == 1 for value in same], x=column)
    others = data.draw(st.lists(st.sampled_from([None, 1, 2]), min_size=len(held), max_size=len(held)))
    pairs = list(zip(same, others, strict=True))
    often = Counter(pairs)
    alone = [None in pair or often[pair] == 1 for pair in pairs]
    fails_where(checks.unique("x", "y"), alone, x=column, y=pl.Series(others, dtype=pl.Int64))


def inside(value: Any, lower: Any, upper: Any) -> bool:
    return value is None or ((lower is None or lower <= value) and (upper is None or value <= upper))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "Boolean"])
@settings(max_examples=30)
@given(data=st.data())
def test_between_includes_its_bounds_and_lets_nulls_pass(kind: str, data: st.DataObject) -> None:
    column, held = data.draw(columns(kind))
    lower, upper = data.draw(bounds(kind))
    fails_where(checks.between("x", lower, upper), [inside(value, lower, upper) for value in held], x=column)


@pytest.mark.parametrize("limits", [(0, None), (None, 0), (-1, 1)])
def test_nan_is_between_nothing(limits: tuple[Any, Any]) -> None:
    fails_where(checks.between("x", *limits), [False, True], x=pl.Series([math.nan, 0.0]))


@settings(max_examples=30)
@given(held=st.lists(st.integers(-200, 200)), pair=st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2).map(sorted))
@pytest.mark.parametrize("dtype", [pl.Int16, pl.Int64, pl.Float64, pl.Decimal(10, 2)])
def test_integers_and_decimals_may_have_bounds_that_are_floats(dtype: Any, held: list[int], pair: list[float]) -> None:
    fails_where(checks.between("x", *pair), [inside(v, *pair) for v in held], x=pl.Series(held, dtype=dtype))


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Paris"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@settings(max_examples=30)
@given(held=st.lists(INSTANTS), pair=st.lists(INSTANTS, min_size=2, max_size=2).map(sorted), aware=st.booleans())
def test_instants_are_compared_in_utc_whatever_column_and_bounds_say(
    zone: str | None, unit: Any, held: list[dt.datetime], pair: list[dt.datetime], aware: bool
) -> None:
    held = [value.replace(microsecond=value.microsecond // 1000 * 1000) for value in held]
    column = pl.Series(held, dtype=pl.Datetime(unit))
    if zone is not None:
        column = column.dt.replace_time_zone("UTC").dt.convert_time_zone(zone)
    east = dt.timezone(dt.timedelta(hours=5))
    given = [value.replace(tzinfo=dt.UTC).astimezone(east) for value in pair] if aware else pair
    fails_where(checks.between("x", *given), [inside(value, *pair) for value in held], x=column)
    fails_where(checks.is_in("x", given), [value in pair for value in held], x=column)


@pytest.mark.parametrize("zone", [None, "UTC"])
@settings(max_examples=30)
@given(held=st.lists(INSTANTS), data=st.data())
def test_a_date_stands_for_the_whole_day(zone: str | None, held: list[dt.datetime], data: st.DataObject) -> None:
    days = st.sampled_from([value.date() for value in held] + [dt.date(2026, 1, 31)])
    lower, upper = sorted([data.draw(days), data.draw(days)])
    column = pl.Series(held, dtype=pl.Datetime("us", zone))
    fails_where(checks.between("x", lower, upper), [inside(v.date(), lower, upper) for v in held], x=column)
    fails_where(checks.is_in("x", [lower, upper]), [v.date() in (lower, upper) for v in held], x=column)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(data=st.data())
def test_is_in_knows_every_value_of_its_list(kind: str, data: st.DataObject) -> None:
    column, held = data.draw(columns(kind))
    some = [value for value in held if value is not None and finite(value) and data.draw(st.booleans())]
    known = [*some, data.draw(KINDS[kind][1].filter(finite))]
    fails_where(checks.is_in("x", known), [value is None or value in known for value in held], x=column)


@pytest.mark.parametrize("pattern", ["[a-c]+", "a|bc", "a.c", "", "[0-9]{2}", "(?i)abc", r"\w\d", "^a$"])
@settings(max_examples=30)
@example(held=["ab", "abc", "bc", "a\n", "xa"])
@given(held=st.lists(st.none() | st.text("abcAC.\n019", max_size=4)))
def test_matches_is_about_the_whole_text(pattern: str, held: list[str | None]) -> None:
    # `$` at the end of Python's patterns also matches before a last line break.
    good = [value is None or (re.fullmatch(pattern, value) is not None) for value in held]
    fails_where(checks.matches("x", pattern), good, x=pl.Series(held, dtype=pl.String))


NUMBERS: dict[str, list[Any]] = {
    "int": [1, 3, -2],
    "float": [1.0, 2.5, -2.0],
    "Decimal": [Decimal("1.0"), Decimal("2.5"), Decimal("-2.0")],
}


@pytest.mark.parametrize("given_as", NUMBERS)
@pytest.mark.parametrize("dtype", [pl.Int64, pl.Int8, pl.UInt32, pl.Float64, pl.Float32, pl.Decimal(10, 2)])
def test_numbers_are_in_a_list_of_numbers_of_another_kind(given_as: str, dtype: Any) -> None:
    known = NUMBERS[given_as]
    column = pl.Series([0, 1, 3, None]).cast(dtype)
    fails_where(checks.is_in("x", known), [v is None or v in known for v in column.to_list()], x=column)
    if not dtype.is_integer():
        halves = pl.Series([2.5, 0.5]).cast(dtype)
        fails_where(checks.is_in("x", known), [2.5 in known, False], x=halves)


@pytest.mark.parametrize("dtype", [pl.Boolean, pl.String, pl.Date])
@pytest.mark.parametrize("known", [[1], [1.5]])
def test_what_is_no_number_is_not_looked_for_among_numbers(dtype: Any, known: list[Any]) -> None:
    with pytest.raises(DataError, match=r"cannot be evaluated: .is_in. cannot check for"):
        run({"c": checks.is_in("x", known)}, pl.DataFrame({"x": pl.Series([None], dtype=dtype)}), feature="f")


@pytest.mark.parametrize(
    ("texts", "moments"),
    [
        (("2026-01-01", "2026-03-31"), (dt.date(2026, 1, 1), dt.date(2026, 3, 31))),
        (("2026-01-01", None), (dt.date(2026, 1, 1), None)),
        ((None, "2026-03-31T09:30:00+02:00"), (None, dt.datetime(2026, 3, 31, 7, 30))),
        (("2026-01-01T00:00", "2026-03-31"), (dt.datetime(2026, 1, 1), dt.datetime(2026, 3, 31))),
    ],
)
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Paris"])
def test_text_is_an_instant_or_a_day_where_the_column_holds_those(texts: Any, moments: Any, zone: str | None) -> None:
    days = [dt.datetime(2025, 12, 31, 22), dt.datetime(2026, 1, 1, 1), dt.datetime(2026, 3, 31, 7, 30, 1)]
    frame = pl.DataFrame({"x": pl.Series([*days, dt.datetime(2026, 4, 1), None], dtype=pl.Datetime("us", zone))})
    both = [run({"c": checks.between("x", *pair)}, frame, feature="f")[0].examples for pair in (texts, moments)]
    assert both[0] == both[1]
    assert 0 < len(both[0]) < 4
    if known := [text for text in texts if text]:
        same = [checks.is_in("x", known), checks.is_in("x", [moment for moment in moments if moment is not None])]
        both = [run({"c": check}, frame, feature="f")[0].examples for check in same]
        assert both[0] == both[1]


def test_text_in_iso_8601_is_a_day_where_the_column_holds_days_and_text_where_it_holds_text() -> None:
    days = [dt.date(2026, 1, 1), dt.date(2026, 4, 1), None]
    for check in (checks.between("x", "2026-01-01", "2026-03-31"), checks.is_in("x", ["2026-01-01"])):
        fails_where(check, [True, False, True], x=pl.Series(days))
        fails_where(check, [True, False, True], x=pl.Series([str(day) if day else None for day in days]))


def test_now_is_no_instant_for_a_check() -> None:
    # It would be another definition each time.
    assert hash_with(checks.between("x", "now")) == hash_with(checks.between("x", "now"))
    assert checks.between("x", "now").expression.meta.root_names() == ["x"]


def test_a_failing_row_begins_with_what_the_check_is_about() -> None:
    (found,) = run({"c": checks.between("b", 0)}, pl.DataFrame({"a": [1], "b": [-1], "c": ["x"]}), feature="f")
    assert list(found.examples[0]) == ["b", "a", "c"]


def test_a_failing_row_is_short() -> None:
    row = {
        "id": 1,
        "at": dt.datetime(2026, 1, 6, 12),
        "seen": dt.datetime(2026, 1, 6, 12, tzinfo=dt.UTC),
        "day": dt.date(2026, 1, 6),
        "note": None,
        "text": "x" * 1000,
        "list": list(range(100)),
        "n": 0.5,
        "more": 1,
    }
    assert shown(row) == (
        "id=1 at=2026-01-06T12:00:00 seen=2026-01-06T12:00:00Z day=2026-01-06 note=null "
        f"text='{'x' * 36}... list=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11... n=0.5 ..."
    )


def test_texts_may_be_categories() -> None:
    for dtype in (pl.Categorical, pl.Enum(["a", "b", "c"])):
        column = pl.Series(["a", "b", None, "c"], dtype=dtype)
        fails_where(checks.is_in("x", {"a", "c", "zebra"}), [True, False, True, True], x=column)
        fails_where(checks.not_null("x"), [True, True, False, True], x=column)
        fails_where(checks.unique("x"), [True] * 4, x=column)


class Country(StrEnum):
    DE = "de"
    FR = "fr"


@pytest.mark.parametrize("values", [Country, ("de", "fr"), {"de": 1, "fr": 2}, pl.Series(["fr", "de"]), {"de", "fr"}])
def test_is_in_takes_whatever_has_values(values: Any) -> None:
    column = pl.Series(["de", "at", None])
    fails_where(checks.is_in("x", values), [True, False, True], x=column)


def test_a_ready_made_check_has_a_severity_and_a_description() -> None:
    ready: list[Callable[..., Check]] = [
        checks.not_null,
        checks.unique,
        lambda x, **more: checks.between(x, 0, **more),
        lambda x, **more: checks.is_in(x, [0], **more),
        lambda x, **more: checks.matches(x, "a", **more),
    ]
    for check in ready:
        assert (check("x").severity, check("x").description) == ("error", "")
        made = check("x", severity="warn", description="why")
        assert (made.severity, made.description) == ("warn", "why")
        with pytest.raises(DefinitionError, match="The severity of a check is"):
            check("x", severity="fatal")
        with pytest.raises(DefinitionError, match="A check is about columns by name, as in 'amount', not 1"):
            check(1)
        (dtype,) = {str} if check is ready[-1] else {int}
        with pytest.raises(DataError, match=r"Check 'c' of feature 'f' cannot be evaluated: unable to find .*'?gone"):
            run({"c": check("gone")}, pl.DataFrame({"x": [dtype()]}), feature="f")


NONSENSE = "A check compares with finite numbers, text, dates and datetimes, not with "


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: checks.not_null(), "A check is about one or more different columns, not []."),
        (lambda: checks.unique("a", "a"), "A check is about one or more different columns, not ['a', 'a']."),
        (lambda: checks.unique(["a", "b"]), 'unique takes its columns one by one: write unique("a", "b").'),
        (lambda: checks.not_null(("a",)), 'not_null takes its columns one by one: write not_null("a").'),
        (lambda: checks.unique(["a"], "b"), "A check is about columns by name, as in 'amount', not ['a']."),
        (lambda: checks.between(["a"], 1), "A check is about columns by name, as in 'amount', not ['a']."),
        (lambda: checks.not_null(""), "A check is about columns by name, as in 'amount', not ''."),
        (lambda: checks.between("a"), "between('a') has no bounds: write a lower one, an upper one, or both."),
        (lambda: checks.between("a", 2, 1), "Nothing is between 2 and 1: the lower bound comes first."),
        (lambda: checks.between("a", 2, "b"), "2 and 'b' are of two kinds: no value is between them."),
        (lambda: checks.between("a", math.nan, 1), f"{NONSENSE}nan."),
        (lambda: checks.between("a", 0, math.inf), f"{NONSENSE}inf."),
        (lambda: checks.between("a", Decimal("sNaN")), f"{NONSENSE}Decimal('sNaN')."),
        (lambda: checks.between("a", 2**200), f"{NONSENSE}{2**200}."),
        (lambda: checks.between("a", 10**400), f"{NONSENSE}{10**400}."),
        (lambda: checks.between("a", Decimal("1e50")), f"{NONSENSE}Decimal('1E+50')."),
        (lambda: checks.between("a", [1]), f"{NONSENSE}[1]."),
        (lambda: checks.is_in("a", "abc"), "values is a list: write is_in('a', [...]), not 'abc'."),
        (lambda: checks.is_in("a", 5), "values is a list: write is_in('a', [...]), not 5."),
        (lambda: checks.is_in("a", []), "is_in('a', ...) has no values."),
        (lambda: checks.is_in("a", [1, None]), f"{NONSENSE}None."),
        (
            lambda: checks.is_in("a", [1, 2.5]),
            "is_in('a', ...) has values of several types (float, int): write them all as one.",
        ),
        (lambda: checks.matches("a", None), "A pattern is text, as in '[A-Z]{3}', not None."),
        (lambda: checks.matches("a", "("), "'(' is no regular expression that Polars understands: unclosed group."),
        (lambda: checks.matches("a", "a)|(?:b"), "'a)|(?:b' is no regular expression that Polars understands: unop"),
        (lambda: checks.matches("a", "(?=a)"), "understands: look-around, including look-ahead and look-behind, is"),
        (lambda: checks.matches("a", r"\w{5000}"), "understands: Compiled regex exceeds size limit of 10485760 bytes."),
    ],
)
def test_what_cannot_be_a_check_is_one_line_that_says_why(make: Callable[[], Check], says: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        make()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("check", "says"),
    [
        (checks.between("b", 1), "cannot compare string with numeric type (i32)"),
        (checks.between("a", dt.date(2026, 1, 1)), "expected Datetime or Date, got i64"),
        (checks.between("a", dt.datetime(2026, 1, 1)), "expected duration or datetime, got i64"),
        (checks.is_in("b", [1]), "'is_in' cannot check for String values in List(Int64) data"),
        (checks.matches("a", "x"), "expected String type, got: i64"),
    ],
)
def test_a_column_of_another_kind_is_an_error_in_one_line(check: Check, says: str) -> None:
    with pytest.raises(DataError) as caught:
        run({"c": check}, FRAME, feature="f")
    assert str(caught.value) == f"Check 'c' of feature 'f' cannot be evaluated: {says}"


def hash_with(check: Check) -> str:
    return definition_hash(
        mlf.feature(keys=["k"], source="x.parquet", checks={"c": check}, name="f")(lambda df: df.select("k", "a"))
    )


def test_whatever_changes_a_verdict_changes_the_definition() -> None:
    long = list(range(10_000))
    different = [
        checks.not_null("a"),
        checks.not_null("b"),
        checks.not_null("a", "b"),
        checks.not_null("a", severity="warn"),
        checks.unique("a"),
        checks.unique("a", "b"),
        checks.between("a", 0),
        checks.between("a", 0, 1),
        checks.between("a", 0, 2),
        checks.between("a", None, 1),
        checks.between("a", dt.date(2026, 1, 1)),
        checks.between("a", dt.datetime(2026, 1, 1)),
        checks.is_in("a", long),
        checks.is_in("a", [*long[:5_000], -1, *long[5_001:]]),
        checks.is_in("a", [str(number) for number in long]),
        checks.matches("a", "x"),
        checks.matches("a", "xy"),
    ]
    assert len({hash_with(check) for check in different}) == len(different)


def test_what_changes_no_verdict_does_not() -> None:
    assert hash_with(checks.not_null("a")) == hash_with(checks.not_null("a", description="why"))
    assert hash_with(checks.is_in("a", [3, 1, 2, 1])) == hash_with(checks.is_in("a", {1, 2, 3}))
    utc = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert hash_with(checks.between("a", utc)) == hash_with(checks.between("a", utc.replace(tzinfo=None)))


def test_the_definition_is_the_same_in_every_process() -> None:
    program = (
        "from test_checks import checks, hash_with\n"
        "for check in (checks.is_in('a', {str(n) for n in range(99)}), checks.not_null('a', 'b'), checks.unique('a'),\n"
        "        checks.between('a', 0), checks.matches('a', 'x')):\n"
        "    print(hash_with(check))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert [len(text.split()) for text in said] == [5]
