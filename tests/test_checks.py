"""Checks: conditions on rows, and their verdicts."""

from typing import Any

import polars as pl
import pytest

from mlforge.checks import Check, require, run
from mlforge.errors import CheckFailedError, DataError, DefinitionError

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
        "'up': 1 of 4 rows, such as {'a': -4, 'b': 'x'}; 'x': 2 of 4 rows, such as {'a': 2, 'b': 'y'}."
    )


def test_warnings_and_passed_checks_require_nothing() -> None:
    found = run({"up": Check(pl.col("a") > 0, "warn"), "all": Check(pl.col("a") > -9)}, FRAME, feature="f")
    require(found, feature="f")
    assert [result.passed for result in found] == [False, True]
