"""How the verdicts of checks are shown."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlforge.build import BuildReport
    from mlforge.validate import ValidationReport
    from mlforge.verdicts import CheckResult


def summary(checks: "Sequence[CheckResult]") -> str:
    """How many passed and failed, for a cell of a table."""
    if not checks:
        return "-"
    failed = sum(not check.passed for check in checks)
    return f"{len(checks) - failed} passed" + (f", {failed} failed" if failed else "")


def failures(feature: str, checks: "Sequence[CheckResult]") -> Iterator[str]:
    """A line for each check that failed, and one for each of some of the rows."""
    from mlforge.verdicts import shown

    for check in checks:
        if not check.passed:
            yield (
                f"{feature}: the check {check.name!r} failed for {check.failed:,} of {check.rows:,} rows "
                f"(severity {check.severity}), such as"
            )
            yield from (f"  {shown(example)}" for example in check.examples)


def plain(report: "BuildReport | ValidationReport") -> dict[str, Any]:
    """A report with its verdicts, for JSON."""
    from dataclasses import asdict

    found = asdict(report)
    for check, result in zip(found["checks"], report.checks, strict=True):
        check["passed"] = result.passed
    return found
