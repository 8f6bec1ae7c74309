"""`mlforge build`: computes features, and syncs them online."""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Group, Parameter

from mlforge import clock
from mlforge.cli import output, verdicts
from mlforge.cli.reporting import reporter

if TYPE_CHECKING:
    from mlforge.build import BuildReport
    from mlforge.sync import SyncReport

EXAMPLES = """Examples:
  mlforge build
  mlforge build --features user_spend,store_sales --online
  mlforge build --online --as-of 2018-01-02T00:00:00Z
  mlforge build --online --dry-run
  mlforge build --start 2018-01-01 --end 2018-01-02
  mlforge build --incremental --look-back 3d --online
  mlforge build --memory-limit 2GB
  mlforge build --online --report dagster"""
WHAT, ONLINE, HOW, CALL = (
    Parameter(group=Group.create_ordered(title))
    for title in ("What to build", "What goes online", "How to compute", "Definitions and output")
)


def register(app: App) -> None:
    """Adds the command."""
    app.command(build, help_epilogue=EXAMPLES)


def build(
    *,
    features: Annotated[list[str] | None, WHAT] = None,
    start: Annotated[str | None, WHAT] = None,
    end: Annotated[str | None, WHAT] = None,
    incremental: Annotated[bool, WHAT] = False,
    look_back: Annotated[str | None, WHAT] = None,
    force: Annotated[bool, WHAT] = False,
    online: Annotated[bool, ONLINE] = False,
    as_of: Annotated[str | None, ONLINE] = None,
    full: Annotated[bool, ONLINE] = False,
    allow_breaking: Annotated[bool, ONLINE] = False,
    dry_run: Annotated[bool, ONLINE] = False,
    memory_limit: Annotated[str | None, HOW] = None,
    engine: Annotated[Literal["polars", "duckdb", "spark"] | None, HOW] = None,
    definitions: Annotated[str | None, CALL] = None,
    json: Annotated[bool, CALL] = False,
    report: Annotated[str | None, CALL] = None,
) -> int:
    """Compute features offline and, with --online, make the online store hold the values that hold now.

    A feature whose data and definition have not changed is skipped, but still synced online: time moves its windows.
    Online, only what differs is written, unless what is there cannot be relied on. The exit code is 1 where what is
    online is of a later version or instant, so that the sync was refused.

    Args:
        features: Which features, separated by commas or given several times; all by default.
        online: Sync the online store as well.
        as_of: The instant whose values go online, in ISO 8601 (UTC unless it says otherwise); by default the as_of
            of the Definitions, or else now.
        start: Only events from this instant on are new or have changed; reads and replaces no more than that needs.
        end: Only events before this instant are.
        incremental: Only events that are at most --look-back earlier than the last one that was built are new.
        look_back: How late events may come, as in 3d; a day by default.
        force: Compute even where neither the data nor the definition has changed; online, go back to an earlier
            version or instant, or take over what another project has written.
        full: Write every entity online, not only those whose values differ.
        allow_breaking: Go online although columns that are there went away or have other types.
        dry_run: Build and write nothing; show what a sync of the version that is built would do.
        memory_limit: How much memory to take, as in 2GB: what does not fit goes to disk; by default the limit of the
            Definitions, or else what there is.
        engine: What runs the functions of features that name no engine; by default the engine of the Definitions.
        definitions: The file with the Definitions, or file.py:name; by default what pyproject.toml names under
            [tool.mlforge], or else ./definitions.py.
        json: Print the reports as one JSON array.
        report: Tell others what was done: dagster is the instance of DAGSTER_HOME; or module:function, which is called
            with the Definitions before the builds, and what it returns with their reports after them.
    """
    with output.working("loading the definitions"):
        from mlforge import loader
        from mlforge.building import BuildRequest
        from mlforge.errors import CheckFailedError, MlforgeError, RequestError

        defs = loader.find(definitions)
        tell = None if report is None else reporter(report)(defs)
        if report is not None and not callable(tell):
            raise RequestError(f"--report {report} returns {tell!r}: it has to return what is called with the reports.")
        names = [feature.name for feature in defs.in_order(output.names(features) or None)]
        request = BuildRequest(
            online=online,
            as_of=as_of,
            start=start,
            end=end,
            incremental=incremental,
            look_back=look_back,
            force=force,
            full=full,
            allow_breaking=allow_breaking,
            dry_run=dry_run,
            memory_limit=memory_limit,
            engine=engine,
        )
        building = defs.building(names, request)
    reports: list[BuildReport] = []
    failed: list[CheckFailedError] = []
    try:
        for number, name in enumerate(names, start=1):
            which = f"{name} ({number} of {len(names)})"
            with output.working(f"building {which}", partial(_interrupted, which, dry_run=dry_run)):
                try:
                    reports.append(next(building))
                except MlforgeError as error:
                    if isinstance(error, CheckFailedError):
                        failed.append(error)
                    if repr(name) not in f"{error}{getattr(error, '__notes__', '')}":
                        error.add_note(f"(Feature {name!r}.)")
                    raise
    finally:
        # What was done before a failure is done: it is shown whatever comes after.
        _render(reports, json=json)
        if tell is not None:
            tell([*reports, *failed])
    return int(any(report.online is not None and report.online.mode == "stale" for report in reports))


def _interrupted(which: str, phase: str, *, dry_run: bool) -> str:
    """What a build leaves that is interrupted in a phase."""
    if dry_run:
        return f"interrupted while looking at {which}; nothing was built or written."
    left = "nothing of it was published"
    if phase == "publishing":
        left = "its new version is there as a whole, or not at all"
    elif phase == "syncing":
        left = "it is built offline, and what is online is as it was or marked as unfinished"
    return f"interrupted while {phase or 'beginning'} {which}: {left}. The next build goes on from there."


def _render(reports: "list[BuildReport]", *, json: bool) -> None:
    if json:
        output.write_json([verdicts.plain(report) for report in reports])
    elif reports:
        _table(reports)


def _table(reports: "list[BuildReport]") -> None:
    moments = {output.moment(report.online.as_of) for report in reports if report.online}
    hidden = {
        "left out": not any(report.left_out for report in reports),
        "removed": not any(report.online.deleted for report in reports if report.online),
        "kept": not any(report.online.unchanged for report in reports if report.online),
        "as of": len(moments) < 2,
    } | dict.fromkeys(("online", "written") if not moments else (), True)
    numbers = {"rows", "left out", "written", "removed", "kept", "seconds"}
    rows = [{name: cell for name, cell in _row(report).items() if not hidden.get(name)} for report in reports]
    output.write_table(rows, numbers=numbers)
    dry = any(report.online.dry_run for report in reports if report.online)
    if len(moments) == 1:
        output.write(f"What {'would be' if dry else 'is'} online holds as of {moments.pop()}.")
    if dry:
        output.write("Nothing was built or written: this is what a sync would do.")
    for report in reports:
        if report.reason:
            output.write(f"{report.feature}: all of it was built, since {report.reason}.")
        elif report.events is not None:
            end = "on" if report.events.end is None else f"to {output.moment(report.events.end)}"
            output.write(f"{report.feature}: events from {output.moment(report.events.start)} {end}.")
        if report.online is not None:
            _remarks(report.feature, report.online)
        for line in verdicts.failures(report.feature, report.checks):
            output.write(line)
    if len(reports) > 1:
        output.write(_sum(reports))


def _sum(reports: "list[BuildReport]") -> str:
    """What was done to all features together."""
    outcomes = Counter(report.outcome for report in reports)
    parts = [f"{count:,} {outcome}" for outcome, count in outcomes.items()]
    synced = [report.online for report in reports if report.online]
    if synced:
        would = " would be" if synced[0].dry_run else ""
        parts.append(f"{sum(online.written for online in synced):,}{would} written online")
        if deleted := sum(online.deleted for online in synced):
            parts.append(f"{deleted:,}{would} removed")
    return f"{len(reports):,} features in {sum(report.seconds for report in reports):.1f} s: {', '.join(parts)}."


def _remarks(feature: str, online: "SyncReport") -> None:
    if online.mode == "stale":
        output.write(f"{feature}: refused, since {online.reason}; --force goes back.")
    elif online.reason:
        output.write(f"{feature}: everything is written, since {online.reason}.")
    if online.as_of > clock.now():
        when = output.moment(online.as_of)
        output.write(f"{feature}: what is online holds as of {when}, which is still to come; --force goes back to now.")


def _row(report: "BuildReport") -> dict[str, str]:
    online = report.online
    return {
        "feature": report.feature,
        "outcome": report.outcome,
        "version": report.version,
        "rows": f"{report.rows:,}",
        "left out": f"{report.left_out:,}",
        "checks": verdicts.summary(report.checks),
        "online": online.mode if online else "-",
        "written": f"{online.written:,}" if online else "-",
        "removed": f"{online.deleted:,}" if online else "-",
        "kept": f"{online.unchanged:,}" if online else "-",
        "as of": output.moment(online.as_of) if online else "-",
        "seconds": f"{report.seconds:.1f}",
    }
