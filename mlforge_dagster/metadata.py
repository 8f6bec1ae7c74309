"""What Dagster's UI shows of a build and of a sync; numbers stay numbers, so that they can be plotted."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import polars as pl

from mlforge.build import BuildReport
from mlforge.instant import instant
from mlforge.store.snapshot import Snapshot
from mlforge.sync import SyncReport
from mlforge.verdicts import CheckResult
from mlforge_dagster.translator import identifier

PREVIEW_ROWS = 20
# An event is shown in lists: beyond these, columns are only counted.
PREVIEW_COLUMNS = 12
LONGEST_CELL = 60
# Beyond these columns, or letters of their names together, there is no schema.
SCHEMA_COLUMNS, SCHEMA_LETTERS = 80, 4_000
_MICROSECOND = dt.timedelta(microseconds=1)
SEVERITY = {"error": dg.AssetCheckSeverity.ERROR, "warn": dg.AssetCheckSeverity.WARN}


def of_build(report: BuildReport, snapshot: Snapshot) -> dict[str, Any]:
    """The metadata of an offline materialisation; what is in the table is only looked at where it is new.

    Args:
        report: What the build did.
        snapshot: The table at the version that is there now.
    """
    shown: dict[str, Any] = {
        "dagster/row_count": snapshot.row_count,
        "dagster/uri": snapshot.location,
        "version": report.version,
        "outcome": report.outcome,
        "left_out": report.left_out,
        "seconds": round(report.seconds, 3),
    } | _schema(snapshot.schema)
    if report.outcome == "built":
        # It reads the whole history, which is the same as before where nothing was built.
        shown |= _content(snapshot)
    if report.events is not None:
        end = "on" if report.events.end is None else f"to {report.events.end.isoformat()}"
        shown["events"] = f"{report.events.start.isoformat()} {end}"
    if report.reason:
        shown["reason"] = report.reason
    return shown


def _content(snapshot: Snapshot) -> dict[str, Any]:
    nulls = {
        f"null_rate/{name}": pl.col(name).is_null().mean().round(6)
        for name in list(snapshot.value_schema)[:PREVIEW_COLUMNS]
    }
    return _facts(snapshot, snapshot.scan(), nulls) | {"preview": dg.MetadataValue.md(_preview(snapshot))}


def _facts(snapshot: Snapshot, rows: pl.LazyFrame, others: Mapping[str, pl.Expr]) -> dict[str, Any]:
    """Of some rows how many entities there are, their first and last time, and what else is asked for; no nulls."""
    asked = {"entities": pl.struct(list(snapshot.record.keys)).n_unique(), **others}
    if (timestamp := snapshot.record.timestamp) is not None:
        asked |= {"first": pl.col(timestamp).min(), "last": pl.col(timestamp).max()}
    found = snapshot.collect(rows.select(**asked)).row(0, named=True)
    return {
        name: dg.MetadataValue.timestamp(value) if isinstance(value, dt.datetime) else value
        for name, value in found.items()
        if value is not None
    }


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


def of_partition(snapshot: Snapshot, window: dg.TimeWindow) -> dict[str, Any]:
    """The metadata of one partition among those that a run has built: what of the table is in it.

    Args:
        snapshot: The table after the build; it has a timestamp.
        window: When the partition begins and ends.
    """
    start, end = instant(window.start), instant(window.end)
    rows = snapshot.scan(after=start - _MICROSECOND, until=end - _MICROSECOND)
    found = _facts(snapshot, rows, {"rows": pl.len()})
    return {"dagster/partition_row_count": found.pop("rows")} | {
        f"partition/{name}": each for name, each in found.items()
    }


def of_online_columns(snapshot: Snapshot, offline: dg.AssetKey) -> dict[str, Any]:
    """The metadata of the columns that are online: each is the one of the same name in the offline table.

    What a feature's function makes of its source cannot be told column by column, so the offline asset has no lineage.

    Args:
        snapshot: The table.
        offline: Its asset.
    """
    shown = _schema(snapshot.value_schema)
    if "dagster/column_schema" in shown:
        same = {name: [dg.TableColumnDep(offline, name)] for name in snapshot.value_schema}
        shown["dagster/column_lineage"] = dg.TableColumnLineage(same)
    return shown


def _schema(columns: Mapping[str, pl.DataType]) -> dict[str, Any]:
    if len(columns) > SCHEMA_COLUMNS or sum(map(len, columns)) > SCHEMA_LETTERS:
        return {"columns": len(columns)}
    return {"dagster/column_schema": dg.TableSchema([dg.TableColumn(name, str(of)) for name, of in columns.items()])}


def verdict(key: dg.AssetKey, result: CheckResult) -> dict[str, Any]:
    """What Dagster's `AssetCheckResult` and `AssetCheckEvaluation` take of a verdict on an asset."""
    return {
        "asset_key": key,
        "check_name": identifier(result.name),
        "passed": result.passed,
        "severity": SEVERITY[result.severity],
        "metadata": of_check(result),
    }


def of_check(result: CheckResult) -> dict[str, Any]:
    """The metadata of a check's verdict."""
    shown: dict[str, Any] = {"rows": result.rows, "failed": result.failed}
    if result.examples:
        shown["examples"] = dg.MetadataValue.md(_table(result.examples))
    return shown


def _preview(snapshot: Snapshot) -> str:
    """Some rows of the newest month, as Markdown."""
    months = sorted(snapshot.files)[-1:]
    rows = snapshot.collect(snapshot.scan(months=months).head(PREVIEW_ROWS))
    return _table(rows.to_dicts()) if len(rows) else "no rows"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(rows[0])[:PREVIEW_COLUMNS]
    lines = [[_cell(name) for name in names], ["---"] * len(names)]
    lines += [[_cell(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    text = "" if value is None else str(value).replace("|", r"\|").replace("\n", " ")
    return text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]}..."
