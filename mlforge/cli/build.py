"""`mlforge build`: computes features, and copies them online."""

from typing import TYPE_CHECKING

from cyclopts import App

from mlforge.cli import output

if TYPE_CHECKING:
    from mlforge.build import BuildReport

EXAMPLES = """Examples:
  mlforge build
  mlforge build --features user_spend,store_sales --online
  mlforge build --online --as-of 2018-01-02T00:00:00Z"""


def register(app: App) -> None:
    """Adds the command."""
    app.command(build, help_epilogue=EXAMPLES)


def build(
    *,
    features: list[str] | None = None,
    online: bool = False,
    as_of: str | None = None,
    force: bool = False,
    definitions: str | None = None,
    json: bool = False,
) -> int:
    """Compute features offline and, with --online, copy the values that hold now to the online store.

    A feature whose data and definition have not changed is skipped, but still copied online: time moves its windows.

    Args:
        features: Which features, separated by commas or given several times; all by default.
        online: Copy to the online store as well.
        as_of: The instant whose values go online, in ISO 8601 (UTC unless it says otherwise); by default the as_of
            of the Definitions, or else now.
        force: Compute even where neither the data nor the definition has changed.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print the reports as one JSON array.
    """
    with output.working("loading the definitions"):
        from mlforge import loader
        from mlforge.errors import MlforgeError, RequestError

        if as_of is not None and not online:
            raise RequestError("--as-of says what goes online: write --online as well.")
        defs = loader.find(definitions)
        # Once, so that all features hold at the same instant.
        moment = defs.now(as_of)
        asked = [name.strip() for part in features or [] for name in part.split(",")]
        names = [defs.feature(name).name for name in dict.fromkeys(asked or defs.features)]
        if not names:
            raise RequestError(f"{defs.name!r} has no features to build: write one with @mlf.feature.")
    reports: list[BuildReport] = []
    try:
        for number, name in enumerate(names, start=1):
            with output.working(f"building {name} ({number} of {len(names)})"):
                try:
                    reports += defs.build(features=[name], online=online, as_of=moment, force=force)
                except MlforgeError as error:
                    if repr(name) not in f"{error}{getattr(error, '__notes__', '')}":
                        error.add_note(f"(Feature {name!r}.)")
                    raise
    finally:
        # What was done before a failure is done: it is shown whatever comes after.
        _render(reports, json=json)
    return 0


def _render(reports: "list[BuildReport]", *, json: bool) -> None:
    if json:
        output.write_json([_plain(report) for report in reports])
    elif reports:
        _table(reports)


def _plain(report: "BuildReport") -> dict[str, object]:
    from dataclasses import asdict

    plain = asdict(report)
    for check, result in zip(plain["checks"], report.checks, strict=True):
        check["passed"] = result.passed
    return plain


def _table(reports: "list[BuildReport]") -> None:
    moments = {output.moment(report.online.as_of) for report in reports if report.online}
    hidden = {
        "left out": not any(report.left_out for report in reports),
        "online": not moments,
        "removed": not any(report.online.deleted for report in reports if report.online),
        "as of": len(moments) < 2,
    }
    numbers = {"rows", "left out", "online", "removed", "seconds"}
    rows = [{name: cell for name, cell in _row(report).items() if not hidden.get(name)} for report in reports]
    columns = {name: "right" if name in numbers else "left" for name in rows[0]}
    output.write_table(columns, [list(row.values()) for row in rows])
    if len(moments) == 1:
        output.write(f"What is online holds as of {moments.pop()}.")
    for report in reports:
        for check in report.checks:
            if not check.passed:
                examples = "; ".join(str(dict(example)) for example in check.examples)
                output.write(
                    f"{report.feature}: the check {check.name!r} failed for {check.failed:,} of {check.rows:,} rows "
                    f"(severity {check.severity}), such as {examples}"
                )


def _row(report: "BuildReport") -> dict[str, str]:
    return {
        "feature": report.feature,
        "outcome": report.outcome,
        "version": report.version,
        "rows": f"{report.rows:,}",
        "left out": f"{report.left_out:,}",
        "checks": _verdict(report),
        "online": f"{report.online.written:,}" if report.online else "-",
        "removed": f"{report.online.deleted:,}" if report.online else "-",
        "as of": output.moment(report.online.as_of) if report.online else "-",
        "seconds": f"{report.seconds:.1f}",
    }


def _verdict(report: "BuildReport") -> str:
    if not report.checks:
        return "-"
    failed = sum(not check.passed for check in report.checks)
    return f"{len(report.checks) - failed} passed" + (f", {failed} failed" if failed else "")
