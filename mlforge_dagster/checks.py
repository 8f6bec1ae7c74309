"""Whether what is online is up to date, and right: the checks of an online asset."""

import datetime as dt

import dagster as dg

from mlforge.duration import microseconds, origin
from mlforge.features import Feature
from mlforge.online import OnlineStore
from mlforge.store.base import Store
from mlforge.verify import verify

IN_SYNC, PARITY = "in_sync", "parity"
SAMPLE = 1_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def boundary(feature: Feature, instant: dt.datetime) -> dt.datetime:
    """The last instant at which time alone may have changed values: the end of a window at or before this one."""
    if feature.interval is None:
        return instant
    start, step = (
        dt.timedelta(microseconds=part) for part in (origin(feature.interval), microseconds(feature.interval))
    )
    return instant - (instant - _EPOCH - start) % step


def online_version(feature: Feature, version: str, as_of: dt.datetime) -> str:
    """The data version of what is online: the same for as long as the values are."""
    return f"{version}@{boundary(feature, as_of).isoformat()}"


def in_sync(feature: Feature, store: Store, online_store: OnlineStore, *, now: dt.datetime) -> dg.AssetCheckResult:
    """Whether the newest version is online, completely, and as of the last boundary."""
    snapshot, status = store.require(feature.name), online_store.status(feature.name)
    wanted = online_version(feature, snapshot.version, now)
    if status is None or not status.synced:
        return dg.AssetCheckResult(passed=False, description="Nothing is online.", metadata={"offline": wanted})
    found = online_version(feature, status.version, status.as_of)
    late = status.next_change is not None and status.next_change <= now
    passed = status.state == "complete" and status.version == snapshot.version and not late
    return dg.AssetCheckResult(
        passed=passed, metadata={"offline": wanted, "online": found, "state": status.state, "rows": status.rows}
    )


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
