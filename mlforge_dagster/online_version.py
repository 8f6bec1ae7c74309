"""The data version of what is online: the feature's version, and the last instant at which time has changed values."""

import datetime as dt

from mlforge.duration import microseconds, origin
from mlforge.features import Feature
from mlforge.instant import EPOCH
from mlforge.store.snapshot import Snapshot


def online_version(feature: Feature, snapshot: Snapshot, version: str, as_of: dt.datetime) -> str:
    """The data version of what is online: another one whenever values may be others.

    It is the feature's version, and where there are times the last instant at which they may have changed values: with
    an interval its boundary at or before `as_of`, without one that at which a row began to hold or ceased to.

    Args:
        feature: The feature.
        snapshot: Its table.
        version: The version that is online.
        as_of: The instant at which what is online holds.
    """
    instant = _changed(snapshot, as_of) if feature.interval is None else boundary(feature.interval, as_of)
    return version if instant is None else f"{version}@{instant.isoformat()}"


def boundary(interval: str, instant: dt.datetime) -> dt.datetime:
    """The last multiple of an interval at or before an instant."""
    start, step = (dt.timedelta(microseconds=part) for part in (origin(interval), microseconds(interval)))
    return instant - (instant - EPOCH - start) % step


def _changed(snapshot: Snapshot, instant: dt.datetime) -> dt.datetime | None:
    found = snapshot.newest(instant)
    if (outlived := snapshot.outlived(instant)) is None or (ceased := snapshot.newest(outlived)) is None:
        return found
    return max(found or ceased, ceased + (instant - outlived))
