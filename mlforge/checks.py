"""Checks: named Polars expressions that data has to satisfy, and their verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from mlforge.errors import CheckFailedError, DataError, DefinitionError

Severity = Literal["error", "warn"]
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


def _verdict(name: str, check: Check, frame: pl.DataFrame, feature: str) -> CheckResult:
    try:
        holds = frame.select(check.expression.alias("holds"))["holds"]
    except pl.exceptions.PolarsError as error:
        raise DataError(f"Check {name!r} of feature {feature!r} cannot be evaluated: {error}") from error
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
