"""Checks: named Polars expressions that data has to satisfy, some of them ready-made.

```python
from mlforge import checks

checks={"amount is there": checks.not_null("amount"), "amount is sane": checks.between("amount", 0, 10_000)}
```
"""

import datetime as dt
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import polars as pl
import polars.selectors as cs

from mlforge.errors import DefinitionError, RequestError
from mlforge.instant import instant

Severity = Literal["error", "warn"]
# What the values of a column are compared with; a datetime is a date as well, and a Boolean an integer.
Value = int | float | Decimal | str | dt.date
_TIMES = cs.date() | cs.datetime()


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
    names = _names(columns, "not_null")
    finite = (cs.by_name(names, require_all=False) & cs.float()).is_finite()
    return Check(pl.all_horizontal(*(pl.col(name).is_not_null() for name in names), finite), severity, description)


def unique(*columns: str, severity: Severity = "error", description: str = "") -> Check:
    """No two rows have the same values in all of these columns; a row with a null in one of them passes.

    Raises:
        DefinitionError: Something is no column name.
    """
    names = _names(columns, "unique")
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
    Text in ISO 8601 is one of these where the column holds dates or datetimes.

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

    def inside(values: pl.Expr, least: Any, most: Any) -> pl.Expr:
        bounds = [] if least is None else [_comparable(values, least) >= pl.lit(least)]
        return pl.all_horizontal(*bounds, *([] if most is None else [_comparable(values, most) <= pl.lit(most)]))

    moments = _moments([bound for bound in (least, most) if bound is not None])
    if not moments:
        return Check(inside(_column(column), least, most), severity, description)
    first, last = None if least is None else moments[0], None if most is None else moments[-1]
    expression = _by_kind(
        column, _TIMES, lambda values: inside(values, first, last), lambda values: inside(values, least, most)
    )
    return Check(expression, severity, description)


def is_in(column: str, values: Collection[Value], *, severity: Severity = "error", description: str = "") -> Check:
    """Every value is one of these; nulls pass. Dates and texts are compared as in `between`.

    Args:
        column: The column.
        values: All of one type; of numbers any will do for a column of any other.
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

    def plain(values: pl.Expr) -> pl.Expr:
        return _comparable(values, known[0]).is_in(known)

    if moments := _moments(known):
        expression = _by_kind(column, _TIMES, lambda values: _comparable(values, moments[0]).is_in(moments), plain)
    elif isinstance(known[0], int | float | Decimal) and not isinstance(known[0], bool):
        # Polars looks for numbers only among those of the same kind.
        other = cs.integer() | cs.decimal() if isinstance(known[0], float) else cs.float()
        numbers = [float(value) for value in known]
        expression = _by_kind(column, other, lambda values: values.cast(pl.Float64).is_in(numbers), plain)
    else:
        expression = plain(_column(column))
    return Check(expression, severity, description)


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


def columns_of(check: Check) -> list[str]:
    """The columns that a check names.

    >>> columns_of(unique("user_id", "ts"))
    ['user_id', 'ts']
    """
    return list(dict.fromkeys(check.expression.meta.root_names()))


def _names(columns: Sequence[str], check: str = "") -> list[str]:
    if check and len(columns) == 1 and isinstance(columns[0], list | tuple):
        several = ", ".join(f'"{column}"' for column in columns[0])
        raise DefinitionError(f"{check} takes its columns one by one: write {check}({several}).")
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


def _moments(texts: Sequence[Any]) -> list[dt.date]:
    """The dates, or else the instants, that texts in ISO 8601 stand for; none where one of them is something else."""
    if not all(isinstance(text, str) for text in texts):
        return []
    try:
        return [dt.date.fromisoformat(text) for text in texts]
    except ValueError:
        pass
    try:
        return [instant(dt.datetime.fromisoformat(text)) for text in texts]
    except (ValueError, RequestError):
        return []


def _by_kind(
    column: str, kind: cs.Selector, special: Callable[[pl.Expr], pl.Expr], otherwise: Callable[[pl.Expr], pl.Expr]
) -> pl.Expr:
    """One condition on a column whose dtype is of a kind, another one where it is not; nulls pass."""
    column_itself = cs.by_name(_names([column]), require_all=False)
    holds = pl.all_horizontal(special(column_itself & kind), otherwise(column_itself - kind))
    # Named once more, so that a column that is missing is an error.
    return _column(column).is_null() | holds


def _comparable(values: pl.Expr, value: Any) -> pl.Expr:
    """Values in the form in which they are compared with a value."""
    if isinstance(value, dt.datetime):
        # As they are stored: Polars would round the value to the unit of the column.
        return values.dt.cast_time_unit("us").dt.convert_time_zone("UTC")
    return values.dt.date() if isinstance(value, dt.date) else values
