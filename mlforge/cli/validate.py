"""`mlforge validate`: whether the data passes its checks, before anything is built."""

from typing import TYPE_CHECKING

from cyclopts import App

from mlforge.cli import output, verdicts

if TYPE_CHECKING:
    from mlforge.validate import ValidationReport

EXAMPLES = """Examples:
  mlforge validate
  mlforge validate --features user_spend,store_sales --json
  mlforge validate --shards 8"""


def register(app: App) -> None:
    """Adds the command."""
    app.command(validate, help_epilogue=EXAMPLES)


def validate(
    *,
    features: list[str] | None = None,
    shards: int | None = None,
    definitions: str | None = None,
    json: bool = False,
) -> int:
    """Run the functions and checks of features on their sources; the exit code is 1 where one fails.

    No window is computed, and no store is asked or written. A feature that cannot be run is reported, with what its
    function raises and where, and the others are still validated. A check of severity warn that fails is shown, and
    leaves the exit code at 0. Without --features, what a FeatureSet or a FeatureRef beside the Definitions names that
    does not exist is reported as well.

    Args:
        features: Which features, separated by commas or given several times; all by default.
        shards: Split the rows of each source by entity into so many parts as well, run the function on each, and see
            whether it returns the same: on Spark it has to.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON array.
    """
    with output.working("loading the definitions"):
        from mlforge import loader

        defs = loader.find(definitions)
        chosen = [defs.feature(name) for name in output.names(features) or defs.features]
    if not chosen and not json:
        output.write("There are no features.")
    reports: list[ValidationReport] = []
    try:
        for number, feature in enumerate(chosen, start=1):
            with output.working(f"validating {feature.name} ({number} of {len(chosen)})"):
                reports += defs.validate([feature.name], shards=shards)
    finally:
        # Whoever interrupts it is shown what was found before.
        _render(reports, json=json)
    # A set is of the whole project.
    lines = [] if features else defs.misnamed()
    for line in lines:
        output.complain(line)
    return int(bool(lines) or not all(report.passed for report in reports))


def _render(reports: "list[ValidationReport]", *, json: bool) -> None:
    if json:
        output.write_json([verdicts.plain(report) | {"passed": report.passed} for report in reports])
    elif reports:
        _table(reports)


def _table(reports: "list[ValidationReport]") -> None:
    numbers = {"rows", "left out", "seconds"}
    hidden = {"left out"} if not any(report.left_out for report in reports) else set()
    rows = [{name: cell for name, cell in _row(report).items() if name not in hidden} for report in reports]
    output.write_table(rows, numbers=numbers)
    for report in reports:
        if report.problem:
            output.write(f"{report.feature}: cannot be run: {report.problem}")
        for line in verdicts.failures(report.feature, report.checks):
            output.write(line)


def _row(report: "ValidationReport") -> dict[str, str]:
    return {
        "feature": report.feature,
        "outcome": "cannot be run" if report.problem else "passed" if report.passed else "failed",
        "rows": "-" if report.problem else f"{report.rows:,}",
        "left out": "-" if report.problem else f"{report.left_out:,}",
        "checks": verdicts.summary(report.checks),
        "seconds": f"{report.seconds:.1f}",
    }
