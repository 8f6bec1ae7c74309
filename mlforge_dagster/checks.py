"""Whether what is online is up to date, and right: the checks of an online asset."""

import datetime as dt
from typing import Any

import dagster as dg

from mlforge.features import Feature
from mlforge.online import OnlineStore
from mlforge.online.status import Status
from mlforge.store.base import Store
from mlforge.store.snapshot import Snapshot
from mlforge.verify import verify

IN_SYNC, PARITY = "in_sync", "parity"
DESCRIPTIONS = {
    IN_SYNC: "The newest version is online, as of now.",
    PARITY: "What is online is what the offline table says.",
}
SAMPLE = 1_000
# Without an interval a value may change at any microsecond; so often it is looked at.
CADENCE = dt.timedelta(minutes=5)


def behind(
    feature: Feature,
    snapshot: Snapshot | None,
    status: Status | None,
    *,
    now: dt.datetime,
    cadence: dt.timedelta = CADENCE,
    at_least_every: dt.timedelta | None = None,
) -> str | None:
    """Why what is online of a feature is not what it should be; None where it is, or nothing is built.

    Args:
        feature: The feature.
        snapshot: Its table at the newest version; None where it is not built.
        status: What is online; None where nothing is.
        now: The instant that it is.
        cadence: How often a feature without an interval follows the time.
        at_least_every: How old what is online may be where nothing has changed; None: as old as it is.
    """
    if snapshot is None:
        return None
    if status is None or not status.synced:
        return "nothing is online"
    if status.state != "complete":
        return f"it is {status.state}"
    if status.table_id != snapshot.table_id:
        return "the table was made again"
    if status.delta_version != snapshot.delta_version:
        return f"{snapshot.version} is built and {status.version} is online"
    if status.next_change is not None and status.next_change <= now:
        waits = feature.interval is None and now < status.as_of + cadence
        return None if waits else f"time has changed values at {status.next_change.isoformat()}"
    if at_least_every is not None and status.as_of + at_least_every <= now:
        return f"it was looked at last as of {status.as_of.isoformat()}"
    return None


def in_sync(feature: Feature, snapshot: Snapshot, status: Status | None, *, now: dt.datetime) -> dg.AssetCheckResult:
    """Whether the newest version is online, completely, and as of the last boundary."""
    reason = behind(feature, snapshot, status, now=now)
    shown: dict[str, Any] = {"offline": snapshot.version}
    if status is not None and status.synced:
        as_of = dg.MetadataValue.timestamp(status.as_of)
        shown |= {"online": status.version, "as_of": as_of, "state": status.state, "rows": status.rows}
    return dg.AssetCheckResult(passed=reason is None, description=reason, metadata=shown)


def parity(feature: Feature, store: Store, online_store: OnlineStore, *, now: dt.datetime) -> dg.AssetCheckResult:
    """Whether values that are online are what the offline table says, for some entities chosen at random."""
    report = verify(feature.name, store, online_store, now=now, sample=SAMPLE)
    numbers = {
        "checked": report.checked,
        "missing": report.missing,
        "extra": report.extra,
        "different": report.different,
    }
    return dg.AssetCheckResult(passed=report.agrees, metadata=numbers)
