"""`mlforge status`, `mlforge verify` and `mlforge clear`: whether what is online can be trusted, and an end to it."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cyclopts import App

from mlforge.cli import output

if TYPE_CHECKING:
    from mlforge.freshness import Freshness
    from mlforge.verify import VerifyReport

STATUS_EXAMPLES = """Examples:
  mlforge status
  mlforge status --features user_spend --json
  mlforge status --max-age 2h"""
VERIFY_EXAMPLES = """Examples:
  mlforge verify
  mlforge verify --features user_spend --sample 1000"""
CLEAR_EXAMPLES = """Examples:
  mlforge clear user_spend
  mlforge clear user_spend --yes"""


def register(app: App) -> None:
    """Adds the commands."""
    app.command(status, help_epilogue=STATUS_EXAMPLES)
    app.command(verify, help_epilogue=VERIFY_EXAMPLES)
    app.command(clear, usage="Usage: mlforge clear FEATURE [OPTIONS]", help_epilogue=CLEAR_EXAMPLES)


def status(
    *,
    features: list[str] | None = None,
    max_age: str | None = None,
    definitions: str | None = None,
    json: bool = False,
) -> int:
    """Show what is online: which version, as of when, how old that is, how many entities, and their size.

    The state is complete; writing (a sync runs, or did not finish); dirty (written by hand since, or found to differ);
    expired (its time to live is over); absent (nothing says that anything is there).

    Args:
        features: Which features, separated by commas or given several times; all by default.
        max_age: Exit with code 1 where a feature is not complete or is older than this, as in 2h.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON array; ages are in seconds.
    """
    with output.working("looking"):
        from mlforge import loader
        from mlforge.duration import microseconds

        oldest = None if max_age is None else timedelta(microseconds=microseconds(max_age))
        found = loader.find(definitions).status(output.names(features) or None)
    if json:
        output.write_json([_plain(each) for each in found])
    elif not found:
        output.write("There are no features.")
    else:
        output.write_table([_row(each) for each in found], numbers={"entities", "bytes each"})
    return int(
        oldest is not None and any(each.age is None or each.age > oldest or each.state != "complete" for each in found)
    )


def verify(
    *,
    features: list[str] | None = None,
    as_of: str | None = None,
    sample: int | None = None,
    definitions: str | None = None,
    json: bool = False,
) -> int:
    """Compute again what should be online and compare; the exit code is 1 where anything differs.

    It is compared with what is built offline, at the version and the instant that the store says it holds. Where that
    differs, the next `mlforge build --online` writes all of that feature. Values whose time to live is over are
    counted as expired, which is no difference.

    Args:
        features: Which features, separated by commas or given several times; all by default.
        as_of: Compare with the newest version at this instant, in ISO 8601; by default with the version and the
            instant that the store says it holds.
        sample: Compare so many entities of each feature, chosen at random, and look for no others.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON array.
    """
    with output.working("verifying"):
        from mlforge import loader

        reports = loader.find(definitions).verify(output.names(features) or None, as_of=as_of, sample=sample)
    if json:
        output.write_json(reports)
    elif not reports:
        output.write("There are no features.")
    else:
        _verdicts(reports)
    return 0 if all(report.agrees for report in reports) else 1


def clear(feature: str, /, *, yes: bool = False, definitions: str | None = None, json: bool = False) -> int:
    """Take everything of a feature out of the online store, also of one that is no longer defined; asks first.

    Args:
        feature: The name of the feature.
        yes: Do not ask.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON object.
    """
    with output.working("loading the definitions"):
        from mlforge import loader

        store = loader.find(definitions).require_online_store()
        online = store.status(feature)
    whose = f", put there from {online.location}" if online is not None and online.synced else ""
    if not yes:
        where = f"out of {store!r}{whose}"
        would = f"All of {feature} would be taken {where}"
        if not output.agreed(f"Take all of {feature} {where}?", would, "nothing was taken out."):
            return 1
    with output.working(f"clearing {feature}", lambda _: f"interrupted: clear {feature} once more for what is left."):
        deleted = store.clear(feature)
    if json:
        output.write_json({"feature": feature, "deleted": deleted})
    else:
        output.write(f"{feature}: {deleted:,} entities were taken out.")
    return 0


def _plain(found: "Freshness") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(found) | {"age": None if found.age is None else found.age.total_seconds()}


def _row(found: "Freshness") -> dict[str, str]:
    return {
        "feature": found.feature,
        "built": found.built or "-",
        "online": found.version or "-",
        "state": found.state,
        "as of": "-" if found.as_of is None else output.moment(found.as_of),
        "age": "-" if found.age is None else str(found.age).split(".")[0],
        "next change": "-" if found.next_change is None else output.moment(found.next_change),
        "entities": "-" if found.rows is None else f"{found.rows:,}",
        "bytes each": "-" if found.bytes_per_entity is None else f"{found.bytes_per_entity:,.0f}",
    }


def _verdicts(reports: "list[VerifyReport]") -> None:
    counts = ["checked", "missing", "expired", "extra", "different"]
    if not any(report.expired for report in reports):
        counts.remove("expired")
    rows = [
        {
            "feature": report.feature,
            "outcome": "agrees" if report.agrees else "differs",
            "version": report.version,
            "as of": output.moment(report.as_of),
            **{count: f"{getattr(report, count):,}" for count in counts},
            "seconds": f"{report.seconds:.1f}",
        }
        for report in reports
    ]
    output.write_table(rows, numbers={*counts, "seconds"})
    for report in reports:
        for example in report.examples:
            keys = " ".join(f"{name}={value}" for name, value in example["entity"].items())
            values = [f"{name} {value}" for name, value in _differing(example).items()]
            output.write(f"{report.feature}: {example['problem']}: {keys}{': ' if values else ''}{', '.join(values)}")


def _differing(example: dict[str, Any]) -> dict[str, Any]:
    """What was expected and found, without the columns that agree."""
    expected, found = example.get("expected"), example.get("found")
    if isinstance(expected, dict) and isinstance(found, dict):
        names = [name for name in expected | found if expected.get(name, ...) != found.get(name, ...)]
        expected, found = ({name: of[name] for name in names if name in of} for of in (expected, found))
    return {name: value for name, value in (("expected", expected), ("found", found)) if value is not None}
