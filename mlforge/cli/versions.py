"""`mlforge versions`, `diff`, `rollback` and `vacuum`: the history of a feature's table."""

from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from mlforge.cli import output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlforge.diff import Diff

VERSIONS_EXAMPLES = """Examples:
  mlforge versions user_spend
  mlforge versions user_spend --json"""
DIFF_EXAMPLES = """Examples:
  mlforge diff user_spend 1.0.3 1.1.0
  mlforge diff user_spend 1.0.3 1.1.0 --json"""
ROLLBACK_EXAMPLES = """Examples:
  mlforge rollback user_spend 1.0.3
  mlforge rollback user_spend 1.0.3 --yes"""
VACUUM_EXAMPLES = """Examples:
  mlforge vacuum --dry-run
  mlforge vacuum --features user_spend --keep-days 7
  mlforge vacuum --yes"""
# How many kept versions, and how many values of a row, a line has room for.
NAMED, SHOWN = 10, 5


def register(app: App) -> None:
    """Adds the commands."""
    app.command(versions, usage="Usage: mlforge versions FEATURE [OPTIONS]", help_epilogue=VERSIONS_EXAMPLES)
    app.command(diff, usage="Usage: mlforge diff FEATURE BEFORE AFTER [OPTIONS]", help_epilogue=DIFF_EXAMPLES)
    app.command(rollback, usage="Usage: mlforge rollback FEATURE VERSION [OPTIONS]", help_epilogue=ROLLBACK_EXAMPLES)
    app.command(vacuum, help_epilogue=VACUUM_EXAMPLES)


def versions(feature: str, /, *, definitions: str | None = None, json: bool = False) -> int:
    """List the versions of a feature, the newest first.

    Made by is full or partial for builds, rollback, vacuum start and vacuum end for a vacuum, or what somebody else did
    to the table, such as optimize; these leave the rows as they were. Where a vacuum has deleted files of old versions,
    readable says which versions still have all of theirs.

    Args:
        feature: The name of the feature.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON array.
    """
    with output.working("looking"):
        from mlforge import loader

        found = loader.find(definitions).versions(feature)
    if json:
        output.write_json(found)
    else:
        vacuumed = any(each.readable is False for each in found)
        rows = [
            {
                "version": each.version,
                "committed": output.moment(each.committed_at.replace(microsecond=0)),
                "made by": each.kind if each.restored is None else f"{each.kind} to {each.restored}",
                "rows": f"{each.rows:,}",
                "definition": each.definition_hash[:8],
                **({"readable": "yes" if each.readable else "no"} if vacuumed else {}),
            }
            for each in found
        ]
        output.write_table(rows, numbers={"rows"})
    return 0


def diff(feature: str, before: str, after: str, /, *, definitions: str | None = None, json: bool = False) -> int:
    """Show what changed from one version of a feature to another: columns, definition, rows and values.

    Rows are told apart by keys and timestamp. Of a definition no more is recorded than whether it changed, and its
    keys, timestamp and max_age. Of a row up to five values are shown, with --json all.

    Args:
        feature: The name of the feature.
        before: The one version, as in 1.0.3.
        after: The other.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON object.
    """
    with output.working("comparing"):
        from mlforge import loader

        found = loader.find(definitions).diff(feature, before, after)
    if json:
        output.write_json(found)
    else:
        output.write("\n".join(_changes(found)))
    return 0


def rollback(
    feature: str, version: str, /, *, yes: bool = False, definitions: str | None = None, json: bool = False
) -> int:
    """Make a new version of a feature with the rows, columns and definition of an earlier one; asks first.

    What is online follows at the next `mlforge build --online`. Builds leave the feature rolled back until its data or
    its definition change, or they are forced.

    Args:
        feature: The name of the feature.
        version: The earlier version, as in 1.0.3.
        yes: Do not ask.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON object.
    """
    with output.working("loading the definitions"):
        from mlforge import loader

        defs = loader.find(definitions)
        newest = defs.versions(feature)[0].version
        earlier = defs.store.open_version(feature, version).version
    if not yes and earlier != newest:
        question = f"Take {feature} back from {newest} to {earlier}?"
        would = f"{feature} would go back from {newest} to {earlier}"
        if not output.agreed(question, would, "nothing was rolled back."):
            return 1
    with output.working(f"rolling {feature} back", lambda _: f"interrupted: {feature} is rolled back, or as it was."):
        report = defs.rollback(feature, version)
    if json:
        output.write_json(report)
    elif report.outcome == "current":
        which = "is the newest version" if version == report.version else f"is {report.version}, the newest version"
        output.write(f"{feature}: {version} {which}, so nothing was done.")
    else:
        output.write(
            f"{feature}: {report.version} is now what {version} was, {report.rows:,} rows. `mlforge build --online` "
            f"takes it online."
        )
    return 0


def vacuum(
    *,
    features: list[str] | None = None,
    keep_days: Annotated[int, Parameter(validator=Number(gte=0, lte=36_500))] = 30,
    dry_run: bool = False,
    yes: bool = False,
    definitions: str | None = None,
    json: bool = False,
) -> int:
    """Delete the files that only old versions of features need; these can then no longer be read. Asks first.

    Kept are the newest version, those that were the newest within the last days, those that are online, those that are
    pinned, and the one that a rollback has left.

    Args:
        features: Which features, separated by commas or given several times; all that are built by default.
        keep_days: For how many days a version is kept after it was replaced; 30 by default.
        dry_run: Delete nothing; show what would be deleted, and which versions are kept for sure.
        yes: Do not ask.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print one JSON array.
    """
    with output.working("vacuuming"):
        from mlforge import loader

        keep = timedelta(days=keep_days)
        run = partial(loader.find(definitions).vacuum, output.names(features) or None, keep=keep)
        reports = run(dry_run=dry_run or not yes)
    if not yes and not dry_run and (files := sum(each.files for each in reports)):
        what = f"{files:,} files of old versions, {sum(each.bytes for each in reports):,} bytes,"
        if not output.agreed(f"Delete {what} for ever?", f"{what} would be deleted for ever", "nothing was deleted."):
            return 1
        with output.working("vacuuming", lambda _: "interrupted: a further vacuum deletes what is left."):
            reports = run()
    if json:
        output.write_json(reports)
    elif not reports:
        output.write("There are no features that are built.")
    else:
        counts = ("versions", "kept", "files", "bytes")
        rows = [{"feature": each.feature} | {name: f"{getattr(each, name):,}" for name in counts} for each in reports]
        output.write_table(rows, numbers=counts)
        if dry_run:
            output.write("Nothing was deleted: this is what a vacuum would delete.")
            for each in reports:
                more = f" and {len(each.kept_versions) - NAMED:,} older ones" if len(each.kept_versions) > NAMED else ""
                output.write(f"{each.feature} keeps {', '.join(each.kept_versions[:NAMED])}{more}.")
    return 0


def _changes(found: "Diff") -> list[str]:
    if found.same:
        return [f"{found.feature}: nothing changed from {found.before} to {found.after}."]
    lines = [f"{found.feature}, from {found.before} to {found.after}"]
    lines += [f"  column {name} was added: {dtype}" for name, dtype in found.columns_added.items()]
    lines += [f"  column {name} was removed: {dtype}" for name, dtype in found.columns_removed.items()]
    lines += [f"  column {name} was {old}, is {new}" for name, (old, new) in found.columns_retyped.items()]
    lines.append(f"  the definition {'changed' if found.definition_changed else 'is the same'}")
    lines += [f"    {name}: {old} to {new}" for name, (old, new) in found.definition_parts.items()]
    lines.append(
        f"  {found.rows_before:,} rows became {found.rows_after:,}: {found.rows_added:,} added, "
        f"{found.rows_removed:,} removed, {found.rows_changed:,} with other values"
    )
    lines += [f"    {name}: {count:,} values" for name, count in found.values_changed.items()]
    for kind, examples in found.examples.items():
        for example in examples:
            row = ", ".join(f"{name}={value}" for name, value in example["row"].items())
            values = _values(example)
            more = [f"{len(values) - SHOWN:,} more"] if len(values) > SHOWN else []
            lines.append(f"  {kind}: {row}: {', '.join(values[:SHOWN] + more)}")
    return lines


def _values(example: "Mapping[str, Any]") -> list[str]:
    if "before" in example and "after" in example:
        old, new = example["before"], example["after"]
        # Columns that only one version has are named further up.
        return [f"{name}={old[name]} to {value}" for name, value in new.items() if name in old]
    side = example.get("before") or example.get("after") or {}
    return [f"{name}={value}" for name, value in side.items()]
