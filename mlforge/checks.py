"""Checks: named Polars expressions that data has to satisfy, some of them ready-made, and their verdicts.

```python
from mlforge import checks

checks={"amount is there": checks.not_null("amount"), "amount is sane": checks.between("amount", 0, 10_000)}
```
"""

import datetime as dt
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import polars as pl
import polars.selectors as cs

from mlforge.errors import CheckFailedError, DataError, DefinitionError
from mlforge.instant import instant

Severity = Literal["error", "warn"]
# What the values of a column are compared with; a datetime is a date as well, and a Boolean an integer.
Value = int | float | Decimal | str | dt.date
EXAMPLES = 5


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A condition on every row that a feature's function returns.

    Attributes:
        expression: A Boolean expression over the columns of the function's result. A row for which it is null
            passes, as in SQL: to refuse nulls, say `pl.col("amount").is_not_null()`.
        severity: `"error"`: nothing is published unless every row passes. `"warn"`: the verdict is reported.
        description: For people.
    """

    expression: pl.Expr
    severity: Severity = "error"
    description: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.expression, pl.Expr):
            raise DefinitionError(
                f"A check is a Polars expression such as pl.col('amount') >= 0, not {self.expression!r}."
            )
        if self.severity not in ("error", "warn"):
            raise DefinitionError(f"The severity of a check is 'error' or 'warn', not {self.severity!r}.")


def not_null(*columns: str, severity: Severity = "error", description: str = "") -> Check:
    """No value of these columns is null, nor NaN or infinite, which are stored as null.

    Raises:
        DefinitionError: Something is no column name.
    """
    names = _names(columns)
    finite = (cs.by_name(names, require_all=False) & cs.float()).is_finite()
    return Check(pl.all_horizontal(*(pl.col(name).is_not_null() for name in names), finite), severity, description)


def unique(*columns: str, severity: Severity = "error", description: str = "") -> Check:
    """No two rows have the same values in all of these columns; a row with a null in one of them passes.

    Raises:
        DefinitionError: Something is no column name.
    """
    names = _names(columns)
    absent = pl.any_horizontal(*(pl.col(name).is_null() for name in names))
    return Check(absent | pl.struct(names).is_unique(), severity, description)


def between(
    column: str,
    lower: Value | None = None,
    upper: Value | None = None,
    *,
    severity: Severity = "error",
    description: str = "",
) -> Check:
    """Every value is at least `lower` and at most `upper`, of which one may be left out; nulls pass, NaN does not.

    A datetime is compared with instants, a naive one being UTC, and a date with days: all of the last day is between.

    >>> frame = pl.DataFrame({"amount": [-1.0, 0.0, 10.0, 10.1, None]})
    >>> frame.filter(between("amount", 0, 10).expression)["amount"].to_list()
    [0.0, 10.0]

    Raises:
        DefinitionError: The bounds cannot be compared, or no value can be between them.
    """
    least, most = (None if bound is None else _value(bound) for bound in (lower, upper))
    if least is None and most is None:
        raise DefinitionError(f"between({column!r}) has no bounds: write a lower one, an upper one, or both.")
    if least is not None and most is not None:
        _require_order(least, most)
    elif most is None and not isinstance(least, str | dt.date):
        # NaN, which is greater than any other number in Polars.
        most = float("inf")
    values = _comparable(column, most if least is None else least)
    bounds = [] if least is None else [values >= pl.lit(least)]
    bounds += [] if most is None else [values <= pl.lit(most)]
    return Check(pl.all_horizontal(bounds), severity, description)


def is_in(column: str, values: Collection[Value], *, severity: Severity = "error", description: str = "") -> Check:
    """Every value is one of these; nulls pass. A date is compared with days, as in `between`.

    Args:
        column: The column.
        values: All of one type.
        severity: As in `Check`.
        description: As in `Check`.

    Raises:
        DefinitionError: There are no values, or they are of several types.
    """
    if isinstance(values, str) or not isinstance(values, Collection):
        raise DefinitionError(f"values is a list: write is_in({column!r}, [...]), not {values!r}.")
    allowed = [_value(value) for value in values]
    types = sorted({type(value).__name__ for value in allowed})
    if len(types) != 1:
        what = f"values of several types ({', '.join(types)}): write them all as one" if types else "no values"
        raise DefinitionError(f"is_in({column!r}, ...) has {what}.")
    # Sorted, since a set has another order in every process, and the definition would seem to have changed.
    known: list[Any] = sorted(set(allowed))
    return Check(_comparable(column, known[0]).is_in(known), severity, description)


def matches(column: str, pattern: str, *, severity: Severity = "error", description: str = "") -> Check:
    """The whole of every text matches a regular expression; nulls pass.

    Args:
        column: A column of strings.
        pattern: In the syntax of Rust's `regex`, which Polars uses: Python's without looking around and back.
        severity: As in `Check`.
        description: As in `Check`.

    >>> frame = pl.DataFrame({"code": ["AB1", "AB12"]})
    >>> frame.filter(matches("code", "[A-Z]{2}[0-9]").expression)["code"].to_list()
    ['AB1']

    Raises:
        DefinitionError: The pattern is none.
    """
    if not isinstance(pattern, str):
        raise DefinitionError(f"A pattern is text, as in '[A-Z]{{3}}', not {pattern!r}.")
    whole = rf"\A(?:{pattern})\z"
    try:
        # The pattern alone as well: "a)|(?:b" is only one in brackets.
        pl.select(alone=pl.lit("").str.contains(pattern), whole=pl.lit("").str.contains(whole))
    except pl.exceptions.ComputeError as error:
        reason = str(error).partition("\n\n")[0].rpartition("error: ")[2].strip().rstrip(".")
        raise DefinitionError(f"{pattern!r} is no regular expression that Polars understands: {reason}.") from None
    return Check(_column(column).str.contains(whole), severity, description)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What a check found.

    Attributes:
        name: The name of the check.
        severity: Whether failing keeps the build from being published.
        rows: How many rows were looked at.
        failed: How many of them failed.
        examples: Up to 5 of those.
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


def require(results: Sequence[CheckResult], *, feature: str) -> None:
    """Raises CheckFailedError, with the counts and an example, if a check of severity error failed."""
    lost = [result for result in results if result.severity == "error" and not result.passed]
    if lost:
        found = "; ".join(f"{r.name!r}: {r.failed} of {r.rows} rows, such as {dict(r.examples[0])}" for r in lost)
        raise CheckFailedError(f"Feature {feature!r} is not published, since a check failed: {found}.")


def _names(columns: Sequence[str]) -> list[str]:
    for column in columns:
        if not isinstance(column, str) or not column:
            raise DefinitionError(f"A check is about columns by name, as in 'amount', not {column!r}.")
    if not columns or len(set(columns)) < len(columns):
        raise DefinitionError(f"A check is about one or more different columns, not {list(columns)}.")
    return list(columns)


def _column(name: str) -> pl.Expr:
    return pl.col(*_names([name]))


def _value(value: Value) -> Any:
    """A value that columns can be compared with; instants in UTC."""
    if isinstance(value, dt.datetime):
        return instant(value)
    try:
        if isinstance(value, str | dt.date) or math.isfinite(value):
            # Also refuses numbers that are too large for it.
            pl.lit(value)
            return value
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
        pass
    raise DefinitionError(f"A check compares with finite numbers, text, dates and datetimes, not with {value!r}.")


def _require_order(lower: Any, upper: Any) -> None:
    try:
        if not lower <= upper:
            raise DefinitionError(f"Nothing is between {lower!r} and {upper!r}: the lower bound comes first.")
    except TypeError:
        raise DefinitionError(f"{lower!r} and {upper!r} are of two kinds: no value is between them.") from None


def _comparable(column: str, value: Any) -> pl.Expr:
    """A column in the form in which it is compared with a value."""
    values = _column(column)
    if isinstance(value, dt.datetime):
        # As they are stored: Polars would round the value to the unit of the column.
        return values.dt.cast_time_unit("us").dt.convert_time_zone("UTC")
    return values.dt.date() if isinstance(value, dt.date) else values


def _verdict(name: str, check: Check, frame: pl.DataFrame, feature: str) -> CheckResult:
    try:
        holds = frame.select(check.expression.alias("holds"))["holds"]
    except pl.exceptions.PolarsError as error:
        what = str(error).strip().partition("\n")[0]
        raise DataError(f"Check {name!r} of feature {feature!r} cannot be evaluated: {what}") from error
    if holds.dtype != pl.Boolean or len(holds) not in (1, len(frame)):
        raise DataError(f"Check {name!r} of feature {feature!r} gives {holds.dtype}, not a Boolean for each row.")
    # An aggregate such as pl.col("amount").mean() > 0 is one verdict on all rows.
    failing = frame.filter(~holds) if len(holds) == len(frame) else frame.clear() if holds[0] is not False else frame
    return CheckResult(
        name=name,
        severity=check.severity,
        rows=len(frame),
        failed=len(failing),
        examples=failing.head(EXAMPLES).to_dicts(),
    )
