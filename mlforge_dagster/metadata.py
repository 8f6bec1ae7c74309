"""What Dagster's UI shows of a build and of a sync; numbers stay numbers, so that they can be plotted."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from mlforge.build import BuildReport
from mlforge.store.snapshot import Snapshot
from mlforge.sync import SyncReport
from mlforge.verdicts import CheckResult

PREVIEW_ROWS = 20
# An event is shown in lists: beyond these, columns are only counted.
PREVIEW_COLUMNS = 12
LONGEST_CELL = 60
SEVERITY = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def of_build(report: BuildReport, snapshot: Snapshot) -> dict[str, Any]:
    """The metadata of an offline materialisation; what is in the table is only looked at where it is new.

    Args:
        report: What the build did.
        snapshot: The table at the version that is there now.
    """
    shown: dict[str, Any] = {
        "dagster/row_count": report.rows,
        "dagster/column_schema": column_schema(snapshot),
        "dagster/uri": snapshot.location,
        "version": report.version,
        "outcome": report.outcome,
        "left_out": report.left_out,
        "seconds": round(report.seconds, 3),
    }
    if report.outcome == "built":
        # It reads the whole history, which is the same as before where nothing was built.
        shown |= _content(snapshot)
    if report.events is not None:
        shown["events"] = f"{report.events.start.isoformat()} to {report.events.end and report.events.end.isoformat()}"
    if report.reason:
        shown["reason"] = report.reason
    return shown


def _content(snapshot: Snapshot) -> dict[str, Any]:
    numbers: dict[str, Any] = {"entities": pl.struct(list(snapshot.record.keys)).n_unique()}
    if (timestamp := snapshot.record.timestamp) is not None:
        numbers |= {"first": pl.col(timestamp).min(), "last": pl.col(timestamp).max()}
    nulls = {
        f"null_rate/{name}": pl.col(name).is_null().mean() for name in list(snapshot.value_schema)[:PREVIEW_COLUMNS]
    }
    found = snapshot.collect(snapshot.scan().select(**numbers, **nulls)).row(0, named=True)
    shown = {"entities": found["entities"], "preview": dg.MetadataValue.md(preview(snapshot))}
    for name in ("first", "last"):
        if found.get(name) is not None:
            shown[name] = dg.MetadataValue.timestamp(found[name])
    return shown | {name: round(found[name], 6) for name in nulls if found[name] is not None}


def of_sync(report: SyncReport) -> dict[str, Any]:
    """The metadata of an online materialisation."""
    shown: dict[str, Any] = {
        "mode": report.mode,
        "version": report.version,
        "as_of": dg.MetadataValue.timestamp(report.as_of),
        "written": report.written,
        "deleted": report.deleted,
        "unchanged": report.unchanged,
        "entities": report.written + report.unchanged,
        "bytes": report.bytes,
        "seconds": round(report.seconds, 3),
    }
    return shown | ({"reason": report.reason} if report.reason else {})


def of_check(result: CheckResult) -> dict[str, Any]:
    """The metadata of a check's verdict."""
    shown: dict[str, Any] = {"rows": result.rows, "failed": result.failed}
    if result.examples:
        shown["examples"] = dg.MetadataValue.md(_table([dict(row) for row in result.examples]))
    return shown


def column_schema(snapshot: Snapshot) -> dg.TableSchema:
    """The stored columns and their dtypes."""
    return dg.TableSchema([dg.TableColumn(name, str(dtype)) for name, dtype in snapshot.schema.items()])


def preview(snapshot: Snapshot) -> str:
    """Some rows of the newest month, as Markdown."""
    months = sorted(snapshot.files)[-1:]
    rows = snapshot.collect(snapshot.scan(months=months).head(PREVIEW_ROWS))
    return _table(rows.select(rows.columns[:PREVIEW_COLUMNS]).to_dicts()) if len(rows) else "no rows"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [[str(name) for name in rows[0]], ["---"] * len(rows[0])]
    lines += [[_cell(value) for value in row.values()] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    text = "" if value is None else str(value).replace("|", r"\|").replace("\n", " ")
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}..."
