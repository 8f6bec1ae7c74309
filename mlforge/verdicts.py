"""Verdicts: what checks find in data, and whether it may be published."""

import datetime as dt
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl

from mlforge.checks import Check, Severity, columns_of
from mlforge.errors import CheckFailedError, DataError, one_line

EXAMPLES = 5
# In text, of a failing row: so many columns, and so many characters of a value.
COLUMNS, WIDTH = 8, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a check found.

    Attributes:
        name: The name of the check.
        severity: Whether failing keeps the build from being published.
        rows: How many rows were looked at.
        failed: How many of them failed.
        examples: Up to 5 of those; the columns that the check names come first.
    """

    name: str
    severity: Severity
    rows: int
    failed: int
    examples: Sequence[Mapping[str, Any]]

    @property
    def passed(self) -> bool:
        """True where no row failed."""
        return self.failed == 0


def run(checks: Mapping[str, Check], frame: pl.DataFrame, *, feature: str) -> list[CheckResult]:
    """Looks at every row of a frame with every check.

    Raises:
        DataError: An expression names a column that is not there or does not give a Boolean for each row.
    """
    return [_verdict(name, check, frame, feature) for name, check in checks.items()]


def run_lazily(checks: Mapping[str, Check], rows: pl.LazyFrame, *, order: str, feature: str) -> list[CheckResult]:
    """As `run`, without holding the rows in memory; only what all rows decide together is held with its columns.

    Args:
        checks: By name.
        rows: In any order.
        order: The column that numbers them, from 0; there are rows without it only where there are no checks.
        feature: The feature's name.

    Raises:
        DataError: As for `run`.
    """
    return [_lazy_verdict(name, check, rows, order, feature) for name, check in checks.items()]


def by_row(check: Check, schema: Mapping[str, pl.DataType]) -> bool:
    """Whether a check judges each row by itself, of rows with these columns."""
    # Polars knows, and filters before it sorts only by what does.
    plan = pl.LazyFrame(schema=schema).with_columns(mlforge_order=0).sort("mlforge_order").filter(check.expression)
    return plan.explain().lstrip().startswith("SORT")


def require(results: Sequence[CheckResult], *, feature: str) -> None:
    """Raises CheckFailedError, with the counts and an example, if a check of severity error failed."""
    lost = [result for result in results if result.severity == "error" and not result.passed]
    if lost:
        found = "; ".join(f"{r.name!r}: {r.failed:,} of {r.rows:,} rows, such as {shown(r.examples[0])}" for r in lost)
        raise CheckFailedError(
            f"Feature {feature!r} is not published, since a check failed: {found}.", feature, results
        )


def shown(row: Mapping[str, Any]) -> str:
    """A row for a person, in one short line.

    >>> shown({"user_id": 123, "ts": dt.datetime(2026, 1, 6, 12, tzinfo=dt.UTC), "note": None, "country": "FR"})
    "user_id=123 ts=2026-01-06T12:00:00Z note=null country='FR'"
    """
    cells = [f"{name}={_shown(value)}" for name, value in list(row.items())[:COLUMNS]]
    return " ".join([*cells, *(["..."] if len(row) > COLUMNS else [])])


def _shown(value: Any) -> str:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat().replace("+00:00", "Z")
    text = "null" if value is None else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."


def _verdict(name: str, check: Check, frame: pl.DataFrame, feature: str) -> CheckResult:
    holds = _holds(name, check, frame.lazy(), len(frame), feature)
    # An aggregate such as pl.col("amount").mean() > 0 is one verdict on all rows.
    failing = frame.filter(~holds) if len(holds) == len(frame) else frame.clear() if holds[0] is not False else frame
    return _result(name, check, len(frame), len(failing), failing.head(EXAMPLES))


def _lazy_verdict(name: str, check: Check, rows: pl.LazyFrame, order: str, feature: str) -> CheckResult:
    count = rows.select(pl.len())
    schema = rows.drop(order).collect_schema()
    # Of no rows, so that it is known what it gives.
    _holds(name, check, pl.LazyFrame(schema=schema), 0, feature)
    if by_row(check, schema) and not _names(check, order, schema):
        failing = rows.filter(~check.expression)
    else:
        ordered = rows.sort(order)
        numbers = ordered.select(order).collect(engine="streaming")
        # Without the numbers, which are no column of the function's.
        holds = _holds(name, check, ordered.drop(order), len(numbers), feature)
        if len(holds) == len(numbers):
            failing = rows.join(numbers.filter(~holds).lazy(), on=order, how="semi")
        else:
            failing = rows if holds[0] is False else rows.limit(0)
    first = failing.bottom_k(EXAMPLES, by=order).sort(order).drop(order)
    with _evaluating(name, feature):
        total, failed, examples = pl.collect_all([count, failing.select(pl.len()), first], engine="streaming")
    return _result(name, check, total.item(), failed.item(), examples)


def _names(check: Check, column: str, schema: Mapping[str, pl.DataType]) -> bool:
    """Whether a check would be about a column, were it there as well, as one of all columns is."""
    plan = pl.LazyFrame(schema={**schema, column: pl.UInt32()}).select(check.expression.alias("holds"))
    return f'col("{column}")' in plan.explain(optimized=False)


def _holds(name: str, check: Check, frame: pl.LazyFrame, rows: int, feature: str) -> pl.Series:
    with _evaluating(name, feature):
        holds = frame.select(check.expression.alias("holds")).collect(engine="streaming")["holds"]
    if holds.dtype != pl.Boolean or len(holds) not in (1, rows):
        raise DataError(f"Check {name!r} of feature {feature!r} gives {holds.dtype}, not a Boolean for each row.")
    return holds


@contextmanager
def _evaluating(name: str, feature: str) -> Generator[None]:
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise DataError(f"Check {name!r} of feature {feature!r} cannot be evaluated: {one_line(error)}") from error


def _result(name: str, check: Check, rows: int, failed: int, failing: pl.DataFrame) -> CheckResult:
    named = [column for column in columns_of(check) if column in failing.columns]
    return CheckResult(
        name=name,
        severity=check.severity,
        rows=rows,
        failed=failed,
        # What the check is about comes first.
        examples=[{**{column: row[column] for column in named}, **row} for row in failing.to_dicts()],
    )
